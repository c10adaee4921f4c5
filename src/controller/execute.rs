//! Carrying out what was decided: one write after the other, each with the version that the decision rests on.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout_at};

use super::index::Written;
use super::lease::Lead;
use super::metrics::ControllerMetrics;
use super::plan::{ItemWork, Work};
use crate::api::{
    AuthoredStatus, FINALIZER, FalcoBundle, FalcoBundleSpec, FalcoCatalog, FalcoList, FalcoMacro, FalcoRule,
    FalcoRulesFile, FalcoRulesFileSpec, FalcoRulesFileStatus, ItemPhase,
};
use crate::machine::Action;

/// The name under which the controller writes.
pub const MANAGER: &str = "falco-operator-controller";
/// How long one write may take.
const WRITE: Duration = Duration::from_secs(10);
/// How long what an Event says may be, in bytes; the API server refuses more.
const NOTE: usize = 1024;
/// Above this number of items that change at once, Events are written about the namespace only.
const MANY: usize = 20;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// This process does not lead, or no longer.
    #[error("this process does not lead")]
    NotLeading,
    /// Something changed since the decision.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// The API server did not answer in time.
    #[error("the API server did not answer in time")]
    Timeout,
    /// What is to be written to does not exist.
    #[error("the object does not exist")]
    NotFound,
    /// The API server does not let us.
    #[error("the API server refuses: {0}")]
    Forbidden(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn of(err: kube::Error) -> Self {
        match err {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Self::Conflict,
            kube::Error::Api(status) if status.is_not_found() => Self::NotFound,
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden(status.message.clone()),
            err => Self::Other(err.to_string()),
        }
    }

    const fn label(&self) -> &'static str {
        match self {
            Self::NotLeading | Self::Other(_) => "failed",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::NotFound => "not_found",
            Self::Forbidden(_) => "forbidden",
        }
    }
}

