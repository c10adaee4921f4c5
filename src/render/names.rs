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

    /// What there is to know about these names: who else holds them.
    #[must_use]
    pub fn among<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut few = Self::default();
        for name in names {
            let Some(holders) = self.held.get(name) else { continue };
            for holder in holders {
                few.by_namespace.entry(holder.clone()).or_default().insert(name.to_owned());
            }
            few.held.insert(name.to_owned(), holders.clone());
        }
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_names_are_held_as_all_are() {
        let mut names = Names::default();
        names.hold("a", ["x", "y"].map(str::to_owned).into());
        names.hold("b", ["x"].map(str::to_owned).into());
        let few = names.among(["x", "z", "x"]);
        assert_eq!(few.held_by_other("x", "a"), Some("b"));
        assert_eq!(few.held_by_other("x", "b"), Some("a"));
        assert_eq!(few.held_by_other("y", "b"), None);
        assert_eq!(names.among([]).held_by_other("x", "c"), None);
    }
}
