//! What the processes tell, read as an administrator reads it: by a real Prometheus, the dashboards and the alerts.

#[allow(dead_code)]
#[path = "../cluster/support.rs"]
mod support;

mod alerts;
mod dashboards;
mod script;

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_cluster::prometheus::{get, promtool};
use test_cluster::tools::repository;
use test_cluster::{Prometheus, wait};

use dashboards::Choice;
use support::{LIMIT, WITH_FAULTS, World};

/// Values by which the webhook answers the rules of all namespaces but one, whose mistakes get to the controller.
const ANSWERED: &str = "webhook: {enabled: true, namespaceSelector: {matchExpressions: [\
                        {key: kubernetes.io/metadata.name, operator: NotIn, values: [team-b]}]}}\n";

/// One cluster, one Prometheus, one script: then every panel has data, and every page is as Prometheus wants it.
#[test]
fn every_panel_of_every_dashboard_has_data() {
    let world = World::start(3, &format!("{WITH_FAULTS}{ANSWERED}")).unwrap();
    let alerts = repository().join("grafana/alerts.yaml");
    let prometheus = Prometheus::start(&world.cluster, &[alerts]).unwrap();
    scraped(&world, &prometheus).unwrap();
    let begun = now(&prometheus).unwrap();
    script::run(&world, &prometheus).unwrap();

    let choices =
        [Choice { variable: "namespace", value: script::TEAM }, Choice { variable: "node", value: script::SICK }];
    let mut results = Vec::new();
    let mut queries = 0;
    for dashboard in dashboards::all().unwrap() {
        for (variable, offered) in dashboard.choices(&prometheus).unwrap() {
            let wanted = choices.iter().find(|choice| choice.variable == variable).unwrap();
            assert!(
                offered.iter().any(|value| value == wanted.value),
                "{}: ${variable} offers {offered:?}",
                dashboard.title
            );
        }
        for panel in dashboard.panels() {
            let answer = panel.ask(&prometheus, &choices, begun).unwrap();
            queries += panel.queries().len();
            results.push(answer);
        }
    }
    assert!(queries >= 60, "{queries} queries");
    keep(&results).unwrap();
    println!("{queries} queries of {} panels have data", results.len());

    pages(&world).unwrap();
    firing(&prometheus).unwrap();
}

/// Waits until every process of the operator is scraped.
fn scraped(world: &World, prometheus: &Prometheus) -> Result<()> {
    let pods = world.agents()?.len() + world.controllers()?.len();
    wait::until("every process is scraped", LIMIT, || {
        let up = prometheus.ask("query", &[("query", "sum(up)")])?;
        let up = up["result"][0]["value"][1].as_str().unwrap_or_default().to_owned();
        ensure!(
            up == pods.to_string(),
            "{up} of {pods} are up: {}",
            prometheus.ask("targets", &[("state", "active")])?
        );
        Ok(())
    })
}

/// The time by the clock of the one who is asked.
fn now(prometheus: &Prometheus) -> Result<f64> {
    let time = prometheus.ask("query", &[("query", "time()")])?;
    time["result"][0].as_f64().context("Prometheus does not tell the time")
}

/// What the panels showed, for the pictures of the docs.
fn keep(results: &[Value]) -> Result<()> {
    let folder = repository().join("target/telemetry");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("results.json"), serde_json::to_string(&json!(results))?)?;
    Ok(())
}

/// Both processes' pages are as Prometheus wants them.
fn pages(world: &World) -> Result<()> {
    let agents = world.agents()?;
    let controllers = world.cluster.pods("app.kubernetes.io/component=controller")?;
    for (pod, port) in
        agents.first().map(|pod| (pod, 8081)).into_iter().chain(controllers.first().map(|pod| (pod, 8080)))
    {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("a pod without an address")?;
        let page = get(SocketAddr::new(ip.parse()?, port), "/metrics")?;
        ensure!(page.contains("falco_operator_"), "{page}");
        let said = promtool(&["check", "metrics"], &page)?;
        ensure!(said.trim().is_empty(), "{name}: {said}");
    }
    Ok(())
}

/// The rules of the alerts run in a real Prometheus, and what the script broke is what they say.
fn firing(prometheus: &Prometheus) -> Result<()> {
    let rules = prometheus.ask("rules", &[])?;
    let groups = rules["groups"].as_array().context("no groups")?;
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    ensure!(rules.len() == alerts::names()?.len(), "{rules:?}");
    for rule in &rules {
        ensure!(rule["health"] == "ok", "{rule}");
    }
    wait::until("the alert of the namespace that was rolled back", LIMIT, || {
        let query =
            format!(r#"ALERTS{{alertname="FalcoRulesRolledBack",alertstate="firing",namespace="{}"}}"#, script::BROKEN);
        let found = prometheus.ask("query", &[("query", &query)])?;
        ensure!(found["result"].as_array().is_some_and(|found| found.len() == 1), "{}", prometheus.ask("alerts", &[])?);
        Ok(())
    })
}
