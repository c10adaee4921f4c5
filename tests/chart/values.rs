//! The values: explained once, in values.yaml; the README's table and the schema say the same.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;
use test_cluster::tools::repository;

use crate::CHART;

/// A key of values.yaml with the comment above it.
struct Documented {
    path: Vec<String>,
    doc: String,
}

fn file(name: &str) -> PathBuf {
    repository().join(CHART).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

fn defaults() -> Value {
    serde_yaml::from_str(&read("values.yaml")).unwrap()
}

/// The keys that have a comment above them, in the order of the file.
fn documented() -> Vec<Documented> {
    let mut found: Vec<Documented> = Vec::new();
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut doc: Vec<String> = Vec::new();
    for line in read("values.yaml").lines() {
        let text = line.trim_start();
        if let Some(comment) = text.strip_prefix('#') {
            doc.push(comment.trim().to_owned());
            continue;
        }
        let indent = line.len() - text.len();
        let key = text.split_once(':').map_or("", |(key, _)| key);
        if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            parents.retain(|(of, _)| *of < indent);
            parents.push((indent, key.to_owned()));
            if !doc.is_empty() {
                let path = parents.iter().map(|(_, key)| key.clone()).collect();
                found.push(Documented { path, doc: doc.join(" ") });
            }
        }
        doc.clear();
    }
    found
}

/// The keys that are values and not groups of values that are explained themselves.
fn leaves() -> Vec<Documented> {
    let all = documented();
    let paths: Vec<Vec<String>> = all.iter().map(|it| it.path.clone()).collect();
    let is_group = |path: &[String]| paths.iter().any(|other| other.len() > path.len() && other.starts_with(path));
    all.into_iter().filter(|it| !is_group(&it.path)).collect()
}

fn table() -> String {
    let defaults = defaults();
    let mut text = String::from("| value | default | meaning |\n|---|---|---|\n");
    for Documented { path, doc } in leaves() {
        let default = path.iter().fold(&defaults, |value, key| &value[key.as_str()]);
        let _ = writeln!(text, "| `{}` | `{default}` | {} |", path.join("."), doc.replace('|', "\\|"));
    }
    text
}

#[test]
fn the_readme_s_table_is_that_of_values_yaml() {
    const MARKS: (&str, &str) = ("<!-- values: made from values.yaml -->\n", "<!-- end of the values -->");
    let readme = read("README.md");
    let (before, rest) = readme.split_once(MARKS.0).expect("the README marks where the table begins");
    let (_, after) = rest.split_once(MARKS.1).expect("the README marks where the table ends");
    let wanted = format!("{before}{}\n{}\n{}{after}", MARKS.0, table(), MARKS.1);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(file("README.md"), &wanted).unwrap();
        return;
    }
    assert!(readme == wanted, "out of date; run UPDATE_REFERENCE=1 cargo test --test chart values");
}

#[test]
fn every_value_is_explained_and_no_explanation_is_of_nothing() {
    let leaves = leaves();
    let is_in = |path: &[String]| leaves.iter().any(|it| path.starts_with(&it.path));
    let mut unexplained = Vec::new();
    walk(&defaults(), &mut Vec::new(), &mut |path| {
        if !is_in(path) {
            unexplained.push(path.join("."));
        }
    });
    assert!(unexplained.is_empty(), "without a comment in values.yaml: {unexplained:?}");
    let defaults = defaults();
    for it in &leaves {
        let mut value = Some(&defaults);
        for key in &it.path {
            value = value.and_then(|value| value.get(key));
        }
        assert!(value.is_some(), "{} is explained and isn't there", it.path.join("."));
        assert!(
            it.doc.ends_with(['.', ')', '`', '\'']) || it.doc.ends_with("]`."),
            "{}: {}",
            it.path.join("."),
            it.doc
        );
        assert!(leaves.iter().filter(|other| other.path == it.path).count() == 1, "{} twice", it.path.join("."));
    }
}

#[test]
fn the_schema_knows_every_value_and_no_others() {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let mut unknown = Vec::new();
    let defaults = defaults();
    walk(&defaults, &mut Vec::new(), &mut |path| {
        let mut at = &schema;
        for key in path {
            if !at["properties"].is_object() {
                // Whatever Kubernetes or Falco takes there.
                return;
            }
            match at["properties"].get(key) {
                Some(of) => at = of,
                None => return unknown.push(path.join(".")),
            }
        }
    });
    assert!(unknown.is_empty(), "not in values.schema.json: {unknown:?}");
    let mut without = Vec::new();
    properties(&schema, &mut Vec::new(), &mut |path| {
        // Helm's own, for charts that have this one as a part.
        if path[0] != "global" && path.iter().try_fold(&defaults, |value, key| value.get(key)).is_none() {
            without.push(path.join("."));
        }
    });
    assert!(without.is_empty(), "in values.schema.json and not in values.yaml: {without:?}");
    let mut open = Vec::new();
    objects_of(&schema, "", &mut open);
    assert!(open.is_empty(), "the schema lets a mistyped key of these through: {open:?}");
}

/// Each scalar, list and empty map, with its path.
fn walk(value: &Value, path: &mut Vec<String>, see: &mut impl FnMut(&[String])) {
    match value.as_object().filter(|map| !map.is_empty()) {
        None => see(path),
        Some(map) => {
            for (key, value) in map {
                path.push(key.clone());
                walk(value, path, see);
                path.pop();
            }
        }
    }
}

/// Each property of the schema, with its path.
fn properties(schema: &Value, path: &mut Vec<String>, see: &mut impl FnMut(&[String])) {
    for (key, of) in schema["properties"].as_object().into_iter().flatten() {
        path.push(key.clone());
        see(path);
        properties(of, path, see);
        path.pop();
    }
}

/// The groups of values that take any key.
fn objects_of(schema: &Value, path: &str, open: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"] != false {
        open.push(path.to_owned());
    }
    for (key, of) in properties {
        objects_of(of, &format!("{path}/{key}"), open);
    }
}
