//! From the index to work: what is to be written for a namespace. Synchronous.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::index::{Index, Item, Kept, Space};
use crate::api::{
    AuthoredStatus, BundleFile, FINALIZER, FalcoList, FalcoMacro, FalcoRule, FalcoRulesFile, FalcoRulesFileStatus,
    ItemPhase, Reason, condition, set_condition,
};
use crate::language::Catalog;
use crate::machine::{
    self, Action, Decision, Desired, EventNote, Facts, ItemFacts, ItemKind, Refresh, RulesFileFacts, decide,
    item_status,
};
use crate::render::{self, Input, ItemVerdict, Rendered, Snapshot};

/// What decides beside the objects.
#[derive(Debug, Default)]
pub struct Policies {
    /// For rollouts.
    pub rollout: machine::Policy,
    /// For what is rendered.
    pub render: render::Policy,
    /// What Falco offers before any node has said so.
    pub catalog: Catalog,
}

/// The writes for a namespace that depend on each other, in their order.
#[derive(Clone, Debug)]
pub struct Work {
    /// The namespace.
    pub namespace: String,
    /// Its UID, where it exists.
    pub namespace_uid: Option<String>,
    /// The `FalcoRulesFile` that the decision rests on.
    pub rules_file: Option<FalcoRulesFile>,
    /// UID and version of the `FalcoBundle` that the decision rests on.
    pub bundle: Option<ObjectMeta>,
    /// What to write.
    pub actions: Vec<Action>,
    /// The status for [`Action::WriteStatus`].
    pub status: FalcoRulesFileStatus,
    /// What to tell about the rules file, once that is done.
    pub events: Vec<EventNote>,
    /// The reason of the decision, for metrics.
    pub reason: Reason,
    /// Rules files of other names than the namespace's, with the status that says so.
    pub strangers: Vec<FalcoRulesFile>,
}

/// The status of one item.
#[derive(Clone, Debug)]
pub struct ItemWork {
    /// `FalcoRule`, `FalcoMacro` or `FalcoList`.
    pub kind: &'static str,
    /// The metadata that the status rests on.
    pub meta: ObjectMeta,
    /// The status.
    pub status: AuthoredStatus,
    /// Whether the phase is another than the one that was written last.
    pub news: bool,
}

/// What is to be done for a namespace.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Writes in their order; `None` where there are none.
    pub work: Option<Work>,
    /// Statuses of items, in any order.
    pub items: Vec<ItemWork>,
    /// The most urgent of what was left out, being less urgent than was asked for.
    pub later: Refresh,
    /// When to decide again, even if nothing happens.
    pub look_again: Option<Timestamp>,
}

impl Index {
    /// Decides for a namespace. Items are rendered anew where they changed, if `fresh`; else what was rendered last
    /// stands. What is less urgent than `urgency` is left for later.
    pub fn plan(
        &mut self,
        namespace: &str,
        fresh: bool,
        urgency: Refresh,
        policies: &Policies,
        now: Timestamp,
    ) -> Option<Plan> {
        let space = self.spaces.get(namespace)?;
        if fresh && !self.cleanup && (space.stale || space.rendered.is_none()) {
            let rendered = Arc::new(self.render(namespace, space, policies));
            let space = self.spaces.get_mut(namespace)?;
            space.stale = false;
            space.rendered = Some(rendered);
            self.hold_names(namespace);
        }
        let space = self.spaces.get(namespace)?;
        let rendered = space.rendered.clone().filter(|_| !self.cleanup);
        let rules: BTreeSet<String> =
            if self.cleanup { BTreeSet::new() } else { space.rules.keys().cloned().collect() };
        let facts = self.facts(namespace, space, rendered.as_deref(), &rules);
        let decision = decide(&facts, &policies.rollout, now);
        let mut later = Refresh::None;
        let mut items = vec![];
        if let Some(rendered) = rendered.as_deref().filter(|_| !space.stale && !space.terminating) {
            let due = Due { space, rendered, facts: &facts, decision: &decision, urgency, now };
            due.items::<FalcoRule>("FalcoRule", &rendered.rules, &mut items, &mut later);
            due.items::<FalcoMacro>("FalcoMacro", &rendered.macros, &mut items, &mut later);
            due.items::<FalcoList>("FalcoList", &rendered.lists, &mut items, &mut later);
        }
        let mut actions = decision.actions;
        let rules_file = space.rules_files.get(namespace).cloned();
        let deletes = |action: &Action| matches!(action, Action::DeleteRulesFile | Action::RemoveFinalizer);
        if decision.refresh > Refresh::None
            && rules_file.is_some()
            && !actions.contains(&Action::WriteStatus)
            && !actions.iter().any(deletes)
        {
            if decision.refresh >= urgency {
                actions.push(Action::WriteStatus);
            } else {
                later = later.max(decision.refresh);
            }
        }
        let strangers: Vec<_> = space
            .rules_files
            .values()
            .filter(|file| file.name_any() != namespace)
            .filter_map(|it| stranger(it, now))
            .collect();
        let idle = actions.is_empty() && decision.events.is_empty() && strangers.is_empty();
        let work = (!idle).then(|| Work {
            namespace: namespace.to_owned(),
            namespace_uid: space.uid.clone(),
            rules_file,
            bundle: space.bundle.as_ref().map(|bundle| bundle.metadata.clone()),
            actions,
            status: decision.status,
            events: decision.events,
            reason: decision.reason,
            strangers,
        });
        Some(Plan { work, items, later, look_again: decision.look_again })
    }

