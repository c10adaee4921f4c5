//! What a developer sees who may edit one namespace: kubectl's tables and texts, this program's own, and what tools that
//! wait for objects make of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FalcoRulesFile, Phase};
use serde_json::{Value, json};
use test_cluster::{Signal, Tool, wait};

use crate::support::{BASH, LIMIT, Scenarios, WITH_FAULTS, World, faults, faulty, product, spec};

const TEAM: &str = "team-a";

#[test]
fn what_a_developer_sees() {
    let world = World::start(2, WITH_FAULTS).unwrap();
    world.cluster.kubectl(&["apply", "-f", "examples/developers.rolebinding.yaml"]).unwrap();
    world.create_namespace("team-b").unwrap();
    world.rule("team-b", "other", BASH).unwrap();
    let ann = Ann::new(&world).unwrap();
    wait::until("ann may write rules", LIMIT, || ann.kubectl(&["apply", "-f", "-"], Some(&rule("bash", BASH))))
        .unwrap();
    world.active(TEAM, "bash", 2).unwrap();
    world.active("team-b", "other", 2).unwrap();
    Scenarios::of(&world)
        .run("kubectl shows it in tables and in words", |world| tables(world, &ann))
        .run("a mistake is told in the status", |world| typo(world, &ann))
        .run("an Event is written once for each transition", events)
        .run("the status is one screen", |world| status(world, &ann))
        .run("a rollout is paused and resumed", |world| paused(world, &ann))
        .run("a file is rolled back and retried", |world| retried(world, &ann))
        .run("a rollout is watched", |world| watched(world, &ann))
        .run("tools that wait for objects read them rightly", kstatus)
        .end();
}

/// Somebody with the role for developers in one namespace.
struct Ann {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Ann {
    fn new(world: &World) -> Result<Self> {
        let text = std::fs::read_to_string(world.cluster.kubeconfig())?;
        let mut config: Value = serde_yaml::from_str(&text)?;
        for user in config["users"].as_array_mut().context("a kubeconfig has users")? {
            user["user"]["as"] = json!("ann");
            user["user"]["as-groups"] = json!([TEAM]);
        }
        for context in config["contexts"].as_array_mut().context("a kubeconfig has contexts")? {
            context["context"]["namespace"] = json!(TEAM);
        }
        let kubeconfig = world.cluster.dir().join("ann.kubeconfig");
        std::fs::write(&kubeconfig, config.to_string())?;
        let kubectl = PathBuf::from(world.cluster.command(Tool::Kubectl)?.get_program());
        Ok(Self { kubeconfig, kubectl })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig).env_remove("KUBERNETES_SERVICE_HOST").env_remove("NO_COLOR");
        command.current_dir(test_cluster::tools::repository());
        command
    }

    fn kubectl(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        use std::io::Write;
        let mut command = self.command(&self.kubectl);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("it has an input")?.write_all(input.unwrap_or_default().as_bytes())?;
        let out = child.wait_with_output()?;
        ensure!(out.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// This program, with what it prints and how it ends.
    fn run(&self, args: &[&str]) -> Result<Said> {
        Said::of(&self.command(&product()?.operator).args(args).output()?)
    }
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(out: &Output) -> Result<Self> {
        Ok(Self {
            code: out.status.code().context("it was killed")?,
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        })
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| self.out.clone())
    }
}

fn rule(name: &str, condition: &str) -> String {
    json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule", "metadata": {"name": name},
        "spec": spec(&format!("{name} of {TEAM}"), condition),
    })
    .to_string()
}

fn has(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in:\n{text}");
    }
    Ok(())
}

