//! Every file of examples/, applied to a real cluster as it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use falco_operator::api::FalcoRule;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::Value;
use test_cluster::tools::repository;

use crate::support::{SYSTEM, Scenarios, World, product};

#[test]
fn the_examples_are_as_they_should_be() {
    let world = world().unwrap();
    Scenarios::of(&world)
        .run("every file has its place in a test", every_file)
        .run("rules, macros and lists, and rights for developers", plain)
        .run("kustomize: a base and its overlays", kustomize)
        .run("a tree of teams for GitOps", gitops)
        .run("rules over the audit log", k8s_audit)
        .run("rules that see their own namespace only", isolation)
        .run("lint in a pipeline", pipelines)
        .end();
}

/// A cluster whose Falco reads further configuration from config.d, as that of the image does.
fn world() -> Result<World> {
    let mut options = product()?.options(2);
    let base = tempfile::tempdir()?.keep();
    for file in std::fs::read_dir(repository().join("tests/support/data/falco"))? {
        let path = file?.path();
        let mut text = std::fs::read_to_string(&path)?;
        if path.ends_with("falco.yaml") {
            text.push_str("config_files: [/etc/falco/config.d]\n");
        }
        std::fs::write(base.join(path.file_name().context("a file has a name")?), text)?;
    }
    std::fs::create_dir_all(base.join("config.d"))?;
    std::fs::write(base.join("config.d/empty.yaml"), "{}\n")?;
    for file in options.images.iter_mut().flat_map(|image| &mut image.files) {
        if file.at == Path::new("/etc/falco") {
            file.from.clone_from(&base);
        }
    }
    let world = World::of(&options)?;
    std::fs::remove_dir_all(&base)?;
    install(&world, &[])?;
    Ok(world)
}

/// Installs, or upgrades, with values of an example.
fn install(world: &World, values: &[&str]) -> Result<()> {
    let mut args = vec!["upgrade", "--install", "fo1", "charts/falco-operator", "--namespace", SYSTEM];
    args.extend(values.iter().flat_map(|file| ["--values", file]));
    world.cluster.helm(&args)?;
    world.release.wait(&world.cluster, crate::support::LIMIT)
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path.strip_prefix(repository())?.to_path_buf());
        }
    }
    Ok(())
}

/// What has no test below must be known here, so that a new example isn't forgotten.
fn every_file(_: &World) -> Result<()> {
    let elsewhere = ["sidecar", "hosts", "ci", "gitops/argocd", "gitops/flux", "README.md"];
    let applied = ["k8s-audit", "isolation", "kustomize", "gitops/teams"];
    let mut all = Vec::new();
    files(&repository().join("examples"), &mut all)?;
    for path in all {
        let path = path.strip_prefix("examples")?;
        let known = elsewhere.iter().chain(&applied).any(|start| path.starts_with(start));
        ensure!(known || path.components().count() == 1, "no test applies examples/{}", path.display());
    }
    Ok(())
}

