//! The items of a namespace to its rules file: policy, names, inlining, order, YAML. Pure.
//!
//! [`render`] never fails as a whole: each item gets a verdict, and one that can't be rendered keeps its last version that
//! was in force, or is left out.

mod claims;
mod file_rule;
mod guard;
mod judge;
mod names;
mod policy;
mod yaml;

pub use names::Names;
pub use policy::{NameMode, Policy, PolicyError, Settings};
pub(crate) use yaml::{push_flow_scalar, push_scalar};

use std::collections::BTreeMap;

use crate::api::{BundleFile, BundleItem, FalcoList, FalcoMacro, FalcoRule, Reason};
use crate::language::Catalog;
use claims::Claim;
use file_rule::FileRule;

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

/// A file that the API server would not take as a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its size, in bytes.
    pub bytes: usize,
    /// The most that is written.
    pub limit: usize,
}

/// What rendering made of an item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemVerdict {
    /// The text that the desired file holds for the item as it is written; `None` where it was rejected, and for macros
    /// and lists.
    pub text: Option<String>,
    /// Why it was rejected; `None` where it was accepted.
    pub rejected: Option<Reason>,
    /// The name that Falco knows the rule by.
    pub rule_name: Option<String>,
    /// What there is to say: what is wrong and where, or a warning.
    pub message: Option<String>,
    /// Why the rule can't run although it is, or would be, loaded.
    pub not_running: Option<String>,
    /// The generation of the object whose text is kept in force instead.
    pub generation_in_force: Option<i64>,
}

/// Why an item was rejected.
#[derive(Clone, Debug, PartialEq)]
struct Rejection {
    reason: Reason,
    message: String,
}

impl Rejection {
    fn new(reason: Reason, message: String) -> Self {
        Self { reason, message }
    }
}

/// A rule of the namespace on its way into the file.
struct Candidate<'a> {
    object: &'a FalcoRule,
    name: &'a str,
    generation: i64,
    /// The rule as the file would hold it, under the name as written.
    outcome: Result<FileRule, Rejection>,
    /// Its version in force, if that may be kept.
    in_force: Option<&'a BundleItem>,
}

/// Renders a namespace. The file's items are in the order of the objects' names, whatever the order of the input.
#[must_use]
pub fn render(input: &Input<'_>) -> Rendered {
    let settings = input.policy.settings(input.namespace);
    let judge = judge::Judge::new(input, &settings);

    let mut candidates: Vec<Candidate<'_>> = input
        .rules
        .iter()
        .map(|rule| Candidate {
            object: rule,
            name: rule.metadata.name.as_deref().unwrap_or_default(),
            generation: rule.metadata.generation.unwrap_or_default(),
            outcome: judge.rule(&rule.spec),
            in_force: None,
        })
        .collect();
    candidates.sort_by_key(|candidate| candidate.name);
    let settled: BTreeMap<&str, &BundleItem> =
        input.settled.iter().flat_map(|file| &file.items).map(|item| (item.name.as_str(), item)).collect();
    for candidate in &mut candidates {
        // Whether the old version is allowed matters only where the item may come to need it.
        let wanted = &candidate.object.spec.rule;
        let prefix = format!("{}/", input.namespace);
        let goes_on = |item: &BundleItem| {
            candidate.outcome.is_ok() && item.rule_name.strip_prefix(&prefix).unwrap_or(&item.rule_name) == wanted
        };
        candidate.in_force = settled.get(candidate.name).copied().filter(|item| goes_on(item) || judge.may_keep(item));
    }
    within_quota(&mut candidates, &settings);

    let claims = claims::assign(
        &candidates.iter().map(Candidate::claimant).collect::<Vec<_>>(),
        &claims::Rules {
            namespace: input.namespace,
            mode: settings.names,
            privileged: settings.privileged,
            names: input.names,
            is_base: &|name| judge.is_base_rule(name),
        },
    );

    let mut items = Vec::with_capacity(candidates.len());
    let mut rules = BTreeMap::new();
    for (candidate, claim) in candidates.into_iter().zip(claims) {
        let name = candidate.name.to_owned();
        let (verdict, item) = candidate.settle(claim, &judge);
        items.extend(item);
        rules.insert(name, verdict);
    }
    let file = BundleFile::new(items);
    let bytes = size(&file);
    let limit = settings.bytes.map_or(MAX_FILE, |quota| quota.min(MAX_FILE));
    Rendered {
        file: if bytes > limit { Err(TooLarge { bytes, limit }) } else { Ok(file) },
        rules,
        macros: input.macros.iter().map(|item| (name_of(&item.metadata), judge.macro_(&item.spec))).collect(),
        lists: input.lists.iter().map(|item| (name_of(&item.metadata), judge.list(&item.spec))).collect(),
    }
}

