//! What the nodes' Falcos offer decides what rules may say, and whether they run.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FalcoCatalog, FalcoNode, FalcoRule};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::{Scenarios, World, refused};

const SYSTEM: &str = "kube-system";

/// A condition with a macro that no Falco has at first.
const NEW: &str = "spawned_process and container and from_a_web_server";

#[test]
fn what_the_nodes_falcos_offer_decides() {
    // Without the webhook, so that a rule goes in before the nodes are ready for it.
    let world = World::start(2, "webhook: {enabled: false}\n").unwrap();
    Scenarios::of(&world)
        .run("macros and lists of the base files can be named", base_names)
        .run("a macro comes to the base files, goes from those of one node, and comes back", new_macro)
        .run("a field of falco.yaml's own can be named", static_fields)
        .run("a rule that falco.yaml keeps from running is not Ready", not_running)
        .run("a forged catalogue changes nothing", forged)
        .end();
}

fn base_file(world: &World, node: &str, name: &str) -> PathBuf {
    world.cluster.node_path(node, "/etc/falco").join(name)
}

/// Writes into a base rules file as an editor does.
fn local_rules(world: &World, node: &str, text: &str) -> Result<()> {
    let file = base_file(world, node, "falco_rules.local.yaml");
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)?;
    Ok(())
}

/// Waits for the reason of a rule's Ready condition, with a message that holds these words.
fn told(world: &World, namespace: &str, name: &str, reason: &str, words: &str) -> Result<FalcoRule> {
    world.until(&format!("{namespace}/{name} says {reason}"), namespace, || {
        let rule = world.read(namespace, name)?;
        let status = rule.status.as_ref().context("no status yet")?;
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready").context("no Ready yet")?;
        ensure!(
            ready.status == "False" && ready.reason == reason && ready.message.contains(words),
            "{}",
            serde_json::to_string(&status)?
        );
        Ok(rule)
    })
}

fn base_names(world: &World) -> Result<()> {
    world.create_namespace("named")?;
    world.rule("named", "one", "spawned_process and container and proc.name in (shell_binaries)")?;
    world.active("named", "one", 2)?;
    // They are named and not put in: a node whose own list differs goes by its own.
    let file = world.everywhere("named")?;
    ensure!(file.contains("condition: spawned_process and container and proc.name in (shell_binaries)"), "{file}");
    world.clear(&["named"])
}

fn new_macro(world: &World) -> Result<()> {
    let defined = "- macro: from_a_web_server\n  condition: proc.pname in (nginx, httpd)\n";
    let nothing = fs::read_to_string(base_file(world, "node-1", "falco_rules.local.yaml"))?;
    world.create_namespace("new")?;
    world.rule("new", "one", NEW)?;
    told(world, "new", "one", "DependencyInvalid", "from_a_web_server")?;
    for node in world.nodes()? {
        local_rules(world, &node, defined)?;
    }
    world.active("new", "one", 2)?;
    // What is in force goes on where one node loses it; that node can't load it, and what is new is not begun.
    local_rules(world, "node-2", &nothing)?;
    world.rule("new", "two", &format!("{NEW} and proc.name = sh"))?;
    told(world, "new", "two", "SomeNodesOnly", "from_a_web_server")?;
    ensure!(world.file("node-1", "new")?.is_some_and(|file| file.contains("one of new")), "the rule in force was lost");
    local_rules(world, "node-2", defined)?;
    world.active("new", "one", 2)?;
    world.active("new", "two", 2)?;
    world.clear(&["new"])?;
    world.nodes()?.iter().try_for_each(|node| local_rules(world, node, &nothing))
}

fn static_fields(world: &World) -> Result<()> {
    world.create_namespace("static")?;
    let condition = "spawned_process and container and static.site = east";
    world.rule("static", "one", condition)?;
    told(world, "static", "one", "Invalid", "static.site")?;
    let mut before = vec![];
    for node in world.nodes()? {
        let file = base_file(world, &node, "falco.yaml");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, format!("{text}static_fields: {{site: east}}\n"))?;
        before.push((file, text));
    }
    world.active("static", "one", 2)?;
    world.clear(&["static"])?;
    before.into_iter().try_for_each(|(file, text)| Ok(fs::write(file, text)?))
}

fn not_running(world: &World) -> Result<()> {
    world.create_namespace("quiet")?;
    world.rule("quiet", "one", "spawned_process and container")?;
    world.active("quiet", "one", 2)?;
    let mut before = vec![];
    for node in world.nodes()? {
        let file = base_file(world, &node, "falco.yaml");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace("priority: debug", "priority: critical"))?;
        before.push((file, text));
    }
    told(world, "quiet", "one", "NotRunning", "`priority` is CRITICAL")?;
    for (file, text) in before {
        fs::write(file, text)?;
    }
    world.active("quiet", "one", 2)?;
    world.clear(&["quiet"])
}

fn forged(world: &World) -> Result<()> {
    world.create_namespace("forged")?;
    world.rule("forged", "one", NEW)?;
    let before = told(world, "forged", "one", "DependencyInvalid", "from_a_web_server")?;
    let pod = world.agent_on("node-1")?;
    let client = world.cluster.client_as(&world.cluster.token_of(SYSTEM, &pod.name_any())?)?;
    let catalogs: Api<FalcoCatalog> = Api::all(client.clone());
    let name = world.report("node-1")?.and_then(|it| it.status?.catalog).context("no catalogue is named")?;
    let honest = world.wait(Api::<FalcoCatalog>::all(world.cluster.client()).get(&name))?;
    let mut spec = honest.spec.clone();
    spec.macros.push(serde_json::from_value(json!({"name": "from_a_web_server", "text": "proc.name = x"}))?);

    // Another content under a known name can't be had.
    let patch = Patch::Merge(json!({"spec": {"macros": spec.macros.clone()}}));
    refused("another content", world.wait(catalogs.patch(&name, &PatchParams::default(), &patch)))?;
    // Under a name that is not its content's a node names it, and it means nothing.
    let invented = FalcoCatalog::new("falco-0.44.1-0123456789abcdef0123", spec);
    world.wait(catalogs.create(&PostParams::default(), &invented))?;
    let nodes: Api<FalcoNode> = Api::all(client);
    let patch = Patch::Merge(json!({"status": {"catalog": invented.name_any()}}));
    world.wait(nodes.patch_status("node-1", &PatchParams::default(), &patch))?;
    world.rest(std::time::Duration::from_secs(3))?;
    let rule = world.read("forged", "one")?;
    ensure!(rule.status == before.status, "{:?}", rule.status);
    let all = Api::<FalcoCatalog>::all(world.cluster.client());
    world.until("it is taken away", "forged", || {
        ensure!(world.get(&all, &invented.name_any())?.is_none(), "it is still there");
        Ok(())
    })?;
    world.clear(&["forged"])
}
