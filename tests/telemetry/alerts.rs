//! The alert rules: that each is sound, has its page, and fires and stays silent as its case says.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use test_cluster::prometheus::promtool;
use test_cluster::tools::repository;

const RULES: &str = "grafana/alerts.yaml";
const CASES: &str = "tests/telemetry/alerts.test.yaml";
const RUNBOOKS: &str = "https://github.com/mumoshu/falco-operator/blob/main/";

fn read(path: &str) -> Result<Value> {
    let text = fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())?;
    Ok(serde_yaml::from_str(&text)?)
}

fn rules() -> Result<Vec<Value>> {
    let groups = read(RULES)?["groups"].as_array().cloned().unwrap_or_default();
    Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
}

/// The names of all alerts.
pub fn names() -> Result<BTreeSet<String>> {
    Ok(rules()?.iter().filter_map(|rule| rule["alert"].as_str().map(str::to_owned)).collect())
}

#[test]
fn the_rules_are_sound_and_fire_and_stay_silent_as_their_cases_say() {
    println!("{}", promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES], "").unwrap());
    println!("{}", promtool(&["test", "rules", CASES], "").unwrap());
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_is_silent_in_another() {
    let cases = read(CASES).unwrap();
    let mut firing = BTreeSet::new();
    for case in cases["tests"].as_array().unwrap() {
        let looks = case["promql_expr_test"].as_array().cloned().unwrap_or_default();
        let samples = |look: &Value| look["exp_samples"].as_array().cloned().unwrap_or_default();
        let fires = looks.iter().flat_map(samples);
        let fires: BTreeSet<String> = fires
            .filter_map(|sample| {
                let labels = sample["labels"].as_str()?.to_owned();
                Some(labels.split_once("alertname=\"")?.1.split('"').next()?.to_owned())
            })
            .collect();
        // Each case looks before, and what it looks at is everything that fires.
        assert!(looks.is_empty() || looks.iter().any(|look| samples(look).is_empty()), "{}", case["name"]);
        firing.extend(fires);
    }
    assert_eq!(firing, names().unwrap());
}

#[test]
fn each_alert_has_a_page_with_meaning_impact_and_three_commands() {
    let folder = repository().join("docs/runbooks");
    let mut pages: BTreeSet<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for rule in rules().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        let annotations = &rule["annotations"];
        for words in ["summary", "description"] {
            assert!(annotations[words].as_str().is_some_and(|text| text.ends_with('.')), "{name}: {words}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}");
        let page = format!("docs/runbooks/{name}.md");
        assert_eq!(annotations["runbook_url"].as_str().unwrap(), format!("{RUNBOOKS}{page}"));
        let text = fs::read_to_string(repository().join(&page)).unwrap();
        let parts: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        assert_eq!(parts, [&format!("# {name}"), "## Meaning", "## Impact", "## First three commands"], "{page}");
        // Behind the first line of a block, which says what it is.
        let blocks = text.split("```").skip(1).step_by(2);
        let commands: Vec<&str> = blocks.flat_map(|block| block.lines().skip(1)).collect();
        assert_eq!(commands.len(), 3, "{page}: {commands:?}");
        pages.remove(&format!("{name}.md"));
    }
    assert_eq!(pages, BTreeSet::new(), "pages of alerts that there are not");
}
