//! Who has which name of a rule.

use std::collections::{BTreeSet, HashMap};

/// The names of rules that namespaces hold in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Names {
    held: HashMap<String, BTreeSet<String>>,
    by_namespace: HashMap<String, BTreeSet<String>>,
}

impl Names {
    /// Replaces the names that a namespace holds: those of its bundle's target and last good file, of files that nodes
    /// may still load, and of the file just rendered. Says whether something changed, so that others may be rendered
    /// anew.
    pub fn hold(&mut self, namespace: &str, names: BTreeSet<String>) -> bool {
        let old = self.by_namespace.remove(namespace).unwrap_or_default();
        if old == names {
            if !old.is_empty() {
                self.by_namespace.insert(namespace.to_owned(), old);
            }
            return false;
        }
        for name in old.difference(&names) {
            if let Some(holders) = self.held.get_mut(name) {
                holders.remove(namespace);
                if holders.is_empty() {
                    self.held.remove(name);
                }
            }
        }
        for name in names.difference(&old) {
            self.held.entry(name.clone()).or_default().insert(namespace.to_owned());
        }
        if !names.is_empty() {
            self.by_namespace.insert(namespace.to_owned(), names);
        }
        true
    }

    /// Another namespace that holds the name.
    #[must_use]
    pub fn held_by_other(&self, name: &str, namespace: &str) -> Option<&str> {
        self.held.get(name)?.iter().map(String::as_str).find(|holder| *holder != namespace)
    }
}
