//! A cluster: its life, its nodes, and what a test does with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::addresses::Addresses;
use crate::audit::{self, AuditEvent, Mark};
use crate::background::{block_on, handle};
use crate::control_plane::{CUT, ControlPlane, POWER};
use crate::guardian::Guardian;
use crate::kubelet::{Image, Kubelet, Machine};
use crate::tools::{Tool, Tools};
use crate::{proxy, wait};

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes there are at the start: `node-1`, `node-2`, …
    pub nodes: usize,
    /// The cluster's folder; a new temporary one if not given. It must not exist, and is removed in the end.
    pub dir: Option<PathBuf>,
    /// Leave the folder there in the end.
    pub keep: bool,
    /// The labels of the pods that run as real processes; kwok pretends the others. The first one decides for kwok,
    /// so a pod that has it and not the others never starts.
    pub pods: Vec<(String, String)>,
    /// What the images of those pods hold.
    pub images: Vec<Image>,
    /// The longest pause between two starts of a container that keeps ending (a kubelet's is five minutes).
    pub max_backoff: Duration,
    /// Files of each new node's disk: path on the node, text.
    pub node_files: BTreeMap<PathBuf, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            dir: None,
            keep: false,
            pods: vec![("app.kubernetes.io/name".into(), "falco-operator".into())],
            images: Vec::new(),
            max_backoff: Duration::from_secs(2),
            node_files: BTreeMap::new(),
        }
    }
}

/// How a node is to be.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Its labels, beside `kubernetes.io/hostname`.
    pub labels: BTreeMap<String, String>,
    /// The size of its disk in bytes, so that it can be filled; needs root. As large as the machine's if not given.
    pub disk: Option<u64>,
}

/// A running cluster. Dropping it ends and removes everything.
pub struct Cluster {
    // Dropped in this order: the pods' processes, the control plane, and then what watches over both.
    kubelet: Kubelet,
    plane: ControlPlane,
    tools: Tools,
    client: Client,
    dir: PathBuf,
    started_in: Duration,
    guardian: Arc<Guardian>,
    proxy: tokio::task::JoinHandle<()>,
    keep: bool,
}

impl Cluster {
    /// Builds what is missing, starts everything, and waits until every node is Ready.
    pub fn start(options: &Options) -> Result<Self> {
        let tools = Tools::ensure(Tool::CLUSTER)?;
        let begun = Instant::now();
        let (addresses, lock) = Addresses::take()?;
        let dir = match &options.dir {
            Some(dir) => dir.clone(),
            None => tempfile::Builder::new().prefix("falco-operator-").disable_cleanup(true).tempdir()?.keep(),
        };
        fs::create_dir_all(&dir).with_context(|| format!("the folder {} can't be made", dir.display()))?;
        let dir = dir.canonicalize()?;
        let keep = options.keep || std::env::var_os("FALCO_OPERATOR_KEEP").is_some();
        let guardian = Arc::new(Guardian::start(&dir, lock, keep)?);
        let plane = ControlPlane::start(&dir, addresses, &tools, &options.pods, &guardian)?;
        let client = client(&plane.kubeconfig, "test")?;
        wait::until("the API server is ready", Duration::from_mins(5), || {
            if let Err(ended) = plane.check() {
                return Ok(Err(ended));
            }
            let client = client.clone();
            block_on(async move {
                let ask = http_get(&client, "/readyz");
                tokio::time::timeout(Duration::from_secs(2), ask).await?
            })
            .map(Ok)
        })??;
        plane.start_clients()?;
        let kubelet = Kubelet::start(Machine {
            dir: dir.clone(),
            addresses,
            client: self::client(&plane.kubeconfig, "kubelet-stand-in")?,
            guardian: guardian.clone(),
            images: options.images.clone(),
            selector: options.pods.clone(),
            max_backoff: options.max_backoff,
            node_files: options.node_files.clone(),
            hosts: std::sync::Mutex::default(),
        })?;
        let proxy = handle()?.spawn(proxy::run(client.clone(), addresses, plane.server.clone()));
        let mut cluster =
            Self { kubelet, plane, tools, client, dir, started_in: Duration::ZERO, guardian, proxy, keep };
        let names: Vec<_> = (1..=options.nodes).map(|number| format!("node-{number}")).collect();
        for name in &names {
            cluster.create_node(name, &NodeOptions::default())?;
        }
        cluster.wait_for_nodes(&names)?;
        // Without it no pod is admitted.
        cluster.wait_for_service_account("default")?;
        cluster.started_in = begun.elapsed();
        Ok(cluster)
    }

