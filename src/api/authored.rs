//! The kinds that developers write: rules, macros and lists of their namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares an authored kind: the struct of its spec becomes a namespaced custom resource with the common status,
/// category, short name, printer columns and the [`Authored`] impl that treats the three alike.
macro_rules! authored {
    (
        $(#[$meta:meta])*
        $kind:ident ($name:literal, $short:literal, $doc:literal), $item:literal => $key:ident,
        columns { $( $column:literal: $path:literal, )* }
        $(selectable { $( $selectable:literal, )* })?
        pub struct $Spec:ident { $($fields:tt)* }
    ) => {
        #[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[kube(
            group = "mumoshu.github.io", version = "v1alpha1", kind = $name, namespaced, status = "AuthoredStatus",
            derive = "PartialEq", doc = $doc, shortname = $short, category = "falco"
        )]
        $( #[kube(printcolumn(name = $column, type_ = "string", json_path = $path))] )*
        #[kube(printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"))]
        #[kube(printcolumn(name = "Loaded", type_ = "string", json_path = ".status.loaded"))]
        #[kube(printcolumn(name = "Hash", type_ = "string", json_path = ".status.hash", priority = 1))]
        #[kube(printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1))]
        #[kube(printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"))]
        $( $( #[kube(selectable = $selectable)] )* )?
        $(#[$meta])*
        #[serde(rename_all = "camelCase")]
        pub struct $Spec { $($fields)* }

        impl Authored for $kind {
            const ITEM: &'static str = $item;
            fn item_name(&self) -> &str {
                &self.spec.$key
            }
            fn authored_status(&self) -> Option<&AuthoredStatus> {
                self.status.as_ref()
            }
        }
    };
}

/// What the three authored kinds have in common.
pub trait Authored: ResourceExt {
    /// Falco's word for the item: `rule`, `macro` or `list`.
    const ITEM: &'static str;
    /// The name that Falco knows the item by, which is not the object's.
    fn item_name(&self) -> &str;
    /// The status, if one was written.
    fn authored_status(&self) -> Option<&AuthoredStatus>;
}

authored! {
    /// One Falco rule, as the developer of the namespace writes it. Keys are Falco's, in camelCase.
    #[x_kube(validation = Rule::new("!has(self.tags) || self.tags.all(t, self.tags.exists_one(u, u.replace('.', '_').replace('-', '_') == t.replace('.', '_').replace('-', '_')))")
        .message("two tags are alike once all but letters and digits are read as `_`, as Falco's metrics read them").field_path(".tags"))]
    #[x_kube(validation = Rule::new("size(bytes(self.rule)) <= 253").message("the name of a rule is at most 253 bytes long").field_path(".rule"))]
    FalcoRule("FalcoRule", "frule", "A Falco rule of this namespace: what to look for, and what to say when it is seen."), "rule" => rule,
    columns {
        "Rule": ".spec.rule",
        "Priority": ".spec.priority",
    }
    selectable { ".spec.rule", ".spec.priority", ".spec.source", }
    pub struct FalcoRuleSpec {
        /// The name of the rule, as alerts show it. Free text of at most 253 bytes without control characters and
        /// without `"`, `\` and `*`. It is unique in the cluster: a taken name is qualified by the namespace.
        #[schemars(length(min = 1, max = 253), regex(pattern = r#"^[^\x00-\x1F\x7F\x{80}-\x{9F}\x{2028}\x{2029}"\\*]*[^\s\x00-\x1F\x7F\x{80}-\x{9F}\x{2028}\x{2029}"\\*][^\x00-\x1F\x7F\x{80}-\x{9F}\x{2028}\x{2029}"\\*]*$"#))]
        pub rule: String,

        /// What the rule is for, in a sentence. No control characters but a final newline.
        #[schemars(length(min = 1, max = 4096), regex(pattern = r"^[^\x00-\x1F\x7F\x{80}-\x{9F}]+\n?$"))]
        pub desc: String,

        /// When the rule matches, in Falco's condition language: `container.id != host and proc.name = bash`. Macros and
        /// lists of the namespace can be used by their names, and those of Falco's base rules.
        #[schemars(length(min = 1, max = 65536), regex(pattern = r"\S"))]
        pub condition: String,

        /// What an alert says: text with fields such as `%proc.name`. No control characters but a final newline; a
        /// percent sign always begins a field.
        #[schemars(length(min = 1, max = 8192), regex(pattern = r"^[^\x00-\x1F\x7F\x{80}-\x{9F}]*[^\s\x00-\x1F\x7F\x{80}-\x{9F}][^\x00-\x1F\x7F\x{80}-\x{9F}]*\n?$"))]
        pub output: String,

        /// How severe an alert is: EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO (or INFORMATIONAL) or DEBUG,
        /// in upper or lower case.
        pub priority: Priority,

        /// Whether the rule is on. Defaults to true; a disabled rule is loaded, and checked, but never matches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub enabled: Option<bool>,

        /// Labels of the rule for selection and routing: letters, digits, `_`, `.` and `-`; distinct also where all but
        /// letters and digits are read as `_`, as Falco's metrics read them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 32), inner(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_.-]+$")), extend("x-kubernetes-list-type" = "set"))]
        pub tags: Vec<String>,

        /// The source of the events that the rule looks at. Defaults to `syscall`; `k8s_audit` and others come with
        /// plugins of Falco.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
        pub source: Option<String>,

        /// Cases in which the rule does not match although its condition holds.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
        pub exceptions: Vec<ExceptionSpec>,

        /// Whether to warn where the condition names no event type, which makes the rule look at every event. Defaults
        /// to true.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub warn_evttypes: Option<bool>,

        /// Whether a Falco that lacks a field of the rule leaves the rule out instead of refusing the file. Defaults to
        /// false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub skip_if_unknown_filter: Option<bool>,

        /// Whether a match starts a capture of system calls, where Falco has captures enabled. Defaults to false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub capture: Option<bool>,

        /// How long a capture goes on, in milliseconds. Defaults to what falco.yaml says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 600_000))]
        pub capture_duration: Option<i64>,
    }
}

authored! {
    /// A named part of conditions, shared by the rules of the namespace.
    FalcoMacro("FalcoMacro", "fmacro", "A named condition that the rules of this namespace can use."), "macro" => macro_,
    columns { "Macro": ".spec.macro", }
    pub struct FalcoMacroSpec {
        /// The name by which conditions use the macro: a letter, then letters, digits and `_`.
        #[serde(rename = "macro")]
        #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z][A-Za-z0-9_]*$"))]
        pub macro_: String,

        /// The condition that the name stands for.
        #[schemars(length(min = 1, max = 65536), regex(pattern = r"\S"))]
        pub condition: String,
    }
}

authored! {
    /// A named list of values, shared by the rules of the namespace.
    FalcoList("FalcoList", "flist", "A named list of values that the rules of this namespace can use."), "list" => list,
    columns { "List": ".spec.list", }
    pub struct FalcoListSpec {
        /// The name by which conditions use the list, as in `proc.name in (shells)`.
        #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
        pub list: String,

        /// The values. The name of another list of the namespace stands for that list's values.
        #[schemars(length(max = 8192), inner(length(max = 255)), extend("x-kubernetes-list-type" = "atomic"))]
        pub items: Vec<String>,
    }
}

/// A priority, as Falco takes it: any case, `INFO` for `INFORMATIONAL`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(transparent)]
pub struct Priority(
    #[schemars(regex(pattern = r"^(?i)(emergency|alert|critical|error|warning|notice|informational|info|debug)$"))]
    pub String,
);

impl Priority {
    /// The names, most severe first; the index is Falco's number for it (0 to 7).
    pub const LEVELS: [&'static str; 8] =
        ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFORMATIONAL", "DEBUG"];

    /// Falco's number for it, 0 the most severe; `None` where Falco would not take it.
    #[must_use]
    pub fn level(&self) -> Option<u8> {
        Self::level_of(&self.0)
    }

    /// [`Priority::level`] of a word.
    #[must_use]
    pub fn level_of(word: &str) -> Option<u8> {
        let name = if word.eq_ignore_ascii_case("INFO") { "INFORMATIONAL" } else { word };
        Self::LEVELS.iter().position(|level| level.eq_ignore_ascii_case(name)).map(|index| index as u8)
    }
}

/// A case in which a rule does not match although its condition holds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExceptionSpec {
    /// What the exception is called; distinct within the rule.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The field, or the list of fields, that the values are compared with.
    #[schemars(schema_with = "string_or_list")]
    pub fields: ExceptionFields,

    /// The operator, or one for each field. Defaults to `in` for a single field and to `=` for each of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "string_or_list")]
    pub comps: Option<ExceptionFields>,

    /// For a single field its values; for several fields a list of tuples, one value (or a list of them) for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), schema_with = "any_list")]
    pub values: Vec<serde_json::Value>,
}

/// One word, or a list of them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub enum ExceptionFields {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

fn string_or_list(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

fn any_list(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 1024,
        "x-kubernetes-list-type": "atomic",
        "items": { "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// Where an item is on its way to the nodes, in a word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ItemPhase {
    /// The item was accepted and waits for its rollout, or the controller has not seen it yet.
    #[default]
    Pending,
    /// Nodes are loading the file that holds the item.
    RollingOut,
    /// Every available node has loaded the item as it is written. For a macro or list: it is valid.
    Active,
    /// A node that had the item loaded has lost it.
    Degraded,
    /// The item is not valid; the message says where. Its last version that was in force may still be loaded.
    Rejected,
    /// Nodes refused the file with this item; what was loaded before is loaded again.
    RolledBack,
    /// The item is loaded, or could be, but cannot run; the message says why.
    Inactive,
    /// A phase that a newer version wrote.
    #[serde(other)]
    Unknown,
}

/// What has become of a rule, a macro or a list. Written by the controller.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthoredStatus {
    /// The generation of the object that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the item is on its way to the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ItemPhase>,

    /// The name that Falco knows the rule by: the name as written, or qualified by the namespace. Chosen once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,

    /// The first 12 digits of the SHA-256 of the rules file that holds the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,

    /// Nodes that have the item loaded, of those that should: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,

    /// How many available nodes have proved to have the item loaded, as it is written in the observed generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_nodes: Option<i32>,

    /// How many nodes should have it loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_nodes: Option<i32>,

    /// The generation of the object that nodes have loaded, or are to keep, where it is not the observed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_in_force: Option<i64>,

    /// What there is to say, in a sentence: what is wrong, where, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// `Ready`, `Reconciling` and `Stalled`, as Kubernetes' tools read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
