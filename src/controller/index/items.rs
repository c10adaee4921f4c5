//! What developers write.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

use super::{By, Index, Space, by_age, is_edit, is_news};
use crate::api::{
    Authored, AuthoredStatus, FalcoList, FalcoListSpec, FalcoMacro, FalcoMacroSpec, FalcoRule, FalcoRuleSpec, Priority,
};
use crate::controller::queue::Touch;
use crate::controller::watch::Seen;

/// An object that a developer wrote.
#[derive(Clone, Debug)]
pub(in crate::controller) struct Item<K> {
    pub object: K,
    /// Why it could not be decoded; the object then has its metadata and an empty spec.
    pub broken: Option<String>,
}

/// The kinds that developers write, as the index keeps them.
pub(in crate::controller) trait Kept: Authored + Resource<DynamicType = ()> + Sized {
    fn items(space: &Space) -> &BTreeMap<String, Item<Self>>;
    fn items_mut(space: &mut Space) -> &mut BTreeMap<String, Item<Self>>;
    fn status_mut(&mut self) -> &mut Option<AuthoredStatus>;
    fn empty() -> Self;
}

macro_rules! kept {
    ($kind:ident, $field:ident, $spec:expr) => {
        impl Kept for $kind {
            fn items(space: &Space) -> &BTreeMap<String, Item<Self>> {
                &space.$field
            }
            fn items_mut(space: &mut Space) -> &mut BTreeMap<String, Item<Self>> {
                &mut space.$field
            }
            fn status_mut(&mut self) -> &mut Option<AuthoredStatus> {
                &mut self.status
            }
            fn empty() -> Self {
                Self { metadata: ObjectMeta::default(), spec: $spec, status: None }
            }
        }
    };
}
kept!(
    FalcoRule,
    rules,
    FalcoRuleSpec {
        rule: String::new(),
        desc: String::new(),
        condition: String::new(),
        output: String::new(),
        priority: Priority::default(),
        enabled: None,
        tags: vec![],
        source: None,
        exceptions: vec![],
        warn_evttypes: None,
        skip_if_unknown_filter: None,
        capture: None,
        capture_duration: None,
    }
);
kept!(FalcoMacro, macros, FalcoMacroSpec { macro_: String::new(), condition: String::new() });
kept!(FalcoList, lists, FalcoListSpec { list: String::new(), items: vec![] });

impl Index {
    pub(super) fn take_items<K: Kept + Clone>(&mut self, seen: Seen<DeserializeGuard<K>>) {
        match seen {
            Seen::Applied(object) => self.apply_item(object, By::Event),
            Seen::Deleted(object) => {
                let meta = object.meta();
                let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), object.name_any());
                self.remove_item::<K>(&namespace, &name, meta.uid.as_deref());
            }
            Seen::All(objects) => {
                let mut gone: BTreeSet<(String, String)> = BTreeSet::new();
                for (namespace, space) in &self.spaces {
                    gone.extend(K::items(space).keys().map(|name| (namespace.clone(), name.clone())));
                }
                for object in objects {
                    gone.remove(&(object.namespace().unwrap_or_default(), object.name_any()));
                    self.apply_item(object, By::List);
                }
                for (namespace, name) in gone {
                    self.remove_item::<K>(&namespace, &name, None);
                }
            }
        }
    }

    pub(super) fn apply_item<K: Kept + Clone>(&mut self, object: DeserializeGuard<K>, by: By) {
        let (object, broken) = match object.0 {
            Ok(object) => (object, None),
            Err(invalid) => {
                let mut object = K::empty();
                *object.meta_mut() = invalid.metadata;
                (object, Some(invalid.error))
            }
        };
        self.decoded::<K>(object.meta(), broken.as_deref());
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if object.meta().deletion_timestamp.is_some() {
            return self.remove_item::<K>(&namespace, &name, None);
        }
        let space = self.space(&namespace);
        let old = K::items(space).get(&name);
        let touch = match old {
            Some(old) if by == By::Event && !is_news(Some(old.object.meta()), object.meta()) => return,
            Some(old) if old.object.meta().resource_version == object.meta().resource_version => return,
            Some(old) if !is_edit(old.object.meta(), object.meta()) && old.broken == broken => Touch::Fact,
            _ => Touch::Edit,
        };
        space.stale |= touch == Touch::Edit;
        K::items_mut(space).insert(name, Item { object, broken });
        self.touch(&namespace, touch);
    }

    pub(super) fn remove_item<K: Kept>(&mut self, namespace: &str, name: &str, uid: Option<&str>) {
        if self.definitions_go() {
            // The definition of a kind is being deleted, and its objects with it: a lost world, and nobody's edit.
            return;
        }
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        let items = K::items_mut(space);
        let same = |item: &Item<K>| uid.is_none() || item.object.meta().uid.as_deref() == uid;
        if items.get(name).is_some_and(same) {
            items.remove(name);
            space.stale = true;
            self.touch(namespace, Touch::Edit);
        }
    }

    /// Whether the definition of a kind that developers write is being deleted, or is gone after having been there.
    pub(super) fn definitions_go(&self) -> bool {
        ["falcorules", "falcomacros", "falcolists"]
            .iter()
            .any(|plural| self.crds.get(&format!("{plural}.{}", crate::api::GROUP)) == Some(&true))
    }

    pub(super) fn item_written<K: Kept>(&mut self, meta: &ObjectMeta, status: AuthoredStatus) {
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let Some(space) = self.spaces.get_mut(&namespace) else { return };
        // A write to the status leaves the rest as it was; if something else has been seen meanwhile, that is newer.
        if let Some(item) = K::items_mut(space).get_mut(&name)
            && item.object.meta().uid == meta.uid
            && item.object.meta().generation == meta.generation
            && by_age(item.object.meta(), meta) == Ordering::Less
        {
            item.object.meta_mut().resource_version.clone_from(&meta.resource_version);
            *item.object.status_mut() = Some(status);
        }
    }

    pub(super) fn take_crds(&mut self, seen: Seen<ObjectMeta>) {
        let name = |meta: &ObjectMeta| meta.name.clone().unwrap_or_default();
        let going = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
        match seen {
            Seen::Applied(meta) => drop(self.crds.insert(name(&meta), going(&meta))),
            // It is gone until it is applied again.
            Seen::Deleted(meta) => drop(self.crds.insert(name(&meta), true)),
            Seen::All(metas) => {
                self.crds.values_mut().for_each(|going| *going = true);
                self.crds.extend(metas.iter().map(|meta| (name(meta), going(meta))));
            }
        }
    }
}
