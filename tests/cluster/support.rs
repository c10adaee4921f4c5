//! What the scenarios share: the product in a cluster, what developers write, and what they then see.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use falco_operator::api::{FalcoBundle, FalcoNode, FalcoRule, FalcoRulesFile, ItemPhase, Phase};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use test_cluster::audit::AuditEvent;
use test_cluster::{Cluster, NodeOptions, Product, Release, wait};

/// Within this time everything comes about that is waited for, on a slow machine too. No test says how fast it is.
pub const LIMIT: Duration = Duration::from_mins(6);

/// The namespace of the release.
pub const SYSTEM: &str = "kube-system";

/// Where the stand-in on each node looks for faults, on the node's disk: beside what is the agent's.
pub const FAULTS: &str = "/var/falco-operator/.stand-in";

/// Values by which the stand-in looks there.
pub const WITH_FAULTS: &str =
    "agent: {extraEnv: [{name: FALCO_STAND_IN_CONTROL, value: /var/falco-operator/.stand-in}]}\n";

/// The condition of the example.
pub const BASH: &str = "container.id != host and proc.name = bash";

/// The product, installed in a cluster of its own.
pub struct World {
    pub cluster: Cluster,
    pub release: Release,
    runtime: tokio::runtime::Runtime,
}

/// The binaries, built once for all tests of this process.
pub fn product() -> Result<&'static Product> {
    static PRODUCT: OnceLock<Result<Product, String>> = OnceLock::new();
    PRODUCT
        .get_or_init(|| Product::build().map_err(|err| format!("{err:#}")))
        .as_ref()
        .map_err(|err| anyhow::anyhow!("{err}"))
}

impl World {
    /// A cluster of so many nodes with the chart installed, with these values on top of its own.
    pub fn start(nodes: usize, values: &str) -> Result<Self> {
        Self::start_with(nodes, &[], values)
    }

    /// The same with further nodes that are as described.
    pub fn start_with(nodes: usize, more: &[(&str, NodeOptions)], values: &str) -> Result<Self> {
        let world = Self::bare(nodes)?;
        for (name, options) in more {
            world.cluster.add_node_with(name, options)?;
        }
        let mut values: Value = serde_yaml::from_str(values)?;
        if values["webhook"].is_null() {
            // What is broken is to get to the controller; `tests/webhook` is about what is refused before.
            values["webhook"] = json!({"enabled": false});
        }
        Release::install(&world.cluster, &values.to_string())?;
        Ok(world)
    }

    /// A cluster of so many nodes in which nothing is installed yet.
    pub fn bare(nodes: usize) -> Result<Self> {
        Self::of(&product()?.options(nodes))
    }

    /// A cluster that is as described, in which nothing is installed yet.
    pub fn of(options: &test_cluster::Options) -> Result<Self> {
        let release = Release { name: "fo1".into(), namespace: SYSTEM.into() };
        Ok(Self { cluster: Cluster::start(options)?, release, runtime: tokio::runtime::Runtime::new()? })
    }

    /// Waits for what an API call gives.
    pub fn wait<T>(&self, work: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        self.runtime.block_on(work)
    }

