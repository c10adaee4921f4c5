//! A cluster in memory, whose developers, agents and controller act in any order, are stopped anywhere, and whose API
//! server refuses what rests on an old version. Whatever happened, the end must be the same, and some things must never
//! happen on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::decide::run;
use super::testing::{NAMESPACE, Stored, file};
use super::{
    Action, AgentPodFacts, Decision, Desired, Facts, Nodes, Policy, Refresh, RulesFileFacts, Standing, Wave, decide,
};
use crate::api::{
    AgentPod, BundleFile, FalcoBundleSpec, FalcoNodeStatus, FalcoRulesFileSpec, Fault, NONE, NodeFaultReason,
    NodeNamespace, NodeTrouble, Phase, Proof, RolloutKind, add_to_sum, sum_text,
};

/// What a rule looks like that every Falco refuses.
const BAD: &str = "bad";
/// How long an agent keeps a file whose bundle is missing without having been emptied.
const KEPT: Duration = Duration::from_secs(600);

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Op {
    Apply(u8, u8),
    Delete(u8),
    Pause(bool),
    Retry,
    LoseRulesFile,
    LoseBundle,
    DeleteNamespace,
    CreateNamespace,
    Controller,
    Crash,
    See(u8),
    Start(u8),
    Finish(u8),
    Report(u8),
    Cycle(u8),
    Pass(u16),
    Join,
    Leave(u8),
    Restart(u8),
    Hinder(u8, bool),
    Break(u8, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0..4u8;
    prop_oneof![
        6 => (0..3u8, 0..5u8).prop_map(|(name, text)| Op::Apply(name, text)),
        4 => (0..3u8).prop_map(Op::Delete),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => Just(Op::Retry),
        1 => Just(Op::LoseRulesFile),
        1 => Just(Op::LoseBundle),
        1 => Just(Op::DeleteNamespace),
        1 => Just(Op::CreateNamespace),
        24 => Just(Op::Controller),
        3 => Just(Op::Crash),
        6 => node.clone().prop_map(Op::See),
        6 => node.clone().prop_map(Op::Start),
        6 => node.clone().prop_map(Op::Finish),
        6 => node.clone().prop_map(Op::Report),
        16 => node.clone().prop_map(Op::Cycle),
        4 => (1..400u16).prop_map(Op::Pass),
        1 => Just(Op::Join),
        1 => node.clone().prop_map(Op::Leave),
        1 => node.clone().prop_map(Op::Restart),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Op::Hinder(node, on)),
        1 => (node, any::<bool>()).prop_map(|(node, on)| Op::Break(node, on)),
    ]
}

/// A node's agent, and what is true on its node.
#[derive(Clone, Debug)]
struct Agent {
    name: String,
    pod: u64,
    /// How much of the bundle's history it has seen.
    seen: usize,
    missing_since: Option<Timestamp>,
    /// What Falco runs: the truth.
    loaded: String,
    loading: Option<String>,
    /// How much of the history it had seen when it began the last load.
    began: usize,
    tried: Option<(String, Fault)>,
    /// Whether nothing new can be loaded, through a fault of its own.
    hindered: bool,
    /// Whether it knows of a fault of the node.
    broken: bool,
    report: Option<FalcoNodeStatus>,
}

/// A decision that is being carried out.
#[derive(Debug)]
struct Plan {
    decision: Decision,
    next: usize,
    versions: (u64, u64),
    /// Whether the rules file was deleted by hand while there were items: its finalizer goes whatever nodes load.
    by_hand: bool,
    /// The reports of the nodes that were available. What others say while it is carried out comes too late for it.
    reports: BTreeMap<String, Option<FalcoNodeStatus>>,
    /// How often anything else had been asked for.
    asked: u64,
}

/// Everything.
struct Sim {
    now: Timestamp,
    policy: Policy,
    namespaces: u64,
    terminating: bool,
    exists: bool,
    items: BTreeMap<String, String>,
    rules_file: Option<Stored>,
    rules_file_version: u64,
    /// Every state of the bundle, the last one in force.
    bundles: Vec<Option<FalcoBundleSpec>>,
    agents: Vec<Agent>,
    counter: u64,
    nodes: Nodes,
    plan: Option<Plan>,
    /// The hash that was rolled back, as long as nobody asked for anything else.
    rejected: Option<String>,
    /// How often anything else was asked for.
    asked: u64,
    /// The texts of every file that was ever rendered, by hash.
    files: BTreeMap<String, BundleFile>,
}

