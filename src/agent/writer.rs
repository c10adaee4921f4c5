//! The report, written: one object, one patch per change of what is true, nothing at rest.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Running;
use super::identity::{Identity, TokenDigest, TokenFile};
use super::metrics::AgentMetrics;
use super::report::{Facts, Urgency};
use super::watch::Seen;
use crate::api::{FalcoNode, FalcoNodeStatus};
use crate::telemetry::Gate;

/// Who the API server's records say has written.
pub const MANAGER: &str = "falco-operator-agent";

/// How long one call may take.
const CALL: Duration = Duration::from_secs(15);
/// The least time between two writes.
const PACE: Duration = Duration::from_millis(200);
/// How long a report may wait unsent before this agent is not ready any more.
const UNSENT: Duration = Duration::from_secs(30);
/// About how often it is looked whether the report is still there, and as it was written.
const LOOK: Duration = Duration::from_secs(120);
/// About how soon that is after the bundles had to be listed again.
const LOOK_SOON: Duration = Duration::from_secs(5);
/// How often the token is read while another one is waited for.
const TOKEN: Duration = Duration::from_secs(5);
/// How long another token is waited for before the report is created again with the same.
const SAME_TOKEN: Duration = Duration::from_secs(600);
/// The shortest and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The catalogue of this node's Falco, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CatalogName {
    /// Not yet: the one that was reported last stands.
    #[default]
    Pending,
    /// There is none.
    None,
    /// This one.
    Some(String),
}

/// What reports are made of, as it comes.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// From the API server; `None` before the first list.
    pub seen: watch::Receiver<Option<Arc<Seen>>>,
    /// From Falco.
    pub running: watch::Receiver<Running>,
    /// From the catalogue.
    pub catalog: watch::Receiver<CatalogName>,
}

impl Inputs {
    /// Waits for a change; for ever, where there can't be any more.
    async fn changed(&mut self) {
        let gone = tokio::select! {
            changed = self.seen.changed() => changed.is_err(),
            changed = self.running.changed() => changed.is_err(),
            changed = self.catalog.changed(), if self.catalog.has_changed().is_ok() => changed.is_err(),
        };
        if gone {
            std::future::pending::<()>().await;
        }
    }
}

/// The object, as the API server holds it.
#[derive(Debug)]
struct Held {
    version: String,
    owners: Vec<OwnerReference>,
    /// What was written, or was found where nothing has been written yet.
    status: FalcoNodeStatus,
    json: Value,
}

impl Held {
    fn found(object: &DynamicObject) -> Self {
        let json = object.data.get("status").cloned().unwrap_or_else(|| json!({}));
        // One that can't be read says nothing: it will be written over.
        let status = serde_json::from_value(json.clone()).unwrap_or_default();
        Self {
            version: object.resource_version().unwrap_or_default(),
            owners: object.owner_references().to_vec(),
            status,
            json,
        }
    }
}

/// The last creation of the object.
#[derive(Clone, Copy, Debug)]
struct Created {
    with: TokenDigest,
    /// How often bundles had been listed by then.
    lists: u64,
    at: Instant,
}

/// Why a call has come to nothing.
#[derive(Debug)]
struct Failure {
    outcome: &'static str,
    message: String,
}

impl Failure {
    fn of(err: &kube::Error) -> Self {
        let outcome = match err {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => "conflict",
            kube::Error::Api(status) if status.is_forbidden() => "forbidden",
            kube::Error::Api(status) if status.is_not_found() => "not_found",
            _ => "failed",
        };
        Self { outcome, message: err.to_string() }
    }
}

/// Writes the report of this node.
#[derive(Debug)]
pub struct Writer {
    api: Api<DynamicObject>,
    resource: ApiResource,
    token: TokenFile,
    identity: Identity,
    inputs: Inputs,
    metrics: AgentMetrics,
    gate: Gate,
    held: Option<Held>,
    /// Whether the object was found missing.
    gone: bool,
    created: Option<Created>,
    /// Whether a report of this process' pod stands.
    reported: bool,
    /// Since when a report waits to be sent.
    unsent: Option<Instant>,
    /// Since when there is news that may pass by itself.
    passing: Option<Instant>,
    not_before: Instant,
    failures: u32,
    /// What the last call came to, where that was nothing.
    failure: Option<String>,
    look_at: Instant,
    lists: u64,
}

impl Writer {
    /// A writer that has written nothing yet.
    #[must_use]
    pub fn new(
        client: Client,
        token: TokenFile,
        identity: Identity,
        inputs: Inputs,
        metrics: AgentMetrics,
        gate: Gate,
    ) -> Self {
        let resource = ApiResource::erase::<FalcoNode>(&());
        let now = Instant::now();
        Self {
            api: Api::all_with(client, &resource),
            resource,
            token,
            identity,
            inputs,
            metrics,
            gate,
            held: None,
            gone: false,
            created: None,
            reported: false,
            unsent: None,
            passing: None,
            not_before: now,
            failures: 0,
            failure: None,
            look_at: now + about(LOOK),
            lists: 0,
        }
    }

