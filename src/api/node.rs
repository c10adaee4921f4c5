//! `FalcoNode`: what one node runs, in the words of its agent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A node as its agent sees it. It has no spec: nobody asks anything of a node here.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "mumoshu.github.io",
    version = "v1alpha1",
    kind = "FalcoNode",
    status = "FalcoNodeStatus",
    derive = "PartialEq",
    doc = "What the Falco of the node of the same name has proved to run. Written by that node's agent only.",
    shortname = "fnode",
    printcolumn(name = "Falco", type_ = "string", json_path = ".status.falcoVersion"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.falco"),
    printcolumn(name = "Proof", type_ = "string", json_path = ".status.proof"),
    printcolumn(name = "Fault", type_ = "string", json_path = ".status.fault.reason"),
    printcolumn(name = "Reloaded", type_ = "date", json_path = ".status.lastReloadTime"),
    printcolumn(name = "Catalog", type_ = "string", json_path = ".status.catalog", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FalcoNodeSpec {}

/// The report of a node: what is, not what was seen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FalcoNodeStatus {
    /// The agent pod that wrote the report.
    #[serde(default)]
    pub agent: AgentPod,

    /// Falco's version, such as `0.44.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub falco_version: Option<String>,

    /// The version of its rules engine, such as `0.62.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,

    /// Whether Falco runs.
    #[serde(default)]
    pub falco: FalcoState,

    /// How it is known what Falco runs.
    #[serde(default)]
    pub proof: Proof,

    /// Σ SHA-256(namespace ‖ 0 ‖ file hash) modulo 2²⁵⁶ over the files of namespaces that Falco has proved to run here,
    /// in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules_sum: Option<String>,

    /// One entry for each namespace whose loaded file is not its settled one, or that has trouble here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace"]))]
    pub namespaces: Vec<NodeNamespace>,

    /// Whether entries had to be left out; the report then counts for nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,

    /// A fault of the node itself, which makes it unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<NodeTrouble>,

    /// When Falco last loaded a set of rules files, by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reload_time: Option<MicroTime>,

    /// The name of the FalcoCatalog that says what this node's Falco offers to rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
}

/// The pod of an agent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AgentPod {
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its UID; a report counts only while the node's ready agent pod has it.
    #[serde(default)]
    pub uid: String,
}

/// Whether Falco runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FalcoState {
    /// It is being started, or has not answered yet.
    #[default]
    Starting,
    /// It runs and answers.
    Running,
    /// It does not run.
    Down,
    /// A state that a newer version wrote.
    #[serde(other)]
    Unknown,
}

/// How it is known what Falco runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Proof {
    /// It is not.
    #[default]
    None,
    /// Falco's own metrics list the hash of every file of the set, after a reload that began after the swap.
    Metrics,
    /// Falco was told to load the set and still runs, but its metrics can't be had.
    Assumed,
    /// A kind of proof that a newer version wrote; it counts as none.
    #[serde(other)]
    Unknown,
}

/// What a node has to say about one namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeNamespace {
    /// The namespace.
    pub namespace: String,
    /// SHA-256 of the file of the namespace that Falco has proved to run, or `none`.
    pub loaded: String,
    /// SHA-256 of the file that was tried and could not be loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
    /// Whose fault that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What Falco or the agent said, as far as it concerns this namespace: at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// Whose fault it is that a node does not load a file, as a control on the same node has shown.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The file's: the same step succeeds on this node with the last good set.
    Refused,
    /// The node's: the same step fails with the last good set too.
    NodeFault,
    /// The base's: the last good file fails on a base that passes alone, so it is left out here.
    BaseChanged,
    /// Another file of the set defines a rule of the same name; this one waits.
    NameTaken,
    /// A fault that a newer version wrote; it counts against nobody.
    #[serde(other)]
    Unknown,
}

/// A fault of the node itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeTrouble {
    /// What kind of fault.
    pub reason: NodeFaultReason,
    /// What is wrong and what to do.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What can be wrong with a node itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeFaultReason {
    /// Falco does not stay up, or does not start.
    FalcoDown,
    /// Falco refuses the base configuration or the base rules files themselves.
    BaseRefused,
    /// falco.yaml is one that nobody can extend, such as one with both `rules_file` and `rules_files`.
    ConfigInvalid,
    /// The folder of the agent can't be written: full, read-only, or without rights.
    Storage,
    /// Falco did not confirm a set in time, nor the one before it.
    Unconfirmed,
    /// A reason that a newer version wrote.
    #[serde(other)]
    Unknown,
}

/// Adds `SHA-256(namespace ‖ 0 ‖ hash)` to a sum modulo 2²⁵⁶, kept as big-endian bytes. Adding is commutative, so the
/// order of namespaces does not matter; taking away undoes adding.
pub fn add_to_sum(sum: &mut [u8; 32], namespace: &str, hash: &str) {
    let mut carry = 0u16;
    for (place, byte) in sum.iter_mut().zip(term(namespace, hash)).rev() {
        let total = u16::from(*place) + u16::from(byte) + carry;
        *place = (total & 0xff) as u8;
        carry = total >> 8;
    }
}

/// Takes `SHA-256(namespace ‖ 0 ‖ hash)` away from a sum modulo 2²⁵⁶.
pub fn take_from_sum(sum: &mut [u8; 32], namespace: &str, hash: &str) {
    let mut borrow = 0i16;
    for (place, byte) in sum.iter_mut().zip(term(namespace, hash)).rev() {
        let total = i16::from(*place) - i16::from(byte) - borrow;
        *place = (total & 0xff) as u8;
        borrow = i16::from(total < 0);
    }
}

/// A sum as reports write it: 64 lower-case hexadecimal digits.
#[must_use]
pub fn sum_text(sum: &[u8; 32]) -> String {
    hex::encode(sum)
}

fn term(namespace: &str, hash: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(namespace.as_bytes());
    digest.update([0]);
    digest.update(hash.as_bytes());
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_does_not_depend_on_the_order_and_taking_away_undoes_adding() {
        let (mut one, mut two) = ([0; 32], [0; 32]);
        let files = [("a", "ff"), ("b", "00"), ("c", "12")];
        for (ns, hash) in files {
            add_to_sum(&mut one, ns, hash);
        }
        for (ns, hash) in files.into_iter().rev() {
            add_to_sum(&mut two, ns, hash);
        }
        assert_eq!(one, two);
        assert_ne!(one, [0; 32]);
        for (ns, hash) in files {
            take_from_sum(&mut one, ns, hash);
        }
        assert_eq!(one, [0; 32]);
    }
}
