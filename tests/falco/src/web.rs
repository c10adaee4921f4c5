//! Falco's web server: `/healthz`, `/versions`, `/metrics`. It shares its port with whoever else asks for that.

use crate::alert::Alerts;
use crate::config::WebServer;
use crate::fields::Catalogue;
use crate::log;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the pages are made from.
pub struct Pages {
    /// Rules, hashes, counters.
    pub alerts: Arc<Alerts>,
    /// Nanoseconds since 1970 at the start of the process.
    pub process_started: u128,
    /// Whether the event sources are open; `/metrics` waits for them.
    pub open: AtomicBool,
    /// Whether `/metrics` is kept back, asked at each request.
    pub withheld: Box<dyn Fn() -> bool + Send + Sync>,
    /// Events, those lost, and alerts lost, asked at each request.
    pub counts: Box<dyn Fn() -> [u64; 3] + Send + Sync>,
}

/// A running server; dropped, it closes its port.
pub struct Server {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Listens and serves in threads of its own.
    pub fn start(settings: &WebServer, pages: Arc<Pages>) -> io::Result<Self> {
        let address = SocketAddr::new(settings.address, settings.port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        let (stop, stopped) = UnixStream::pair()?;
        let healthz = settings.healthz.clone();
        let thread = std::thread::spawn(move || accept(&listener, &stopped, &pages, &healthz));
        Ok(Self { stop, thread: Some(thread), address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.write_all(b"s");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stopped: &UnixStream, pages: &Arc<Pages>, healthz: &str) {
    loop {
        let mut fds =
            [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            return;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        let (pages, healthz) = (Arc::clone(pages), healthz.to_owned());
        // A client that goes away half-way is its own problem.
        std::thread::spawn(move || serve(stream, &pages, &healthz));
    }
}

fn serve(stream: TcpStream, pages: &Pages, healthz: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let (status, kind, body) = match path {
        _ if method != "GET" && method != "HEAD" => ("404 Not Found", "text/plain", String::new()),
        path if path == healthz => ("200 OK", "application/json", "{\"status\": \"ok\"}".to_owned()),
        "/versions" => ("200 OK", "application/json", versions(Some(&pages.alerts)).to_string()),
        "/metrics" if serves_metrics(pages) => ("200 OK", "text/plain; version=0.0.4", metrics(pages)),
        _ => ("404 Not Found", "text/plain", String::new()),
    };
    let body_shown = if method == "HEAD" { "" } else { &body };
    let mut stream = stream;
    stream.write_all(
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body_shown}",
            body.len()
        )
        .as_bytes(),
    )
}

fn serves_metrics(pages: &Pages) -> bool {
    let config = &pages.alerts.loaded().config;
    config.metrics && config.web.prometheus && pages.open.load(Ordering::Acquire) && !(pages.withheld)()
}

/// The versions that this stands in for; `--version` runs before any plugin is loaded.
pub fn versions(alerts: Option<&Alerts>) -> serde_json::Value {
    let mut versions = json!({
        "default_driver_version": "0.0.0-local",
        "driver_api_version": "10.0.0",
        "driver_schema_version": "4.3.0",
        "engine_version": "62",
        "engine_version_semver": "0.62.0",
        "falco_version": "0.44.1",
        "libs_version": "0.0.0-local",
        "plugin_api_version": "3.12.0",
    });
    if let Some(alerts) = alerts {
        let catalogue = Catalogue::of(&alerts.loaded().config);
        let plugins: serde_json::Map<_, _> =
            catalogue.plugins().map(|(name, version)| (name.to_owned(), json!(version))).collect();
        if !plugins.is_empty()
            && let Some(versions) = versions.as_object_mut()
        {
            versions.insert("plugin_versions".to_owned(), plugins.into());
        }
    }
    versions
}

/// The page of metrics. Label values are not escaped, since Falco doesn't either.
fn metrics(pages: &Pages) -> String {
    let loaded = pages.alerts.loaded();
    let mut page = String::new();
    let mut sample = |name: &str, kind: &str, labels: &str, value: &str| {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(page, "# HELP {name} https://falco.org/docs/metrics/");
        let _ = writeln!(page, "# TYPE {name} {kind}");
        let _ = writeln!(page, "{name}{labels} {value}");
    };
    sample("falcosecurity_falco_version_info", "gauge", "version=\"0.44.1\"", "1");
    for (name, hashes) in [
        ("falcosecurity_falco_sha256_rules_files_info", &loaded.rules_hashes),
        ("falcosecurity_falco_sha256_config_files_info", &loaded.config_hashes),
    ] {
        for (path, hash) in hashes {
            let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            sample(name, "gauge", &format!("file_name=\"{file}\",sha256=\"{hash}\""), "1");
        }
    }
    let engine = format!("engine_name=\"{}\",evt_source=\"syscall\"", loaded.config.engine);
    sample("falcosecurity_scap_engine_name_info", "gauge", &engine, "1");
    let [events, events_lost, alerts_lost] = (pages.counts)();
    sample("falcosecurity_scap_n_evts_total", "counter", "", &events.to_string());
    sample("falcosecurity_scap_n_drops_total", "counter", "", &events_lost.to_string());
    sample("falcosecurity_falco_outputs_queue_num_drops_total", "counter", "", &alerts_lost.to_string());
    sample("falcosecurity_falco_reload_timestamp_nanoseconds", "gauge", "", &loaded.started.to_string());
    sample("falcosecurity_falco_start_timestamp_nanoseconds", "gauge", "", &pages.process_started.to_string());
    let running = log::nanoseconds().saturating_sub(pages.process_started) / 1_000_000_000;
    sample("falcosecurity_falco_duration_seconds_total", "counter", "", &running.to_string());
    if loaded.config.rule_counters {
        for (rule, count) in pages.alerts.matches() {
            let mut labels =
                format!("rule_name=\"{}\",priority=\"{}\",source=\"{}\"", rule.name, rule.priority, rule.source);
            for tag in &rule.tags {
                let _ = write!(labels, ",tag_{}=\"true\"", tag_label(tag));
            }
            sample("falcosecurity_falco_rules_matches_total", "counter", &labels, &count.to_string());
        }
    }
    page
}

/// Letters, digits and single underscores.
fn tag_label(tag: &str) -> String {
    let mut label = String::new();
    for c in tag.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if !(c == '_' && label.ends_with('_')) {
            label.push(c);
        }
    }
    label
}
