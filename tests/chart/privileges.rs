//! Every right of the chart, one by one. A line that is added here wants a reason.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::objects;

/// The rules of a role as `group/resource[names]: verbs`, one for each resource.
fn rights(role: &Value) -> Vec<String> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut found = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        let names = words(&rule["resourceNames"]);
        let names = if names.is_empty() { String::new() } else { format!("[{}]", names.join(",")) };
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let group = group.strip_suffix(".github.io").unwrap_or(&group);
                let group = group.strip_suffix(".k8s.io").unwrap_or(group);
                found.push(format!("{group}/{resource}{names}: {}", words(&rule["verbs"]).join(" ")));
            }
        }
    }
    found
}

#[test]
fn no_account_has_a_right_that_is_not_listed_here() {
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "ClusterRole/fo1-falco-operator-controller",
            &[
                "mumoshu/falcorules: get list watch",
                "mumoshu/falcomacros: get list watch",
                "mumoshu/falcolists: get list watch",
                "mumoshu/falcorules/status: patch update",
                "mumoshu/falcomacros/status: patch update",
                "mumoshu/falcolists/status: patch update",
                "mumoshu/falcorulesfiles: get list watch create update patch delete",
                "mumoshu/falcorulesfiles/status: patch update",
                "mumoshu/falcorulesfiles/finalizers: update",
                "mumoshu/falcobundles: get list watch create update patch delete",
                "mumoshu/falconodes: get list watch",
                "mumoshu/falcocatalogs: get list watch delete",
                "/namespaces: get list watch",
                "apiextensions/customresourcedefinitions: list watch",
                "/events: create patch",
                "events/events: create patch",
            ] as &[_],
        ),
        (
            "Role/fo1-falco-operator-controller",
            &["coordination/leases: create", "coordination/leases[falco-operator]: get update patch"],
        ),
        // Its own certificates, and whom API servers trust.
        ("Role/fo1-falco-operator-webhook", &["/secrets[fo1-falco-operator-webhook]: get update"]),
        (
            "ClusterRole/fo1-falco-operator-webhook",
            &["admissionregistration/validatingwebhookconfigurations[fo1-falco-operator-webhook]: get patch"],
        ),
        ("Role/fo1-falco-operator-agents", &["/pods: list watch", "apps/daemonsets: list watch"]),
        (
            "ClusterRole/fo1-falco-operator-agent",
            &[
                "mumoshu/falcobundles: get list watch",
                "mumoshu/falconodes: get create patch",
                "mumoshu/falconodes/status: patch",
                "mumoshu/falcocatalogs: get create",
            ],
        ),
        (
            // Beside the controller's own, while the release is uninstalled.
            "Role/fo1-falco-operator-cleanup",
            &[
                "apps/deployments[fo1-falco-operator-controller]: get",
                "apps/deployments/scale[fo1-falco-operator-controller]: get patch",
                "/pods: list watch",
            ],
        ),
        (
            "ClusterRole/falco-rules-view",
            &[
                "mumoshu/falcorules: get list watch",
                "mumoshu/falcomacros: get list watch",
                "mumoshu/falcolists: get list watch",
                "mumoshu/falcorulesfiles: get list watch",
            ],
        ),
        (
            "ClusterRole/falco-rules-edit",
            &[
                "mumoshu/falcorules: get list watch create update patch delete deletecollection",
                "mumoshu/falcomacros: get list watch create update patch delete deletecollection",
                "mumoshu/falcolists: get list watch create update patch delete deletecollection",
                "mumoshu/falcorulesfiles: get list watch create update patch",
            ],
        ),
    ]);
    let rendered = objects(&[]);
    let roles: BTreeMap<&str, Vec<String>> = rendered
        .iter()
        .filter(|(key, _)| key.starts_with("ClusterRole/") || key.starts_with("Role/"))
        .map(|(key, role)| (key.as_str(), rights(role)))
        .collect();
    let expected: BTreeMap<&str, Vec<String>> = expected
        .into_iter()
        .map(|(key, rights)| (key, rights.iter().map(|right| (*right).to_owned()).collect()))
        .collect();
    assert_eq!(roles, expected);
}

