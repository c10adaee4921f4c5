//! Nodes that come, go, fall ill and fall silent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FalcoRulesFile, NodeFaultReason, Phase};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use test_cluster::NodeOptions;

use crate::support::{BASH, SYSTEM, Scenarios, World, faults, ready};

/// As small as a disk can be on which the agent still has room.
const DISK: u64 = 16 << 20;

#[test]
fn nodes_come_and_go() {
    let world = World::start(3, "{}\n").unwrap();
    Scenarios::of(&world)
        .run("a node that is added later loads what the others have", added)
        .run("a node that is removed for good is not waited for", removed)
        .run("a node that is created again under its name speaks for itself", recreated)
        .run("a node whose power is cut is not waited for, and catches up", powerless)
        .end();
}

#[test]
fn nodes_fall_ill() {
    let disk = NodeOptions { disk: Some(DISK), ..NodeOptions::default() };
    let root = nix::unistd::geteuid().is_root();
    let small = [("small", disk)];
    let world = World::start_with(if root { 2 } else { 3 }, if root { &small } else { &[] }, "{}\n").unwrap();
    let mut scenarios = Scenarios::of(&world);
    scenarios.run("a dead Falco on one node holds up nobody", dead_falco);
    if root {
        scenarios.run("a full disk on one node holds up nobody", full_disk);
    } else {
        println!("skipped: a disk of its own needs root");
    }
    scenarios.run("a node on which alone a file fails takes no veto", one_refuses);
    scenarios.run("while no agent is ready no phase moves and nothing is released", all_unready);
    scenarios.end();
}

fn added(world: &World) -> Result<()> {
    world.create_namespace("added")?;
    world.rule("added", "one", BASH)?;
    world.active("added", "one", 3)?;
    let file = world.everywhere("added")?;
    world.cluster.add_node("node-4")?;
    world.until("the new node has the file, and its Falco has proved it", "added", || {
        ensure!(world.file("node-4", "added")?.as_ref() == Some(&file), "not the file");
        settled(world, "node-4")
    })?;
    // No phase moved for it, and the next edit counts it.
    world.phase("added", Phase::Active)?;
    world.rule("added", "one", "container.id != host and proc.name = zsh")?;
    world.active("added", "one", 4)?;
    world.everywhere("added")?;
    world.clear(&["added"])
}

/// An error unless the node's report says that it runs what is settled, and nothing is wrong.
fn settled(world: &World, node: &str) -> Result<()> {
    let report = world.report(node)?.context("no FalcoNode")?.status.context("no report")?;
    let pod = world.agent_on(node)?;
    ensure!(pod.uid().as_deref() == Some(report.agent.uid.as_str()), "the report is another pod's");
    ensure!(ready(&pod), "the agent is not ready");
    let troubled = report.fault.is_some() || report.namespaces.iter().any(|it| it.fault.is_some());
    ensure!(!troubled, "{}", serde_json::to_string(&report)?);
    Ok(())
}

fn removed(world: &World) -> Result<()> {
    world.create_namespace("removed")?;
    world.rule("removed", "one", BASH)?;
    let nodes = world.nodes()?;
    ensure!(nodes.contains(&"node-4".to_owned()), "the scenario before adds node-4");
    world.active("removed", "one", 4)?;
    world.cluster.delete_node("node-4")?;
    world.cluster.remove_pods_of("node-4")?;
    world.rule("removed", "one", "container.id != host and proc.name = zsh")?;
    world.active("removed", "one", 3)?;
    world.until("its FalcoNode is gone", "removed", || {
        ensure!(world.report("node-4")?.is_none());
        Ok(())
    })?;
    world.clear(&["removed"])
}

fn recreated(world: &World) -> Result<()> {
    world.create_namespace("recreated")?;
    world.rule("recreated", "one", BASH)?;
    world.active("recreated", "one", 3)?;
    let before = world.report("node-3")?.context("no FalcoNode")?;
    world.cluster.recreate_node("node-3")?;
    let node = world.wait(Api::<Node>::all(world.cluster.client()).get("node-3"))?;
    world.until("the FalcoNode is the new node's", "recreated", || {
        let now = world.report("node-3")?.context("no FalcoNode")?;
        ensure!(now.uid() != before.uid(), "it is the old one");
        ensure!(now.owner_references().iter().map(|it| &it.uid).eq(node.metadata.uid.iter()), "{:?}", now.metadata);
        settled(world, "node-3")
    })?;
    world.phase("recreated", Phase::Active)?;
    world.rule("recreated", "one", "container.id != host and proc.name = zsh")?;
    world.active("recreated", "one", 3)?;
    world.everywhere("recreated")?;
    world.clear(&["recreated"])
}