/// What carries out decisions. Clones share everything.
#[derive(Clone)]
pub struct Executor {
    /// The API server.
    pub client: Client,
    /// Whether we may write.
    pub lead: Lead,
    /// What is counted.
    pub metrics: ControllerMetrics,
    /// Where what a write returns goes, at once.
    pub written: UnboundedSender<Written>,
    /// The name of this process, for Events.
    pub me: String,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Executor {
    /// Carries out one namespace's writes in their order; the first failure ends them.
    pub async fn work(&self, work: Work) -> Result<(), Failure> {
        let Work { namespace, namespace_uid, mut rules_file, bundle, actions, status, events, strangers, .. } = work;
        let files = || Api::<FalcoRulesFile>::namespaced(self.client.clone(), &namespace);
        let mut bundle = bundle;
        for action in actions {
            match action {
                Action::CreateRulesFile { finalizer } => {
                    let mut object = FalcoRulesFile::new(&namespace, FalcoRulesFileSpec::default());
                    object.metadata.namespace = Some(namespace.clone());
                    object.metadata.finalizers = finalizer.then(|| vec![FINALIZER.to_owned()]);
                    let api = files();
                    let params = manager();
                    rules_file = Some(self.write("FalcoRulesFile", "create", api.create(&params, &object)).await?);
                }
                Action::AddFinalizer => {
                    let old = rules_file.as_ref().ok_or(Failure::Conflict)?;
                    let mut finalizers = old.finalizers().to_vec();
                    if !finalizers.iter().any(|it| it == FINALIZER) {
                        finalizers.push(FINALIZER.to_owned());
                    }
                    rules_file = Some(self.finalizers(&files(), old, &finalizers).await?);
                }
                Action::RemoveFinalizer => {
                    let old = rules_file.as_ref().ok_or(Failure::Conflict)?;
                    let finalizers: Vec<_> = old.finalizers().iter().filter(|it| *it != FINALIZER).cloned().collect();
                    rules_file = match self.finalizers(&files(), old, &finalizers).await {
                        Ok(file) => Some(file),
                        // It is gone, which is what was wanted.
                        Err(Failure::NotFound) => {
                            self.gone(&namespace, old);
                            None
                        }
                        Err(failure) => return Err(failure),
                    };
                }
                Action::WriteStatus => {
                    let old = rules_file.as_ref().ok_or(Failure::Conflict)?;
                    rules_file = Some(self.file_status(&files(), old, &status).await?);
                }
                Action::DeleteRulesFile => {
                    let Some(old) = rules_file.take() else { continue };
                    let params = exactly(&old.metadata);
                    let api = files();
                    match self.write_any("FalcoRulesFile", "delete", api.delete(&namespace, &params)).await {
                        Ok(_) | Err(Failure::NotFound) => self.gone(&namespace, &old),
                        Err(failure) => return Err(failure),
                    }
                }
                Action::WriteBundle(spec) => bundle = Some(self.bundle(&namespace, *spec, bundle).await?),
                Action::DeleteBundle => {
                    let Some(old) = bundle.take() else { continue };
                    let api = Api::<FalcoBundle>::all(self.client.clone());
                    let params = exactly(&old);
                    match self.write_any("FalcoBundle", "delete", api.delete(&namespace, &params)).await {
                        Ok(_) | Err(Failure::NotFound) => {
                            let uid = old.uid.unwrap_or_default();
                            self.tell(Written::BundleGone { namespace: namespace.clone(), uid });
                        }
                        Err(failure) => return Err(failure),
                    }
                }
            }
        }
        for stranger in strangers {
            let status = stranger.status.clone().unwrap_or_default();
            self.file_status(&files(), &stranger, &status).await?;
        }
        let subject = match &rules_file {
            Some(file) => file.object_ref(&()),
            None => ObjectReference {
                api_version: Some("v1".into()),
                kind: Some(Namespace::kind(&()).into_owned()),
                name: Some(namespace.clone()),
                uid: namespace_uid,
                ..ObjectReference::default()
            },
        };
        for event in events {
            let (reason, warning) = (event.reason.name(), event.reason.is_warning());
            self.event(&namespace, &subject, reason, warning, event.message).await;
        }
        Ok(())
    }

    async fn finalizers(
        &self,
        api: &Api<FalcoRulesFile>,
        old: &FalcoRulesFile,
        finalizers: &[String],
    ) -> Result<FalcoRulesFile, Failure> {
        let patch = json!({
            "metadata": { "resourceVersion": old.resource_version(), "uid": old.uid(), "finalizers": finalizers },
        });
        let name = old.name_any();
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let write = async { api.patch(&name, &params, &Patch::Merge(&patch)).await };
        self.write("FalcoRulesFile", "patch", write).await
    }

    async fn file_status(
        &self,
        api: &Api<FalcoRulesFile>,
        old: &FalcoRulesFile,
        status: &FalcoRulesFileStatus,
    ) -> Result<FalcoRulesFile, Failure> {
        let patch = Self::status_patch::<FalcoRulesFile>(old.meta(), &json!(status));
        let name = old.name_any();
        let params = PatchParams::apply(MANAGER).force();
        let write = async { api.patch_status(&name, &params, &Patch::Apply(&patch)).await };
        self.write("FalcoRulesFile", "patch", write).await
    }

    fn status_patch<K: Resource<DynamicType = ()>>(meta: &ObjectMeta, status: &serde_json::Value) -> serde_json::Value {
        json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": meta.name, "namespace": meta.namespace, "resourceVersion": meta.resource_version },
            "status": status,
        })
    }

    async fn bundle(
        &self,
        namespace: &str,
        spec: FalcoBundleSpec,
        old: Option<ObjectMeta>,
    ) -> Result<ObjectMeta, Failure> {
        let api = Api::<FalcoBundle>::all(self.client.clone());
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: Namespace::kind(&()).into_owned(),
            name: namespace.to_owned(),
            uid: spec.namespace_uid.clone(),
            ..OwnerReference::default()
        };
        let mut object = FalcoBundle::new(namespace, spec);
        object.metadata.owner_references = Some(vec![owner]);
        let params = manager();
        let written = match old {
            None => self.write("FalcoBundle", "create", api.create(&params, &object)).await?,
            Some(old) => {
                object.metadata.resource_version = old.resource_version;
                object.metadata.uid = old.uid;
                object.metadata.labels = old.labels;
                object.metadata.annotations = old.annotations;
                self.write("FalcoBundle", "update", api.replace(namespace, &params, &object)).await?
            }
        };
        Ok(written.metadata)
    }

    /// Writes the statuses of items; one that fails does not keep the others from being written. Says whether all were.
    pub async fn items(&self, items: Vec<ItemWork>) -> Result<(), Failure> {
        let many = items.iter().filter(|item| item.news).count() > MANY;
        let results = futures::future::join_all(items.into_iter().map(|item| self.item(item, !many))).await;
        results.into_iter().collect()
    }

    async fn item(&self, item: ItemWork, tell: bool) -> Result<(), Failure> {
        let status = item.status.clone();
        let done = match item.kind {
            "FalcoRule" => self.item_status::<FalcoRule>(&item, |meta| Written::Rule(meta, status)).await,
            "FalcoMacro" => self.item_status::<FalcoMacro>(&item, |meta| Written::Macro(meta, status)).await,
            _ => self.item_status::<FalcoList>(&item, |meta| Written::List(meta, status)).await,
        };
        match done {
            // Deleted or edited meanwhile: the watch shows it, and that is another decision.
            Err(Failure::NotFound | Failure::Conflict) => return Ok(()),
            Err(failure) => return Err(failure),
            Ok(()) => {}
        }
        if let Some((reason, warning)) = news(&item.status).filter(|_| tell && item.news) {
            let subject = ObjectReference {
                api_version: Some(FalcoRule::api_version(&()).into_owned()),
                kind: Some(item.kind.to_owned()),
                name: item.meta.name.clone(),
                namespace: item.meta.namespace.clone(),
                uid: item.meta.uid.clone(),
                resource_version: item.meta.resource_version.clone(),
                ..ObjectReference::default()
            };
            let namespace = item.meta.namespace.clone().unwrap_or_default();
            let ready = item.status.conditions.iter().find(|condition| condition.type_ == "Ready");
            let message =
                item.status.message.clone().or_else(|| ready.map(|it| it.message.clone())).unwrap_or_default();
            self.event(&namespace, &subject, reason, warning, message).await;
        }
        Ok(())
    }

    async fn item_status<K>(&self, item: &ItemWork, written: impl FnOnce(ObjectMeta) -> Written) -> Result<(), Failure>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + serde::de::DeserializeOwned,
    {
        let meta = &item.meta;
        let api = Api::<kube::api::PartialObjectMeta<K>>::namespaced(
            self.client.clone(),
            meta.namespace.as_deref().unwrap_or_default(),
        );
        let patch = Self::status_patch::<K>(meta, &json!(item.status));
        let name = meta.name.clone().unwrap_or_default();
        let params = PatchParams::apply(MANAGER).force();
        let write = async { api.patch_status(&name, &params, &Patch::Apply(&patch)).await };
        let answer = self.write_any(item.kind, "patch", write).await?;
        self.tell(written(answer.metadata));
        Ok(())
    }

    /// Deletes a catalogue.
    pub async fn delete_catalog(&self, meta: &ObjectMeta) -> Result<(), Failure> {
        let api = Api::<FalcoCatalog>::all(self.client.clone());
        let (name, params) = (meta.name.clone().unwrap_or_default(), exactly(meta));
        match self.write_any("FalcoCatalog", "delete", api.delete(&name, &params)).await {
            Ok(_) | Err(Failure::NotFound) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Writes an Event; one that can't be written is only logged, since nothing rests on it.
    async fn event(&self, namespace: &str, subject: &ObjectReference, reason: &str, warning: bool, note: String) {
        let now = Timestamp::now();
        let micros = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", subject.name.as_deref().unwrap_or("x"), now.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(micros)),
            reporting_controller: Some("falco-operator".into()),
            reporting_instance: Some(self.me.clone()),
            action: Some(reason.to_owned()),
            reason: Some(reason.to_owned()),
            regarding: Some(subject.clone()),
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            note: Some(cut(note)),
            ..Event::default()
        };
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let params = manager();
        match self.write_any("Event", "create", api.create(&params, &event)).await {
            // A namespace that is being deleted takes nothing more; that is normal.
            Ok(_) | Err(Failure::Forbidden(_) | Failure::NotFound | Failure::NotLeading) => {}
            Err(failure) => tracing::debug!(%failure, reason, namespace, "an Event could not be written"),
        }
    }

    /// One write of an object that the index keeps: its answer goes there at once.
    async fn write<K>(
        &self,
        kind: &'static str,
        verb: &'static str,
        write: impl Future<Output = kube::Result<K>>,
    ) -> Result<K, Failure>
    where
        K: Clone + Into<Written>,
    {
        let object = self.write_any(kind, verb, write).await?;
        self.tell(object.clone().into());
        Ok(object)
    }

    /// One write: only while we lead, cut off when we don't any more, counted.
    async fn write_any<T>(
        &self,
        kind: &'static str,
        verb: &'static str,
        write: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        let outcome = match self.lead.until() {
            None => Err(Failure::NotLeading),
            Some(until) => match timeout_at(until.min(Instant::now() + WRITE), write).await {
                Err(_) => Err(Failure::Timeout),
                Ok(answer) => answer.map_err(Failure::of),
            },
        };
        let label = outcome.as_ref().map_or_else(Failure::label, |_| "written");
        self.metrics.api_writes_total.with_label_values(&[kind, verb, label]).inc();
        outcome
    }

    fn gone(&self, namespace: &str, file: &FalcoRulesFile) {
        self.tell(Written::RulesFileGone { namespace: namespace.to_owned(), uid: file.uid().unwrap_or_default() });
    }

    fn tell(&self, written: Written) {
        // The receiver lives as long as the loop that starts this work; without it nobody needs to know.
        let _ = self.written.send(written);
    }
}

