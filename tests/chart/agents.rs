//! What an agent may do, by its token and the API server's word.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FalcoBundle, FalcoCatalog, FalcoCatalogSpec, FalcoNode, FalcoRule};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use test_cluster::{Cluster, Options, wait};
use tokio::runtime::Runtime;

use crate::template;

const ACCOUNT: &str = "fo1-falco-operator-agent";

/// A pod with the agents' account on a node, and a token bound to it.
fn token(cluster: &Cluster, node: &str) -> Result<String> {
    let name = format!("agent-on-{node}");
    // Without the product's labels, so that nothing runs: the token is what is asked about.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"nodeName": node, "serviceAccountName": ACCOUNT, "containers": [{"name": "none", "image": "none"}]},
    });
    cluster.apply(&pod.to_string())?;
    let uid = cluster.kubectl(&["get", "pod", &name, "-n", "kube-system", "-o", "jsonpath={.metadata.uid}"])?;
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", &name, "--bound-object-uid", &uid];
    let token = cluster.kubectl(&[&["create", "token", ACCOUNT, "-n", "kube-system"][..], &bound].concat())?;
    Ok(token.trim().to_owned())
}

fn bare(name: &str) -> FalcoNode {
    let object = json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoNode", "metadata": {"name": name}, "spec": {},
    });
    serde_json::from_value(object).unwrap()
}

fn node_object(name: &str, owner: &str, uid: &str) -> FalcoNode {
    let mut object = bare(name);
    object.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: owner.into(),
        uid: uid.into(),
        ..OwnerReference::default()
    }]);
    object
}

struct Agent {
    runtime: Runtime,
    client: Client,
}

impl Agent {
    fn nodes(&self) -> Api<FalcoNode> {
        Api::all(self.client.clone())
    }

    fn create(&self, object: &FalcoNode) -> kube::Result<FalcoNode> {
        self.runtime.block_on(self.nodes().create(&PostParams::default(), object))
    }

    fn status(&self, name: &str) -> kube::Result<FalcoNode> {
        let patch = json!({"status": {"falcoVersion": "0.44.1"}});
        self.runtime.block_on(self.nodes().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)))
    }
}

/// Refused with 403 in words that hold this.
fn refused<T: std::fmt::Debug>(outcome: kube::Result<T>, words: &str) {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(words) => {}
        other => panic!("not refused with {words:?}: {other:?}"),
    }
}

