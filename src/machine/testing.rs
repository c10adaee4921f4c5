//! A namespace in memory, for the tests of the decision: what the API server would hold, and nodes that say what they
//! are told to say.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::{
    Action, Decision, Desired, Facts, NamespaceNodes, NodeVerdict, Policy, Refresh, RulesFileFacts, decide, decide::run,
};
use crate::api::{
    BundleFile, BundleItem, Event, FalcoBundleSpec, FalcoRulesFileSpec, FalcoRulesFileStatus, Fault, NONE, Phase,
};

/// The name of the namespace.
pub const NAMESPACE: &str = "team-a";

/// A rules file as the API server would hold it.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub generation: i64,
    pub spec: FalcoRulesFileSpec,
    pub status: Option<FalcoRulesFileStatus>,
    pub finalizer: bool,
    pub deleting: bool,
}

/// A node of a test.
#[derive(Clone, Debug)]
pub struct TestNode {
    pub name: String,
    pub live: bool,
    pub faulty: bool,
    pub catalog: &'static str,
    pub loaded: String,
    pub said: bool,
    pub tried: Option<String>,
    pub fault: Option<Fault>,
    pub message: Option<String>,
}

/// A namespace with everything that a decision about it rests on.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
pub struct World {
    pub now: Timestamp,
    pub policy: Policy,
    pub uid: Option<String>,
    pub terminating: bool,
    pub items: Vec<(String, String)>,
    /// Whether the file of the items is one that is too large.
    pub too_large: bool,
    /// Whether the file of the items is not known yet.
    pub unknown: bool,
    pub rules_file: Option<Stored>,
    pub bundle: Option<FalcoBundleSpec>,
    pub agents: bool,
    pub unproved: i32,
    pub nodes: Vec<TestNode>,
    /// Every transition that was taken.
    pub taken: Vec<(Phase, Event, Phase)>,
}

/// The file of these items.
pub fn file(items: &[(String, String)]) -> BundleFile {
    let item = |(name, text): &(String, String)| BundleItem {
        name: name.clone(),
        generation: 1,
        rule_name: name.clone(),
        text: format!("- rule: {name}\n  condition: {text}\n"),
    };
    BundleFile::new(items.iter().map(item).collect())
}

impl World {
    /// A namespace with no items, and `nodes` nodes that load nothing.
    pub fn new(nodes: usize) -> Self {
        Self {
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            policy: Policy::default(),
            uid: Some("uid-1".into()),
            terminating: false,
            items: vec![],
            too_large: false,
            unknown: false,
            rules_file: None,
            bundle: None,
            agents: true,
            unproved: 0,
            nodes: (0..nodes).map(|index| TestNode::new(&format!("node-{index}"))).collect(),
            taken: vec![],
        }
    }

    /// Writes or changes an item.
    pub fn apply_item(&mut self, name: &str, text: &str) {
        self.delete_item(name);
        self.items.push((name.into(), text.into()));
        self.items.sort();
    }

    /// Deletes an item.
    pub fn delete_item(&mut self, name: &str) {
        self.items.retain(|(known, _)| known != name);
    }

    /// The file of the items.
    pub fn desired(&self) -> BundleFile {
        file(&self.items)
    }

