//! The items of a namespace to its rules file: policy, names, inlining, order, YAML. Pure.
//!
//! [`render`] never fails as a whole: each item gets a verdict, and one that can't be rendered keeps its last version that
//! was in force, or is left out.

mod allowed;
mod catalogs;
mod claims;
mod file_rule;
mod judge;
mod message;
mod names;
mod policy;
mod quota;
mod size;
mod snapshot;
mod text;
mod verdict;
mod yaml;

pub use catalogs::catalog;
pub use message::{caret, excerpt, is_of_dependency, sentence};
pub use names::Names;
pub use policy::{EventTypeMode, NameMode, OtherSources, Policy, PolicyError, Scope, Settings};
pub use snapshot::Snapshot;
pub use text::{list_text, macro_text, rule_text};
pub(crate) use yaml::{push_flow_scalar, push_scalar};

use std::collections::BTreeMap;

use crate::api::{BundleFile, BundleItem, FalcoList, FalcoMacro, FalcoRule, Reason};
use crate::language::{Catalog, Diagnostic};
use file_rule::FileRule;
use judge::{Cost, Judge, Judged};

/// The largest file that is written, as the JSON of a bundle's target, in bytes: a bundle that is rolling out holds two
/// of them, and etcd takes about 1.5 MiB.
pub const MAX_FILE: usize = 600 * 1024;

/// What rendering a namespace rests on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// Its rules, in any order.
    pub rules: &'a [&'a FalcoRule],
    /// Its macros, in any order.
    pub macros: &'a [&'a FalcoMacro],
    /// Its lists, in any order.
    pub lists: &'a [&'a FalcoList],
    /// The file that is settled ([`crate::api::FalcoBundleSpec::settled`]): the versions in force come from it.
    pub settled: Option<&'a BundleFile>,
    /// The names of rules that are taken in the cluster.
    pub names: &'a Names,
    /// What the administrator allows.
    pub policy: &'a Policy,
    /// What the nodes' Falcos offer: each distinct catalogue that a live node names, or the default one alone.
    pub catalogs: &'a [&'a Catalog],
}

/// What became of a namespace's items.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The file; without any rule in it where all were rejected and none has a version in force.
    pub file: Result<BundleFile, TooLarge>,
    /// A verdict for each rule, by the name of its object.
    pub rules: BTreeMap<String, ItemVerdict>,
    /// A verdict for each macro, by the name of its object.
    pub macros: BTreeMap<String, ItemVerdict>,
    /// A verdict for each list, by the name of its object.
    pub lists: BTreeMap<String, ItemVerdict>,
}

impl Rendered {
    /// The text of a rule, by the name of its object, where the desired file holds it as it is written.
    #[must_use]
    pub fn written(&self, rule: &str) -> Option<&str> {
        let items = match &self.file {
            Ok(file) => &file.items,
            Err(large) => &large.items,
        };
        self.rules.get(rule).filter(|verdict| verdict.written)?;
        let place = items.binary_search_by(|item| item.name.as_str().cmp(rule)).ok()?;
        items.get(place).map(|item| item.text.as_str())
    }
}

/// A file that the API server would not take as a bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct TooLarge {
    /// What it would hold.
    pub items: Vec<BundleItem>,
    /// Its size, in bytes.
    pub bytes: usize,
    /// The most that is written.
    pub limit: usize,
}

/// What rendering made of an item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemVerdict {
    /// Whether the desired file holds the item as it is written; false where it was rejected, and for macros and lists.
    pub written: bool,
    /// Why it was rejected; `None` where it was accepted.
    pub rejected: Option<Reason>,
    /// The name that Falco knows the rule by.
    pub rule_name: Option<String>,
    /// What there is to say: what is wrong and where, or a warning.
    pub message: Option<String>,
    /// The same as values: every error and warning with its place in the text of its part.
    pub findings: Vec<Diagnostic>,
    /// Why the rule can't run although it is, or would be, loaded.
    pub not_running: Option<String>,
    /// The generation of the object whose text is kept in force instead.
    pub generation_in_force: Option<i64>,
}