#[test]
fn an_agent_speaks_for_its_own_node_only() {
    let cluster = Cluster::start(&Options { nodes: 2, ..Options::default() }).unwrap();
    // The processes are not asked here, only their accounts: the controller stays away, and no node wants an agent.
    cluster
        .apply(&template(&["controller.replicas=0", "agent.nodeSelector.no=where", "cleanup.enabled=false"]))
        .unwrap();
    let runtime = || Runtime::new().unwrap();
    let agent = |token: &str| Agent { runtime: runtime(), client: cluster.client_as(token).unwrap() };
    let uid = |node: &str| cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.metadata.uid}"]).unwrap();
    let (uid_1, uid_2) = (uid("node-1"), uid("node-2"));
    let own = agent(&token(&cluster, "node-1").unwrap());
    let other = agent(&token(&cluster, "node-2").unwrap());

    // The API server needs a moment until it holds to a new policy; a try in vain leaves nothing behind.
    wait::until("the policy is in force", Duration::from_mins(1), || {
        let mut probe = node_object("node-1", "node-1", &uid_1);
        probe.metadata.finalizers = Some(vec!["example.org/probe".into()]);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let outcome = own.runtime.block_on(own.nodes().create(&dry, &probe));
        let err = outcome.err().context("not refused yet")?;
        ensure!(matches!(&err, kube::Error::Api(status) if status.message.contains("keep its objects")), "{err}");
        Ok(())
    })
    .unwrap();

    // Its own node, as it should be.
    own.create(&node_object("node-1", "node-1", &uid_1)).unwrap();
    own.status("node-1").unwrap();
    other.create(&node_object("node-2", "node-2", &uid_2)).unwrap();

    // Another node's, in every way.
    refused(own.status("node-2"), "the agent of node node-1 may write the FalcoNode of that node only");
    refused(own.create(&node_object("node-3", "node-1", &uid_1)), "the agent of node node-1 may write");
    let merge = |patch: serde_json::Value| {
        own.runtime.block_on(own.nodes().patch("node-2", &PatchParams::default(), &Patch::Merge(patch)))
    };
    refused(merge(json!({"metadata": {"labels": {"by": "node-1"}}})), "the agent of node node-1 may write");
    let apply = node_object("node-2", "node-1", &uid_1);
    let force = PatchParams::apply("thief").force();
    refused(own.runtime.block_on(own.nodes().patch("node-2", &force, &Patch::Apply(&apply))), "");

    // Its own, but not as its Node's: nobody would collect it, or it would be collected at once.
    let own_patch = |patch: serde_json::Value| {
        own.runtime.block_on(own.nodes().patch("node-1", &PatchParams::default(), &Patch::Merge(patch)))
    };
    refused(own_patch(json!({"metadata": {"ownerReferences": []}})), "");
    refused(own_patch(json!({"metadata": {"finalizers": ["example.org/mine"]}})), "keep its objects");
    cluster.kubectl(&["delete", "falconode", "node-1"]).unwrap();
    refused(own.create(&node_object("node-1", "node-1", &uid_2)), "only owner");
    refused(own.create(&bare("node-1")), "only owner");
    let mut blocking = node_object("node-1", "node-1", &uid_1);
    blocking.metadata.owner_references.as_mut().unwrap()[0].block_owner_deletion = Some(true);
    refused(own.create(&blocking), "");
    own.create(&node_object("node-1", "node-1", &uid_1)).unwrap();

    // Without a pod, hence without a node, the account can write nothing.
    let plain = cluster.kubectl(&["create", "token", ACCOUNT, "-n", "kube-system"]).unwrap();
    let plain = agent(plain.trim());
    refused(plain.status("node-1"), "this one names no node");
    let catalog = |name: &str| FalcoCatalog::new(name, FalcoCatalogSpec::default());
    let catalogs = |agent: &Agent, object: &FalcoCatalog| {
        let api: Api<FalcoCatalog> = Api::all(agent.client.clone());
        agent.runtime.block_on(api.create(&PostParams::default(), object))
    };
    refused(catalogs(&plain, &catalog("plain")), "this one names no node");

    // Catalogues are made, and never changed.
    catalogs(&own, &catalog("own")).unwrap();
    let mut owned = catalog("owned");
    owned.metadata.owner_references = node_object("node-1", "node-1", &uid_1).metadata.owner_references;
    refused(catalogs(&own, &owned), "has no owner");
    let api: Api<FalcoCatalog> = Api::all(own.client.clone());
    let change = json!({"spec": {"falcoVersion": "9"}});
    refused(own.runtime.block_on(api.patch("own", &PatchParams::default(), &Patch::Merge(change))), "falcocatalogs");
    refused(own.runtime.block_on(api.delete("own", &DeleteParams::default())), "falcocatalogs");

    // Nothing else: no list of nodes' reports, nothing of the developers', nothing of anybody's.
    refused(own.runtime.block_on(own.nodes().list(&ListParams::default())), "falconodes");
    refused(own.runtime.block_on(own.nodes().delete("node-1", &DeleteParams::default())), "falconodes");
    let rules: Api<FalcoRule> = Api::namespaced(own.client.clone(), "default");
    refused(own.runtime.block_on(rules.list(&ListParams::default())), "falcorules");
    let rule = serde_json::from_value(json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule", "metadata": {"name": "mine"},
        "spec": {"rule": "r", "desc": "d", "condition": "evt.type = open", "output": "o", "priority": "INFO"},
    }))
    .unwrap();
    refused(own.runtime.block_on(rules.create(&PostParams::default(), &rule)), "falcorules");
    let bundles: Api<FalcoBundle> = Api::all(own.client.clone());
    own.runtime.block_on(bundles.list(&ListParams::default())).unwrap();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"by": "agent"}}}));
    refused(own.runtime.block_on(bundles.patch("default", &PatchParams::default(), &patch)), "falcobundles");
    let secrets: Api<Secret> = Api::namespaced(own.client.clone(), "kube-system");
    refused(own.runtime.block_on(secrets.list(&ListParams::default())), "secrets");
    refused(own.runtime.block_on(secrets.get("any")), "secrets");
    let maps: Api<ConfigMap> = Api::namespaced(own.client.clone(), "kube-system");
    refused(own.runtime.block_on(maps.list(&ListParams::default())), "configmaps");
}
