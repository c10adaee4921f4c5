//! `falco-operator lint`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::{folder, run};

const GOOD: &str = "apiVersion: mumoshu.github.io/v1alpha1\nkind: FalcoMacro\nmetadata: {name: m}\nspec: {macro: m, condition: evt.num > 0}\n";

fn mistakes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/desk/mistakes")
}

/// What people read, for every kind of mistake. Look at the snapshots when they change: would the author of the manifest
/// know what to do?
#[test]
fn every_kind_of_mistake_is_told_where_it_is_and_what_to_do() {
    for file in
        ["fields", "syntax", "parts", "outputs", "exceptions", "shape", "hazards", "warnings", "plain", "broken"]
    {
        let outcome = run(&mistakes(), &["lint", &format!("{file}.yaml")], "");
        assert_eq!(outcome.code, i32::from(file != "warnings"), "{outcome:?}");
        insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(file, format!("{}\n{}", outcome.out, outcome.err));
        });
    }
    let outcome = run(&mistakes(), &["lint", "--policy", "policy.txt", "policed.yaml"], "");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("policed", format!("{}\n{}", outcome.out, outcome.err));
    });
}

#[test]
fn github_and_json_are_for_machines() {
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("github", run(&mistakes(), &["lint", "--format", "github", "outputs.yaml"], "").out);
        insta::assert_snapshot!("json", run(&mistakes(), &["lint", "--format", "json", "outputs.yaml"], "").out);
    });
}

/// Line and column of every finding, in every file of mistakes, are those of what is meant in the file as it stands.
#[test]
fn places_are_those_of_the_file() {
    let outcome = run(&mistakes(), &["lint", "--format", "json", "."], "");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let report: Value = serde_json::from_str(&outcome.out).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let keys = ["class", "code", "column", "file", "help", "item", "line", "message", "severity"];
    let mut classes = std::collections::BTreeSet::new();
    for finding in findings {
        let object = finding.as_object().unwrap();
        let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, keys);
        for key in ["kind", "namespace", "name"] {
            assert!(finding["item"][key].is_string(), "{finding}");
        }
        assert!(["error", "warning"].contains(&finding["severity"].as_str().unwrap()));
        classes.insert(finding["class"].as_str().unwrap());
        // A message that quotes a word that stands in the line points at it.
        let text = std::fs::read_to_string(mistakes().join(finding["file"].as_str().unwrap())).unwrap();
        let line = text.lines().nth(finding["line"].as_u64().unwrap() as usize - 1).unwrap_or_default();
        let column = finding["column"].as_u64().unwrap() as usize;
        assert!(column >= 1 && column <= line.chars().count() + 1, "{finding}");
    }
    assert_eq!(classes.into_iter().collect::<Vec<_>>(), ["invalid", "policy", "style", "unsafe"]);
    let at = |file: &str, line: &str, word: &str| {
        let text = std::fs::read_to_string(mistakes().join(file)).unwrap();
        let number = text.lines().position(|other| other.contains(line)).unwrap();
        let column = text.lines().nth(number).unwrap().find(word).unwrap();
        let here = |finding: &&Value| {
            finding["line"].as_u64() == Some(number as u64 + 1)
                && finding["column"].as_u64() == Some(column as u64 + 1)
                && finding["file"].as_str().unwrap().ends_with(file)
        };
        assert!(findings.iter().any(|finding| here(&finding)), "{file}:{}:{}: {line}", number + 1, column + 1);
    };
    at("fields.yaml", "and proc.nmae = bash", "proc.nmae");
    at("fields.yaml", "evt.type in (execve, opne)", "opne");
    at("fields.yaml", "proc.pid = twelve", "twelve");
    at("fields.yaml", "the quick brown fox", "fd.nmae");
    at("parts.yaml", "and proc.pname = ports", "ports");
    at("parts.yaml", "(opened or strated", "strated");
    at("outputs.yaml", "pid=%proc.pidd", "%proc.pidd");
    at("exceptions.yaml", "fields: [proc.nmae]", "proc.nmae");
    at("exceptions.yaml", "values: [[seven]]", "seven");
    at("plain.yaml", "proc.cmdline contains \"run shells now\"", "shells");
    at("shape.yaml", "priority: WARN", "WARN");
}

