//! What is rendered, held against the schemas of Kubernetes 1.33: every field is one that it knows, of the type it has
//! there, and none is missing. `cargo xtask schemas` makes the copy of its OpenAPI file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::objects;
use crate::rendered::VARIANTS;

struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    fn read() -> Self {
        Self(serde_json::from_str(include_str!("data/kubernetes-1.33.json")).unwrap())
    }

    /// What is wrong with an object; nothing where it is as it should be.
    fn faults(&self, object: &Value) -> Vec<String> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = word(&object["apiVersion"]);
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let kind = format!("{group}/{}", word(&object["kind"]));
        let mut faults = Vec::new();
        match self.0.get(&kind) {
            Some(schema) if version == "v1" => self.check(schema, object, &kind, &mut faults),
            _ => faults.push(format!("there is no {kind} of version {version}")),
        }
        faults
    }

    fn check(&self, schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            return self.check(&self.0[name], value, path, faults);
        }
        let text_or_number =
            schema["format"] == "int-or-string" || path.contains("/limits/") || path.contains("/requests/");
        let fits = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string() || (text_or_number && value.is_number()),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            _ => true,
        };
        if !fits {
            faults.push(format!("{path}: {value} is no {}", schema["type"]));
            return;
        }
        if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
            faults.push(format!("{path}: {value} is none of {allowed:?}"));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.get(name).is_none() {
                faults.push(format!("{path}: {name} is missing"));
            }
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{path}/{index}"), faults);
        }
        let of_any_name = &schema["additionalProperties"];
        for (name, value) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            match schema["properties"].get(name) {
                Some(schema) => self.check(schema, value, &path, faults),
                None if of_any_name.is_object() => self.check(of_any_name, value, &path, faults),
                // A schema that says nothing takes anything.
                None if schema["type"].is_null() || schema["properties"].is_null() => {}
                None => faults.push(format!("{path}: there is no such field")),
            }
        }
    }
}

/// Of the Prometheus operator, of cert-manager, or of this project: not of Kubernetes.
fn foreign(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    ["monitoring.coreos.com/", "cert-manager.io/", "mumoshu.github.io/"].iter().any(|group| version.starts_with(group))
}

#[test]
fn every_variant_is_what_kubernetes_1_33_takes() {
    let schemas = Schemas::read();
    let mut checked = 0;
    for set in VARIANTS {
        for (key, object) in objects(set) {
            if !foreign(&object) {
                let faults = schemas.faults(&object);
                assert!(faults.is_empty(), "{set:?}, {key}: {faults:#?}");
                checked += 1;
            }
        }
    }
    assert!(checked > VARIANTS.len() * 10, "{checked}");
}

#[test]
fn what_is_wrong_is_found() {
    let schemas = Schemas::read();
    let deployment = |change: &dyn Fn(&mut Value)| {
        let mut object = objects(&[])["Deployment/fo1-falco-operator-controller"].clone();
        change(&mut object);
        schemas.faults(&object)
    };
    assert!(deployment(&|_| {}).is_empty());
    let container = |object: &mut Value, key: &str, value: Value| {
        object["spec"]["template"]["spec"]["containers"][0][key] = value;
    };
    for (faults, words) in [
        (deployment(&|it| it["apiVersion"] = json!("apps/v1beta1")), "no apps/Deployment of version v1beta1"),
        (deployment(&|it| it["spec"]["replicas"] = json!("2")), "/spec/replicas: \"2\" is no \"integer\""),
        (deployment(&|it| it["spec"]["selector"] = Value::Null), "/spec/selector: null is no"),
        (deployment(&|it| drop(it["spec"].as_object_mut().unwrap().remove("selector"))), "selector is missing"),
        (deployment(&|it| container(it, "restartPolicyRules", json!([]))), "no such field"),
        (deployment(&|it| container(it, "args", json!([1]))), "/args/0: 1 is no \"string\""),
    ] {
        assert_eq!(faults.len(), 1, "{words}: {faults:?}");
        assert!(faults[0].contains(words), "{words}: {faults:?}");
    }
}
