//! What the API server shows, as a stream of changes.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use super::metrics::ControllerMetrics;
use crate::api::{FalcoBundle, FalcoCatalog, FalcoList, FalcoMacro, FalcoNode, FalcoRule, FalcoRulesFile};
use crate::machine::AgentPodFacts;

/// A change of one kind.
#[derive(Debug)]
pub enum Seen<T> {
    /// All that there are; what is not among them is gone.
    All(Vec<T>),
    /// One as it is now.
    Applied(T),
    /// One as it was last.
    Deleted(T),
}

/// A change of any kind that is watched.
#[derive(Debug)]
pub enum Change {
    /// Of rules.
    Rule(Seen<DeserializeGuard<FalcoRule>>),
    /// Of macros.
    Macro(Seen<DeserializeGuard<FalcoMacro>>),
    /// Of lists.
    List(Seen<DeserializeGuard<FalcoList>>),
    /// Of rules files.
    RulesFile(Seen<DeserializeGuard<FalcoRulesFile>>),
    /// Of bundles.
    Bundle(Seen<DeserializeGuard<FalcoBundle>>),
    /// Of nodes' reports.
    Node(Seen<DeserializeGuard<FalcoNode>>),
    /// Of catalogues.
    Catalog(Seen<DeserializeGuard<FalcoCatalog>>),
    /// Of namespaces.
    Namespace(Seen<ObjectMeta>),
    /// Of the agents' pods.
    Pod(Seen<AgentPod>),
    /// Of the agents' `DaemonSet`s.
    DaemonSet(Seen<Wanting>),
    /// Of the definitions of the kinds that developers write.
    Crd(Seen<ObjectMeta>),
}

impl Change {
    /// Which kind, for labels.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Rule(_) => "FalcoRule",
            Self::Macro(_) => "FalcoMacro",
            Self::List(_) => "FalcoList",
            Self::RulesFile(_) => "FalcoRulesFile",
            Self::Bundle(_) => "FalcoBundle",
            Self::Node(_) => "FalcoNode",
            Self::Catalog(_) => "FalcoCatalog",
            Self::Namespace(_) => "Namespace",
            Self::Pod(_) => "Pod",
            Self::DaemonSet(_) => "DaemonSet",
            Self::Crd(_) => "CustomResourceDefinition",
        }
    }

    /// Whether it is a list, after which the kind is known in full.
    pub const fn is_list(&self) -> bool {
        matches!(
            self,
            Self::Rule(Seen::All(_))
                | Self::Macro(Seen::All(_))
                | Self::List(Seen::All(_))
                | Self::RulesFile(Seen::All(_))
                | Self::Bundle(Seen::All(_))
                | Self::Node(Seen::All(_))
                | Self::Catalog(Seen::All(_))
                | Self::Namespace(Seen::All(_))
                | Self::Pod(Seen::All(_))
                | Self::DaemonSet(Seen::All(_))
                | Self::Crd(Seen::All(_))
        )
    }
}

/// An agent's pod.
#[derive(Clone, Debug)]
pub struct AgentPod {
    /// Its name.
    pub name: String,
    /// The node that it is scheduled to; `None` while it is to none, or once it has finished.
    pub node: Option<String>,
    /// What counts about it.
    pub facts: AgentPodFacts,
}

impl AgentPod {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let finished = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        Self {
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| !finished),
            facts: AgentPodFacts {
                uid: pod.uid().unwrap_or_default(),
                ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
                terminating: pod.metadata.deletion_timestamp.is_some(),
            },
        }
    }
}

/// A `DaemonSet`, and on how many nodes it wants a pod.
#[derive(Clone, Debug)]
pub struct Wanting {
    /// Its name.
    pub name: String,
    /// How many nodes.
    pub nodes: i32,
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The namespace of the agents.
    pub agent_namespace: String,
    /// The labels of their pods, as a selector.
    pub agent_selector: String,
}

