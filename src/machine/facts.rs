//! What a decision is made from, and what it is.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use crate::api::{BundleFile, FalcoBundleSpec, FalcoRulesFileSpec, FalcoRulesFileStatus, Fault, Reason};

/// Everything that a decision about a namespace rests on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// Its UID; `None` where no such namespace exists.
    pub namespace_uid: Option<&'a str>,
    /// Whether the namespace is being deleted: nothing can be created in it any more.
    pub terminating: bool,
    /// The `FalcoRulesFile` of the namespace's name, if it is there.
    pub rules_file: Option<RulesFileFacts<'a>>,
    /// The spec of the `FalcoBundle` of the namespace's name, if it is there and not being deleted.
    pub bundle: Option<&'a FalcoBundleSpec>,
    /// Whether a rule, macro or list exists in the namespace.
    pub has_items: bool,
    /// The object names of the `FalcoRule`s that exist: a file that is rolled back to loses the others.
    pub rules: &'a BTreeSet<String>,
    /// The file that the items make.
    pub desired: Desired<'a>,
    /// How many rules are in the file as they are written.
    pub accepted: i32,
    /// How many rules are not.
    pub rejected: i32,
    /// The nodes, as [`super::Nodes::of`] sees them for this namespace.
    pub nodes: NamespaceNodes<'a>,
}

/// The `FalcoRulesFile` of a namespace.
#[derive(Clone, Debug)]
pub struct RulesFileFacts<'a> {
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// What its developers ask for.
    pub spec: &'a FalcoRulesFileSpec,
    /// The status that was written last.
    pub status: Option<&'a FalcoRulesFileStatus>,
    /// Whether it carries [`crate::api::FINALIZER`].
    pub finalizer: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// The file that the items of a namespace make.
#[derive(Clone, Copy, Debug)]
pub enum Desired<'a> {
    /// It is not known yet, or there are no items; nothing new is begun.
    Unknown,
    /// This one.
    File(&'a BundleFile),
    /// One that the API server would not take.
    TooLarge {
        /// Its size as a bundle, in bytes.
        bytes: usize,
        /// The most that is written.
        limit: usize,
    },
}

/// The nodes, as one namespace sees them.
#[derive(Clone, Debug, Default)]
pub struct NamespaceNodes<'a> {
    /// Whether an agent is deployed at all, or may be: false only where every `DaemonSet` is known to be absent or to
    /// want no node.
    pub agents: bool,
    /// How many nodes should load the file.
    pub desired: i32,
    /// How many report but can't prove what they load.
    pub unproved: i32,
    /// The nodes that count: the available ones, and those that count as they last did; by name.
    pub nodes: Vec<NodeVerdict<'a>>,
}

/// What one node has proved to load of one namespace.
#[derive(Clone, Debug)]
pub struct NodeVerdict<'a> {
    /// The node.
    pub node: &'a str,
    /// Whether it is available now; false where it counts as it last did.
    pub live: bool,
    /// Whether it has a fault of its own, by its own word, so that it can't be expected to load anything.
    pub faulty: bool,
    /// The catalogue that its Falco offers.
    pub catalog: Option<&'a str>,
    /// The hash of the file that it has loaded, or `none`; `None` where that is not known.
    pub loaded: Option<&'a str>,
    /// Whether it said so in an entry of its own rather than by its sum.
    pub said: bool,
    /// The file that it tried in vain.
    pub tried: Option<&'a str>,
    /// Whose fault that is.
    pub fault: Option<Fault>,
    /// What it has to say.
    pub message: Option<&'a str>,
}

/// What is to be done about a namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The status as it should be; to be written by [`Action::WriteStatus`], or when `refresh` says so.
    pub status: FalcoRulesFileStatus,
    /// What to write, in this order. A failure ends the list: decide again from fresh facts.
    pub actions: Vec<Action>,
    /// Whether the status should be written although no action says so, because numbers in it have moved.
    pub refresh: Refresh,
    /// When to decide again, even if nothing happens.
    pub look_again: Option<Timestamp>,
    /// What to tell the developers, once, after the actions are done.
    pub events: Vec<EventNote>,
    /// Why the namespace is, or is not, ready: the reason of its `Ready` condition.
    pub reason: Reason,
}

impl Decision {
    /// The bundle as it is once the actions are done.
    #[must_use]
    pub fn bundle<'a>(&'a self, facts: &Facts<'a>) -> Option<&'a FalcoBundleSpec> {
        self.actions.iter().fold(facts.bundle, |bundle, action| match action {
            Action::WriteBundle(spec) => Some(spec),
            Action::DeleteBundle => None,
            _ => bundle,
        })
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the `FalcoRulesFile` of the namespace's name with an empty spec, with the finalizer or without.
    CreateRulesFile {
        /// Whether it carries [`crate::api::FINALIZER`] from the start.
        finalizer: bool,
    },
    /// Add [`crate::api::FINALIZER`] to the `FalcoRulesFile`.
    AddFinalizer,
    /// Write [`Decision::status`] to the `FalcoRulesFile`.
    WriteStatus,
    /// Create the `FalcoBundle`, owned by the namespace with the UID of the spec, or replace its spec.
    WriteBundle(Box<FalcoBundleSpec>),
    /// Delete the `FalcoBundle`, at the version that the facts hold.
    DeleteBundle,
    /// Remove [`crate::api::FINALIZER`] from the `FalcoRulesFile`.
    RemoveFinalizer,
    /// Delete the `FalcoRulesFile`.
    DeleteRulesFile,
}

/// How soon numbers that have moved are to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refresh {
    /// The status is current, or an action writes it.
    #[default]
    None,
    /// Nodes merely joined or left: within ten minutes, under the cluster's budget of writes.
    Lazy,
    /// What is under way in this namespace moved on: within a second or so, so that many reports become one write.
    Soon,
    /// It says something new: at once.
    Now,
}

/// Something to tell the developers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// The reason of the Event.
    pub reason: EventReason,
    /// What happened, in a sentence.
    pub message: String,
}

/// Why there is an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// A new file is being rolled out.
    RollingOut,
    /// Every available node has loaded the file.
    Loaded,
    /// The file is being taken back.
    RollingBack,
    /// The last good file is loaded again.
    RolledBack,
    /// A node lost or refuses the file.
    Degraded,
    /// Nodes said nothing until the deadline and are not waited for.
    NodesSilent,
    /// Nodes drop the file.
    Withdrawing,
    /// No node loads the file any more.
    Unloaded,
}

impl EventReason {
    /// The word as the API writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RollingOut => "RollingOut",
            Self::Loaded => "Loaded",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::Degraded => "Degraded",
            Self::NodesSilent => "NodesSilent",
            Self::Withdrawing => "Withdrawing",
            Self::Unloaded => "Unloaded",
        }
    }

    /// Whether it is a warning.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::RollingBack | Self::RolledBack | Self::Degraded | Self::NodesSilent)
    }
}