    fn render(&self, namespace: &str, space: &Space, policies: &Policies) -> Rendered {
        let mut rendered = render::render(&Input {
            namespace,
            rules: &objects(space),
            macros: &objects(space),
            lists: &objects(space),
            settled: Self::settled(space),
            names: &self.names,
            policy: &policies.render,
            catalogs: &self.catalogs_for(policies),
        });
        tell_broken::<FalcoRule>(space, &mut rendered.rules);
        tell_broken::<FalcoMacro>(space, &mut rendered.macros);
        tell_broken::<FalcoList>(space, &mut rendered.lists);
        rendered
    }

    /// The file of a namespace that is settled, if it is this namespace's and not that of one before it.
    fn settled(space: &Space) -> Option<&BundleFile> {
        let bundle = space.bundle.as_ref().filter(|bundle| Some(&bundle.spec.namespace_uid) == space.uid.as_ref());
        bundle.and_then(|bundle| bundle.spec.settled())
    }

    /// The catalogues that rules are checked against.
    fn catalogs_for<'a>(&'a self, policies: &'a Policies) -> Vec<&'a Catalog> {
        let mut catalogs: Vec<&Catalog> = self.in_use.values().collect();
        if catalogs.is_empty() {
            catalogs.push(&policies.catalog);
        }
        catalogs
    }

    /// What judging an item of the namespace rests on, with who holds the names of its rules and the further ones.
    #[must_use]
    pub fn snapshot(&self, namespace: &str, wanted: &[&str], policies: &Policies) -> Snapshot {
        let nothing = Space::default();
        let space = self.spaces.get(namespace).unwrap_or(&nothing);
        let settled = Self::settled(space);
        let rules = objects::<FalcoRule>(space);
        let written = rules.iter().map(|rule| rule.spec.rule.as_str()).chain(wanted.iter().copied());
        let mut names: BTreeSet<String> =
            written.flat_map(|name| [name.to_owned(), format!("{namespace}/{name}")]).collect();
        let chosen = rules.iter().filter_map(|rule| rule.status.as_ref()?.rule_name.clone());
        names.extend(chosen.chain(settled.iter().flat_map(|file| &file.items).map(|item| item.rule_name.clone())));
        Snapshot {
            namespace: namespace.to_owned(),
            rules: rules.into_iter().cloned().collect(),
            macros: objects::<FalcoMacro>(space).into_iter().cloned().collect(),
            lists: objects::<FalcoList>(space).into_iter().cloned().collect(),
            settled: settled.cloned(),
            names: self.names.among(names.iter().map(String::as_str)),
            catalogs: self.catalogs_for(policies).into_iter().cloned().collect(),
        }
    }

