//! What is denied, what is warned of, and what is let in.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FalcoRule, ItemPhase};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{LIMIT, Scenarios, World, is, spec};
use crate::{answers, both_serve, configuration, kubectl, manifest, secret, trusted};

/// A namespace in which names are taken as they are written.
const POLICY: &str = "policy: {overrides: [{namespaces: [verbatim], isolation: {names: verbatim}}]}";

/// A condition that nothing can be said against.
const GOOD: &str = "evt.type = execve and proc.name = bash";

#[test]
fn developers_are_answered_at_once() {
    let world = World::start(2, &format!("webhook: {{enabled: true}}\n{POLICY}\n")).unwrap();
    answers(&world).unwrap();
    Scenarios::of(&world)
        .run("what is wrong is refused with its place", refused_with_its_place)
        .run("an object that can't be decoded is refused in words", undecodable)
        .run("what Falco would warn of is warned of, and goes in", warned)
        .run("the examples go in, in the order of their files", examples)
        .run("a macro that others use is changed", broken_by_a_macro)
        .run("a macro is followed by its rule at once", at_once)
        .run("taken names are answered as the policy says", names)
        .run("both controllers serve what is trusted", both_serve)
        .run("nobody answers: the object goes in, and its status says what is wrong", nobody_answers)
        .run("an upgrade leaves what the controllers keep", upgrade)
        .run("at rest nothing is written", at_rest)
        .end();
}

fn apply(world: &World, kind: &str, namespace: &str, name: &str, spec: &Value) -> Result<crate::Said> {
    kubectl(world, &["apply"], &manifest(kind, namespace, name, spec))
}

fn refused_with_its_place(world: &World) -> Result<()> {
    let broken = spec("broken", "evt.type = execve and\nproc.nmae = bash and fd.nonsense = 1");
    let said = apply(world, "FalcoRule", "default", "broken", &broken)?;
    ensure!(!said.well && said.out.is_empty(), "it went in: {}{}", said.out, said.err);
    for line in [
        r#"The FalcoRule "broken" is invalid: "#,
        "* spec.condition: there is no field `proc.nmae` [unknown-field]",
        " --> spec.condition:2:1",
        "2 | proc.nmae = bash and fd.nonsense = 1",
        "  | ^^^^^^^^^",
        "  = help: did you mean `proc.name`?",
        " --> spec.condition:2:22",
    ] {
        ensure!(said.err.lines().any(|found| found == line), "no line {line:?} in\n{}", said.err);
    }
    ensure!(world.get(&world.api::<FalcoRule>("default"), "broken")?.is_none(), "it is there all the same");

    // An edit that breaks a rule leaves the rule as it was.
    let good = apply(world, "FalcoRule", "default", "edited", &spec("edited", GOOD))?;
    ensure!(good.well && good.err.is_empty(), "{}", good.err);
    let edit = apply(world, "FalcoRule", "default", "edited", &spec("edited", "proc.nonsense = bash"))?;
    ensure!(!edit.well && edit.err.contains("^^^^^^^^^^^^^"), "{}", edit.err);
    ensure!(world.read("default", "edited")?.spec.condition == GOOD);
    world.active("default", "edited", 2)?;

    // Other programs than kubectl have the message.
    let object: FalcoRule = serde_json::from_value(manifest("FalcoRule", "default", "broken", &broken))?;
    let refused = world.wait(world.api("default").create(&kube::api::PostParams::default(), &object));
    match refused {
        Err(kube::Error::Api(status)) => {
            ensure!(status.code == 422 && status.reason == "Invalid", "{status:?}");
            ensure!(status.message.contains("denied the request: spec.condition: there is no field"), "{status:?}");
            ensure!(status.details.as_ref().is_some_and(|it| it.causes.len() == 2), "{status:?}");
        }
        other => anyhow::bail!("{other:?}"),
    }
    for (kind, spec) in [
        ("FalcoMacro", json!({"macro": "m", "condition": "proc.name ="})),
        ("FalcoList", json!({"list": "l", "items": ["l"]})),
    ] {
        let said = apply(world, kind, "default", "broken", &spec)?;
        ensure!(!said.well && said.err.contains("is invalid"), "{kind}: {}{}", said.out, said.err);
    }
    world.delete_rule("default", "edited")
}

