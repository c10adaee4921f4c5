//! Everything that decisions rest on, in memory: fed by the watches and by what our own writes return. Synchronous.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

use super::queue::Touch;
use super::watch::{AgentPod, Change, Seen, Wanting};
use crate::api::{
    Authored, AuthoredStatus, FalcoBundle, FalcoBundleSpec, FalcoCatalog, FalcoList, FalcoListSpec, FalcoMacro,
    FalcoMacroSpec, FalcoNode, FalcoRule, FalcoRuleSpec, FalcoRulesFile, Priority,
};
use crate::machine::Nodes;
use crate::render::{Names, Rendered};

/// An object that a developer wrote.
#[derive(Clone, Debug)]
pub(super) struct Item<K> {
    pub object: K,
    /// Why it could not be decoded; the object then has its metadata and an empty spec.
    pub broken: Option<String>,
}

/// What is known of one namespace.
#[derive(Debug, Default)]
pub(super) struct Space {
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

    fn has_items(&self) -> bool {
        !(self.rules.is_empty() && self.macros.is_empty() && self.lists.is_empty())
    }
}

/// The index.
#[derive(Debug)]
pub struct Index {
    pub(super) spaces: BTreeMap<String, Space>,
    pub(super) nodes: Nodes,
    pub(super) names: Names,
    pub(super) catalogs: BTreeMap<String, FalcoCatalog>,
    /// The names of the catalogues that nodes' reports give, by node.
    pub(super) offers: BTreeMap<String, String>,
    pods: BTreeMap<String, AgentPod>,
    daemon_sets: BTreeSet<String>,
    wanting: BTreeMap<String, i32>,
    crds: BTreeMap<String, bool>,
    undecodable: BTreeMap<&'static str, BTreeSet<String>>,
    touched: BTreeMap<String, Touch>,
    /// Whether all that nodes load is to be withdrawn, whatever developers wrote.
    pub(super) cleanup: bool,
}

/// What changed since the last time, and when to ask again even if nothing does.
#[derive(Debug, Default)]
pub struct Touched {
    /// The namespaces to be decided for.
    pub namespaces: BTreeMap<String, Touch>,
    /// When nodes are to be judged anew.
    pub look_again: Option<Timestamp>,
}

/// The kinds that developers write, as the index keeps them.
pub(super) trait Kept: Authored + Resource<DynamicType = ()> + Sized {
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

    // ---- what developers write

