//! What a developer may do who has the chart's role in one namespace.

use std::time::Duration;

use anyhow::ensure;
use test_cluster::{Cluster, Options, wait};

use crate::template;

const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn a_developer_has_their_own_namespace_and_nothing_else() {
    let cluster = Cluster::start(&Options { nodes: 0, ..Options::default() }).unwrap();
    let without = ["controller.replicas=0", "cleanup.enabled=false"];
    cluster.apply(&template(&without)).unwrap();
    cluster
        .apply(
            &std::fs::read_to_string(test_cluster::tools::repository().join("examples/developers.rolebinding.yaml"))
                .unwrap(),
        )
        .unwrap();
    let as_dev = |args: &[&str]| cluster.kubectl(&[&["--as", "ann", "--as-group", "team-a"], args].concat());
    let rule = |namespace: &str| {
        let file = cluster.dir().join(format!("{namespace}.yaml"));
        let seed =
            std::fs::read_to_string(test_cluster::tools::repository().join("examples/bash.falcorule.yaml")).unwrap();
        std::fs::write(&file, seed.replace("namespace: default", &format!("namespace: {namespace}"))).unwrap();
        file.display().to_string()
    };
    wait::until("the role is in force", LIMIT, || as_dev(&["apply", "-f", &rule("team-a")])).unwrap();
    as_dev(&["get", "falco", "-n", "team-a"]).unwrap();
    as_dev(&["delete", "falcorule", "bash", "-n", "team-a"]).unwrap();

    // Pausing and retrying; the state is the controller's.
    let file = "{apiVersion: mumoshu.github.io/v1alpha1, kind: FalcoRulesFile, metadata: {name: team-a, namespace: team-a}, spec: {}}";
    cluster.apply(file).unwrap();
    let patch = |more: &[&str], patch: &str| {
        as_dev(&[&["patch", "falcorulesfile", "team-a", "-n", "team-a", "--type=merge", "-p", patch], more].concat())
    };
    patch(&[], r#"{"spec": {"paused": true, "retryToken": "again"}}"#).unwrap();
    let paused = cluster.kubectl(&["get", "falcorulesfile", "team-a", "-n", "team-a", "-o", "jsonpath={.spec.paused}"]);
    assert_eq!(paused.unwrap(), "true");
    let status = patch(&["--subresource=status"], r#"{"status": {"phase": "Active"}}"#);
    assert!(status.unwrap_err().to_string().contains("forbidden"));

    for args in [
        &["apply", "-f", &rule("default")] as &[&str],
        &["get", "falcorules", "-n", "default"],
        &["get", "falcorules", "-A"],
        &["delete", "falcorulesfile", "team-a", "-n", "team-a"],
        &["get", "falconodes"],
        &["get", "falcobundles"],
        &["get", "falcocatalogs"],
        &["get", "pods", "-n", "team-a"],
    ] {
        let err = as_dev(args).unwrap_err().to_string();
        assert!(err.to_lowercase().contains("forbidden"), "{args:?}: {err}");
    }

    // Kubernetes' own roles know the kinds only when asked to.
    cluster.kubectl(&["create", "rolebinding", "bob", "--clusterrole=edit", "--user=bob", "-n", "team-a"]).unwrap();
    cluster.kubectl(&["create", "rolebinding", "eve", "--clusterrole=view", "--user=eve", "-n", "team-a"]).unwrap();
    let can = |user: &str, verb: &str| {
        // Says no with exit code 1.
        cluster.kubectl(&["auth", "can-i", verb, "falcorules", "-n", "team-a", "--as", user]).is_ok()
    };
    wait::until("the bindings are in force", LIMIT, || {
        cluster.kubectl(&["auth", "can-i", "get", "pods", "-n", "team-a", "--as", "eve"])
    })
    .unwrap();
    assert!(!can("bob", "create") && !can("eve", "get"));
    cluster.apply(&template(&[&without[..], &["developerRoles.aggregate=true"]].concat())).unwrap();
    wait::until("the roles are aggregated", LIMIT, || {
        ensure!(can("bob", "create") && can("eve", "get"));
        Ok(())
    })
    .unwrap();
    assert!(!can("eve", "create"));
}
