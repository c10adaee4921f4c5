//! `falco-operator render`.

use std::path::Path;

use super::support::{folder, run};

const EXAMPLE_FILE: &str = "\
- rule: shell_in_container
  desc: notice shell activity within a container
  condition: container.id != host and proc.name = bash
  output: shell in a container (user=%user.name container_id=%container.id container_name=%container.name shell=%proc.name parent=%proc.pname cmdline=%proc.cmdline)
  priority: WARNING
";

fn manifest(namespace: &str, name: &str, condition: &str) -> String {
    format!(
        "---\napiVersion: mumoshu.github.io/v1alpha1\nkind: FalcoRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{rule: a rule, desc: d, condition: '{condition}', output: o, priority: INFO}}\n"
    )
}

#[test]
fn the_example_gives_its_file() {
    let outcome = run(Path::new(env!("CARGO_MANIFEST_DIR")), &["render", "examples/bash.falcorule.yaml"], "");
    assert_eq!((outcome.code, outcome.out.as_str()), (0, EXAMPLE_FILE));
    let warning = "warning: FalcoRule default/bash: condition: the condition does not say which types of events";
    assert!(outcome.err.starts_with(warning) && outcome.err.lines().count() == 1, "{outcome:?}");
}

#[test]
fn each_namespace_has_a_file_and_names_are_unique_among_them() {
    let all = [manifest("b", "x", "evt.type = open"), manifest("a", "z", "evt.type = open")].concat();
    let dir = folder(&[("rules/all.yaml", &all), ("rules/other.yaml", "kind: Pod\n")]);
    let outcome = run(dir.path(), &["render", "rules", "-o", "out"], "");
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "", ""));
    let file = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert!(file("a.yaml").starts_with("- rule: a rule\n"));
    assert!(file("b.yaml").starts_with("- rule: b/a rule\n"));
    let outcome = run(dir.path(), &["render", "-"], &all);
    assert_eq!(outcome.out, format!("# a.yaml\n{}# b.yaml\n{}", file("a.yaml"), file("b.yaml")));
}

#[test]
fn what_is_refused_is_told_and_the_rest_is_rendered() {
    let all = [manifest("a", "good", "evt.type = open"), manifest("a", "bad", "evt.type =").replace("a rule", "bad")]
        .concat();
    let dir = folder(&[("all.yaml", &all), ("policy.yaml", "priorities: [ERROR]\n"), ("odd.yaml", "isolation: x\n")]);
    let deep = format!("{}evt.num=1{}", "(".repeat(200), ")".repeat(200));
    let outcome = run(dir.path(), &["render", "-"], &all.replace("evt.type =\'", &format!("{deep}'")));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.err.starts_with("error: FalcoRule a/bad: "), "{outcome:?}");
    assert!(outcome.out.starts_with("- rule: a rule\n"), "{outcome:?}");
    let outcome = run(dir.path(), &["render", "--policy", "policy.yaml", "all.yaml"], "");
    assert_eq!((outcome.code, outcome.out.as_str()), (1, "[]\n"));
    assert!(outcome.err.contains("may not have the priority INFO"), "{outcome:?}");
    let outcome = run(dir.path(), &["render", "--policy", "odd.yaml", "all.yaml"], "");
    assert!(outcome.code != 0 && outcome.err.contains("odd.yaml: cannot read the policy: isolation:"), "{outcome:?}");
    for unreadable in ["none.yaml", "odd.yaml/x"] {
        assert_eq!(run(dir.path(), &["render", unreadable], "").code, 2);
    }
}

#[test]
fn plain_rules_are_pointed_to_convert() {
    let outcome = run(Path::new("/"), &["render", "-"], "- macro: x\n  condition: evt.num > 0\n");
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("falco-operator convert"), "{outcome:?}");
}