fn powerless(world: &World) -> Result<()> {
    for namespace in ["dark", "leaving-dark"] {
        world.create_namespace(namespace)?;
        world.rule(namespace, "one", BASH)?;
        world.active(namespace, "one", 3)?;
    }
    world.cluster.stop_node("node-2")?;
    world.rule("dark", "one", "container.id != host and proc.name = zsh")?;
    // Silent, it counts as it last did for two minutes, and then not at all.
    let active = world.loaded("dark", "one", "2/3")?;
    ensure!(active.status.is_some());
    world.delete_namespace("leaving-dark")?;
    world.until("the namespace does not wait for a node without power", "leaving-dark", || {
        ensure!(world.namespace_uid("leaving-dark")?.is_none());
        Ok(())
    })?;
    world.cluster.start_node("node-2")?;
    world.until("the node has caught up", "dark", || {
        ensure!(world.file("node-2", "dark")?.is_some_and(|file| file.contains("zsh")), "it has not the edit");
        // It has not seen that bundle emptied, so that it can't tell a withdrawal from a lost world: it keeps the file for
        // ten minutes, and says so.
        let report = world.report("node-2")?.context("no FalcoNode")?.status.context("no report")?;
        let kept =
            report.namespaces.iter().find(|it| it.namespace == "leaving-dark").context("it says nothing of it")?;
        let message = kept.message.as_deref().unwrap_or_default();
        ensure!(message.contains("kept until") && kept.fault.is_none(), "{kept:?}");
        settled(world, "node-2")
    })?;
    world.rule("dark", "one", BASH)?;
    world.active("dark", "one", 3)?;
    world.clear(&["dark"])
}

/// Nothing was taken back: neither now nor before.
fn never_rolled_back(world: &World, namespace: &str) -> Result<()> {
    let file = world.rules_file(namespace)?.context("no FalcoRulesFile")?;
    let status = file.status.context("no status")?;
    ensure!(status.rejected_hash.is_none(), "{status:?}");
    ensure!(!matches!(status.phase, Phase::RollingBack | Phase::RolledBack), "{status:?}");
    Ok(())
}

fn dead_falco(world: &World) -> Result<()> {
    if !faults()? {
        return Ok(());
    }
    for namespace in ["well", "other"] {
        world.create_namespace(namespace)?;
        world.rule(namespace, "one", BASH)?;
        world.active(namespace, "one", 3)?;
    }
    // A base rule that kills every Falco of that node, and whatever is running there.
    let base = world.cluster.node_path("node-2", "/etc/falco/falco_rules.local.yaml");
    let before = std::fs::read_to_string(&base)?;
    let deadly =
        "- rule: deadly\n  desc: \"stand-in: crash\"\n  condition: evt.type = open\n  output: x\n  priority: DEBUG\n";
    std::fs::write(&base, format!("{before}\n{deadly}"))?;
    world.until("the node has said that its Falco is down", "well", || {
        let report = world.report("node-2")?.context("no FalcoNode")?.status.context("no report")?;
        let reason = report.fault.as_ref().map(|it| it.reason);
        ensure!(
            matches!(reason, Some(NodeFaultReason::FalcoDown | NodeFaultReason::BaseRefused)),
            "{}",
            serde_json::to_string(&report)?
        );
        Ok(())
    })?;
    world.rule("well", "one", "container.id != host and proc.name = zsh")?;
    world.loaded("well", "one", "2/3")?;
    for namespace in ["well", "other"] {
        never_rolled_back(world, namespace)?;
    }
    // The new namespace's first file, too, and a withdrawal: the node is asked for nothing.
    world.create_namespace("newcomer")?;
    world.rule("newcomer", "one", BASH)?;
    world.loaded("newcomer", "one", "2/3")?;
    std::fs::write(&base, before)?;
    world.until("the node is well again and has caught up", "well", || {
        ensure!(world.file("node-2", "well")?.is_some_and(|file| file.contains("zsh")), "it has not the edit");
        settled(world, "node-2")
    })?;
    for namespace in ["well", "other", "newcomer"] {
        world.everywhere(namespace)?;
        never_rolled_back(world, namespace)?;
    }
    world.rule("other", "one", "container.id != host and proc.name = zsh")?;
    world.active("other", "one", 3)?;
    world.clear(&["well", "other", "newcomer"])
}

