//! The objects of a namespace, gathered from files.

use std::collections::BTreeMap;

use super::manifest::Object;
use super::setting::Setting;
use crate::api::{FalcoList, FalcoMacro, FalcoRule};
use crate::render::{Input, Names, Rendered, render};

/// The objects of a namespace; of two with one name the later has it, as with `kubectl apply`.
#[derive(Debug, Default)]
pub struct Namespace {
    rules: BTreeMap<String, FalcoRule>,
    macros: BTreeMap<String, FalcoMacro>,
    lists: BTreeMap<String, FalcoList>,
}

impl Namespace {
    /// Puts an object in.
    pub fn take(&mut self, name: String, object: Object) {
        match object {
            Object::Rule(rule) => drop(self.rules.insert(name, rule)),
            Object::Macro(macro_) => drop(self.macros.insert(name, macro_)),
            Object::List(list) => drop(self.lists.insert(name, list)),
        }
    }

    /// What the controller would make of it, had it never seen it before.
    pub fn render(&self, name: &str, names: &Names, setting: &Setting) -> Rendered {
        render(&Input {
            namespace: name,
            rules: &self.rules.values().collect::<Vec<_>>(),
            macros: &self.macros.values().collect::<Vec<_>>(),
            lists: &self.lists.values().collect::<Vec<_>>(),
            settled: None,
            names,
            policy: &setting.policy,
            catalogs: &[&setting.catalog],
        })
    }
}
