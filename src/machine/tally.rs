//! What the nodes of a wave have to say about its target, and what follows from it.

use std::collections::BTreeMap;

use super::{NodeVerdict, run::fault_with};
use crate::api::{Fault, Rollout};

/// The nodes of a wave, by what they make of the target.
#[derive(Debug, Default)]
pub(super) struct Tally<'a> {
    /// They have it loaded.
    pub loaded: Vec<&'a NodeVerdict<'a>>,
    /// They refuse it, for a fault of the file.
    pub refused: Vec<&'a NodeVerdict<'a>>,
    /// They can't load it, for a fault that is not the file's.
    pub hindered: Vec<&'a NodeVerdict<'a>>,
    /// They wait for another file to give up the name of a rule.
    pub blocked: Vec<&'a NodeVerdict<'a>>,
    /// They have not answered.
    pub silent: Vec<&'a NodeVerdict<'a>>,
}

/// What the refusals amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusals<'a> {
    /// How many count against the file.
    pub counted: usize,
    /// Whether another node of the wave has yet to say whether the fault is the file's.
    pub open: bool,
    /// Nodes outside the wave that are to be asked.
    pub ask: Vec<&'a str>,
}

impl<'a> Tally<'a> {
    /// Sorts the nodes for which `within` holds. One with a fault of its own is not expected to load anything.
    pub fn of(nodes: &'a [NodeVerdict<'a>], target: &str, within: impl Fn(&NodeVerdict<'a>) -> bool) -> Self {
        let mut tally = Self::default();
        for node in nodes.iter().filter(|node| within(node)) {
            let group = match fault_with(node, target) {
                _ if node.loaded == Some(target) => &mut tally.loaded,
                _ if node.faulty => continue,
                Some(Fault::Refused) => &mut tally.refused,
                Some(Fault::NodeFault | Fault::BaseChanged | Fault::Unknown) => &mut tally.hindered,
                Some(Fault::NameTaken) => &mut tally.blocked,
                None => &mut tally.silent,
            };
            group.push(node);
        }
        tally
    }

    /// Whether an available node has it loaded.
    pub fn any_loaded(&self) -> bool {
        self.loaded.iter().any(|node| node.live)
    }

    /// The nodes that could not load it.
    pub fn failing(&self) -> impl Iterator<Item = &'a NodeVerdict<'a>> {
        self.refused.iter().chain(&self.hindered).chain(&self.blocked).copied()
    }

    /// What the refusals amount to. A single one counts only when a second node with the same catalogue refuses the file
    /// too, or when there is none to ask: one sick node can't veto a change.
    pub fn refusals(&self, nodes: &'a [NodeVerdict<'a>], expired: bool) -> Refusals<'a> {
        let mut by_catalog: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for node in &self.refused {
            *by_catalog.entry(node.catalog).or_default() += 1;
        }
        let mut sum = Refusals { counted: 0, open: false, ask: Vec::new() };
        for (catalog, refused) in by_catalog {
            let same = |node: &NodeVerdict<'_>| node.catalog == catalog;
            if refused > 1 {
                sum.counted += refused;
            } else if self.loaded.iter().any(|node| same(node)) {
                // Another one of its kind has it loaded: the fault is the node's own.
            } else if !expired && self.silent.iter().any(|node| same(node)) {
                sum.open = true;
            } else if let Some(other) = nodes.iter().find(|node| same(node) && node.live && !self.holds(node.node)) {
                sum.ask.push(other.node);
            } else {
                sum.counted += refused;
            }
        }
        sum
    }

    /// Whether the node is one of them.
    fn holds(&self, name: &str) -> bool {
        [&self.loaded, &self.refused, &self.hindered, &self.blocked, &self.silent]
            .into_iter()
            .any(|group| group.iter().any(|node| node.node == name))
    }
}

/// Whether a node takes part in the wave; hashes nothing where all do.
pub(super) fn within<'r>(rollout: &'r Rollout, namespace: &'r str) -> impl Fn(&NodeVerdict<'_>) -> bool + 'r {
    let all = rollout.threshold.as_deref() == Some(Rollout::ALL);
    move |node| all || rollout.includes(namespace, node.node)
}

/// Names as a sentence holds them: a few, and how many more.
pub(super) fn names<'a>(nodes: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let all: Vec<&str> = nodes.into_iter().collect();
    let shown = all.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}