/// What went in past the webhook is told in the status, in the words that the page on rules shows.
fn typo(_: &World, ann: &Ann) -> Result<()> {
    let page = std::fs::read_to_string(test_cluster::tools::repository().join("docs/rules.md"))?;
    let command = "kubectl get falcorule typo -o jsonpath='{.status.message}'";
    let mut lines = page.lines().skip_while(|line| line.strip_prefix("$ ") != Some(command)).skip(1);
    let shown = lines.next().context("the page shows no message")?;
    ann.kubectl(&["apply", "-f", "-"], Some(&rule("typo", "evt.type = execve and proc.nam = bash")))?;
    let message = wait::until("the status says what is wrong", LIMIT, || {
        let message = ann.kubectl(&["get", "falcorule", "typo", "-o", "jsonpath={.status.message}"], None)?;
        ensure!(!message.is_empty(), "nothing yet");
        Ok(message)
    })?;
    ensure!(message == shown, "{message}");
    ann.kubectl(&["delete", "falcorule", "typo"], None).map(drop)
}

fn tables(world: &World, ann: &Ann) -> Result<()> {
    let table = ann.kubectl(&["get", "falcorules"], None)?;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(words[0] == ["NAME", "RULE", "PRIORITY", "PHASE", "LOADED", "AGE"], "{table}");
    ensure!(words[1][..7] == ["bash", "bash", "of", TEAM, "WARNING", "Active", "2/2"], "{table}");
    let wide = ann.kubectl(&["get", "falcorules", "-o", "wide"], None)?;
    has(wide.lines().next().unwrap_or_default(), &["HASH", "MESSAGE"])?;
    let hash = world.read(TEAM, "bash")?.status.and_then(|status| status.hash).context("no hash")?;
    has(&wide, &[&hash])?;

    // By its short names, and by the category with what else there is.
    has(
        &ann.kubectl(&["get", "frule,frf"], None)?,
        &["falcorule.mumoshu.github.io/bash", "falcorulesfile.mumoshu.github.io/team-a"],
    )?;
    has(
        &ann.kubectl(&["get", "falco"], None)?,
        &["falcorule.mumoshu.github.io/bash", "falcorulesfile.mumoshu.github.io/team-a"],
    )?;
    // What kinds there are kubectl remembers for minutes; the administrator's asked before ours were there.
    let cache = format!("--cache-dir={}", world.cluster.dir().join("new-cache").display());
    has(
        &world.cluster.kubectl(&["get", "falco", "-A", &cache])?,
        &["team-a", "team-b", "falcorule.", "falcorulesfile."],
    )?;

    let described = ann.kubectl(&["describe", "falcorule", "bash"], None)?;
    has(&described, &["Condition:", BASH, "Type:", "Ready", "Reason:", "Loaded", "Observed Generation:"])?;
    let file = ann.kubectl(&["get", "falcorulesfiles"], None)?;
    has(&file, &["NAME", "PHASE", "LOADED", "ACCEPTED", "REJECTED", "SINCE", "AGE", "Active", "2/2"])?;

    for (field, words) in [
        ("falcorule", &["A Falco rule of this namespace", "spec", "status"] as &[&str]),
        ("falcorule.spec.condition", &["FIELD: condition <string>", "Falco's condition language"]),
        ("falcorule.spec.priority", &["EMERGENCY", "in upper or lower case"]),
        ("falcorule.spec.exceptions", &["Cases in which the rule does not match"]),
        ("falcorule.status.generationInForce", &["The generation of the object that nodes have loaded"]),
        ("falcomacro.spec.macro", &["The name by which conditions use the macro"]),
        ("falcolist.spec.items", &["The values"]),
        ("falcorulesfile.spec.paused", &["Stops the rollout before its next wave"]),
    ] {
        // Its lines are broken where they are long.
        let text = ann.kubectl(&["explain", field], None)?.split_whitespace().collect::<Vec<_>>().join(" ");
        has(&text, words).with_context(|| field.to_owned())?;
    }

    ann.kubectl(&["wait", "--for=condition=Ready", "falcorule/bash", "--timeout=60s"], None)?;
    ann.kubectl(&["wait", "--for=condition=Ready", "falcorulesfile/team-a", "--timeout=60s"], None)?;
    ann.kubectl(&["wait", "--for=jsonpath={.status.phase}=Active", "falcorule/bash", "--timeout=60s"], None)?;

    let selected = |selector: &str, kind: &str| -> Result<usize> {
        let args = ["get", kind, "-A", "-o", "name", "--field-selector", selector];
        Ok(world.cluster.kubectl(&args)?.lines().count())
    };
    ensure!(selected("spec.priority=WARNING", "falcorules")? == 2);
    ensure!(selected("spec.priority=ERROR", "falcorules")? == 0);
    ensure!(selected("spec.rule=bash of team-a", "falcorules")? == 1);
    ensure!(selected("status.phase=Active", "falcorulesfiles")? == 2);
    let own =
        ann.kubectl(&["get", "falcorules", "-o", "name", "--field-selector", "spec.rule=bash of team-a"], None)?;
    ensure!(own.trim() == "falcorule.mumoshu.github.io/bash", "{own}");
    Ok(())
}

