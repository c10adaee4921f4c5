//! `FalcoRulesFile`: the state machine of a namespace, as its developers see it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fault, Phase};

/// What developers can ask of their namespace's rollout.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "mumoshu.github.io",
    version = "v1alpha1",
    kind = "FalcoRulesFile",
    plural = "falcorulesfiles",
    namespaced,
    status = "FalcoRulesFileStatus",
    derive = "PartialEq",
    doc = "The rules file of this namespace on its way to the nodes: one per namespace, of the namespace's name, made by the controller.",
    shortname = "frf",
    category = "falco",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Loaded", type_ = "string", json_path = ".status.loaded"),
    printcolumn(name = "Accepted", type_ = "integer", json_path = ".status.rulesAccepted"),
    printcolumn(name = "Rejected", type_ = "integer", json_path = ".status.rulesRejected"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.phaseSince"),
    printcolumn(name = "Hash", type_ = "string", json_path = ".status.targetHash", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
pub struct FalcoRulesFileSpec {
    /// Stops the rollout before its next wave, until it is false again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,

    /// Any new value tries a file again that was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub retry_token: Option<String>,
}

/// Where the namespace's rules file is, and why. Written by the controller; what a decision needs after a restart is here.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FalcoRulesFileStatus {
    /// The generation of the object that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the file is on its way to the nodes.
    #[serde(default)]
    pub phase: Phase,

    /// Since when it has been there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<MicroTime>,

    /// SHA-256 of the file that the items of the namespace make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_hash: Option<String>,

    /// SHA-256 of the file that nodes are to load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_hash: Option<String>,

    /// SHA-256 of the last file that every available node had loaded, or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_hash: Option<String>,

    /// SHA-256 of the file that was rolled back last; it is not tried again before an edit or a new `retryToken`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_hash: Option<String>,

    /// Why it was rolled back, in Falco's words where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_reason: Option<String>,

    /// The `retryToken` that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_token: Option<String>,

    /// How many rules of the namespace are in the file as they are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules_accepted: Option<i32>,

    /// How many rules of the namespace are not; each says why in its own status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules_rejected: Option<i32>,

    /// Nodes, counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,

    /// Nodes that have the target loaded, of those that should: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,

    /// The wave under way, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<i32>,

    /// When the rollout, rollback or withdrawal under way began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,

    /// When the wave under way began; its deadline counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave_started_at: Option<MicroTime>,

    /// Some of the nodes that have not loaded the target yet: at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,

    /// Some of the nodes that could not load the target, with what they said: at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<FailingNode>,

    /// What there is to say, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// `Ready`, `Reconciling` and `Stalled`, as Kubernetes' tools read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How many nodes there are of each kind.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that should load the file.
    #[serde(default)]
    pub desired: i32,
    /// Nodes whose agent is ready and has proved what Falco runs.
    #[serde(default)]
    pub available: i32,
    /// Available nodes that have the target loaded.
    #[serde(default)]
    pub loaded: i32,
    /// Nodes that report but cannot prove what Falco runs.
    #[serde(default)]
    pub unproved: i32,
    /// Nodes that could not load the target.
    #[serde(default)]
    pub failed: i32,
}

/// A node that could not load the target.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailingNode {
    /// The node.
    pub node: String,
    /// Whose fault it is.
    pub fault: Fault,
    /// What Falco or the agent said, as far as it concerns this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
