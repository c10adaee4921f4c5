//! Starting: what is loaded, in which order, what is fatal.

use crate::harness::{Place, bad, rule, sha256, texts, until};
use nix::sys::signal::Signal;
use std::fs;

fn fails(place: &Place, arguments: &[&str], words: &str) {
    let output = place.run(arguments);
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(words), "{words:?} is not in {stderr}");
}

#[test]
fn it_serves_health_versions_and_metrics_and_ends_with_0() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    let mut falco = place.start(&[]);
    assert_eq!(falco.get("/healthz"), Some((200, "{\"status\": \"ok\"}".to_owned())));
    let (status, versions) = falco.get("/versions").unwrap();
    assert_eq!(status, 200);
    assert!(versions.contains("\"falco_version\":\"0.44.1\""), "{versions}");
    assert_eq!(falco.get("/other").unwrap().0, 404);
    let page = falco.page();
    assert_eq!(page.hashes()["a.yaml"], sha256(&place.path("rules/a.yaml")));
    let config = format!("file_name=\"falco.yaml\",sha256=\"{}\"", sha256(&place.path("falco.yaml")));
    assert!(page.0.contains(&config));
    assert!(page.start().parse::<u128>().unwrap() <= page.reload().parse::<u128>().unwrap());
    falco.signal(Signal::SIGTERM);
    assert_eq!(falco.ended().code(), Some(0));
}

#[test]
fn folders_are_flat_sorted_and_know_two_endings() {
    let place = Place::watching_folder();
    for name in ["b.yml", "a.yaml", ".hidden.yaml"] {
        place.write(&format!("rules/{name}"), &rule("r"));
    }
    place.write("rules/x.YAML", "not: rules");
    fs::create_dir(place.path("rules/sub")).unwrap();
    place.write("rules/sub/c.yaml", "not: rules");
    std::os::unix::fs::symlink("nowhere", place.path("rules/dangling.yaml")).unwrap();
    let (_, stderr) = texts(&place.run(&["--dry-run"]));
    let loaded: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("/rules/"))
        .map(|line| line.split("/rules/").nth(1).unwrap().split(' ').next().unwrap())
        .collect();
    assert_eq!(loaded, [".hidden.yaml", "a.yaml", "b.yml"]);
}

#[test]
fn one_bad_file_stops_everything() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    place.write("rules/b.yaml", &bad("b"));
    fails(&place, &[], "b.yaml: Invalid\n1 Errors:\nIn rules content: (");
    fails(&place, &["--dry-run"], "nonexistent field proc.nosuch");
}

#[test]
fn a_later_file_can_not_repair_an_earlier_one() {
    let place = Place::new("rules_files: [DIR/a.yaml, DIR/b.yaml]\n");
    place.write("a.yaml", &rule("a").replace("proc.name = a", "later"));
    place.write("b.yaml", "- macro: later\n  condition: proc.name = a\n");
    fails(&place, &[], "Undefined macro 'later' used in filter.");
    place.write("falco.yaml", &format!("{}rules_files: [DIR/b.yaml, DIR/a.yaml]\n", place.usual()));
    assert_eq!(place.run(&["--dry-run"]).status.code(), Some(0));
}

#[test]
fn absent_files_are_passed_over_but_nothing_at_all_is_fatal() {
    let place = Place::new("rules_files: [DIR/nowhere.yaml, DIR/rules]\n");
    let falco = place.start(&[]);
    assert!(falco.page().hashes().is_empty());
    drop(falco);
    place.write("falco.yaml", &format!("{}rules_files: [DIR/nowhere.yaml]\n", place.usual()));
    fails(&place, &[], "You must specify at least one rules file/directory");
    fails(&place, &["-r", "/nowhere"], "You must specify at least one rules file/directory");
}

#[test]
fn both_spellings_of_rules_files_are_fatal_and_each_alone_works() {
    let place = Place::new("rules_files: [DIR/rules]\nrules_file: [DIR/rules]\n");
    fails(&place, &[], "'rules_files' and 'rules_file'");
    for key in ["rules_file", "rules_files"] {
        place.write("falco.yaml", &format!("{}{key}: [DIR/rules]\n", place.usual()));
        assert_eq!(place.run(&["--dry-run"]).status.code(), Some(0));
    }
}

