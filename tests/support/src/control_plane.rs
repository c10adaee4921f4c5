//! etcd, the API server, the controller manager, the scheduler and kwok, as processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::addresses::{Addresses, free_port};
use crate::guardian::Guardian;
use crate::pki::Pki;
use crate::process::Process;
use crate::tools::{Tool, Tools};

/// What the audit log holds: every request, by whom and with what answer.
const AUDIT_POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// The annotation by which a node is taken out of kwok's hands: its power is cut.
pub const POWER: &str = "test-cluster/power";
/// Its value. (`off` would be a boolean to kwok's YAML reader.)
pub const CUT: &str = "cut";

/// A program of the control plane, which a test may stop and start again.
#[derive(Debug)]
pub struct Component {
    name: &'static str,
    command: Vec<String>,
    log: PathBuf,
    guardian: Arc<Guardian>,
    process: Mutex<Option<Process>>,
}

impl Component {
    fn new(tool: Tool, tools: &Tools, args: Vec<String>, logs: &Path, guardian: &Arc<Guardian>) -> Result<Self> {
        let mut command = vec![tools.path(tool)?.display().to_string()];
        command.extend(args);
        let log = logs.join(format!("{}.log", tool.name()));
        Ok(Self { name: tool.name(), command, log, guardian: guardian.clone(), process: Mutex::new(None) })
    }

    /// Starts it, unless it runs.
    pub fn start(&self) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if process.as_ref().is_none_or(|running| running.exited().is_some()) {
            *process = Some(Process::start(&self.command, &self.log, &self.guardian)?);
        }
        Ok(())
    }

    /// Kills it, and waits until it is gone.
    pub fn stop(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sends it a signal, for example `SIGSTOP`.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            process.signal_group(signal);
        }
    }

    /// The id of its process, while there is one.
    pub fn pid(&self) -> Option<i32> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().filter(|running| running.exited().is_none()).map(|running| running.pid().as_raw())
    }

    /// An error, with the end of its log, if it has ended.
    pub fn check(&self) -> Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = process.as_ref().and_then(Process::exited) {
            bail!("{} ended with {}:\n{}", self.name, exit.code, tail(&self.log, 20));
        }
        Ok(())
    }
}

/// The last lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// The whole of it.
#[derive(Debug)]
pub struct ControlPlane {
    /// In the order of starting.
    components: Vec<(Tool, Component)>,
    /// `host:port` of the API server.
    pub server: (String, u16),
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Where the API server writes what it was asked.
    pub audit_log: PathBuf,
}

