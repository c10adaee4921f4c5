//! Everything that decisions rest on, in memory: fed by the watches and by what our own writes return. Synchronous.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

mod cluster;
mod files;
mod items;

use super::queue::Touch;
use super::watch::{AgentPod, Change, edited_at};
use crate::api::{AuthoredStatus, FalcoBundle, FalcoList, FalcoMacro, FalcoRule, FalcoRulesFile};
use crate::language::Catalog;
use crate::machine::Nodes;
use crate::render::{Names, Rendered};
pub(in crate::controller) use items::{Item, Kept};

/// What is known of one namespace.
#[derive(Debug, Default)]
pub(in crate::controller) struct Space {
    pub uid: Option<String>,
    pub terminating: bool,
    pub rules: BTreeMap<String, Item<FalcoRule>>,
    pub macros: BTreeMap<String, Item<FalcoMacro>>,
    pub lists: BTreeMap<String, Item<FalcoList>>,
    /// By name; only the one with the namespace's counts.
    pub rules_files: BTreeMap<String, FalcoRulesFile>,
    pub bundle: Option<FalcoBundle>,
    pub rendered: Option<Arc<Rendered>>,
    /// Whether what was rendered last may not be what would be rendered now.
    pub stale: bool,
    /// The names of rules that the namespace holds.
    names: BTreeSet<String>,
}

impl Space {
    /// Whether nothing is known of it but that it exists, if it does.
    fn is_idle(&self) -> bool {
        self.rules.is_empty()
            && self.macros.is_empty()
            && self.lists.is_empty()
            && self.rules_files.is_empty()
            && self.bundle.is_none()
    }

    /// Whether developers wrote something here.
    pub(in crate::controller) fn has_items(&self) -> bool {
        !(self.rules.is_empty() && self.macros.is_empty() && self.lists.is_empty())
    }
}

/// The index.
#[derive(Debug)]
pub struct Index {
    pub(in crate::controller) spaces: BTreeMap<String, Space>,
    pub(in crate::controller) nodes: Nodes,
    pub(in crate::controller) names: Names,
    pub(in crate::controller) catalogs: BTreeMap<String, Offer>,
    /// The names of the catalogues that nodes' reports give, by node.
    pub(in crate::controller) offers: BTreeMap<String, String>,
    /// The catalogues that rules are checked against, by name; none before any node has named one that is there.
    pub(in crate::controller) in_use: BTreeMap<String, Catalog>,
    /// Whether that may not be true any more.
    offers_moved: bool,
    pods: BTreeMap<String, AgentPod>,
    daemon_sets: BTreeSet<String>,
    wanting: BTreeMap<String, i32>,
    crds: BTreeMap<String, bool>,
    undecodable: BTreeMap<&'static str, BTreeSet<String>>,
    touched: BTreeMap<String, Touch>,
    /// Whether all that nodes load is to be withdrawn, whatever developers wrote.
    pub(in crate::controller) cleanup: bool,
}

/// A `FalcoCatalog` as it is kept.
#[derive(Debug)]
pub(in crate::controller) struct Offer {
    pub meta: ObjectMeta,
    /// What it offers; `None` where its name is not that of its content, so that no agent of ours made it as it is.
    pub catalog: Option<Catalog>,
}

/// What changed since the last time, and when to ask again even if nothing does.
#[derive(Debug, Default)]
pub struct Touched {
    /// The namespaces to be decided for.
    pub namespaces: BTreeMap<String, Touch>,
    /// When nodes are to be judged anew.
    pub look_again: Option<Timestamp>,
}

/// Which of two versions of one object is older. Texts of digits without leading zeros; can be compared within one
/// resource type (Kubernetes 1.35 says so; etcd made it so before).
fn by_age(one: &ObjectMeta, two: &ObjectMeta) -> Ordering {
    let text = |meta: &ObjectMeta| meta.resource_version.clone().unwrap_or_default();
    let (one, two) = (text(one), text(two));
    one.len().cmp(&two.len()).then_with(|| one.cmp(&two))
}

/// Whether `new` says something that `old` does not.
fn is_news(old: Option<&ObjectMeta>, new: &ObjectMeta) -> bool {
    old.is_none_or(|old| old.uid != new.uid || by_age(old, new) == Ordering::Less)
}

/// Whether the spec is another one.
fn is_edit(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid != new.uid || old.generation != new.generation
}

/// How sure it is that a deletion is one, and how an object comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// A watch event, which may be older than what a write has returned.
    Event,
    /// A list, which is the truth even where its versions are older.
    List,
}