impl From<FalcoRulesFile> for Written {
    fn from(mut object: FalcoRulesFile) -> Self {
        object.metadata.managed_fields = None;
        Self::RulesFile(Box::new(object))
    }
}

impl From<FalcoBundle> for Written {
    fn from(mut object: FalcoBundle) -> Self {
        object.metadata.managed_fields = None;
        Self::Bundle(object)
    }
}

fn manager() -> PostParams {
    PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }
}

/// Delete this very version of the object and no other.
fn exactly(meta: &ObjectMeta) -> DeleteParams {
    DeleteParams::default()
        .preconditions(Preconditions { resource_version: meta.resource_version.clone(), uid: meta.uid.clone() })
}

/// The reason of the Event about an item that has come into this phase, and whether it is a warning.
fn news(status: &AuthoredStatus) -> Option<(&'static str, bool)> {
    match status.phase? {
        ItemPhase::Active => Some(("Loaded", false)),
        ItemPhase::Rejected => Some(("Rejected", true)),
        ItemPhase::RolledBack => Some(("RolledBack", true)),
        ItemPhase::Inactive => Some(("NotRunning", true)),
        ItemPhase::Degraded => Some(("Degraded", true)),
        ItemPhase::Pending | ItemPhase::RollingOut | ItemPhase::Unknown => None,
    }
}

/// A note of at most [`NOTE`] bytes.
fn cut(mut note: String) -> String {
    if note.len() > NOTE {
        let mut end = NOTE - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(cut("short".into()), "short");
        let long = cut("ä".repeat(600));
        assert!(long.len() <= NOTE && long.ends_with("ä…"), "{} bytes", long.len());
    }
}
