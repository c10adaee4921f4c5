//! Every right and every privilege of the chart, one by one. A line that is added here wants a reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{example, objects};

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

/// What a pod of this spec gets of its node and of its kernel: the node's own namespaces, and of each container the
/// security context and what is mounted, as `what at path`.
fn of_the_node(spec: &Value) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let volumes: BTreeMap<String, String> = list(&spec["volumes"])
        .iter()
        .map(|volume| {
            let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
            let what = volume["hostPath"]["path"].as_str().unwrap_or(kind);
            (volume["name"].as_str().unwrap().to_owned(), what.to_owned())
        })
        .collect();
    let mut unused: BTreeSet<&String> = volumes.keys().collect();
    let mut containers = serde_json::Map::new();
    for container in list(&spec["initContainers"]).iter().chain(&list(&spec["containers"])) {
        let mounts: Vec<String> = list(&container["volumeMounts"])
            .iter()
            .map(|mount| {
                let (name, what) = volumes.get_key_value(mount["name"].as_str().unwrap()).unwrap();
                unused.remove(name);
                let read_only = if mount["readOnly"] == true { ", read-only" } else { "" };
                format!("{what} at {}{read_only}", mount["mountPath"].as_str().unwrap())
            })
            .collect();
        let name = container["name"].as_str().unwrap();
        containers.insert(name.into(), json!({"context": container["securityContext"], "mounts": mounts}));
    }
    assert!(unused.is_empty(), "no container mounts {unused:?}");
    let shared: Vec<&str> = ["hostPID", "hostNetwork", "hostIPC"].into_iter().filter(|it| spec[it] == true).collect();
    json!({"shared": shared, "pod": spec["securityContext"], "containers": containers})
}

fn agents(set: &[&str]) -> Value {
    of_the_node(&objects(set)["DaemonSet/fo1-falco-operator-agent"]["spec"]["template"]["spec"])
}

