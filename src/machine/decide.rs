//! The decision.

use k8s_openapi::jiff::Timestamp;

use super::{Decision, Facts, Policy};

/// What is to be done about a namespace: the same answer for the same facts, and nothing once its actions are done.
#[must_use]
pub fn decide(facts: &Facts<'_>, policy: &Policy, now: Timestamp) -> Decision {
    let _ = (facts, policy, now);
    Decision {
        status: crate::api::FalcoRulesFileStatus::default(),
        actions: vec![],
        refresh: super::Refresh::None,
        look_again: None,
        events: vec![],
        reason: crate::api::Reason::Empty,
    }
}
