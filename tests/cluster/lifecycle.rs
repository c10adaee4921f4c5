//! The chart's whole life with rules living through it: installed, upgraded, rolled back, uninstalled, installed again
//! under another name; and each order in which people take things away.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use falco_operator::api::{FINALIZER, Phase};
use kube::ResourceExt;
use serde_json::Value;
use test_cluster::{Cluster, Release, tools::repository, wait};

use crate::support::{BASH, LIMIT, SYSTEM, Scenarios, World, product};

const CHART: &str = "charts/falco-operator";

#[test]
fn the_chart_s_life() {
    let world = World::bare(2).unwrap();
    Scenarios::of(&world)
        .run("installed, upgraded, rolled back and uninstalled, with a rule living through it", life)
        .run("installed again under another name, it finds the rules", another_name)
        .run("namespaces deleted first, and uninstalled at once", namespaces_first)
        .run("uninstalled with its definitions, it leaves nothing", with_definitions)
        .run("definitions deleted first", definitions_first)
        .run("its objects deleted by hand, then the cleanup from a desk", by_hand)
        .end();
}

fn release(name: &str, namespace: &str) -> Release {
    Release { name: name.into(), namespace: namespace.into() }
}

/// Installs, or upgrades, with these further words on helm's command line, and waits until all is ready.
fn install(world: &World, release: &Release, more: &[&str]) -> Result<()> {
    install_from(world, release, CHART, more)
}

fn install_from(world: &World, release: &Release, chart: &str, more: &[&str]) -> Result<()> {
    let args = ["upgrade", "--install", &release.name, chart, "--namespace", &release.namespace, "--create-namespace"];
    world.cluster.helm(&[&args[..], more].concat())?;
    release.wait(&world.cluster, LIMIT)
}

/// The chart as a version before this one could have been: another version, and a definition without a column and
/// without a field that there are now.
fn previous(cluster: &Cluster) -> Result<PathBuf> {
    let chart = cluster.dir().join("previous");
    let copied = Command::new("cp")
        .args(["-rL", &repository().join(CHART).display().to_string(), &chart.display().to_string()])
        .status()?;
    ensure!(copied.success(), "the chart could not be copied");
    let edit = |file: &str, change: &dyn Fn(String) -> String| -> Result<()> {
        let path = chart.join(file);
        let old = std::fs::read_to_string(&path)?;
        let new = change(old.clone());
        ensure!(new != old, "nothing to change in {file}");
        std::fs::write(&path, new)?;
        Ok(())
    };
    edit("Chart.yaml", &|text| text.replace("\nversion: ", "\nversion: 0.0.1-before"))?;
    edit("files/crds/falcorules.mumoshu.github.io.yaml", &|text| {
        text.replace("name: Priority", "name: Severity").replace("    shortNames:\n    - frule\n", "")
    })?;
    Ok(chart)
}

fn definition(world: &World, plural: &str) -> Result<Value> {
    let text = world.cluster.kubectl(&["get", "crd", &format!("{plural}.mumoshu.github.io"), "-o", "json"])?;
    Ok(serde_json::from_str(&text)?)
}

fn definitions(world: &World) -> Result<usize> {
    let text = world.cluster.kubectl(&["get", "crd", "-o", "name"])?;
    Ok(text.lines().filter(|line| line.contains("mumoshu.github.io")).count())
}