/// Waits until the rules of these namespaces are in force, and says which they are.
fn all_active(world: &World, namespaces: &[&str]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for namespace in namespaces {
        let rules = world.wait(world.api::<FalcoRule>(namespace).list(&ListParams::default()))?;
        for rule in rules {
            world.active(namespace, &rule.name_any(), 2)?;
            names.insert(format!("{namespace}/{}", rule.name_any()));
        }
    }
    Ok(names)
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

fn plain(world: &World) -> Result<()> {
    world.cluster.kubectl(&["apply", "-f", "examples"])?;
    let found = all_active(world, &["default"])?;
    ensure!(found == names(&["default/bash", "default/shell-below-web-server"]), "{found:?}");
    let file = world.everywhere("default")?;
    for word in ["ash, bash, dash", "docker-entrypoint.d", "startswith"] {
        ensure!(file.contains(word), "no {word} in\n{file}");
    }
    for (verb, namespace, may) in [("create", "team-a", true), ("create", "default", false)] {
        let can = ["auth", "can-i", verb, "falcorules", "-n", namespace, "--as", "ann", "--as-group", "team-a"];
        ensure!(world.cluster.kubectl(&can).is_ok() == may, "{verb} in {namespace}");
    }
    world.cluster.kubectl(&["delete", "-f", "examples"])?;
    world.withdrawn("default")
}

fn kustomize(world: &World) -> Result<()> {
    for overlay in ["staging", "production"] {
        world.cluster.kubectl(&["apply", "-k", &format!("examples/kustomize/overlays/{overlay}")])?;
    }
    let found = all_active(world, &["app-staging", "app-production"])?;
    ensure!(found == names(&["app-staging/shell", "app-production/shell"]), "{found:?}");
    let (staging, production) = (world.everywhere("app-staging")?, world.everywhere("app-production")?);
    ensure!(staging.contains("enabled: false") && !production.contains("enabled: false"), "{staging}");
    ensure!(production.contains("priority: CRITICAL") && production.contains("entrypoint.sh"), "{production}");
    world.clear(&["app-staging", "app-production"])
}

fn gitops(world: &World) -> Result<()> {
    for team in ["team-a", "team-b"] {
        world.cluster.kubectl(&["apply", "-k", &format!("examples/gitops/teams/{team}")])?;
    }
    let found = all_active(world, &["team-a", "team-b"])?;
    ensure!(found == names(&["team-a/package-manager", "team-b/secrets-read"]), "{found:?}");
    // The paths that the manifests for Argo CD and Flux name are those of the tree.
    let flux = std::fs::read_to_string(repository().join("examples/gitops/flux/kustomization.yaml"))?;
    let flux: Value = serde_yaml::from_str(&flux)?;
    let path = flux["spec"]["path"].as_str().context("a Kustomization has a path")?;
    ensure!(repository().join("examples/gitops").join(path).is_dir(), "{path}");
    world.clear(&["team-a", "team-b"])
}

fn k8s_audit(world: &World) -> Result<()> {
    // Where Falco does not listen to the audit log, a rule over it is told to be useless here.
    world.cluster.kubectl(&["apply", "-f", "examples/k8s-audit/payments.namespace.yaml"])?;
    let rule = "examples/k8s-audit/exec-into-pod.falcorule.yaml";
    world.cluster.kubectl(&["apply", "-f", rule])?;
    let message = world.until("the missing source is told about", "payments", || {
        let status = world.read("payments", "exec-into-pod")?.status.context("no status")?;
        ensure!(status.message.as_deref().is_some_and(|it| it.contains("k8s_audit")), "{status:?}");
        Ok(status.message.unwrap_or_default())
    })?;
    println!("       without the plugin: {message}");
    install(world, &["examples/k8s-audit/operator-values.yaml"])?;
    let found = all_active(world, &["payments"])?;
    ensure!(found == names(&["payments/exec-into-pod"]), "{found:?}");
    ensure!(world.everywhere("payments")?.contains("source: k8s_audit"));
    world.clear(&["payments"])?;
    install(world, &[])
}

fn isolation(world: &World) -> Result<()> {
    install(world, &["examples/isolation/operator-values.yaml"])?;
    world.cluster.kubectl(&["apply", "-f", "examples/isolation/outbound.falcorule.yaml"])?;
    let found = all_active(world, &["shop"])?;
    ensure!(found == names(&["shop/outbound"]), "{found:?}");
    let file = world.everywhere("shop")?;
    ensure!(file.contains("k8s.ns.name = shop and"), "{file}");
    world.clear(&["shop"])?;
    install(world, &[])
}

/// The commands of the pipelines, with the examples' own rules for those of the repository that they are for.
fn pipelines(_: &World) -> Result<()> {
    let run = |line: &str, dir: &str| -> Result<(i32, String)> {
        let line = line.replacen("falco-operator", &product()?.operator.display().to_string(), 1);
        let line = line.replace(" falco ", &format!(" {dir} "));
        let out = Command::new("sh").args(["-c", line.trim()]).current_dir(repository()).output()?;
        Ok((out.status.code().context("killed")?, String::from_utf8_lossy(&out.stdout).into_owned()))
    };
    let lines = |file: &str| -> Result<Vec<String>> {
        let text = std::fs::read_to_string(repository().join("examples/ci").join(file))?;
        let lines = text.lines().filter_map(|line| line.split_once("falco-operator ").map(|(_, rest)| rest));
        let lines = lines.filter(|rest| rest.starts_with("lint") || rest.starts_with("render"));
        Ok(lines.map(|rest| format!("falco-operator {rest} ")).collect())
    };
    let out = tempfile::tempdir()?;
    let good = "examples/gitops/teams/team-a/rules.yaml";
    let bad = out.path().join("bad");
    std::fs::create_dir_all(&bad)?;
    let broken = std::fs::read_to_string(repository().join(good))?.replace("proc.name", "proc.nam");
    std::fs::write(bad.join("rules.yaml"), broken)?;
    let mut ran = 0;
    for file in ["github-actions.yaml", "gitlab-ci.yaml", "pre-commit.sh"] {
        for line in lines(file)? {
            let line = line.replace("> findings.json", "").replace("$changed", "falco");
            let line = line.replace("--output rendered", &format!("--output {}", out.path().join("r").display()));
            let (code, said) = run(&line, good)?;
            ensure!(code == 0, "{line}: {said}");
            if line.contains("lint") {
                let (code, said) = run(&line, &bad.display().to_string())?;
                ensure!(code == 1 && said.contains("proc.nam"), "{line}: {code} {said}");
            }
            ran += 1;
        }
    }
    ensure!(ran == 4, "{ran} commands were run");
    // Every manifest of a rule passes, wherever it is.
    let (code, said) = run("falco-operator lint examples ", "examples")?;
    ensure!(code == 0, "{said}");
    Ok(())
}
