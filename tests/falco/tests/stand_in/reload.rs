//! Reloads: what triggers them, what they do, and the traps that Falco sets.

use crate::harness::{Place, bad, rule, sha256, until};
use nix::sys::signal::Signal;
use std::fs;

const ALERT: &str = "Critical Falco internal: hot restart failure";

#[test]
fn sighup_reloads_within_the_process() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    let falco = place.start(&[]);
    let before = falco.page();
    falco.signal(Signal::SIGHUP);
    let after = falco.reloaded_since(&before);
    assert_eq!(falco.restarts(), 1);
    // The start, the dry run, the load after it.
    assert_eq!(falco.loads(), 3);
    assert_eq!(before.start(), after.start());
    assert_eq!(before.hashes(), after.hashes());
}

#[test]
fn options_survive_a_reload() {
    let place = Place::watching_folder();
    place.write("more.yaml", &rule("more"));
    let falco = place.start(&["-o", "rules_files[]=more.yaml"]);
    let before = falco.page();
    falco.signal(Signal::SIGHUP);
    assert!(falco.reloaded_since(&before).hashes().contains_key("more.yaml"));
}

#[test]
fn a_folder_recovers_from_a_bad_file() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    let falco = place.start(&[]);
    let before = falco.page();
    place.place("rules/b.yaml", &bad("b"));
    until("the alert", || falco.stdout().contains(ALERT));
    assert!(falco.stdout().contains("nonexistent field proc.nosuch"));
    let still = falco.page();
    assert_eq!((still.reload(), still.hashes()), (before.reload(), before.hashes()));
    assert_eq!(falco.get("/healthz").unwrap().0, 200);
    place.place("rules/b.yaml", &rule("b"));
    let after = falco.reloaded_since(&before);
    assert_eq!(after.hashes()["b.yaml"], sha256(&place.path("rules/b.yaml")));
}

#[test]
fn a_single_file_is_no_longer_watched_after_a_bad_rename() {
    let place = Place::new("rules_files: [DIR/a.yaml]\n");
    place.write("a.yaml", &rule("a"));
    let falco = place.start(&[]);
    let before = falco.page();
    assert!(falco.watches("a.yaml"));
    place.place("a.yaml", &rule("b"));
    let renamed = falco.reloaded_since(&before);
    assert!(falco.watches("a.yaml"));
    place.place("a.yaml", &bad("b"));
    until("the alert", || falco.stdout().contains(ALERT));
    place.place("a.yaml", &rule("c"));
    assert!(!falco.watches("a.yaml"));
    assert_eq!(falco.watched().len(), 1, "only falco.yaml is left");
    falco.signal(Signal::SIGHUP);
    falco.reloaded_since(&renamed);
    assert!(falco.watches("a.yaml"));
}

#[test]
fn in_place_writes_are_noticed_good_after_bad() {
    let place = Place::new("rules_files: [DIR/a.yaml]\n");
    place.write("a.yaml", &rule("a"));
    let falco = place.start(&[]);
    let before = falco.page();
    place.write("a.yaml", &bad("b"));
    until("the alert", || falco.stdout().contains(ALERT));
    place.write("a.yaml", &rule("b"));
    falco.reloaded_since(&before);
}

#[test]
fn any_new_file_in_a_watched_folder_reloads() {
    let place = Place::new("rules_files: [DIR/a.yaml]\n");
    place.write("a.yaml", &rule("a"));
    fs::create_dir(place.path(".reload")).unwrap();
    let falco = place.start(&["-o", "rules_files[]=.reload"]);
    let first = falco.page();
    place.write(".reload/1", "");
    let second = falco.reloaded_since(&first);
    fs::remove_file(place.path(".reload/1")).unwrap();
    falco.reloaded_since(&second);
    assert_eq!(falco.page().hashes().len(), 1);
}

#[test]
fn deleting_the_last_file_of_a_folder_leaves_no_rules() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    let falco = place.start(&[]);
    let before = falco.page();
    fs::remove_file(place.path("rules/a.yaml")).unwrap();
    assert!(falco.reloaded_since(&before).hashes().is_empty());
}

#[test]
fn what_was_absent_at_the_start_is_not_watched() {
    let place = Place::new("rules_files: [DIR/rules, DIR/later.yaml]\n");
    let falco = place.start(&[]);
    let before = falco.page();
    place.write("later.yaml", &rule("later"));
    assert!(!falco.watches("later.yaml"));
    falco.signal(Signal::SIGHUP);
    assert!(falco.reloaded_since(&before).hashes().contains_key("later.yaml"));
}

