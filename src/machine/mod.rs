//! The state machine of a namespace: one pure decision function over facts. Pure.
//!
//! [`Nodes`] knows what each node has proved to run; [`decide`] turns it, together with the namespace's objects and its
//! rendered file, into the next status and the writes that lead there; [`item_status`] tells the developers. Nothing
//! here reads a clock: time is a parameter, and what a decision needs after a restart is in the status.

mod conditions;
mod decide;
mod facts;
#[cfg(test)]
mod item_tests;
mod items;
mod nodes;
mod policy;
mod rollout;
mod run;
#[cfg(test)]
mod simulation;
mod status;
mod sum;
mod tally;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod withdraw;

pub use decide::decide;
pub use facts::{
    Action, Decision, Desired, EventNote, EventReason, Facts, NamespaceNodes, NodeVerdict, Refresh, RulesFileFacts,
};
pub use items::{ItemFacts, ItemKind, item_status};
pub use nodes::{AgentPodFacts, Away, Nodes, Refreshed, Standing};
pub use policy::{Policy, Wave, WaveError};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// `after` from `at`, or the end of time.
fn later(at: Timestamp, after: std::time::Duration) -> Timestamp {
    SignedDuration::try_from(after).ok().and_then(|after| at.checked_add(after).ok()).unwrap_or(Timestamp::MAX)
}
