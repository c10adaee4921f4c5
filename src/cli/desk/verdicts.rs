//! What Falco 0.44.1 said to whole rules files, held against what `lint` says.

use serde_json::Value;

use super::finding::{Class, Finding, Severity};
use super::input::File;
use super::lint::lint;
use super::manifest::{self, Document};
use super::plain::Items;
use super::plain_check;
use super::setting::Setting;
use crate::language::Catalog;
use crate::render::Policy;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn setting() -> Setting {
    Setting { namespace: "default".into(), policy: Policy::default(), catalog: Catalog::with_plugins(&[]) }
}

fn findings(text: &str) -> Vec<Finding> {
    lint(&[File { name: "f.yaml".into(), text: text.into() }], &setting()).0
}

/// What Falco would refuse the file for.
fn invalid(findings: &[Finding]) -> Vec<&str> {
    findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error && finding.class == Class::Invalid)
        .map(|finding| finding.message.as_str())
        .collect()
}

/// The conditions of the rules of a file with everything in them, as Falco shows them.
fn compiled(text: &str) -> Vec<Option<String>> {
    let mut items = Items::default();
    for document in manifest::documents(0, text, "default").unwrap() {
        let Document::Plain(node) = document else { continue };
        items.read(0, &node);
    }
    let files = [File { name: "f.yaml".into(), text: text.into() }];
    let expanded = plain_check::check(&items, &files, &Catalog::with_plugins(&[])).expanded;
    expanded.into_iter().map(|tree| tree.map(|tree| tree.compiled())).collect()
}

fn warnings(findings: &[Finding]) -> Vec<&str> {
    let codes = findings.iter().map(|finding| finding.code.as_str()).filter(|code| code.starts_with("LOAD_"));
    let mut codes: Vec<_> = codes.collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[test]
fn conditions_with_lists_and_macros_get_their_verdicts() {
    let cases = lines(include_str!("../../../tests/falco/data/conditions-with-lists-and-macros.jsonl"));
    assert_eq!(cases.len(), 45);
    let mut wrong = vec![];
    for case in &cases {
        let (id, condition) = (&case["id"], &case["condition"]);
        let prelude = case["prelude"].as_str().unwrap();
        // A text of JSON is one of YAML.
        let text = format!("{prelude}- rule: r\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n");
        let found = findings(&text);
        if invalid(&found).is_empty() != case["valid"].as_bool().unwrap() {
            wrong.push(format!("{id}: {text}: Falco says {}, here {:?}", case["why"], invalid(&found)));
            continue;
        }
        if let Some(expected) = case["compiled"].as_str() {
            let given = compiled(&text).remove(0);
            if given.as_deref() != Some(expected) {
                wrong.push(format!("{id}: {text}: compiled {expected}, here {given:?}"));
            }
            let recorded = case["why"].as_str().unwrap().split("warnings: ").nth(1).unwrap_or_default();
            let mut recorded: Vec<&str> = recorded.split("; ").filter(|code| !code.is_empty()).collect();
            recorded.sort_unstable();
            if recorded != warnings(&found) {
                wrong.push(format!("{id}: {text}: Falco warns {recorded:?}, here {:?}", warnings(&found)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn whole_files_get_their_verdicts() {
    let cases = lines(include_str!("../../../tests/falco/data/rules-files.jsonl"));
    assert_eq!(cases.len(), 98);
    let mut wrong = vec![];
    for case in &cases {
        let (id, text) = (&case["id"], case["content"].as_str().unwrap());
        let found = findings(text);
        if invalid(&found).is_empty() != case["valid"].as_bool().unwrap() {
            wrong.push(format!("{id}: {text}: Falco says {}, here {:?}", case["errors"], invalid(&found)));
            continue;
        }
        let recorded = case["warnings"].as_array().unwrap().iter();
        let mut recorded: Vec<&str> = recorded.filter_map(|warning| warning["code"].as_str()).collect();
        recorded.sort_unstable();
        recorded.dedup();
        // A file that is refused is not looked at to the end.
        let agrees = if case["valid"] == true {
            recorded == warnings(&found)
        } else {
            recorded.iter().all(|code| warnings(&found).contains(code))
        };
        if !agrees {
            wrong.push(format!("{id}: {text}: Falco warns {recorded:?}, here {:?}", warnings(&found)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
