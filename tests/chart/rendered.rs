//! What is rendered, without a server.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use test_cluster::tools::repository;

use crate::{CHART, example, helm, objects};

/// Values that turn on what is off by default, one set a line.
pub const VARIANTS: &[&[&str]] = &[
    &[],
    &["driver.kind=kmod"],
    &["driver.kind=none"],
    &["agent.mode=sidecar"],
    &["agent.mode=hosts"],
    &["agent.mode=sidecar", "metrics.podMonitor.enabled=true", "networkPolicy.enabled=true"],
    &["agent.mode=hosts", "metrics.podMonitor.enabled=true", "networkPolicy.enabled=true"],
    &["driver.modernEbpf.bufSizePreset=6", "driver.modernEbpf.cpusForEachBuffer=1", "falco.extraArgs={-A}"],
    &["controller.priorityClassName=system-cluster-critical", "agent.priorityClassName=system-node-critical"],
    &["crds.keep=false"],
    &["crds.install=false", "cleanup.enabled=false", "admissionPolicy.enabled=false", "developerRoles.create=false"],
    &["networkPolicy.enabled=true", "metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true"],
    &["metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true", "metrics.rulesPerNode=0"],
    &["falco.config.json_output=true", r"falco.customRules.site\.yaml=- list: x"],
    &["agent.maxUnavailable=10%", "rollout.waves={1,10%,all}", "rollout.acceptAssumed=true"],
    &["developerRoles.aggregate=true", "controller.replicas=1", "proxy.httpsProxy=http://proxy:3128"],
    &["webhook.enabled=false"],
    &["webhook.failurePolicy=Fail", "webhook.namespaceSelector.matchLabels.rules=falco", "networkPolicy.enabled=true"],
    &["webhook.certificate.source=cert-manager"],
    &["webhook.certificate.source=secret", "webhook.certificate.secretName=mine", "webhook.certificate.caBundle=PEM"],
    &["image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123"],
];

#[test]
fn every_variant_passes_helm_s_own_checks() {
    for set in VARIANTS {
        let mut args = vec!["lint", "--strict", CHART];
        args.extend(set.iter().flat_map(|value| ["--set", value]));
        let (ok, out, err) = helm(&args);
        assert!(ok, "{set:?}: {out}{err}");
        objects(set);
    }
}

#[test]
fn a_mistyped_value_is_refused_in_words() {
    for (set, words) in [
        ("agnet.port=8081", "agnet"),
        ("agent.port=80", "/agent/port"),
        ("agent.strategy=relaod", "/agent/strategy"),
        ("rollout.waves={some}", "/rollout/waves"),
        ("controller.replicas=two", "/controller/replicas"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("webhook.failurePolicy=Maybe", "/webhook/failurePolicy"),
        ("webhook.certificate.source=file", "/webhook/certificate/source"),
        ("webhook.certificate.source=secret", "webhook.certificate.secretName"),
    ] {
        let (ok, _, err) = helm(&["template", "fo1", CHART, "--set", set]);
        assert!(!ok && err.contains(words), "{set}: {err}");
    }
}

#[test]
fn the_definitions_are_those_of_the_program_and_outlive_the_release() {
    let rendered = objects(&[]);
    let mut ours = Vec::new();
    for crd in falco_operator::api::crds() {
        let wanted = serde_json::to_value(&crd).unwrap();
        let name = wanted["metadata"]["name"].as_str().unwrap();
        let found = rendered.get(&format!("CustomResourceDefinition/{name}")).unwrap();
        assert!(same(&found["spec"], &wanted["spec"]), "{name}: {} instead of {}", found["spec"], wanted["spec"]);
        assert_eq!(found["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{name}");
        ours.push(format!("CustomResourceDefinition/{name}"));
    }
    let all = rendered.keys().filter(|key| key.starts_with("CustomResourceDefinition/"));
    assert_eq!(all.count(), ours.len());
    let gone = objects(&["crds.keep=false"]);
    assert_eq!(gone[&ours[0]]["metadata"]["annotations"], Value::Null);
    assert!(!objects(&["crds.install=false"]).contains_key(&ours[0]));
}

#[test]
fn selectors_hold_nothing_that_an_upgrade_may_change() {
    let rendered = objects(&["commonLabels.team=security", "controller.podLabels.tier=a", "agent.podLabels.tier=b"]);
    for (key, component) in
        [("Deployment/fo1-falco-operator-controller", "controller"), ("DaemonSet/fo1-falco-operator-agent", "agent")]
    {
        let spec = &rendered[key]["spec"];
        let wanted = json!({
            "app.kubernetes.io/name": "falco-operator", "app.kubernetes.io/instance": "fo1",
            "app.kubernetes.io/component": component,
        });
        assert_eq!(spec["selector"]["matchLabels"], wanted, "{key}");
        let labels = &spec["template"]["metadata"]["labels"];
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(labels[name], *value, "{key}: {name}");
        }
        assert_eq!((labels["team"].as_str(), labels["tier"].is_string()), (Some("security"), true), "{key}");
    }
}

#[test]
fn one_agent_at_a_time_holds_a_node() {
    let rendered = objects(&[]);
    let strategy = &rendered["DaemonSet/fo1-falco-operator-agent"]["spec"]["updateStrategy"];
    assert_eq!(*strategy, json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}));
}

