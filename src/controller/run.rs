//! The loop: changes in, decisions out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::execute::{Executor, Failure};
use super::gauges;
use super::index::{Index, Written};
use super::lease::{self, Candidate, Lead};
use super::metrics::ControllerMetrics;
use super::plan::{Policies, Work};
use super::queue::{Queue, Ripe, Touch};
use super::reader::Questions;
use super::watch::{self, Change, Watched};
use crate::api::Reason;
use crate::machine::{EventReason, Nodes, Refresh};
use crate::telemetry::Gate;

/// The kinds that must be known before anything is decided.
const KINDS: usize = 11;
/// Namespaces that are worked for at once.
const AT_ONCE: usize = 16;
/// How long numbers that move with a rollout may wait, so that many reports become one write.
const SOON: Duration = Duration::from_millis(500);
/// How long numbers that move because nodes join or leave wait at least.
const LAZY: Duration = Duration::from_secs(3);
/// After that they are spread so that this is the time from one namespace to the next, whatever the number of namespaces:
/// what one node more or less may cost the API server.
const LAZY_EACH: Duration = Duration::from_millis(100);
/// The longest time over which they are spread.
const LAZY_SPREAD: Duration = Duration::from_secs(590);
/// How long a catalogue that no live node names is kept.
const CATALOG_KEPT: Duration = Duration::from_secs(3600);
/// How long writes under way may take after the shutdown began.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// What a controller needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of the release, for the lease.
    pub namespace: String,
    /// The name of this process' pod.
    pub pod_name: String,
    /// The agents.
    pub watched: Watched,
    /// The names of the agents' `DaemonSet`s; none means all of the agents' namespace.
    pub daemon_sets: BTreeSet<String>,
    /// The name of the lease.
    pub lease_name: String,
    /// For how many namespaces there are metrics of their own.
    pub most_namespaces: usize,
    /// Whether a proof that is only assumed counts.
    pub accept_assumed: bool,
    /// Whether to withdraw all that nodes load and end, whatever developers wrote.
    pub cleanup: bool,
}

/// What is due about a namespace beside what is urgent.
#[derive(Clone, Copy, Debug)]
struct Later {
    urgency: Refresh,
    at: Instant,
}

/// What a task of ours has done.
#[derive(Debug)]
enum Task {
    Work { namespace: String, news: News },
    Items { namespace: String },
    Catalog,
}

/// What the metrics want to know of a piece of work.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
struct News {
    rolling: bool,
    back: Option<Reason>,
    loaded: bool,
    bundle: bool,
    degraded: bool,
}

impl News {
    fn of(work: &Work) -> Self {
        let has = |reason| work.events.iter().any(|event| event.reason == reason);
        Self {
            rolling: has(EventReason::RollingOut),
            back: has(EventReason::RollingBack).then_some(work.reason),
            loaded: has(EventReason::Loaded),
            degraded: has(EventReason::Degraded),
            bundle: work.actions.iter().any(|action| matches!(action, crate::machine::Action::WriteBundle(_))),
        }
    }
}

/// Runs a controller until `shutdown`; with [`Options::cleanup`] until nothing is left, which is the only way in which it
/// ends by itself. `questions` are answered from the index for as long as somebody may ask.
pub async fn run(
    client: Client,
    options: Options,
    policies: Policies,
    metrics: ControllerMetrics,
    gate: Gate,
    questions: Questions,
    shutdown: CancellationToken,
) {
    let lead = Lead::default();
    let candidate = Candidate {
        leases: kube::Api::namespaced(client.clone(), &options.namespace),
        name: options.lease_name.clone(),
        me: options.pod_name.clone(),
    };
    let written_last = CancellationToken::new();
    let leases = tokio::spawn(lease::run(candidate, lead.clone(), written_last.clone()));
    let (changes_to, changes) = mpsc::channel(1024);
    let streaming = watch::streams(&client).await;
    watch::all(&client, &options.watched, &metrics, &changes_to, streaming);
    let (written_to, written) = mpsc::unbounded_channel();
    let executor = Executor {
        client,
        lead: lead.clone(),
        metrics: metrics.clone(),
        written: written_to,
        me: options.pod_name.clone(),
    };
    let index = Index::new(Nodes::new(options.accept_assumed), options.daemon_sets.clone(), options.cleanup);
    let mut controller = Controller {
        index,
        queue: Queue::default(),
        policies,
        executor,
        metrics,
        known: HashSet::new(),
        gate,
        tasks: JoinSet::new(),
        under_way: HashMap::new(),
        working: BTreeSet::new(),
        telling: BTreeSet::new(),
        later: BTreeMap::new(),
        judge_at: None,
        edits: HashMap::new(),
        measured: HashMap::new(),
        drifted: BTreeSet::new(),
        most_namespaces: options.most_namespaces,
        catalogs: HashMap::new(),
        gauges_at: None,
        leading: false,
        questions,
    };
    controller.serve(changes, written, lead, options.cleanup, &shutdown).await;
    let Controller { index, policies, questions, mut tasks, .. } = controller;
    // API servers go on asking for a while.
    tokio::spawn(questions.rest(index, policies));
    let last = async { while tasks.join_next().await.is_some() {} };
    if timeout(LAST_WRITES, last).await.is_err() {
        tracing::warn!("writes were still under way at the end; the next leader goes on from what they have done");
    }
    written_last.cancel();
    if let Err(err) = leases.await {
        tracing::warn!(%err, "the task of the lease ended badly");
    }
}

