//! The life of one pod on its node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::probe::{self, Verdict};
use super::status::{ContainerReport, Doing, Ended, Report};
use super::{Machine, sandbox, volumes};
use crate::background::handle;
use crate::process::{Exit, Process, tree};

/// A pod that runs on a node.
pub struct Running {
    pub namespace: String,
    pub name: String,
    pub node: String,
    /// The service account token in its volumes.
    pub token: Mutex<Option<String>>,
    machine: Arc<Machine>,
    uid: String,
    address: String,
    dir: PathBuf,
    latest: watch::Sender<Pod>,
    report: watch::Sender<Report>,
    /// The containers' processes, by container.
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
    /// Holds the process namespace that the containers share, if they do.
    pause: Mutex<Option<Process>>,
    frozen: AtomicBool,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Where a container stands in the report.
#[derive(Clone, Copy)]
enum Slot {
    Init(usize),
    Main(usize),
}

impl Running {
    /// Begins the pod's life.
    pub fn start(machine: Arc<Machine>, pod: Pod, node: String, address: Ipv4Addr) -> Arc<Self> {
        let spec = pod.spec.clone().unwrap_or_default();
        let reports = |containers: &[Container]| containers.iter().map(|it| ContainerReport::new(it, &pod)).collect();
        let report = Report {
            inits: reports(spec.init_containers.as_deref().unwrap_or_default()),
            containers: reports(&spec.containers),
            initialized: false,
            over: None,
            terminating: false,
            since: Timestamp::now(),
        };
        let uid = pod.uid().unwrap_or_default();
        let running = Arc::new(Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            node,
            token: Mutex::new(None),
            dir: machine.dir.join("pods").join(&uid),
            machine,
            uid,
            address: address.to_string(),
            latest: watch::channel(pod).0,
            report: watch::channel(report).0,
            processes: Mutex::new(BTreeMap::new()),
            pause: Mutex::new(None),
            frozen: AtomicBool::new(false),
            task: Mutex::new(None),
        });
        if let Ok(handle) = handle() {
            let task = handle.spawn(running.clone().run());
            *running.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        }
        running
    }

    /// The pod was seen anew.
    pub fn update(&self, pod: &Pod) {
        self.latest.send_if_modified(|latest| {
            let newer = latest.metadata.resource_version != pod.metadata.resource_version;
            if newer {
                *latest = pod.clone();
            }
            newer
        });
    }

    /// From now on nothing is started or reported.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    /// Ends all its processes at once.
    pub fn power_off(&self) {
        let all = std::mem::take(&mut *self.processes());
        for process in all.values() {
            process.kill();
        }
        self.pause.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// The first process of each container that runs, or of the named one.
    pub fn firsts(&self, container: Option<&str>) -> Vec<(String, Pid)> {
        let processes = self.processes();
        let wanted = processes.iter().filter(|(name, _)| container.is_none_or(|wanted| wanted == *name));
        wanted.filter_map(|(name, process)| Some((name.clone(), first(process)?))).collect()
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> String {
        self.machine.addresses.node().to_string()
    }

    fn spec(&self) -> PodSpec {
        self.latest.borrow().spec.clone().unwrap_or_default()
    }

    async fn run(self: Arc<Self>) {
        let life = async {
            let mut seen = self.latest.subscribe();
            let deleted = async {
                let _ = seen.wait_for(|pod| pod.metadata.deletion_timestamp.is_some()).await;
            };
            tokio::pin!(deleted);
            let over = tokio::select! {
                over = self.live() => Some(over),
                () = &mut deleted => None,
            };
            if let Some(over) = over {
                self.report.send_modify(|report| report.over = Some(over));
                deleted.await;
            }
            self.end().await;
        };
        tokio::join!(life, self.keep_reporting());
    }

    /// Runs all containers to their ends; returns the phase in which the pod is over for good.
    async fn live(&self) -> &'static str {
        let spec = self.spec();
        let volumes = loop {
            match self.set_up(&spec).await {
                Ok(volumes) => break volumes,
                Err(err) => {
                    let message = format!("{err:#}");
                    self.report.send_modify(|report| {
                        report.containers.iter_mut().for_each(|it| it.wait("ContainerCreating", &message));
                    });
                    sleep(Duration::from_millis(500)).await;
                }
            }
        };
        let policy = spec.restart_policy.as_deref().unwrap_or("Always");
        let mut sidecars = Vec::new();
        for (index, container) in spec.init_containers.iter().flatten().enumerate() {
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.push(self.container(Slot::Init(index), container, "Always", &volumes));
                continue;
            }
            let policy = if policy == "Always" { "OnFailure" } else { policy };
            if self.container(Slot::Init(index), container, policy, &volumes).await.code != 0 {
                return "Failed";
            }
        }
        self.report.send_modify(|report| report.initialized = true);
        let mains = spec.containers.iter().enumerate();
        let mains = mains.map(|(index, container)| self.container(Slot::Main(index), container, policy, &volumes));
        let exits = tokio::select! {
            exits = join_all(mains) => exits,
            _ = async { if sidecars.is_empty() { std::future::pending().await } else { join_all(sidecars).await } } => vec![],
        };
        if exits.iter().all(|exit| exit.code == 0) { "Succeeded" } else { "Failed" }
    }

