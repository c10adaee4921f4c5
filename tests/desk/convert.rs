//! `falco-operator convert`.

use std::path::Path;
use std::process::Command;

use super::support::{folder, run, stand_in};

const RULES: &str = "
- list: shells
  items: [bash, zsh]
- macro: open
  condition: evt.type in (open, openat)
- rule: Shell opens a file
  desc: A shell opened a file.
  condition: open and proc.name in (shells)
  output: A shell opened a file (file=%fd.name)
  priority: NOTICE
";

#[test]
fn what_comes_out_goes_into_render() {
    let dir = folder(&[
        ("rules.yaml", RULES),
        ("later.yaml", "- list: shells\n  items: [fish]\n  override: {items: append}\n"),
    ]);
    let outcome = run(dir.path(), &["convert", "-n", "team-a", "-o", "out.yaml", "rules.yaml", "later.yaml"], "");
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let rendered = run(dir.path(), &["render", "out.yaml"], "");
    assert_eq!(rendered.code, 0, "{rendered:?}");
    assert!(rendered.out.contains("proc.name in (bash, zsh, fish)"), "{rendered:?}");
}

#[test]
fn what_can_not_be_had_is_refused_in_words() {
    let text =
        "- rule: x\n  condition: and a\n  override: {condition: append}\n- macro: a-b\n  condition: evt.num > 0\n";
    let dir = folder(&[]);
    let outcome = run(dir.path(), &["convert", "-"], text);
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert!(
        outcome.err.contains("<stdin>:1:3: rule `x` is changed here, and no file defines it before"),
        "{outcome:?}"
    );
    assert!(outcome.err.contains("<stdin>:4:10: the macro `a-b` can't be a manifest"), "{outcome:?}");
    assert_eq!(run(dir.path(), &["convert", "none.yaml"], "").code, 2);
}

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
    let cases = include_str!("../falco/data/rules-files.jsonl");
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
                "engine: {kind: nodriver}\nload_plugins: [container]\nplugins: [{name: container, library_path: libcontainer.so}]\n",
            ),
        ]);
        let converted = run(dir.path(), &["convert", "-o", "m.yaml", "f.yaml"], "");
        let unnameable = converted.err.contains("can't be a manifest");
        if converted.code != i32::from(case["valid"] == false || unnameable) {
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

#[test]
fn what_falco_pastes_otherwise_than_it_is_written_is_told() {
    let text = "- list: l\n  items: [x, 'a,b']\n- rule: r\n  desc: d\n  condition: evt.type = open and proc.name in (l)\n  output: o\n  \
                priority: INFO\n";
    let dir = folder(&[]);
    let outcome = run(dir.path(), &["convert", "-"], text);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.err.starts_with("warning: <stdin>:2:15: Falco reads `a,b` as 2 values"), "{outcome:?}");
    let outcome = run(dir.path(), &["render", "-"], &outcome.out);
    assert!(outcome.out.contains("proc.name in (x, \\\"a,b\\\")"), "{outcome:?}");
}
