//! Controllers that are away, come in twos, die and freeze.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::DeleteParams;
use test_cluster::audit::AuditEvent;
use test_cluster::{Signal, wait};

use crate::support::{BASH, LIMIT, SYSTEM, Scenarios, World};

#[test]
fn controllers_come_and_go() {
    let world = World::start(2, "{}\n").unwrap();
    Scenarios::of(&world)
        .run("what is deleted while the controller is down is gone when it is back", away)
        .run("of two controllers one writes", two)
        .run("a killed leader is followed", killed)
        .run("a leader that freezes beyond its lease writes nothing more", frozen)
        .end();
}

fn away(world: &World) -> Result<()> {
    for (namespace, rules) in [("one-of-two", &["one", "two"][..]), ("the-last", &["one"]), ("the-namespace", &["one"])]
    {
        world.create_namespace(namespace)?;
        for rule in rules {
            world.rule(namespace, rule, BASH)?;
        }
        for rule in rules {
            world.active(namespace, rule, 2)?;
        }
    }
    world.scale_controller(0)?;
    world.delete_rule("one-of-two", "two")?;
    world.delete_rule("the-last", "one")?;
    world.delete_namespace("the-namespace")?;
    world.create_namespace("born-meanwhile")?;
    world.rule("born-meanwhile", "one", BASH)?;
    std::thread::sleep(Duration::from_secs(2));
    // Nobody is there to ask the nodes to let go, so nothing may be let go.
    world.everywhere("the-namespace")?;
    ensure!(world.namespace_uid("the-namespace")?.is_some(), "the namespace did not wait for its nodes");
    let stays = world.files_stay(&["one-of-two"])?;
    world.scale_controller(1)?;
    world.withdrawn("the-last")?;
    world.namespace_gone("the-namespace")?;
    world.active("born-meanwhile", "one", 2)?;
    world.until("the file is without the deleted rule", "one-of-two", || {
        let file = world.everywhere("one-of-two")?;
        ensure!(file.contains("one of") && !file.contains("two of"), "{file}");
        Ok(())
    })?;
    world.active("one-of-two", "one", 2)?;
    stays.end()?;
    world.clear(&["one-of-two", "the-last", "born-meanwhile"])
}

/// Whether it is a write of a controller that changed something.
fn by_controller(event: &AuditEvent) -> bool {
    event.succeeded() && event.is_by("kube-system/") && event.user.contains("controller")
}

fn two(world: &World) -> Result<()> {
    world.scale_controller(2)?;
    let leader = wait::until("there is a leader", LIMIT, || world.leader())?;
    let mark = world.cluster.mark();
    for namespace in ["two-a", "two-b"] {
        world.create_namespace(namespace)?;
        world.rule(namespace, "one", BASH)?;
    }
    for namespace in ["two-a", "two-b"] {
        world.active(namespace, "one", 2)?;
        world.rule(namespace, "one", "container.id != host and proc.name = zsh")?;
        world.active(namespace, "one", 2)?;
    }
    let writers: BTreeSet<_> =
        world.our_writes(mark)?.into_iter().filter(by_controller).filter_map(|event| event.pod).collect();
    ensure!(writers == BTreeSet::from([leader.clone()]), "{writers:?} wrote, where {leader} leads");
    world.clear(&["two-a", "two-b"])
}