    fn take_items<K: Kept + Clone>(&mut self, seen: Seen<DeserializeGuard<K>>) {
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

    fn apply_item<K: Kept + Clone>(&mut self, object: DeserializeGuard<K>, by: By) {
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

    fn remove_item<K: Kept>(&mut self, namespace: &str, name: &str, uid: Option<&str>) {
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
    fn definitions_go(&self) -> bool {
        ["falcorules", "falcomacros", "falcolists"]
            .iter()
            .any(|plural| self.crds.get(&format!("{plural}.{}", crate::api::GROUP)) == Some(&true))
    }

    // ---- what the controller writes

    fn take_rules_files(&mut self, seen: Seen<DeserializeGuard<FalcoRulesFile>>) {
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

    fn apply_rules_file(&mut self, object: DeserializeGuard<FalcoRulesFile>, by: By) {
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

    fn remove_rules_file(&mut self, namespace: &str, name: &str, uid: Option<&str>) {
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        if space.rules_files.get(name).is_some_and(|old| uid.is_none() || old.uid().as_deref() == uid) {
            space.rules_files.remove(name);
            self.touch(namespace, Touch::Fact);
            self.tidy(namespace);
        }
    }

    fn take_bundles(&mut self, seen: Seen<DeserializeGuard<FalcoBundle>>) {
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

    fn apply_bundle(&mut self, object: DeserializeGuard<FalcoBundle>, by: By) {
        self.decoded::<FalcoBundle>(object.meta(), object.0.as_ref().err().map(|it| it.error.as_str()));
        let namespace = object.name_any();
        let old = self.spaces.get(&namespace).and_then(|space| space.bundle.as_ref());
        let object = match (object.0, old) {
            (Ok(object), _) => object,
            (Err(invalid), Some(old)) => FalcoBundle { metadata: invalid.metadata, spec: old.spec.clone() },
            (Err(_), None) => return,
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

    fn remove_bundle(&mut self, namespace: &str, uid: Option<&str>) {
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
    pub(super) fn hold_names(&mut self, namespace: &str) {
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

    // ---- nodes

    fn take_nodes(&mut self, seen: Seen<DeserializeGuard<FalcoNode>>) {
        match seen {
            Seen::Applied(object) => self.apply_node(&object),
            Seen::Deleted(object) => self.remove_node(&object.name_any()),
            Seen::All(objects) => {
                let mut gone: BTreeSet<String> = self.nodes.standings().map(|(name, _)| name.to_owned()).collect();
                for object in &objects {
                    gone.remove(&object.name_any());
                    self.apply_node(object);
                }
                for name in gone {
                    self.remove_node(&name);
                }
            }
        }
    }

    fn apply_node(&mut self, object: &DeserializeGuard<FalcoNode>) {
        self.decoded::<FalcoNode>(object.meta(), object.0.as_ref().err().map(|it| it.error.as_str()));
        let name = object.name_any();
        // A report that can't be read says nothing.
        let status = object.0.as_ref().ok().and_then(|node| node.status.clone());
        match status.as_ref().and_then(|status| status.catalog.clone()) {
            Some(catalog) => drop(self.offers.insert(name.clone(), catalog)),
            None => drop(self.offers.remove(&name)),
        }
        self.nodes.set_report(&name, status);
    }

    fn remove_node(&mut self, name: &str) {
        self.offers.remove(name);
        self.nodes.set_report(name, None);
    }

    fn take_pods(&mut self, seen: Seen<AgentPod>) {
        let mut nodes: BTreeSet<String> = BTreeSet::new();
        let mut put = |pods: &mut BTreeMap<String, AgentPod>, name: String, pod: Option<AgentPod>| {
            let old = match pod {
                Some(pod) => {
                    nodes.extend(pod.node.clone());
                    pods.insert(name, pod)
                }
                None => pods.remove(&name),
            };
            nodes.extend(old.and_then(|old| old.node));
        };
        match seen {
            Seen::Applied(pod) => put(&mut self.pods, pod.name.clone(), Some(pod)),
            Seen::Deleted(pod) => put(&mut self.pods, pod.name, None),
            Seen::All(pods) => {
                for name in self.pods.keys().cloned().collect::<Vec<_>>() {
                    put(&mut self.pods, name, None);
                }
                for pod in pods {
                    put(&mut self.pods, pod.name.clone(), Some(pod));
                }
            }
        }
        for node in nodes {
            let here = self.pods.values().filter(|pod| pod.node.as_deref() == Some(&*node));
            let facts = here.map(|pod| pod.facts.clone()).collect();
            self.nodes.set_pods(&node, facts);
        }
    }

    fn take_daemon_sets(&mut self, seen: Seen<Wanting>) {
        match seen {
            Seen::Applied(set) => drop(self.wanting.insert(set.name, set.nodes)),
            Seen::Deleted(set) => drop(self.wanting.remove(&set.name)),
            Seen::All(sets) => self.wanting = sets.into_iter().map(|set| (set.name, set.nodes)).collect(),
        }
        let ours = |name: &String| self.daemon_sets.is_empty() || self.daemon_sets.contains(name);
        let wanted = self.wanting.iter().filter(|(name, _)| ours(name)).map(|(_, nodes)| *nodes).sum();
        self.nodes.set_wanted(Some(wanted));
    }

    // ---- the rest

    fn take_catalogs(&mut self, seen: Seen<DeserializeGuard<FalcoCatalog>>) {
        let objects = match seen {
            Seen::Applied(object) => vec![object],
            Seen::Deleted(object) => {
                self.catalogs.remove(&object.name_any());
                vec![]
            }
            Seen::All(objects) => {
                self.catalogs.clear();
                objects
            }
        };
        for object in objects {
            self.decoded::<FalcoCatalog>(object.meta(), object.0.as_ref().err().map(|it| it.error.as_str()));
            if let Ok(catalog) = object.0 {
                self.catalogs.insert(catalog.name_any(), catalog);
            }
        }
    }

    fn take_namespaces(&mut self, seen: Seen<ObjectMeta>) {
        let mut gone = BTreeSet::new();
        let applied = match seen {
            Seen::Applied(meta) => vec![meta],
            Seen::Deleted(meta) => {
                let known = meta.name.as_deref().and_then(|name| self.spaces.get(name));
                // The deletion of one that has come back meanwhile is old news.
                if known.is_some_and(|space| space.uid == meta.uid) {
                    gone.extend(meta.name);
                }
                vec![]
            }
            Seen::All(metas) => {
                gone.extend(self.spaces.iter().filter(|(_, space)| space.uid.is_some()).map(|(name, _)| name.clone()));
                metas
            }
        };
        for meta in applied {
            let name = meta.name.unwrap_or_default();
            gone.remove(&name);
            let (uid, terminating) = (meta.uid, meta.deletion_timestamp.is_some());
            let space = self.space(&name);
            if space.uid != uid || space.terminating != terminating {
                (space.uid, space.terminating) = (uid, terminating);
                self.touch(&name, Touch::Fact);
            }
        }
        for name in gone {
            if let Some(space) = self.spaces.get_mut(&name) {
                (space.uid, space.terminating) = (None, false);
                self.touch(&name, Touch::Fact);
            }
            self.tidy(&name);
        }
    }

    fn take_crds(&mut self, seen: Seen<ObjectMeta>) {
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

    // ---- our own writes

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

    fn item_written<K: Kept>(&mut self, meta: &ObjectMeta, status: AuthoredStatus) {
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

    /// Whether developers wrote something in the namespace that counts.
    pub(super) fn has_items(&self, namespace: &str) -> bool {
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
