//! What an administrator allows, and how tenants are kept apart.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::api::Priority;

/// What an administrator allows, and how tenants are kept apart.
///
/// Written as YAML; every key is optional, and what is said for all can be said differently for some namespaces:
///
/// ```yaml
/// privilegedNamespaces: [security]
/// isolation:
///   scope: cluster         # cluster | namespace
///   otherSources: refuse   # refuse | allow
///   names: auto            # auto | qualified | verbatim
/// sources: [syscall]
/// priorities: [WARNING, NOTICE, INFO, DEBUG]
/// eventTypes: warn         # warn | require
/// deniedFields: [proc.env, "fd.*"]
/// quotas:
///   rules: 200
///   bytes: 200000
///   treeNodes: 20000
///   broadRules: 5
/// overrides:
/// - namespaces: [team-a, team-b]
///   isolation:
///     scope: namespace
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    privileged_namespaces: BTreeSet<String>,
    #[serde(default)]
    isolation: Isolation,
    #[serde(default)]
    sources: Option<BTreeSet<String>>,
    #[serde(default)]
    priorities: Option<Vec<String>>,
    #[serde(default)]
    event_types: Option<EventTypeMode>,
    #[serde(default)]
    denied_fields: Option<Vec<String>>,
    #[serde(default)]
    quotas: Quotas,
    /// What is different in some namespaces; of several that name one, the last that has a key counts for that key.
    #[serde(default)]
    overrides: Vec<Override>,
}

/// What is different in some namespaces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Override {
    namespaces: BTreeSet<String>,
    #[serde(default)]
    isolation: Isolation,
    #[serde(default)]
    sources: Option<BTreeSet<String>>,
    #[serde(default)]
    priorities: Option<Vec<String>>,
    #[serde(default)]
    event_types: Option<EventTypeMode>,
    #[serde(default)]
    denied_fields: Option<Vec<String>>,
    #[serde(default)]
    quotas: Quotas,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Isolation {
    #[serde(default)]
    scope: Option<Scope>,
    #[serde(default)]
    other_sources: Option<OtherSources>,
    #[serde(default)]
    names: Option<NameMode>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Quotas {
    #[serde(default)]
    rules: Option<usize>,
    #[serde(default)]
    bytes: Option<usize>,
    #[serde(default)]
    tree_nodes: Option<usize>,
    #[serde(default)]
    broad_rules: Option<usize>,
}

/// Which events the rules of a namespace can match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Any: conditions are as written.
    #[default]
    Cluster,
    /// Those of the namespace only: conditions are confined to it.
    Namespace,
}

/// What becomes of rules whose source has no field for the namespace, where rules are confined to theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtherSources {
    /// They are refused.
    #[default]
    Refuse,
    /// They see every event of their source.
    Allow,
}

/// What becomes of rules that look at every event, whatever its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventTypeMode {
    /// They are warned of.
    #[default]
    Warn,
    /// They are refused.
    Require,
}

/// How rules get the names that Falco knows them by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameMode {
    /// As written where that is free in the cluster, else `<namespace>/<rule>`; chosen once.
    #[default]
    Auto,
    /// Always `<namespace>/<rule>`.
    Qualified,
    /// As written; a taken name is refused.
    Verbatim,
}

/// The policy as it is for one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Whether the namespace may take the names of Falco's base rules and is told who owns a taken name.
    pub privileged: bool,
    /// Which events its rules can match.
    pub scope: Scope,
    /// What becomes of rules of other sources in a scope of namespaces.
    pub other_sources: OtherSources,
    /// How its rules get their names.
    pub names: NameMode,
    /// The event sources that its rules may look at; `None` for any.
    pub sources: Option<BTreeSet<String>>,
    /// The priorities that its rules may have, as Falco's numbers for them; `None` for any.
    pub priorities: Option<BTreeSet<u8>>,
    /// What becomes of rules that look at every event.
    pub event_types: EventTypeMode,
    /// The fields that its rules may not use; a `*` at the end stands for anything.
    pub denied_fields: Vec<String>,
    /// How many rules it may have in its file; `None` for any number.
    pub rules: Option<usize>,
    /// How many bytes its rules may have in its file; `None` for any number that a bundle can hold.
    pub bytes: Option<usize>,
    /// How many checks, values and operators its conditions may have in all; `None` for any number.
    pub tree_nodes: Option<usize>,
    /// How many of its rules may look at every event; `None` for any number.
    pub broad_rules: Option<usize>,
}

impl Settings {
    /// Whether its rules may not use the field.
    #[must_use]
    pub fn denies(&self, field: &str) -> bool {
        self.denied_fields.iter().any(|denied| match denied.strip_suffix('*') {
            Some(start) => field.starts_with(start),
            None => field == denied,
        })
    }
}

/// A policy that is not one.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not YAML, or has another shape: the message says where, and which keys there are.
    #[error("cannot read the policy: {0}")]
    Shape(String),
    /// A priority that Falco does not have.
    #[error("cannot read the policy: `{name}` is no priority; there are {}, and INFO", Priority::LEVELS.join(", "))]
    Priority {
        /// What it says instead.
        name: String,
    },
    /// An override for nobody.
    #[error("cannot read the policy: an entry of `overrides` has no `namespaces`, so it would have no effect")]
    NoNamespaces,
}