    async fn set_up(&self, spec: &PodSpec) -> Result<BTreeMap<String, PathBuf>> {
        let pod = self.latest.borrow().clone();
        let host = self.host();
        let mut paths = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            let at = (self.address.as_str(), host.as_str());
            let mounted = volumes::provide(&self.machine, &pod, volume, &self.dir, &self.node, at)
                .await
                .with_context(|| format!("MountVolume.SetUp failed for volume {:?}", volume.name))?;
            if let Some(token) = mounted.token {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
            }
            paths.insert(volume.name.clone(), mounted.path);
        }
        Ok(paths)
    }

    fn change(&self, slot: Slot, change: impl FnOnce(&mut ContainerReport)) {
        self.report.send_modify(|report| {
            let container = match slot {
                Slot::Init(index) => report.inits.get_mut(index),
                Slot::Main(index) => report.containers.get_mut(index),
            };
            if let Some(container) = container {
                change(container);
            }
        });
    }

    /// Runs one container, again and again as its policy wants, until it is over; returns its last exit.
    async fn container(
        &self,
        slot: Slot,
        container: &Container,
        policy: &str,
        volumes: &BTreeMap<String, PathBuf>,
    ) -> Exit {
        let shortest = Duration::from_millis(100);
        let mut pause = shortest;
        loop {
            let begun = Instant::now();
            let since = Timestamp::now();
            let process = match self.launch(container, volumes).await {
                Ok(process) => process,
                Err(err) => {
                    let message = format!("{err:#}");
                    let reason =
                        if message.contains("pull image") { "ErrImagePull" } else { "CreateContainerConfigError" };
                    self.change(slot, |it| it.wait(reason, &message));
                    sleep(pause).await;
                    pause = (pause * 2).min(self.machine.max_backoff);
                    continue;
                }
            };
            self.change(slot, |it| it.doing = Doing::Running { since });
            let exit = tokio::select! {
                exit = process.wait() => exit,
                () = self.probe(slot, container) => {
                    let grace = self.spec().termination_grace_period_seconds.unwrap_or(30);
                    end(&process, Duration::from_secs(grace.max(0) as u64)).await
                }
            };
            self.processes().remove(&container.name);
            let exit = self.true_exit(container, exit);
            let ended = Ended { exit, since, at: Timestamp::now() };
            let again = policy == "Always" || (policy == "OnFailure" && exit.code != 0);
            self.change(slot, |it| {
                it.started = false;
                it.ready = !again && exit.code == 0 && matches!(slot, Slot::Init(_));
                it.doing = Doing::Terminated(ended.clone());
            });
            if !again {
                return exit;
            }
            if begun.elapsed() > Duration::from_secs(10) {
                pause = shortest;
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.machine.max_backoff);
            self.change(slot, |it| {
                it.wait("CrashLoopBackOff", "back-off restarting failed container");
                it.last = Some(ended);
                it.restarts += 1;
            });
        }
    }

    async fn launch(&self, container: &Container, volumes: &BTreeMap<String, PathBuf>) -> Result<Arc<Process>> {
        let pod = self.latest.borrow().clone();
        let dir = self.dir.join(&container.name);
        let host = self.host();
        let log = self.log(container);
        let at = (self.address.as_str(), host.as_str());
        let shared = self.shared_namespace(&pod).await?;
        let command = sandbox::prepare(&self.machine, &pod, container, &dir, volumes, &self.node, at, shared).await?;
        if let Some(logs) = log.parent() {
            std::fs::create_dir_all(logs)?;
        }
        // A start that passes a power cut must not leave a process behind: both look at it under this lock.
        let mut processes = self.processes();
        anyhow::ensure!(!self.frozen.load(Ordering::SeqCst), "the node's power is off");
        let process = Arc::new(Process::start(&command, &log, &self.machine.guardian)?);
        processes.insert(container.name.clone(), process.clone());
        Ok(process)
    }

    /// The holder of the namespace that the pod's containers share, among themselves or with all of their node that ask
    /// for the host's; it is started with the first of them.
    async fn shared_namespace(&self, pod: &Pod) -> Result<Option<Pid>> {
        let spec = pod.spec.as_ref();
        let of_host = spec.and_then(|spec| spec.host_pid) == Some(true);
        if !of_host && spec.and_then(|spec| spec.share_process_namespace) != Some(true) {
            return Ok(None);
        }
        loop {
            {
                let mut hosts = self.machine.hosts.lock().unwrap_or_else(PoisonError::into_inner);
                let mut own = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
                anyhow::ensure!(!self.frozen.load(Ordering::SeqCst), "the node's power is off");
                let pause = if of_host { hosts.entry(self.node.clone()).or_default() } else { &mut *own };
                if pause.as_ref().is_none_or(|running| running.exited().is_some()) {
                    let log = self.machine.dir.join("logs/pause.log");
                    *pause = Some(Process::start(&sandbox::pause(), &log, &self.machine.guardian)?);
                }
                if let Some(first) = pause.as_ref().and_then(first) {
                    return Ok(Some(first));
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn log(&self, container: &Container) -> PathBuf {
        self.machine.dir.join("logs/pods").join(format!("{}_{}_{}.log", self.namespace, self.name, container.name))
    }

    /// `unshare` passes its child's end on, but for SIGKILL: it can't set that signal's handler back, says so, and
    /// exits with 1.
    fn true_exit(&self, container: &Container, exit: Exit) -> Exit {
        let last = crate::control_plane::tail(&self.log(container), 1);
        let killed = exit.code == 1 && last.starts_with("unshare: ");
        if killed { Exit { code: 137, signal: Some(9) } } else { exit }
    }

    /// Follows the container's probes; ends when it must be restarted.
    async fn probe(&self, slot: Slot, container: &Container) {
        if let Some(startup) = &container.startup_probe {
            probe::delay(startup).await;
            tokio::select! {
                _ = probe::change(startup, container, &self.address, Verdict::Unhealthy) => {}
                () = probe::patience(startup) => return,
            }
        }
        self.change(slot, |it| it.started = true);
        let readiness = async {
            let Some(probe) = &container.readiness_probe else {
                self.change(slot, |it| it.ready = true);
                return std::future::pending().await;
            };
            probe::delay(probe).await;
            let mut is = Verdict::Unhealthy;
            loop {
                is = probe::change(probe, container, &self.address, is).await.0;
                self.change(slot, |it| it.ready = is == Verdict::Healthy);
            }
        };
        let liveness = async {
            let Some(probe) = &container.liveness_probe else { return std::future::pending().await };
            probe::delay(probe).await;
            probe::change(probe, container, &self.address, Verdict::Healthy).await;
        };
        tokio::select! {
            () = readiness => {}
            () = liveness => {}
        }
    }

    /// The pod was deleted: asks its processes to end, ends them after the grace period, and lets the pod go.
    async fn end(&self) {
        let grace = self.latest.borrow().metadata.deletion_grace_period_seconds.unwrap_or(30);
        let grace = Duration::from_secs(grace.max(0) as u64);
        self.report.send_modify(|report| report.terminating = true);
        let all: Vec<_> = self.processes().iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        let exits = join_all(all.iter().map(|(_, process)| end(process, grace))).await;
        self.processes().clear();
        self.pause.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.report.send_modify(|report| {
            for ((name, _), exit) in all.iter().zip(exits) {
                let found = report.containers.iter_mut().chain(&mut report.inits).find(|it| it.name == *name);
                if let Some(it) = found {
                    let since = if let Doing::Running { since } = it.doing { since } else { report.since };
                    it.doing = Doing::Terminated(Ended { exit, since, at: Timestamp::now() });
                    (it.started, it.ready) = (false, false);
                }
            }
            if report.over.is_none() {
                let well = report
                    .containers
                    .iter()
                    .all(|it| matches!(&it.doing, Doing::Terminated(ended) if ended.exit.code == 0));
                report.over = Some(if well { "Succeeded" } else { "Failed" });
            }
        });
        let last = self.report.borrow().clone();
        let _ = timeout(Duration::from_secs(5), self.send(&last)).await;
        let api: Api<Pod> = Api::namespaced(self.machine.client.clone(), &self.namespace);
        let params = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: Some(self.uid.clone()), resource_version: None });
        loop {
            match api.delete(&self.name, &params).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => break,
                Ok(_) => break,
                Err(_) => sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// Writes the status whenever it changes.
    async fn keep_reporting(&self) {
        let mut changes = self.report.subscribe();
        changes.mark_changed();
        let mut sent = None;
        while changes.changed().await.is_ok() {
            let now = changes.borrow_and_update().clone();
            // The last report is sent by the end itself.
            if now.terminating || sent.as_ref() == Some(&now) {
                continue;
            }
            match self.send(&now).await {
                Ok(()) => sent = Some(now),
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                Err(_) => {
                    sleep(Duration::from_millis(300)).await;
                    changes.mark_changed();
                }
            }
        }
    }

    async fn send(&self, report: &Report) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.machine.client.clone(), &self.namespace);
        let before = self.latest.borrow().status.as_ref().and_then(|it| it.conditions.clone()).unwrap_or_default();
        let status = report.json(&before, &self.address, &self.host(), Timestamp::now());
        // The UID keeps it from another pod of this name.
        let patch = json!({"metadata": {"uid": self.uid}, "status": status});
        let pod = api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        self.update(&pod);
        Ok(())
    }
}

/// The container's process 1, which is the child of `unshare`.
fn first(process: &Process) -> Option<Pid> {
    process.while_alive(|pid| tree(pid).get(1).copied()).flatten()
}

/// SIGTERM, the grace period, SIGKILL.
async fn end(process: &Process, grace: Duration) -> Exit {
    if let Some(first) = first(process) {
        let _ = signal::kill(first, Signal::SIGTERM);
    }
    if let Ok(exit) = timeout(grace, process.wait()).await {
        return exit;
    }
    process.signal_group(Signal::SIGKILL);
    process.wait().await;
    Exit { code: 137, signal: Some(9) }
}
