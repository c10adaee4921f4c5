//! What the cluster knows of its nodes, whatever the namespace.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;

use super::{NamespaceNodes, NodeVerdict, later, sum::Sum};
use crate::api::{FalcoNodeStatus, Fault, NONE, NodeNamespace, Proof};

/// How long a node that stops being available counts as it last did.
const GRACE: Duration = Duration::from_secs(120);
/// How long the last verdicts of a node stand whose sum is not the one that its entries make.
const SUM_GRACE: Duration = Duration::from_secs(30);

/// The pod of an agent, as the API server shows it: one that is scheduled and not finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentPodFacts {
    /// Its UID.
    pub uid: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its ready agent has proved what Falco runs.
    Available,
    /// It is not available, for this reason, since then.
    Away(Away, Timestamp),
}

/// Why a node is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Away {
    /// No agent pod is scheduled to it.
    NoAgent,
    /// Its agent pod is not ready, or is being deleted.
    NotReady,
    /// Its agent has not reported yet.
    NoReport,
    /// The report is that of another agent pod than the ready one.
    OldReport,
    /// The report had to leave entries out.
    Incomplete,
    /// The node has a fault of its own, by its own word.
    Faulty,
    /// It can't prove what its Falco runs.
    Unproved,
    /// The sum of its report is not the one that its entries make.
    Drifted,
}

impl Away {
    /// The word for labels and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAgent => "NoAgent",
            Self::NotReady => "NotReady",
            Self::NoReport => "NoReport",
            Self::OldReport => "OldReport",
            Self::Incomplete => "Incomplete",
            Self::Faulty => "Faulty",
            Self::Unproved => "Unproved",
            Self::Drifted => "Drifted",
        }
    }

    /// How long the last verdicts stand.
    const fn grace(self) -> Duration {
        match self {
            Self::Drifted => SUM_GRACE,
            _ => GRACE,
        }
    }
}

/// What a call of [`Nodes::refresh`] has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Whether what every namespace sees of the nodes may have changed: how many there are, and which count.
    pub everything: bool,
    /// The namespaces about which a node has something new to say.
    pub namespaces: BTreeSet<String>,
    /// When to call again, even if nothing happens.
    pub look_again: Option<Timestamp>,
}

/// A report with its entries by namespace.
#[derive(Debug)]
struct Report {
    status: FalcoNodeStatus,
    entries: HashMap<String, usize>,
}

impl Report {
    fn new(status: FalcoNodeStatus) -> Self {
        let entries = status.namespaces.iter().enumerate().map(|(at, entry)| (entry.namespace.clone(), at)).collect();
        Self { status, entries }
    }

    fn entry(&self, namespace: &str) -> Option<&NodeNamespace> {
        self.entries.get(namespace).and_then(|at| self.status.namespaces.get(*at))
    }
}

/// The verdicts of a node when it was last available.
#[derive(Debug)]
struct Last {
    report: Arc<Report>,
    /// What namespaces without an entry had settled then, where that has changed since.
    settled: HashMap<String, String>,
}

/// What is known of one node.
#[derive(Debug)]
struct Node {
    pods: Vec<AgentPodFacts>,
    report: Option<Arc<Report>>,
    /// What the entries of the report make of the sum over the settled files.
    correction: Sum,
    last: Option<Last>,
    standing: Standing,
    /// Whether it counts: available, or in grace.
    counts: bool,
}

impl Node {
    fn new() -> Self {
        let standing = Standing::Away(Away::NoAgent, Timestamp::UNIX_EPOCH);
        Self { pods: Vec::new(), report: None, correction: Sum::default(), last: None, standing, counts: false }
    }

    /// Why it is not available now, given the sum over the settled files.
    fn away(&self, settled: Sum, accept_assumed: bool) -> Option<Away> {
        if self.pods.is_empty() {
            return Some(Away::NoAgent);
        }
        let mut ready = self.pods.iter().filter(|pod| pod.ready && !pod.terminating).peekable();
        if ready.peek().is_none() {
            return Some(Away::NotReady);
        }
        let Some(report) = &self.report else { return Some(Away::NoReport) };
        let status = &report.status;
        if !ready.any(|pod| pod.uid == status.agent.uid) {
            return Some(Away::OldReport);
        }
        if status.incomplete {
            return Some(Away::Incomplete);
        }
        if status.fault.is_some() {
            return Some(Away::Faulty);
        }
        match status.proof {
            Proof::Metrics => {}
            Proof::Assumed if accept_assumed => {}
            Proof::Assumed | Proof::None | Proof::Unknown => return Some(Away::Unproved),
        }
        let expected = settled.plus(self.correction).text();
        (status.rules_sum.as_deref() != Some(expected.as_str())).then_some(Away::Drifted)
    }
}