/// A rule of the namespace on its way into the file.
struct Candidate<'a> {
    object: &'a FalcoRule,
    name: &'a str,
    generation: i64,
    judged: Judged,
    /// Whether it may go into the file as it is written.
    accepted: bool,
    /// Its version in force, if that may be kept.
    in_force: Option<&'a BundleItem>,
    /// What keeping it would take of the quotas.
    kept_cost: Cost,
}

/// Renders a namespace. The file's items are in the order of the objects' names, whatever the order of the input.
#[must_use]
pub fn render(input: &Input<'_>) -> Rendered {
    let settings = input.policy.settings(input.namespace);
    let judge = Judge::new(input, &settings);
    let settled: BTreeMap<&str, &BundleItem> =
        input.settled.iter().flat_map(|file| &file.items).map(|item| (item.name.as_str(), item)).collect();

    let mut in_order = input.rules.to_vec();
    in_order.sort_by_key(|rule| text::object_name(&rule.metadata));
    let mut candidates: Vec<Candidate<'_>> =
        in_order.iter().map(|rule| Candidate::new(rule, &judge, &settled)).collect();
    quota::apply(&mut candidates, &settings);

    let claims = claims::assign(
        &candidates.iter().map(Candidate::claimant).collect::<Vec<_>>(),
        &claims::Rules {
            namespace: input.namespace,
            mode: settings.names,
            privileged: settings.privileged,
            names: input.names,
            base: &|name| judge.base_rule(name),
        },
    );

    let (macros, lists) = verdict::parts(input, &judge, &candidates);
    let mut items = Vec::with_capacity(candidates.len());
    let settle = |(candidate, claim): (Candidate<'_>, _)| {
        let name = candidate.name.to_owned();
        let (verdict, item) = verdict::settle(candidate, claim, &judge);
        items.extend(item);
        (name, verdict)
    };
    let rules = candidates.into_iter().zip(claims).map(settle).collect();
    let file = BundleFile::new(items);
    let bytes = size::of(&file, MAX_FILE);
    let file = if bytes > MAX_FILE { Err(TooLarge { items: file.items, bytes, limit: MAX_FILE }) } else { Ok(file) };
    Rendered { file, rules, macros, lists }
}

impl<'a> Candidate<'a> {
    fn new(object: &'a FalcoRule, judge: &Judge<'_>, settled: &BTreeMap<&str, &'a BundleItem>) -> Self {
        let name = text::object_name(&object.metadata);
        let judged = judge.rule(&object.spec);
        let in_force = settled.get(name).copied();
        // A rule that only some of the nodes can load is not begun with; but one that is in force as it is written stays,
        // so that nodes that are being upgraded, or one that lies, don't switch it off everywhere.
        let same_text = |item: &BundleItem| {
            judged.ready.as_ref().is_some_and(|ready| FileRule::renamed(&ready.text, &item.rule_name) == item.text)
        };
        let accepted = judged.ready.is_some() && (judged.only_some.is_none() || in_force.is_some_and(same_text));
        let goes_on = |item: &BundleItem| accepted && judge.is_name_of(&item.rule_name, &object.spec.rule);
        // Whether the old version is allowed matters only where the item may come to need it.
        let (in_force, kept_cost) = match in_force {
            None => (None, Cost::default()),
            Some(item) if goes_on(item) => (Some(item), Cost::default()),
            Some(item) => match judge.may_keep(item) {
                Some(cost) => (Some(item), cost),
                None => (None, Cost::default()),
            },
        };
        let generation = object.metadata.generation.unwrap_or_default();
        Self { object, name, generation, judged, accepted, in_force, kept_cost }
    }

    fn claimant(&self) -> claims::Claimant<'a> {
        claims::Claimant {
            object: self.name,
            created: self.object.metadata.creation_timestamp.as_ref(),
            wanted: &self.object.spec.rule,
            chosen: self.object.status.as_ref().and_then(|status| status.rule_name.as_deref()),
            in_force: self.in_force.map(|item| item.rule_name.as_str()),
            valid: self.accepted,
        }
    }

    /// What it takes of the quotas; `None` where nothing of it goes into the file.
    fn cost(&self) -> Option<Cost> {
        match &self.judged.ready {
            Some(ready) if self.accepted => Some(ready.cost),
            _ => self.in_force.map(|_| self.kept_cost),
        }
    }
}

#[cfg(test)]
mod tests;