fn killed(world: &World) -> Result<()> {
    world.scale_controller(2)?;
    let leader = wait::until("there is a leader", LIMIT, || world.leader())?;
    world.create_namespace("killed")?;
    world.rule("killed", "one", BASH)?;
    world.active("killed", "one", 2)?;
    let stays = world.files_stay(&["killed"])?;
    let mark = world.cluster.mark();
    world.rule("killed", "one", "container.id != host and proc.name = zsh")?;
    world.cluster.signal(SYSTEM, &leader, None, Signal::SIGKILL)?;
    world.rule("killed", "one", "container.id != host and proc.name = ksh")?;
    world.active("killed", "one", 2)?;
    // With the power of its node gone it does not come back at once, and another one follows.
    let leader = wait::until("there is a leader", LIMIT, || world.leader())?;
    let pod = world.wait(world.api::<k8s_openapi::api::core::v1::Pod>(SYSTEM).get(&leader))?;
    world.wait(
        world
            .api::<k8s_openapi::api::core::v1::Pod>(SYSTEM)
            .delete(&pod.name_any(), &DeleteParams::default().grace_period(0)),
    )?;
    world.rule("killed", "one", "container.id != host and proc.name = fish")?;
    world.active("killed", "one", 2)?;
    let next = wait::until("another one leads", LIMIT, || {
        let next = world.leader()?;
        ensure!(next != leader);
        Ok(next)
    })?;
    one_after_the_other(&world.our_writes(mark)?, &leader, &next)?;
    stays.end()?;
    ensure!(world.everywhere("killed")?.contains("fish"));
    world.clear(&["killed"])
}

/// After the new leader's first write to an object, none of the old one's to it succeeds.
fn one_after_the_other(writes: &[AuditEvent], old: &str, new: &str) -> Result<()> {
    let mut taken = BTreeMap::new();
    for (index, event) in writes.iter().enumerate().filter(|(_, event)| by_controller(event)) {
        let object = format!("{} {}/{}", event.resource.trim_end_matches("/status"), event.namespace, event.name);
        match event.pod.as_deref() {
            Some(pod) if pod == new => {
                taken.entry(object).or_insert(index);
            }
            Some(pod) if pod == old => {
                ensure!(!taken.contains_key(&object), "{old} wrote {object} after {new} had: {:?}", event.raw);
            }
            _ => {}
        }
    }
    Ok(())
}

fn frozen(world: &World) -> Result<()> {
    world.scale_controller(2)?;
    let old = wait::until("there is a leader", LIMIT, || world.leader())?;
    let namespaces = ["frozen-a", "frozen-b", "frozen-c"];
    for namespace in namespaces {
        world.create_namespace(namespace)?;
        world.rule(namespace, "one", BASH)?;
    }
    for namespace in namespaces {
        world.active(namespace, "one", 2)?;
    }
    let stays = world.files_stay(&namespaces)?;
    let mark = world.cluster.mark();
    // Frozen in the middle of its work: it has read, maybe decided, and not yet written.
    for (number, namespace) in namespaces.iter().enumerate() {
        world.rule(namespace, "one", &format!("container.id != host and proc.name = shell{number}"))?;
    }
    world.cluster.signal(SYSTEM, &old, None, Signal::SIGSTOP)?;
    let next = wait::until("another one leads", LIMIT, || {
        let next = world.leader()?;
        ensure!(next != old, "{old} still leads");
        Ok(next)
    })?;
    for namespace in namespaces {
        world.active(namespace, "one", 2)?;
    }
    world.cluster.signal(SYSTEM, &old, None, Signal::SIGCONT)?;
    // The old one wakes with what it wanted to write; developers go on.
    for number in 0..3 {
        for namespace in namespaces {
            world.rule(namespace, "one", &format!("container.id != host and proc.name = again{number}"))?;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    for namespace in namespaces {
        world.active(namespace, "one", 2)?;
        ensure!(world.everywhere(namespace)?.contains("again2"));
    }
    let writes = world.our_writes(mark)?;
    ensure!(world.leader()? == next, "the lease moved on while nothing was wrong");
    let by_next = writes.iter().filter(|it| by_controller(it) && it.pod.as_deref() == Some(next.as_str())).count();
    ensure!(by_next > 0, "the new leader wrote nothing");
    one_after_the_other(&writes, &old, &next)?;
    let late = writes.iter().filter(|it| it.pod.as_deref() == Some(old.as_str()) && !it.succeeded()).count();
    println!("       the old leader tried {late} writes in vain");
    stays.end()?;
    world.clear(&namespaces).context("in the end")
}
