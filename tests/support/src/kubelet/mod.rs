//! The kubelet stand-in: runs the pods under test as processes of this machine.
//!
//! It does what a kubelet does and kwok doesn't: init containers, environment, volumes, bound tokens, probes,
//! restarts with backoff, status, exit codes, the grace period. Each container has a root of its own (this machine's
//! files, with the image's laid over and the volumes mounted at their true paths), and a process namespace of its own,
//! in which its command is process 1. What it does not do: users, limits, security contexts, networks (pods differ
//! by their loopback address only), `exec` and `grpc` probes, refreshing of mounted volumes.

mod ballast;
mod env;
mod pod;
mod probe;
mod sandbox;
mod status;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::addresses::Addresses;
use crate::background::handle;
use crate::guardian::Guardian;
use crate::process;
use ballast::Ballast;
use pod::Running;

/// What an image holds, since there are no images.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The image's name without registry and tag, or any number of its last parts: `falco` or `falcosecurity/falco`.
    pub name: String,
    /// What is run if the pod's spec has no command.
    pub entrypoint: Vec<String>,
    /// Its files.
    pub files: Vec<ImageFile>,
}

impl Image {
    fn is(&self, reference: &str) -> bool {
        let name = reference.split('@').next().unwrap_or_default();
        let name = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => name,
        };
        name == self.name || name.ends_with(&format!("/{}", self.name))
    }
}

/// A file or folder of an image.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Its path in the image.
    pub at: PathBuf,
    /// Where it really is.
    pub from: PathBuf,
    /// Give each node a copy of its own, on the node's disk at the same path, for tests that change it. Else the
    /// file itself is what the container sees, read-only.
    pub per_node: bool,
}

/// What the stand-in needs to know of its cluster.
pub struct Machine {
    pub dir: PathBuf,
    pub addresses: Addresses,
    pub client: Client,
    pub guardian: Arc<Guardian>,
    pub images: Vec<Image>,
    pub selector: Vec<(String, String)>,
    pub max_backoff: Duration,
    pub node_files: BTreeMap<PathBuf, String>,
    /// By node, what holds the process namespace of the pods there that ask for the host's.
    pub hosts: Mutex<BTreeMap<String, Option<process::Process>>>,
}

impl Machine {
    fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    fn image(&self, reference: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.is(reference))
    }

    fn selects(&self, pod: &Pod) -> bool {
        self.selector.iter().all(|(label, value)| pod.labels().get(label) == Some(value))
    }
}

#[derive(Default)]
struct State {
    /// Nodes, and whether their power is on.
    nodes: BTreeMap<String, bool>,
    /// The pods that run, by UID.
    running: HashMap<String, Arc<Running>>,
    /// The pods as last seen, by UID.
    pods: HashMap<String, Pod>,
}

/// The kubelets of all nodes.
pub struct Kubelet {
    shared: Arc<Shared>,
    watch: tokio::task::JoinHandle<()>,
    /// What fills the disks of nodes.
    ballast: Mutex<BTreeMap<String, Ballast>>,
}

struct Shared {
    machine: Arc<Machine>,
    state: Mutex<State>,
    next_address: AtomicU32,
}

impl Kubelet {
    pub fn start(machine: Machine) -> Result<Self> {
        let shared = Arc::new(Shared {
            machine: Arc::new(machine),
            state: Mutex::new(State::default()),
            next_address: AtomicU32::new(0),
        });
        let watch = handle()?.spawn(shared.clone().watch());
        Ok(Self { shared, watch, ballast: Mutex::default() })
    }