impl Policy {
    /// Reads a policy file; an empty one is the default policy.
    pub fn from_yaml(text: &str) -> Result<Self, PolicyError> {
        let policy = serde_yaml::from_str::<Option<Self>>(text).map_err(|err| PolicyError::Shape(err.to_string()))?;
        let policy = policy.unwrap_or_default();
        let priorities = policy.overrides.iter().filter_map(|o| o.priorities.as_ref()).chain(&policy.priorities);
        if let Some(odd) = priorities.flatten().find(|name| level(name).is_none()) {
            return Err(PolicyError::Priority { name: odd.clone() });
        }
        if policy.overrides.iter().any(|o| o.namespaces.is_empty()) {
            return Err(PolicyError::NoNamespaces);
        }
        Ok(policy)
    }

    /// The policy as it is for `namespace`.
    #[must_use]
    pub fn settings(&self, namespace: &str) -> Settings {
        let own: Vec<&Override> = self.overrides.iter().rev().filter(|o| o.namespaces.contains(namespace)).collect();
        let isolation = || own.iter().map(|o| &o.isolation).chain([&self.isolation]);
        let quotas = || own.iter().map(|o| &o.quotas).chain([&self.quotas]);
        let sources = own.iter().find_map(|o| o.sources.as_ref()).or(self.sources.as_ref());
        let priorities = own.iter().find_map(|o| o.priorities.as_ref()).or(self.priorities.as_ref());
        let denied = own.iter().find_map(|o| o.denied_fields.as_ref()).or(self.denied_fields.as_ref());
        Settings {
            privileged: self.privileged_namespaces.contains(namespace),
            scope: isolation().find_map(|i| i.scope).unwrap_or_default(),
            other_sources: isolation().find_map(|i| i.other_sources).unwrap_or_default(),
            names: isolation().find_map(|i| i.names).unwrap_or_default(),
            sources: sources.cloned(),
            priorities: priorities.map(|names| names.iter().filter_map(|name| level(name)).collect()),
            event_types: own.iter().find_map(|o| o.event_types).or(self.event_types).unwrap_or_default(),
            denied_fields: denied.cloned().unwrap_or_default(),
            rules: quotas().find_map(|q| q.rules),
            bytes: quotas().find_map(|q| q.bytes),
            tree_nodes: quotas().find_map(|q| q.tree_nodes),
            broad_rules: quotas().find_map(|q| q.broad_rules),
        }
    }
}

fn level(name: &str) -> Option<u8> {
    Priority(name.to_owned()).level()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_the_default() {
        for text in ["", "\n", "{}", "# none\n", "overrides: []"] {
            assert_eq!(Policy::from_yaml(text).unwrap(), Policy::default(), "{text:?}");
        }
        assert_eq!(Policy::default().settings("a"), Settings::default());
        assert_eq!(Settings::default().names, NameMode::Auto);
    }

    #[test]
    fn the_last_override_with_a_key_counts_for_that_key() {
        let policy = Policy::from_yaml(
            "
privilegedNamespaces: [sec]
isolation: {names: qualified}
eventTypes: require
deniedFields: [proc.env, 'fd.*']
sources: [syscall]
priorities: [warning, Info]
quotas: {rules: 10, bytes: 1000, treeNodes: 7, broadRules: 2}
overrides:
- namespaces: [a, b]
  isolation: {names: verbatim}
  quotas: {rules: 20}
- namespaces: [b]
  isolation: {scope: namespace, otherSources: allow}
  deniedFields: []
  sources: [syscall, k8s_audit]
  quotas: {rules: 30}
",
        )
        .unwrap();
        let settings = policy.settings("b");
        assert_eq!((settings.names, settings.rules, settings.bytes), (NameMode::Verbatim, Some(30), Some(1000)));
        assert_eq!(settings.sources.unwrap().len(), 2);
        assert_eq!(settings.priorities, Some([4, 6].into()));
        let settings = policy.settings("a");
        assert_eq!((settings.names, settings.rules, settings.privileged), (NameMode::Verbatim, Some(20), false));
        let settings = policy.settings("a");
        assert_eq!((settings.scope, settings.event_types), (Scope::Cluster, EventTypeMode::Require));
        assert!(settings.denies("proc.env") && settings.denies("fd.cip.name") && !settings.denies("proc.envx"));
        let settings = policy.settings("b");
        assert_eq!((settings.scope, settings.other_sources), (Scope::Namespace, OtherSources::Allow));
        assert_eq!((settings.tree_nodes, settings.broad_rules), (Some(7), Some(2)));
        assert!(!settings.denies("proc.env"));
        let settings = policy.settings("sec");
        assert_eq!((settings.names, settings.rules, settings.privileged), (NameMode::Qualified, Some(10), true));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("isolaton: {}", "unknown field `isolaton`"),
            ("isolation: {names: some}", "unknown variant `some`, expected one of `auto`, `qualified`, `verbatim`"),
            ("isolation: {scope: all}", "expected `cluster` or `namespace`"),
            ("eventTypes: none", "expected `warn` or `require`"),
            ("priorities: [WARN]", "`WARN` is no priority; there are EMERGENCY"),
            ("overrides: [{namespaces: []}]", "no `namespaces`"),
            ("overrides: [{isolation: {}}]", "missing field `namespaces`"),
            ("quotas: {rules: -1}", "quotas.rules"),
            ("sources: [", "line "),
        ] {
            let err = Policy::from_yaml(text).unwrap_err().to_string();
            assert!(err.starts_with("cannot read the policy: ") && err.contains(words), "{err}");
        }
    }
}