/// All watches, which send what they see until the receiver is gone.
pub fn all(client: &Client, watched: &Watched, metrics: &ControllerMetrics, to: &Sender<Change>, streaming: bool) {
    let base = watcher::Config { page_size: None, ..watcher::Config::default().any_semantic() };
    let base = if streaming { base.streaming_lists() } else { base };
    macro_rules! guarded {
        ($($kind:ident => $change:ident),+) => { $(
            let api = Api::<DeserializeGuard<$kind>>::all(client.clone());
            spawn(api, base.clone(), metrics, to, stringify!($kind), Some, Change::$change);
        )+ };
    }
    guarded!(FalcoRule => Rule, FalcoMacro => Macro, FalcoList => List, FalcoRulesFile => RulesFile, FalcoBundle => Bundle,
        FalcoNode => Node, FalcoCatalog => Catalog);
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    spawn(namespaces, base.clone(), metrics, to, "Namespace", |object| Some(object.metadata), Change::Namespace);
    let crds = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let ours = |object: PartialObjectMeta<CustomResourceDefinition>| {
        object.name_any().ends_with(crate::api::GROUP).then_some(object.metadata)
    };
    spawn(crds, base.clone(), metrics, to, "CustomResourceDefinition", ours, Change::Crd);
    let pods = Api::<Pod>::namespaced(client.clone(), &watched.agent_namespace);
    let agents = base.clone().labels(&watched.agent_selector);
    spawn(pods, agents, metrics, to, "Pod", |pod| Some(AgentPod::of(&pod)), Change::Pod);
    let sets = Api::<DaemonSet>::namespaced(client.clone(), &watched.agent_namespace);
    let wanting = |set: DaemonSet| {
        let nodes = set.status.as_ref().map_or(0, |status| status.desired_number_scheduled);
        Some(Wanting { name: set.name_any(), nodes })
    };
    spawn(sets, base, metrics, to, "DaemonSet", wanting, Change::DaemonSet);
}

/// One watch, on a task of its own.
fn spawn<K, T>(
    api: Api<K>,
    config: watcher::Config,
    metrics: &ControllerMetrics,
    to: &Sender<Change>,
    kind: &'static str,
    map: impl Fn(K) -> Option<T> + Send + 'static,
    wrap: impl Fn(Seen<T>) -> Change + Send + 'static,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
    T: Send + 'static,
{
    let restarts = metrics.watch_restarts_total.with_label_values(&[kind]);
    let to = to.clone();
    tokio::spawn(async move {
        let stream = watcher(api, config).default_backoff().modify(|object| {
            remember_edit(object.meta_mut());
            if let Some(annotations) = &mut object.meta_mut().annotations {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
        });
        let stream = stream.into_stream();
        pin_mut!(stream);
        let mut listed = Vec::new();
        while let Some(event) = stream.next().await {
            let seen = match event {
                Ok(Event::Init) => {
                    listed.clear();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listed.extend(map(object));
                    continue;
                }
                Ok(Event::InitDone) => Some(Seen::All(std::mem::take(&mut listed))),
                Ok(Event::Apply(object)) => map(object).map(Seen::Applied),
                Ok(Event::Delete(object)) => map(object).map(Seen::Deleted),
                Err(err) => {
                    restarts.inc();
                    tracing::warn!(%err, kind, "a watch broke off and is begun again");
                    None
                }
            };
            if let Some(seen) = seen
                && to.send(wrap(seen)).await.is_err()
            {
                return;
            }
        }
    });
}

/// Of what the API server tells of who wrote an object, only when that was last, writes to the status not counted.
fn remember_edit(meta: &mut ObjectMeta) {
    let edits = meta.managed_fields.take().unwrap_or_default().into_iter();
    let edits = edits.filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
    let last = edits.filter_map(|entry| entry.time).max_by_key(|time| time.0);
    meta.managed_fields =
        last.map(|time| vec![ManagedFieldsEntry { time: Some(time), ..ManagedFieldsEntry::default() }]);
}

/// When the author wrote an object last, in whole seconds, of an object that a watch of ours has shown.
pub(super) fn edited_at(meta: &ObjectMeta) -> Option<Timestamp> {
    let written = meta.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref()).map(|time| time.0);
    written.chain(meta.creation_timestamp.as_ref().map(|time| time.0)).max()
}

/// Whether the API server can stream the first list of a watch: since 1.34 they all do.
pub async fn streams(client: &Client) -> bool {
    let version = tokio::time::timeout(Duration::from_secs(5), client.apiserver_version()).await;
    let Ok(Ok(version)) = version else { return false };
    version.minor.trim_end_matches('+').parse::<u32>().is_ok_and(|minor| minor >= 34)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn of_who_wrote_an_object_only_the_author_s_last_time_is_kept() {
        let time = |second| Some(Time(Timestamp::from_second(second).unwrap()));
        let entry = |second, subresource: Option<&str>| ManagedFieldsEntry {
            manager: Some("kubectl".into()),
            subresource: subresource.map(str::to_owned),
            time: time(second),
            ..ManagedFieldsEntry::default()
        };
        let mut meta = ObjectMeta { creation_timestamp: time(10), ..ObjectMeta::default() };
        remember_edit(&mut meta);
        assert_eq!((meta.managed_fields.as_ref(), edited_at(&meta)), (None, Timestamp::from_second(10).ok()));
        meta.managed_fields = Some(vec![entry(20, None), entry(40, Some("status")), entry(30, Some(""))]);
        remember_edit(&mut meta);
        assert_eq!(edited_at(&meta), Timestamp::from_second(30).ok());
        assert!(meta.managed_fields.is_some_and(|entries| entries.len() == 1 && entries[0].manager.is_none()));
    }
}
