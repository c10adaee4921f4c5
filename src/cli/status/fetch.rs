//! Reading what a developer may read.

use anyhow::{anyhow, bail};
use kube::api::{Api, ListParams};
use kube::core::{DeserializeGuard, ObjectList};
use kube::{Client, Resource as _, ResourceExt};
use serde::de::DeserializeOwned;

use super::view::{Change, RuleView, View, nodes_of};
use crate::api::{FalcoNode, FalcoRule, FalcoRulesFile};

/// The namespaces that are asked about, each with its rules, or with the one that is asked about.
pub async fn look(client: &Client, namespace: Option<&str>, rule: Option<&str>) -> anyhow::Result<Vec<View>> {
    let params = match rule {
        Some(rule) => ListParams::default().fields(&format!("metadata.name={rule}")),
        None => ListParams::default(),
    };
    let (rules, files): (Api<DeserializeGuard<FalcoRule>>, Api<DeserializeGuard<FalcoRulesFile>>) = match namespace {
        Some(namespace) => (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace)),
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    let rules = list(&rules, &params, "the FalcoRules").await?.items;
    let files = list(&files, &ListParams::default(), "the FalcoRulesFiles").await?.items;
    if let Some(rule) = rule
        && rules.is_empty()
    {
        bail!("there is no FalcoRule {rule} in {}", namespace.unwrap_or("any namespace"));
    }
    let mut views: Vec<View> = vec![];
    let at = |views: &mut Vec<View>, namespace: String| {
        views.iter().position(|view| view.namespace == namespace).unwrap_or_else(|| {
            views.push(View::new(namespace));
            views.len() - 1
        })
    };
    for object in rules {
        let at = at(&mut views, object.namespace().unwrap_or_default());
        let (name, change) = (object.name_any(), Change::last(object.meta()));
        let generation = object.meta().generation;
        let rule = match object.0 {
            Ok(rule) => RuleView {
                name,
                generation,
                change,
                rule: Some(rule.spec.rule),
                priority: Some(rule.spec.priority.0),
                status: rule.status,
            },
            Err(_) => RuleView { name, generation, change, rule: None, priority: None, status: None },
        };
        if let Some(view) = views.get_mut(at) {
            view.rules.push(rule);
        }
    }
    for file in files {
        let namespace = file.namespace().unwrap_or_default();
        if file.name_any() != namespace || (rule.is_some() && !views.iter().any(|view| view.namespace == namespace)) {
            continue;
        }
        let at = at(&mut views, namespace);
        if let (Some(view), Ok(file)) = (views.get_mut(at), file.0) {
            view.paused = file.spec.paused;
            view.file = file.status;
        }
    }
    // Reports of nodes are the administrators' to read; who may not sees the lists in the FalcoRulesFile.
    let nodes: Api<DeserializeGuard<FalcoNode>> = Api::all(client.clone());
    if let Ok(nodes) = nodes.list(&ListParams::default()).await {
        let nodes: Vec<FalcoNode> = nodes.items.into_iter().filter_map(|node| node.0.ok()).collect();
        for view in &mut views {
            view.nodes = view.file.as_ref().map(|file| nodes_of(&view.namespace, file, &nodes));
        }
    }
    views.sort_by(|one, two| one.namespace.cmp(&two.namespace));
    Ok(views)
}

async fn list<K: Clone + DeserializeOwned + std::fmt::Debug>(
    api: &Api<K>,
    params: &ListParams,
    what: &str,
) -> anyhow::Result<ObjectList<K>> {
    api.list(params).await.map_err(|err| in_words(err, what))
}

/// What the API server said, with what to do about it.
pub fn in_words(err: kube::Error, what: &str) -> anyhow::Error {
    match err {
        kube::Error::Api(status) if status.is_forbidden() => anyhow!(
            "{what}: not allowed. Ask for the role falco-rules-view or falco-rules-edit in the namespace, or name one \
             with --namespace in which you have it ({})",
            status.message
        ),
        kube::Error::Api(status) if status.is_not_found() => {
            anyhow!(
                "{what}: this cluster does not know the kind, so falco-operator is not installed ({})",
                status.message
            )
        }
        err => anyhow::Error::from(err).context(format!("{what}: the API server can't be asked")),
    }
}
