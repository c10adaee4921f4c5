//! The chart: what it renders, what the API server says of it, and what its accounts may do and may not.

mod agents;
mod developers;
mod privileges;
mod rendered;
mod schemas;
mod server;
mod values;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use test_cluster::{Tool, Tools, tools::repository};

/// Where the chart is.
const CHART: &str = "charts/falco-operator";

fn helm(args: &[&str]) -> (bool, String, String) {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| Tools::ensure(&[Tool::Helm]).unwrap());
    let mut command: Command = tools.command(Tool::Helm).unwrap();
    let out = command.args(args).current_dir(repository()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

/// The chart rendered as release `fo1` of `kube-system`, with values set as `--set` takes them.
fn template(set: &[&str]) -> String {
    let mut args = vec!["template", "fo1", CHART, "--namespace", "kube-system"];
    args.extend(set.iter().flat_map(|value| ["--set", value]));
    let (ok, out, err) = helm(&args);
    assert!(ok, "{set:?}: {err}");
    out
}

/// A file of the examples.
fn example(path: &str) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(repository().join("examples").join(path)).unwrap()).unwrap()
}

/// The rendered objects, by `Kind/name` and with the hooks.
fn objects(set: &[&str]) -> BTreeMap<String, Value> {
    let text = template(set);
    let mut found = BTreeMap::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object: Value = serde::Deserialize::deserialize(document).unwrap();
        if object.is_null() {
            continue;
        }
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = format!("{}/{}", word(&object["kind"]), word(&object["metadata"]["name"]));
        assert!(found.insert(key.clone(), object).is_none(), "{key} is rendered twice");
    }
    found
}