#[test]
fn a_folder_of_configuration_is_watched_and_its_files_are_not() {
    let place = Place::new("config_files: [DIR/config.d, DIR/single.yaml]\nrules_files: [DIR/rules]\n");
    fs::create_dir(place.path("config.d")).unwrap();
    place.write("config.d/a.yaml", "x: 1\n");
    place.write("single.yaml", "y: 1\n");
    let falco = place.start(&[]);
    assert!(falco.watches("config.d") && falco.watches("single.yaml") && falco.watches("falco.yaml"));
    assert!(!falco.watches("config.d/a.yaml"));
    let before = falco.page();
    let config = |name: &str| before.0.contains(&format!("config_files_info{{file_name=\"{name}\""));
    assert!(config("falco.yaml") && config("single.yaml") && !config("a.yaml"));
    place.write("config.d/b.yaml", "priority: loud\n");
    until("the alert", || falco.stdout().contains("hot restart failure: Unknown priority"));
    place.write("falco.yaml", "a: [\n");
    until("the alert", || falco.stdout().contains("hot restart failure: std::exception"));
}

#[test]
fn swapping_a_set_is_no_event_and_the_next_reload_takes_it() {
    let place = Place::new("");
    for set in ["one", "two"] {
        fs::create_dir_all(place.path(&format!("sets/{set}/rules"))).unwrap();
        place.write(
            &format!("sets/{set}/falco.yaml"),
            &format!("{}# {set}\nrules_files: [DIR/rules/a.yaml]\n", place.usual()),
        );
        place.write(&format!("sets/{set}/rules/a.yaml"), &rule(set));
    }
    fs::remove_dir(place.path("rules")).unwrap();
    place.link("current", "sets/one");
    place.link("rules", "current/rules");
    place.link("falco.yaml", "current/falco.yaml");
    let falco = place.start(&[]);
    let before = falco.page();
    place.link("current", "sets/two");
    assert!(falco.watches("sets/one/rules/a.yaml") && !falco.watches("rules/a.yaml"));
    falco.signal(Signal::SIGHUP);
    let after = falco.reloaded_since(&before);
    assert_eq!(after.hashes()["a.yaml"], sha256(&place.path("sets/two/rules/a.yaml")));
    assert!(after.0.contains(&sha256(&place.path("sets/two/falco.yaml"))));
    assert_eq!(falco.loads(), 3);
}

#[test]
fn a_bad_file_after_the_dry_run_kills_it() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    place.write("control/teardown", "1000");
    let mut falco = place.start(&[]);
    place.place("rules/b.yaml", &rule("b"));
    until("the restart", || falco.restarts() == 1);
    place.place("rules/b.yaml", &bad("b"));
    assert_eq!(falco.ended().code(), Some(1));
    assert!(falco.stderr().contains("Error: ") && falco.stderr().contains("b.yaml: Invalid"));
}

#[test]
fn triggers_during_the_dry_run_starve_the_reload() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    let falco = place.start(&[]);
    let before = falco.page();
    place.write("control/slow", "2000");
    falco.signal(Signal::SIGHUP);
    for dry_runs in 1..=3 {
        until("a dry run", || falco.loads() == 1 + dry_runs);
        falco.signal(Signal::SIGHUP);
    }
    until("the last dry run", || falco.loads() == 5);
    assert_eq!(falco.restarts(), 0);
    falco.reloaded_since(&before);
    assert_eq!(falco.restarts(), 1);
}

#[test]
fn a_swap_during_the_load_shows_new_hashes_over_old_rules() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("old"));
    place.write("control/slow", "700");
    let falco = place.start(&[]);
    let before = falco.page();
    falco.signal(Signal::SIGHUP);
    until("the real load", || falco.restarts() == 1 && falco.loads() == 3);
    place.place("rules/a.yaml", &rule("new"));
    let after = falco.reloaded_since(&before);
    assert_eq!(after.hashes()["a.yaml"], sha256(&place.path("rules/a.yaml")));
    place.place("control/match", "{\"rules\": [\"old\", \"new\"]}\n");
    until("the alert", || falco.stdout().contains("o old"));
    assert!(!falco.stdout().contains("o new"));
}

#[test]
fn the_port_is_closed_between_two_runs() {
    let place = Place::watching_folder();
    place.write("control/teardown", "1000");
    let falco = place.start(&[]);
    let before = falco.page();
    falco.signal(Signal::SIGHUP);
    until("the closed port", || falco.get("/healthz").is_none());
    falco.reloaded_since(&before);
}