impl Index {
    /// An empty one. `daemon_sets` are the names of those whose pods are agents; all of the namespace where none is
    /// given.
    #[must_use]
    pub fn new(nodes: Nodes, daemon_sets: BTreeSet<String>, cleanup: bool) -> Self {
        Self {
            spaces: BTreeMap::new(),
            nodes,
            names: Names::default(),
            catalogs: BTreeMap::new(),
            offers: BTreeMap::new(),
            in_use: BTreeMap::new(),
            offers_moved: false,
            pods: BTreeMap::new(),
            daemon_sets,
            wanting: BTreeMap::new(),
            crds: BTreeMap::new(),
            undecodable: BTreeMap::new(),
            touched: BTreeMap::new(),
            cleanup,
        }
    }

    /// Takes in what a watch shows.
    pub fn take(&mut self, change: Change) {
        match change {
            Change::Rule(seen) => self.take_items(seen),
            Change::Macro(seen) => self.take_items(seen),
            Change::List(seen) => self.take_items(seen),
            Change::RulesFile(seen) => self.take_rules_files(seen),
            Change::Bundle(seen) => self.take_bundles(seen),
            Change::Node(seen) => self.take_nodes(seen),
            Change::Catalog(seen) => self.take_catalogs(seen),
            Change::Namespace(seen) => self.take_namespaces(seen),
            Change::Pod(seen) => self.take_pods(seen),
            Change::DaemonSet(seen) => self.take_daemon_sets(seen),
            Change::Crd(seen) => self.take_crds(seen),
        }
    }

    /// Judges the nodes anew and says what changed since the last time.
    pub fn touched(&mut self, now: Timestamp) -> Touched {
        let refreshed = self.nodes.refresh(now);
        if std::mem::take(&mut self.offers_moved) || refreshed.everything {
            self.choose_catalogs();
        }
        let mut namespaces = std::mem::take(&mut self.touched);
        let busy = self.spaces.iter().filter(|(_, space)| !space.is_idle()).map(|(name, _)| name.clone());
        let moved: Vec<String> =
            if refreshed.everything { busy.collect() } else { refreshed.namespaces.into_iter().collect() };
        for namespace in moved {
            namespaces.entry(namespace).or_insert(Touch::Fact);
        }
        Touched { namespaces, look_again: refreshed.look_again }
    }

