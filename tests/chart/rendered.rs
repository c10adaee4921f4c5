//! What is rendered, without a server.

use serde_json::Value;
use test_cluster::tools::repository;

use crate::{CHART, helm, objects};

/// Values that turn on what is off by default, one set a line.
const VARIANTS: &[&[&str]] = &[
    &[],
    &["driver.kind=kmod"],
    &["driver.kind=none"],
    &["agent.mode=sidecar"],
    &["crds.keep=false"],
    &["crds.install=false", "cleanup.enabled=false", "admissionPolicy.enabled=false", "developerRoles.create=false"],
    &["networkPolicy.enabled=true", "metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true"],
    &["metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true", "metrics.rulesPerNode=0"],
    &["falco.config.json_output=true", r"falco.customRules.site\.yaml=- list: x"],
    &["agent.maxUnavailable=10%", "rollout.waves={1,10%,all}", "rollout.acceptAssumed=true"],
    &["developerRoles.aggregate=true", "controller.replicas=1", "proxy.httpsProxy=http://proxy:3128"],
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
        let wanted = serde_json::json!({
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
    assert_eq!(
        *strategy,
        serde_json::json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    );
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
fn every_value_is_told_about_once() {
    // A key without a comment above it is one that nobody can understand from the file.
    let text = std::fs::read_to_string(repository().join(CHART).join("values.yaml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let is_leaf = trimmed
            .split_once(':')
            .is_some_and(|(key, rest)| key.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !rest.trim().is_empty());
        let in_resources = trimmed.starts_with("requests:") || trimmed.starts_with("limits:");
        if is_leaf && !in_resources {
            let above = lines[index - 1].trim_start();
            assert!(above.starts_with('#'), "values.yaml:{}: {trimmed} is not explained", index + 1);
        }
    }
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
    assert_eq!(*subjects, serde_json::json!([{"kind": "ServiceAccount", "name": "falco-x", "namespace": "security"}]));
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