#[test]
fn exit_codes_say_what_was_found() {
    let dir = folder(&[("good.yaml", GOOD), ("bad.yaml", &GOOD.replace("condition", "conditoin"))]);
    assert_eq!(run(dir.path(), &["lint", "good.yaml"], "").code, 0);
    let outcome = run(dir.path(), &["lint", "."], "");
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("there is no key `conditoin` in `spec`"), "{outcome:?}");
    assert!(outcome.out.contains("did you mean `condition`?"), "{outcome:?}");
    assert_eq!(run(dir.path(), &["lint", "good.yaml", "none.yaml"], "").code, 2);
    assert_eq!(run(dir.path(), &["lint", "-"], "a: [").code, 1);
    assert_eq!(run(dir.path(), &["lint", "-"], GOOD).code, 0);
    assert_eq!(run(dir.path(), &["lint"], "").code, 2);
    assert_eq!(run(dir.path(), &["lint", "--catalog", "good.yaml", "good.yaml"], "").code, 2);
    assert_eq!(run(dir.path(), &["lint", "--policy", "none.yaml", "good.yaml"], "").code, 2);
}

#[test]
fn the_examples_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let outcome = run(root, &["lint", "--format", "json", "examples"], "");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let report: Value = serde_json::from_str(&outcome.out).unwrap();
    assert!(report["items"].as_u64().unwrap() >= 4, "{outcome:?}");
}

#[test]
fn a_catalogue_decides_what_there_is() {
    let rule = "apiVersion: mumoshu.github.io/v1alpha1\nkind: FalcoRule\nmetadata: {name: r}\nspec:\n  rule: r\n  desc: d\n  \
                condition: opened and own.field = x\n  output: o\n  priority: INFO\n";
    let catalog = "apiVersion: mumoshu.github.io/v1alpha1\nkind: FalcoCatalog\nmetadata: {name: c}\nspec:\n  falcoVersion: 0.50.0\n  \
                   sources: [syscall]\n  fields:\n  - {name: evt.type, type: CHARBUF, sources: [syscall]}\n  \
                   - {name: own.field, type: CHARBUF, sources: [syscall], description: Our own.}\n  \
                   macros: [{name: opened, text: evt.type = open}]\n";
    let dir = folder(&[("r.yaml", rule), ("c.yaml", catalog)]);
    let outcome = run(dir.path(), &["lint", "r.yaml"], "");
    assert!(outcome.code == 1 && outcome.out.contains("there is no field `own.field`"), "{outcome:?}");
    let outcome = run(dir.path(), &["lint", "--catalog", "c.yaml", "r.yaml"], "");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let outcome = run(dir.path(), &["explain", "--catalog", "c.yaml", "own.field"], "");
    assert!(outcome.code == 0 && outcome.out.contains("Our own."), "{outcome:?}");
    let outcome = run(dir.path(), &["explain", "own.field"], "");
    assert!(outcome.code == 1 && outcome.err.contains("there is no field"), "{outcome:?}");
    let outcome = run(dir.path(), &["render", "--catalog", "c.yaml", "r.yaml"], "");
    assert!(outcome.code == 0 && outcome.out.contains("condition: opened and own.field = x"), "{outcome:?}");
}

#[test]
fn what_a_rules_file_needs_must_not_come_later() {
    let uses = "- rule: r\n  desc: d\n  condition: evt.type = open and m\n  output: o\n  priority: INFO\n";
    let defines = "- macro: m\n  condition: proc.name = x\n";
    let dir = folder(&[("a.yaml", uses), ("b.yaml", defines)]);
    let outcome = run(dir.path(), &["lint", "a.yaml", "b.yaml"], "");
    assert!(outcome.code == 1 && outcome.out.contains("there is no macro `m`"), "{outcome:?}");
    let outcome = run(dir.path(), &["lint", "b.yaml", "a.yaml"], "");
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""), "{outcome:?}");
}