fn full_disk(world: &World) -> Result<()> {
    world.create_namespace("full")?;
    world.rule("full", "one", BASH)?;
    world.active("full", "one", 3)?;
    let before = world.file("small", "full")?;
    world.cluster.fill_disk("small")?;
    world.rule("full", "one", "container.id != host and proc.name = zsh")?;
    world.loaded("full", "one", "2/3")?;
    never_rolled_back(world, "full")?;
    let report = world.report("small")?.context("no FalcoNode")?.status.context("no report")?;
    let reason = report.fault.as_ref().map(|it| it.reason);
    ensure!(reason == Some(NodeFaultReason::Storage), "{}", serde_json::to_string(&report)?);
    ensure!(world.file("small", "full")? == before, "the last good file is not whole");
    ensure!(!world.falcos("small")?.is_empty(), "no Falco runs there");
    world.cluster.free_disk("small")?;
    world.until("the node has caught up", "full", || {
        ensure!(world.file("small", "full")?.is_some_and(|file| file.contains("zsh")), "it has not the edit");
        settled(world, "small")
    })?;
    world.rule("full", "one", BASH)?;
    world.active("full", "one", 3)?;
    world.clear(&["full"])
}

fn one_refuses(world: &World) -> Result<()> {
    if !faults()? {
        return Ok(());
    }
    world.create_namespace("veto")?;
    world.rule("veto", "one", BASH)?;
    world.active("veto", "one", 3)?;
    let spec = crate::support::faulty("one of veto", "container.id != host and proc.name = zsh", "refuse on node-2");
    world.apply("veto", "one", &spec)?;
    // The others load it; one node of one kind can't say no for all.
    world.until("the others have loaded it, and nothing went back", "veto", || {
        ensure!(world.file("node-1", "veto")?.is_some_and(|file| file.contains("zsh")), "node-1 has not the edit");
        let status = world.rules_file("veto")?.context("no FalcoRulesFile")?.status.context("no status")?;
        ensure!(matches!(status.phase, Phase::Degraded | Phase::Active), "{status:?}");
        ensure!(status.failing.iter().any(|it| it.node == "node-2"), "it is not said who fails: {status:?}");
        Ok(())
    })?;
    never_rolled_back(world, "veto")?;
    ensure!(world.file("node-2", "veto")?.is_some_and(|file| !file.contains("zsh")), "node-2 lost its last good file");
    world.rule("veto", "one", "container.id != host and proc.name = ksh")?;
    world.active("veto", "one", 3)?;
    world.clear(&["veto"])
}

fn all_unready(world: &World) -> Result<()> {
    for namespace in ["held", "released-not"] {
        world.create_namespace(namespace)?;
        world.rule(namespace, "one", BASH)?;
        world.active(namespace, "one", 3)?;
    }
    set_ready(world, "False")?;
    world.delete_namespace("released-not")?;
    // The agents are there and drop the file, but nobody vouches for them.
    world.until("the files are dropped", "released-not", || world.nowhere("released-not"))?;
    world
        .until("the namespace's state is unknown", "held", || {
            let file = world.rules_file("held")?.context("no FalcoRulesFile")?;
            let conditions = file.status.map(|it| it.conditions).unwrap_or_default();
            let ready = conditions.into_iter().find(|it| it.type_ == "Ready").context("no Ready")?;
            ensure!(ready.status == "Unknown" && ready.reason == "NoNodeAvailable", "{ready:?}");
            Ok(())
        })
        .context("two minutes after the last agent was ready")?;
    std::thread::sleep(Duration::from_secs(10));
    let phase = |file: FalcoRulesFile| file.status.map(|it| it.phase);
    ensure!(world.rules_file("held")?.and_then(phase) == Some(Phase::Active), "the phase moved");
    ensure!(world.rules_file("released-not")?.and_then(phase) == Some(Phase::Withdrawing), "it was released");
    ensure!(world.namespace_uid("released-not")?.is_some(), "it was released");
    world.everywhere("held")?;
    set_ready(world, "True")?;
    world.namespace_gone("released-not")?;
    world.active("held", "one", 3)?;
    world.clear(&["held"])
}

/// What the kubelets say about the agents' pods, all at once; it stands until a probe changes its mind.
fn set_ready(world: &World, status: &str) -> Result<()> {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    for pod in world.agents()? {
        let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": now}]}});
        let api: Api<Pod> = world.api(SYSTEM);
        world.wait(api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)))?;
    }
    Ok(())
}
