//! The life of rules and of their namespaces.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FINALIZER, FalcoRule, FalcoRulesFile, ItemPhase, Phase};
use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use test_cluster::audit::{AuditEvent, count};
use test_cluster::{Signal, wait};

use crate::support::{BASH, SYSTEM, Scenarios, WITH_FAULTS, World, faults, faulty, is, spec};

/// What a developer writes, and what every node then has, byte for byte.
const EXAMPLE: &str = "\
- rule: shell_in_container
  desc: notice shell activity within a container
  condition: container.id != host and proc.name = bash
  output: shell in a container (user=%user.name container_id=%container.id container_name=%container.name shell=%proc.name parent=%proc.pname cmdline=%proc.cmdline)
  priority: WARNING
";

#[test]
fn rules_and_namespaces_come_and_go() {
    let world = World::start(3, WITH_FAULTS).unwrap();
    Scenarios::of(&world)
        .run("a rule is created, edited, broken, repaired and deleted", life_of_a_rule)
        .run("a broken rule holds up neither its neighbours nor its own last version", broken_beside_others)
        .run("two namespaces have a rule of the same name", same_name)
        .run("a deleted namespace waits for every node", namespace_waits_for_nodes)
        .run("a namespace is deleted and created again at once", namespace_again)
        .run("a FalcoRulesFile deleted by hand is no withdrawal", rules_file_by_hand)
        .run("an edit is rolled back, reverted, and tried again", rolled_back)
        .run("a burst of edits is a few reloads", burst)
        .run("at rest nothing is written", at_rest)
        .end();
}

fn life_of_a_rule(world: &World) -> Result<()> {
    let mark = world.cluster.mark();
    world.cluster.kubectl(&["apply", "-f", "examples/bash.falcorule.yaml"])?;
    world.active("default", "bash", 3)?;
    world.cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=300s", "falcorule/bash"])?;
    let file = world.everywhere("default")?;
    ensure!(file == EXAMPLE, "the file is not the example's:\n{file}");
    let table = world.cluster.kubectl(&["get", "falcorules"])?;
    for word in ["shell_in_container", "WARNING", "Active", "3/3"] {
        ensure!(table.contains(word), "no {word} in\n{table}");
    }
    // The finalizer is there before anything is that it guards.
    let writes = world.our_writes(mark)?;
    let first = |resource: &str| writes.iter().position(|it| it.succeeded() && it.resource == resource);
    let file = first("mumoshu.github.io/falcorulesfiles").context("no FalcoRulesFile was written")?;
    let bundle = first("mumoshu.github.io/falcobundles").context("no bundle was written")?;
    ensure!(file < bundle, "the bundle was written before the finalizer");
    ensure!(world.rules_file("default")?.context("no FalcoRulesFile")?.finalizers() == [FINALIZER]);

    // An edit.
    world.rule("default", "bash", "container.id != host and proc.name in (bash, zsh)")?;
    world.active("default", "bash", 3)?;
    let good = world.everywhere("default")?;
    ensure!(good.contains("zsh"), "{good}");

    // A condition that Falco refuses: told in words, and what is loaded stays loaded.
    let broken = world.rule("default", "bash", "container.id != host and proc.nonsense = bash")?;
    let rule = rejected(world, "default", "bash", "proc.nonsense")?;
    let in_force = rule.status.as_ref().and_then(|status| status.generation_in_force);
    ensure!(in_force < broken.metadata.generation && in_force.is_some(), "in force is {in_force:?}");
    ensure!(world.everywhere("default")? == good, "the last good file did not stay");

    // Repaired, then deleted.
    world.rule("default", "bash", BASH)?;
    world.active("default", "bash", 3)?;
    ensure!(!world.everywhere("default")?.contains("zsh"));
    let mark = world.cluster.mark();
    world.delete_rule("default", "bash")?;
    world.withdrawn("default")?;
    // The bundle went only after each node had said that it has dropped the file.
    let writes = world.our_writes(mark)?;
    let gone = |it: &&AuditEvent| it.verb == "delete" && it.resource == "mumoshu.github.io/falcobundles";
    let gone = writes.iter().position(|it| gone(&it) && it.succeeded()).context("no bundle was deleted")?;
    let told = |node: &str| {
        let report = |it: &AuditEvent| it.resource == "mumoshu.github.io/falconodes/status" && it.name == node;
        writes.iter().take(gone).any(|it| report(it) && it.succeeded())
    };
    for node in world.nodes()? {
        ensure!(told(&node), "the bundle was deleted before {node} had said anything");
    }
    Ok(())
}