impl ControlPlane {
    /// Writes configuration and starts all programs; the API server may not answer yet.
    pub fn start(
        dir: &Path,
        addresses: Addresses,
        tools: &Tools,
        ours: &[(String, String)],
        guardian: &Arc<Guardian>,
    ) -> Result<Self> {
        let ip = addresses.control_plane();
        let (client, peer, secure) = (free_port(ip)?, free_port(ip)?, free_port(ip)?);
        let logs = dir.join("logs");
        fs::create_dir_all(&logs)?;
        let pki = Pki::create(&dir.join("pki"))?;
        pki.serve(&[ip, addresses.kubernetes_service(), std::net::Ipv4Addr::LOCALHOST])?;
        let server = format!("https://{ip}:{secure}");
        let admin = pki.kubeconfig(&server, "admin", Some("system:masters"))?;
        let manager = pki.kubeconfig(&server, "system:kube-controller-manager", None)?;
        let scheduler = pki.kubeconfig(&server, "system:kube-scheduler", None)?;
        let kwok = pki.kubeconfig(&server, "kwok", Some("system:masters"))?;
        let audit_log = logs.join("audit.log");
        fs::write(dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
        fs::write(dir.join("kwok.yaml"), stages(tools, ours)?)?;
        let file = |name: &str| pki.path(name).display().to_string();
        let path = |path: &Path| path.display().to_string();

        let etcd = args(&[
            ("name", "test"),
            ("data-dir", &path(&dir.join("etcd"))),
            ("listen-client-urls", &format!("http://{ip}:{client}")),
            ("advertise-client-urls", &format!("http://{ip}:{client}")),
            ("listen-peer-urls", &format!("http://{ip}:{peer}")),
            ("initial-advertise-peer-urls", &format!("http://{ip}:{peer}")),
            ("initial-cluster", &format!("test=http://{ip}:{peer}")),
            ("unsafe-no-fsync", "true"),
            ("log-level", "warn"),
        ]);
        let apiserver = args(&[
            ("etcd-servers", &format!("http://{ip}:{client}")),
            ("bind-address", &ip.to_string()),
            ("secure-port", &secure.to_string()),
            // Only recorded in the endpoints of `kubernetes`; a loopback address is refused there, and without
            // one the API server does not start on a machine that has no default route.
            ("advertise-address", "192.0.2.1"),
            ("service-cluster-ip-range", &addresses.service_range()),
            ("tls-cert-file", &file("server.crt")),
            ("tls-private-key-file", &file("server.key")),
            ("client-ca-file", &file("ca.crt")),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", &file("sa.pub")),
            ("service-account-signing-key-file", &file("sa.key")),
            ("authorization-mode", "RBAC"),
            // Off by default, but on in OpenShift: the product's owner references must stand it.
            ("enable-admission-plugins", "OwnerReferencesPermissionEnforcement"),
            ("allow-privileged", "true"),
            ("audit-policy-file", &path(&dir.join("audit-policy.yaml"))),
            ("audit-log-path", &path(&audit_log)),
            ("audit-log-maxsize", "100000"),
            ("cert-dir", &path(&dir.join("pki"))),
        ]);
        let controller_manager = args(&[
            ("kubeconfig", &path(&manager)),
            ("authentication-kubeconfig", &path(&manager)),
            ("authorization-kubeconfig", &path(&manager)),
            ("secure-port", "0"),
            ("leader-elect", "false"),
            ("use-service-account-credentials", "true"),
            ("service-account-private-key-file", &file("sa.key")),
            ("root-ca-file", &file("ca.crt")),
        ]);
        let scheduling = args(&[
            ("kubeconfig", &path(&scheduler)),
            ("authentication-kubeconfig", &path(&scheduler)),
            ("authorization-kubeconfig", &path(&scheduler)),
            ("secure-port", "0"),
            ("leader-elect", "false"),
        ]);
        let nodes = args(&[
            ("kubeconfig", &path(&kwok)),
            ("manage-all-nodes", "true"),
            ("node-lease-duration-seconds", "40"),
            ("cidr", &addresses.kwok_range()),
            ("node-ip", &addresses.node().to_string()),
            ("config", &path(&dir.join("kwok.yaml"))),
        ]);
        let components = [
            (Tool::Etcd, etcd),
            (Tool::KubeApiserver, apiserver),
            (Tool::KubeControllerManager, controller_manager),
            (Tool::KubeScheduler, scheduling),
            (Tool::Kwok, nodes),
        ]
        .into_iter()
        .map(|(tool, args)| Ok((tool, Component::new(tool, tools, args, &logs, guardian)?)))
        .collect::<Result<Vec<_>>>()?;
        let plane = Self { components, server: (ip.to_string(), secure), kubeconfig: admin, audit_log };
        for tool in [Tool::Etcd, Tool::KubeApiserver] {
            plane.component(tool)?.start()?;
        }
        Ok(plane)
    }

    /// Starts what needs an API server that answers.
    pub fn start_clients(&self) -> Result<()> {
        for tool in [Tool::KubeControllerManager, Tool::KubeScheduler, Tool::Kwok] {
            self.component(tool)?.start()?;
        }
        Ok(())
    }

    /// One of the programs.
    pub fn component(&self, tool: Tool) -> Result<&Component> {
        let found = self.components.iter().find(|(its, _)| *its == tool);
        Ok(&found.with_context(|| format!("{} is no part of the control plane", tool.name()))?.1)
    }

    /// An error if a program that should run has ended.
    pub fn check(&self) -> Result<()> {
        self.components.iter().try_for_each(|(_, component)| component.check())
    }

    /// The ids of the programs that run.
    pub fn pids(&self) -> Vec<(&'static str, i32)> {
        self.components.iter().filter_map(|(tool, it)| Some((tool.name(), it.pid()?))).collect()
    }

    /// Stops everything, the clients first.
    pub fn stop(&self) {
        self.components.iter().rev().for_each(|(_, component)| component.stop());
    }
}

fn args(flags: &[(&str, &str)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// The stages that kwok's own module offers and that are used here.
const STAGES: [&str; 5] = [
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
];

/// kwok's stages: nodes become and stay Ready while their power is on; pods that the kubelet stand-in does not run
/// are Ready at once, complete if they belong to a Job, and go when deleted.
fn stages(tools: &Tools, ours: &[(String, String)]) -> Result<String> {
    let kept = tools.path(Tool::Kwok)?.with_file_name("stages.yaml");
    let text = if let Ok(text) = fs::read_to_string(&kept) {
        text
    } else {
        let text = stages_of_module()?;
        let mut file = tempfile::NamedTempFile::new_in(kept.parent().context("kwok has a folder")?)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.persist(&kept)?;
        text
    };
    let mut out = String::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut stage = serde_json::Value::deserialize(document)?;
        let kind = stage.pointer("/spec/resourceRef/kind").and_then(serde_json::Value::as_str).unwrap_or_default();
        let (key, value) = match (kind, ours.first()) {
            // A conjunction of labels can't be negated here: the first one decides.
            ("Pod", Some((label, value))) => (format!(".metadata.labels[{label:?}]"), value.as_str()),
            ("Pod", None) => continue,
            _ => (format!(".metadata.annotations[{POWER:?}]"), CUT),
        };
        let selector = stage.pointer_mut("/spec/selector").context("a stage of kwok selects nothing")?;
        if selector.get("matchExpressions").is_none() {
            selector["matchExpressions"] = serde_json::json!([]);
        }
        let expressions = selector["matchExpressions"].as_array_mut().context("expressions are a list")?;
        expressions.push(serde_json::json!({"key": key, "operator": "NotIn", "values": [value]}));
        out.push_str("---\n");
        out.push_str(&serde_yaml::to_string(&stage)?);
    }
    Ok(out)
}

/// Reads the stages from the pinned module, which is downloaded if it isn't there.
fn stages_of_module() -> Result<String> {
    // Go does not repeat a download that failed.
    let dir = crate::wait::until("kwok's stages are there", std::time::Duration::from_secs(30), || {
        let out = std::process::Command::new("go")
            .args(["mod", "download", "-json", "sigs.k8s.io/kwok"])
            .current_dir(crate::tools::repository().join("xtask/tools/kwok"))
            .output()
            .context("`go` could not be started; it says where kwok's stages are")?;
        let module: serde_json::Value = serde_json::from_slice(&out.stdout)
            .with_context(|| format!("`go mod download` said: {}", String::from_utf8_lossy(&out.stderr)))?;
        let dir = module["Dir"].as_str().context("`go mod download` names no folder for kwok")?;
        Ok(dir.to_owned())
    })?;
    let mut text = String::new();
    for file in STAGES {
        let path = Path::new(&dir).join("kustomize/stage").join(file);
        text.push_str("---\n");
        text.push_str(&fs::read_to_string(&path).with_context(|| format!("{} is needed", path.display()))?);
        text.push('\n');
    }
    Ok(text)
}
