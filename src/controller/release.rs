//! Removing what holds objects back, once nobody takes care of them any more.

use anyhow::Context;
use kube::api::{Api, DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::execute::MANAGER;
use crate::api::{FINALIZER, FalcoBundle, FalcoRulesFile};

/// Removes the finalizer of every rules file, and every bundle. Kinds that are not defined have nothing to remove.
pub async fn release(client: &Client) -> anyhow::Result<()> {
    let files = Api::<PartialObjectMeta<FalcoRulesFile>>::all(client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    for file in
        undefined_is_none(files.list(&ListParams::default()).await).context("the rules files can't be listed")?
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
    for bundle in
        undefined_is_none(bundles.list(&ListParams::default()).await).context("the bundles can't be listed")?
    {
        match bundles.delete(&bundle.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            done => drop(done.with_context(|| format!("the bundle {} can't be deleted", bundle.name_any()))?),
        }
    }
    Ok(())
}

/// Whether the kind of the rules files is defined. Where it isn't, nothing of ours holds anything back.
pub async fn is_defined(client: &Client) -> anyhow::Result<bool> {
    let files = Api::<PartialObjectMeta<FalcoRulesFile>>::all(client.clone());
    match files.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(err) => Err(err).context("the rules files can't be listed"),
    }
}

fn undefined_is_none<K: Clone>(list: kube::Result<kube::core::ObjectList<K>>) -> kube::Result<Vec<K>> {
    match list {
        // A group of which no kind is left is answered by a page without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(vec![]),
        list => list.map(|list| list.items),
    }
}