    /// Hands the facts to `with`.
    pub fn with_facts<T>(&self, with: impl FnOnce(&Facts<'_>) -> T) -> T {
        let rules: BTreeSet<String> = self.items.iter().map(|(name, _)| name.clone()).collect();
        let desired = self.desired();
        let nodes = NamespaceNodes {
            agents: self.agents,
            desired: self.nodes.len() as i32 + self.unproved,
            unproved: self.unproved,
            nodes: self.nodes.iter().map(TestNode::verdict).collect(),
        };
        with(&Facts {
            namespace: NAMESPACE,
            namespace_uid: self.uid.as_deref(),
            terminating: self.terminating,
            rules_file: self.rules_file.as_ref().map(|stored| RulesFileFacts {
                generation: Some(stored.generation),
                spec: &stored.spec,
                status: stored.status.as_ref(),
                finalizer: stored.finalizer,
                deleting: stored.deleting,
            }),
            bundle: self.bundle.as_ref(),
            has_items: !self.items.is_empty(),
            rules: &rules,
            desired: match (self.items.is_empty() || self.unknown, self.too_large) {
                (true, _) => Desired::Unknown,
                (false, true) => Desired::TooLarge { bytes: 2_000_000, limit: 1_000_000 },
                (false, false) => Desired::File(&desired),
            },
            accepted: self.items.len() as i32,
            rejected: 0,
            nodes,
        })
    }

    /// Decides, and checks that the way through the table leads to the phase of the decision.
    pub fn decide(&mut self) -> Decision {
        let (policy, now) = (self.policy.clone(), self.now);
        let (decision, from, path, to) = self.with_facts(|facts| {
            let run = run(facts, &policy, now);
            (decide(facts, &policy, now), run.from, run.path.clone(), run.phase)
        });
        let mut phase = from;
        for event in path {
            let next = phase.next(event).unwrap();
            self.taken.push((phase, event, next));
            phase = next;
        }
        assert_eq!(phase, to, "from {from} by {:?}", self.taken);
        decision
    }

    /// Does one action, as the API server would.
    pub fn perform(&mut self, action: &Action, decision: &Decision) {
        match action {
            Action::CreateRulesFile { finalizer } => {
                assert!(self.rules_file.is_none() && !self.terminating && self.uid.is_some());
                self.rules_file = Some(Stored { generation: 1, finalizer: *finalizer, ..Stored::default() });
            }
            Action::AddFinalizer => {
                let stored = self.rules_file.as_mut().unwrap();
                assert!(!stored.finalizer && !stored.deleting);
                stored.finalizer = true;
            }
            Action::WriteStatus => {
                let stored = self.rules_file.as_mut().unwrap();
                // What is stored has been through JSON.
                let text = serde_json::to_string(&decision.status).unwrap();
                stored.status = Some(serde_json::from_str(&text).unwrap());
            }
            Action::WriteBundle(spec) => {
                assert_ne!(self.bundle.as_ref(), Some(&**spec), "a write that changes nothing");
                let text = serde_json::to_string(spec).unwrap();
                self.bundle = Some(serde_json::from_str(&text).unwrap());
            }
            Action::DeleteBundle => assert!(self.bundle.take().is_some()),
            Action::RemoveFinalizer => {
                let stored = self.rules_file.as_mut().unwrap();
                assert!(stored.finalizer);
                stored.finalizer = false;
                if stored.deleting {
                    self.rules_file = None;
                }
            }
            Action::DeleteRulesFile => self.delete_rules_file(),
        }
    }

    /// Deletes the rules file: at once, or once its finalizer is gone.
    pub fn delete_rules_file(&mut self) {
        let Some(stored) = &mut self.rules_file else { return };
        stored.deleting = true;
        if !stored.finalizer {
            self.rules_file = None;
        }
    }

    /// Decides and does it.
    pub fn step(&mut self) -> Decision {
        let decision = self.decide();
        for action in &decision.actions {
            self.perform(action, &decision);
        }
        if decision.refresh != Refresh::None {
            self.perform(&Action::WriteStatus, &decision);
        }
        decision
    }

    /// Decides and does it, and checks that the same facts then lead to nothing more.
    pub fn step_once(&mut self) -> Decision {
        let decision = self.step();
        let again = self.decide();
        assert_eq!((again.actions, again.refresh, again.events), (vec![], Refresh::None, vec![]), "{decision:#?}");
        decision
    }

    /// Every node that takes part loads what it is to load.
    pub fn load(&mut self) {
        for index in 0..self.nodes.len() {
            self.load_on(index);
        }
    }

    /// One node loads what it is to load.
    pub fn load_on(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let wanted = self.bundle.as_ref().and_then(|bundle| bundle.wanted(NAMESPACE, &node.name));
        let settled = self.bundle.as_ref().and_then(|bundle| bundle.settled());
        node.loaded = wanted.map_or(NONE.to_owned(), |file| file.hash.clone());
        node.said = wanted.map(|file| &file.hash) != settled.map(|file| &file.hash);
        (node.tried, node.fault, node.message) = (None, None, None);
    }

    /// One node tries what it is to load in vain.
    pub fn fail_on(&mut self, index: usize, fault: Fault, message: &str) {
        let node = &mut self.nodes[index];
        let wanted = self.bundle.as_ref().and_then(|bundle| bundle.wanted(NAMESPACE, &node.name));
        node.tried = wanted.map(|file| file.hash.clone());
        node.fault = Some(fault);
        node.message = Some(message.into());
        node.said = true;
    }

    /// The phase that is stored.
    pub fn phase(&self) -> Phase {
        self.status().phase
    }

    /// The status that is stored.
    pub fn status(&self) -> &FalcoRulesFileStatus {
        self.rules_file.as_ref().and_then(|stored| stored.status.as_ref()).unwrap()
    }

    /// What `spec` of the rules file is.
    pub fn spec(&mut self) -> &mut FalcoRulesFileSpec {
        let stored = self.rules_file.get_or_insert_with(|| Stored { generation: 1, ..Stored::default() });
        stored.generation += 1;
        &mut stored.spec
    }

    /// Lets time pass.
    pub fn pass(&mut self, seconds: u64) {
        self.now = super::later(self.now, Duration::from_secs(seconds));
    }

    /// A namespace whose rule is active on every node.
    pub fn active(nodes: usize) -> Self {
        let mut world = Self::new(nodes);
        world.apply_item("a", "one");
        world.step();
        world.load();
        world.step();
        world.load();
        assert_eq!(world.phase(), Phase::Active);
        world
    }
}

impl TestNode {
    /// A node that loads nothing.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            live: true,
            faulty: false,
            catalog: "catalog-1",
            loaded: NONE.into(),
            said: false,
            tried: None,
            fault: None,
            message: None,
        }
    }

    fn verdict(&self) -> NodeVerdict<'_> {
        NodeVerdict {
            node: &self.name,
            live: self.live,
            faulty: self.faulty,
            catalog: Some(self.catalog),
            loaded: Some(&self.loaded),
            said: self.said,
            tried: self.tried.as_deref(),
            fault: self.fault,
            message: self.message.as_deref(),
        }
    }
}
