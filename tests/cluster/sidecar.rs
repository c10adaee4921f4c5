//! Agents beside a Falco that is not this chart's: in the pods of the Falco chart's Falco, and on hosts whose service it is.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use falco_operator::api::{ItemPhase, Proof, Reason};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use test_cluster::{Options, Prometheus, tools::repository, wait};

use crate::support::{BASH, FAULTS, LIMIT, SYSTEM, World, product, spec};

/// Of the pods that are processes here.
const RUNS: (&str, &str) = ("example.org/runs", "process");

/// This chart's values beside the Falco chart's Falco.
const SIDECAR_VALUES: &str = "sidecar/operator-values.yaml";

/// And beside the hosts' own.
const HOSTS_VALUES: &str = "hosts/operator-values.yaml";

/// A cluster of one node, whose Falco serves its page where everybody expects it.
fn world() -> Result<World> {
    let options = Options { pods: vec![(RUNS.0.into(), RUNS.1.into())], ..product()?.options(1) };
    World::of(&options)
}

fn example(path: &str) -> Result<Value> {
    let text = std::fs::read_to_string(repository().join("examples").join(path)).context(path.to_owned())?;
    Ok(serde_yaml::from_str(&text)?)
}

/// Installs this chart with the values of an example, or upgrades to these further ones.
fn install(world: &World, values: &str, more: &[&str]) -> Result<()> {
    let file = format!("examples/{values}");
    let runs = format!("commonLabels.{}={}", RUNS.0.replace('.', r"\."), RUNS.1);
    let chart = ["upgrade", "--install", "fo1", "charts/falco-operator", "--namespace", SYSTEM, "--values", &file];
    // A broken rule is to get to the controller, whose status is what is looked at.
    let set = [&[runs.as_str(), "webhook.enabled=false"], more].concat();
    let set = set.into_iter().flat_map(|value| ["--set", value]);
    world.cluster.helm(&chart.into_iter().chain(set).collect::<Vec<_>>()).map(drop)
}

/// A free port of this machine's loopback interface, which all pods here share.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// falco.yaml as the Falco chart renders it from the values of the example, with the rules files of the stand-in's image.
fn falco_yaml(values: &Value, port: u16) -> Value {
    let mut config = values["falco"].clone();
    config["rules_files"] = json!(["/etc/falco/falco_rules.yaml", "/etc/falco/falco_rules.local.yaml"]);
    config["engine"] = json!({"kind": "nodriver"});
    config["stdout_output"] = json!({"enabled": true});
    config["load_plugins"] = json!(["container"]);
    config["plugins"] = json!([{"name": "container", "library_path": "libcontainer.so"}]);
    config["metrics"] = json!({"enabled": values["metrics"]["enabled"], "interval": "1h", "output_rule": false});
    config["webserver"]["listen_port"] = json!(port);
    config["webserver"]["listen_address"] = json!("127.0.0.1");
    config
}

/// A Falco that is there, and the agent beside it.
struct Beside {
    /// Label of Falco's pods.
    falco: &'static str,
    /// Label of the agents' pods.
    agents: &'static str,
    /// The agent's container.
    agent: &'static str,
}

/// What the examples make of the Falco chart.
const SIDECAR: Beside = Beside {
    falco: "app.kubernetes.io/name=falco",
    agents: "app.kubernetes.io/name=falco",
    agent: "falco-operator-agent",
};

const HOSTS: Beside =
    Beside { falco: "example.org/service=falco", agents: "app.kubernetes.io/component=agent", agent: "agent" };

impl Beside {
    /// The one process of a program in the one pod with this label, and that pod.
    fn process(world: &World, label: &str, program: &str) -> Result<(Pod, i32)> {
        wait::until(&format!("{program} runs"), LIMIT, || {
            let pods = world.cluster.pods(label)?;
            let [pod] = &pods[..] else { bail!("{} pods have the label {label}", pods.len()) };
            let found = world.running(pod, program)?;
            let [pid] = found[..] else { bail!("{} processes run {program}", found.len()) };
            Ok((pod.clone(), pid))
        })
    }