/// Every node, and what it has proved to run. Fed by the controller's watches, read once per decision.
///
/// Whoever feeds it calls [`Nodes::refresh`] before reading.
#[derive(Debug)]
#[allow(clippy::struct_field_names)]
pub struct Nodes {
    accept_assumed: bool,
    settled: HashMap<String, String>,
    sum: Sum,
    nodes: BTreeMap<String, Node>,
    /// How many nodes the `DaemonSet`s want an agent on; `None` before that is known.
    wanted: Option<i32>,
    changed: Refreshed,
}

impl Nodes {
    /// No nodes yet. With `accept_assumed`, a report whose proof is `Assumed` counts like one from Falco's metrics.
    #[must_use]
    pub fn new(accept_assumed: bool) -> Self {
        Self {
            accept_assumed,
            settled: HashMap::new(),
            sum: Sum::default(),
            nodes: BTreeMap::new(),
            wanted: None,
            changed: Refreshed::default(),
        }
    }

    /// Takes in what a namespace's bundle has settled (the hash of [`crate::api::FalcoBundleSpec::settled`]), or that it
    /// has settled nothing, or that there is no bundle.
    pub fn set_settled(&mut self, namespace: &str, hash: Option<&str>) {
        let old = self.settled.get(namespace).map_or(NONE, String::as_str);
        let new = hash.unwrap_or(NONE);
        if old == new {
            return;
        }
        let difference = Sum::of(namespace, new).minus(Sum::of(namespace, old));
        self.sum = self.sum.plus(difference);
        for node in self.nodes.values_mut() {
            if node.report.as_ref().is_some_and(|report| report.entry(namespace).is_some()) {
                node.correction = node.correction.minus(difference);
            }
            // A node that is away keeps its last word, which for want of an entry was the old settled file.
            if let Some(last) = &mut node.last
                && last.report.entry(namespace).is_none()
            {
                last.settled.entry(namespace.to_owned()).or_insert_with(|| old.to_owned());
            }
        }
        match hash {
            Some(hash) => self.settled.insert(namespace.to_owned(), hash.to_owned()),
            None => self.settled.remove(namespace),
        };
        self.changed.namespaces.insert(namespace.to_owned());
    }

    /// Takes in the agent pods that are scheduled to a node and not finished; none is an empty list.
    pub fn set_pods(&mut self, node: &str, pods: Vec<AgentPodFacts>) {
        let known = self.nodes.entry(node.to_owned()).or_insert_with(Node::new);
        if known.pods != pods {
            known.pods = pods;
            self.changed.everything = true;
        }
    }

    /// Takes in the report of a node, or that there is none.
    pub fn set_report(&mut self, node: &str, report: Option<FalcoNodeStatus>) {
        let known = self.nodes.entry(node.to_owned()).or_insert_with(Node::new);
        if known.report.as_ref().map(|report| &report.status) == report.as_ref() {
            return;
        }
        let new = report.map(|status| Arc::new(Report::new(status)));
        for (old, new) in [(&known.report, &new), (&new, &known.report)] {
            for entry in old.iter().flat_map(|report| &report.status.namespaces) {
                if new.as_ref().and_then(|report| report.entry(&entry.namespace)) != Some(entry) {
                    self.changed.namespaces.insert(entry.namespace.clone());
                }
            }
        }
        known.correction = Sum::default();
        for entry in new.iter().flat_map(|report| report.entries.keys().filter_map(|name| report.entry(name))) {
            let settled = self.settled.get(&entry.namespace).map_or(NONE, String::as_str);
            let difference = Sum::of(&entry.namespace, &entry.loaded).minus(Sum::of(&entry.namespace, settled));
            known.correction = known.correction.plus(difference);
        }
        known.report = new;
    }

    /// Takes in the sum of `status.desiredNumberScheduled` over the agents' `DaemonSet`s: 0 where none exists, `None`
    /// while their cache is not filled.
    pub fn set_wanted(&mut self, wanted: Option<i32>) {
        if self.wanted != wanted {
            self.wanted = wanted;
            self.changed.everything = true;
        }
    }