    /// What watches over the processes.
    pub(crate) fn guardian(&self) -> &Arc<Guardian> {
        &self.guardian
    }

    /// How long the start took, without the building of tools.
    #[must_use]
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// The cluster's folder: logs, certificates, the nodes' disks.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.plane.kubeconfig
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client that is whom the token says.
    pub fn client_as(&self, token: &str) -> Result<Client> {
        let mut kubeconfig = serde_json::to_value(Kubeconfig::read_from(self.kubeconfig())?)?;
        let users = kubeconfig["users"].as_array_mut().context("a kubeconfig has users")?;
        for user in users {
            user["user"] = json!({"token": token});
        }
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig)?;
        block_on(async move {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            Ok(Client::try_from(config)?)
        })
    }

    /// The program, set up for this cluster.
    pub fn command(&self, tool: Tool) -> Result<Command> {
        let mut command = self.tools.command(tool)?;
        let home = self.dir.join("home");
        fs::create_dir_all(&home)?;
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", &home).current_dir(crate::tools::repository());
        for (name, dir) in [("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config"), ("XDG_DATA_HOME", ".local")] {
            command.env(name, home.join(dir));
        }
        Ok(command)
    }

    /// Runs kubectl and returns what it printed; an error with its words if it failed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        run(self.command(Tool::Kubectl)?.args(args))
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(manifest.as_bytes())?;
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file.path().display().to_string()])
    }

    /// Runs helm and returns what it printed; an error with its words if it failed.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        run(self.command(Tool::Helm)?.args(args))
    }

    /// The end of the audit log, to ask from there on.
    #[must_use]
    pub fn mark(&self) -> Mark {
        audit::mark(&self.plane.audit_log)
    }

    /// All requests since the mark that change something, or tried to, whoever sent them.
    pub fn writes_since(&self, mark: Mark) -> Result<Vec<AuditEvent>> {
        Ok(self.requests_since(mark)?.into_iter().filter(AuditEvent::is_write).collect())
    }

    /// All requests since the mark.
    pub fn requests_since(&self, mark: Mark) -> Result<Vec<AuditEvent>> {
        audit::since(&self.plane.audit_log, mark)
    }

    /// Adds a node, and waits until it is Ready.
    pub fn add_node(&self, name: &str) -> Result<()> {
        self.add_node_with(name, &NodeOptions::default())
    }

    /// Adds a node that is as described, and waits until it is Ready.
    pub fn add_node_with(&self, name: &str, options: &NodeOptions) -> Result<()> {
        self.create_node(name, options)?;
        self.wait_for_nodes(&[name.to_owned()])
    }

    fn create_node(&self, name: &str, options: &NodeOptions) -> Result<()> {
        self.kubelet.add_node(name, options.disk)?;
        let mut labels = options.labels.clone();
        labels.insert("kubernetes.io/hostname".into(), name.into());
        labels.insert("kubernetes.io/os".into(), "linux".into());
        labels.insert("kubernetes.io/arch".into(), "amd64".into());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        let api: Api<Node> = Api::all(self.client());
        block_on(async move { Ok(api.create(&PostParams::default(), &node).await.map(drop)?) })
            .with_context(|| format!("node {name}"))
    }

    /// Removes a node for good: its power goes, then the Node object. As in any cluster, its pods are collected by
    /// the controller manager about a minute later; [`Cluster::remove_pods_of`] does not wait for that.
    pub fn delete_node(&self, name: &str) -> Result<()> {
        self.kubelet.power(name, false)?;
        let (api, node) = (Api::<Node>::all(self.client()), name.to_owned());
        block_on(async move { Ok(api.delete(&node, &DeleteParams::default()).await.map(drop)?) })
            .with_context(|| format!("node {name}"))
    }

    /// Takes the pods of a node away without asking it, as the controller manager does when a node is gone.
    pub fn remove_pods_of(&self, node: &str) -> Result<()> {
        for pod in self.pods_on(node)? {
            let api = Api::<Pod>::namespaced(self.client(), &pod.namespace().unwrap_or_default());
            block_on(async move {
                match api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
                    Err(err) if !matches!(&err, kube::Error::Api(status) if status.code == 404) => Err(err.into()),
                    _ => Ok(()),
                }
            })?;
        }
        Ok(())
    }

    /// Deletes a node's object, and creates it again under its name; its disk is as it was.
    pub fn recreate_node(&self, name: &str) -> Result<()> {
        self.delete_node(name)?;
        self.remove_pods_of(name)?;
        self.add_node(name)?;
        self.kubelet.power(name, true)
    }

    /// Turns a node's power off: its processes are gone at once, and nothing says goodbye. What the controller manager
    /// would find out 40 s later is written at once: the Node's and its pods' readiness.
    pub fn stop_node(&self, name: &str) -> Result<()> {
        self.kubelet.power(name, false)?;
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        self.patch_node(name, json!({"metadata": {"annotations": {POWER: CUT}}}), false)?;
        let unknown = json!({"status": {"conditions": [{
            "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.", "lastTransitionTime": now,
        }]}});
        self.patch_node(name, unknown, true)?;
        for pod in self.pods_on(name)? {
            let api = Api::<Pod>::namespaced(self.client(), &pod.namespace().unwrap_or_default());
            let patch =
                json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}]}});
            block_on(async move {
                let params = PatchParams::default();
                Ok(api.patch_status(&pod.name_any(), &params, &Patch::Strategic(patch)).await.map(drop)?)
            })?;
        }
        Ok(())
    }

    /// Turns a node's power on again: its pods' containers are started anew, and it becomes Ready.
    pub fn start_node(&self, name: &str) -> Result<()> {
        self.patch_node(name, json!({"metadata": {"annotations": {POWER: null}}}), false)?;
        self.kubelet.power(name, true)?;
        self.wait_for_nodes(&[name.to_owned()])
    }

    fn patch_node(&self, name: &str, patch: serde_json::Value, status: bool) -> Result<()> {
        let (api, name) = (Api::<Node>::all(self.client()), name.to_owned());
        block_on(async move {
            let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
            if status {
                api.patch_status(&name, &params, &patch).await?;
            } else {
                api.patch(&name, &params, &patch).await?;
            }
            Ok(())
        })
    }

    /// A path on a node's disk, as this machine sees it: what is mounted by hostPath is here.
    #[must_use]
    pub fn node_path(&self, node: &str, path: &str) -> PathBuf {
        self.kubelet.node_dir(node).join(path.trim_start_matches('/'))
    }

    /// Leaves no room on a node's disk, which must have been given a size.
    pub fn fill_disk(&self, node: &str) -> Result<()> {
        self.kubelet.fill_disk(node)
    }

    /// Makes room again on a node's disk.
    pub fn free_disk(&self, node: &str) -> Result<()> {
        self.kubelet.free_disk(node)
    }

    /// Makes a mounted path of a running pod read-only, or writable again, under the hands of its processes.
    pub fn remount(&self, namespace: &str, pod: &str, path: &str, read_only: bool) -> Result<()> {
        self.kubelet.remount(namespace, pod, path, read_only)
    }

    /// Sends a signal to the first process of a pod's container, or of all its containers if none is named.
    ///
    /// `SIGKILL` ends all processes of the container, as its end does in any cluster. `SIGSTOP` and `SIGCONT` are
    /// sent to all of them. Other signals reach only a process that handles them.
    pub fn signal(&self, namespace: &str, pod: &str, container: Option<&str>, signal: Signal) -> Result<()> {
        self.kubelet.signal(namespace, pod, container, signal)
    }

    /// The ids, on this machine, of all processes of a pod, its containers' first ones first.
    pub fn processes(&self, namespace: &str, pod: &str) -> Result<Vec<i32>> {
        Ok(self.kubelet.processes(namespace, pod)?.into_iter().map(nix::unistd::Pid::as_raw).collect())
    }

    /// What a pod's containers have printed.
    pub fn logs(&self, namespace: &str, pod: &str) -> Result<String> {
        self.kubelet.logs(namespace, pod)
    }

    /// The token that a pod's processes hold.
    pub fn token_of(&self, namespace: &str, pod: &str) -> Result<String> {
        self.kubelet.token(namespace, pod)
    }

    /// The pods that a label selector names, in all namespaces, by name.
    pub fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        self.list_pods(ListParams::default().labels(selector))
    }

    /// The pods of a node.
    pub fn pods_on(&self, node: &str) -> Result<Vec<Pod>> {
        self.list_pods(ListParams::default().fields(&format!("spec.nodeName={node}")))
    }

    fn list_pods(&self, params: ListParams) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::all(self.client());
        block_on(async move { Ok(api.list(&params).await?.items) })
    }

    /// A part of the control plane: to stop it, start it again, or hold it.
    pub fn stop_component(&self, tool: Tool) -> Result<()> {
        self.plane.component(tool)?.stop();
        Ok(())
    }

    /// Starts a part of the control plane that was stopped; the API server answers when this returns.
    pub fn start_component(&self, tool: Tool) -> Result<()> {
        self.plane.component(tool)?.start()?;
        wait::until("the API server is ready", Duration::from_mins(5), || {
            let client = self.client();
            block_on(async move { tokio::time::timeout(Duration::from_secs(2), http_get(&client, "/readyz")).await? })
        })
    }

    /// Sends a signal to a part of the control plane.
    pub fn signal_component(&self, tool: Tool, signal: Signal) -> Result<()> {
        self.plane.component(tool)?.signal(signal);
        Ok(())
    }

    /// The control plane's programs and their process ids.
    #[must_use]
    pub fn component_pids(&self) -> Vec<(&'static str, i32)> {
        self.plane.pids()
    }

    fn wait_for_nodes(&self, names: &[String]) -> Result<()> {
        wait::until("all nodes are Ready", Duration::from_mins(5), || {
            if let Err(ended) = self.plane.check() {
                return Ok(Err(ended));
            }
            let api: Api<Node> = Api::all(self.client());
            let nodes = block_on(async move { Ok(api.list(&ListParams::default()).await?.items) })?;
            for name in names {
                let node = nodes.iter().find(|node| node.name_any() == *name).with_context(|| format!("no {name}"))?;
                let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
                let ready = conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
                let tainted = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|it| !it.is_empty());
                ensure!(ready && !tainted, "{name} is not ready");
            }
            Ok(Ok(()))
        })?
    }

    fn wait_for_service_account(&self, namespace: &str) -> Result<()> {
        use k8s_openapi::api::core::v1::ServiceAccount;
        wait::until("the default service account is there", Duration::from_mins(5), || {
            self.plane.check()?;
            let api: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
            block_on(async move { Ok(api.get("default").await.map(drop)?) })
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.proxy.abort();
        self.kubelet.stop();
        self.plane.stop();
        if std::thread::panicking() {
            let kept = crate::tools::repository().join("target/failed").join(self.dir.file_name().unwrap_or_default());
            let copied = Command::new("sh")
                .args(["-c", r#"mkdir -p "$2" && cp -r "$1/logs" "$2" && cp -r "$1/pods" "$2""#, "copy"])
                .args([&self.dir, &kept])
                .output();
            if copied.is_ok() {
                eprintln!("the logs of the cluster are in {}", kept.display());
            }
        } else if self.keep {
            eprintln!("the cluster's folder was kept: {}", self.dir.display());
        }
        self.guardian.finish();
    }
}

/// A client with this name, whose work is done on the cluster's threads.
pub fn client(kubeconfig: &Path, agent: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let agent = format!("{agent}/{}", env!("CARGO_PKG_VERSION"));
    block_on(async move {
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.headers.push((http::header::USER_AGENT, agent.parse()?));
        Ok(Client::try_from(config)?)
    })
}

async fn http_get(client: &Client, path: &str) -> Result<()> {
    let answer = client.request_text(http::Request::get(path).body(Vec::new())?).await?;
    ensure!(answer == "ok", "{answer}");
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output()?;
    let out = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string();
        let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        bail!("`{name} {args}` failed ({status}): {}{out}", String::from_utf8_lossy(&stderr));
    }
    Ok(out)
}