#[test]
fn what_the_pods_depend_on_restarts_them() {
    let annotations =
        |set: &[&str], key: &str| objects(set)[key]["spec"]["template"]["metadata"]["annotations"].clone();
    let controller = "Deployment/fo1-falco-operator-controller";
    let strict = annotations(&["policy.isolation.names=qualified"], controller);
    assert_ne!(strict, annotations(&[], controller));
    let agent = "DaemonSet/fo1-falco-operator-agent";
    let json = annotations(&["falco.config.json_output=true"], agent);
    assert_ne!(json, annotations(&[], agent));
    assert_ne!(json, annotations(&["falco.config.json_output=false"], agent));
}

#[test]
fn as_a_sidecar_the_rights_go_to_the_account_of_the_falco_that_is_there() {
    let rendered = objects(&[
        "agent.mode=sidecar",
        "agent.sidecar.namespace=security",
        "agent.sidecar.serviceAccountName=falco-x",
    ]);
    assert!(!rendered.keys().any(|key| key.starts_with("DaemonSet/")));
    let subjects = &rendered["ClusterRoleBinding/fo1-falco-operator-agent"]["subjects"];
    assert_eq!(*subjects, json!([{"kind": "ServiceAccount", "name": "falco-x", "namespace": "security"}]));
    let policy = &rendered["ValidatingAdmissionPolicy/fo1-falco-operator-agents"]["spec"];
    let condition = policy["matchConditions"][0]["expression"].as_str().unwrap();
    assert!(condition.contains("'system:serviceaccount:security:falco-x'"), "{condition}");
    assert_eq!(rendered["Role/fo1-falco-operator-agents"]["metadata"]["namespace"], "security");
    let args =
        &rendered["Deployment/fo1-falco-operator-controller"]["spec"]["template"]["spec"]["containers"][0]["args"];
    let args: Vec<&str> = args.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for arg in
        ["--agent-namespace=security", "--agent-daemonset=falco", "--agent-selector=app.kubernetes.io/name=falco"]
    {
        assert!(args.contains(&arg), "{arg}: {args:?}");
    }
}

