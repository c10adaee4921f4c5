//! Processes killed at random points of a running sequence.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use falco_operator::api::Phase;
use kube::ResourceExt;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use test_cluster::Signal;

use crate::support::{Random, Scenarios, World};

/// How many steps a sequence has: an edit, a deletion or a creation each, with a death now and then.
const STEPS: usize = 40;

#[test]
fn the_end_is_right_whoever_is_killed() {
    let world = World::start(3, "{}\n").unwrap();
    Scenarios::of(&world).run("processes are killed at random points", killed).end();
}

fn killed(world: &World) -> Result<()> {
    world.scale_controller(2)?;
    let mut random = Random::seeded()?;
    let namespaces = ["chaos-a", "chaos-b", "chaos-c"];
    // What should be in the end: the shell that each rule of each namespace names.
    let mut wished: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for namespace in namespaces {
        world.create_namespace(namespace)?;
    }
    let mut story = Vec::new();
    for step in 0..STEPS {
        let namespace = namespaces[random.below(namespaces.len())];
        let rule = ["one", "two", "three"][random.below(3)];
        match random.below(5) {
            0 if wished.remove(&(namespace, rule)).is_some() => {
                world.delete_rule(namespace, rule)?;
                story.push(format!("{namespace}/{rule} deleted"));
            }
            _ => {
                let shell = format!("shell{step}");
                world.rule(namespace, rule, &format!("container.id != host and proc.name = {shell}"))?;
                story.push(format!("{namespace}/{rule} {shell}"));
                wished.insert((namespace, rule), shell);
            }
        }
        let victim = match random.below(6) {
            0 => random_agent(world, &mut random)?,
            1 => random_controller(world, &mut random)?,
            2 => random_falco(world, &mut random),
            _ => None,
        };
        story.extend(victim);
        std::thread::sleep(Duration::from_millis(random.below(600) as u64));
    }
    right(world, &namespaces, &wished).with_context(|| format!("after {story:?}"))?;
    world.clear(&namespaces)
}

/// What was killed, in words; nothing where it was not there.
fn random_agent(world: &World, random: &mut Random) -> Result<Option<String>> {
    let agents = world.agents()?;
    let Some(pod) = agents.get(random.below(agents.len())) else { return Ok(None) };
    let killed = world.cluster.signal("kube-system", &pod.name_any(), None, Signal::SIGKILL).is_ok();
    Ok(killed.then(|| format!("SIGKILL {}", pod.name_any())))
}

fn random_controller(world: &World, random: &mut Random) -> Result<Option<String>> {
    let controllers = world.controllers()?;
    let Some(pod) = controllers.get(random.below(controllers.len())) else { return Ok(None) };
    let killed = world.cluster.signal("kube-system", pod, None, Signal::SIGKILL).is_ok();
    Ok(killed.then(|| format!("SIGKILL {pod}")))
}

fn random_falco(world: &World, random: &mut Random) -> Option<String> {
    let node = format!("node-{}", random.below(3) + 1);
    let falcos = world.falcos(&node).unwrap_or_default();
    let killed = kill(Pid::from_raw(*falcos.first()?), Signal::SIGKILL).is_ok();
    killed.then(|| format!("SIGKILL Falco of {node}"))
}

fn right(world: &World, namespaces: &[&str], wished: &BTreeMap<(&str, &str), String>) -> Result<()> {
    for namespace in namespaces {
        let rules: Vec<_> = wished.iter().filter(|((its, _), _)| its == namespace).collect();
        if rules.is_empty() {
            world.withdrawn(namespace)?;
            continue;
        }
        for ((_, rule), _) in &rules {
            world.active(namespace, rule, 3)?;
        }
        world.phase(namespace, Phase::Active)?;
        world.until("every node has just what is wished for", namespace, || {
            let file = world.everywhere(namespace)?;
            ensure!(file.matches("- rule:").count() == rules.len(), "{file}");
            for (_, shell) in &rules {
                ensure!(file.contains(&format!("proc.name = {shell}\n")), "{shell} is not in\n{file}");
            }
            Ok(())
        })?;
    }
    Ok(())
}