#[test]
fn settings_that_falco_refuses() {
    let place = Place::watching_folder();
    fails(&place, &["-o", "metrics.interval=5000"], "Metrics interval must have a minimum value of 100ms");
    fails(&place, &["-o", "metrics={enabled: true}"], "Metrics interval must have a minimum value of 100ms");
    fails(&place, &["-o", "webserver={enabled: true}"], "Metrics are enabled with no output configured");
    fails(&place, &["-o", "webserver.listen_address=localhost"], "not a valid IP address");
    fails(&place, &["-o", "priority=loud"], "Unknown priority");
    fails(&place, &["-o", "stdout_output.enabled=false"], "No outputs configured");
    fails(&place, &["-o", "load_plugins[]=container"], "plugin config not found");
    place.write("more.yaml", "config_files: [x]\n");
    fails(&place, &["-o", "config_files[]=more.yaml"], "'config_files' directive in included config file");
    place.write("falco.yaml", "a: [\n");
    fails(&place, &[], "yaml-cpp");
    fs::remove_file(place.path("falco.yaml")).unwrap();
    fails(&place, &[], "You must create a config file");
}

#[test]
fn included_files_come_after_and_options_win() {
    let place = Place::new("config_files: [DIR/config.d]\nrules_files: [DIR/a.yaml]\n");
    fs::create_dir(place.path("config.d")).unwrap();
    for name in ["a", "b", "c", "d"] {
        place.write(&format!("{name}.yaml"), &rule(name));
    }
    place.write("config.d/2.yaml", "rules_files: [DIR/c.yaml]\n");
    place.write("config.d/1.conf", "rules_files: [DIR/b.yaml]\n");
    let order = |arguments: &[&str]| {
        let (_, stderr) = texts(&place.run(arguments));
        let names = stderr.split("Loading rules from:").nth(1).unwrap_or_default().lines();
        names
            .filter_map(|line| Some(line.split(".yaml |").next()?.rsplit(['/', ' ']).next()?.to_owned()))
            .filter(|name| name.len() == 1)
            .collect::<String>()
    };
    assert_eq!(order(&["--dry-run"]), "abc");
    assert_eq!(order(&["--dry-run", "-o", "rules_files[]=d.yaml", "-o", "rules_files[0]=b.yaml"]), "bbcd");
    assert_eq!(order(&["--dry-run", "-r", "d.yaml"]), "d");
    place.write(
        "falco.yaml",
        &format!(
            "{}config_files: [{{path: DIR/config.d, strategy: override}}]\nrules_files: [DIR/a.yaml]\n",
            place.usual()
        ),
    );
    assert_eq!(order(&["--dry-run"]), "c");
}

#[test]
fn two_on_one_port_share_it() {
    let place = Place::watching_folder();
    let other = Place::new("");
    other.write("falco.yaml", &format!("{}rules_files: [DIR/rules]\n", place.usual()));
    let (first, second) = (place.start(&[]), other.spawn(&[]));
    until("both to have answered", || second.stderr().contains("Opening") && first.metrics().is_some());
    let mut seen = std::collections::BTreeSet::new();
    until("pages of both", || {
        seen.extend(first.metrics().map(|page| page.start().to_owned()));
        seen.len() == 2
    });
}

#[test]
fn a_taken_port_passes_the_dry_run_and_is_fatal_in_earnest() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let place = Place::watching_folder();
    let option = format!("webserver.listen_port={port}");
    assert_eq!(place.run(&["-o", &option, "--dry-run"]).status.code(), Some(0));
    fails(&place, &["-o", &option], "webserver");
}

#[test]
fn file_names_are_not_escaped_and_equal_ones_both_listed() {
    let place = Place::new("rules_files: [DIR/one, DIR/two]\n");
    for folder in ["one", "two"] {
        fs::create_dir(place.path(folder)).unwrap();
        place.write(&format!("{folder}/we ird\"q.yaml"), &rule(folder));
    }
    let falco = place.start(&[]);
    let page = falco.page();
    let samples = page.samples("falcosecurity_falco_sha256_rules_files_info{file_name=\"we ird\"q.yaml\"");
    assert_eq!(samples.len(), 2);
    assert_ne!(samples[0], samples[1]);
}