/// What was said about an object, by reason, and how often.
fn said(world: &World, kind: &str, name: &str) -> Result<BTreeMap<String, i64>> {
    let text = world.cluster.kubectl(&["get", "events.events.k8s.io", "-n", TEAM, "-o", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let mut found = BTreeMap::new();
    for event in list["items"].as_array().context("no list")? {
        if event["regarding"]["kind"] == kind && event["regarding"]["name"] == name {
            let count = event["series"]["count"].as_i64().unwrap_or(1);
            *found.entry(event["reason"].as_str().unwrap_or_default().to_owned()).or_default() += count;
        }
    }
    Ok(found)
}

fn events(world: &World) -> Result<()> {
    world.rule(TEAM, "told", BASH)?;
    world.active(TEAM, "told", 2)?;
    let before = wait::until("it is said to be loaded", LIMIT, || {
        let said = said(world, "FalcoRulesFile", TEAM)?;
        ensure!(said.get("Loaded").is_some_and(|count| *count >= 2), "{said:?}");
        Ok(said)
    })?;
    // Many reasons to look again are no reason to say it again.
    for _ in 0..5 {
        world.cluster.kubectl(&["annotate", "falcorule", "told", "-n", TEAM, "--overwrite", "looked=again"])?;
        world.cluster.kubectl(&["annotate", "falcorule", "told", "-n", TEAM, "looked-"])?;
    }
    world.rest(std::time::Duration::from_secs(2))?;
    ensure!(said(world, "FalcoRulesFile", TEAM)? == before);
    // One edit: one rollout, and its end.
    world.rule(TEAM, "told", "container.id != host and proc.name = zsh")?;
    world.active(TEAM, "told", 2)?;
    wait::until("the edit is said to be loaded", LIMIT, || {
        let now = said(world, "FalcoRulesFile", TEAM)?;
        for reason in ["RollingOut", "Loaded"] {
            let (now, then) = (now.get(reason).copied(), before.get(reason).copied());
            ensure!(now.unwrap_or_default() == then.unwrap_or_default() + 1, "{reason}: {then:?} then {now:?}");
        }
        Ok(())
    })?;
    world.delete_rule(TEAM, "told")?;
    world.active(TEAM, "bash", 2).map(drop)
}

fn status(world: &World, ann: &Ann) -> Result<()> {
    let well = wait::until("one rule is left", LIMIT, || {
        let well = ann.run(&["status"])?;
        has(
            &well.out,
            &["namespace team-a: Active for", "2/2 nodes, 1 rule accepted", "RULE", "bash  Active      2/2"],
        )?;
        Ok(well)
    })?;
    ensure!(well.code == 0, "{well:?}");
    // Reports of nodes are not hers to read, and that is no error.
    ensure!(well.err.is_empty() && !well.out.contains("node-1"), "{well:?}");
    ensure!(!well.out.contains('\x1b'), "colours are for terminals: {well:?}");
    let one = ann.run(&["status", "bash", "-n", TEAM])?;
    has(
        &one.out,
        &["team-a/bash: Active for", "running on   2 of 2 nodes", "last change  generation 1,", "as it is written"],
    )?;

    // The administrator sees each node.
    let mut admin = Command::new(&product()?.operator);
    admin.args(["status", "bash", "-n", TEAM]).env("KUBECONFIG", world.cluster.kubeconfig());
    let admin = Said::of(&admin.env_remove("KUBERNETES_SERVICE_HOST").output()?)?;
    has(&admin.out, &["node-1  loaded", "node-2  loaded", "Falco 0."])?;

    // As a terminal shows it.
    let line = format!("'{}' status", product()?.operator.display());
    let script = ann.command(Path::new("script")).args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output()?;
    ensure!(script.status.success(), "{script:?}");
    has(&String::from_utf8_lossy(&script.stdout), &["\x1b[32mActive\x1b[0m"])?;
    let mut plain = ann.command(Path::new("script"));
    let plain = plain.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1").output()?;
    ensure!(!String::from_utf8_lossy(&plain.stdout).contains("\x1b[32m"), "{plain:?}");

    // For programs.
    let json = ann.run(&["status", "-o", "json"])?.json()?;
    let team = &json["namespaces"][0];
    ensure!(team["namespace"] == TEAM && team["rulesFile"]["phase"] == "Active" && team["nodes"].is_null(), "{json}");
    ensure!(team["rules"][0]["ready"] == true && team["rules"][0]["status"]["loaded"] == "2/2", "{json}");

    // What is not well is the exit code's to say, too, and the message says what to do.
    ann.kubectl(&["apply", "-f", "-"], Some(&rule("bad", "proc.nam = bash")))?;
    let ill = wait::until("the broken rule is told about", LIMIT, || {
        let ill = ann.run(&["status"])?;
        has(&ill.out, &["1 rejected", "bad   Rejected", "proc.nam"])?;
        Ok(ill)
    })?;
    ensure!(ill.code == 1, "{ill:?}");
    has(
        &ann.run(&["status", "bad"])?.out,
        &["team-a/bad: Rejected", "nothing of this rule yet", "message      condition"],
    )?;
    ensure!(ann.run(&["status", "bash"])?.code == 0, "the broken one is not asked about");
    ann.kubectl(&["delete", "falcorule", "bad"], None)?;

    // Elsewhere, and where there is nothing.
    let other = ann.run(&["status", "-n", "team-b"])?;
    ensure!(other.code == 1 && other.err.contains("not allowed. Ask for the role"), "{other:?}");
    let all = ann.run(&["status", "-A"])?;
    ensure!(all.code == 1 && all.err.contains("--namespace"), "{all:?}");
    let none = ann.run(&["status", "nothing"])?;
    ensure!(none.code == 1 && none.err.contains("there is no FalcoRule nothing in team-a"), "{none:?}");

    // As kubectl's own.
    let bin = world.cluster.dir().join("bin");
    std::fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink(&product()?.operator, bin.join("kubectl-falco"))?;
    let path = format!("{}:/usr/bin:/bin", bin.display());
    for args in [&["falco"] as &[&str], &["falco", "status", "bash"], &["falco", "-n", TEAM]] {
        let said = Said::of(&ann.command(&ann.kubectl).args(args).env("PATH", &path).output()?)?;
        ensure!(said.code == 0, "{said:?}");
        has(&said.out, &["namespace team-a: Active"])?;
    }
    Ok(())
}

fn paused(world: &World, ann: &Ann) -> Result<()> {
    has(&ann.run(&["pause"])?.out, &["falcorulesfile/team-a is paused"])?;
    has(&ann.run(&["pause"])?.out, &["is paused already"])?;
    ann.kubectl(&["apply", "-f", "-"], Some(&rule("bash", "container.id != host and proc.name = dash")))?;
    wait::until("the edit waits", LIMIT, || {
        let said = ann.run(&["status", "bash"])?;
        ensure!(said.code == 1);
        has(&said.out, &["team-a/bash: Pending", "paused", "generation 1, an earlier text of yours"])
    })?;
    ensure!(!world.everywhere(TEAM)?.contains("dash"));
    has(&ann.run(&["resume"])?.out, &["is resumed"])?;
    world.active(TEAM, "bash", 2)?;
    ensure!(world.everywhere(TEAM)?.contains("dash"));
    has(&ann.run(&["resume"])?.out, &["is not paused"])?;
    has(&ann.run(&["retry"])?.out, &["was not rolled back"])?;
    for command in ["pause", "resume", "retry"] {
        let other = ann.run(&[command, "-n", "team-b"])?;
        ensure!(other.code == 1 && other.err.contains("not allowed"), "{other:?}");
    }
    Ok(())
}

fn retried(world: &World, ann: &Ann) -> Result<()> {
    if !faults()? {
        return Ok(());
    }
    let nodes = world.nodes()?;
    nodes.iter().try_for_each(|node| world.fault(node, "refuse-at-load", "sick for a while\n"))?;
    let mut edit = spec("bash of team-a", "container.id != host and proc.name = ksh");
    edit["desc"] = json!("sick for a while");
    world.apply(TEAM, "bash", &edit)?;
    world.phase(TEAM, Phase::RolledBack)?;
    wait::until("the status says what happened", LIMIT, || {
        let said = ann.run(&["status", "bash"])?;
        has(
            &said.out,
            &["team-a/bash: RolledBack", "namespace team-a: RolledBack", "an earlier text of yours", "retryToken"],
        )
    })?;
    nodes.iter().try_for_each(|node| world.heal(node, "refuse-at-load"))?;
    has(&ann.run(&["retry"])?.out, &["will be tried again"])?;
    world.active(TEAM, "bash", 2)?;
    ensure!(world.everywhere(TEAM)?.contains("ksh"));
    Ok(())
}

fn watched(world: &World, ann: &Ann) -> Result<()> {
    let log = world.cluster.dir().join("watched");
    let mut watch = ann.command(&product()?.operator);
    let mut watch = watch.args(["status", "bash", "--watch"]).stdout(std::fs::File::create(&log)?).spawn()?;
    let shown = |words: &str| {
        wait::until(&format!("{words} is shown"), LIMIT, || has(&std::fs::read_to_string(&log)?, &[words]))
    };
    let outcome = (|| {
        shown("team-a/bash: Active")?;
        ann.run(&["pause"])?;
        ann.kubectl(&["apply", "-f", "-"], Some(&rule("bash", "container.id != host and proc.name = fish")))?;
        shown("team-a/bash: Pending")?;
        shown("an earlier text of yours")?;
        // The rule's status and its file's are two writes.
        shown("The new rules file waits")?;
        let text = std::fs::read_to_string(&log)?;
        std::thread::sleep(std::time::Duration::from_secs(3));
        ensure!(std::fs::read_to_string(&log)? == text, "the same was shown again");
        ann.run(&["resume"])?;
        world.active(TEAM, "bash", 2)?;
        wait::until("the end is shown", LIMIT, || {
            let text = std::fs::read_to_string(&log)?;
            let last = text.rfind("team-a/bash: ").map_or("", |at| &text[at..]);
            has(last, &["team-a/bash: Active", "as it is written", "running on   2 of 2 nodes"])
        })
    })();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(watch.id() as i32), Signal::SIGINT)?;
    let ended = watch.wait()?;
    outcome?;
    ensure!(ended.success(), "Ctrl-C is how it ends: {ended}");
    // For programs, one object a line.
    let mut lines = ann.command(&product()?.operator);
    let lines = lines.args(["status", "--watch", "-o", "json"]).stdout(std::fs::File::create(&log)?).spawn();
    let mut lines = lines?;
    let first = wait::until("a line is written", LIMIT, || {
        let text = std::fs::read_to_string(&log)?;
        let line = text.lines().next().context("no line yet")?;
        Ok(serde_json::from_str::<Value>(line)?)
    });
    lines.kill()?;
    lines.wait()?;
    ensure!(first?["namespaces"][0]["namespace"] == TEAM);
    Ok(())
}

/// What kstatus makes of an object of a kind that it doesn't know, which is what Flux, Helm's `--wait` and `kubectl`'s
/// relatives go by: the rules of its README.
fn kstatus_of(object: &Value) -> &'static str {
    let status = &object["status"];
    let is = |type_: &str, wanted: &str| {
        let conditions = status["conditions"].as_array();
        conditions.into_iter().flatten().any(|it| it["type"] == type_ && it["status"] == wanted)
    };
    if !object["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if !status["observedGeneration"].is_null()
        && status["observedGeneration"] != object["metadata"]["generation"]
    {
        "InProgress"
    } else if is("Stalled", "True") {
        "Failed"
    } else if is("Reconciling", "True") || is("Ready", "False") || is("Ready", "Unknown") {
        "InProgress"
    } else {
        "Current"
    }
}

fn kstatus(world: &World) -> Result<()> {
    let api = world.api::<FalcoRulesFile>(TEAM);
    let pause = |paused: bool| {
        let patch = kube::api::Patch::Merge(json!({"spec": {"paused": paused}}));
        world.wait(api.patch(TEAM, &kube::api::PatchParams::default(), &patch))
    };
    pause(false)?;
    let read = |name: &str| -> Result<Value> {
        let text = world.cluster.kubectl(&["get", "falcorule", name, "-n", TEAM, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    };
    let comes_to = |name: &str, wanted: &str| {
        world.until(&format!("{name} comes to be {wanted}"), TEAM, || {
            let object = read(name)?;
            ensure!(kstatus_of(&object) == wanted, "{}: {}", kstatus_of(&object), object["status"]);
            Ok(())
        })
    };
    // Not before somebody has looked at it: the answer to the very request that creates it says so.
    let fresh = json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule", "metadata": {"name": "fresh", "namespace": TEAM},
        "spec": spec("fresh", BASH),
    });
    let file = world.cluster.dir().join("fresh.json");
    std::fs::write(&file, fresh.to_string())?;
    let answer = world.cluster.kubectl(&["create", "-f", &file.display().to_string(), "-o", "json"])?;
    let answer: Value = serde_json::from_str(&answer)?;
    ensure!(kstatus_of(&answer) == "InProgress", "{answer}");
    comes_to("fresh", "Current")?;

    world.apply(TEAM, "fresh", &spec("fresh", "proc.nonsense = bash"))?;
    comes_to("fresh", "Failed")?;
    world.apply(TEAM, "fresh", &spec("fresh", BASH))?;
    comes_to("fresh", "Current")?;

    pause(true)?;
    world.apply(TEAM, "fresh", &spec("fresh", "container.id != host and proc.name = tcsh"))?;
    comes_to("fresh", "InProgress")?;
    pause(false)?;
    comes_to("fresh", "Current")?;
    if faults()? {
        world.apply(TEAM, "fresh", &faulty("fresh", "container.id != host and proc.name = zsh", "refuse-at-load"))?;
        comes_to("fresh", "Failed")?;
        world.apply(TEAM, "fresh", &spec("fresh", BASH))?;
        comes_to("fresh", "Current")?;
    }
    world.delete_rule(TEAM, "fresh")?;
    // Deleted, it is gone at once: nothing of ours holds a developer's object.
    ensure!(world.cluster.kubectl(&["get", "falcorule", "fresh", "-n", TEAM, "--ignore-not-found"])?.is_empty());
    Ok(())
}
