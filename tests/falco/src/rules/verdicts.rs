//! The verdicts that Falco 0.44.1 gave, held against those given here.

use super::{Loader, Uncaught};
use crate::config::Config;
use serde_json::Value;

fn config(plugins: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("falco.yaml");
    std::fs::write(&file, format!("engine: {{kind: nodriver}}\nstdout_output: {{enabled: true}}\n{plugins}")).unwrap();
    Config::load(&file, &[], &[]).unwrap()
}

const CONTAINER: &str = "plugins: [{name: container, library_path: libcontainer.so}]\nload_plugins: [container]\n";

/// Code and message of the error, and the codes of the warnings.
fn judge(config: &Config, content: &str) -> (Option<(String, String)>, Vec<String>, Option<bool>) {
    match Loader::new(config, Box::new(|_| None)).load("rules.yaml", content.as_bytes()) {
        Ok(report) => {
            let error = report.errors.first().map(|issue| (issue.code.name().to_owned(), issue.message.clone()));
            let warnings = report.warnings.iter().map(|issue| issue.code.name().to_owned()).collect();
            (error, warnings, report.schema)
        }
        Err(Uncaught(what)) => (Some(("uncaught".to_owned(), what)), Vec::new(), None),
    }
}

/// Conditions nested as deep as Falco bears need more stack than a test's thread has.
fn with_stack(work: fn()) {
    std::thread::Builder::new().stack_size(crate::STACK).spawn(work).unwrap().join().unwrap();
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_recorded_file_gets_its_verdict() {
    with_stack(recorded_files);
}

fn recorded_files() {
    let config = config("");
    let mut wrong = Vec::new();
    let cases = lines(include_str!("../../data/rules-files.jsonl"));
    assert_eq!(cases.len(), 98);
    for case in &cases {
        let (error, mut warnings, schema) = judge(&config, case["content"].as_str().unwrap());
        let recorded = case["errors"]
            .get(0)
            .map(|error| (error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned()));
        let mut expected: Vec<String> = case["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|warning| warning["code"].as_str().unwrap().to_owned())
            .collect();
        expected.sort();
        warnings.sort();
        if error != recorded || error.is_none() != (case["exit_code"] == 0) {
            wrong.push(format!("{}: error {error:?} instead of {recorded:?}", case["id"]));
        }
        if warnings != expected {
            wrong.push(format!("{}: warnings {warnings:?} instead of {expected:?}", case["id"]));
        }
        if schema != case["schema_valid"].as_bool() {
            wrong.push(format!("{}: schema {schema:?} instead of {}", case["id"], case["schema_valid"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn rules_file(case: &Value) -> String {
    let prelude = case["prelude"].as_str().unwrap_or_default();
    let condition = serde_json::to_string(&case["condition"]).unwrap().replace('\u{7f}', "\\u007f");
    format!("{prelude}- rule: r\n  desc: d\n  output: o\n  priority: INFO\n  condition: {condition}\n")
}

/// `why` of the record is `CODE: message` for an error.
fn compare(config: &Config, case: &Value, valid: &Value, wrong: &mut Vec<String>) {
    let (error, ..) = judge(config, &rules_file(case));
    if Some(error.is_none()) != valid.as_bool() {
        wrong.push(format!("{} {}: {error:?}, recorded {valid} {}", case["id"], case["condition"], case["why"]));
    }
}

#[test]
fn each_recorded_condition_gets_its_verdict() {
    with_stack(recorded_conditions);
}

fn recorded_conditions() {
    let (bare, container) = (config(""), config(CONTAINER));
    let mut wrong = Vec::new();
    let mut cases = lines(include_str!("../../data/conditions.jsonl"));
    cases.extend(lines(include_str!("../../data/conditions-with-lists-and-macros.jsonl")));
    for case in &cases {
        compare(&bare, case, &case["valid"], &mut wrong);
        let with_plugin = case.get("valid_with_container_plugin").filter(|value| value.is_boolean());
        compare(&container, case, with_plugin.unwrap_or(&case["valid"]), &mut wrong);
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
