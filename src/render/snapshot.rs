//! The items of a namespace, held apart from where they change: for those who judge elsewhere.

use super::{Input, Names, Policy, Rendered, render};
use crate::api::{BundleFile, FalcoList, FalcoMacro, FalcoRule};
use crate::language::Catalog;

/// What rendering a namespace rests on at one moment, but for the policy.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The namespace.
    pub namespace: String,
    /// Its rules, in any order.
    pub rules: Vec<FalcoRule>,
    /// Its macros, in any order.
    pub macros: Vec<FalcoMacro>,
    /// Its lists, in any order.
    pub lists: Vec<FalcoList>,
    /// The file that is settled: see [`Input::settled`].
    pub settled: Option<BundleFile>,
    /// The taken names among those that its rules can come to want.
    pub names: Names,
    /// What the nodes' Falcos offer, or the default catalogue alone.
    pub catalogs: Vec<Catalog>,
}

impl Snapshot {
    /// What the controller would make of it.
    #[must_use]
    pub fn render(&self, policy: &Policy) -> Rendered {
        render(&Input {
            namespace: &self.namespace,
            rules: &self.rules.iter().collect::<Vec<_>>(),
            macros: &self.macros.iter().collect::<Vec<_>>(),
            lists: &self.lists.iter().collect::<Vec<_>>(),
            settled: self.settled.as_ref(),
            names: &self.names,
            policy,
            catalogs: &self.catalogs.iter().collect::<Vec<_>>(),
        })
    }
}
