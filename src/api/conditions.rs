//! Conditions as Kubernetes' tools rely on them: `Ready`, and kstatus' `Reconciling` and `Stalled`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A condition's reason: a closed set, since reasons are an interface.
macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $reason:ident, )+) => {
        /// Why a condition has its status. The set is closed: scripts, alerts and metrics may rely on each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( $(#[doc = $doc])+ $reason, )+ }

        impl Reason {
            /// Every reason, in the order of the docs.
            pub const ALL: &'static [Self] = &[ $( Self::$reason ),+ ];

            /// The word as the API writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$reason => stringify!($reason) ),+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$reason => concat!($($doc),+) ),+ }
            }
        }
    };
}

reasons! {
    /// Every available node has proved to have the item loaded.
    Loaded,
    /// The item is valid; macros and lists have nothing further to prove.
    Valid,
    /// The rollout is under way.
    RollingOut,
    /// The item waits to be rolled out.
    Pending,
    /// The rollout is paused by the FalcoRulesFile's `spec.paused`.
    Paused,
    /// Falco could not read the item; the message says where.
    Invalid,
    /// Falco would load the item and come to harm by it.
    Unsafe,
    /// The administrator's policy does not allow the item.
    PolicyDenied,
    /// The object could not be decoded.
    Undecodable,
    /// Another rule of the cluster has the name.
    NameTaken,
    /// Something that the item uses does not exist or is not valid.
    DependencyInvalid,
    /// The rules file would be larger than the API server takes.
    TooLarge,
    /// Nodes refused the file; the message repeats what Falco said.
    Refused,
    /// No node loaded the file before the deadline.
    NowhereLoaded,
    /// Nodes are returning to the last good file.
    RollingBack,
    /// A node that had the file loaded has lost it.
    Degraded,
    /// The nodes' agents are there, but none is available.
    NoNodeAvailable,
    /// No agent is deployed.
    NoAgents,
    /// Nodes load the file but cannot prove it.
    Unproved,
    /// The item is loaded but cannot run; the message says why.
    NotRunning,
    /// Only some of the nodes' Falcos can load the item.
    SomeNodesOnly,
    /// No available node loads the file any more.
    Unloaded,
    /// Nodes are dropping the file.
    Withdrawing,
    /// The namespace has no rules, macros or lists.
    Empty,
    /// The FalcoRulesFile's name is not its namespace's, so it is ignored.
    WrongName,
    /// All is as it should be; nothing is under way.
    Settled,
}

/// A condition with everything that the API demands but its time, which [`set_condition`] gives it.
#[must_use]
pub fn condition(
    type_: &str,
    status: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
) -> Condition {
    let status = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.name().to_owned(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// Puts `next` in its place. The time moves only when the status does, and is a whole second: `metav1.Time` drops the
/// rest, and a finer one would never compare equal again.
pub fn set_condition(conditions: &mut Vec<Condition>, mut next: Condition, now: Timestamp) {
    next.last_transition_time = Time(Timestamp::from_second(now.as_second()).unwrap_or(Timestamp::UNIX_EPOCH));
    match conditions.iter_mut().find(|c| c.type_ == next.type_) {
        None => conditions.push(next),
        Some(old) => {
            if old.status == next.status {
                next.last_transition_time = old.last_transition_time.clone();
            }
            *old = next;
        }
    }
}

/// Whether the condition of that type is there with status `True`.
#[must_use]
pub fn condition_is(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}
