//! The node's side: sets, the commit by one rename, Falco supervised, proof, report.
//!
//! Two halves meet in [`Wanted`] and [`Running`]: one talks to the API server (which files should this node load, and
//! what does it report), the other to Falco (how does it come to load them, and how is that proved).

pub mod catalog;
pub mod engine;
pub mod identity;
pub mod metrics;
pub mod report;
mod run;
pub mod watch;
pub mod world;
pub mod writer;

pub use run::run;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::{FalcoState, Fault, NodeTrouble, Proof};

/// What this node is to load, by namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The namespaces that have, or keep, a file here. One that is missing is to be dropped.
    pub files: BTreeMap<String, WantedFile>,
    /// Whether the API server's list has been seen since the start. Until then what is on disk stays as it is.
    pub synced: bool,
}

/// What this node is to load of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedFile {
    /// The file to load; `None` where the namespace's file is to be dropped here.
    pub target: Option<RulesText>,
    /// The file to fall back to where the target fails on this node: the last good one.
    pub last_good: Option<RulesText>,
    /// When the rollout began: candidates are added in this order, then by name. `None` for a settled file.
    pub since: Option<Timestamp>,
}

/// The text of a rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesText {
    /// Lower-case hexadecimal SHA-256 of the text.
    pub hash: String,
    /// The bytes of the file.
    pub text: String,
    /// The `FalcoRule` of each rule in it, by the name that Falco knows the rule by; empty where it is not known.
    pub rules: BTreeMap<String, String>,
}

/// What Falco is known to run here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    /// Whether Falco runs.
    pub falco: FalcoState,
    /// How it is known what it runs.
    pub proof: Proof,
    /// Hash of the file that is proved to run, by namespace; a namespace that is missing runs none.
    pub loaded: BTreeMap<String, String>,
    /// Files that were tried in vain, by namespace, as long as they are still wanted.
    pub trouble: BTreeMap<String, Trouble>,
    /// A fault of the node itself.
    pub fault: Option<NodeTrouble>,
    /// When Falco last loaded a set, by its own clock.
    pub last_reload: Option<Timestamp>,
    /// Falco's version.
    pub falco_version: Option<String>,
    /// The version of its rules engine.
    pub engine_version: Option<String>,
    /// Whether what is wanted is what runs, or was tried in vain: nothing is under way.
    pub settled: bool,
}

/// A file that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Hash of the file.
    pub tried: String,
    /// Whose fault it is.
    pub fault: Fault,
    /// What Falco said, as far as it concerns this namespace.
    pub message: String,
}
