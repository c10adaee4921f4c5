//! `falco-operator convert`.

use super::support::{folder, run};

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

#[test]
fn what_falco_pastes_otherwise_than_it_is_written_is_told() {
    let text = "- list: l\n  items: [x, 'a,b']\n- rule: r\n  desc: d\n  condition: evt.type = open and proc.name in (l)\n  output: o\n  \
                priority: INFO\n";
    let dir = folder(&[]);
    let outcome = run(dir.path(), &["convert", "-"], text);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.err.starts_with("warning: <stdin>:2:15: Falco reads `a,b` as 2 values"), "{outcome:?}");
    let outcome = run(dir.path(), &["render", "-"], &outcome.out);
    assert!(outcome.out.contains("proc.name in (x, \"a,b\")"), "{outcome:?}");
}