#[test]
fn what_is_provisioned_is_what_lies_in_grafana() {
    let file = |name: &str| std::fs::read_to_string(repository().join("grafana").join(name)).unwrap();
    let rendered = objects(&[
        "metrics.prometheusRule.enabled=true",
        "metrics.dashboards.enabled=true",
        "metrics.serviceMonitor.enabled=true",
        "metrics.podMonitor.enabled=true",
    ]);
    let alerts: Value = serde_yaml::from_str(&file("alerts.yaml")).unwrap();
    assert_eq!(rendered["PrometheusRule/fo1-falco-operator"]["spec"], alerts);

    let dashboards: BTreeMap<&str, &Value> = rendered
        .iter()
        .filter_map(|(key, map)| Some((key.strip_prefix("ConfigMap/fo1-falco-operator-dashboard-")?, &map["data"])))
        .collect();
    assert_eq!(dashboards.keys().collect::<Vec<_>>(), [&"cluster", &"namespace", &"node"]);
    for (name, data) in dashboards {
        let name = format!("{name}.json");
        assert_eq!(*data, json!({(format!("falco-operator-{name}")): file(&name)}));
    }

    // Without the first, `namespace` would be that of the pod; the second is what the dashboards and alerts tell nodes by.
    let node = json!([{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]);
    for (key, endpoints, relabelings) in [
        ("ServiceMonitor/fo1-falco-operator-controller", "endpoints", &Value::Null),
        ("PodMonitor/fo1-falco-operator-agent", "podMetricsEndpoints", &node),
    ] {
        let endpoints = rendered[key]["spec"][endpoints].as_array().unwrap();
        assert_eq!(endpoints.len(), 1, "{key}");
        assert_eq!((&endpoints[0]["honorLabels"], &endpoints[0]["relabelings"]), (&json!(true), relabelings), "{key}");
    }
}

/// The agents' monitor.
fn pod_monitor(set: &[&str]) -> Value {
    let set = [&["metrics.podMonitor.enabled=true"], set].concat();
    objects(&set)["PodMonitor/fo1-falco-operator-agent"]["spec"].clone()
}

#[test]
fn the_agents_are_scraped_where_they_are() {
    for mode in ["agent.mode=daemonset", "agent.mode=hosts"] {
        let spec = pod_monitor(&[mode]);
        let daemon_set = &objects(&[mode])["DaemonSet/fo1-falco-operator-agent"];
        assert_eq!(spec["namespaceSelector"]["matchNames"], json!([daemon_set["metadata"]["namespace"]]), "{mode}");
        assert_eq!(spec["selector"], daemon_set["spec"]["selector"], "{mode}");
        let ports = &daemon_set["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!(spec["podMetricsEndpoints"][0]["port"], ports[0]["name"], "{mode}");
    }

    // As a sidecar, in the pods of the Falco chart, as the example has them.
    let sidecar = &example("sidecar/operator-values.yaml")["agent"]["sidecar"];
    let word = |key: &str| sidecar[key].as_str().unwrap().replace(',', r"\,");
    let monitor = pod_monitor(&[
        "agent.mode=sidecar",
        &format!("agent.sidecar.namespace={}", word("namespace")),
        &format!("agent.sidecar.selector={}", word("selector")),
    ]);
    assert_eq!(monitor["namespaceSelector"]["matchNames"], json!([sidecar["namespace"]]));
    let labels = json!({"app.kubernetes.io/name": "falco", "app.kubernetes.io/instance": "falco"});
    assert_eq!(monitor["selector"], json!({"matchLabels": labels}));
    let falco = example("sidecar/falco-values.yaml");
    let mut containers = falco["extra"]["initContainers"].as_array().unwrap().iter();
    let agent = containers.find(|it| it["name"] == "falco-operator-agent").unwrap();
    assert_eq!(monitor["podMetricsEndpoints"][0]["port"], agent["ports"][0]["name"]);
}

#[test]
fn a_selector_in_text_means_the_same_in_the_monitor() {
    let selector = |text: &str| {
        let text = format!("agent.sidecar.selector={}", text.replace(',', r"\,"));
        pod_monitor(&["agent.mode=sidecar", &text])["selector"].clone()
    };
    assert_eq!(selector("a=b, c.org/d == true"), json!({"matchLabels": {"a": "b", "c.org/d": "true"}}));
    assert_eq!(selector("a="), json!({"matchLabels": {"a": ""}}));
    let among =
        |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
    assert_eq!(
        selector("a=b,c!=d,e!=,f in (g, h),k notin (l),m,!n"),
        json!({
            "matchLabels": {"a": "b"},
            "matchExpressions": [
                among("c", "NotIn", &["d"]), among("e", "NotIn", &[""]), among("f", "In", &["g", "h"]),
                among("k", "NotIn", &["l"]), {"key": "m", "operator": "Exists"},
                {"key": "n", "operator": "DoesNotExist"},
            ],
        })
    );
}

/// The arguments and the rest of the agents' first container.
fn agent(set: &[&str]) -> (Vec<String>, Value) {
    let rendered = objects(set);
    let spec = rendered["DaemonSet/fo1-falco-operator-agent"]["spec"]["template"]["spec"].clone();
    let args = spec["containers"][0]["args"].as_array().unwrap();
    (args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect(), spec)
}

#[test]
fn on_hosts_the_agent_stands_beside_their_own_falco() {
    let (args, spec) = agent(&["agent.mode=hosts", "falco.config.json_output=true", "driver.kind=kmod"]);
    assert!(!args.contains(&"--".to_owned()), "it has nothing to supervise: {args:?}");
    assert_eq!(spec["dnsPolicy"], "ClusterFirstWithHostNet");
    assert_eq!(spec["initContainers"].as_array().unwrap().len(), 1, "no driver is loaded");
    // What only a Falco of this chart would read is not made.
    let rendered = objects(&["agent.mode=hosts", "falco.config.json_output=true"]);
    assert!(!rendered.contains_key("ConfigMap/fo1-falco-operator-falco"));
    assert!(rendered.contains_key("ServiceAccount/fo1-falco-operator-agent"));
}

#[test]
fn the_driver_is_given_to_falco_as_its_own_options() {
    let options = |set: &[&str]| -> Vec<String> {
        let (args, _) = agent(set);
        let falco = args.iter().skip_while(|arg| *arg != "--").skip(4).cloned();
        falco.filter(|arg| arg != "-o").collect()
    };
    assert!(options(&[]).is_empty());
    assert_eq!(options(&["driver.kind=none"]), ["engine.kind=nodriver"]);
    assert_eq!(options(&["driver.kind=kmod"]), ["engine.kind=kmod"]);
    assert_eq!(
        options(&["driver.kind=kmod", "driver.kmod.bufSizePreset=5", "driver.kmod.dropFailedExit=true"]),
        ["engine.kind=kmod", "engine.kmod.buf_size_preset=5", "engine.kmod.drop_failed_exit=true"]
    );
    assert_eq!(
        options(&["driver.modernEbpf.bufSizePreset=6", "driver.modernEbpf.cpusForEachBuffer=0"]),
        ["engine.modern_ebpf.cpus_for_each_buffer=0", "engine.modern_ebpf.buf_size_preset=6"]
    );
    // An administrator's own arguments come last, and so have the last word.
    assert_eq!(
        options(&["driver.kind=kmod", "falco.extraArgs={-o,engine.kind=x}"]),
        ["engine.kind=kmod", "engine.kind=x"]
    );
}

#[test]
fn what_falco_chart_users_set_reaches_the_pods() {
    let (_, spec) = agent(&[
        "agent.tolerations[0].operator=Exists",
        "agent.resources.limits.memory=2Gi",
        "agent.priorityClassName=system-node-critical",
        "agent.nodeSelector.pool=a",
        "imagePullSecrets[0].name=registry",
        "agent.extraEnv[0].name=A",
        "agent.extraEnv[0].value=b",
        r"falco.customRules.site\.yaml=- list: x",
        "proxy.httpsProxy=http://proxy:3128",
        r"proxy.noProxy=10.0.0.1\,.svc",
        "driver.kind=kmod",
    ]);
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert_eq!(spec["nodeSelector"], json!({"pool": "a"}));
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
    let container = &spec["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "2Gi");
    let env = |container: &Value, name: &str| {
        let found = container["env"].as_array().unwrap().iter().find(|it| it["name"] == name);
        found.map(|it| it["value"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(env(container, "A").as_deref(), Some("b"));
    // Falco's plugins and the driver's loader fetch by themselves.
    let loader = spec["initContainers"].as_array().unwrap().iter().find(|it| it["name"] == "driver").unwrap();
    for container in [container, loader] {
        assert_eq!(env(container, "HTTPS_PROXY").as_deref(), Some("http://proxy:3128"));
        assert_eq!(env(container, "NO_PROXY").as_deref(), Some("10.0.0.1,.svc"));
    }
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|it| it["mountPath"] == "/etc/falco/rules.d/site.yaml" && it["readOnly"] == true));
}

#[test]
fn two_controllers_share_no_fate_and_stay_through_drains() {
    let rendered = objects(&[]);
    let spec = &rendered["Deployment/fo1-falco-operator-controller"]["spec"];
    assert_eq!(spec["replicas"], 2);
    assert_eq!(spec["revisionHistoryLimit"], 3);
    let spread = &spec["template"]["spec"]["topologySpreadConstraints"][0];
    assert_eq!(
        (&spread["topologyKey"], &spread["whenUnsatisfiable"]),
        (&"kubernetes.io/hostname".into(), &"ScheduleAnyway".into())
    );
    assert_eq!(spread["labelSelector"]["matchLabels"], spec["selector"]["matchLabels"]);
    let budget = &rendered["PodDisruptionBudget/fo1-falco-operator-controller"]["spec"];
    assert_eq!((&budget["maxUnavailable"], &budget["selector"]), (&1.into(), &spec["selector"]));
    assert_eq!(rendered["DaemonSet/fo1-falco-operator-agent"]["spec"]["revisionHistoryLimit"], 3);

    let rendered =
        objects(&["networkPolicy.enabled=true", "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus"]);
    for component in ["controller", "agent"] {
        let policy = &rendered[&format!("NetworkPolicy/fo1-falco-operator-{component}")]["spec"];
        assert_eq!(policy["podSelector"]["matchLabels"]["app.kubernetes.io/component"], component);
        // What goes out is not restricted: the API server's address is the cluster's to know.
        assert_eq!(policy["policyTypes"], json!(["Ingress"]));
        let from = &policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
        assert_eq!(from["app"], "prometheus");
    }
}

#[test]
fn what_the_controllers_keep_current_is_not_the_chart_s() {
    let rendered = objects(&[]);
    let name = "fo1-falco-operator-webhook";
    let secret = rendered[&format!("Secret/{name}")].as_object().unwrap();
    assert!(!secret.contains_key("data") && !secret.contains_key("stringData"), "an upgrade would empty it");
    let webhook = |set: &[&str]| {
        objects(set)[&format!("ValidatingWebhookConfiguration/{name}")]["webhooks"][0]["clientConfig"].clone()
    };
    assert_eq!(webhook(&[])["caBundle"], Value::Null);
    assert_eq!(webhook(&[])["service"]["name"], name);
    let own = &[
        "webhook.certificate.source=secret",
        "webhook.certificate.secretName=mine",
        "webhook.certificate.caBundle=PEM",
    ];
    assert_eq!(webhook(own)["caBundle"], "UEVN");

    // Whoever makes the certificate, nobody has more rights than that takes.
    for set in [own as &[&str], &["webhook.certificate.source=cert-manager"], &["webhook.enabled=false"]] {
        let rendered = objects(set);
        assert!(!rendered.keys().any(|key| key.contains("Role") && key.ends_with("-webhook")), "{set:?}");
        assert!(!rendered.contains_key(&format!("Secret/{name}")), "{set:?}");
    }
    let off = objects(&["webhook.enabled=false"]);
    assert!(!off.keys().any(|key| key.contains("webhook")));
    let controller = &off["Deployment/fo1-falco-operator-controller"];
    assert!(!controller.to_string().contains("webhook"));
    let mounted = objects(own)["Deployment/fo1-falco-operator-controller"]["spec"]["template"]["spec"].clone();
    assert_eq!(mounted["volumes"][1]["secret"]["secretName"], "mine");
    assert!(mounted["containers"][0].to_string().contains("--webhook-tls-dir=/etc/falco-operator-webhook"));
}

/// Equal but for the way in which numbers are written: Helm's YAML knows no `1.0`.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}
