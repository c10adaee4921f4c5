//! A Prometheus beside a cluster. It finds the pods through the API server, as the chart's monitors have one do it.

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
        let tools = Tools::ensure(Tool::PROMETHEUS)?;
        let dir = cluster.dir().join("prometheus");
        fs::create_dir_all(&dir)?;
        let config = dir.join("prometheus.yaml");
        // JSON is YAML.
        fs::write(&config, serde_json::to_string_pretty(&configuration(cluster.kubeconfig(), rule_files))?)?;
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

/// What the chart's PodMonitor and ServiceMonitor come to.
fn configuration(kubeconfig: &Path, rule_files: &[PathBuf]) -> Value {
    let label = |from: &str, to: &str| json!({ "source_labels": [from], "target_label": to });
    let keep = |from: &str, value: &str| json!({ "source_labels": [from], "regex": value, "action": "keep" });
    json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
        "rule_files": rule_files,
        "scrape_configs": [{
            "job_name": "falco-operator",
            "honor_labels": true,
            "kubernetes_sd_configs": [{ "role": "pod", "kubeconfig_file": kubeconfig }],
            "relabel_configs": [
                keep("__meta_kubernetes_pod_label_app_kubernetes_io_name", "falco-operator"),
                keep("__meta_kubernetes_pod_container_port_name", "http"),
                keep("__meta_kubernetes_pod_phase", "Running"),
                label("__meta_kubernetes_namespace", "namespace"),
                label("__meta_kubernetes_pod_name", "pod"),
                label("__meta_kubernetes_pod_label_app_kubernetes_io_component", "component"),
                label("__meta_kubernetes_pod_node_name", "node"),
            ],
        }],
    })
}