    /// Judges every node anew, and says what has changed since the last call.
    pub fn refresh(&mut self, now: Timestamp) -> Refreshed {
        let mut changed = std::mem::take(&mut self.changed);
        // A node that has neither an agent nor a report is gone for good.
        let before = self.nodes.len();
        self.nodes.retain(|_, node| !node.pods.is_empty() || node.report.is_some());
        changed.everything |= self.nodes.len() != before;

        for node in self.nodes.values_mut() {
            let (standing, counted) = (node.standing, node.counts);
            match node.away(self.sum, self.accept_assumed) {
                None => {
                    node.standing = Standing::Available;
                    node.counts = true;
                    if let Some(report) = &node.report {
                        node.last = Some(Last { report: Arc::clone(report), settled: HashMap::new() });
                    }
                }
                Some(away) => {
                    let since = match standing {
                        Standing::Away(_, since) if since != Timestamp::UNIX_EPOCH => since,
                        _ => now,
                    };
                    node.standing = Standing::Away(away, since);
                    let until = later(since, away.grace());
                    if now >= until {
                        node.last = None;
                    }
                    // One that was never seen available has no last word; but if only its sum is wrong, it is waited for.
                    node.counts = now < until && (node.last.is_some() || away == Away::Drifted);
                    if node.counts {
                        changed.look_again = Some(changed.look_again.map_or(until, |at| at.min(until)));
                    }
                }
            }
            let moved = match (standing, node.standing) {
                (Standing::Away(old, _), Standing::Away(new, _)) => old != new,
                (old, new) => old != new,
            };
            changed.everything |= moved || counted != node.counts;
        }
        changed
    }

    /// How many nodes should load rules: the agents that are scheduled and not leaving, and the nodes that their
    /// `DaemonSet`s want but that have none yet.
    #[must_use]
    pub fn desired(&self) -> i32 {
        let staying = |node: &&Node| node.pods.iter().any(|pod| !pod.terminating);
        let (scheduled, leaving) = (
            self.nodes.values().filter(staying).count() as i32,
            self.nodes.values().filter(|node| !node.pods.is_empty() && !staying(node)).count() as i32,
        );
        // A node whose only agent is leaving has one: the next comes to the same place.
        scheduled.max(self.wanted.unwrap_or(0).saturating_sub(leaving)).max(0)
    }

    /// Whether an agent is deployed, or may be.
    #[must_use]
    pub fn agents(&self) -> bool {
        self.wanted != Some(0) || self.nodes.values().any(|node| node.counts)
    }

    /// The nodes, as one namespace sees them.
    #[must_use]
    pub fn of(&self, namespace: &str) -> NamespaceNodes<'_> {
        let settled = self.settled.get(namespace).map_or(NONE, String::as_str);
        let unproved = |node: &&Node| !node.counts && matches!(node.standing, Standing::Away(Away::Unproved, _));
        NamespaceNodes {
            agents: self.agents(),
            desired: self.desired(),
            unproved: self.nodes.values().filter(unproved).count() as i32,
            nodes: self
                .nodes
                .iter()
                .filter(|(_, node)| node.counts)
                .map(|(name, node)| verdict(name, node, namespace, settled))
                .collect(),
        }
    }

    /// The faults of which available nodes tell, one for each node and namespace.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        let available = self.nodes.values().filter(|node| node.standing == Standing::Available);
        let reports = available.filter_map(|node| node.report.as_ref());
        reports.flat_map(|report| report.status.namespaces.iter().filter_map(|entry| entry.fault))
    }

    /// The catalogues that nodes which count name in their reports; where none counts, those that any node names.
    #[must_use]
    pub fn catalogs(&self) -> BTreeSet<&str> {
        let named = |counting: bool| -> BTreeSet<&str> {
            let nodes = self.nodes.values().filter(|node| node.counts || !counting);
            nodes.filter_map(|node| node.report.as_ref()?.status.catalog.as_deref()).collect()
        };
        let counting = named(true);
        if counting.is_empty() { named(false) } else { counting }
    }

    /// How each node stands, by name.
    pub fn standings(&self) -> impl Iterator<Item = (&str, Standing)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node.standing))
    }
}

/// What a node that counts has to say about a namespace.
fn verdict<'a>(name: &'a str, node: &'a Node, namespace: &str, settled: &'a str) -> NodeVerdict<'a> {
    let entry = node.last.as_ref().and_then(|last| last.report.entry(namespace));
    let held = node.last.as_ref().map(|last| last.settled.get(namespace).map_or(settled, String::as_str));
    NodeVerdict {
        node: name,
        live: node.standing == Standing::Available,
        faulty: matches!(node.standing, Standing::Away(Away::Faulty, _)),
        catalog: node.report.as_ref().and_then(|report| report.status.catalog.as_deref()),
        loaded: entry.map(|entry| entry.loaded.as_str()).or(held),
        said: entry.is_some(),
        tried: entry.and_then(|entry| entry.tried.as_deref()),
        fault: entry.and_then(|entry| entry.fault),
        message: entry.and_then(|entry| entry.message.as_deref()),
    }
}