/// What brings the program into Falco's image.
fn binary() -> Value {
    let context = json!({
        "runAsUser": 65532, "runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    json!({"context": context, "mounts": ["emptyDir at /opt/falco-operator"]})
}

/// The context of Falco and its agent, where no kernel module needs more.
fn unprivileged(seccomp: &str, capabilities: &Value) -> Value {
    json!({
        "runAsUser": 0, "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "appArmorProfile": {"type": "Unconfined"}, "seccompProfile": {"type": seccomp}, "capabilities": capabilities,
    })
}

/// What is mounted wherever an agent runs, and these.
fn mounts(more: &[&str]) -> Vec<String> {
    let all = [
        "emptyDir at /opt/falco-operator, read-only",
        "/var/falco-operator at /var/falco-operator",
        "emptyDir at /tmp",
    ];
    all.iter().chain(more).map(|mount| (*mount).to_owned()).collect()
}

const OF_THE_HOST: &[&str] = &["/etc at /host/etc, read-only", "/proc at /host/proc, read-only"];

/// Where Falco asks for the names of containers.
const RUNTIMES: &[&str] = &[
    "/run/containerd at /host/run/containerd, read-only",
    "/run/crio at /host/run/crio, read-only",
    "/run/k3s/containerd at /host/run/k3s/containerd, read-only",
];

#[test]
fn with_the_modern_probe_falco_has_four_capabilities_and_reads_the_host() {
    let capabilities = json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE", "SYS_RESOURCE"]});
    let falco = json!({
        "context": unprivileged("Unconfined", &capabilities), "mounts": mounts(&[OF_THE_HOST, RUNTIMES].concat()),
    });
    let expected = json!({"shared": [], "pod": null, "containers": {"binary": binary(), "falco": falco}});
    assert_eq!(agents(&["driver.kind=modern_ebpf"]), expected);
}

#[test]
fn with_a_kernel_module_falco_and_its_loader_are_privileged() {
    // The module's devices are root's own; there is no narrower way.
    let devices = ["/dev at /host/dev, read-only", "emptyDir at /root/.falco"];
    let falco = json!({
        "context": {"runAsUser": 0, "privileged": true},
        "mounts": mounts(&[OF_THE_HOST, &devices, RUNTIMES].concat()),
    });
    let driver = json!({
        "context": {"privileged": true},
        "mounts": [
            "emptyDir at /root/.falco", "/proc at /host/proc, read-only", "/etc at /host/etc, read-only",
            "/boot at /host/boot, read-only", "/lib/modules at /host/lib/modules", "/usr at /host/usr, read-only",
        ],
    });
    let containers = json!({"binary": binary(), "driver": driver, "falco": falco});
    assert_eq!(agents(&["driver.kind=kmod"]), json!({"shared": [], "pod": null, "containers": containers}));
}

#[test]
fn with_plugins_only_falco_has_no_capability() {
    let falco = json!({
        "context": unprivileged("RuntimeDefault", &json!({"drop": ["ALL"]})),
        "mounts": mounts(&[OF_THE_HOST, RUNTIMES].concat()),
    });
    let expected = json!({"shared": [], "pod": null, "containers": {"binary": binary(), "falco": falco}});
    assert_eq!(agents(&["driver.kind=none"]), expected);
}

#[test]
fn beside_a_falco_of_the_hosts_the_agent_sees_their_processes_and_has_no_capability() {
    let agent = json!({
        "context": unprivileged("RuntimeDefault", &json!({"drop": ["ALL"]})),
        "mounts": mounts(&[
            "/etc/falco at /etc/falco, read-only", "/usr/share/falco at /usr/share/falco, read-only",
        ]),
    });
    let containers = json!({"binary": binary(), "agent": agent});
    let expected = json!({"shared": ["hostPID", "hostNetwork"], "pod": null, "containers": containers});
    for driver in ["driver.kind=modern_ebpf", "driver.kind=kmod", "driver.kind=none"] {
        assert_eq!(agents(&["agent.mode=hosts", driver]), expected, "{driver}");
    }
}

#[test]
fn what_runs_on_no_node_in_particular_has_nothing_of_it() {
    let context = json!({
        "runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    });
    let pod = json!({
        "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let expected = |container: &str, mounts: &[&str]| {
        let containers = json!({(container): {"context": context, "mounts": mounts}});
        json!({"shared": [], "pod": pod, "containers": containers})
    };
    // As sidecars the agents are in the pods of another chart, and these two are all that there is.
    let rendered = objects(&["agent.mode=sidecar"]);
    let policy = ["configMap at /etc/falco-operator, read-only"];
    let pods: BTreeMap<&str, Value> = rendered
        .iter()
        .map(|(key, object)| (key.as_str(), &object["spec"]["template"]["spec"]))
        .filter(|(_, spec)| spec.is_object())
        .map(|(key, spec)| (key, of_the_node(spec)))
        .collect();
    let wanted = BTreeMap::from([
        ("Deployment/fo1-falco-operator-controller", expected("controller", &policy)),
        ("Job/fo1-falco-operator-cleanup", expected("cleanup", &[])),
    ]);
    assert_eq!(pods, wanted);
}

#[test]
fn as_a_sidecar_the_agent_has_no_capability_in_the_pods_of_the_falco_chart() {
    let values = example("sidecar/falco-values.yaml");
    let list = |value: &Value| value.as_array().unwrap().clone();
    // What the Falco chart has of its own.
    let mut volumes = list(&json!([
        {"name": "rulesfiles-install-dir", "emptyDir": {}}, {"name": "plugins-install-dir", "emptyDir": {}},
        {"name": "falco-yaml", "configMap": {}},
    ]));
    volumes.extend(list(&values["mounts"]["volumes"]));
    let falco = json!({"name": "falco", "volumeMounts": values["mounts"]["volumeMounts"]});
    let spec = json!({"initContainers": values["extra"]["initContainers"], "containers": [falco], "volumes": volumes});
    let context = |user: Value| {
        let mut context = json!({
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        });
        context.as_object_mut().unwrap().extend(user.as_object().unwrap().clone());
        context
    };
    let containers = json!({
        "falco-operator-binary": {
            "context": context(json!({"runAsUser": 65532, "runAsNonRoot": true})),
            "mounts": ["emptyDir at /opt/falco-operator"],
        },
        "falco-operator-agent": {
            "context": context(json!({"runAsUser": 0})),
            "mounts": mounts(&[
                "emptyDir at /etc/falco", "emptyDir at /usr/share/falco/plugins",
                "configMap at /etc/falco/falco.yaml",
            ]),
        },
        "falco": {"context": null, "mounts": ["/var/falco-operator at /var/falco-operator"]},
    });
    assert_eq!(of_the_node(&spec), json!({"shared": [], "pod": null, "containers": containers}));
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