impl Sim {
    fn new(waves: Vec<Wave>, nodes: usize) -> Self {
        let mut sim = Self {
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            policy: Policy { waves, ..Policy::default() },
            namespaces: 1,
            terminating: false,
            exists: true,
            items: BTreeMap::new(),
            rules_file: None,
            rules_file_version: 0,
            bundles: vec![None],
            agents: vec![],
            counter: 0,
            nodes: Nodes::new(false),
            plan: None,
            rejected: None,
            asked: 0,
            files: BTreeMap::new(),
        };
        for _ in 0..nodes {
            sim.join();
        }
        sim
    }

    fn bundle(&self) -> Option<&FalcoBundleSpec> {
        self.bundles.last().and_then(Option::as_ref)
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn uid(&self) -> String {
        format!("uid-{}", self.namespaces)
    }

    // What nodes do.

    fn join(&mut self) {
        if self.agents.len() >= 4 {
            return;
        }
        let number = self.next_number();
        self.agents.push(Agent {
            name: format!("node-{number}"),
            pod: number,
            seen: self.bundles.len() - 1,
            missing_since: None,
            loaded: NONE.into(),
            loading: None,
            began: 0,
            tried: None,
            hindered: false,
            broken: false,
            report: None,
        });
        self.feed_nodes();
    }

    fn leave(&mut self, index: usize) {
        let agent = self.agents.remove(index);
        self.nodes.set_pods(&agent.name, vec![]);
        self.nodes.set_report(&agent.name, None);
        self.feed_nodes();
    }

    /// What an agent sees of the bundle.
    fn seen(&self, index: usize) -> Option<&FalcoBundleSpec> {
        self.bundles.get(self.agents[index].seen).and_then(Option::as_ref)
    }

    fn see(&mut self, index: usize) {
        let (last, now) = (self.bundles.len() - 1, self.now);
        let emptied = last == 0 || self.bundles[last - 1].as_ref().is_none_or(|bundle| bundle.target.is_none());
        let missing = self.bundles[last].is_none() && !emptied;
        let agent = &mut self.agents[index];
        agent.missing_since = missing.then(|| agent.missing_since.unwrap_or(now));
        agent.seen = last;
    }

    /// What an agent is to load, by what it has seen.
    fn wanted(&self, index: usize) -> String {
        let agent = &self.agents[index];
        let wanted = match (self.seen(index), agent.missing_since) {
            (Some(bundle), _) => bundle.wanted(NAMESPACE, &agent.name).map(|file| file.hash.clone()),
            (None, Some(since)) if self.now < super::later(since, KEPT) => Some(agent.loaded.clone()),
            (None, _) => None,
        };
        wanted.unwrap_or_else(|| NONE.to_owned())
    }

    fn start(&mut self, index: usize) {
        let wanted = self.wanted(index);
        let agent = &mut self.agents[index];
        if agent.tried.as_ref().is_some_and(|(tried, _)| *tried != wanted) {
            agent.tried = None;
        }
        if agent.loaded != wanted && agent.tried.is_none() && agent.loading.is_none() {
            (agent.loading, agent.began) = (Some(wanted), agent.seen);
        }
    }

    fn finish(&mut self, index: usize) {
        let bad = |hash: &str| {
            let file = self.files.get(hash);
            file.is_some_and(|file| file.items.iter().any(|item| item.text.contains(BAD)))
        };
        let Some(hash) = self.agents[index].loading.clone() else { return };
        let bad = bad(&hash);
        let agent = &mut self.agents[index];
        agent.loading = None;
        if agent.hindered && hash != NONE {
            agent.tried = Some((hash, Fault::NodeFault));
        } else if bad {
            agent.tried = Some((hash, Fault::Refused));
        } else {
            agent.loaded = hash;
        }
    }

    /// An agent writes its report if what is true on its node has changed.
    fn report(&mut self, index: usize) {
        let settled = self.seen(index).and_then(|bundle| bundle.settled()).map(|file| file.hash.clone());
        let agent = &mut self.agents[index];
        let settled = settled.unwrap_or_else(|| NONE.to_owned());
        let entry = (agent.loaded != settled || agent.tried.is_some()).then(|| NodeNamespace {
            namespace: NAMESPACE.into(),
            loaded: agent.loaded.clone(),
            tried: agent.tried.as_ref().map(|(hash, _)| hash.clone()),
            fault: agent.tried.as_ref().map(|(_, fault)| *fault),
            message: agent.tried.as_ref().map(|_| "LOAD_ERR".to_owned()),
        });
        let mut sum = [0; 32];
        if agent.loaded != NONE {
            add_to_sum(&mut sum, NAMESPACE, &agent.loaded);
        }
        let mut report = FalcoNodeStatus {
            agent: AgentPod { uid: agent.pod.to_string(), ..AgentPod::default() },
            proof: Proof::Metrics,
            rules_sum: Some(sum_text(&sum)),
            namespaces: entry.into_iter().collect(),
            fault: agent
                .broken
                .then(|| NodeTrouble { reason: NodeFaultReason::FalcoDown, message: "Falco is down".into() }),
            catalog: Some("catalog".into()),
            ..FalcoNodeStatus::default()
        };
        if let Some(old) = &agent.report {
            // An entry that has become superfluous is no reason to write.
            let superfluous = report.namespaces.is_empty()
                && old.namespaces.iter().all(|entry| entry.loaded == agent.loaded && entry.fault.is_none());
            if superfluous {
                report.namespaces.clone_from(&old.namespaces);
            }
            if report == *old {
                return;
            }
            if superfluous {
                report.namespaces.clear();
            }
        }
        agent.report = Some(report.clone());
        let name = agent.name.clone();
        self.nodes.set_report(&name, Some(report));
        self.feed_nodes();
    }

    fn cycle(&mut self, index: usize) {
        self.see(index);
        self.start(index);
        self.finish(index);
        self.report(index);
    }

    fn restart_agent(&mut self, index: usize) {
        let number = self.next_number();
        let agent = &mut self.agents[index];
        agent.pod = number;
        agent.loading = None;
        agent.tried = None;
        self.feed_nodes();
    }

    /// The pods as the API server shows them: an agent is ready once its own report is written.
    fn feed_nodes(&mut self) {
        for agent in &self.agents {
            let uid = agent.pod.to_string();
            let ready = agent.report.as_ref().is_some_and(|report| report.agent.uid == uid);
            self.nodes.set_pods(&agent.name, vec![AgentPodFacts { uid, ready, terminating: false }]);
        }
        self.nodes.set_wanted(Some(self.agents.len() as i32));
    }

    // What the controller does.

    fn with_facts<T>(&mut self, with: impl FnOnce(&Facts<'_>) -> T) -> T {
        let settled = self.bundle().and_then(|bundle| bundle.settled()).map(|file| file.hash.clone());
        self.nodes.set_settled(NAMESPACE, settled.as_deref());
        self.nodes.refresh(self.now);
        let items: Vec<_> = self.items.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
        let desired = file(&items);
        self.files.insert(desired.hash.clone(), desired.clone());
        for bundle in self.bundles.last().into_iter().flatten() {
            for file in bundle.target.iter().chain(bundle.settled()) {
                self.files.insert(file.hash.clone(), file.clone());
            }
        }
        let rules: BTreeSet<String> = self.items.keys().cloned().collect();
        let uid = self.uid();
        with(&Facts {
            namespace: NAMESPACE,
            namespace_uid: self.exists.then_some(&uid),
            terminating: self.terminating,
            rules_file: self.rules_file.as_ref().map(|stored| RulesFileFacts {
                generation: Some(stored.generation),
                spec: &stored.spec,
                status: stored.status.as_ref(),
                finalizer: stored.finalizer,
                deleting: stored.deleting,
            }),
            bundle: self.bundle(),
            has_items: !self.items.is_empty(),
            rules: &rules,
            desired: if items.is_empty() { Desired::Unknown } else { Desired::File(&desired) },
            accepted: self.items.len() as i32,
            rejected: 0,
            nodes: self.nodes.of(NAMESPACE),
        })
    }

    /// Decides: twice, which must be the same, and by a way that the table knows.
    fn decide(&mut self) -> Decision {
        let (policy, now) = (self.policy.clone(), self.now);
        self.with_facts(|facts| {
            let run = run(facts, &policy, now);
            let way = run.path.iter().try_fold(run.from, |phase, event| phase.next(*event));
            assert_eq!(way, Some(run.phase), "from {} by {:?}", run.from, run.path);
            let decision = decide(facts, &policy, now);
            assert_eq!(decision, decide(facts, &policy, now));
            decision
        })
    }

    fn bundle_version(&self) -> u64 {
        self.bundles.len() as u64
    }

    /// One write, or one decision.
    fn controller(&mut self) -> bool {
        let Some(plan) = &self.plan else {
            let mut decision = self.decide();
            if decision.refresh != Refresh::None && self.rules_file.is_some() {
                decision.actions.push(Action::WriteStatus);
            }
            let versions = (self.rules_file_version, self.bundle_version());
            let due = !decision.actions.is_empty();
            let deleting = self.rules_file.as_ref().is_some_and(|stored| stored.deleting);
            let by_hand = deleting && !self.items.is_empty() && !self.terminating;
            let (reports, asked) = (self.available(), self.asked);
            self.plan = due.then_some(Plan { decision, next: 0, versions, by_hand, reports, asked });
            return due;
        };
        let (versions, now) = (plan.versions, (self.rules_file_version, self.bundle_version()));
        let (decision, next) = (plan.decision.clone(), plan.next);
        let Some(action) = decision.actions.get(next) else {
            self.plan = None;
            return true;
        };
        let stale = match action {
            Action::WriteBundle(_) | Action::DeleteBundle => versions.1 != now.1,
            _ => versions.0 != now.0,
        };
        if stale || !self.perform(action, &decision) {
            self.plan = None;
            return true;
        }
        let versions = (self.rules_file_version, self.bundle_version());
        if let Some(plan) = &mut self.plan {
            plan.next += 1;
            // Only what was written just now is known; another object may have changed under it.
            match action {
                Action::WriteBundle(_) | Action::DeleteBundle => plan.versions.1 = versions.1,
                _ => plan.versions.0 = versions.0,
            }
        }
        true
    }

    /// One write; false where the API server refuses it.
    fn perform(&mut self, action: &Action, decision: &Decision) -> bool {
        match action {
            Action::CreateRulesFile { finalizer } => {
                if self.rules_file.is_some() || self.terminating || !self.exists {
                    return false;
                }
                self.rules_file = Some(Stored { generation: 1, finalizer: *finalizer, ..Stored::default() });
            }
            Action::AddFinalizer => {
                let Some(stored) = self.rules_file.as_mut().filter(|stored| !stored.deleting) else { return false };
                stored.finalizer = true;
            }
            Action::WriteStatus => {
                let Some(stored) = &mut self.rules_file else { return false };
                stored.status = Some(decision.status.clone());
            }
            Action::WriteBundle(spec) => {
                self.check_bundle(spec);
                self.bundles.push(Some((**spec).clone()));
            }
            Action::DeleteBundle => {
                assert!(self.bundle().is_some_and(|bundle| bundle.target.is_none()));
                self.check_let_go();
                self.bundles.push(None);
            }
            Action::RemoveFinalizer => {
                let Some(stored) = &mut self.rules_file else { return false };
                stored.finalizer = false;
                if stored.deleting {
                    self.rules_file = None;
                }
                if !self.plan.as_ref().is_some_and(|plan| plan.by_hand) {
                    self.check_let_go();
                }
            }
            Action::DeleteRulesFile => self.delete_rules_file(),
        }
        if !matches!(action, Action::WriteBundle(_) | Action::DeleteBundle) {
            self.rules_file_version += 1;
        }
        true
    }

    /// What must hold of every bundle that is written.
    fn check_bundle(&mut self, spec: &FalcoBundleSpec) {
        let kind = spec.rollout.as_ref().map(|rollout| rollout.kind);
        let held = self.rules_file.as_ref().is_some_and(|stored| stored.finalizer);
        if spec.target.is_some() && spec.namespace_uid == self.uid() && self.exists && !self.terminating {
            // Deleted by hand meanwhile, it comes back with the next decision.
            assert!(held || self.rules_file.is_none(), "a bundle before the finalizer");
        }
        // One that was decided before somebody asked again takes nothing back, nor one that came so soon after a new token
        // that the token is still to be answered.
        let timely = self.plan.as_ref().is_some_and(|plan| plan.asked == self.asked);
        let answered = self.rules_file.as_ref().is_some_and(|stored| {
            let token = stored.status.as_ref().and_then(|status| status.retry_token.as_ref());
            stored.spec.retry_token.is_none() || stored.spec.retry_token.as_ref() == token
        });
        if kind == Some(RolloutKind::Rollback) && timely && answered {
            self.rejected.clone_from(&spec.rejected_hash);
        }
        if let (Some(target), Some(RolloutKind::Rollout)) = (&spec.target, kind) {
            assert_ne!(self.rejected.as_ref(), Some(&target.hash), "tried again by itself");
        }
    }

    /// The reports of the nodes that are available.
    fn available(&self) -> BTreeMap<String, Option<FalcoNodeStatus>> {
        let standings: BTreeMap<&str, Standing> = self.nodes.standings().collect();
        let available = |agent: &&Agent| standings.get(&*agent.name) == Some(&Standing::Available);
        self.agents.iter().filter(available).map(|agent| (agent.name.clone(), agent.report.clone())).collect()
    }

    /// No node that is available loads anything of the namespace, when its objects are let go. A file that a node began
    /// to load in answer to an older bundle than it has reported on is not known to anybody yet; it goes again as soon as
    /// the node looks at what it is to load.
    fn check_let_go(&mut self) {
        let last = self.bundles.len() - 1;
        let (now, known) = (self.available(), self.plan.as_ref().map(|plan| &plan.reports));
        let same = |agent: &&Agent| {
            let report = now.get(&agent.name);
            report.is_some() && report == known.and_then(|known| known.get(&agent.name))
        };
        for agent in self.agents.iter().filter(same) {
            let told = agent.report.as_ref().is_some_and(|report| report.namespaces.iter().all(|it| it.loaded == NONE));
            assert!(told, "{agent:?} is let go of");
            assert!(agent.loaded == NONE || agent.began < last, "{agent:?} is let go of");
        }
    }

    fn delete_rules_file(&mut self) {
        let Some(stored) = &mut self.rules_file else { return };
        stored.deleting = true;
        if !stored.finalizer {
            self.rules_file = None;
        }
        self.rules_file_version += 1;
    }

    /// A process that is stopped remembers nothing.
    fn crash(&mut self) {
        self.plan = None;
        self.nodes = Nodes::new(false);
        for agent in self.agents.clone() {
            self.nodes.set_report(&agent.name, agent.report.clone());
        }
        self.feed_nodes();
    }

    // What developers and others do.

    fn edited(&mut self) {
        self.rejected = None;
        self.asked += 1;
    }

    fn spec(&mut self) -> Option<&mut FalcoRulesFileSpec> {
        if !self.exists || self.terminating && self.rules_file.is_none() {
            return None;
        }
        let stored = self.rules_file.get_or_insert_with(|| Stored { generation: 0, ..Stored::default() });
        stored.generation += 1;
        self.rules_file_version += 1;
        Some(&mut stored.spec)
    }

    fn delete_namespace(&mut self) {
        if !self.exists {
            return;
        }
        self.terminating = true;
        self.items.clear();
        self.edited();
        self.delete_rules_file();
    }

    /// The namespace goes when nothing is in it any more, and its bundle with it.
    fn finalize(&mut self) {
        if self.terminating && self.rules_file.is_none() && self.items.is_empty() {
            (self.exists, self.terminating) = (false, false);
        }
    }

    fn create_namespace(&mut self) {
        if !self.exists {
            self.exists = true;
            self.namespaces += 1;
        }
    }

    fn act(&mut self, op: Op) {
        let index = |node: u8| usize::from(node) % self.agents.len().max(1);
        match op {
            Op::Apply(name, text) if self.exists && !self.terminating => {
                let text = if text == 4 { BAD.to_owned() } else { format!("text-{text}") };
                self.items.insert(format!("rule-{name}"), text);
                self.edited();
            }
            Op::Delete(name) => {
                self.items.remove(&format!("rule-{name}"));
                self.edited();
            }
            Op::Pause(paused) => {
                if let Some(spec) = self.spec() {
                    spec.paused = paused;
                }
            }
            Op::Retry => {
                let number = self.next_number();
                if let Some(spec) = self.spec() {
                    spec.retry_token = Some(number.to_string());
                    self.edited();
                }
            }
            Op::LoseRulesFile => self.delete_rules_file(),
            Op::LoseBundle => {
                if self.bundle().is_some() {
                    self.bundles.push(None);
                    self.edited();
                }
            }
            Op::DeleteNamespace => self.delete_namespace(),
            Op::CreateNamespace => self.create_namespace(),
            Op::Controller => {
                self.controller();
            }
            Op::Crash => self.crash(),
            Op::Pass(seconds) => self.now = super::later(self.now, Duration::from_secs(u64::from(seconds))),
            Op::Join => self.join(),
            _ if self.agents.is_empty() => {}
            Op::See(node) => self.see(index(node)),
            Op::Start(node) => self.start(index(node)),
            Op::Finish(node) => self.finish(index(node)),
            Op::Report(node) => self.report(index(node)),
            Op::Cycle(node) => self.cycle(index(node)),
            Op::Leave(node) => self.leave(index(node)),
            Op::Restart(node) => self.restart_agent(index(node)),
            Op::Hinder(node, on) => {
                let index = index(node);
                self.agents[index].hindered = on;
            }
            Op::Break(node, on) => {
                let index = index(node);
                self.agents[index].broken = on;
            }
            Op::Apply(..) => {}
        }
        self.finalize();
    }

    /// Everybody is well again and does what there is to do, until nothing is left to do.
    fn rest(&mut self) {
        if self.agents.is_empty() {
            self.join();
        }
        for index in 0..self.agents.len() {
            let agent = &mut self.agents[index];
            (agent.hindered, agent.broken) = (false, false);
            if agent.tried.as_ref().is_some_and(|(_, fault)| *fault == Fault::NodeFault) {
                agent.tried = None;
            }
        }
        if self.rules_file.as_ref().is_some_and(|stored| stored.spec.paused)
            && let Some(spec) = self.spec()
        {
            spec.paused = false;
        }
        for _ in 0..4 {
            for _ in 0..12 {
                for index in 0..self.agents.len() {
                    self.cycle(index);
                }
                let mut steps = 0;
                while self.controller() {
                    steps += 1;
                    assert!(steps < 60, "no rest: {:?}", self.plan);
                }
                self.finalize();
                self.act(Op::Pass(1));
            }
            self.act(Op::Pass(700));
        }
    }

    /// What must be true at rest, whatever happened before.
    fn check_rest(&mut self) {
        self.rest();
        let wanted: Vec<_> = self.items.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
        let bad = self.items.values().any(|text| text == BAD);
        let phase = self.rules_file.as_ref().and_then(|stored| stored.status.as_ref()).map(|status| status.phase);
        if !wanted.is_empty() && !bad && phase == Some(Phase::RolledBack) {
            // Nobody loaded it in time; that is over.
            self.act(Op::Retry);
            self.rest();
        }
        let phase = self.rules_file.as_ref().and_then(|stored| stored.status.as_ref()).map(|status| status.phase);
        let loaded: BTreeSet<&str> = self.agents.iter().map(|agent| agent.loaded.as_str()).collect();
        if wanted.is_empty() {
            assert_eq!((self.bundle(), loaded), (None, BTreeSet::from([NONE])));
            match &self.rules_file {
                None => {}
                Some(stored) => {
                    assert!(!stored.finalizer && !stored.deleting && stored.spec != FalcoRulesFileSpec::default());
                    assert_eq!(phase, Some(Phase::Empty));
                }
            }
        } else {
            let bundle = self.bundle().unwrap();
            let target = bundle.target.as_ref();
            assert_eq!((&bundle.rollout, &bundle.namespace_uid), (&None, &self.uid()));
            assert_eq!(loaded, BTreeSet::from([target.map_or(NONE, |file| file.hash.as_str())]));
            assert!(self.rules_file.as_ref().unwrap().finalizer);
            let desired = file(&wanted);
            if bad {
                assert_eq!((phase, bundle.rejected_hash.as_ref()), (Some(Phase::RolledBack), Some(&desired.hash)));
            } else {
                assert_eq!((phase, target), (Some(Phase::Active), Some(&desired)));
            }
        }
        let decision = self.decide();
        assert_eq!((decision.actions, decision.refresh, decision.events), (vec![], Refresh::None, vec![]));
    }
}

/// Twice the status is written and the bundle is not: when the file is rolled back, and when an edit is held back.
#[test]
fn an_edit_is_held_back_while_the_bundle_knows_of_no_rollback() {
    use Op::{Apply, Controller, Crash, Cycle, Pause};
    let mut sim = Sim::new(vec![Wave::All], 1);
    let ops = [
        &[Cycle(0), Apply(0, 4)][..],
        &[Controller; 5],
        &[Cycle(0), Controller, Controller, Crash],
        &[Pause(true), Apply(0, 0), Controller, Controller, Crash],
    ];
    ops.concat().into_iter().for_each(|op| sim.act(op));
    let phase = sim.rules_file.as_ref().and_then(|stored| stored.status.as_ref()).map(|status| status.phase);
    let kind = sim.bundle().and_then(|bundle| bundle.rollout.as_ref()).map(|rollout| rollout.kind);
    assert_eq!((phase, kind), (Some(Phase::Distributing), Some(RolloutKind::Rollout)));
    sim.act(Controller);
    sim.check_rest();
}

/// A file that nobody could load is withdrawn, and wished for again; then the bundle is lost.
#[test]
fn what_was_being_withdrawn_is_not_taken_for_settled() {
    use Op::{Apply, Controller, Delete, LoseBundle};
    let mut sim = Sim::new(vec![Wave::All], 1);
    let ops = [&[Apply(0, 4), Controller, Delete(0)][..], &[Controller; 5], &[Apply(0, 4), LoseBundle]];
    ops.concat().into_iter().for_each(|op| sim.act(op));
    sim.check_rest();
}

/// A token is set while the file that is to be rolled back is still rolling out: it is tried once more.
#[test]
fn a_token_is_answered_although_it_came_before_the_rollback() {
    use Op::{Apply, Controller, Cycle, Retry};
    let mut sim = Sim::new(vec![Wave::All], 2);
    let ops = [&[Apply(0, 4), Cycle(0), Cycle(1)][..], &[Controller; 5], &[Cycle(0), Cycle(1), Retry, Controller]];
    ops.concat().into_iter().for_each(|op| sim.act(op));
    sim.check_rest();
    let token = sim.rules_file.as_ref().map(|stored| {
        (stored.spec.retry_token.clone(), stored.status.as_ref().and_then(|status| status.retry_token.clone()))
    });
    assert!(token.is_some_and(|(asked, answered)| asked.is_some() && asked == answered));
}

fn waves() -> impl Strategy<Value = Vec<Wave>> {
    prop_oneof![
        Just(vec![Wave::All]),
        Just(vec![Wave::Nodes(1), Wave::All]),
        Just(vec![Wave::Nodes(1), Wave::Percent(50), Wave::All]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_end_is_the_same(
        waves in waves(),
        nodes in 0..4usize,
        ops in proptest::collection::vec(op(), 0..240),
    ) {
        let mut sim = Sim::new(waves, nodes);
        for op in &ops {
            sim.act(*op);
        }
        sim.check_rest();
    }
}