    /// Writes until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let (report, due) = self.due();
            self.tell_readiness();
            let act = if self.held.is_none() { Some(Instant::now()) } else { due };
            let act = act.map(|due| due.max(self.not_before));
            let overdue = self.unsent.map(|since| since + UNSENT).filter(|at| *at > Instant::now());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = until(act) => self.act(report).await,
                () = sleep_until(self.look_at), if self.held.is_some() => self.look().await,
                () = until(overdue) => {}
                () = self.inputs.changed() => {}
            }
        }
        self.gate.not_ready("shutting down");
    }

    /// The report that is to be written, and when; `None` while there is nothing to say.
    fn due(&mut self) -> (Option<FalcoNodeStatus>, Option<Instant>) {
        let Some(seen) = self.inputs.seen.borrow_and_update().clone() else { return (None, None) };
        let now = Instant::now();
        if seen.lists != self.lists {
            match (self.lists, &mut self.created) {
                (0, Some(created)) => created.lists = seen.lists,
                (0, None) => {}
                _ => self.look_at = self.look_at.min(now + about(LOOK_SOON)),
            }
            self.lists = seen.lists;
        }
        let Some(held) = &self.held else { return (None, None) };
        let catalog = match &*self.inputs.catalog.borrow_and_update() {
            CatalogName::Pending => held.status.catalog.clone(),
            CatalogName::None => None,
            CatalogName::Some(name) => Some(name.clone()),
        };
        let running = self.inputs.running.borrow_and_update();
        let facts = Facts {
            expected: &seen.expected,
            running: &running,
            agent: &self.identity.pod,
            catalog: catalog.as_deref(),
        };
        let next = facts.report();
        let due = match facts.urgency(Some(&held.status), &next) {
            Urgency::Nothing => {
                (self.unsent, self.passing) = (None, None);
                self.reported = true;
                return (None, None);
            }
            Urgency::Now => now,
            Urgency::After(pause) => *self.passing.get_or_insert(now) + pause,
        };
        self.unsent.get_or_insert(now);
        (Some(next), Some(due))
    }

    fn tell_readiness(&self) {
        let waits = self.unsent.is_some_and(|since| since.elapsed() >= UNSENT);
        let why = match (self.reported, self.gone) {
            (true, true) => {
                "the FalcoNode is gone; if that was because the Node was created again, a token that names the new one is \
                 waited for"
            }
            (false, _) => "the first report has not been written",
            (true, false) if waits => "a report could not be written for more than 30 s",
            (true, false) => return self.gate.ready(),
        };
        match &self.failure {
            Some(failure) => self.gate.not_ready(format!("{why}: {failure}")),
            None => self.gate.not_ready(why),
        }
    }

    /// One step towards a report that stands: the object, its owner, its status.
    async fn act(&mut self, report: Option<FalcoNodeStatus>) {
        let done = match (&self.held, report) {
            (None, _) => self.find_or_create().await,
            (Some(held), _) if !self.owns(held) => self.take_over().await,
            (Some(_), Some(report)) => self.write(report).await,
            (Some(_), None) => Ok(()),
        };
        let now = Instant::now();
        match done {
            Ok(()) => {
                (self.failures, self.failure) = (0, None);
                self.not_before = self.not_before.max(now + PACE);
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.metrics.report_writes_total.with_label_values(&[failure.outcome]).inc();
                let pause = match failure.outcome {
                    // Somebody else wrote, or deleted: seen with the next read.
                    "conflict" | "not_found" if self.failures == 1 => Duration::ZERO,
                    _ => about((PAUSES.0 * 2u32.saturating_pow(self.failures.min(16) - 1)).min(PAUSES.1)),
                };
                self.not_before = now + pause;
                if matches!(failure.outcome, "conflict" | "not_found") {
                    self.held = None;
                }
                if failure.outcome == "forbidden" {
                    self.read_token();
                }
                tracing::warn!(
                    node = self.identity.node, failure.message, again_in = ?pause,
                    "the report of this node can't be written"
                );
                self.failure = Some(failure.message);
            }
        }
    }

    async fn find_or_create(&mut self) -> Result<(), Failure> {
        if self.created.is_some() {
            self.read_token();
            if !self.may_create() {
                self.not_before = Instant::now() + TOKEN;
                return Ok(());
            }
        }
        if let Some(found) = call(self.api.get_opt(&self.identity.node)).await? {
            (self.held, self.gone) = (Some(Held::found(&found)), false);
            return Ok(());
        }
        self.gone = true;
        if !self.may_create() {
            return Ok(());
        }
        let mut node = DynamicObject::new(&self.identity.node, &self.resource).data(json!({ "spec": {} }));
        node.metadata.owner_references = Some(vec![self.owner()]);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let made = call(self.api.create(&params, &node)).await?;
        self.created = Some(Created { with: self.identity.token, lists: self.lists, at: Instant::now() });
        tracing::info!(node = self.identity.node, "the FalcoNode is created");
        (self.held, self.gone) = (Some(Held::found(&made)), false);
        Ok(())
    }

    /// Whether the object may be created: once with each token. If it went with a Node that was created again under its
    /// name, the next one would go too until the token names the new Node. That does not hold where all bundles had to be
    /// listed again (the world may have been lost), nor for ever (somebody may have deleted it).
    fn may_create(&self) -> bool {
        self.created.is_none_or(|created| {
            created.with != self.identity.token || created.lists != self.lists || created.at.elapsed() >= SAME_TOKEN
        })
    }

    fn read_token(&mut self) {
        match self.token.read() {
            Ok(identity) if identity.node == self.identity.node => self.identity = identity,
            Ok(identity) => {
                tracing::warn!(node = identity.node, "the token is now that of another node; it is ignored");
            }
            Err(err) => tracing::warn!(%err, "the token can't be read again"),
        }
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.identity.node.clone(),
            uid: self.identity.node_uid.clone(),
            ..OwnerReference::default()
        }
    }

    fn owns(&self, held: &Held) -> bool {
        held.owners == [self.owner()]
    }

    /// Makes an object that was left by a Node of the same name this Node's.
    async fn take_over(&mut self) -> Result<(), Failure> {
        let Some(held) = &self.held else { return Ok(()) };
        let metadata = json!({ "resourceVersion": held.version, "ownerReferences": [self.owner()] });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = call(self.api.patch(&self.identity.node, &params(), &patch)).await?;
        self.held = Some(Held::found(&patched));
        Ok(())
    }

    async fn write(&mut self, report: FalcoNodeStatus) -> Result<(), Failure> {
        let Some(held) = &self.held else { return Ok(()) };
        let Ok(new) = serde_json::to_value(&report) else {
            return Err(Failure { outcome: "failed", message: "the report can't be written as JSON".to_owned() });
        };
        let patch = json!({ "metadata": { "resourceVersion": held.version }, "status": difference(&held.json, &new) });
        let patched = call(self.api.patch_status(&self.identity.node, &params(), &Patch::Merge(patch))).await?;
        // What was sent, not what came back: a field that the server's definition does not know is not sent for ever.
        self.held = Some(Held { status: report, ..Held::found(&patched) });
        (self.unsent, self.passing, self.reported) = (None, None, true);
        self.metrics.report_writes_total.with_label_values(&["written"]).inc();
        Ok(())
    }

    /// Looks whether the report still stands: this agent has no right to watch it.
    async fn look(&mut self) {
        self.look_at = Instant::now() + about(LOOK);
        self.read_token();
        match call(self.api.get_opt(&self.identity.node)).await {
            Ok(None) => {
                tracing::warn!(node = self.identity.node, "the FalcoNode is gone");
                self.metrics.report_drifts_total.inc();
                (self.held, self.gone) = (None, true);
            }
            Ok(Some(found)) => {
                if self.held.as_ref().map(|held| &held.version) != found.resource_version().as_ref() {
                    let found = Held::found(&found);
                    if self.held.as_ref().is_some_and(|held| held.status != found.status) {
                        self.metrics.report_drifts_total.inc();
                    }
                    self.held = Some(found);
                }
                let foreign = self.held.as_ref().is_some_and(|held| !self.owns(held));
                if foreign && let Err(failure) = self.take_over().await {
                    tracing::warn!(failure.message, "the owner of the FalcoNode can't be set right");
                }
            }
            Err(failure) => tracing::debug!(failure.message, "it can't be seen whether the report still stands"),
        }
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(CALL, call).await {
        Ok(done) => done.map_err(|err| Failure::of(&err)),
        Err(_) => Err(Failure { outcome: "timeout", message: format!("no answer within {} s", CALL.as_secs()) }),
    }
}

/// Between three quarters and five quarters of a time, so that agents don't march in step.
fn about(time: Duration) -> Duration {
    let parts = RandomState::new().hash_one(0) % 513;
    time * 3 / 4 + time * (parts as u32) / 1024
}

/// The merge patch that makes `old` into `new`.
fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter_map(|(key, value)| match old.get(key) {
        Some(before) if before == value => None,
        Some(before @ Value::Object(_)) => Some((key.clone(), difference(before, value))),
        _ => Some((key.clone(), value.clone())),
    });
    Value::Object(removed.chain(changed).collect::<Map<_, _>>())
}