/// Waits until the rule as it is written now is rejected with this in the message.
fn rejected(world: &World, namespace: &str, name: &str, wrong: &str) -> Result<FalcoRule> {
    world.until(&format!("{namespace}/{name} is rejected for {wrong}"), namespace, || {
        let rule = world.read(namespace, name)?;
        let status = rule.status.clone().context("no status yet")?;
        let told = status.message.as_deref().unwrap_or_default().contains(wrong);
        ensure!(
            status.phase == Some(ItemPhase::Rejected) && told && is(&rule, "Ready") == Some(false),
            "{}",
            serde_json::to_string(&status)?
        );
        Ok(rule)
    })
}

fn broken_beside_others(world: &World) -> Result<()> {
    world.create_namespace("beside")?;
    world.rule("beside", "good", BASH)?;
    world.rule("beside", "bad", "proc.nonsense = bash")?;
    world.active("beside", "good", 3)?;
    rejected(world, "beside", "bad", "proc.nonsense")?;
    ensure!(!world.everywhere("beside")?.contains("nonsense"));
    // The neighbour goes on being edited.
    world.rule("beside", "good", "container.id != host and proc.name = fish")?;
    world.active("beside", "good", 3)?;
    world.rule("beside", "bad", "container.id != host and proc.name = dash")?;
    world.active("beside", "bad", 3)?;
    world.rule("beside", "bad", "proc.nonsense = dash")?;
    rejected(world, "beside", "bad", "proc.nonsense")?;
    world.rule("beside", "good", "container.id != host and proc.name = csh")?;
    world.active("beside", "good", 3)?;
    let file = world.everywhere("beside")?;
    ensure!(file.contains("dash") && file.contains("csh"), "{file}");
    world.clear(&["beside"])
}

fn same_name(world: &World) -> Result<()> {
    for (namespace, shell) in [("first", "bash"), ("second", "zsh")] {
        world.create_namespace(namespace)?;
        world.apply(namespace, "shell", &spec("one name", &format!("container.id != host and proc.name = {shell}")))?;
        world.active(namespace, "shell", 3)?;
    }
    let name =
        |namespace: &str| Ok::<_, anyhow::Error>(world.read(namespace, "shell")?.status.and_then(|it| it.rule_name));
    ensure!(name("first")?.as_deref() == Some("one name"));
    ensure!(name("second")?.as_deref() == Some("second/one name"), "{:?}", name("second")?);
    ensure!(world.everywhere("second")?.starts_with("- rule: second/one name\n"));
    // The one does not disturb the other, and a name is chosen once.
    world.clear(&["first"])?;
    world.apply("second", "shell", &spec("one name", "container.id != host and proc.name = ksh"))?;
    world.active("second", "shell", 3)?;
    ensure!(name("second")?.as_deref() == Some("second/one name"), "{:?}", name("second")?);
    world.clear(&["second"])
}

fn namespace_waits_for_nodes(world: &World) -> Result<()> {
    for namespace in ["leaving", "staying"] {
        world.create_namespace(namespace)?;
        world.rule(namespace, "one", BASH)?;
        world.rule(namespace, "two", BASH)?;
    }
    for namespace in ["leaving", "staying"] {
        world.active(namespace, "one", 3)?;
        world.active(namespace, "two", 3)?;
    }
    let stays = world.files_stay(&["staying"])?;
    // One node does not answer: the namespace waits for it.
    let slow = world.agent_on("node-3")?.name_any();
    world.cluster.signal(SYSTEM, &slow, None, Signal::SIGSTOP)?;
    world.delete_namespace("leaving")?;
    world.until("the other nodes have let go", "leaving", || {
        for node in ["node-1", "node-2"] {
            ensure!(world.file(node, "leaving")?.is_none(), "{node} has the file");
        }
        ensure!(world.wait(world.api::<FalcoRule>("leaving").list(&ListParams::default()))?.items.is_empty());
        Ok(())
    })?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(world.file("node-3", "leaving")?.is_some(), "a stopped node let go");
    ensure!(world.namespace_uid("leaving")?.is_some(), "the namespace did not wait for node-3");
    let file = world.rules_file("leaving")?.context("the FalcoRulesFile did not wait for node-3")?;
    ensure!(file.status.as_ref().map(|it| it.phase) == Some(Phase::Withdrawing), "{:?}", file.status);
    world.cluster.signal(SYSTEM, &slow, None, Signal::SIGCONT)?;
    world.namespace_gone("leaving")?;
    ensure!(world.bundle("leaving")?.is_none(), "its bundle is still there");
    stays.end()?;
    world.active("staying", "one", 3)?;
    world.clear(&["staying"])
}

