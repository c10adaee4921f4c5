//! A world that is lost and found: what is in the API server is gone, and what runs on the nodes is not.

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FalcoBundle, FalcoRulesFile};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::{BASH, Scenarios, World};

const NAMESPACES: [&str; 2] = ["lost-a", "lost-b"];

#[test]
fn a_lost_world_takes_no_file_from_any_node() {
    let world = World::start(2, "{}\n").unwrap();
    Scenarios::of(&world)
        .run("all bundles are deleted", bundles)
        .run("the kinds of the operator's own objects are deleted and restored", own_kinds)
        .run("every kind is deleted and restored while the controller is away", every_kind)
        .run("after an uninstallation no namespace is stuck, and no file is left", uninstalled)
        .end();
}

fn begin(world: &World) -> Result<()> {
    for namespace in NAMESPACES {
        world.create_namespace(namespace)?;
        world.rule(namespace, "one", BASH)?;
    }
    NAMESPACES.iter().try_for_each(|namespace| world.active(namespace, "one", 2).map(drop))
}

fn end(world: &World) -> Result<()> {
    for namespace in NAMESPACES {
        world.until("the bundle is there again", namespace, || {
            world.bundle(namespace)?.context("it is not")?;
            Ok(())
        })?;
        world.active(namespace, "one", 2)?;
        // What was restored goes on as if nothing had happened.
        world.rule(namespace, "one", "container.id != host and proc.name = zsh")?;
        world.active(namespace, "one", 2)?;
        ensure!(world.everywhere(namespace)?.contains("zsh"));
    }
    world.clear(&NAMESPACES)
}

fn loads(world: &World) -> Result<Vec<usize>> {
    world.nodes()?.iter().map(|node| world.loads(node)).collect()
}

fn bundles(world: &World) -> Result<()> {
    begin(world)?;
    let stays = world.files_stay(&NAMESPACES)?;
    let before = loads(world)?;
    let all: Api<FalcoBundle> = Api::all(world.cluster.client());
    world.wait(all.delete_collection(&DeleteParams::default(), &ListParams::default()))?;
    for namespace in NAMESPACES {
        world.until("the bundle is there again", namespace, || {
            world.bundle(namespace)?.context("it is not")?;
            Ok(())
        })?;
        world.active(namespace, "one", 2)?;
    }
    ensure!(loads(world)? == before, "nodes loaded for it");
    stays.end()?;
    end(world)
}

fn own_kinds(world: &World) -> Result<()> {
    begin(world)?;
    let stays = world.files_stay(&NAMESPACES)?;
    for kind in ["falcobundles", "falconodes", "falcocatalogs"] {
        world.cluster.kubectl(&["delete", "crd", &format!("{kind}.mumoshu.github.io"), "--timeout=300s"])?;
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    world.cluster.kubectl(&["apply", "--server-side", "-f", "crd"])?;
    end_with(world, stays)
}

fn end_with(world: &World, stays: crate::support::FilesStay) -> Result<()> {
    for namespace in NAMESPACES {
        world.until("the bundle is there again", namespace, || {
            world.bundle(namespace)?.context("it is not")?;
            Ok(())
        })?;
        world.active(namespace, "one", 2)?;
    }
    stays.end()?;
    end(world)
}

fn every_kind(world: &World) -> Result<()> {
    begin(world)?;
    let stays = world.files_stay(&NAMESPACES)?;
    world.scale_controller(0)?;
    // Whoever removes the kinds by hand has to let the guarded objects go.
    for namespace in NAMESPACES {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let api = world.api::<FalcoRulesFile>(namespace);
        world.wait(api.patch(namespace, &PatchParams::default(), &patch))?;
    }
    let kinds = world.cluster.kubectl(&["get", "crds", "-o", "name"])?;
    let ours: Vec<_> = kinds.lines().filter(|name| name.ends_with(".mumoshu.github.io")).collect();
    ensure!(ours.len() == 7, "{ours:?}");
    world.cluster.kubectl(&[&["delete", "--timeout=300s"][..], &ours].concat())?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    for agent in world.agents()? {
        ensure!(agent.metadata.deletion_timestamp.is_none(), "{} was restarted", agent.name_any());
    }
    world.cluster.kubectl(&["apply", "--server-side", "-f", "crd"])?;
    world.cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "-f", "crd"])?;
    world.until("the kind is served again", NAMESPACES[0], || {
        NAMESPACES.iter().try_for_each(|namespace| world.rule(namespace, "one", BASH).map(drop))
    })?;
    world.scale_controller(1)?;
    end_with(world, stays)
}

fn uninstalled(world: &World) -> Result<()> {
    begin(world)?;
    world.release.uninstall(&world.cluster)?;
    for namespace in NAMESPACES {
        world.nowhere(namespace)?;
        world.delete_namespace(namespace)?;
        world.namespace_gone(namespace)?;
    }
    Ok(())
}