    /// Every namespace of which there is something to decide.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.spaces.iter().filter(|(_, space)| !space.is_idle()).map(|(name, _)| name.clone()).collect()
    }

    /// Whether nothing is left that nodes may load, and no finalizer.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.spaces.values().all(|space| {
            let finalized = |file: &FalcoRulesFile| file.finalizers().iter().any(|it| it == crate::api::FINALIZER);
            space.bundle.is_none() && !space.rules_files.values().any(finalized)
        })
    }

    /// How many objects of a kind could not be decoded.
    pub fn undecodable(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.undecodable.iter().map(|(kind, names)| (*kind, names.len()))
    }

    /// Forgets what was rendered, so that everything is rendered anew.
    pub fn forget_rendered(&mut self) {
        let names: Vec<String> = self.spaces.keys().cloned().collect();
        for space in self.spaces.values_mut() {
            space.rendered = None;
            space.stale = true;
        }
        for name in names {
            self.hold_names(&name);
        }
    }

    fn touch(&mut self, namespace: &str, touch: Touch) {
        let entry = self.touched.entry(namespace.to_owned()).or_insert(touch);
        if touch == Touch::Edit {
            *entry = Touch::Edit;
        }
    }

    fn space(&mut self, namespace: &str) -> &mut Space {
        self.spaces.entry(namespace.to_owned()).or_default()
    }

    /// Forgets a namespace of which nothing is left.
    fn tidy(&mut self, namespace: &str) {
        if self.spaces.get(namespace).is_some_and(|space| space.is_idle() && space.uid.is_none()) {
            self.spaces.remove(namespace);
        }
    }

    /// Notes whether an object could be decoded, and says so once.
    fn decoded<K: Resource<DynamicType = ()>>(&mut self, meta: &ObjectMeta, error: Option<&str>) {
        let kind: &'static str = match &*K::kind(&()) {
            "FalcoRule" => "FalcoRule",
            "FalcoMacro" => "FalcoMacro",
            "FalcoList" => "FalcoList",
            "FalcoRulesFile" => "FalcoRulesFile",
            "FalcoBundle" => "FalcoBundle",
            "FalcoNode" => "FalcoNode",
            _ => "FalcoCatalog",
        };
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default());
        let names = self.undecodable.entry(kind).or_default();
        match error {
            None => drop(names.remove(&name)),
            Some(error) => {
                if names.insert(name.clone()) {
                    tracing::warn!(kind, name, error, "an object can't be decoded");
                }
            }
        }
    }

    /// Takes in what a write has returned. It is no news to anybody but the index: nothing is to be decided again for it.
    pub fn written(&mut self, written: Written) {
        let before = std::mem::take(&mut self.touched);
        match written {
            Written::RulesFile(object) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                if object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty() {
                    self.remove_rules_file(&namespace, &name, object.uid().as_deref());
                } else {
                    self.apply_rules_file(DeserializeGuard(Ok(*object)), By::Event);
                }
            }
            Written::RulesFileGone { namespace, uid } => self.remove_rules_file(&namespace, &namespace, Some(&uid)),
            Written::Bundle(object) => self.apply_bundle(DeserializeGuard(Ok(object)), By::Event),
            Written::BundleGone { namespace, uid } => self.remove_bundle(&namespace, Some(&uid)),
            Written::Rule(meta, status) => self.item_written::<FalcoRule>(&meta, status),
            Written::Macro(meta, status) => self.item_written::<FalcoMacro>(&meta, status),
            Written::List(meta, status) => self.item_written::<FalcoList>(&meta, status),
        }
        // What others wait for is still news to them.
        let others = std::mem::replace(&mut self.touched, before);
        for (namespace, touch) in others {
            if touch == Touch::Edit {
                self.touch(&namespace, touch);
            }
        }
    }

    /// When the newest of a namespace's items was written, by their own timestamps.
    pub(in crate::controller) fn edited_at(&self, namespace: &str) -> Option<Timestamp> {
        let space = self.spaces.get(namespace)?;
        let metas = space.rules.values().map(|item| &item.object.metadata);
        let metas = metas.chain(space.macros.values().map(|item| &item.object.metadata));
        metas.chain(space.lists.values().map(|item| &item.object.metadata)).filter_map(edited_at).max()
    }

    /// Whether developers wrote something in the namespace that counts.
    pub(in crate::controller) fn has_items(&self, namespace: &str) -> bool {
        !self.cleanup && self.spaces.get(namespace).is_some_and(Space::has_items)
    }
}

