//! Rules that a test says have matched.

use crate::harness::{Place, Running, rule, until};
use nix::sys::signal::Signal;
use serde_json::Value;

fn matched(falco: &Running<'_>, event: &str) {
    falco.place.place("control/match-1", event);
}

fn alerts(falco: &Running<'_>, count: usize) -> Vec<Value> {
    until("the alerts", || falco.stdout().lines().count() >= count);
    falco.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_earliest_rule_hides_the_others_unless_all_match() {
    for (option, expected) in [("rule_matching=first", vec!["a"]), ("rule_matching=all", vec!["a", "b"])] {
        let place = Place::watching_folder();
        place.write("rules/a.yaml", &(rule("a") + &rule("b")));
        let falco = place.start(&["-o", option, "-o", "json_output=true"]);
        matched(&falco, "{\"rules\": [\"b\", \"a\"], \"fields\": {\"proc.name\": \"cat\"}}\n");
        let alerts = alerts(&falco, expected.len());
        let rules: Vec<&str> = alerts.iter().map(|alert| alert["rule"].as_str().unwrap()).collect();
        assert_eq!(rules, expected);
        let alert = &alerts[0];
        assert!(alert["output"].as_str().unwrap().ends_with(": Informational o a cat"), "{alert}");
        assert_eq!(alert["output_fields"]["proc.name"], "cat");
        assert_eq!((&alert["priority"], &alert["source"]), (&"Informational".into(), &"syscall".into()));
        assert_eq!((&alert["hostname"], &alert["tags"]), (&"node-1".into(), &serde_json::json!([])));
    }
}

#[test]
fn appended_fields_and_text_reach_the_alert() {
    let place = Place::new(
        "rules_files: [DIR/rules]\njson_output: true\nappend_output:\n\
         - match: {rule: a}\n  extra_output: extra=%proc.pid\n  extra_fields: [{team: blue}, proc.pname]\n\
         - match: {tags: [nobody]}\n  extra_fields: [{never: x}]\n\
         - match: {source: syscall}\n  extra_fields: [{team: red}]\n",
    );
    place.write("rules/a.yaml", &rule("a"));
    let falco = place.start(&[]);
    matched(&falco, "{\"rule\": \"a\", \"fields\": {\"proc.pid\": 7, \"proc.pname\": \"sh\"}}\n");
    let alert = &alerts(&falco, 1)[0];
    assert!(alert["output"].as_str().unwrap().ends_with("o a <NA> extra=7"), "{alert}");
    let fields = &alert["output_fields"];
    assert_eq!((&fields["team"], &fields["proc.pname"]), (&"red".into(), &"sh".into()));
    assert!(fields["proc.name"].is_null() && fields.get("never").is_none());
}

#[test]
fn a_bad_addition_fails_every_rule() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    for addition in ["extra_output: \"%no.such\"", "extra_fields: [{x: \"50%\"}]", "extra_fields: [{x: \"\"}]"] {
        let option = format!("append_output[]={{{addition}}}");
        let output = place.run(&["-o", &option, "--dry-run"]);
        assert_eq!(output.status.code(), Some(1), "{addition}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("LOAD_ERR_COMPILE_OUTPUT"), "{addition}");
    }
}

#[test]
fn counters_name_rules_that_matched_since_the_last_load() {
    let place = Place::watching_folder();
    let tagged = rule("a \"quoted\"").replace("priority:", "tags: [T1059, a-b.c]\n  priority:");
    place.write("rules/a.yaml", &(tagged + &rule("b")));
    let falco = place.start(&[]);
    let before = falco.page();
    assert!(before.samples("falcosecurity_falco_rules_matches_total").is_empty());
    matched(&falco, "{\"rule\": \"a \\\"quoted\\\"\", \"times\": 3}\n");
    let family = "falcosecurity_falco_rules_matches_total";
    until("the counter", || !falco.page().samples(family).is_empty());
    assert_eq!(
        falco.page().samples(family),
        [format!(
            "{family}{{rule_name=\"a \"quoted\"\",priority=\"6\",source=\"syscall\",tag_T1059=\"true\",tag_a_b_c=\"true\"}} 3"
        )]
    );
    falco.signal(Signal::SIGHUP);
    assert!(falco.reloaded_since(&before).samples(family).is_empty());
}

#[test]
fn what_does_not_run_does_not_fire() {
    let place = Place::new(
        "rules_files: [DIR/rules]\npriority: notice\nrule_matching: all\n\
         rules: [{disable: {rule: \"off*\"}}, {disable: {tag: quiet}}, {enable: {rule: off but on}}]\n",
    );
    let notice = |name: &str| rule(name).replace("INFO", "NOTICE");
    place.write(
        "rules/a.yaml",
        &[
            rule("low"),
            notice("off"),
            notice("off but on"),
            notice("tagged").replace("priority:", "tags: [quiet]\n  priority:"),
            notice("no").replace("priority:", "enabled: false\n  priority:"),
            notice("elsewhere").replace("priority:", "source: k8s_audit\n  priority:"),
            notice("unknown")
                .replace("proc.name = a", "no.such = a")
                .replace("priority:", "skip-if-unknown-filter: true\n  priority:"),
            notice("last"),
        ]
        .concat(),
    );
    let falco = place.start(&["-o", "json_output=true"]);
    matched(
        &falco,
        "{\"rules\": [\"low\", \"off\", \"off but on\", \"tagged\", \"no\", \"elsewhere\", \"unknown\", \"last\"]}\n",
    );
    until("the last alert", || falco.stdout().contains("\"rule\":\"last\""));
    let rules: Vec<String> = alerts(&falco, 2).iter().map(|alert| alert["rule"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rules, ["off but on", "last"]);
}
