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

fn undefined_is_none<K: Clone>(list: kube::Result<kube::core::ObjectList<K>>) -> kube::Result<Vec<K>> {
    match list {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(vec![]),
        list => list.map(|list| list.items),
    }
}
