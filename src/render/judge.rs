//! Whether an item may go into the file, and as what.

use std::collections::{BTreeMap, BTreeSet};

use super::file_rule::FileRule;
use super::{Input, ItemVerdict, Rejection, Settings, guard};
use crate::api::{BundleItem, FalcoListSpec, FalcoMacroSpec, FalcoRuleSpec, Priority, Reason};

/// What the items of one namespace are judged by.
pub(super) struct Judge<'a> {
    settings: &'a Settings,
    /// The names of the namespace's macros and lists, and which of them each is.
    parts: BTreeMap<&'a str, &'static str>,
}

impl<'a> Judge<'a> {
    pub fn new(input: &Input<'a>, settings: &'a Settings) -> Self {
        let macros = input.macros.iter().map(|item| (item.spec.macro_.as_str(), "macro"));
        let lists = input.lists.iter().map(|item| (item.spec.list.as_str(), "list"));
        Self { settings, parts: macros.chain(lists).collect() }
    }

    /// Whether one of Falco's base rules has the name.
    pub fn is_base_rule(&self, name: &str) -> bool {
        let _ = (self, name);
        false
    }

    /// The rule as the file is to hold it, under the name as written.
    pub fn rule(&self, spec: &FalcoRuleSpec) -> Result<FileRule, Rejection> {
        let rule = FileRule::of(spec);
        self.allowed(&rule)?;
        if !spec.exceptions.is_empty() {
            return Err(Rejection::new(
                Reason::DependencyInvalid,
                "this version can't render exceptions safely; write them into the condition, as `and not (...)`"
                    .to_owned(),
            ));
        }
        let names: BTreeSet<&str> = self.parts.keys().copied().collect();
        if let Some(name) = guard::word_of(&rule.condition, &names) {
            let kind = self.parts.get(name).copied().unwrap_or("item");
            return Err(Rejection::new(
                Reason::DependencyInvalid,
                format!(
                    "the condition contains `{name}`, the name of a {kind} of this namespace, which this version can't \
                     render safely; write what it stands for instead"
                ),
            ));
        }
        Ok(rule)
    }

    /// What holds for a rule that is written today as well as for one that stays in force.
    fn allowed(&self, rule: &FileRule) -> Result<(), Rejection> {
        guard::check(rule)?;
        let denied = |message| Err(Rejection::new(Reason::PolicyDenied, message));
        if let Some(sources) = self.settings.sources.as_ref().filter(|sources| !sources.contains(rule.source())) {
            let allowed = sources.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return denied(format!(
                "rules of this namespace may not look at events of the source `{}`; allowed: {allowed}",
                rule.source()
            ));
        }
        if let Some(allowed) = &self.settings.priorities
            && !rule.level().is_some_and(|level| allowed.contains(&level))
        {
            let names = allowed.iter().filter_map(|level| Priority::LEVELS.get(usize::from(*level)).copied());
            return denied(format!(
                "rules of this namespace may not have the priority {}; allowed: {}",
                rule.priority,
                names.collect::<Vec<_>>().join(", ")
            ));
        }
        Ok(())
    }

    /// Whether a version that was in force may stay so by what is allowed today.
    pub fn may_keep(&self, item: &BundleItem) -> bool {
        FileRule::read(&item.text).is_some_and(|rule| rule.rule == item.rule_name && self.allowed(&rule).is_ok())
    }

    /// The verdict on a macro.
    pub fn macro_(&self, spec: &FalcoMacroSpec) -> ItemVerdict {
        let _ = (self, spec);
        ItemVerdict::default()
    }

    /// The verdict on a list.
    pub fn list(&self, spec: &FalcoListSpec) -> ItemVerdict {
        let _ = (self, spec);
        ItemVerdict::default()
    }
}