fn undecodable(world: &World) -> Result<()> {
    let mut odd = spec("odd", GOOD);
    odd["exceptions"] = json!([{"name": "x", "fields": 5}]);
    let said = apply(world, "FalcoRule", "default", "odd", &odd)?;
    let words = "spec.exceptions[0].fields: the object can't be read: expected a text or a list of texts";
    ensure!(!said.well && said.err.contains(words), "{}{}", said.out, said.err);
    Ok(())
}

fn warned(world: &World) -> Result<()> {
    let said = apply(world, "FalcoRule", "default", "broad", &spec("broad", "proc.name = bash"))?;
    ensure!(said.well && said.out.contains("created"), "{}{}", said.out, said.err);
    let warnings: Vec<&str> = said.err.lines().filter(|line| line.starts_with("Warning: condition: ")).collect();
    ensure!(warnings.len() == 1, "{}", said.err);
    world.delete_rule("default", "broad")
}

fn examples(world: &World) -> Result<()> {
    // A rule comes before the macro that it uses, and that before its list.
    world.cluster.kubectl(&["apply", "-f", "examples"])?;
    let rules = world.wait(world.api::<FalcoRule>("default").list(&ListParams::default()))?.items;
    ensure!(rules.len() > 1, "{} rules", rules.len());
    for rule in &rules {
        world.active("default", &rule.name_any(), 2)?;
    }
    world.cluster.kubectl(&["delete", "-f", "examples"]).map(drop)
}

fn broken_by_a_macro(world: &World) -> Result<()> {
    world.create_namespace("macros")?;
    let good = json!({"macro": "ours", "condition": GOOD});
    ensure!(apply(world, "FalcoMacro", "macros", "ours", &good)?.well);
    ensure!(apply(world, "FalcoRule", "macros", "user", &spec("user", "ours and proc.pname = sh"))?.well);
    world.active("macros", "user", 2)?;
    let renamed = json!({"macro": "theirs", "condition": GOOD});
    let said = apply(world, "FalcoMacro", "macros", "ours", &renamed)?;
    let warning =
        "Warning: this breaks FalcoRule `user` (what is in force stays): condition, column 1: there is no macro `ours`";
    ensure!(said.well && said.err.contains(warning), "{}{}", said.out, said.err);
    // The rule's own status says so too, and its last version stays in force.
    world.until("the rule says that it is broken", "macros", || {
        let rule = world.read("macros", "user")?;
        ensure!(is(&rule, "Ready") == Some(false), "{:?}", rule.status);
        Ok(())
    })?;
    ensure!(world.everywhere("macros")?.contains("user"));
    world.clear(&["macros"])
}

fn at_once(world: &World) -> Result<()> {
    world.create_namespace("quick")?;
    // The rule's slip would be refused if the macro were not known yet: it looks like the name of the one before.
    let list = |name: &str| {
        let other = json!({"macro": format!("{name}_x"), "condition": GOOD});
        let own = json!({"macro": name, "condition": GOOD});
        json!({"apiVersion": "v1", "kind": "List", "items": [
            manifest("FalcoMacro", "quick", &format!("{name}-x").replace('_', "-"), &other),
            manifest("FalcoMacro", "quick", &name.replace('_', "-"), &own),
            manifest("FalcoRule", "quick", &name.replace('_', "-"), &spec(name, &format!("{name} and proc.pname = sh"))),
        ]})
    };
    for number in 0..10 {
        let said = kubectl(world, &["apply"], &list(&format!("macro_number_{number}")))?;
        ensure!(said.well && said.err.is_empty(), "{number}: {}{}", said.out, said.err);
    }
    world.clear(&["quick"])
}

