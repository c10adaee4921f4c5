//! Removing what holds objects back, once nobody takes care of them any more.

use anyhow::Context;
use kube::api::{Api, DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, Preconditions};
use kube::core::ObjectList;
use kube::{Client, ResourceExt};
use serde_json::json;

use super::execute::MANAGER;
use crate::api::{FINALIZER, FalcoBundle, FalcoRulesFile};

/// Removes the finalizer of every rules file, and every bundle. Kinds that are not defined have nothing to remove.
pub async fn release(client: &Client) -> anyhow::Result<()> {
    let files = Api::<PartialObjectMeta<FalcoRulesFile>>::all(client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    for file in defined(files.list(&ListParams::default()).await)
        .context("the rules files can't be listed")?
        .into_iter()
        .flatten()
    {
        if !file.finalizers().iter().any(|it| it == FINALIZER) {
            continue;
        }
        let (namespace, name) = (file.namespace().unwrap_or_default(), file.name_any());
        let rest: Vec<_> = file.finalizers().iter().filter(|it| *it != FINALIZER).collect();
        let patch = json!({ "metadata": { "resourceVersion": file.resource_version(), "finalizers": rest } });
        let api = Api::<PartialObjectMeta<FalcoRulesFile>>::namespaced(client.clone(), &namespace);
        match api.patch(&name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            done => drop(done.with_context(|| format!("the finalizer of {namespace}/{name} can't be removed"))?),
        }
    }
    let bundles = Api::<PartialObjectMeta<FalcoBundle>>::all(client.clone());
    for bundle in defined(bundles.list(&ListParams::default()).await)
        .context("the bundles can't be listed")?
        .into_iter()
        .flatten()
    {
        let same = Preconditions { uid: bundle.uid(), resource_version: bundle.resource_version() };
        match bundles.delete(&bundle.name_any(), &DeleteParams::default().preconditions(same)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            done => drop(done.with_context(|| format!("the bundle {} can't be deleted", bundle.name_any()))?),
        }
    }
    Ok(())
}

/// Whether the kind of the rules files is defined. Where it isn't, nothing of ours holds anything back.
pub async fn is_defined(client: &Client) -> anyhow::Result<bool> {
    let files = Api::<PartialObjectMeta<FalcoRulesFile>>::all(client.clone());
    let page = defined(files.list(&ListParams::default().limit(1)).await);
    Ok(page.context("the rules files can't be listed")?.is_some())
}

/// The list, if its kind is defined.
fn defined<K: Clone>(list: kube::Result<ObjectList<K>>) -> kube::Result<Option<ObjectList<K>>> {
    match list {
        // A group of which no kind is left is answered by a page without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        list => list.map(Some),
    }
}
