//! What there is to say about a namespace: its conditions and its message.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Desired, NamespaceNodes, run::Run, tally::names, withdraw::has_let_go};
use crate::api::{Phase, Reason, condition};

/// How a namespace, or an item, stands, for its conditions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outlook {
    /// The status of `Ready`; `None` for unknown.
    pub ready: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// Whether it is on its way.
    pub reconciling: bool,
    /// Whether it can't go on before somebody does something.
    pub stalled: bool,
    /// What there is to say.
    pub message: String,
}

impl Outlook {
    /// On its way to ready.
    pub fn under_way(reason: Reason, message: impl Into<String>) -> Self {
        Self { ready: Some(false), reason, reconciling: true, stalled: false, message: message.into() }
    }

    /// Not ready before somebody does something.
    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self { ready: Some(false), reason, reconciling: false, stalled: true, message: message.into() }
    }

    /// Ready.
    pub fn ready(reason: Reason, message: impl Into<String>) -> Self {
        Self { ready: Some(true), reason, reconciling: false, stalled: false, message: message.into() }
    }

    /// Nobody can tell.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { ready: None, reason, reconciling: false, stalled: false, message: message.into() }
    }

    /// The three conditions, as kstatus reads them: of `Reconciling` and `Stalled` at most one is true.
    pub fn conditions(&self, generation: Option<i64>) -> Vec<Condition> {
        let other = |type_: &str, holds: bool| {
            let (reason, message) = if holds { (self.reason, self.message.as_str()) } else { (Reason::Settled, "") };
            condition(type_, Some(holds), reason, message, generation)
        };
        vec![
            condition("Ready", self.ready, self.reason, self.message.as_str(), generation),
            other("Reconciling", self.reconciling),
            other("Stalled", self.stalled),
        ]
    }
}

/// Why nobody can tell what is loaded, where no node counts.
pub(super) fn nobody(nodes: &NamespaceNodes<'_>) -> Option<(Reason, String)> {
    if !nodes.nodes.is_empty() {
        return None;
    }
    Some(if !nodes.agents {
        (Reason::NoAgents, "No agent is deployed, so no node loads any rules.".to_owned())
    } else if nodes.unproved > 0 {
        let what = "cannot prove what their Falco loads; where its metrics can't be had, the chart's value \
                    rollout.acceptAssumed (the controller's option --accept-assumed) takes their word";
        (Reason::Unproved, format!("{} nodes {what}.", nodes.unproved))
    } else {
        (Reason::NoNodeAvailable, format!("None of {} nodes is available.", nodes.desired))
    })
}

/// What there is to say about the namespace, of whose `all` nodes that count `loaded` have the target.
pub(super) fn outlook(run: &Run<'_>, loaded: usize, all: usize) -> Outlook {
    let unknown = nobody(&run.facts.nodes);
    let because =
        run.rejection.as_ref().and_then(|rejection| rejection.message.as_deref()).unwrap_or("nodes refused it");
    if let (true, Desired::TooLarge { bytes, limit }) = (run.too_large, run.facts.desired) {
        let what = "Shorten or remove rules; what was loaded until now stays loaded";
        let message = format!("The rules file would take {bytes} bytes; the most that is written is {limit}. {what}.");
        return Outlook::stalled(Reason::TooLarge, message);
    }
    match run.phase {
        Phase::Empty => Outlook::ready(Reason::Empty, "The namespace has no rules, macros or lists."),
        Phase::Rendering if run.foreign => Outlook::under_way(
            Reason::Pending,
            "Nodes still load the rules file of an earlier namespace of this name; it is withdrawn first.",
        ),
        Phase::Rendering => Outlook::under_way(Reason::Pending, "The rules file is being made."),
        Phase::Distributing if run.paused => Outlook::under_way(
            Reason::Paused,
            "The new rules file waits: spec.paused of the FalcoRulesFile stops rollouts until it is false again.",
        ),
        Phase::Distributing => Outlook::under_way(Reason::Pending, "The rules file is being written for the nodes."),
        Phase::RollingBack => Outlook {
            reconciling: true,
            stalled: false,
            ..Outlook::stalled(
                rejection_reason(run),
                format!("Nodes return to the last good rules file, because {because}."),
            )
        },
        Phase::RolledBack => Outlook::stalled(
            rejection_reason(run),
            format!(
                "The newest edit was rolled back, because {because}. Correct the rules, or set a new spec.retryToken in \
                 the FalcoRulesFile to try the same ones again."
            ),
        ),
        Phase::Withdrawing => Outlook::under_way(Reason::Withdrawing, withdrawing(run, unknown)),
        Phase::RollingOut | Phase::Active | Phase::Degraded | Phase::Unknown => {
            if let Some((reason, message)) = unknown {
                return Outlook { reconciling: run.phase == Phase::RollingOut, ..Outlook::unknown(reason, message) };
            }
            let counted = format!("{loaded} of {all} available nodes have loaded the rules file");
            let late =
                names(run.facts.nodes.nodes.iter().filter(|n| n.loaded != Some(run.target_hash())).map(|n| n.node));
            match run.phase {
                Phase::RollingOut if run.stuck => Outlook::stalled(
                    Reason::NowhereLoaded,
                    format!("{counted}; {late} can't, through no fault of the rules."),
                ),
                Phase::RollingOut if run.paused => Outlook::under_way(
                    Reason::Paused,
                    format!("{counted}; spec.paused of the FalcoRulesFile stops what comes next."),
                ),
                Phase::RollingOut => {
                    let wave =
                        run.wave.filter(|wave| *wave > 1).map(|wave| format!(", wave {wave}")).unwrap_or_default();
                    Outlook::under_way(Reason::RollingOut, format!("{counted}{wave}."))
                }
                Phase::Degraded => Outlook::under_way(Reason::Degraded, format!("{counted}, but not {late}.")),
                _ if late.is_empty() => {
                    Outlook::ready(Reason::Loaded, "Every available node has loaded the rules file.")
                }
                _ => Outlook::ready(Reason::Loaded, format!("{counted}; waiting for {late}.")),
            }
        }
    }
}

/// Why the file was rolled back.
fn rejection_reason(run: &Run<'_>) -> Reason {
    run.rejection.as_ref().map_or(Reason::Refused, |rejection| rejection.reason)
}

/// How far the withdrawal is.
fn withdrawing(run: &Run<'_>, unknown: Option<(Reason, String)>) -> String {
    if let Some((_, why)) = unknown {
        return format!("Nodes are to drop the rules file. {why}");
    }
    let nodes = &run.facts.nodes.nodes;
    let still: Vec<&str> = nodes.iter().filter(|node| !has_let_go(node)).map(|node| node.node).collect();
    format!("{} of {} available nodes have yet to drop the rules file: {}.", still.len(), nodes.len(), names(still))
}
