//! What the cluster is made of: nodes with their agents, namespaces, catalogues.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

use super::Index;
use crate::api::{FalcoCatalog, FalcoNode};
use crate::controller::queue::Touch;
use crate::controller::watch::{AgentPod, Seen, Wanting};

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
        match status.as_ref().and_then(|status| status.catalog.clone()) {
            Some(catalog) => drop(self.offers.insert(name.clone(), catalog)),
            None => drop(self.offers.remove(&name)),
        }
        self.nodes.set_report(&name, status);
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        self.offers.remove(name);
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