fn name_of(metadata: &kube::core::ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

/// Rejects what is over the quota of rules: first comes what is in force, then the older, then the name.
fn within_quota(candidates: &mut [Candidate<'_>], settings: &Settings) {
    let Some(quota) = settings.rules else { return };
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&index| {
        candidates.get(index).map(|candidate| {
            let created = candidate.object.metadata.creation_timestamp.as_ref();
            (candidate.in_force.is_none(), created.is_none(), created.map(|t| t.0), candidate.name)
        })
    });
    let count = candidates.len();
    let mut left = quota;
    for index in order {
        let Some(candidate) = candidates.get_mut(index) else { continue };
        if candidate.outcome.is_err() && candidate.in_force.is_none() {
            continue;
        }
        if left > 0 {
            left -= 1;
            continue;
        }
        candidate.in_force = None;
        if candidate.outcome.is_ok() {
            let message = format!(
                "the namespace has {count} rules, and its quota is {quota}; delete some, or ask the administrator for more"
            );
            candidate.outcome = Err(Rejection::new(Reason::PolicyDenied, message));
        }
    }
}

/// The size of the file as a part of a bundle's JSON.
fn size(file: &BundleFile) -> usize {
    let mut counter = Counter(0);
    // Neither the counter nor a struct of texts and numbers can fail to be written.
    let _always = serde_json::to_writer(&mut counter, file);
    counter.0
}

/// Counts what is written to it.
struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> Candidate<'a> {
    fn claimant(&self) -> claims::Claimant<'a> {
        claims::Claimant {
            object: self.name,
            created: self.object.metadata.creation_timestamp.as_ref(),
            wanted: &self.object.spec.rule,
            chosen: self.object.status.as_ref().and_then(|status| status.rule_name.as_deref()),
            in_force: self.in_force.map(|item| item.rule_name.as_str()),
            valid: self.outcome.is_ok(),
        }
    }

    /// The verdict, and what goes into the file.
    fn settle(self, claim: Claim, judge: &judge::Judge<'_>) -> (ItemVerdict, Option<BundleItem>) {
        let taken = |why| Rejection::new(Reason::NameTaken, why);
        let (rejection, kept) = match (self.outcome, claim) {
            (Ok(mut rule), Claim::Name(name)) => {
                rule.rule.clone_from(&name);
                let item = BundleItem {
                    name: self.name.to_owned(),
                    generation: self.generation,
                    rule_name: name.clone(),
                    text: rule.text(),
                };
                let verdict =
                    ItemVerdict { text: Some(item.text.clone()), rule_name: Some(name), ..ItemVerdict::default() };
                return (verdict, Some(item));
            }
            (Ok(_), Claim::Kept(why)) => (taken(why.unwrap_or_default()), self.in_force),
            (Ok(_), Claim::Nothing(why)) => (taken(why.unwrap_or_default()), None),
            (Err(rejection), Claim::Kept(_)) => (rejection, self.in_force),
            (Err(rejection), _) => (rejection, None),
        };
        let kept = kept.filter(|item| judge.may_keep(item));
        let verdict = ItemVerdict {
            rejected: Some(rejection.reason),
            message: Some(rejection.message),
            rule_name: kept.map(|item| item.rule_name.clone()),
            generation_in_force: kept.map(|item| item.generation),
            ..ItemVerdict::default()
        };
        (verdict, kept.cloned())
    }
}

#[cfg(test)]
mod tests;
