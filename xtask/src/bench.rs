//! `cargo xtask bench`: what an edit costs, in a real cluster with the chart installed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::runtime::watcher;
use test_cluster::tools::seconds;
use test_cluster::{Cluster, Product, Release, audit, wait};

use crate::steps::Steps;

/// How much.
#[derive(clap::Args)]
pub struct Args {
    /// How many nodes the cluster has.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many edits are measured.
    #[arg(long, default_value_t = 20)]
    edits: usize,
    /// How many rules there are beside the one that is edited, in ten namespaces.
    #[arg(long, default_value_t = 0)]
    rules: usize,
    /// Measure the program as it is built for tests: sooner ready, but slower and larger than the one that is installed.
    #[arg(long)]
    debug: bool,
}

/// Measures, and prints what was measured.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(4 + usize::from(args.rules > 0));
    let build = if args.debug { Product::build } else { Product::build_release };
    let product = steps.step("the product is built", build)?;
    let cluster = steps.step("the cluster is up", || Cluster::start(&product.options(args.nodes)))?;
    println!("    started in {}", seconds(cluster.started_in()));
    for (name, pid) in cluster.component_pids() {
        println!("    {name}: {} MiB", resident(pid)? / 1024);
    }
    steps.step("the chart is installed", || Release::install(&cluster, "{}\n"))?;
    let runtime = tokio::runtime::Runtime::new()?;
    if args.rules > 0 {
        let begun = Instant::now();
        steps.step(&format!("{} rules are Active", args.rules), || {
            runtime.block_on(fill(&cluster, args.rules))?;
            wait::until("they are Active", Duration::from_mins(10), || {
                runtime.block_on(all_active(&cluster, args.rules))
            })
        })?;
        println!("    from the first `kubectl apply` to Active everywhere: {}", seconds(begun.elapsed()));
    }
    steps.step(&format!("{} edits", args.edits), || {
        let mut times = Vec::new();
        let mut mark = cluster.mark();
        for number in 0..=args.edits {
            let begun = Instant::now();
            runtime.block_on(edit(&cluster, args.nodes, number))?;
            if number == 0 {
                // The first one makes the rule, and is no edit.
                mark = cluster.mark();
            } else {
                times.push(begun.elapsed());
            }
        }
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        println!("    apply to Active, {} nodes: p50 {}, p90 {}", args.nodes, millis(at(50)), millis(at(90)));
        let writes = cluster.writes_since(mark)?;
        let ours: Vec<_> = writes.into_iter().filter(|event| event.is_by("kube-system/")).collect();
        let (leases, ours): (Vec<_>, Vec<_>) = ours.into_iter().partition(|event| event.resource.ends_with("/leases"));
        let ours: Vec<_> = ours.into_iter().filter(|event| event.user.contains("falco")).collect();
        println!(
            "    writes per edit: {:.1} ({} of leases beside them)",
            ours.len() as f64 / args.edits as f64,
            leases.len()
        );
        for (what, times) in audit::count(&ours) {
            println!("      {what}: {:.1}", times as f64 / args.edits as f64);
        }
        Ok(())
    })?;
    for component in ["controller", "agent"] {
        for pod in cluster.pods(&format!("app.kubernetes.io/component={component}"))? {
            let name = pod.name_any();
            let pids = cluster.processes(&pod.namespace().unwrap_or_default(), &name)?;
            let first = *pids.first().context("a pod without a process")?;
            println!("    {component} {name}: {} KiB resident", resident(first)?);
        }
    }
    let profile = if args.debug { "debug" } else { "release" };
    println!("    binary ({profile}): {} KiB", std::fs::metadata(&product.operator)?.len() / 1024);
    Ok(())
}

fn kind(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("mumoshu.github.io", "v1alpha1", kind))
}

/// Creates rules in ten namespaces.
async fn fill(cluster: &Cluster, rules: usize) -> Result<()> {
    const NAMESPACES: usize = 10;
    let client = cluster.client();
    let namespaces: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace")));
    let params = PatchParams::apply("bench").force();
    for number in 0..NAMESPACES {
        let name = format!("bench-{number}");
        let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        namespaces.patch(&name, &params, &Patch::Apply(&namespace)).await?;
    }
    let rule_kind = kind("FalcoRule");
    let created = futures::stream::iter(0..rules).map(|number| {
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &format!("bench-{}", number % NAMESPACES), &rule_kind);
        let name = format!("rule-{number}");
        let (params, rule) = (&params, rule(&name, &format!("many{number}")));
        async move { api.patch(&name, params, &Patch::Apply(&rule)).await.map(drop) }
    });
    Ok(created.buffer_unordered(8).try_collect().await?)
}

/// An error unless the Active files of all namespaces hold so many rules.
async fn all_active(cluster: &Cluster, rules: usize) -> Result<()> {
    let files: Api<DynamicObject> = Api::all_with(cluster.client(), &kind("FalcoRulesFile"));
    let files = files.list(&ListParams::default()).await?.items;
    let active = files.iter().filter(|file| file.data["status"]["phase"] == "Active");
    let accepted: u64 = active.filter_map(|file| file.data["status"]["rulesAccepted"].as_u64()).sum();
    ensure!(accepted == rules as u64, "{accepted} of {rules} are");
    Ok(())
}

/// A rule that watches for a process, under one name for the object and for Falco.
fn rule(name: &str, process: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule", "metadata": {"name": name},
        "spec": {
            "rule": name, "desc": "an edit",
            "condition": format!("evt.type = execve and container.id != host and proc.name = {process}"),
            "output": "an edit (name=%proc.name)", "priority": "NOTICE",
        },
    })
}

/// Applies an edit, and waits by a watch until it is Active everywhere.
async fn edit(cluster: &Cluster, nodes: usize, number: usize) -> Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client(), "default", &kind("FalcoRule"));
    let rule = rule("bench", &format!("edit{number}"));
    let written = api.patch("bench", &PatchParams::apply("bench").force(), &Patch::Apply(&rule)).await?;
    let generation = written.metadata.generation;
    let config = watcher::Config::default().fields("metadata.name=bench");
    let mut seen = watcher(api, config).boxed();
    let wait = async {
        while let Some(event) = seen.try_next().await? {
            let (watcher::Event::Apply(rule) | watcher::Event::InitApply(rule)) = event else { continue };
            let status = &rule.data["status"];
            let active = status["phase"] == "Active"
                && status["loaded"] == format!("{nodes}/{nodes}")
                && status["observedGeneration"].as_i64() == generation;
            if active {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.context("not Active within a minute")?
}

/// Resident memory of a process, in KiB.
fn resident(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib = line.split_whitespace().next().and_then(|number| number.parse().ok());
    ensure!(kib.is_some(), "{line}");
    Ok(kib.unwrap_or(0))
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
