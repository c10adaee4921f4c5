//! `cargo xtask schemas`: the schemas of the oldest Kubernetes that the chart is checked against, without a server of it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use test_cluster::tools::repository;

/// The module whose OpenAPI file is read.
const MODULE: &str = "k8s.io/kubernetes@v1.33.6";

/// Where the trimmed copy is.
pub const COPY: &str = "tests/chart/data/kubernetes-1.33.json";

/// The kinds that the chart renders.
const KINDS: &[(&str, &str)] = &[
    ("", "ConfigMap"),
    ("", "Namespace"),
    ("", "Pod"),
    ("", "Secret"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("batch", "Job"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("policy", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
];

/// Fetches the module by Go's own client, and writes what the test needs of it.
pub fn run() -> Result<()> {
    let out = Command::new("go")
        .args(["mod", "download", "-json", MODULE])
        // Outside of any module, so that nothing of it is asked for.
        .current_dir(std::env::temp_dir())
        .output()
        .context("go could not be started")?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let module: Value = serde_json::from_slice(&out.stdout)?;
    let dir = module["Dir"].as_str().context("go names no folder")?;
    let text = std::fs::read_to_string(format!("{dir}/api/openapi-spec/swagger.json"))?;
    let all: Value = serde_json::from_str(&text)?;
    let trimmed = trim(&all["definitions"])?;
    let mut lines: Vec<String> = Vec::new();
    for (name, schema) in &trimmed {
        lines.push(format!("{}:{schema}", json!(name)));
    }
    // One definition a line, so that a later version is a readable change.
    std::fs::write(repository().join(COPY), format!("{{\n{}\n}}\n", lines.join(",\n")))?;
    println!("{COPY}: {} definitions of {MODULE}", trimmed.len());
    Ok(())
}

/// The kinds that are rendered, and what they are made of, by name; a rendered kind's name is `group/Kind`.
fn trim(definitions: &Value) -> Result<BTreeMap<String, Value>> {
    let definitions = definitions.as_object().context("there are no definitions")?;
    let mut found = BTreeMap::new();
    let mut wanted = BTreeSet::new();
    for (group, kind) in KINDS {
        let is = |definition: &Value| {
            let kinds = definition["x-kubernetes-group-version-kind"].as_array();
            kinds.into_iter().flatten().any(|it| it["group"] == *group && it["kind"] == *kind && it["version"] == "v1")
        };
        let definition = definitions.values().find(|it| is(it)).with_context(|| format!("no {group}/{kind}"))?;
        found.insert(format!("{group}/{kind}"), schema(definition, &mut wanted));
    }
    while let Some(name) = wanted.pop_first() {
        if found.contains_key(&name) {
            continue;
        }
        let definition = definitions.get(&name).with_context(|| format!("no definition {name}"))?;
        let schema = schema(definition, &mut wanted);
        found.insert(name, schema);
    }
    Ok(found)
}

/// A schema without what only people read; what it refers to is added to `wanted`.
fn schema(from: &Value, wanted: &mut BTreeSet<String>) -> Value {
    let mut to = Map::new();
    if let Some(name) = from["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        wanted.insert(name.to_owned());
        to.insert("$ref".into(), name.into());
    }
    for key in ["type", "format", "required", "enum"] {
        if let Some(value) = from.get(key) {
            to.insert(key.into(), value.clone());
        }
    }
    if let Some(properties) = from["properties"].as_object() {
        let of = properties.iter().map(|(name, of)| (name.clone(), schema(of, wanted))).collect();
        to.insert("properties".into(), Value::Object(of));
    }
    for key in ["items", "additionalProperties"] {
        if from[key].is_object() {
            to.insert(key.into(), schema(&from[key], wanted));
        }
    }
    Value::Object(to)
}