#[test]
fn roles_are_bound_to_the_accounts_that_need_them() {
    let rendered = objects(&[]);
    let bound: Vec<String> = rendered
        .iter()
        .filter(|(key, _)| key.contains("RoleBinding/"))
        .map(|(key, binding)| {
            let subjects = binding["subjects"].as_array().unwrap();
            assert_eq!(subjects.len(), 1, "{key}");
            assert_eq!(subjects[0]["kind"], "ServiceAccount", "{key}");
            let word = |value: &Value| value.as_str().unwrap().replace("fo1-falco-operator-", "");
            let (role, account) = (&binding["roleRef"], &subjects[0]["name"]);
            format!("{} {} -> {}", word(&role["kind"]), word(&role["name"]), word(account))
        })
        .collect();
    let expected = [
        "ClusterRole agent -> agent",
        "ClusterRole controller -> cleanup",
        "ClusterRole controller -> controller",
        "ClusterRole webhook -> controller",
        "Role agents -> controller",
        "Role cleanup -> cleanup",
        "Role agents -> cleanup",
        "Role controller -> cleanup",
        "Role controller -> controller",
        "Role webhook -> controller",
    ];
    assert_eq!(bound, expected);
}

#[test]
fn what_only_the_cleanup_may_do_exists_only_for_the_cleanup() {
    for (key, object) in objects(&[]) {
        if !key.contains("cleanup") {
            continue;
        }
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook"], "pre-delete", "{key}");
        assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded", "{key}");
    }
    assert!(!objects(&["cleanup.enabled=false"]).keys().any(|key| key.contains("cleanup")));
}

#[test]
fn falco_has_the_capabilities_that_its_driver_needs_and_no_others() {
    let falco = |set: &[&str]| {
        let rendered = objects(set);
        rendered["DaemonSet/fo1-falco-operator-agent"]["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let context = &falco(&[])["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    let wanted = serde_json::json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE", "SYS_RESOURCE"]});
    assert_eq!(context["capabilities"], wanted);
    let context = &falco(&["driver.kind=none"])["securityContext"];
    assert_eq!(context["capabilities"], serde_json::json!({"drop": ["ALL"]}));
    // A kernel module's devices are root's own; there is no narrower way.
    assert_eq!(falco(&["driver.kind=kmod"])["securityContext"]["privileged"], true);

    // What is mounted of the host is for Falco to read, but for the agent's own folder.
    for set in [&[] as &[&str], &["driver.kind=kmod"]] {
        for mount in falco(set)["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            if path.starts_with("/host") {
                assert_eq!(mount["readOnly"], true, "{path}");
            }
        }
    }
}

/// Each path of the host that a pod has, as the tables of the page on security have it: with what may be done to it.
#[test]
fn every_path_of_the_host_is_told() {
    let page = std::fs::read_to_string(test_cluster::tools::repository().join("docs/security.md")).unwrap();
    let section = page.split("\n## The pods\n").nth(1).unwrap();
    let mut told = BTreeMap::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| hostPath")) {
        let words = row.split('|').next().unwrap();
        for path in words.split('`').skip(1).step_by(2) {
            *told.entry(path.to_owned()).or_insert(false) |= words.contains("written");
        }
    }
    let mut mounted = BTreeMap::new();
    for set in [&[] as &[&str], &["driver.kind=kmod"], &["driver.kind=none"], &["agent.mode=hosts"]] {
        let spec = objects(set)["DaemonSet/fo1-falco-operator-agent"]["spec"]["template"]["spec"].clone();
        let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
        for volume in list(&spec["volumes"]) {
            let Some(path) = volume["hostPath"]["path"].as_str() else { continue };
            let containers = [list(&spec["initContainers"]), list(&spec["containers"])].concat();
            let mounts = containers.iter().flat_map(|container| list(&container["volumeMounts"]));
            let written = mounts.filter(|mount| mount["name"] == volume["name"]).any(|mount| mount["readOnly"] != true);
            *mounted.entry(path.to_owned()).or_insert(false) |= written;
        }
    }
    assert_eq!(told, mounted);
}