    /// The objects of a kind in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client(), namespace)
    }

    /// The object, or none.
    pub fn get<K>(&self, api: &Api<K>, name: &str) -> Result<Option<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        Ok(self.wait(api.get_opt(name))?)
    }

    /// Creates a namespace.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let api: Api<Namespace> = Api::all(self.cluster.client());
        self.wait(api.create(&kube::api::PostParams::default(), &serde_json::from_value(object)?))?;
        Ok(())
    }

    /// Asks for the deletion of a namespace.
    pub fn delete_namespace(&self, name: &str) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.cluster.client());
        self.wait(api.delete(name, &DeleteParams::default()))?;
        Ok(())
    }

    /// The namespace's UID; none where there is no such namespace.
    pub fn namespace_uid(&self, name: &str) -> Result<Option<String>> {
        let api: Api<Namespace> = Api::all(self.cluster.client());
        Ok(self.get(&api, name)?.and_then(|it| it.uid()))
    }

    /// Waits until a deleted namespace is gone, and everything of it everywhere.
    pub fn namespace_gone(&self, name: &str) -> Result<()> {
        wait::until(&format!("the namespace {name} is gone"), LIMIT, || {
            ensure!(self.namespace_uid(name)?.is_none(), "it is still there:\n{}", self.story(name));
            Ok(())
        })?;
        self.nowhere(name)
    }

    /// Writes a rule as a developer does, with a spec of its own beside the condition.
    pub fn apply(&self, namespace: &str, name: &str, spec: &Value) -> Result<FalcoRule> {
        let object = json!({
            "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        });
        let api = self.api::<FalcoRule>(namespace);
        let params = PatchParams::apply("developer").force();
        self.wait(api.patch(name, &params, &Patch::Apply(&object))).with_context(|| format!("{namespace}/{name}"))
    }

    /// Writes a rule with this condition.
    pub fn rule(&self, namespace: &str, name: &str, condition: &str) -> Result<FalcoRule> {
        self.apply(namespace, name, &spec(&format!("{name} of {namespace}"), condition))
    }

    /// Deletes a rule.
    pub fn delete_rule(&self, namespace: &str, name: &str) -> Result<()> {
        self.wait(self.api::<FalcoRule>(namespace).delete(name, &DeleteParams::default()))?;
        Ok(())
    }

    /// The rule as it is.
    pub fn read(&self, namespace: &str, name: &str) -> Result<FalcoRule> {
        Ok(self.wait(self.api::<FalcoRule>(namespace).get(name))?)
    }

    /// The `FalcoRulesFile` of the namespace, or none.
    pub fn rules_file(&self, namespace: &str) -> Result<Option<FalcoRulesFile>> {
        self.get(&self.api(namespace), namespace)
    }

    /// The bundle of the namespace, or none.
    pub fn bundle(&self, namespace: &str) -> Result<Option<FalcoBundle>> {
        self.get(&Api::all(self.cluster.client()), namespace)
    }

    /// The report of a node.
    pub fn report(&self, node: &str) -> Result<Option<FalcoNode>> {
        self.get(&Api::all(self.cluster.client()), node)
    }

    /// Waits until the rule is in force as it is written now on all of `nodes` nodes.
    pub fn active(&self, namespace: &str, name: &str, nodes: usize) -> Result<FalcoRule> {
        self.loaded(namespace, name, &format!("{nodes}/{nodes}"))
    }

    /// Waits until the rule as it is written now is Active, loaded on so many of so many nodes: `2/3`.
    pub fn loaded(&self, namespace: &str, name: &str, loaded: &str) -> Result<FalcoRule> {
        self.until(&format!("{namespace}/{name} is Active, {loaded}"), namespace, || {
            let rule = self.read(namespace, name)?;
            let status = rule.status.clone().context("no status yet")?;
            ensure!(
                status.observed_generation == rule.metadata.generation
                    && status.phase == Some(ItemPhase::Active)
                    && status.loaded.as_deref() == Some(loaded)
                    && is(&rule, "Ready") == Some(true),
                "{}",
                serde_json::to_string(&status)?
            );
            Ok(rule)
        })
    }

    /// Waits until the namespace's file is in this phase.
    pub fn phase(&self, namespace: &str, phase: Phase) -> Result<FalcoRulesFile> {
        self.until(&format!("{namespace} is {}", phase.name()), namespace, || {
            let file = self.rules_file(namespace)?.context("no FalcoRulesFile")?;
            let status = file.status.clone().context("no status yet")?;
            ensure!(status.phase == phase, "{}", serde_json::to_string(&status)?);
            Ok(file)
        })
    }

    /// Waits until nothing of the namespace is left: no `FalcoRulesFile`, no bundle, no file on any node.
    pub fn withdrawn(&self, namespace: &str) -> Result<()> {
        self.until(&format!("{namespace} is withdrawn"), namespace, || {
            ensure!(self.rules_file(namespace)?.is_none(), "its FalcoRulesFile is still there");
            ensure!(self.bundle(namespace)?.is_none(), "its bundle is still there");
            Ok(())
        })?;
        self.nowhere(namespace)
    }

    /// Waits, and tells the namespace's whole story where it was in vain.
    pub fn until<T>(&self, what: &str, namespace: &str, look: impl FnMut() -> Result<T>) -> Result<T> {
        wait::until(what, LIMIT, look).map_err(|err| anyhow::anyhow!("{err:#}\n{}", self.story(namespace)))
    }

    /// What the API server holds about a namespace and the nodes, for people who search for a fault.
    pub fn story(&self, namespace: &str) -> String {
        let mut text = format!("What there is of {namespace}:\n");
        let mut add = |title: &str, value: &dyn Debug| text.push_str(&format!("  {title}: {value:?}\n"));
        match self.rules_file(namespace) {
            Ok(Some(file)) => {
                let meta = (&file.metadata.deletion_timestamp, &file.metadata.finalizers);
                add("FalcoRulesFile", &(file.status.as_ref().map(brief), meta));
            }
            other => add("FalcoRulesFile", &other.map(|_| "none")),
        }
        match self.bundle(namespace) {
            Ok(Some(bundle)) => {
                let target = bundle.spec.target.as_ref().map(|file| &file.hash);
                let rollout = bundle.spec.rollout.as_ref();
                let good = rollout.and_then(|it| it.last_good.as_ref()).map(|file| &file.hash);
                add("FalcoBundle", &(target, rollout.map(|it| it.kind), good, &bundle.spec.namespace_uid));
            }
            other => add("FalcoBundle", &other.map(|_| "none")),
        }
        for rule in self.wait(self.api::<FalcoRule>(namespace).list(&ListParams::default())).into_iter().flatten() {
            let status = rule.status.as_ref().map(brief);
            add(&format!("FalcoRule {} at {:?}", rule.name_any(), rule.metadata.generation), &status);
        }
        let nodes: Api<FalcoNode> = Api::all(self.cluster.client());
        for node in self.wait(nodes.list(&ListParams::default())).into_iter().flatten() {
            add(&format!("FalcoNode {}", node.name_any()), &node.status.as_ref().map(brief));
        }
        for pod in self.cluster.pods("app.kubernetes.io/name=falco-operator").unwrap_or_default() {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            let uid = pod.uid().unwrap_or_default();
            add(&format!("Pod {} on {node}", pod.name_any()), &(uid, ready(&pod)));
        }
        text
    }

    /// The names of the nodes that there are.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.cluster.client());
        Ok(self.wait(api.list(&ListParams::default()))?.iter().map(ResourceExt::name_any).collect())
    }

    /// Where a node has the rules file of a namespace, if it has one.
    pub fn path(&self, node: &str, namespace: &str) -> PathBuf {
        // The fixed path on the node is a symlink to paths of the node; `current` is one within its folder.
        self.cluster.node_path(node, "/var/falco-operator").join("current/rules").join(format!("{namespace}.yaml"))
    }

    /// The rules file of a namespace on a node, or none.
    pub fn file(&self, node: &str, namespace: &str) -> Result<Option<String>> {
        let path = self.path(node, namespace);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err).with_context(|| path.display().to_string()),
        }
    }

    /// What every node has of a namespace, which must be the same everywhere.
    pub fn everywhere(&self, namespace: &str) -> Result<String> {
        let mut found = BTreeMap::new();
        for node in self.nodes()? {
            let text = self.file(&node, namespace)?.with_context(|| format!("{node} has no file of {namespace}"))?;
            found.entry(text).or_insert_with(Vec::new).push(node);
        }
        ensure!(found.len() == 1, "the nodes differ: {found:?}");
        found.into_keys().next().context("there is no node")
    }

    /// An error where a node has a file of the namespace.
    pub fn nowhere(&self, namespace: &str) -> Result<()> {
        for node in self.nodes()? {
            ensure!(self.file(&node, namespace)?.is_none(), "{node} still has the file of {namespace}");
        }
        Ok(())
    }

    /// The agent pod of a node.
    pub fn agent_on(&self, node: &str) -> Result<Pod> {
        let on_node = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        };
        self.agents()?.into_iter().find(on_node).with_context(|| format!("{node} has no agent"))
    }

    /// The agents' pods.
    pub fn agents(&self) -> Result<Vec<Pod>> {
        self.cluster.pods("app.kubernetes.io/component=agent")
    }

    /// The names of the controller's pods that are not being deleted.
    pub fn controllers(&self) -> Result<Vec<String>> {
        let pods = self.cluster.pods("app.kubernetes.io/component=controller")?;
        let staying = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(staying.map(|pod| pod.name_any()).collect())
    }

    /// How many controllers there are to be; waits until there are.
    pub fn scale_controller(&self, replicas: usize) -> Result<()> {
        let name = self.cluster.kubectl(&[
            "get",
            "deployments",
            "--namespace",
            SYSTEM,
            "-l",
            "app.kubernetes.io/component=controller",
            "-o",
            "name",
        ])?;
        let replicas_arg = format!("--replicas={replicas}");
        self.cluster.kubectl(&["scale", "--namespace", SYSTEM, name.trim(), &replicas_arg])?;
        wait::until(&format!("{replicas} controllers are ready"), LIMIT, || {
            let pods = self.cluster.pods("app.kubernetes.io/component=controller")?;
            let ready = pods.iter().filter(|pod| ready(pod)).count();
            ensure!(pods.len() == replicas && ready == replicas, "{ready} of {} are ready", pods.len());
            Ok(())
        })
    }

    /// Who holds the lease.
    pub fn leader(&self) -> Result<String> {
        let api: Api<k8s_openapi::api::coordination::v1::Lease> = self.api(SYSTEM);
        let lease = self.get(&api, "falco-operator")?.context("there is no lease")?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
        let holder = holder.context("nobody holds the lease")?;
        // An identity may say more than the pod's name.
        let pods = self.controllers()?;
        pods.into_iter().find(|pod| holder.contains(pod.as_str())).with_context(|| format!("the holder is {holder}"))
    }

    /// Deletes the scenario's namespaces, and waits until nothing is left of them.
    pub fn clear(&self, namespaces: &[&str]) -> Result<()> {
        for namespace in namespaces {
            self.delete_namespace(namespace)?;
        }
        namespaces.iter().try_for_each(|namespace| self.namespace_gone(namespace))
    }

    /// Waits until everything that is under way has come to rest: for so long nobody of ours writes anything.
    pub fn rest(&self, quiet: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let mark = self.cluster.mark();
            std::thread::sleep(quiet);
            let writes = self.our_writes(mark)?;
            if writes.is_empty() {
                return Ok(());
            }
            let last: Vec<_> = writes.iter().map(|it| (&it.user, &it.verb, &it.resource, &it.name, it.code)).collect();
            ensure!(begun.elapsed() < LIMIT, "there is no rest: {last:?}");
        }
    }

    /// The writes of the product since a mark, those to leases aside.
    pub fn our_writes(&self, mark: test_cluster::audit::Mark) -> Result<Vec<AuditEvent>> {
        let ours = |event: &AuditEvent| event.is_by("kube-system/") && event.user.contains("falco");
        let writes = self.cluster.writes_since(mark)?.into_iter().filter(ours);
        Ok(writes.filter(|event| !event.resource.ends_with("leases")).collect())
    }

    /// How often the Falco of a node has loaded its rules and begun to watch, since its pod began.
    pub fn loads(&self, node: &str) -> Result<usize> {
        let pod = self.agent_on(node)?;
        let log = self.cluster.logs(&pod.namespace().unwrap_or_default(), &pod.name_any())?;
        Ok(log.matches("Opening 'syscall' source").count())
    }

    /// The Falco processes of a node's agent.
    pub fn falcos(&self, node: &str) -> Result<Vec<i32>> {
        self.running(&self.agent_on(node)?, "/usr/bin/falco")
    }

    /// The processes of a pod that run this program.
    pub fn running(&self, pod: &Pod, program: &str) -> Result<Vec<i32>> {
        let mut all = self.cluster.processes(&pod.namespace().unwrap_or_default(), &pod.name_any())?;
        all.retain(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.strip_prefix(program.as_bytes()).is_some_and(|rest| rest.starts_with(b"\0"))
        });
        Ok(all)
    }

    /// Watches that a namespace's file is never missing on any node, until [`FilesStay::end`].
    pub fn files_stay(&self, namespaces: &[&str]) -> Result<FilesStay> {
        let mut paths = Vec::new();
        for node in self.nodes()? {
            paths.extend(namespaces.iter().map(|namespace| self.path(&node, namespace)));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let watch = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for path in &paths {
                    // A look that falls between the two steps of resolving `current` may miss; a second one doesn't.
                    ensure!(path.exists() || path.exists(), "{} was missing", path.display());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        Ok(FilesStay { stop, watch: Some(watch) })
    }

    /// Sets a fault of the stand-in on a node, as the stand-in's README names them: the file, and what it holds.
    pub fn fault(&self, node: &str, fault: &str, text: &str) -> Result<()> {
        let dir = self.cluster.node_path(node, FAULTS);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(fault), text)?;
        Ok(())
    }

    /// Takes a fault away again.
    pub fn heal(&self, node: &str, fault: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.cluster.node_path(node, FAULTS).join(fault))?)
    }
}