/// An object as a write of ours has left it.
#[derive(Clone, Debug)]
pub enum Written {
    /// A rules file.
    RulesFile(Box<FalcoRulesFile>),
    /// A rules file that is gone.
    RulesFileGone {
        /// Its namespace, and name.
        namespace: String,
        /// Its UID.
        uid: String,
    },
    /// A bundle.
    Bundle(FalcoBundle),
    /// A bundle that is gone.
    BundleGone {
        /// Its name.
        namespace: String,
        /// Its UID.
        uid: String,
    },
    /// The status of a rule.
    Rule(ObjectMeta, AuthoredStatus),
    /// The status of a macro.
    Macro(ObjectMeta, AuthoredStatus),
    /// The status of a list.
    List(ObjectMeta, AuthoredStatus),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BundleFile, BundleItem, FalcoBundleSpec, FalcoRuleSpec};
    use crate::controller::watch::Seen;

    fn rule(name: &str, uid: &str, version: &str, generation: i64) -> DeserializeGuard<FalcoRule> {
        let spec = FalcoRuleSpec { rule: name.into(), ..FalcoRule::empty().spec };
        let mut rule = FalcoRule::new(name, spec);
        rule.metadata.namespace = Some("team-a".into());
        rule.metadata.uid = Some(uid.into());
        rule.metadata.resource_version = Some(version.into());
        rule.metadata.generation = Some(generation);
        DeserializeGuard(Ok(rule))
    }

    fn index() -> Index {
        let mut index = Index::new(Nodes::new(false), BTreeSet::new(), false);
        let crd =
            |name: &str| ObjectMeta { name: Some(format!("{name}.{}", crate::api::GROUP)), ..ObjectMeta::default() };
        index.take(Change::Crd(Seen::All(vec![crd("falcorules"), crd("falcomacros"), crd("falcolists")])));
        index
    }

    fn touched(index: &mut Index) -> Vec<(String, Touch)> {
        index.touched(Timestamp::UNIX_EPOCH).namespaces.into_iter().collect()
    }

    #[test]
    fn an_edit_is_one_by_its_generation_and_an_older_event_is_no_news() {
        let mut index = index();
        touched(&mut index);
        index.take(Change::Rule(Seen::Applied(rule("a", "u", "9", 1))));
        assert_eq!(touched(&mut index), [("team-a".to_owned(), Touch::Edit)]);
        index.take(Change::Rule(Seen::Applied(rule("a", "u", "10", 1))));
        assert_eq!(touched(&mut index), [("team-a".to_owned(), Touch::Fact)]);
        index.take(Change::Rule(Seen::Applied(rule("a", "u", "9", 2))));
        assert_eq!(touched(&mut index), []);
        index.take(Change::Rule(Seen::Deleted(rule("a", "before", "11", 2))));
        assert_eq!(touched(&mut index), [], "the one that was deleted is another");
        index.take(Change::Rule(Seen::All(vec![rule("b", "v", "3", 1)])));
        assert_eq!(touched(&mut index), [("team-a".to_owned(), Touch::Edit)]);
        assert_eq!(index.spaces["team-a"].rules.keys().collect::<Vec<_>>(), ["b"], "a list is the truth");
    }

    #[test]
    fn what_a_write_returned_is_not_undone_by_events_from_before_it() {
        let mut index = index();
        index.take(Change::Rule(Seen::Applied(rule("a", "u", "9", 1))));
        touched(&mut index);
        let meta = rule("a", "u", "12", 1).0.unwrap().metadata;
        let status = AuthoredStatus { message: Some("written".into()), ..AuthoredStatus::default() };
        index.written(Written::Rule(meta, status.clone()));
        assert_eq!(touched(&mut index), []);
        index.take(Change::Rule(Seen::Applied(rule("a", "u", "12", 1))));
        index.take(Change::Rule(Seen::Applied(rule("a", "u", "11", 1))));
        assert_eq!(touched(&mut index), []);
        assert_eq!(index.spaces["team-a"].rules["a"].object.status, Some(status));
    }

    #[test]
    fn rules_that_go_with_their_definition_stay_in_force() {
        let mut index = index();
        index.take(Change::Rule(Seen::Applied(rule("a", "u", "9", 1))));
        touched(&mut index);
        let crd = ObjectMeta { name: Some("falcorules.mumoshu.github.io".into()), ..ObjectMeta::default() };
        let going = ObjectMeta {
            deletion_timestamp: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH)),
            ..crd.clone()
        };
        index.take(Change::Crd(Seen::Applied(going)));
        index.take(Change::Rule(Seen::Deleted(rule("a", "u", "10", 1))));
        assert_eq!(touched(&mut index), []);
        assert!(index.has_items("team-a"));
        index.take(Change::Crd(Seen::Applied(crd)));
        index.take(Change::Rule(Seen::All(vec![])));
        assert_eq!(touched(&mut index), [("team-a".to_owned(), Touch::Edit)]);
    }

    #[test]
    fn a_bundle_that_can_not_be_read_is_there_all_the_same() {
        let mut index = index();
        let json = serde_json::json!({"metadata": {"name": "team-b", "resourceVersion": "7"}, "spec": {"target": 1}});
        let bundle: DeserializeGuard<FalcoBundle> = serde_json::from_value(json).unwrap();
        assert!(bundle.0.is_err());
        index.take(Change::Bundle(Seen::Applied(bundle)));
        // What replaces it must carry its version; nothing in it is in force.
        let seen = index.spaces["team-b"].bundle.as_ref().unwrap();
        assert_eq!((seen.metadata.resource_version.as_deref(), &seen.spec.target), (Some("7"), &None));
        assert_eq!(index.undecodable().find(|(kind, _)| *kind == "FalcoBundle"), Some(("FalcoBundle", 1)));
    }

    #[test]
    fn names_are_held_by_bundles_and_given_free_with_them() {
        let mut index = index();
        let item = BundleItem { rule_name: "shell".into(), ..BundleItem::default() };
        let spec = FalcoBundleSpec { target: Some(BundleFile::new(vec![item])), ..FalcoBundleSpec::default() };
        let mut bundle = FalcoBundle::new("team-b", spec);
        bundle.metadata.uid = Some("u".into());
        index.take(Change::Bundle(Seen::Applied(DeserializeGuard(Ok(bundle.clone())))));
        assert_eq!(index.names.held_by_other("shell", "team-a"), Some("team-b"));
        assert!(!index.is_clean());
        index.take(Change::Bundle(Seen::Deleted(DeserializeGuard(Ok(bundle)))));
        assert_eq!(index.names.held_by_other("shell", "team-a"), None);
        assert!(index.is_clean());
    }
}