/// What is in the cluster of a release, its definitions aside; hooks and what they made included.
fn left_of(world: &World, release: &Release) -> Result<Vec<String>> {
    let kinds = "deployments,daemonsets,jobs,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,\
                 clusterroles,clusterrolebindings,networkpolicies,poddisruptionbudgets,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings,validatingwebhookconfigurations";
    let instance = format!("app.kubernetes.io/instance={}", release.name);
    let text = world.cluster.kubectl(&["get", kinds, "-A", "-l", &instance, "-o", "name"])?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn nothing_left_of(world: &World, release: &Release) -> Result<()> {
    wait::until("nothing of the release is left", LIMIT, || {
        let left = left_of(world, release)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// Nothing holds anything back any more, and no node has a file of the namespaces.
fn released(world: &World, namespaces: &[&str]) -> Result<()> {
    for namespace in namespaces {
        if let Some(file) = world.rules_file(namespace)? {
            ensure!(!file.finalizers().iter().any(|it| it == FINALIZER), "{namespace} is still held back");
        }
        ensure!(world.bundle(namespace)?.is_none(), "the bundle of {namespace} is still there");
        world.nowhere(namespace)?;
    }
    Ok(())
}

fn life(world: &World) -> Result<()> {
    let fo1 = release("fo1", SYSTEM);
    let before = previous(&world.cluster)?;
    install_from(world, &fo1, &before.display().to_string(), &[])?;
    let names = definition(world, "falcorules")?["spec"]["names"]["shortNames"].clone();
    ensure!(names.is_null(), "the chart before is not one of before: {names}");
    world.create_namespace("living")?;
    world.rule("living", "one", BASH)?;
    world.active("living", "one", 2)?;
    let file = world.everywhere("living")?;

    // An upgrade to this chart, with other values: the definitions go with it, and no node is without its rules.
    let stays = world.files_stay(&["living"])?;
    install(world, &fo1, &["--set", "log.level=debug", "--set", "agent.podAnnotations.upgraded=yes"])?;
    let crd = definition(world, "falcorules")?;
    ensure!(crd["spec"]["names"]["shortNames"] == serde_json::json!(["frule"]), "{}", crd["spec"]["names"]);
    world.cluster.kubectl(&["get", "frule", "--namespace", "living", "one"])?;
    world.active("living", "one", 2)?;
    world.rule("living", "two", "container.id != host and proc.name = zsh")?;
    world.active("living", "two", 2)?;
    stays.end()?;

    // Back to the chart before, with a rule that is younger than it.
    let stays = world.files_stay(&["living"])?;
    world.cluster.helm(&["rollback", "fo1", "1", "--namespace", SYSTEM])?;
    fo1.wait(&world.cluster, LIMIT)?;
    world.active("living", "one", 2)?;
    world.active("living", "two", 2)?;
    world.rule("living", "one", "container.id != host and proc.name = ksh")?;
    world.active("living", "one", 2)?;
    stays.end()?;
    ensure!(world.everywhere("living")? != file);

    // Uninstalled: nodes let go, nothing is held back, and what developers wrote is still theirs.
    let rules = definitions(world)?;
    fo1.uninstall(&world.cluster)?;
    released(world, &["living"])?;
    nothing_left_of(world, &fo1)?;
    ensure!(definitions(world)? == rules && rules > 0, "the definitions did not stay");
    world.read("living", "one")?;
    world.read("living", "two").map(drop)
}

fn another_name(world: &World) -> Result<()> {
    let fo2 = release("fo2", "falco-system");
    // The definitions say whose they are; Helm wants to be told that this is meant.
    let err = install(world, &fo2, &[]).err().context("Helm takes another release's definitions unasked")?;
    ensure!(format!("{err:#}").contains("invalid ownership metadata"), "{err:#}");
    world.cluster.helm(&["uninstall", "fo2", "--namespace", "falco-system", "--ignore-not-found"])?;
    install(world, &fo2, &["--take-ownership"])?;
    world.active("living", "one", 2)?;
    world.active("living", "two", 2)?;
    // From now on it goes without.
    install(world, &fo2, &["--set", "log.level=debug"])?;
    world.active("living", "one", 2).map(drop)
}

fn namespaces_first(world: &World) -> Result<()> {
    let fo2 = release("fo2", "falco-system");
    world.create_namespace("doomed")?;
    world.rule("doomed", "one", BASH)?;
    world.active("doomed", "one", 2)?;
    // Nobody waits for anything.
    world.delete_namespace("doomed")?;
    world.delete_namespace("living")?;
    fo2.uninstall(&world.cluster)?;
    world.namespace_gone("doomed")?;
    world.namespace_gone("living")?;
    released(world, &["doomed", "living"])?;
    nothing_left_of(world, &fo2)?;
    // The namespace of the release itself, too.
    world.delete_namespace("falco-system")?;
    wait::until("the release's namespace is gone", LIMIT, || {
        ensure!(world.namespace_uid("falco-system")?.is_none());
        Ok(())
    })
}

fn with_definitions(world: &World) -> Result<()> {
    let fo1 = release("fo1", SYSTEM);
    install(world, &fo1, &["--take-ownership", "--set", "crds.keep=false"])?;
    world.create_namespace("last")?;
    world.rule("last", "one", BASH)?;
    world.active("last", "one", 2)?;
    fo1.uninstall(&world.cluster)?;
    nothing_left_of(world, &fo1)?;
    wait::until("the definitions are gone", LIMIT, || {
        let left = definitions(world)?;
        ensure!(left == 0, "{left} are left");
        Ok(())
    })?;
    world.nowhere("last")?;
    world.delete_namespace("last")?;
    world.namespace_gone("last")
}

fn definitions_first(world: &World) -> Result<()> {
    let fo1 = release("fo1", SYSTEM);
    install(world, &fo1, &[])?;
    world.create_namespace("undefined")?;
    world.rule("undefined", "one", BASH)?;
    world.active("undefined", "one", 2)?;
    // Controllers run until the last moment.
    let of_ours = "app.kubernetes.io/part-of=falco-operator";
    world.cluster.kubectl(&["delete", "crd", "-l", of_ours, "--timeout=6m"])?;
    ensure!(definitions(world)? == 0);
    world.delete_namespace("undefined")?;
    wait::until("the namespace is gone", LIMIT, || {
        ensure!(world.namespace_uid("undefined")?.is_none());
        Ok(())
    })?;
    fo1.uninstall(&world.cluster)?;
    nothing_left_of(world, &fo1)
}

fn by_hand(world: &World) -> Result<()> {
    let fo1 = release("fo1", SYSTEM);
    install(world, &fo1, &[])?;
    world.create_namespace("stuck")?;
    world.rule("stuck", "one", BASH)?;
    world.active("stuck", "one", 2)?;
    world.phase("stuck", Phase::Active)?;
    let instance = "app.kubernetes.io/instance=fo1";
    let kinds = "deployments,daemonsets,serviceaccounts,configmaps,roles,rolebindings,clusterroles,clusterrolebindings";
    world.cluster.kubectl(&["delete", kinds, "-n", SYSTEM, "-l", instance, "--timeout=6m"])?;
    wait::until("its pods are gone", LIMIT, || {
        let left = world.cluster.pods(instance)?;
        ensure!(left.is_empty(), "{} are left", left.len());
        Ok(())
    })?;
    // Nobody is there who would let the namespace go.
    world.delete_namespace("stuck")?;
    wait::until("the namespace is held back", LIMIT, || {
        let file = world.rules_file("stuck")?.context("no FalcoRulesFile")?;
        ensure!(file.metadata.deletion_timestamp.is_some() && world.namespace_uid("stuck")?.is_some());
        Ok(())
    })?;
    cleanup(world, &["--timeout", "5s"])?;
    wait::until("the namespace is gone", LIMIT, || {
        ensure!(world.namespace_uid("stuck")?.is_none());
        Ok(())
    })?;
    ensure!(world.bundle("stuck")?.is_none());
    // It may be run again, whatever is left, and after everything is gone.
    cleanup(world, &["--timeout", "5s"])?;
    world.cluster.kubectl(&["delete", "crd", "-l", "app.kubernetes.io/part-of=falco-operator", "--timeout=6m"])?;
    cleanup(world, &["--timeout", "5s"])
}

/// `falco-operator cleanup` as the administrator, from a desk.
fn cleanup(world: &World, more: &[&str]) -> Result<()> {
    let mut command = Command::new(&product()?.operator);
    command.args(["cleanup", "--namespace", SYSTEM]).args(more).env("KUBECONFIG", world.cluster.kubeconfig());
    let out = command.env_remove("KUBERNETES_SERVICE_HOST").output()?;
    ensure!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Ok(())
}