fn namespace_again(world: &World) -> Result<()> {
    world.create_namespace("again")?;
    world.rule("again", "old", BASH)?;
    world.active("again", "old", 3)?;
    let before = world.namespace_uid("again")?;
    world.delete_namespace("again")?;
    wait::until("the namespace can be created again", crate::support::LIMIT, || world.create_namespace("again"))?;
    let now = world.namespace_uid("again")?;
    ensure!(before != now);
    world.rule("again", "new", "container.id != host and proc.name = zsh")?;
    world.active("again", "new", 3)?;
    let file = world.everywhere("again")?;
    ensure!(file.contains("zsh") && !file.contains("bash"), "something was inherited:\n{file}");
    ensure!(world.bundle("again")?.map(|it| it.spec.namespace_uid) == now);
    world.clear(&["again"])
}

fn rules_file_by_hand(world: &World) -> Result<()> {
    world.create_namespace("by-hand")?;
    world.rule("by-hand", "one", BASH)?;
    world.active("by-hand", "one", 3)?;
    let before = world.phase("by-hand", Phase::Active)?;
    let loads: Vec<_> = world.nodes()?.iter().map(|node| world.loads(node)).collect::<Result<_>>()?;
    let stays = world.files_stay(&["by-hand"])?;
    world.wait(world.api::<FalcoRulesFile>("by-hand").delete("by-hand", &DeleteParams::default()))?;
    let after = world.until("it is there again, and Active", "by-hand", || {
        let file = world.rules_file("by-hand")?.context("it is not there")?;
        ensure!(file.uid() != before.uid(), "it is still the old one");
        ensure!(file.status.as_ref().map(|it| it.phase) == Some(Phase::Active), "{:?}", file.status);
        Ok(file)
    })?;
    stays.end()?;
    ensure!(after.finalizers() == [FINALIZER]);
    let target = |file: &FalcoRulesFile| file.status.as_ref().and_then(|it| it.target_hash.clone());
    ensure!(target(&before) == target(&after), "the file changed");
    let since: Vec<_> = world.nodes()?.iter().map(|node| world.loads(node)).collect::<Result<_>>()?;
    ensure!(loads == since, "nodes loaded for it: {loads:?} then {since:?}");
    world.active("by-hand", "one", 3)?;
    world.rule("by-hand", "one", "container.id != host and proc.name = zsh")?;
    world.active("by-hand", "one", 3)?;
    world.clear(&["by-hand"])
}

/// How often each node has loaded its rules.
fn loads(world: &World) -> Result<Vec<usize>> {
    world.nodes()?.iter().map(|node| world.loads(node)).collect()
}

fn rolled_back(world: &World) -> Result<()> {
    if !faults()? {
        return Ok(());
    }
    world.create_namespace("back")?;
    world.rule("back", "one", BASH)?;
    world.rule("back", "two", BASH)?;
    world.active("back", "one", 3)?;
    world.active("back", "two", 3)?;
    let good = world.everywhere("back")?;

    // It passes each check, and no Falco starts with it.
    let doomed = faulty("one of back", "container.id != host and proc.name = zsh", "refuse-at-load");
    let stays = world.files_stay(&["back"])?;
    world.apply("back", "one", &doomed)?;
    let file = world.phase("back", Phase::RolledBack)?;
    let status = file.status.context("no status")?;
    ensure!(status.rejected_hash.is_some() && status.rejected_reason.is_some(), "{status:?}");
    let rule = world.until("the rule says so", "back", || {
        let rule = world.read("back", "one")?;
        let phase = rule.status.as_ref().and_then(|it| it.phase);
        ensure!(phase == Some(ItemPhase::RolledBack) && is(&rule, "Ready") == Some(false), "{:?}", rule.status);
        Ok(rule)
    })?;
    ensure!(rule.status.as_ref().is_some_and(|it| it.message.is_some()), "no message: {:?}", rule.status);
    // Two nodes that refuse it decide; the third may still have it before itself.
    world.until("the last good file is back on every node", "back", || {
        ensure!(world.everywhere("back")? == good);
        Ok(())
    })?;
    // Its neighbour, which is as it was, stays what it was.
    world.active("back", "two", 3)?;

    // It is not tried again by itself.
    world.rest(Duration::from_secs(5))?;
    let before = loads(world)?;

    // Somebody asks for it: it is tried, and fails again.
    retry(world, "back", "one")?;
    world.until("it was tried and is rolled back again", "back", || {
        let file = world.rules_file("back")?.context("no FalcoRulesFile")?;
        let status = file.status.context("no status")?;
        ensure!(status.phase == Phase::RolledBack && status.retry_token.as_deref() == Some("one"), "{status:?}");
        ensure!(loads(world)?.iter().zip(&before).any(|(now, before)| now > before), "no node has tried it");
        ensure!(world.everywhere("back")? == good);
        Ok(())
    })?;

    // Reverted: what is wished for is what runs.
    world.rest(Duration::from_secs(5))?;
    let before = loads(world)?;
    world.rule("back", "one", BASH)?;
    world.active("back", "one", 3)?;
    world.phase("back", Phase::Active)?;
    let since = loads(world)?;
    ensure!(before == since, "nodes loaded what they had loaded: {before:?} then {since:?}");
    stays.end()?;

    // The next edit starts over.
    world.rule("back", "one", "container.id != host and proc.name = ksh")?;
    world.active("back", "one", 3)?;
    ensure!(world.everywhere("back")?.contains("ksh"));

    // A fault that was the nodes' own after all: once it is mended, a retry succeeds without an edit.
    let nodes = world.nodes()?;
    nodes.iter().try_for_each(|node| world.fault(node, "refuse-at-load", "mended later\n"))?;
    let mut later = spec("one of back", "container.id != host and proc.name = dash");
    later["desc"] = json!("mended later");
    world.apply("back", "one", &later)?;
    world.phase("back", Phase::RolledBack)?;
    nodes.iter().try_for_each(|node| world.heal(node, "refuse-at-load"))?;
    retry(world, "back", "two")?;
    world.active("back", "one", 3)?;
    ensure!(world.everywhere("back")?.contains("mended later"));
    world.clear(&["back"])
}