fn names(world: &World) -> Result<()> {
    for namespace in ["first", "second", "verbatim"] {
        world.create_namespace(namespace)?;
    }
    ensure!(apply(world, "FalcoRule", "first", "r", &spec("the name", GOOD))?.well);
    world.active("first", "r", 2)?;
    let said = apply(world, "FalcoRule", "second", "r", &spec("the name", GOOD))?;
    ensure!(said.well && said.err.contains("alerts will show this rule as `second/the name`"), "{}", said.err);
    let said = apply(world, "FalcoRule", "verbatim", "r", &spec("the name", GOOD))?;
    ensure!(!said.well && said.err.contains("a rule of another namespace has the name `the name`"), "{}", said.err);
    world.clear(&["first", "second", "verbatim"])
}

fn nobody_answers(world: &World) -> Result<()> {
    world.create_namespace("alone")?;
    world.scale_controller(0)?;
    let broken = spec("broken", "proc.nonsense = bash");
    let said = apply(world, "FalcoRule", "alone", "broken", &broken)?;
    ensure!(said.well, "{}", said.err);
    ensure!(apply(world, "FalcoRule", "alone", "leaving", &spec("leaving", "proc.nonsense = sh"))?.well);
    world.scale_controller(2)?;
    world.until("the controller says what is wrong", "alone", || {
        let rule = world.read("alone", "broken")?;
        let status = rule.status.clone().context("no status yet")?;
        let told = status.message.as_deref().unwrap_or_default().contains("proc.nonsense");
        ensure!(status.phase == Some(ItemPhase::Rejected) && told, "{status:?}");
        Ok(())
    })?;
    answers(world)?;
    both_serve(world)?;

    // What is broken can be labelled, kept by a finalizer, let go, and deleted; only its spec is answered.
    let api = world.api::<FalcoRule>("alone");
    let merge = |patch: Value| world.wait(api.patch("leaving", &PatchParams::default(), &Patch::Merge(&patch)));
    merge(json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["example.com/wait"]}}))?;
    world.wait(api.delete("leaving", &DeleteParams::default()))?;
    ensure!(world.read("alone", "leaving")?.metadata.deletion_timestamp.is_some());
    merge(json!({"metadata": {"finalizers": null}}))?;
    ensure!(world.get(&api, "leaving")?.is_none());
    ensure!(merge_spec(world, "broken", "proc.nonsense = fish").is_err(), "the webhook is asked about specs again");
    merge_spec(world, "broken", GOOD)?;
    world.delete_rule("alone", "broken")?;
    world.clear(&["alone"])
}

fn merge_spec(world: &World, name: &str, condition: &str) -> Result<()> {
    let patch = json!({"spec": {"condition": condition}});
    world.wait(world.api::<FalcoRule>("alone").patch(name, &PatchParams::default(), &Patch::Merge(&patch)))?;
    Ok(())
}

fn upgrade(world: &World) -> Result<()> {
    let (bundle, data) = (trusted(world)?, secret(world)?.data);
    ensure!(data.as_ref().is_some_and(|data| data.contains_key("keyring.json")), "the Secret is empty");
    let mark = world.cluster.mark();
    let values =
        format!("webhook: {{enabled: true, timeoutSeconds: 4}}\ncontroller: {{podLabels: {{a: b}}}}\n{POLICY}\n");
    world.release.upgrade(&world.cluster, &values)?;
    ensure!(configuration(world)?.webhooks.context("no webhook")?[0].timeout_seconds == Some(4));
    ensure!(trusted(world)? == bundle && secret(world)?.data == data, "the upgrade took what is not the chart's");
    world.release.wait(&world.cluster, LIMIT)?;
    both_serve(world)?;
    answers(world)?;
    ensure!(trusted(world)? == bundle && secret(world)?.data == data, "new controllers began anew");
    let ours = world.our_writes(mark)?;
    let touched = |it: &&test_cluster::audit::AuditEvent| it.resource.ends_with("secrets");
    ensure!(!ours.iter().any(|it| touched(&it)), "the Secret was written though nothing was to be changed");
    Ok(())
}

fn at_rest(world: &World) -> Result<()> {
    world.rest(Duration::from_secs(5))?;
    let mark = world.cluster.mark();
    std::thread::sleep(Duration::from_secs(40));
    let writes = world.our_writes(mark)?;
    ensure!(writes.is_empty(), "{:?}", writes.iter().map(|it| &it.raw).collect::<Vec<_>>());
    Ok(())
}