/// Watches that files are never missing.
pub struct FilesStay {
    stop: Arc<AtomicBool>,
    watch: Option<JoinHandle<Result<()>>>,
}

impl FilesStay {
    /// Ends the watch; an error if a file was missing meanwhile.
    pub fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.watch.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            _ => bail!("the watch over the files ended in a panic"),
        }
    }
}

impl Drop for FilesStay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The spec of a rule with this name and condition.
pub fn spec(rule: &str, condition: &str) -> Value {
    json!({
        "rule": rule, "desc": "notice shell activity within a container", "condition": condition,
        "output": "shell in a container (user=%user.name shell=%proc.name)", "priority": "WARNING",
    })
}

/// The spec of a rule whose `desc` asks the stand-in for a fault.
pub fn faulty(rule: &str, condition: &str, fault: &str) -> Value {
    let mut spec = spec(rule, condition);
    spec["desc"] = json!(format!("stand-in: {fault}"));
    spec
}

/// A condition of the rule's status, if it is about the present generation: true, false, or none for anything else.
pub fn is(rule: &FalcoRule, type_: &str) -> Option<bool> {
    let condition = rule.status.as_ref()?.conditions.iter().find(|it| it.type_ == type_)?;
    if condition.observed_generation != rule.metadata.generation {
        return None;
    }
    match condition.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

/// Whether a pod is ready.
pub fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

fn brief(status: &impl serde::Serialize) -> String {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(conditions) = value.get_mut("conditions").and_then(Value::as_array_mut) {
        for condition in conditions {
            *condition = json!(format!(
                "{}={} {} ({})",
                condition["type"].as_str().unwrap_or_default(),
                condition["status"].as_str().unwrap_or_default(),
                condition["reason"].as_str().unwrap_or_default(),
                condition["observedGeneration"],
            ));
        }
    }
    value.to_string()
}

/// Runs the scenarios of one cluster, one after the other; a failure in one does not keep the others from running.
pub struct Scenarios<'a> {
    world: &'a World,
    only: Option<String>,
    failed: Vec<String>,
}

