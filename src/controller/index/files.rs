//! What the controller itself writes: rules files and bundles.

use std::collections::BTreeSet;

use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

use super::{By, Index, Space, is_news};
use crate::api::{FalcoBundle, FalcoBundleSpec, FalcoRulesFile};
use crate::controller::queue::Touch;
use crate::controller::watch::Seen;

impl Index {
    pub(super) fn take_rules_files(&mut self, seen: Seen<DeserializeGuard<FalcoRulesFile>>) {
        match seen {
            Seen::Applied(object) => self.apply_rules_file(object, By::Event),
            Seen::Deleted(object) => {
                let namespace = object.namespace().unwrap_or_default();
                self.remove_rules_file(&namespace, &object.name_any(), object.uid().as_deref());
            }
            Seen::All(objects) => {
                let mut gone: BTreeSet<(String, String)> = BTreeSet::new();
                for (namespace, space) in &self.spaces {
                    gone.extend(space.rules_files.keys().map(|name| (namespace.clone(), name.clone())));
                }
                for object in objects {
                    gone.remove(&(object.namespace().unwrap_or_default(), object.name_any()));
                    self.apply_rules_file(object, By::List);
                }
                for (namespace, name) in gone {
                    self.remove_rules_file(&namespace, &name, None);
                }
            }
        }
    }

    pub(super) fn apply_rules_file(&mut self, object: DeserializeGuard<FalcoRulesFile>, by: By) {
        self.decoded::<FalcoRulesFile>(object.meta(), object.0.as_ref().err().map(|it| it.error.as_str()));
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let old = self.spaces.get(&namespace).and_then(|space| space.rules_files.get(&name));
        let object = match (object.0, old) {
            (Ok(object), _) => object,
            // Of one that can't be read, the last that could is true in all but its metadata.
            (Err(invalid), Some(old)) => FalcoRulesFile { metadata: invalid.metadata, ..old.clone() },
            (Err(invalid), None) => FalcoRulesFile {
                metadata: invalid.metadata,
                spec: crate::api::FalcoRulesFileSpec::default(),
                status: None,
            },
        };
        if by == By::Event && !is_news(old.map(Resource::meta), object.meta()) {
            return;
        }
        self.space(&namespace).rules_files.insert(name, object);
        self.touch(&namespace, Touch::Fact);
    }

    pub(super) fn remove_rules_file(&mut self, namespace: &str, name: &str, uid: Option<&str>) {
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        if space.rules_files.get(name).is_some_and(|old| uid.is_none() || old.uid().as_deref() == uid) {
            space.rules_files.remove(name);
            self.touch(namespace, Touch::Fact);
            self.tidy(namespace);
        }
    }

    pub(super) fn take_bundles(&mut self, seen: Seen<DeserializeGuard<FalcoBundle>>) {
        match seen {
            Seen::Applied(object) => self.apply_bundle(object, By::Event),
            Seen::Deleted(object) => self.remove_bundle(&object.name_any(), object.uid().as_deref()),
            Seen::All(objects) => {
                let mut gone: BTreeSet<String> = self
                    .spaces
                    .iter()
                    .filter(|(_, space)| space.bundle.is_some())
                    .map(|(name, _)| name.clone())
                    .collect();
                for object in objects {
                    gone.remove(&object.name_any());
                    self.apply_bundle(object, By::List);
                }
                for name in gone {
                    self.remove_bundle(&name, None);
                }
            }
        }
    }

    pub(super) fn apply_bundle(&mut self, object: DeserializeGuard<FalcoBundle>, by: By) {
        self.decoded::<FalcoBundle>(object.meta(), object.0.as_ref().err().map(|it| it.error.as_str()));
        let namespace = object.name_any();
        let old = self.spaces.get(&namespace).and_then(|space| space.bundle.as_ref());
        let object = match (object.0, old) {
            (Ok(object), _) => object,
            (Err(invalid), Some(old)) => FalcoBundle { metadata: invalid.metadata, spec: old.spec.clone() },
            // It is there all the same: it is replaced by one that can be read, and nothing in it is in force.
            (Err(invalid), None) => FalcoBundle { metadata: invalid.metadata, spec: FalcoBundleSpec::default() },
        };
        if by == By::Event && !is_news(old.map(Resource::meta), object.meta()) {
            return;
        }
        let hash = |spec: &FalcoBundleSpec| spec.settled().map(|file| file.hash.clone());
        let moved = old.map(|old| hash(&old.spec)) != Some(hash(&object.spec));
        self.nodes.set_settled(&namespace, hash(&object.spec).as_deref());
        let space = self.space(&namespace);
        space.stale |= moved;
        space.bundle = Some(object);
        self.hold_names(&namespace);
        self.touch(&namespace, Touch::Fact);
    }

    pub(super) fn remove_bundle(&mut self, namespace: &str, uid: Option<&str>) {
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        if space.bundle.as_ref().is_some_and(|old| uid.is_none() || old.uid().as_deref() == uid) {
            space.bundle = None;
            space.stale = true;
            self.nodes.set_settled(namespace, None);
            self.hold_names(namespace);
            self.touch(namespace, Touch::Fact);
            self.tidy(namespace);
        }
    }

    /// Holds the names that a namespace's files use, and lets others try again that wait for one that is free now.
    pub(in crate::controller) fn hold_names(&mut self, namespace: &str) {
        let Some(space) = self.spaces.get(namespace) else { return };
        let bundle = space.bundle.as_ref().map(|bundle| &bundle.spec);
        let last_good = bundle.and_then(|spec| spec.rollout.as_ref()).and_then(|rollout| rollout.last_good.as_ref());
        let rendered = space.rendered.as_ref().and_then(|rendered| rendered.file.as_ref().ok());
        let files = [bundle.and_then(|spec| spec.target.as_ref()), last_good, rendered];
        let names: BTreeSet<String> =
            files.into_iter().flatten().flat_map(|file| &file.items).map(|item| item.rule_name.clone()).collect();
        if !self.names.hold(namespace, names.clone()) {
            return;
        }
        let old = std::mem::replace(&mut self.space(namespace).names, names);
        let now = self.space(namespace).names.clone();
        let free: BTreeSet<&String> = old.difference(&now).collect();
        if free.is_empty() {
            return;
        }
        let waiting = |space: &Space| {
            let taken = |name: &str| {
                let verdict = space.rendered.as_ref().and_then(|rendered| rendered.rules.get(name));
                verdict.is_some_and(|verdict| verdict.rejected == Some(crate::api::Reason::NameTaken))
            };
            space.rules.iter().any(|(name, item)| free.contains(&item.object.spec.rule) && taken(name))
        };
        let others: Vec<String> = self
            .spaces
            .iter()
            .filter(|(name, space)| name.as_str() != namespace && waiting(space))
            .map(|(name, _)| name.clone())
            .collect();
        for other in others {
            self.space(&other).stale = true;
            self.touch(&other, Touch::Edit);
        }
    }
}
