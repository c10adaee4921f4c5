//! A Prometheus beside a cluster. It finds the pods through the API server, by the chart's monitors.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::addresses::free_port;
use crate::cluster::Cluster;
use crate::process::Process;
use crate::tools::{Tool, Tools};
use crate::wait;

/// A running Prometheus. Dropping it ends it; its data goes with the cluster's folder.
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    log: PathBuf,
}

impl Prometheus {
    /// Starts one that scrapes the operator's pods of this cluster each second, with these rules files.
    pub fn start(cluster: &Cluster, rule_files: &[PathBuf]) -> Result<Self> {
        Self::start_with(cluster, &[], rule_files)
    }

    /// The same where the chart is installed with these further words on helm's command line.
    pub fn start_with(cluster: &Cluster, more: &[&str], rule_files: &[PathBuf]) -> Result<Self> {
        let tools = Tools::ensure(Tool::PROMETHEUS)?;
        let dir = cluster.dir().join("prometheus");
        fs::create_dir_all(&dir)?;
        let config = dir.join("prometheus.yaml");
        let configuration = configuration(&monitors(cluster, more)?, cluster.kubeconfig(), rule_files)?;
        // JSON is YAML.
        fs::write(&config, serde_json::to_string_pretty(&configuration)?)?;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free_port(Ipv4Addr::LOCALHOST)?);
        let command = [
            tools.path(Tool::Prometheus)?.display().to_string(),
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let log = dir.join("log");
        let process = Process::start(&command, &log, cluster.guardian())?;
        let prometheus = Self { process, address, log };
        wait::until("Prometheus is ready", Duration::from_mins(2), || {
            if let Some(exit) = prometheus.process.exited() {
                return Ok(Err(anyhow::anyhow!("Prometheus ended ({exit:?}):\n{}", prometheus.log())));
            }
            get(address, "/-/ready").map(|_| Ok(()))
        })??;
        Ok(prometheus)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks its API, such as `query` with `("query", "up")`; the `data` of the answer.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut target = format!("/api/v1/{path}?");
        for (name, value) in parameters {
            target.push_str(name);
            target.push('=');
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() {
                    target.push(char::from(byte));
                } else {
                    let _ = write!(target, "%{byte:02X}");
                }
            }
            target.push('&');
        }
        let answer: Value = serde_json::from_str(&get(self.address, &target)?)?;
        ensure!(answer["status"] == "success", "{path} {parameters:?}: {}", answer["error"]);
        Ok(answer["data"].clone())
    }
}

/// The body of a page, by plain HTTP.
pub fn get(address: SocketAddr, target: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // As of HTTP/1.0 the body ends with the connection.
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    // A query that is refused is told in the body.
    if status != "200" && !body.starts_with('{') {
        bail!("{target}: {status} {body}");
    }
    Ok(body.to_owned())
}

/// Runs promtool, with a text on its standard input; what it said, or an error with that if it found something.
pub fn promtool(args: &[&str], input: &str) -> Result<String> {
    let tools = Tools::ensure(&[Tool::Promtool])?;
    let mut command = tools.command(Tool::Promtool)?;
    let mut child = command
        .args(args)
        .current_dir(crate::tools::repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool could not be started")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "promtool {}: {}\n{said}", args.join(" "), out.status);
    Ok(said)
}

/// The chart's monitors, rendered for the release that tests install.
fn monitors(cluster: &Cluster, more: &[&str]) -> Result<Vec<Value>> {
    let on = "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true";
    let only = "templates/monitoring/monitors.yaml";
    let args = ["template", "fo1", "charts/falco-operator", "--namespace", "kube-system"];
    let text = cluster.helm(&[&args[..], &["--set", on, "--show-only", only], more].concat())?;
    let documents = serde_yaml::Deserializer::from_str(&text).map(serde::Deserialize::deserialize);
    Ok(documents.collect::<Result<_, _>>()?)
}

/// What the Prometheus operator makes of monitors.
fn configuration(monitors: &[Value], kubeconfig: &Path, rule_files: &[PathBuf]) -> Result<Value> {
    let jobs = monitors.iter().map(|monitor| job(monitor, kubeconfig)).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
        "rule_files": rule_files,
        "scrape_configs": jobs,
    }))
}

/// A Service is taken for its pods, which have its labels and its port's name: the pods' addresses here are of the loopback
/// interface, which no EndpointSlice may hold.
fn job(monitor: &Value, kubeconfig: &Path) -> Result<Value> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (spec, name) = (&monitor["spec"], word(&monitor["kind"]) + "/" + &word(&monitor["metadata"]["name"]));
    let endpoints = if name.starts_with("PodMonitor/") { &spec["podMetricsEndpoints"] } else { &spec["endpoints"] };
    let [endpoint] = endpoints.as_array().map(Vec::as_slice).unwrap_or_default() else {
        bail!("{name} has other than one endpoint")
    };
    let label = |from: &str, to: &str| json!({ "source_labels": [from], "target_label": to });
    let keep = |from: &str, value: &Value| json!({ "source_labels": [from], "regex": value, "action": "keep" });
    let mut relabelings = vec![keep("__meta_kubernetes_pod_phase", &json!("Running"))];
    ensure!(spec["selector"]["matchExpressions"].is_null(), "{name} selects by more than labels");
    for (key, value) in spec["selector"]["matchLabels"].as_object().into_iter().flatten() {
        let key = key.replace(|character: char| !character.is_ascii_alphanumeric(), "_");
        relabelings.push(keep(&format!("__meta_kubernetes_pod_label_{key}"), value));
    }
    relabelings.push(keep("__meta_kubernetes_pod_container_port_name", &endpoint["port"]));
    relabelings.push(label("__meta_kubernetes_namespace", "namespace"));
    relabelings.push(label("__meta_kubernetes_pod_name", "pod"));
    // For people who look on.
    relabelings.push(label("__meta_kubernetes_pod_label_app_kubernetes_io_component", "component"));
    for own in endpoint["relabelings"].as_array().into_iter().flatten() {
        relabelings.push(json!({ "source_labels": own["sourceLabels"], "target_label": own["targetLabel"] }));
    }
    let namespaces = match &spec["namespaceSelector"]["matchNames"] {
        Value::Null => json!([monitor["metadata"]["namespace"]]),
        names => names.clone(),
    };
    let find = json!({ "role": "pod", "kubeconfig_file": kubeconfig, "namespaces": { "names": namespaces } });
    Ok(json!({
        "job_name": name,
        "honor_labels": endpoint["honorLabels"],
        "kubernetes_sd_configs": [find],
        "relabel_configs": relabelings,
    }))
}
