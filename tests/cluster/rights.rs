//! What the processes may do, by the rights that the chart gives them.

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FalcoBundle, FalcoCatalog, FalcoNode, FalcoRule, FalcoRulesFile};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::{BASH, SYSTEM, Scenarios, World, refused, spec};

#[test]
fn rights_are_the_least_there_can_be() {
    let world = World::start(2, "{}\n").unwrap();
    Scenarios::of(&world)
        .run("an agent speaks for its own node and for nobody else", agent)
        .run("the controller has no more rights than it needs", controller)
        .end();
}

fn agent(world: &World) -> Result<()> {
    world.create_namespace("target")?;
    world.rule("target", "one", BASH)?;
    world.active("target", "one", 2)?;
    let pod = world.agent_on("node-1")?;
    let client = world.cluster.client_as(&world.cluster.token_of(SYSTEM, &pod.name_any())?)?;
    let merge = PatchParams::default();

    let rules: Api<FalcoRule> = Api::namespaced(client.clone(), "target");
    let mine = serde_json::from_value(json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule", "metadata": {"name": "mine"},
        "spec": spec("mine", BASH),
    }))?;
    refused("creating a FalcoRule", world.wait(rules.create(&PostParams::default(), &mine)))?;
    let patch = Patch::Merge(json!({"spec": {"condition": "evt.num > 0"}}));
    refused("editing a FalcoRule", world.wait(rules.patch("one", &merge, &patch)))?;
    let patch = Patch::Merge(json!({"status": {"message": "all is well"}}));
    refused("a FalcoRule's status", world.wait(rules.patch_status("one", &merge, &patch)))?;
    refused("deleting a FalcoRule", world.wait(rules.delete("one", &DeleteParams::default())))?;

    let files: Api<FalcoRulesFile> = Api::namespaced(client.clone(), "target");
    refused("a FalcoRulesFile's status", world.wait(files.patch_status("target", &merge, &patch)))?;

    let bundles: Api<FalcoBundle> = Api::all(client.clone());
    ensure!(world.wait(bundles.list(&ListParams::default()))?.items.len() == 1, "an agent lists bundles");
    let patch = Patch::Merge(json!({"spec": {"rejectedHash": "0"}}));
    refused("writing a bundle", world.wait(bundles.patch("target", &merge, &patch)))?;
    refused("deleting a bundle", world.wait(bundles.delete("target", &DeleteParams::default())))?;

    let nodes: Api<FalcoNode> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"status": {"rulesSum": "0"}}));
    refused("another node's report", world.wait(nodes.patch_status("node-2", &merge, &patch)))?;
    refused(
        "another node's FalcoNode",
        world.wait(nodes.patch(
            "node-2",
            &merge,
            &Patch::Merge(json!({
                "metadata": {"labels": {"mine": "yes"}},
            })),
        )),
    )?;
    refused("deleting another node's FalcoNode", world.wait(nodes.delete("node-2", &DeleteParams::default())))?;
    let invented = |name: &str, owner: &str, uid: &str| {
        serde_json::from_value::<FalcoNode>(json!({
            "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoNode", "spec": {},
            "metadata": {"name": name, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": owner, "uid": uid}]},
        }))
    };
    let uid_of = |name: &str| -> Result<String> {
        world.wait(Api::<Node>::all(world.cluster.client()).get(name))?.uid().context("a node has a UID")
    };
    for (name, owner, uid) in [
        ("invented", "node-1", uid_of("node-1")?),
        ("node-3", "node-3", "2f1a5c1e-0000-4000-8000-000000000000".to_owned()),
    ] {
        let object = invented(name, owner, &uid)?;
        refused("a FalcoNode of another name", world.wait(nodes.create(&PostParams::default(), &object)))?;
    }

    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    refused("listing Secrets", world.wait(secrets.list(&ListParams::default())))?;
    refused("reading a Secret", world.wait(secrets.get("any")))?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "target");
    refused("listing ConfigMaps", world.wait(maps.list(&ListParams::default())))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    refused("deleting a pod", world.wait(pods.delete("any", &DeleteParams::default())))?;
    let catalogs: Api<FalcoCatalog> = Api::all(client);
    refused("deleting a catalogue", world.wait(catalogs.delete("any", &DeleteParams::default())))?;

    // With all that refused, its own report still arrives.
    world.rule("target", "one", "container.id != host and proc.name = zsh")?;
    world.active("target", "one", 2)?;
    world.clear(&["target"])
}

fn controller(world: &World) -> Result<()> {
    world.create_namespace("target")?;
    world.rule("target", "one", BASH)?;
    world.active("target", "one", 2)?;
    let pod = world.controllers()?.into_iter().next().context("there is a controller")?;
    let client = world.cluster.client_as(&world.cluster.token_of(SYSTEM, &pod)?)?;
    let merge = PatchParams::default();

    let rules: Api<FalcoRule> = Api::namespaced(client.clone(), "target");
    let patch = Patch::Merge(json!({"spec": {"condition": "evt.num > 0"}}));
    refused("editing a FalcoRule", world.wait(rules.patch("one", &merge, &patch)))?;
    refused("deleting a FalcoRule", world.wait(rules.delete("one", &DeleteParams::default())))?;
    let nodes: Api<FalcoNode> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"status": {"rulesSum": "0"}}));
    refused("a node's report", world.wait(nodes.patch_status("node-1", &merge, &patch)))?;
    for namespace in ["target", "default"] {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        refused("listing Secrets", world.wait(secrets.list(&ListParams::default())))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        refused("listing service accounts", world.wait(accounts.list(&ListParams::default())))?;
    }
    let minted = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "minted", "annotations": {"kubernetes.io/service-account.name": "default"}},
    }))?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    refused("creating a Secret", world.wait(secrets.create(&PostParams::default(), &minted)))?;
    let pods: Api<Pod> = Api::namespaced(client, SYSTEM);
    refused("deleting a pod", world.wait(pods.delete(&pod, &DeleteParams::default())))?;
    world.clear(&["target"])
}
