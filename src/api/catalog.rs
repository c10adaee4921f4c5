//! `FalcoCatalog`: what a Falco installation offers to rules.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a Falco installation offers to rules. The name is made of the digest of the content, so that all nodes with the
/// same installation share one object and nobody can put another content under a known name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "mumoshu.github.io",
    version = "v1alpha1",
    kind = "FalcoCatalog",
    derive = "PartialEq",
    doc = "What the Falco of some nodes offers to rules: fields, sources, and the names that its base rules files define. Created by agents, deleted by the controller.",
    printcolumn(name = "Falco", type_ = "string", json_path = ".spec.falcoVersion"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engineVersion"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FalcoCatalogSpec {
    /// Falco's version.
    #[serde(default)]
    pub falco_version: String,
    /// The version of its rules engine.
    #[serde(default)]
    pub engine_version: String,
    /// The loaded plugins with their versions, as `name version`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    /// The event sources that rules can name.
    #[serde(default)]
    pub sources: Vec<String>,
    /// The filter fields, by name.
    #[serde(default)]
    pub fields: Vec<CatalogField>,
    /// The names of the rules in the base files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// The macros of the base files, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    pub macros: Vec<CatalogItem>,
    /// The lists of the base files, in their order; the text is their items, one a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    pub lists: Vec<CatalogItem>,
    /// falco.yaml's `priority`: rules that are less severe are loaded but never run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// falco.yaml's `rules` selections, in their order, as `disable rule NAME` or `enable tag TAG`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selections: Vec<String>,
    /// falco.yaml's `rule_matching`, as Falco runs with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_matching: Option<String>,
}

impl FalcoCatalogSpec {
    /// The name of the object that holds this content: Falco's version, for people, and the digest of the content. An
    /// object with another name than this was not made by an agent of ours, or was tampered with.
    #[must_use]
    pub fn object_name(&self) -> String {
        // A spec always serializes: it holds nothing but texts, and its keys are texts too.
        let content = serde_json::to_vec(self).unwrap_or_default();
        let digest: String = Sha256::digest(&content).iter().take(10).map(|byte| format!("{byte:02x}")).collect();
        let version: String = self.falco_version.chars().filter(|c| c.is_ascii_digit() || *c == '.').take(16).collect();
        match version.trim_matches('.') {
            "" => format!("falco-{digest}"),
            version => format!("falco-{version}-{digest}"),
        }
    }
}

/// A filter field.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct CatalogField {
    /// Its name, such as `proc.name`.
    pub name: String,
    /// Its type, in Falco's words: `CHARBUF`, `INT64`.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// Whether it has several values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub list: bool,
    /// Its argument: empty for none, else `optional` or `required`, then `index`, `key` or both: `required key`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub argument: String,
    /// The sources of the rules that can use it; `*` is all.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What it says of an event, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A macro or list of the base files.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CatalogItem {
    /// Its name.
    pub name: String,
    /// Its condition, or its items, one a line.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_the_content() {
        let one = FalcoCatalogSpec { falco_version: "0.44.1".into(), ..Default::default() };
        let two = FalcoCatalogSpec { rules: vec!["a".into()], ..one.clone() };
        assert!(one.object_name().starts_with("falco-0.44.1-"));
        assert_ne!(one.object_name(), two.object_name());
        let odd = FalcoCatalogSpec { falco_version: "..x/..".into(), ..Default::default() };
        assert!(
            odd.object_name().strip_prefix("falco-").is_some_and(|digest| digest.len() == 20),
            "{}",
            odd.object_name()
        );
    }
}