    fn facts<'a>(
        &'a self,
        namespace: &'a str,
        space: &'a Space,
        rendered: Option<&'a Rendered>,
        rules: &'a BTreeSet<String>,
    ) -> Facts<'a> {
        let rejected = rendered.map_or(0, |it| it.rules.values().filter(|verdict| verdict.rejected.is_some()).count());
        let known = rendered.map_or(0, |it| it.rules.len());
        Facts {
            namespace,
            namespace_uid: space.uid.as_deref(),
            terminating: space.terminating,
            rules_file: space.rules_files.get(namespace).map(|file| RulesFileFacts {
                generation: file.metadata.generation,
                spec: &file.spec,
                status: file.status.as_ref(),
                finalizer: file.finalizers().iter().any(|it| it == FINALIZER),
                deleting: file.metadata.deletion_timestamp.is_some(),
            }),
            bundle: space.bundle.as_ref().filter(|it| it.metadata.deletion_timestamp.is_none()).map(|it| &it.spec),
            has_items: self.has_items(namespace),
            rules,
            desired: match rendered.map(|it| &it.file) {
                None => Desired::Unknown,
                Some(Ok(file)) => Desired::File(file),
                Some(Err(large)) => Desired::TooLarge { bytes: large.bytes, limit: large.limit },
            },
            accepted: (known - rejected) as i32,
            rejected: rejected as i32,
            nodes: self.nodes.of(namespace),
        }
    }
}

/// What the statuses of items rest on.
struct Due<'a> {
    space: &'a Space,
    rendered: &'a Rendered,
    facts: &'a Facts<'a>,
    decision: &'a Decision,
    urgency: Refresh,
    now: Timestamp,
}

impl Due<'_> {
    fn items<K: Kept>(
        &self,
        kind: &'static str,
        verdicts: &BTreeMap<String, ItemVerdict>,
        items: &mut Vec<ItemWork>,
        later: &mut Refresh,
    ) {
        let item_kind = if kind == "FalcoRule" { ItemKind::Rule } else { ItemKind::Part };
        for (name, item) in K::items(self.space) {
            let Some(verdict) = verdicts.get(name) else { continue };
            let old = item.object.authored_status();
            let facts = ItemFacts {
                kind: item_kind,
                name,
                generation: item.object.meta().generation,
                status: old,
                verdict,
                written: self.rendered.written(name).filter(|_| item_kind == ItemKind::Rule),
            };
            let (status, refresh) = item_status(&facts, self.facts, self.decision, self.now);
            if refresh == Refresh::None {
                continue;
            }
            if refresh < self.urgency {
                *later = (*later).max(refresh);
                continue;
            }
            let news = old.and_then(|status| status.phase) != status.phase
                || (status.phase == Some(ItemPhase::Rejected) && old.map(|old| &old.message) != Some(&status.message));
            items.push(ItemWork { kind, meta: item.object.meta().clone(), status, news });
        }
    }
}

/// A rules file of another name than its namespace's with the status that says so; `None` where it says so already.
fn stranger(file: &FalcoRulesFile, now: Timestamp) -> Option<FalcoRulesFile> {
    let (namespace, generation) = (file.namespace().unwrap_or_default(), file.metadata.generation);
    let message = format!(
        "a FalcoRulesFile counts only under the name of its namespace; this one is ignored: delete it, and use {namespace}"
    );
    let mut conditions: Vec<Condition> = file.status.iter().flat_map(|status| status.conditions.clone()).collect();
    set_condition(&mut conditions, condition("Ready", Some(false), Reason::WrongName, &*message, generation), now);
    let status = FalcoRulesFileStatus {
        observed_generation: generation,
        message: Some(message),
        conditions,
        ..FalcoRulesFileStatus::default()
    };
    (file.status.as_ref() != Some(&status)).then(|| FalcoRulesFile { status: Some(status), ..file.clone() })
}

fn objects<K: Kept>(space: &Space) -> Vec<&K> {
    K::items(space).values().map(|item| &item.object).collect()
}

/// Says of objects that could not be decoded that it was that, and not what rendering made of their empty specs.
fn tell_broken<K: Kept>(space: &Space, verdicts: &mut BTreeMap<String, ItemVerdict>) {
    for (name, Item { broken, .. }) in K::items(space) {
        if let (Some(error), Some(verdict)) = (broken, verdicts.get_mut(name)) {
            verdict.rejected = Some(Reason::Undecodable);
            verdict.message = Some(format!("the object can't be read: {error}"));
        }
    }
}
