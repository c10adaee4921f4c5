//! falco.yaml in its variants, and a base that changes under a running Falco.

use std::fs;

use falco_operator::agent::engine::Step;
use falco_operator::api::{Fault, NodeFaultReason, Proof};
use serde_yaml::Value;

use crate::place::{Agent, Place, bad, described, hash, rollout, rule, settled};

fn entries(place: &Place, file: &str, key: &str) -> Vec<String> {
    let config: Value = serde_yaml::from_str(&place.read(file)).unwrap();
    let entries = config.get(key).unwrap().as_sequence().unwrap().clone();
    entries.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn rules_files_are_extended_and_all_else_is_kept() {
    let place = Place::new();
    let base =
        "# Ours.\nrules_files: # in order\n  - DIR/etc/base_rules.yaml\n\n# not Falco's\nunknown: {deep: [1, 2]}\n";
    place.base(base);
    let before = place.read("etc/falco.yaml");
    place.running().await;
    let [first, ours, trigger] = &entries(&place, "state/falco.yaml", "rules_files")[..] else {
        panic!("three entries")
    };
    assert_eq!(*first, place.here("DIR/etc/base_rules.yaml"));
    assert_eq!(*ours, place.here("DIR/state/rules/a.yaml"));
    assert_eq!(*trigger, place.here("DIR/state/.reload"));
    // Without its own lines and the note, the clone is the base byte for byte.
    let clone = place.read("state/falco.yaml");
    let (clone, alerts) = clone.split_once("append_output:\n").unwrap();
    assert!(alerts.lines().all(|line| line.starts_with("  ")), "{alerts}");
    let rest: Vec<_> = clone.split_inclusive('\n').skip(1).filter(|line| !line.contains("/state/")).collect();
    assert_eq!(rest.concat(), before);
    assert_eq!(place.read("etc/falco.yaml"), before);
}

#[tokio::test]
async fn the_old_key_is_extended_where_it_is_the_one_in_use() {
    for value in ["DIR/etc/base_rules.yaml", "[DIR/etc/base_rules.yaml]"] {
        let place = Place::new();
        place.base(&format!("rules_file: {value}\n"));
        place.running().await;
        let expected = ["DIR/etc/base_rules.yaml", "DIR/state/rules/a.yaml", "DIR/state/.reload"];
        assert_eq!(entries(&place, "state/falco.yaml", "rules_file"), expected.map(|it| place.here(it)));
        assert!(!place.read("state/falco.yaml").contains("rules_files"));
    }
}

#[tokio::test]
async fn a_base_without_rules_files_gets_the_key() {
    let place = Place::new();
    place.base("");
    place.running().await;
    let expected = ["DIR/state/rules/a.yaml", "DIR/state/.reload"];
    assert_eq!(entries(&place, "state/falco.yaml", "rules_files"), expected.map(|it| place.here(it)));
}

#[tokio::test]
async fn both_keys_are_an_error_and_the_running_falco_is_left_alone() {
    let place = Place::new();
    let mut agent = place.running().await;
    let (pid, set) = (place.falco(), place.current());
    let reloaded = agent.running.borrow().last_reload;
    place.base("rules_files: [DIR/etc/base_rules.yaml]\nrules_file: [DIR/etc/base_rules.yaml]\n");
    agent.want([("a", settled(&rule("other")))]);
    let running = agent.until("the fault", |running| running.fault.is_some()).await;
    let fault = running.fault.unwrap();
    assert_eq!(fault.reason, NodeFaultReason::ConfigInvalid);
    assert!(fault.message.contains("rules_files and rules_file"), "{}", fault.message);
    assert_eq!((place.falco(), place.current(), running.last_reload), (pid, set, reloaded));
    assert_eq!(running.proof, Proof::Metrics);
    // Repaired, it goes on by itself.
    place.base("rules_files: [DIR/etc/base_rules.yaml]\n");
    agent.settled(&[("a", &rule("other"))]).await;
}

#[tokio::test]
async fn with_both_keys_from_the_start_falco_is_not_started() {
    let place = Place::new();
    place.base("rules_files: [DIR/etc/base_rules.yaml]\nconfig_files: [DIR/etc/config.d]\n");
    fs::create_dir(place.path("etc/config.d")).unwrap();
    place.write("etc/config.d/old.yaml", &place.here("rules_file: [DIR/etc/base_rules.yaml]\n"));
    let mut agent = place.start();
    let running = agent.until("the fault", |running| running.fault.is_some()).await;
    assert_eq!(running.fault.unwrap().reason, NodeFaultReason::ConfigInvalid);
    assert_eq!(place.falco(), None);
    fs::remove_file(place.path("etc/config.d/old.yaml")).unwrap();
    agent.want([("a", settled(&rule("a")))]);
    agent.settled(&[("a", &rule("a"))]).await;
}

#[tokio::test]
async fn a_folder_of_config_files_that_sets_the_keys_has_ours_behind_its_own() {
    for (included, key) in [
        ("rules_files: [DIR/etc/more_rules.yaml]\n", "rules_files"),
        ("rules_file: DIR/etc/more_rules.yaml\n", "rules_file"),
    ] {
        let place = Place::new();
        fs::create_dir(place.path("etc/config.d")).unwrap();
        place.write("etc/more_rules.yaml", &rule("more"));
        // The folder also drops what the page needs, which the command line gives back.
        place.write("etc/config.d/10.yaml", &place.here(&format!("{included}webserver: {{listen_port: 1}}\n")));
        let main = if key == "rules_files" { "rules_files: [DIR/etc/base_rules.yaml]\n" } else { "" };
        place.base(&format!("{main}config_files:\n  - DIR/etc/config.d\nwebserver: {{enabled: true}}\n"));
        let mut agent = place.running().await;
        let include = place.read("state/current/include.yaml");
        assert!(include.contains(&place.here("- DIR/state/rules/a.yaml")), "{include}");
        // A macro of a file that the folder names is known to a file of ours.
        place.write("etc/more_rules.yaml", &format!("- macro: theirs\n  condition: proc.name = b\n{}", rule("more")));
        let ours = rule("b").replace("proc.name = a", "theirs");
        agent.want([("a", rollout(&ours, Some(&rule("a"))))]);
        let running = agent.settled(&[("a", &ours)]).await;
        assert_eq!(running.proof, Proof::Metrics, "{key}");
    }
}

#[tokio::test]
async fn a_folder_of_config_files_that_replaces_the_list_does_not_lose_ours() {
    let place = Place::new();
    fs::create_dir(place.path("etc/config.d")).unwrap();
    place.write("etc/other_rules.yaml", &rule("other"));
    place.write("etc/config.d/10.yaml", &place.here("rules_files: [DIR/etc/other_rules.yaml]\n"));
    place
        .base("rules_files: [DIR/etc/base_rules.yaml]\nconfig_files: [{path: DIR/etc/config.d, strategy: override}]\n");
    let running = place.running().await.running.borrow().clone();
    assert_eq!(running.loaded.keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn a_page_that_the_base_serves_is_used_as_it_is() {
    let place = Place::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    place.base(&format!(
        "rules_files: [DIR/etc/base_rules.yaml]\nmetrics: {{enabled: true, interval: 1h}}\nwebserver: {{enabled: true, \
         listen_address: 127.0.0.1, listen_port: {port}, prometheus_metrics_enabled: true}}\n"
    ));
    let agent = place.running().await;
    assert_eq!(agent.engine.page.borrow().map(|page| page.port()), Some(port));
}

#[tokio::test]
async fn a_command_line_that_replaces_the_rules_files_is_an_error() {
    let place = Place::new();
    let mut options = place.options();
    options.command.extend(["-r".to_owned(), place.path("etc/base_rules.yaml").display().to_string()]);
    let mut agent = Agent::start(options, falco_operator::agent::Wanted::default());
    let fault = agent.until("the fault", |running| running.fault.is_some()).await.fault.unwrap();
    assert_eq!(fault.reason, NodeFaultReason::ConfigInvalid);
    assert!(fault.message.contains("-r"), "{}", fault.message);
}

/// Rewrites a file in place, or puts another one in its place.
type Write = fn(&Place, &str, &str);

#[tokio::test]
async fn base_rules_that_change_are_confirmed_again_and_bad_ones_reported() {
    let ways: [(&str, Write); 2] = [("in place", Place::write), ("by rename", Place::replace)];
    for (way, write) in ways {
        let place = Place::new();
        let mut agent = place.running().await;
        let (pid, first) = (place.falco(), agent.running.borrow().last_reload);
        write(&place, "etc/base_rules.yaml", &rule("base2"));
        let running = agent.until("the new base", |running| running.settled && running.last_reload > first).await;
        assert_eq!((running.proof, running.fault), (Proof::Metrics, None), "{way}");
        let second = running.last_reload;

        write(&place, "etc/base_rules.yaml", &bad("base3"));
        let running = agent.until("the fault", |running| running.fault.is_some()).await;
        let fault = running.fault.unwrap();
        assert_eq!(fault.reason, NodeFaultReason::BaseRefused, "{way}");
        assert!(fault.message.contains("proc.nosuch"), "{}", fault.message);
        assert_eq!((place.falco(), running.last_reload), (pid, second), "{way}");
        assert_eq!(running.loaded.get("a"), Some(&hash(rule("a").as_bytes())));

        // By rename, Falco's own watch is deaf now: it is told.
        write(&place, "etc/base_rules.yaml", &rule("base4"));
        agent.until("the repair", |running| running.settled && running.last_reload > second).await;
        assert_eq!(place.falco(), pid, "{way}: one process all the time");
    }
}

#[tokio::test]
async fn a_changed_falco_yaml_is_taken_over_and_a_bad_one_reported() {
    let place = Place::new();
    let mut agent = place.running().await;
    place.base("rules_files: [DIR/etc/base_rules.yaml]\npriority: error\n");
    let set = place.current();
    let steps = || agent.seen.steps.lock().unwrap().iter().filter(|step| **step == Step::Kept).count();
    let before = steps();
    while steps() == before {
        agent.running.changed().await.unwrap();
    }
    agent.settled(&[("a", &rule("a"))]).await;
    assert!(place.read("state/falco.yaml").contains("priority: error"));
    assert_ne!(place.current(), set);
    let set = place.current();
    place.base("rules_files: [DIR/etc/base_rules.yaml]\npriority: nonsense\n");
    let fault = agent.until("the fault", |running| running.fault.is_some()).await.fault.unwrap();
    assert_eq!(fault.reason, NodeFaultReason::BaseRefused);
    assert_eq!(place.current(), set);
}

#[tokio::test]
async fn files_that_a_new_base_does_not_bear_are_left_out_and_come_back() {
    let place = Place::new();
    place.write("etc/base_rules.yaml", &format!("- macro: theirs\n  condition: proc.name = b\n{}", rule("base")));
    let mut agent = place.start();
    let leaning = rule("b").replace("proc.name = a", "theirs");
    agent.want([("a", settled(&rule("a"))), ("b", settled(&leaning)), ("c", settled(&rule("c")))]);
    agent.settled(&[("a", &rule("a")), ("b", &leaning), ("c", &rule("c"))]).await;
    place.replace("etc/base_rules.yaml", &described("base", "without the macro"));
    let running = agent.settled(&[("a", &rule("a")), ("c", &rule("c"))]).await;
    let trouble = &running.trouble["b"];
    assert_eq!(trouble.fault, Fault::BaseChanged);
    assert!(trouble.message.contains("theirs"), "{}", trouble.message);
    assert_eq!(running.fault, None);
    place.replace("etc/base_rules.yaml", &format!("- macro: theirs\n  condition: proc.name = c\n{}", rule("base")));
    let running = agent.settled(&[("a", &rule("a")), ("b", &leaning), ("c", &rule("c"))]).await;
    assert!(running.trouble.is_empty());
}
