//! `-V`, `--list`, `--version`.

use crate::harness::{Place, bad, rule, texts};
use serde_json::Value;

fn place() -> Place {
    let place = Place::new("rules_files: []\n");
    place.write("one.yaml", &rule("r"));
    place.write("bad.yaml", &bad("zz"));
    place.write("warn.yaml", &rule("r").replace("evt.type = open and ", ""));
    place
}

#[test]
fn plain_verdicts() {
    let place = place();
    let output = place.run(&["-V", "one.yaml", "-V", "warn.yaml"]);
    assert_eq!(texts(&output).0, "one.yaml: Ok\nwarn.yaml: Ok, with warnings\n");
    assert!(output.status.success());
    assert!(texts(&output).1.contains("LOAD_NO_EVTTYPE"));
    let output = place.run(&["-V", "bad.yaml"]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    let expected = "bad.yaml: Invalid\n1 Errors:\nIn rules content: (bad.yaml:0:0)\n    rule 'zz': (bad.yaml:0:2)\n    \
                    rule condition: (bad.yaml:2:13)\n    condition expression: (\"";
    assert!(stdout.starts_with(expected), "{stdout}");
    assert!(stdout.ends_with(
        "LOAD_ERR_COMPILE_CONDITION (Error compiling condition): filter_check called with nonexistent field proc.nosuch\n"
    ));
    assert!(stderr.contains(&format!("Error: {stdout}")), "{stderr}");
}

#[test]
fn json_verdicts_blame_the_file_that_is_at_fault() {
    let place = place();
    let output = place.run(&["-o", "json_output=true", "-V", "bad.yaml", "-V", "one.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let (stdout, _) = texts(&output);
    assert_eq!(stdout.lines().count(), 1);
    let results: Value = serde_json::from_str(&stdout).unwrap();
    let results = results["falco_load_results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        assert_eq!(result["successful"], false);
        let error = &result["errors"][0];
        assert_eq!(error["code"], "LOAD_ERR_COMPILE_CONDITION");
        assert_eq!(error["message"], "filter_check called with nonexistent field proc.nosuch");
        let locations = error["context"]["locations"].as_array().unwrap();
        assert_eq!(locations[0]["position"]["name"], "bad.yaml");
        assert_eq!(locations[1]["item_type"], "rule");
        assert_eq!(locations[1]["item_name"], "zz");
    }
    assert_eq!(results[1]["name"], "one.yaml");
}

#[test]
fn what_has_no_verdict() {
    let place = place();
    place.write("plugin.yaml", "- required_plugin_versions:\n  - name: foo\n    version: 1.0.0\n");
    place.write("stoi.yaml", &rule("r").replace("proc.name = a", "fd.sport >= 18446744073709551616"));
    place.write("multi.yaml", &rule("r").replace("proc.name = a", "toupper(proc.name, proc.pname) = A"));
    for (file, words) in [
        ("nosuch.yaml", "Error: Could not open file nosuch.yaml for reading"),
        ("rules", "Runtime error: basic_filebuf::underflow error reading the file: Is a directory. Exiting."),
        ("plugin.yaml", "Error: Plugin requirement not satisfied, must load one of: foo (>= 1.0.0)"),
        ("stoi.yaml", "Runtime error: stoi. Exiting."),
        ("multi.yaml", "Runtime error: unknown multivalue transformer. Exiting."),
    ] {
        let output = place.run(&["-o", "json_output=true", "-V", file]);
        let (stdout, stderr) = texts(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(1), ""), "{file}");
        assert!(stderr.contains(words), "{file}: {stderr}");
    }
    assert_eq!(texts(&place.run(&["-V", "/dev/null"])).0, "/dev/null: Ok\n");
}

#[test]
fn bottomless_conditions_kill_it() {
    use std::os::unix::process::ExitStatusExt as _;
    let place = place();
    let nested =
        |depth| rule("r").replace("proc.name = a", &format!("{}proc.name = a{}", "(".repeat(depth), ")".repeat(depth)));
    place.write("deep.yaml", &nested(8_125));
    place.write("deeper.yaml", &nested(8_203));
    assert!(place.run(&["-V", "deep.yaml"]).status.success());
    assert!(place.run(&["-V", "deeper.yaml"]).status.signal().is_some());
}

#[test]
fn plugins_bring_their_fields() {
    let place = place();
    let with = |arguments: &[&str]| {
        let mut all = vec!["-o", "plugins[]={name: container, library_path: libcontainer.so}"];
        all.extend(arguments);
        place.run(&all)
    };
    let fields = |output: std::process::Output| {
        let listed: Value = serde_json::from_str(&texts(&output).0).unwrap();
        let classes = listed["fieldclasses"].as_array().unwrap().clone();
        classes.iter().flat_map(|class| class["fields"].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    let has = |fields: &[Value], name: &str| fields.iter().any(|field| field["name"] == name);
    let bare = fields(place.run(&["--list", "--format", "json"]));
    let rich = fields(with(&["--list=syscall", "--format=json"]));
    assert!(has(&bare, "proc.name") && !has(&bare, "container.id"));
    assert!(has(&rich, "proc.name") && has(&rich, "container.id") && has(&rich, "k8s.ns.name"));
    let label = rich.iter().find(|field| field["name"] == "k8s.pod.label").unwrap();
    assert_eq!(label["argument"], serde_json::json!({"required": true, "type": ["KEY"]}));
    place.write("container.yaml", &rule("r").replace("proc.name = a", "container.id != host"));
    assert_eq!(place.run(&["-V", "container.yaml"]).status.code(), Some(1));
    assert_eq!(with(&["-V", "container.yaml"]).status.code(), Some(0));
    assert_eq!(place.run(&["--list=k8s_audit"]).status.code(), Some(1));
    let names: Value = serde_json::from_str(&texts(&place.run(&["--list", "--format", "json", "-N"])).0).unwrap();
    assert!(names["fieldnames"].as_array().unwrap().contains(&"evt.type".into()));
}

#[test]
fn versions() {
    let place = place();
    let (stdout, _) = texts(&place.run(&["--version"]));
    assert!(stdout.starts_with("Falco version: 0.44.1"));
    assert!(stdout.contains("stand-in"));
    let json: Value = serde_json::from_str(&texts(&place.run(&["--version", "-o", "json_output=true"])).0).unwrap();
    assert_eq!(json["engine_version_semver"], "0.62.0");
    assert_eq!(place.run(&["--no-such-option"]).status.code(), Some(1));
}