fn retry(world: &World, namespace: &str, token: &str) -> Result<()> {
    let patch = json!({"spec": {"retryToken": token}});
    let api = world.api::<FalcoRulesFile>(namespace);
    world.wait(api.patch(namespace, &PatchParams::default(), &Patch::Merge(&patch)))?;
    Ok(())
}

fn burst(world: &World) -> Result<()> {
    const EDITS: usize = 200;
    world.create_namespace("burst")?;
    world.rule("burst", "one", BASH)?;
    world.active("burst", "one", 3)?;
    world.rest(Duration::from_secs(3))?;
    let before: Vec<_> = world.nodes()?.iter().map(|node| world.loads(node)).collect::<Result<_>>()?;
    let mark = world.cluster.mark();
    let begun = Instant::now();
    let api = world.api::<FalcoRule>("burst");
    world.wait(async {
        let edits = (0..EDITS).map(|number| {
            let api = &api;
            async move {
                let patch =
                    json!({"spec": {"condition": format!("container.id != host and proc.name = edit{number}")}});
                api.patch("one", &PatchParams::default(), &Patch::Merge(&patch)).await
            }
        });
        futures::stream::iter(edits).buffer_unordered(8).try_collect::<Vec<_>>().await
    })?;
    let took = begun.elapsed();
    let rule = world.active("burst", "one", 3)?;
    let file = world.everywhere("burst")?;
    ensure!(file.contains(&rule.spec.condition), "the last edit is not in force");
    // A machine too slow for 200 edits in a second has more seconds to reload in.
    let most = 3 * took.as_secs_f64().ceil().max(1.0) as usize;
    let after: Vec<_> = world.nodes()?.iter().map(|node| world.loads(node)).collect::<Result<_>>()?;
    println!("       {EDITS} edits in {:.1} s: loads before {before:?}, after {after:?}", took.as_secs_f64());
    for (before, after) in before.iter().zip(&after) {
        ensure!(after - before <= most, "{} loads, where {most} are enough", after - before);
    }
    println!("       writes: {:?}", count(&world.our_writes(mark)?));
    world.clear(&["burst"])
}

fn at_rest(world: &World) -> Result<()> {
    world.create_namespace("rest")?;
    world.rule("rest", "one", BASH)?;
    world.rule("rest", "bad", "proc.nonsense = bash")?;
    world.active("rest", "one", 3)?;
    rejected(world, "rest", "bad", "proc.nonsense")?;
    world.rest(Duration::from_secs(5))?;
    let mark = world.cluster.mark();
    std::thread::sleep(Duration::from_secs(60));
    let writes = world.our_writes(mark)?;
    ensure!(writes.is_empty(), "{:?}", writes.iter().map(|it| &it.raw).collect::<Vec<_>>());
    world.clear(&["rest"])
}