    fn falco(&self, world: &World) -> Result<i32> {
        Ok(Self::process(world, self.falco, "/usr/bin/falco")?.1)
    }

    fn agent(&self, world: &World) -> Result<(Pod, i32)> {
        Self::process(world, self.agents, "/opt/falco-operator/falco-operator")
    }

    /// Ends the agent, and waits until there is another one in its place.
    fn end_agent(&self, world: &World, signal: Signal) -> Result<()> {
        let (pod, before) = self.agent(world)?;
        let namespace = pod.namespace().unwrap_or_default();
        world.cluster.signal(&namespace, &pod.name_any(), Some(self.agent), signal)?;
        wait::until("there is another agent", LIMIT, || {
            ensure!(self.agent(world)?.1 != before, "the agent goes on");
            Ok(())
        })
    }
}

#[test]
fn beside_the_falco_of_the_falco_chart() {
    if let Err(err) = sidecar() {
        panic!("{err:#}");
    }
}

fn sidecar() -> Result<()> {
    let world = world()?;
    falco_chart(&world, &example("sidecar/falco-values.yaml")?)?;
    lives(&world, &SIDECAR)?;
    scraped(&world, SIDECAR_VALUES)?;
    uninstalled(&world, &SIDECAR)
}

#[test]
fn beside_a_falco_that_proves_nothing() {
    if let Err(err) = unproved() {
        panic!("{err:#}");
    }
}

fn unproved() -> Result<()> {
    let world = world()?;
    let mut values = example("sidecar/falco-values.yaml")?;
    values["metrics"]["enabled"] = json!(false);
    falco_chart(&world, &values)?;
    world.create_namespace("beside")?;
    world.rule("beside", "one", BASH)?;
    // The file is there; whether Falco loads it nobody can say.
    world.until("it is on the node", "beside", || world.everywhere("beside"))?;
    world.until("it is said to be unproved", "beside", || {
        let status = world.read("beside", "one")?.status.context("no status")?;
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready").context("no condition")?;
        ensure!(
            (ready.status.as_str(), ready.reason.as_str()) == ("Unknown", Reason::Unproved.name())
                && status.loaded.as_deref() == Some("0/1"),
            "{status:?}"
        );
        ensure!(ready.message.contains("--accept-assumed"), "{}", ready.message);
        Ok(())
    })?;
    // It stays so, however long it lasts, until somebody takes the agents' word.
    world.rest(Duration::from_secs(5))?;
    ensure!(world.read("beside", "one")?.status.and_then(|it| it.phase) != Some(ItemPhase::Active));
    install(&world, SIDECAR_VALUES, &["rollout.acceptAssumed=true"])?;
    world.active("beside", "one", 1)?;
    let report = world.report(&world.nodes()?[0])?.context("no report")?.status.context("no status")?;
    ensure!(report.proof == Proof::Assumed, "{:?}", report.proof);
    world.clear(&["beside"])?;
    uninstalled(&world, &SIDECAR)
}

