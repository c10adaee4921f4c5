//! Whose an alert is, and how often whose rules matched.

use std::fs;

use falco_operator::agent::engine::tally::{Owner, Tally};
use falco_operator::agent::{RulesText, WantedFile};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::place::{Agent, Place, hash, rollout, rule, settled};
use test_cluster::stand_in;

/// A node whose Falco writes its alerts as JSON into a file.
fn place(base: &str) -> Place {
    let place = Place::new();
    place.base(&format!("rules_files:\n  - DIR/etc/base_rules.yaml\njson_output: true\n{base}"));
    let script = place.here(&format!(
        "#!/bin/sh\nexport FALCO_STAND_IN_CONTROL=DIR/control\ncase \"$*\" in\n\
         *--dry-run*|*-V*) exec {falco} \"$@\" ;;\n*) exec {falco} \"$@\" >>DIR/alerts ;;\nesac\n",
        falco = stand_in().display()
    ));
    test_cluster::write_program(&place.path("falco"), &script).unwrap();
    place
}

/// Says that these rules matched, and waits until Falco has taken it in.
async fn matched(place: &Place, rules: &str, times: u64) {
    place.replace("control/match-1", &format!("{{\"rules\": {rules}, \"times\": {times}}}\n"));
    until("Falco takes it in", || !place.path("control/match-1").exists()).await;
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The `output_fields` of the last alert of a rule.
async fn last_alert(place: &Place, rule: &str) -> Value {
    let alerts = || -> Vec<Value> {
        let text = fs::read_to_string(place.path("alerts")).unwrap_or_default();
        let alerts = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        alerts.filter(|alert| alert["rule"] == rule).collect()
    };
    until(&format!("an alert of {rule}"), || !alerts().is_empty()).await;
    alerts().pop().unwrap()["output_fields"].clone()
}

/// Asks until the tally is so.
async fn counted(agent: &Agent, what: &str, so: impl Fn(&Tally) -> bool) -> Tally {
    let begun = Instant::now();
    loop {
        let page = *agent.engine.page.borrow();
        agent.engine.counters.ask(page).await;
        let tally = agent.engine.counters.tally();
        if so(&tally) {
            return tally;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}: {tally:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn owner(namespace: &str, name: &str) -> Owner {
    (namespace.to_owned(), name.to_owned())
}

#[tokio::test]
async fn an_alert_says_whose_rule_it_is_and_the_rules_file_stays_as_it_was() {
    let place = place("append_output: # the administrator's\n  - extra_fields: [{cluster: east}]\n");
    let mut agent = place.start();
    agent.want([("team-a", settled(&rule("team-a/shell in container"))), ("b", settled(&rule("no")))]);
    agent.settled(&[("team-a", &rule("team-a/shell in container")), ("b", &rule("no"))]).await;
    matched(&place, "[\"team-a/shell in container\", \"no\", \"base\"]", 1).await;
    for (name, namespace, object) in
        [("team-a/shell in container", "team-a", "team-a/shell in container-object"), ("no", "b", "no-object")]
    {
        let fields = last_alert(&place, name).await;
        assert_eq!(fields["falcorule.namespace"], namespace, "{fields}");
        assert_eq!((&fields["falcorule.name"], &fields["cluster"]), (&object.into(), &"east".into()), "{fields}");
    }
    let fields = last_alert(&place, "base").await;
    assert!(fields.get("falcorule.namespace").is_none() && fields["cluster"] == "east", "{fields}");
    assert_eq!(place.files()["b"], hash(rule("no").as_bytes()));
}

#[tokio::test]
async fn the_administrator_s_own_additions_in_an_included_file_are_kept() {
    let place = Place::new();
    fs::create_dir(place.path("etc/config.d")).unwrap();
    place.write("etc/config.d/10-site.yaml", "append_output:\n  - extra_fields: [{cluster: east}]\n");
    place.base("config_files: [DIR/etc/config.d]\nrules_files: [DIR/etc/base_rules.yaml]\n");
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a")))]);
    agent.settled(&[("a", &rule("a"))]).await;
    let include: Value =
        serde_yaml::from_str(&fs::read_to_string(place.current().join("include.yaml")).unwrap()).unwrap();
    assert_eq!(include["append_output"][0]["match"]["rule"], "a");
    assert_eq!(include.as_object().unwrap().len(), 1, "the rules files are extended in place: {include}");
    assert!(!place.read("state/falco.yaml").contains("falcorule.name"));
}

#[tokio::test]
async fn alerts_are_left_alone_if_so_asked() {
    let place = Place::new();
    let mut options = place.options();
    options.alert_owners = false;
    let mut agent = Agent::start(options, falco_operator::agent::Wanted::default());
    agent.want([("a", settled(&rule("a")))]);
    agent.settled(&[("a", &rule("a"))]).await;
    assert!(!place.read("state/falco.yaml").contains("append_output"));
}

#[tokio::test]
async fn a_rule_that_becomes_another_object_s_is_told_of_under_its_name() {
    let place = place("");
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a")))]);
    let before = agent.settled(&[("a", &rule("a"))]).await.last_reload;
    let text = RulesText { rules: [("a".to_owned(), "renamed".to_owned())].into(), ..crate::place::text(&rule("a")) };
    agent.want([("a", WantedFile { target: Some(text), last_good: None, since: None })]);
    agent.until("a load of the same text", |running| running.settled && running.last_reload > before).await;
    assert!(agent.engine.counters.tally().rules.keys().eq([&owner("a", "renamed")]));
    matched(&place, "[\"a\"]", 1).await;
    assert_eq!(last_alert(&place, "a").await["falcorule.name"], "renamed");
}

#[tokio::test]
async fn matches_are_counted_by_namespace_and_object_and_carried_on_across_loads() {
    let place = place("");
    let mut agent = place.start();
    agent.want([("a", settled(&rule("x"))), ("b", settled(&rule("y")))]);
    agent.settled(&[("a", &rule("x")), ("b", &rule("y"))]).await;
    let (x, y) = (owner("a", "x-object"), owner("b", "y-object"));
    let tally = counted(&agent, "what is loaded", |tally| tally.rules.len() == 2).await;
    assert_eq!((tally.rules[&x], tally.rules[&y], tally.loaded()), (0, 0, 2));
    matched(&place, "[\"x\", \"base\"]", 3).await;
    counted(&agent, "three matches", |tally| tally.rules[&x] == 3 && tally.base == 3).await;
    // Nobody asks between these and the load that makes Falco forget them.
    matched(&place, "[\"x\", \"y\"]", 2).await;
    agent.want([("a", settled(&rule("x"))), ("b", rollout(&(rule("y") + &rule("z")), Some(&rule("y"))))]);
    agent.settled(&[("a", &rule("x")), ("b", &(rule("y") + &rule("z")))]).await;
    let tally = agent.engine.counters.tally();
    assert_eq!((tally.rules[&x], tally.rules[&y], tally.rules[&owner("b", "z-object")]), (5, 2, 0));
    matched(&place, "[\"x\"]", 1).await;
    counted(&agent, "one more", |tally| tally.rules[&x] == 6 && tally.rules[&y] == 2).await;
    // A death of Falco takes what nobody asked for, and no more.
    place.write("control/crash-now", "");
    agent.until("Falco is away", |running| running.last_reload.is_some() && !running.settled).await;
    agent.settled(&[("a", &rule("x")), ("b", &(rule("y") + &rule("z")))]).await;
    matched(&place, "[\"x\"]", 1).await;
    counted(&agent, "again one more", |tally| tally.rules[&x] == 7).await;
    agent.want([("a", settled(&rule("x")))]);
    agent.settled(&[("a", &rule("x"))]).await;
    assert_eq!(agent.engine.counters.tally().rules.into_iter().collect::<Vec<_>>(), [(x, 7)]);
}

#[tokio::test]
async fn events_and_drops_are_counted_too() {
    let place = place("");
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a")))]);
    agent.settled(&[("a", &rule("a"))]).await;
    place.write("control/counts", "100 7 2");
    let all = |times: u64| {
        move |tally: &Tally| {
            (tally.events, tally.events_dropped, tally.outputs_dropped) == (100 * times, 7 * times, 2 * times)
        }
    };
    counted(&agent, "drops", all(1)).await;
    agent.want([("a", settled(&rule("b")))]);
    agent.settled(&[("a", &rule("b"))]).await;
    counted(&agent, "the same again after a load", all(2)).await;
}
