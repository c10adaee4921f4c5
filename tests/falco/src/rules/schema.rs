//! The JSON schema that Falco holds rules files against, for the word that it logs; it never decides.

use crate::yaml::{Kind, Node};

const KEYS: [&str; 19] = [
    "required_engine_version",
    "required_plugin_versions",
    "list",
    "items",
    "macro",
    "condition",
    "rule",
    "desc",
    "output",
    "priority",
    "source",
    "enabled",
    "tags",
    "exceptions",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "capture",
    "capture_duration",
    "append",
];
const PRIORITIES: [&str; 9] =
    ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFORMATIONAL", "INFO", "DEBUG"];

/// Whether the first document fits; `None` when there is nothing in it.
pub fn verdict(documents: &[Node]) -> Option<bool> {
    let document = documents.first().filter(|node| !node.is_null())?;
    Some(document.seq().is_some_and(|items| items.iter().all(item)))
}

fn item(node: &Node) -> bool {
    matches!(node.kind, Kind::Map(_)) && unique(node) && node.entries().iter().all(|(key, value)| entry(key, value))
}

fn unique(node: &Node) -> bool {
    let mut keys: Vec<_> = node.entries().iter().filter_map(|(key, _)| key.scalar()).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    keys.len() == count
}

fn entry(key: &Node, value: &Node) -> bool {
    let key = key.scalar().unwrap_or_default();
    let scalars = |node: &Node| node.seq().is_some_and(|items| items.iter().all(|item| item.scalar().is_some()));
    match key {
        "priority" => value.scalar().is_some_and(|text| PRIORITIES.contains(&text)),
        "enabled" | "warn_evttypes" | "skip-if-unknown-filter" | "capture" | "append" => {
            value.scalar().is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "false"))
        }
        "capture_duration" => value.scalar().is_some_and(|text| text.parse::<i64>().is_ok()),
        "tags" | "items" => scalars(value),
        "exceptions" => value.seq().is_some_and(|entries| entries.iter().all(exception)),
        "override" => value.entries().iter().all(|(key, operation)| {
            KEYS.contains(&key.scalar().unwrap_or_default())
                && key.scalar() != Some("source")
                && matches!(operation.scalar(), Some("append" | "replace"))
        }),
        "required_plugin_versions" => value.seq().is_some(),
        key => KEYS.contains(&key) && value.scalar().is_some(),
    }
}

fn exception(node: &Node) -> bool {
    node.get("name").is_some_and(|name| name.scalar().is_some())
        && node.entries().iter().all(|(key, _)| matches!(key.scalar(), Some("name" | "fields" | "comps" | "values")))
}