/// Falco as the Falco chart runs it with these values, the agent beside it as in the example, and this chart.
fn falco_chart(world: &World, values: &Value) -> Result<()> {
    let config = serde_yaml::to_string(&falco_yaml(values, free_port()?))?;
    // What the Falco chart makes of these values, in its own names: the template's parts that matter here.
    let strings = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut mounts = vec![json!({"name": "falco-yaml", "mountPath": "/etc/falco/falco.yaml", "subPath": "falco.yaml"})];
    mounts.extend(strings(&values["mounts"]["volumeMounts"]));
    let mut volumes = vec![
        json!({"name": "falco-yaml", "configMap": {"name": "falco"}}),
        json!({"name": "rulesfiles-install-dir", "hostPath": {"path": "/etc/falco"}}),
        json!({"name": "plugins-install-dir", "emptyDir": {}}),
    ];
    volumes.extend(strings(&values["mounts"]["volumes"]));
    let labels = json!({
        "app.kubernetes.io/name": "falco", "app.kubernetes.io/instance": "falco", (RUNS.0): RUNS.1,
    });
    let daemon_set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "falco", "namespace": "falco"},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": "falco", "app.kubernetes.io/instance": "falco"}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": values["serviceAccount"]["name"],
                "initContainers": values["extra"]["initContainers"],
                "containers": [{
                    "name": "falco", "image": "docker.io/falcosecurity/falco:0.44.1",
                    "args": values["extra"]["args"], "volumeMounts": mounts,
                }],
                "volumes": volumes,
            }},
        },
    });
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "falco", "namespace": "falco"}});
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "falco", "namespace": "falco"},
        "data": {"falco.yaml": config},
    });
    world.create_namespace("falco")?;
    for object in [account, map, daemon_set] {
        world.cluster.apply(&object.to_string())?;
    }
    let patch = "examples/sidecar/share-process-namespace.patch.yaml";
    world.cluster.kubectl(&["patch", "daemonset", "falco", "--namespace", "falco", "--patch-file", patch])?;
    install(world, SIDECAR_VALUES, &[])?;
    wait::until("the pods of falco are ready", LIMIT, || {
        let pods = world.cluster.pods(SIDECAR.falco)?;
        let logs = pods.iter().map(|pod| world.cluster.logs("falco", &pod.name_any()).unwrap_or_default());
        let logs: Vec<_> = logs.collect();
        ensure!(pods.len() == 1 && pods.iter().all(crate::support::ready), "{} pods: {logs:?}", pods.len());
        Ok(())
    })
}

#[test]
fn beside_a_falco_of_the_hosts() {
    if let Err(err) = hosts() {
        panic!("{err:#}");
    }
}

fn hosts() -> Result<()> {
    let world = world()?;
    let node = &world.nodes()?[0];
    world.cluster.kubectl(&["label", "node", node, "falco=host"])?;
    // The folders of a host with Falco's package, its configuration with the part of the example.
    let part = example("hosts/config.d-falco-operator.yaml")?;
    let config = falco_yaml(&json!({"falco": part, "metrics": part["metrics"]}), free_port()?);
    let etc = world.cluster.node_path(node, "/etc/falco");
    for file in ["falco_rules.yaml", "falco_rules.local.yaml"] {
        std::fs::create_dir_all(&etc)?;
        std::fs::copy(repository().join("tests/support/data/falco").join(file), etc.join(file))?;
    }
    std::fs::write(etc.join("falco.yaml"), serde_yaml::to_string(&config)?)?;
    // The service, as a process of the host: it ends at once until the agent has written its configuration.
    let labels = json!({(RUNS.0): RUNS.1, "example.org/service": "falco"});
    let service = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "falco-service", "namespace": "default", "labels": labels},
        "spec": {
            "nodeName": node, "hostPID": true, "hostNetwork": true, "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "falco", "image": "docker.io/falcosecurity/falco:0.44.1",
                "args": ["-c", "/var/falco-operator/falco.yaml"],
                "env": [{"name": "FALCO_STAND_IN_CONTROL", "value": FAULTS}],
                "volumeMounts": [
                    {"name": "etc", "mountPath": "/etc/falco"}, {"name": "state", "mountPath": "/var/falco-operator"},
                ],
            }],
            "volumes": [
                {"name": "etc", "hostPath": {"path": "/etc/falco"}},
                {"name": "state", "hostPath": {"path": "/var/falco-operator", "type": "DirectoryOrCreate"}},
            ],
        },
    });
    world.cluster.apply(&service.to_string())?;
    install(&world, HOSTS_VALUES, &[])?;
    world.release.wait(&world.cluster, LIMIT)?;
    lives(&world, &HOSTS)?;
    world.cluster.kubectl(&["apply", "-f", "examples/hosts/host.falcorule.yaml"])?;
    world.active("default", "ssh-key", 1)?;
    let prometheus = scraped(&world, HOSTS_VALUES)?;
    counted(&world, &HOSTS, &prometheus)?;
    uninstalled(&world, &HOSTS)
}

