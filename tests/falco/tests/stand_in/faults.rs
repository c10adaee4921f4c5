//! The faults that only the stand-in has.

use crate::harness::{Place, described, rule, sha256, texts, until};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn refused_by_text_by_hash_and_by_description() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    place.write("rules/b.yaml", &rule("b"));
    let code = || place.run(&["--dry-run"]).status.code();
    assert_eq!(code(), Some(0));
    for selector in ["rule: b", &sha256(&place.path("rules/b.yaml")), "*", ""] {
        place.write("control/refuse", &format!("unrelated\n{selector}\n"));
        let expected = if selector.is_empty() { Some(0) } else { Some(1) };
        assert_eq!(code(), expected, "{selector:?}");
    }
    place.write("control/refuse", "");
    assert_eq!(code(), Some(1));
    fs::remove_file(place.path("control/refuse")).unwrap();
    place.write("rules/c.yaml", &described("c", "stand-in: refuse on node-2"));
    assert_eq!(code(), Some(0));
    place.write("rules/c.yaml", &described("c", "x. stand-in: refuse on node-1"));
    assert_eq!(code(), Some(1));
    let output = place.run(&["-V", "rules/b.yaml", "-V", "rules/c.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let (stdout, _) = texts(&output);
    assert!(stdout.starts_with("rules/b.yaml: Ok\nrules/c.yaml: Invalid\n"), "{stdout}");
    assert!(stdout.contains("rule 'c'"), "{stdout}");
}

#[test]
fn a_set_passes_the_check_and_fails_the_load() {
    for (fault, killed) in [("crash", true), ("refuse-at-load", false)] {
        let place = Place::watching_folder();
        place.write("rules/a.yaml", &rule("a"));
        let mut falco = place.start(&[]);
        place.place("rules/b.yaml", &described("b", &format!("stand-in: {fault}")));
        let status = falco.ended();
        assert_eq!(status.code(), if killed { None } else { Some(1) }, "{fault}");
        assert_eq!(falco.restarts(), 1);
        assert_eq!(place.run(&["--dry-run"]).status.code(), Some(0));
        assert_eq!(place.run(&["-V", "rules/b.yaml"]).status.code(), Some(0));
    }
}

#[test]
fn it_can_die_in_the_dry_run_and_some_time_after_the_load() {
    let place = Place::watching_folder();
    let mut falco = place.start(&[]);
    place.place("rules/b.yaml", &described("b", "stand-in: crash-in-check"));
    assert_eq!(falco.ended_by(), Some(Signal::SIGABRT as i32));
    assert_eq!(falco.restarts(), 0);
    assert_eq!(place.run(&["-V", "rules/b.yaml"]).status.code(), None);
    place.write("rules/b.yaml", &described("b", "stand-in: crash-after 10ms"));
    let mut falco = place.spawn(&[]);
    assert_eq!(falco.ended_by(), Some(Signal::SIGABRT as i32));
    assert!(falco.stderr().contains("Opening 'syscall' source"));
    place.write("rules/b.yaml", &rule("b"));
    let mut falco = place.start(&[]);
    place.write("control/crash-now", "");
    assert_eq!(falco.ended_by(), Some(Signal::SIGABRT as i32));
}

#[test]
fn it_can_hang_serve_nothing_or_no_metrics_or_not_start() {
    let place = Place::watching_folder();
    place.write("control/hang", "");
    place.write("rules/a.yaml", &rule("a"));
    assert_eq!(place.run(&["--dry-run"]).status.code(), Some(0));
    let falco = place.spawn(&[]);
    until("the rules to be read", || falco.stderr().contains("a.yaml | schema validation: ok"));
    assert!(falco.get("/healthz").is_none());
    drop(falco);
    fs::remove_file(place.path("control/hang")).unwrap();
    place.write("control/never-serve", "");
    let falco = place.spawn(&[]);
    until("the end of the start", || falco.stderr().contains("Opening 'syscall' source"));
    assert!(falco.get("/healthz").is_none());
    drop(falco);
    fs::remove_file(place.path("control/never-serve")).unwrap();
    let falco = place.start(&[]);
    place.write("control/no-metrics", "");
    assert_eq!(falco.get("/metrics").unwrap().0, 404);
    assert_eq!(falco.get("/healthz").unwrap().0, 200);
    drop(falco);
    place.write("control/exit-at-start", "7");
    assert_eq!(place.run(&[]).status.code(), Some(7));
}

#[test]
fn a_trigger_can_be_lost() {
    let place = Place::watching_folder();
    let falco = place.start(&[]);
    let before = falco.page();
    place.write("control/ignore-next-trigger", "");
    place.place("rules/a.yaml", &rule("a"));
    until("the trigger to be lost", || !place.path("control/ignore-next-trigger").exists());
    assert_eq!(falco.loads(), 1);
    place.place("rules/b.yaml", &rule("b"));
    assert_eq!(falco.reloaded_since(&before).hashes().len(), 2);
}

#[test]
fn load_time_grows_with_rules_times_files() {
    let place = Place::watching_folder();
    let time = || {
        let begun = std::time::Instant::now();
        assert!(place.run(&["--dry-run"]).status.success());
        begun.elapsed()
    };
    for file in 0..20 {
        place.write(&format!("rules/{file}.yaml"), &rule(&format!("r{file}")));
    }
    // 1 + 2 + … + 20 rules, a millisecond each.
    place.write("control/load-cost", "1000");
    assert!(time() >= std::time::Duration::from_millis(210));
}
