//! Rules files that go through `convert` and `render`, judged by Falco's stand-in as before.

use std::path::Path;
use std::process::Command;

#[path = "desk/support.rs"]
mod support;

use support::{folder, run};
use test_cluster::stand_in;

/// What Falco, or its stand-in, says to a rules file.
fn falco_takes(dir: &Path, file: &str) -> Result<(), String> {
    let out = Command::new(stand_in()).args(["-c", "falco.yaml", "-V", file]).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() { Ok(()) } else { Err(text) }
}

/// Each recorded rules file that Falco takes is converted, and rendered, into one that it takes; each that it refuses is
/// refused.
#[test]
fn what_is_converted_and_rendered_is_judged_as_before() {
    let cases = include_str!("falco/data/rules-files.jsonl");
    let mut wrong = vec![];
    let mut count = 0;
    for line in cases.lines() {
        count += 1;
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let (id, text) = (case["id"].as_str().unwrap(), case["content"].as_str().unwrap());
        let dir = folder(&[
            ("f.yaml", text),
            (
                "falco.yaml",
                "engine: {kind: nodriver}\nload_plugins: [container]\nplugins: [{name: container, library_path: libcontainer.so}]\n\
                 stdout_output: {enabled: true}\n",
            ),
        ]);
        let converted = run(dir.path(), &["convert", "-o", "m.yaml", "f.yaml"], "");
        let unnameable = converted.err.contains("can't be a manifest");
        // What is no YAML can't be read, which exits with 2.
        if (converted.code == 0) != (case["valid"] == true && !unnameable) {
            // The fields of plugins are there with the default catalogue, and were not when Falco was asked.
            if id != "out_container_id" {
                wrong.push(format!("{id}: converting exits with {}: {}", converted.code, converted.err));
            }
            continue;
        }
        if case["valid"] == false || unnameable {
            assert!(!converted.err.is_empty(), "{id}");
            continue;
        }
        let rendered = run(dir.path(), &["render", "m.yaml"], "");
        if id == "macro_bad_field_unused" {
            // Falco looks at a macro's fields only where a rule uses it; a FalcoMacro is an object with a verdict of its own.
            assert_eq!(rendered.code, 1, "{id}");
            continue;
        }
        if rendered.code != 0 {
            wrong.push(format!("{id}: rendering exits with {}: {}", rendered.code, rendered.err));
            continue;
        }
        std::fs::write(dir.path().join("r.yaml"), &rendered.out).unwrap();
        let rules = |text: &str| {
            let mut names: Vec<&str> = text.lines().filter(|line| line.starts_with("- rule:")).collect();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        if rules(text) != rules(&rendered.out) {
            wrong.push(format!("{id}: of {} rules {} are left", rules(text), rules(&rendered.out)));
        }
        if let Err(why) = falco_takes(dir.path(), "r.yaml") {
            wrong.push(format!("{id}: {why}: {}", rendered.out));
        }
    }
    assert_eq!(count, 98);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
