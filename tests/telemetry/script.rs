//! What happens in the cluster while Prometheus looks on.

use std::fs;

use anyhow::{Context, Result, ensure};
use falco_operator::api::{ItemPhase, Phase};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use test_cluster::{Prometheus, wait};

use crate::support::{BASH, FAULTS, LIMIT, World, faulty};

/// The namespace whose dashboard is looked at.
pub const TEAM: &str = "team-a";
/// The namespace whose edit is rolled back.
pub const BROKEN: &str = "team-c";
/// The node that has trouble.
pub const SICK: &str = "node-3";

const NODES: usize = 3;

/// Developers write, correct and break rules; rules match; a node has trouble.
pub fn run(world: &World, prometheus: &Prometheus) -> Result<()> {
    for namespace in [TEAM, "team-b", BROKEN] {
        world.create_namespace(namespace)?;
    }
    world.rule(TEAM, "shell", BASH)?;
    world.rule(TEAM, "miner", "container.id != host and proc.name in (xmrig, minerd)")?;
    world.rule("team-b", "shell", BASH)?;
    world.rule(BROKEN, "shell", BASH)?;
    for (namespace, name) in [(TEAM, "shell"), (TEAM, "miner"), ("team-b", "shell"), (BROKEN, "shell")] {
        world.active(namespace, name, NODES)?;
    }
    for round in 1..=3 {
        events(world, round)?;
        matched(world, prometheus, round)?;
        // An edit in between: what Falco counts begins anew, what the agents tell goes on.
        world.rule(TEAM, "shell", &format!("container.id != host and proc.name in (bash, zsh{round})"))?;
        world.active(TEAM, "shell", NODES)?;
    }
    rejected(world)?;
    rolled_back(world)?;
    sick(world)?;
    loaded(prometheus, 4)?;
    matched(world, prometheus, 4)
}

/// The stand-in's events and losses since its load, more with each round.
fn events(world: &World, round: u64) -> Result<()> {
    for node in world.nodes()? {
        let lost = if node == SICK { 40 * round } else { 0 };
        world.fault(&node, "counts", &format!("{} {lost} {}", 9000 * round, lost / 20))?;
    }
    Ok(())
}

/// Lets rules match on every node, and waits until Prometheus has seen it.
fn matched(world: &World, prometheus: &Prometheus, round: u64) -> Result<()> {
    let before = seen(prometheus)?;
    let mut more = 0.0;
    for (at, node) in (1..).zip(world.nodes()?) {
        let times = round * at;
        more += (times + 2) as f64;
        let events = [
            json!({ "rule": format!("shell of {TEAM}"), "times": times, "fields": { "proc.name": "bash" } }),
            json!({ "rule": format!("miner of {TEAM}"), "times": 1 }),
            json!({ "rule": "shell of team-b", "times": 1 }),
            json!({ "rule": "Terminal shell in container", "times": 2 }),
        ];
        let folder = world.cluster.node_path(&node, FAULTS);
        fs::create_dir_all(&folder)?;
        let draft = folder.join("draft");
        fs::write(&draft, events.map(|event| format!("{event}\n")).concat())?;
        fs::rename(draft, folder.join("match"))?;
    }
    wait::until("Prometheus has seen the matches", LIMIT, || {
        let now = seen(prometheus)?;
        ensure!(now >= before + more, "{now} after {before}, {more} more are awaited");
        Ok(())
    })
}

/// Waits until Prometheus has seen that every node runs so many rules: what matches elsewhere counts for nothing.
fn loaded(prometheus: &Prometheus, rules: usize) -> Result<()> {
    wait::until("every node runs the rules", LIMIT, || {
        let query = format!("count(falco_operator_agent_rules_loaded == {rules} and falco_operator_agent_proved == 1)");
        let found = prometheus.ask("query", &[("query", &query)])?;
        let nodes = found["result"][0]["value"][1].as_str().unwrap_or_default();
        ensure!(
            nodes == NODES.to_string(),
            "{}",
            prometheus.ask("query", &[("query", "falco_operator_agent_rules_loaded")])?
        );
        Ok(())
    })
}

/// The matches that Prometheus knows of.
fn seen(prometheus: &Prometheus) -> Result<f64> {
    let found = prometheus.ask("query", &[("query", "sum(falco_operator_agent_rule_matches_total)")])?;
    let value = found["result"][0]["value"][1].as_str().unwrap_or("0");
    value.parse().with_context(|| value.to_owned())
}

/// A typo is refused when it is applied; where the webhook is not asked, by the controller, and stays.
fn rejected(world: &World) -> Result<()> {
    let typo = "container.id != host and proc.nmae = bash";
    let refused = world.rule(TEAM, "typo", typo);
    ensure!(refused.as_ref().is_err_and(|err| format!("{err:#}").contains("proc.nmae")), "{refused:?}");
    world.rule("team-b", "typo", typo)?;
    world.until("the typo is refused", "team-b", || {
        let status = world.read("team-b", "typo")?.status.context("no status")?;
        ensure!(status.phase == Some(ItemPhase::Rejected), "{status:?}");
        Ok(())
    })
}

/// What every node refuses is taken back.
fn rolled_back(world: &World) -> Result<()> {
    world.apply(BROKEN, "shell", &faulty(&format!("shell of {BROKEN}"), BASH, "refuse"))?;
    world.phase(BROKEN, Phase::RolledBack).map(drop)
}

/// Falco dies on one node; after that the node alone refuses an edit.
fn sick(world: &World) -> Result<()> {
    // Killed by somebody else: had it died by itself so soon after a load, the newest files would be on trial anew.
    let before = world.falcos(SICK)?;
    for pid in &before {
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
    }
    world.until("Falco was killed and is back", TEAM, || {
        let report = world.report(SICK)?.context("no report")?.status.context("no status")?;
        let now = world.falcos(SICK)?;
        ensure!(report.fault.is_none() && now.len() == 1 && now != before, "{now:?} after {before:?}: {report:?}");
        Ok(())
    })?;
    let rule = format!("miner of {TEAM}");
    world.apply(TEAM, "miner", &faulty(&rule, BASH, &format!("refuse on {SICK}")))?;
    world.until("the node refuses the edit", TEAM, || {
        let report = world.report(SICK)?.context("no report")?.status.context("no status")?;
        let entry = report.namespaces.iter().find(|entry| entry.namespace == TEAM);
        ensure!(entry.is_some_and(|entry| entry.tried.is_some()), "{report:?}");
        Ok(())
    })?;
    // The others load it.
    world.until("the other nodes have the edit", TEAM, || {
        let text = world.file("node-1", TEAM)?.unwrap_or_default();
        ensure!(text.contains("refuse on"), "{text}");
        Ok(())
    })?;
    // And have said so: what a Falco counts while it reloads may be seen by nobody.
    world.phase(TEAM, Phase::Degraded)?;
    Ok(())
}
