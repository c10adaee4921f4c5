//! What the cluster is made of: nodes with their agents, namespaces, catalogues.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

use super::{Index, Offer};
use crate::api::{FalcoCatalog, FalcoNode};
use crate::controller::queue::Touch;
use crate::controller::watch::{AgentPod, Seen, Wanting};
use crate::language::Catalog;
use crate::render;

impl Index {
    pub(super) fn take_nodes(&mut self, seen: Seen<DeserializeGuard<FalcoNode>>) {
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

    pub(super) fn apply_node(&mut self, object: &DeserializeGuard<FalcoNode>) {
        self.decoded::<FalcoNode>(object.meta(), object.0.as_ref().err().map(|it| it.error.as_str()));
        let name = object.name_any();
        // A report that can't be read says nothing.
        let status = object.0.as_ref().ok().and_then(|node| node.status.clone());
        let offer = status.as_ref().and_then(|status| status.catalog.clone());
        if self.offers.get(&name) != offer.as_ref() {
            self.offers_moved = true;
            match offer {
                Some(catalog) => drop(self.offers.insert(name.clone(), catalog)),
                None => drop(self.offers.remove(&name)),
            }
        }
        self.nodes.set_report(&name, status);
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        self.offers_moved |= self.offers.remove(name).is_some();
        self.nodes.set_report(name, None);
    }

    pub(super) fn take_pods(&mut self, seen: Seen<AgentPod>) {
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

    pub(super) fn take_daemon_sets(&mut self, seen: Seen<Wanting>) {
        match seen {
            Seen::Applied(set) => drop(self.wanting.insert(set.name, set.nodes)),
            Seen::Deleted(set) => drop(self.wanting.remove(&set.name)),
            Seen::All(sets) => self.wanting = sets.into_iter().map(|set| (set.name, set.nodes)).collect(),
        }
        let ours = |name: &String| self.daemon_sets.is_empty() || self.daemon_sets.contains(name);
        let wanted = self.wanting.iter().filter(|(name, _)| ours(name)).map(|(_, nodes)| *nodes).sum();
        self.nodes.set_wanted(Some(wanted));
    }

    pub(super) fn take_catalogs(&mut self, seen: Seen<DeserializeGuard<FalcoCatalog>>) {
        self.offers_moved = true;
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
            let Ok(object) = object.0 else { continue };
            let name = object.name_any();
            let catalog = (object.spec.object_name() == name).then(|| match self.in_use.get(&name) {
                // The same name is the same content.
                Some(known) => known.clone(),
                None => render::catalog(&object.spec),
            });
            self.catalogs.insert(name, Offer { meta: object.metadata, catalog });
        }
    }

    /// Sets against which catalogues rules are checked: those that nodes name and that are what their names say. While
    /// no node names one that is there, those before stand, so that a cluster that loses its agents for a while keeps
    /// the rules that rest on what its Falcos offer.
    pub(super) fn choose_catalogs(&mut self) {
        let offered = |name: &str| Some((name.to_owned(), self.catalogs.get(name)?.catalog.clone()?));
        let chosen: BTreeMap<String, Catalog> = self.nodes.catalogs().into_iter().filter_map(offered).collect();
        if chosen.is_empty() || chosen.keys().eq(self.in_use.keys()) {
            return;
        }
        tracing::info!(catalogs = ?chosen.keys(), "rules are checked against what the nodes' Falcos offer");
        self.in_use = chosen;
        let having: Vec<String> =
            self.spaces.iter().filter(|(_, space)| space.has_items()).map(|(name, _)| name.clone()).collect();
        for namespace in having {
            self.space(&namespace).stale = true;
            self.touch(&namespace, Touch::Fact);
        }
    }

    pub(super) fn take_namespaces(&mut self, seen: Seen<ObjectMeta>) {
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
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::{FalcoCatalogSpec, FalcoNodeSpec, FalcoNodeStatus};
    use crate::controller::index::Kept;
    use crate::controller::watch::Change;
    use crate::machine::Nodes;

    fn catalog(macro_name: &str) -> FalcoCatalog {
        let item = crate::api::CatalogItem { name: macro_name.into(), text: "evt.num > 0".into() };
        let spec = FalcoCatalogSpec { macros: vec![item], ..FalcoCatalogSpec::default() };
        FalcoCatalog::new(&spec.object_name(), spec)
    }

    fn report(index: &mut Index, node: &str, catalog: Option<&FalcoCatalog>) {
        let mut object = FalcoNode::new(node, FalcoNodeSpec::default());
        object.status =
            Some(FalcoNodeStatus { catalog: catalog.map(ResourceExt::name_any), ..FalcoNodeStatus::default() });
        index.take(Change::Node(Seen::Applied(DeserializeGuard(Ok(object)))));
    }

    fn add(index: &mut Index, catalog: &FalcoCatalog) {
        index.take(Change::Catalog(Seen::Applied(DeserializeGuard(Ok(catalog.clone())))));
    }

    /// The macros that rules may use, as each catalogue in use has them.
    fn macros(index: &mut Index) -> Vec<String> {
        index.touched(Timestamp::UNIX_EPOCH);
        index.in_use.values().flat_map(Catalog::macros).map(str::to_owned).collect()
    }

    #[test]
    fn rules_are_checked_against_what_nodes_name_and_is_what_its_name_says() {
        let mut index = Index::new(Nodes::new(false), BTreeSet::new(), false);
        let (one, two) = (catalog("one"), catalog("two"));
        add(&mut index, &one);
        assert!(macros(&mut index).is_empty(), "no node names it");
        report(&mut index, "node-1", Some(&two));
        assert!(macros(&mut index).is_empty(), "it is not there yet");
        let mut forged = catalog("forged");
        forged.metadata.name = Some(two.name_any());
        add(&mut index, &forged);
        assert!(macros(&mut index).is_empty(), "another content under the name");
        add(&mut index, &two);
        assert_eq!(macros(&mut index), ["two"]);
        report(&mut index, "node-2", Some(&one));
        assert_eq!(index.in_use.len(), 1, "until nodes are judged");
        let mut both = macros(&mut index);
        both.sort_unstable();
        assert_eq!(both, ["one", "two"]);
    }

    #[test]
    fn a_world_without_nodes_leaves_what_rules_rest_on() {
        let mut index = Index::new(Nodes::new(false), BTreeSet::new(), false);
        let one = catalog("one");
        add(&mut index, &one);
        report(&mut index, "node-1", Some(&one));
        assert_eq!(macros(&mut index), ["one"]);
        index.take(Change::Node(Seen::All(vec![])));
        index.take(Change::Catalog(Seen::All(vec![])));
        assert_eq!(macros(&mut index), ["one"]);
    }

    #[test]
    fn another_catalogue_makes_every_namespace_with_items_be_rendered_anew() {
        let mut index = Index::new(Nodes::new(false), BTreeSet::new(), false);
        let mut rule: crate::api::FalcoRule = Kept::empty();
        rule.metadata.name = Some("r".into());
        rule.metadata.namespace = Some("team-a".into());
        index.take(Change::Rule(Seen::Applied(DeserializeGuard(Ok(rule)))));
        index.touched(Timestamp::UNIX_EPOCH);
        index.space("team-a").stale = false;
        let one = catalog("one");
        add(&mut index, &one);
        report(&mut index, "node-1", Some(&one));
        let touched = index.touched(Timestamp::UNIX_EPOCH).namespaces;
        assert_eq!(touched.get("team-a"), Some(&Touch::Fact));
        assert!(index.spaces["team-a"].stale);
    }
}
