//! What a real API server says of the rendered objects.

use std::fmt::Write;

use serde_json::{Value, json};
use test_cluster::{Cluster, Options};

use crate::{objects, template};

#[test]
fn the_api_server_takes_everything_that_is_rendered() {
    let cluster = Cluster::start(&Options { nodes: 0, ..Options::default() }).unwrap();
    // Where the sidecars are.
    cluster.kubectl(&["create", "namespace", "falco"]).unwrap();
    for set in [
        &[] as &[&str],
        &[
            "driver.kind=kmod",
            "networkPolicy.enabled=true",
            "falco.config.json_output=true",
            "agent.maxUnavailable=10%",
        ],
        &["driver.kind=none", "developerRoles.aggregate=true", r"falco.customRules.site\.yaml=- list: x"],
        &["agent.mode=sidecar", "webhook.failurePolicy=Fail"],
        &[
            "agent.mode=hosts",
            "webhook.certificate.source=secret",
            "webhook.certificate.secretName=mine",
            "webhook.certificate.caBundle=PEM",
        ],
    ] {
        let file = cluster.dir().join("rendered.yaml");
        std::fs::write(&file, template(set)).unwrap();
        let said = cluster
            .kubectl(&[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--warnings-as-errors",
                "-f",
                &file.display().to_string(),
            ])
            .unwrap();
        assert_eq!(said.lines().count(), objects(set).len(), "{set:?}: {said}");
    }

    // The controller and the cleanup ask for nothing that Pod Security's strictest level forbids; Falco must.
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}\n").unwrap();
    let rendered = objects(&[]);
    let dry = |key: &str| {
        let mut spec = rendered[key]["spec"]["template"]["spec"].clone();
        spec["serviceAccountName"] = json!("default");
        spec["topologySpreadConstraints"] = Value::Null;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": "strict"}, "spec": spec});
        let file = cluster.dir().join("pod.json");
        std::fs::write(&file, pod.to_string()).unwrap();
        cluster.kubectl(&["create", "--dry-run=server", "-f", &file.display().to_string()])
    };
    // A namespace has no ServiceAccount yet in the moment after it was made.
    test_cluster::wait::until("the controller is taken", std::time::Duration::from_mins(1), || {
        dry("Deployment/fo1-falco-operator-controller")
    })
    .unwrap();
    dry("Job/fo1-falco-operator-cleanup").unwrap();
    let refused = dry("DaemonSet/fo1-falco-operator-agent").unwrap_err();
    let mut text = String::new();
    write!(text, "{refused:#}").unwrap();
    assert!(text.contains("violates PodSecurity"), "{text}");

    // The policy over the agents type-checks against the real kinds.
    cluster.apply(&template(&[])).unwrap();
    let name = "fo1-falco-operator-agents";
    let seen = test_cluster::wait::until("the policy was checked", std::time::Duration::from_mins(1), || {
        let text = cluster.kubectl(&["get", "validatingadmissionpolicy", name, "-o", "json"])?;
        let policy: Value = serde_json::from_str(&text)?;
        anyhow::ensure!(policy["status"]["observedGeneration"] == policy["metadata"]["generation"]);
        Ok(policy["status"]["typeChecking"].clone())
    })
    .unwrap();
    assert!(seen["expressionWarnings"].is_null(), "{seen}");
}

#[test]
fn characters_by_which_one_fact_could_pass_for_another_are_kept_out() {
    let cluster = Cluster::start(&Options { nodes: 0, ..Options::default() }).unwrap();
    cluster.apply(&template(&["controller.replicas=0", "cleanup.enabled=false"])).unwrap();
    let create = |key: &str, value: Value| {
        let mut spec = json!({
            "rule": "r", "desc": "d", "condition": "evt.type = open", "output": "o", "priority": "INFO",
        });
        spec[key] = value;
        let rule = json!({
            "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule",
            "metadata": {"name": "probe", "namespace": "default"}, "spec": spec,
        });
        let file = cluster.dir().join("probe.json");
        std::fs::write(&file, rule.to_string()).unwrap();
        cluster.kubectl(&["create", "--dry-run=server", "-f", &file.display().to_string()])
    };
    test_cluster::wait::until("the kind is served", std::time::Duration::from_mins(1), || create("rule", json!("r")))
        .unwrap();
    for (key, value) in [
        ("rule", "a\"} 1"),
        ("rule", "a\\"),
        ("rule", "a*"),
        ("rule", "a\nb"),
        ("rule", "a\u{2028}b"),
        ("rule", " "),
        ("desc", "a\u{1b}[2J"),
        ("desc", "a\nb"),
        ("output", "a\nb"),
        ("output", "a\u{7f}"),
        ("priority", "SEVERE"),
        ("source", "a b"),
    ] {
        let refused = create(key, json!(value)).unwrap_err().to_string();
        assert!(refused.contains(&format!("spec.{key}")), "{key} {value:?}: {refused}");
    }
    for tags in [json!(["a b"]), json!(["a.b", "a_b"]), json!(["a", "a"])] {
        let refused = create("tags", tags.clone()).unwrap_err().to_string();
        assert!(refused.contains("spec.tags"), "{tags}: {refused}");
    }
    for (key, value) in [("rule", "a 'b' (c) – d"), ("desc", "a\n"), ("output", "%proc.name\n"), ("priority", "Info")]
    {
        create(key, json!(value)).unwrap();
    }
}
