//! `FalcoBundle`: what the agents fetch.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The rendered rules file of a namespace. Written by the controller only; agents list and watch this one kind.
///
/// A bundle is never deleted to take a file away: it is first written with no target, and goes when every available
/// node says that it loads nothing of the namespace. A bundle that is missing without that means a lost world.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "mumoshu.github.io",
    version = "v1alpha1",
    kind = "FalcoBundle",
    derive = "PartialEq",
    doc = "The rendered rules file of the namespace of the same name, as agents fetch it. Written by the controller only.",
    printcolumn(name = "Hash", type_ = "string", json_path = ".spec.target.hash"),
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout.kind"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FalcoBundleSpec {
    /// UID of the namespace that the file was made for; one with another UID inherits nothing.
    pub namespace_uid: String,

    /// The file that nodes are to load; absent while the namespace is withdrawn, or rolled back to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<BundleFile>,

    /// SHA-256 of the file that was rolled back last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_hash: Option<String>,

    /// What is under way; absent when the target is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// A rules file as its items, so that one can be taken out without the old objects.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BundleFile {
    /// Lower-case hexadecimal SHA-256 of the file's bytes.
    pub hash: String,
    /// The items, in the order of the file.
    #[serde(default)]
    pub items: Vec<BundleItem>,
}

/// One rule in a rules file.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BundleItem {
    /// The name of the `FalcoRule` object.
    pub name: String,
    /// The generation of the object that the text was rendered from.
    #[serde(default)]
    pub generation: i64,
    /// The name that Falco knows the rule by.
    pub rule_name: String,
    /// The list item as it stands in the file, final newline included.
    pub text: String,
}

impl BundleFile {
    /// The file of these items, with its hash.
    #[must_use]
    pub fn new(items: Vec<BundleItem>) -> Self {
        let mut file = Self { hash: String::new(), items };
        file.hash = hex::encode(file.chunks().fold(Sha256::new(), Sha256::chain_update).finalize());
        file
    }

    /// The bytes of the file: its items one after the other, or an empty list where there are none.
    #[must_use]
    pub fn text(&self) -> String {
        self.chunks().collect()
    }

    fn chunks(&self) -> impl Iterator<Item = &str> {
        let nothing = self.items.is_empty().then_some("[]\n");
        self.items.iter().map(|item| item.text.as_str()).chain(nothing)
    }
}

/// Lower-case hexadecimal SHA-256.
fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What is under way, and which nodes take part.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Rollout, rollback or withdrawal.
    pub kind: RolloutKind,
    /// The last good file, which nodes outside the wave keep; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<BundleFile>,
    /// When it began: where several namespaces change, agents add the candidates in this order.
    pub started_at: MicroTime,
    /// The nodes of the first waves, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
    /// A node takes part if the SHA-256 of namespace, NUL and node name is at most this; absent while only
    /// canaries do, `ffff…` (64 digits) for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
}

impl Rollout {
    /// The threshold that every node is under.
    pub const ALL: &'static str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    /// Where a node stands among the nodes of a namespace's rollout: SHA-256 of the namespace, a NUL and the node's
    /// name, in hexadecimal, so that the order of texts is the order of places.
    #[must_use]
    pub fn place(namespace: &str, node: &str) -> String {
        hash(format!("{namespace}\0{node}").as_bytes())
    }

    /// Whether `node` is to load the target now.
    #[must_use]
    pub fn includes(&self, namespace: &str, node: &str) -> bool {
        self.canaries.iter().any(|canary| canary == node)
            || self.threshold.as_deref().is_some_and(|most| Self::place(namespace, node).as_str() <= most)
    }
}

/// What a bundle is on its way to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutKind {
    /// To a new target, in waves.
    Rollout,
    /// Back to the last good file, everywhere at once.
    Rollback,
    /// To no file at all, everywhere at once.
    Withdrawal,
    /// A kind that a newer version wrote; an agent changes nothing for it.
    #[serde(other)]
    Unknown,
}

impl FalcoBundleSpec {
    /// The file that is settled: the last good one while something is under way, else the target. An absent entry in a
    /// node's report means that the node has this one loaded.
    #[must_use]
    pub fn settled(&self) -> Option<&BundleFile> {
        self.rollout.as_ref().map_or(self.target.as_ref(), |rollout| rollout.last_good.as_ref())
    }

    /// The file that `node` is to load now.
    #[must_use]
    pub fn wanted(&self, namespace: &str, node: &str) -> Option<&BundleFile> {
        match &self.rollout {
            None => self.target.as_ref(),
            Some(rollout) => match rollout.kind {
                RolloutKind::Rollback | RolloutKind::Withdrawal => self.target.as_ref(),
                RolloutKind::Rollout if rollout.includes(namespace, node) => self.target.as_ref(),
                RolloutKind::Rollout | RolloutKind::Unknown => rollout.last_good.as_ref(),
            },
        }
    }
}