    /// Ends all processes; nothing is reported any more.
    pub fn stop(&self) {
        self.watch.abort();
        let running: Vec<_> = self.shared.state().running.drain().map(|(_, running)| running).collect();
        for running in &running {
            running.freeze();
        }
        for running in running {
            running.power_off();
        }
    }

    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.shared.machine.node_dir(node)
    }

    /// Prepares a node's disk and turns its power on.
    pub fn add_node(&self, node: &str, disk: Option<u64>) -> Result<()> {
        let machine = &self.shared.machine;
        let dir = machine.node_dir(node);
        fs::create_dir_all(&dir)?;
        if let Some(bytes) = disk {
            use nix::mount::{MsFlags, mount};
            let size = format!("size={bytes},mode=755");
            mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
                .with_context(|| format!("a disk of {bytes} bytes for {node} (this needs root)"))?;
            machine.guardian.mounted(&dir)?;
        }
        let under = |path: &Path| dir.join(path.strip_prefix("/").unwrap_or(path));
        for (path, text) in &machine.node_files {
            let path = under(path);
            fs::create_dir_all(path.parent().unwrap_or(&dir))?;
            fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        }
        for file in machine.images.iter().flat_map(|image| &image.files).filter(|file| file.per_node) {
            let to = under(&file.at);
            if !to.exists() {
                fs::create_dir_all(to.parent().unwrap_or(&dir))?;
                let copied = Command::new("cp").arg("-aT").args([&file.from, &to]).output()?;
                ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
            }
        }
        self.shared.state().nodes.insert(node.into(), true);
        self.shared.settle();
        Ok(())
    }

    /// Turns a node's power off or on.
    pub fn power(&self, node: &str, on: bool) -> Result<()> {
        let stopped: Vec<_> = {
            let mut state = self.shared.state();
            *state.nodes.get_mut(node).with_context(|| format!("there is no node {node}"))? = on;
            let uids: Vec<_> = state
                .running
                .iter()
                .filter(|(_, running)| !on && running.node == node)
                .map(|(uid, _)| uid.clone())
                .collect();
            uids.iter().filter_map(|uid| state.running.remove(uid)).collect()
        };
        for running in &stopped {
            running.freeze();
        }
        for running in &stopped {
            running.power_off();
        }
        self.shared.settle();
        Ok(())
    }

    pub fn fill_disk(&self, node: &str) -> Result<()> {
        let dir = self.node_dir(node);
        let here = nix::sys::stat::stat(&dir)?.st_dev;
        let above = nix::sys::stat::stat(dir.parent().unwrap_or(&dir))?.st_dev;
        ensure!(here != above, "{node} has no disk of its own: add it with a size");
        self.ballast
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.into(), Ballast::load(dir.join(".ballast"))?);
        Ok(())
    }

    pub fn free_disk(&self, node: &str) -> Result<()> {
        let ballast = self.ballast.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
        ballast.with_context(|| format!("{node}'s disk has not been filled"))?.unload()
    }

    fn find(&self, namespace: &str, pod: &str) -> Result<Arc<Running>> {
        let state = self.shared.state();
        let found = state.running.values().find(|it| it.namespace == namespace && it.name == pod);
        found.cloned().with_context(|| format!("no pod {namespace}/{pod} runs"))
    }

    pub fn signal(&self, namespace: &str, pod: &str, container: Option<&str>, signal: Signal) -> Result<()> {
        let firsts = self.find(namespace, pod)?.firsts(container);
        if firsts.is_empty() {
            bail!("no container of {namespace}/{pod} runs");
        }
        for (_, first) in firsts {
            let targets = match signal {
                Signal::SIGSTOP | Signal::SIGCONT => process::tree(first),
                _ => vec![first],
            };
            for target in targets {
                signal::kill(target, signal).with_context(|| format!("{signal} to process {target}"))?;
            }
        }
        Ok(())
    }

    pub fn processes(&self, namespace: &str, pod: &str) -> Result<Vec<Pid>> {
        let mut firsts: Vec<_> = self.find(namespace, pod)?.firsts(None).into_iter().map(|(_, first)| first).collect();
        let below: Vec<_> = firsts.iter().flat_map(|first| process::tree(*first).into_iter().skip(1)).collect();
        firsts.extend(below);
        Ok(firsts)
    }

    pub fn remount(&self, namespace: &str, pod: &str, path: &str, read_only: bool) -> Result<()> {
        let options = if read_only { "remount,bind,ro" } else { "remount,bind,rw" };
        for (name, first) in self.find(namespace, pod)?.firsts(None) {
            // It is busy while somebody has a file open there.
            crate::wait::until("it is mounted otherwise", Duration::from_secs(30), || {
                let out = Command::new("nsenter")
                    .args(["--target", &first.to_string(), "--mount", "--", "mount", "-o", options, path])
                    .output()
                    .context("`nsenter` could not be started")?;
                ensure!(out.status.success(), "{path} of {name}: {}", String::from_utf8_lossy(&out.stderr));
                Ok(())
            })?;
        }
        Ok(())
    }

    pub fn logs(&self, namespace: &str, pod: &str) -> Result<String> {
        let prefix = format!("{namespace}_{pod}_");
        let mut text = String::new();
        for entry in fs::read_dir(self.shared.machine.dir.join("logs/pods"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                text.push_str(&String::from_utf8_lossy(&fs::read(entry.path())?));
            }
        }
        Ok(text)
    }

    pub fn token(&self, namespace: &str, pod: &str) -> Result<String> {
        let running = self.find(namespace, pod)?;
        let token = running.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        token.with_context(|| format!("{namespace}/{pod} has no token"))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(self: Arc<Self>) {
        let api: Api<Pod> = Api::all(self.machine.client.clone());
        let selector = self.machine.selector.iter().map(|(label, value)| format!("{label}={value}"));
        let config = watcher::Config::default().labels(&selector.collect::<Vec<_>>().join(","));
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    listed.insert(pod.uid().unwrap_or_default(), pod);
                }
                Ok(watcher::Event::InitDone) => self.state().pods = std::mem::take(&mut listed),
                Ok(watcher::Event::Apply(pod)) => {
                    self.state().pods.insert(pod.uid().unwrap_or_default(), pod);
                }
                Ok(watcher::Event::Delete(pod)) => {
                    self.state().pods.remove(&pod.uid().unwrap_or_default());
                }
                Err(_) => continue,
            }
            self.settle();
        }
    }

    /// Makes what runs what should run; called whenever either may have changed.
    fn settle(self: &Arc<Self>) {
        let mut gone = Vec::new();
        {
            let mut state = self.state();
            let State { nodes, running, pods } = &mut *state;
            running.retain(|uid, it| {
                let there = pods.contains_key(uid);
                if !there {
                    gone.push(it.clone());
                }
                there
            });
            for (uid, pod) in pods.iter() {
                if let Some(it) = running.get(uid) {
                    it.update(pod);
                    continue;
                }
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
                let Some(node) = node.filter(|node| nodes.get(node) == Some(&true)) else { continue };
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
                let over = matches!(phase, "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none();
                if over || !self.machine.selects(pod) {
                    continue;
                }
                let address = self.machine.addresses.pod(self.next_address.fetch_add(1, Ordering::Relaxed));
                running.insert(uid.clone(), Running::start(self.machine.clone(), pod.clone(), node, address));
            }
        }
        // Pods that were removed without asking their node: their processes end now.
        for running in &gone {
            running.freeze();
        }
        for running in gone {
            std::thread::spawn(move || running.power_off());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn images_are_known_by_the_end_of_their_name() {
        let image = Image { name: "falcosecurity/falco".into(), ..Image::default() };
        for known in
            ["falcosecurity/falco", "docker.io/falcosecurity/falco:0.44.1", "h:5000/falcosecurity/falco@sha256:0"]
        {
            assert!(image.is(known), "{known}");
        }
        for other in ["falco", "falcosecurity/falco-driver-loader:1", "xfalcosecurity/falco"] {
            assert!(!image.is(other), "{other}");
        }
    }
}