struct Controller {
    index: Index,
    queue: Queue,
    policies: Policies,
    executor: Executor,
    metrics: ControllerMetrics,
    known: HashSet<&'static str>,
    gate: Gate,
    tasks: JoinSet<Result<(), Failure>>,
    under_way: HashMap<Id, Task>,
    working: BTreeSet<String>,
    telling: BTreeSet<String>,
    later: BTreeMap<String, Later>,
    /// When nodes are to be judged anew.
    judge_at: Option<Instant>,
    /// Since when the newest edit of a namespace that is not loaded has been known.
    edits: HashMap<String, Instant>,
    /// The newest edit of each namespace of which it was measured how long it took, so that none is measured twice.
    measured: HashMap<String, Timestamp>,
    /// Nodes whose report contradicts itself.
    drifted: BTreeSet<String>,
    most_namespaces: usize,
    /// Since when no live node names a catalogue.
    catalogs: HashMap<String, Instant>,
    gauges_at: Option<Instant>,
    leading: bool,
    questions: Questions,
}

impl Controller {
    async fn serve(
        &mut self,
        mut changes: mpsc::Receiver<Change>,
        mut written: mpsc::UnboundedReceiver<Written>,
        lead: Lead,
        cleanup: bool,
        shutdown: &CancellationToken,
    ) {
        let mut leading = lead.changes();
        let mut batch = Vec::with_capacity(256);
        loop {
            let now = Instant::now();
            if self.leading && self.ready() {
                self.decide(now);
                if cleanup && self.index.is_clean() && self.tasks.is_empty() {
                    return;
                }
            }
            self.gauges(now);
            let wake = self.wake();
            let sleep = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Ok(()) = leading.changed() => {
                    let leads = *leading.borrow_and_update();
                    self.lead(leads);
                }
                Some(seen) = written.recv() => self.index.written(seen),
                Some(question) = self.questions.next() => {
                    question.answer(self.ready().then_some(&self.index), &self.policies);
                }
                Some(done) = self.tasks.join_next_with_id() => {
                    // What it wrote is in the channel already.
                    while let Ok(seen) = written.try_recv() {
                        self.index.written(seen);
                    }
                    match done {
                        Ok((id, result)) => self.done(id, result),
                        // Cut off because leadership was lost.
                        Err(err) if err.is_cancelled() => self.done(err.id(), Err(Failure::NotLeading)),
                        Err(err) => self.done(err.id(), Err(Failure::Other(err.to_string()))),
                    }
                }
                count = changes.recv_many(&mut batch, 256) => {
                    if count == 0 {
                        tracing::error!("all watches have ended");
                        return;
                    }
                    self.gauges_soon(Instant::now());
                    for change in batch.drain(..) {
                        if change.is_list() && self.known.insert(change.kind()) && self.known.len() == KINDS {
                            tracing::info!("all caches are filled");
                            self.gate.ready();
                        }
                        self.index.take(change);
                    }
                }
                () = sleep => {}
            }
            self.touched();
        }
    }

    fn ready(&self) -> bool {
        self.known.len() == KINDS
    }

    /// When to go on even if nothing happens.
    fn wake(&self) -> Option<Instant> {
        let queue = if self.leading && self.ready() && self.working.len() < AT_ONCE {
            self.queue.next_at(|namespace| self.working.contains(namespace))
        } else {
            None
        };
        let catalogs = self.catalogs.values().map(|since| *since + CATALOG_KEPT).min().filter(|_| self.leading);
        [queue, self.judge_at, catalogs, self.gauges_at].into_iter().flatten().min()
    }

    fn lead(&mut self, leading: bool) {
        self.leading = leading;
        self.metrics.leader.set(i64::from(leading));
        self.queue.clear();
        self.later.clear();
        self.edits.clear();
        self.catalogs.clear();
        if leading {
            // Whatever was rendered here before, another process may have decided since.
            self.index.forget_rendered();
            let now = Instant::now();
            for namespace in self.index.all() {
                self.queue.touch(&namespace, Touch::Edit, now);
            }
        } else {
            self.tasks.abort_all();
        }
    }

    /// Takes over what the index says has changed.
    fn touched(&mut self) {
        let now = Instant::now();
        let timestamp = Timestamp::now();
        let touched = self.index.touched(timestamp);
        self.judge_at = touched.look_again.map(|at| instant(at, timestamp, now));
        if !self.leading {
            return;
        }
        for (namespace, touch) in touched.namespaces {
            if touch == Touch::Edit {
                self.edits.entry(namespace.clone()).or_insert(now);
            }
            self.queue.touch(&namespace, touch, now);
        }
        self.sweep(now);
    }

    fn decide(&mut self, now: Instant) {
        while self.working.len() < AT_ONCE {
            let ripe = self.queue.next(now, |namespace| self.working.contains(namespace));
            let Some(ripe) = ripe else { return };
            self.decide_for(&ripe, now);
        }
    }

    fn decide_for(&mut self, ripe: &Ripe, now: Instant) {
        let namespace = &ripe.namespace;
        let timestamp = Timestamp::now();
        let due = self.later.get(namespace).filter(|later| later.at <= now).map(|later| later.urgency);
        let urgency = due.unwrap_or(Refresh::Now);
        let fresh = ripe.render || !self.queue.edit_waits(namespace);
        let timer = self.metrics.decision_seconds.start_timer();
        let plan = self.index.plan(namespace, fresh, urgency, &self.policies, timestamp);
        timer.observe_duration();
        let Some(plan) = plan else {
            self.queue.forget(namespace);
            self.later.remove(namespace);
            self.edits.remove(namespace);
            self.measured.remove(namespace);
            return;
        };
        if due.is_some() {
            self.later.remove(namespace);
        }
        if let Some(at) = plan.look_again {
            self.queue.look_again(namespace, instant(at, timestamp, now));
        }
        let mut wait = plan.later;
        if !plan.items.is_empty() {
            if self.telling.contains(namespace) {
                // The statuses before these are still being written.
                wait = wait.max(Refresh::Soon);
            } else {
                self.telling.insert(namespace.clone());
                let (executor, items) = (self.executor.clone(), plan.items);
                let id = self.tasks.spawn(async move { executor.items(items).await }).id();
                self.under_way.insert(id, Task::Items { namespace: namespace.clone() });
            }
        }
        if wait > Refresh::None {
            self.put_off(namespace, wait, now);
        }
        if let Some(work) = plan.work {
            self.working.insert(namespace.clone());
            let news = News::of(&work);
            tracing::debug!(namespace, actions = ?work.actions.len(), phase = %work.status.phase, "deciding");
            let executor = self.executor.clone();
            let id = self.tasks.spawn(async move { executor.work(work).await }).id();
            self.under_way.insert(id, Task::Work { namespace: namespace.clone(), news });
        }
    }

    /// Notes that something may wait, and how long.
    fn put_off(&mut self, namespace: &str, urgency: Refresh, now: Instant) {
        let at = match urgency {
            Refresh::Lazy => {
                // Spread over the time, so that a node that joins does not make all namespaces write at once.
                let mut hasher = DefaultHasher::new();
                namespace.hash(&mut hasher);
                let count = u32::try_from(self.index.spaces.len()).unwrap_or(u32::MAX);
                let spread = LAZY_EACH.saturating_mul(count).min(LAZY_SPREAD);
                let spread = u64::try_from(spread.as_millis()).unwrap_or(1).max(1);
                now + LAZY + Duration::from_millis(hasher.finish() % spread)
            }
            _ => now + SOON,
        };
        let later = self.later.entry(namespace.to_owned()).or_insert(Later { urgency, at });
        later.at = later.at.min(at);
        later.urgency = later.urgency.min(urgency);
        let at = later.at;
        self.queue.look_again(namespace, at);
    }

    fn done(&mut self, id: Id, result: Result<(), Failure>) {
        let now = Instant::now();
        let Some(task) = self.under_way.remove(&id) else { return };
        let namespace = match &task {
            Task::Catalog => String::new(),
            Task::Work { namespace, .. } => {
                self.working.remove(namespace);
                namespace.clone()
            }
            Task::Items { namespace } => {
                self.telling.remove(namespace);
                namespace.clone()
            }
        };
        match result {
            Ok(()) => {
                self.queue.done(&namespace);
                if let Task::Work { news, .. } = &task {
                    self.count(&namespace, news, now);
                    // What was written may call for the next step.
                    self.queue.touch(&namespace, Touch::Fact, now);
                }
            }
            Err(failure) => {
                let log = !matches!(failure, Failure::Conflict | Failure::NotLeading);
                if log {
                    tracing::warn!(%failure, namespace, "something could not be written; it is decided anew");
                }
                if !namespace.is_empty() && self.leading {
                    self.queue.failed(&namespace, now);
                }
            }
        }
    }

    fn count(&mut self, namespace: &str, news: &News, now: Instant) {
        if news.rolling {
            self.metrics.rollouts_total.inc();
        }
        if let Some(reason) = news.back {
            let reason = if reason == Reason::NowhereLoaded { "NowhereLoaded" } else { "Refused" };
            self.metrics.rollbacks_total.with_label_values(&[reason]).inc();
            self.edits.remove(namespace);
        }
        if news.bundle
            && let Some(since) = self.edits.get(namespace)
        {
            self.metrics.event_to_bundle_seconds.observe((now - *since).as_secs_f64());
        }
        if news.loaded
            && let Some(since) = self.edits.remove(namespace)
        {
            self.metrics.seen_to_loaded_seconds.observe((now - since).as_secs_f64());
            let known = self.measured.get(namespace);
            if let Some(at) = self.index.edited_at(namespace).filter(|at| known.is_none_or(|known| at > known)) {
                let took = Timestamp::now().duration_since(at).as_secs_f64().max(0.0);
                self.metrics.apply_to_loaded_seconds.observe(took);
                self.measured.insert(namespace.to_owned(), at);
            }
        }
        if news.degraded {
            self.metrics.drifts_total.with_label_values(&["namespace"]).inc();
        }
    }

    /// Deletes catalogues that are not what their names say, or that no live node has named for long.
    fn sweep(&mut self, now: Instant) {
        let named: HashSet<&String> = self.index.offers.values().collect();
        self.catalogs.retain(|name, _| self.index.catalogs.contains_key(name) && !named.contains(name));
        let mut delete = vec![];
        for (name, catalog) in &self.index.catalogs {
            let forged = catalog.catalog.is_none();
            if !forged && named.contains(name) {
                continue;
            }
            let since = *self.catalogs.entry(name.clone()).or_insert(now);
            if forged || now >= since + CATALOG_KEPT {
                delete.push(catalog.meta.clone());
            }
        }
        for meta in delete {
            let name = meta.name.clone().unwrap_or_default();
            tracing::info!(name, "deleting a catalogue that no node names, or that is not what its name says");
            self.index.catalogs.remove(&name);
            self.catalogs.remove(&name);
            let executor = self.executor.clone();
            let id = self.tasks.spawn(async move { executor.delete_catalog(&meta).await }).id();
            self.under_way.insert(id, Task::Catalog);
        }
    }

    fn gauges_soon(&mut self, now: Instant) {
        self.gauges_at.get_or_insert(now + Duration::from_secs(1));
    }

    /// Counts what there is, at most once a second and only after something changed.
    fn gauges(&mut self, now: Instant) {
        let (depth, age) = self.queue.backlog(now);
        self.metrics.queue_depth.set(depth as i64);
        self.metrics.queue_age_seconds.set(age.as_secs_f64());
        if self.gauges_at.is_some_and(|at| now >= at) {
            self.gauges_at = None;
            gauges::count(&self.index, &self.metrics, self.most_namespaces);
            let drifted = gauges::drifted(&self.index);
            let new = drifted.difference(&self.drifted).count() as u64;
            self.metrics.drifts_total.with_label_values(&["node"]).inc_by(if self.leading { new } else { 0 });
            self.drifted = drifted;
        }
    }
}

/// The instant of a time: at once where it is past.
fn instant(at: Timestamp, timestamp: Timestamp, now: Instant) -> Instant {
    now + Duration::try_from(at.duration_since(timestamp)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_instants_and_the_past_is_now() {
        let (now, timestamp) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(instant(at(5), timestamp, now), now + Duration::from_secs(5));
        assert_eq!(instant(at(-5), timestamp, now), now);
    }
}