impl<'a> Scenarios<'a> {
    /// For this cluster. `SCENARIO` in the environment names the ones to run, by a part of their name.
    pub fn of(world: &'a World) -> Self {
        Self { world, only: std::env::var("SCENARIO").ok(), failed: vec![] }
    }

    /// Runs one.
    pub fn run(&mut self, name: &str, scenario: impl FnOnce(&World) -> Result<()>) -> &mut Self {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return self;
        }
        let begun = Instant::now();
        let outcome = scenario(self.world);
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("ok     {name} ({seconds:.1} s)"),
            Err(err) => {
                println!("FAILED {name} ({seconds:.1} s): {err:#}");
                self.failed.push(format!("{name}: {err:#}"));
            }
        }
        self
    }

    /// Fails if one did.
    pub fn end(&mut self) {
        assert!(self.failed.is_empty(), "{} failed:\n{}", self.failed.len(), self.failed.join("\n"));
    }
}

/// A sequence of numbers that a seed decides: xorshift64*.
pub struct Random(u64);

impl Random {
    /// From the seed in `SEED`, or one of the clock's, which is printed so that a failure can be repeated.
    pub fn seeded() -> Result<Self> {
        let seed = match std::env::var("SEED") {
            Ok(text) => text.parse().context("SEED is a number")?,
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64,
        };
        println!("SEED={seed}");
        Ok(Self(seed | 1))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }
}

/// True where faults can be asked for, which the real Falco knows nothing of.
pub fn faults() -> Result<bool> {
    let stand_in = !product()?.real;
    if !stand_in {
        println!("skipped: the real Falco takes no faults from tests");
    }
    Ok(stand_in)
}

/// Fails unless the API server said no for want of rights, or by its admission policy.
pub fn refused<T: Debug>(what: &str, outcome: kube::Result<T>) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => Ok(()),
        other => bail!("{what} was not refused: {other:?}"),
    }
}