/// Whose rules matched is known to the next agent too, before it has proved that they are loaded.
fn counted(world: &World, beside: &Beside, prometheus: &Prometheus) -> Result<()> {
    let node = &world.nodes()?[0];
    world.create_namespace("counted")?;
    world.rule("counted", "one", BASH)?;
    world.active("counted", "one", 1)?;
    world.fault(node, "draft", &json!({"rules": ["one of counted"], "times": 3}).to_string())?;
    let faults = world.cluster.node_path(node, FAULTS);
    let taken = faults.join("match-1");
    std::fs::rename(faults.join("draft"), &taken)?;
    wait::until("Falco has counted the matches", LIMIT, || {
        ensure!(!taken.exists(), "they are still to be taken in");
        Ok(())
    })?;
    beside.end_agent(world, Signal::SIGKILL)?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    wait::until("the next agent tells whose they are", LIMIT, || {
        let proved = format!("timestamp(falco_operator_agent_proved == 1) > {since}");
        let matches = "falco_operator_agent_rule_matches_total{namespace=\"counted\",falcorule=\"one\"}";
        let found = prometheus.ask("query", &[("query", &format!("{matches} and on (node) ({proved})"))])?;
        ensure!(found["result"][0]["value"][1] == "3", "{found}");
        Ok(())
    })?;
    world.clear(&["counted"])
}

/// Rules come into force, are proved, and go again; the agent, which comes and goes too, owns no Falco.
fn lives(world: &World, beside: &Beside) -> Result<()> {
    let node = &world.nodes()?[0];
    world.create_namespace("beside")?;
    world.rule("beside", "one", BASH)?;
    world.active("beside", "one", 1)?;
    let falco = beside.falco(world)?;
    let report = world.report(node)?.context("no report")?.status.context("no status")?;
    ensure!(report.proof == Proof::Metrics, "{:?}", report.proof);
    world.rule("beside", "one", "container.id != host and proc.name = zsh")?;
    world.active("beside", "one", 1)?;
    ensure!(world.everywhere("beside")?.contains("zsh"));
    world.apply("beside", "one", &spec("one", "proc.nonsense = zsh"))?;
    world.until("it is rejected", "beside", || {
        let status = world.read("beside", "one")?.status.context("no status")?;
        ensure!(status.message.as_deref().unwrap_or_default().contains("proc.nonsense"), "{status:?}");
        Ok(())
    })?;
    ensure!(world.everywhere("beside")?.contains("zsh"), "what was in force did not stay");
    for (signal, shell) in [(Signal::SIGTERM, "fish"), (Signal::SIGKILL, "dash")] {
        beside.end_agent(world, signal)?;
        ensure!(beside.falco(world)? == falco, "Falco did not survive {signal} to its agent");
        world.rule("beside", "one", &format!("container.id != host and proc.name = {shell}"))?;
        world.active("beside", "one", 1)?;
        ensure!(world.everywhere("beside")?.contains(shell));
    }
    ensure!(beside.falco(world)? == falco, "it is another Falco");
    world.clear(&["beside"])
}

/// A Prometheus that goes by the chart's monitors knows of the node's Falco.
fn scraped(world: &World, values: &str) -> Result<Prometheus> {
    let prometheus = Prometheus::start_with(&world.cluster, &["--values", &format!("examples/{values}")], &[])?;
    let node = &world.nodes()?[0];
    wait::until("Prometheus knows that Falco is up", LIMIT, || {
        let up = prometheus.ask("query", &[("query", "max by (node) (falco_operator_agent_falco_up) == 1")])?;
        let controllers = prometheus.ask("query", &[("query", "count(falco_operator_controller_leader)")])?;
        ensure!(
            up["result"][0]["metric"] == json!({"node": node}) && controllers["result"][0]["value"][1] == "2",
            "{up}, {controllers}, {}",
            prometheus.ask("targets", &[("state", "active")])?
        );
        Ok(())
    })?;
    Ok(prometheus)
}

/// Uninstalled with a rule in force, nothing of it is left, nothing is stuck, and Falco goes on.
fn uninstalled(world: &World, beside: &Beside) -> Result<()> {
    world.create_namespace("last")?;
    world.rule("last", "one", BASH)?;
    world.active("last", "one", 1)?;
    let falco = beside.falco(world)?;
    world.release.uninstall(&world.cluster)?;
    world.nowhere("last")?;
    world.clear(&["last"])?;
    ensure!(beside.falco(world)? == falco, "it is another Falco");
    Ok(())
}
