//! Agents beside a Falco that is not this chart's: in the pods of the Falco chart's Falco, and on hosts whose service it is.

use anyhow::{Context, Result, ensure};
use falco_operator::api::Proof;
use serde_json::{Value, json};
use test_cluster::{Options, Release, tools::repository, wait};

use crate::support::{BASH, LIMIT, SYSTEM, World, product, spec};

/// Of the pods that are processes here.
const RUNS: (&str, &str) = ("example.org/runs", "process");

/// A cluster of one node, whose Falco serves its page where everybody expects it.
fn world() -> Result<World> {
    let options = Options { pods: vec![(RUNS.0.into(), RUNS.1.into())], ..product()?.options(1) };
    World::of(&options)
}

fn example(path: &str) -> Result<Value> {
    let text = std::fs::read_to_string(repository().join("examples").join(path)).context(path.to_owned())?;
    Ok(serde_yaml::from_str(&text)?)
}

fn install(world: &World, values: &str) -> Result<()> {
    let file = repository().join("examples").join(values).display().to_string();
    let label = format!("controller.podLabels.{}={}", RUNS.0.replace('.', r"\."), RUNS.1);
    let agents = format!("agent.podLabels.{}={}", RUNS.0.replace('.', r"\."), RUNS.1);
    let chart = ["upgrade", "--install", "fo1", "charts/falco-operator", "--namespace", SYSTEM, "--values", &file];
    // A broken rule is to get to the controller, whose status is what is looked at.
    let off = ["--set", "cleanup.enabled=false", "--set", "webhook.enabled=false"];
    let set = [&["--set", label.as_str(), "--set", agents.as_str()][..], &off].concat();
    world.cluster.helm(&[&chart[..], &set].concat()).map(drop)
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

#[test]
fn beside_the_falco_of_the_falco_chart() {
    if let Err(err) = sidecar() {
        panic!("{err:#}");
    }
}

fn sidecar() -> Result<()> {
    let world = world()?;
    let values = example("sidecar/falco-values.yaml")?;
    let config = serde_yaml::to_string(&falco_yaml(&values, free_port()?))?;
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
    install(&world, "sidecar/operator-values.yaml")?;
    let falco = Release { name: "falco".into(), namespace: "falco".into() };
    let ready = || {
        let pods = world.cluster.pods("app.kubernetes.io/name=falco")?;
        let logs: Vec<_> = pods
            .iter()
            .map(|pod| {
                use kube::ResourceExt;
                world.cluster.logs("falco", &pod.name_any()).unwrap_or_default()
            })
            .collect();
        ensure!(pods.len() == 1 && pods.iter().all(crate::support::ready), "{} pods: {logs:?}", pods.len());
        Ok(())
    };
    wait::until(&format!("the pods of {} are ready", falco.name), LIMIT, ready)?;
    lives(&world)
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
    let service = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "falco-service", "namespace": "default", "labels": {(RUNS.0): RUNS.1}},
        "spec": {
            "nodeName": node, "hostPID": true, "hostNetwork": true, "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "falco", "image": "docker.io/falcosecurity/falco:0.44.1",
                "args": ["-c", "/var/falco-operator/falco.yaml"],
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
    install(&world, "hosts/operator-values.yaml")?;
    world.release.wait(&world.cluster, LIMIT)?;
    lives(&world)?;
    world.cluster.kubectl(&["apply", "-f", "examples/hosts/host.falcorule.yaml"])?;
    world.active("default", "ssh-key", 1).map(drop)
}

/// Rules come into force, are proved, and go again; the agent owns no Falco.
fn lives(world: &World) -> Result<()> {
    let node = &world.nodes()?[0];
    world.create_namespace("beside")?;
    world.rule("beside", "one", BASH)?;
    world.active("beside", "one", 1)?;
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
    world.clear(&["beside"])
}
