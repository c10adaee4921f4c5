//! Grafana's dashboards, read as Grafana reads them: variables resolved, every query of every panel asked.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_cluster::tools::repository;
use test_cluster::{Prometheus, wait};

use crate::support::LIMIT;

/// What somebody has chosen of a variable.
pub struct Choice {
    /// The variable.
    pub variable: &'static str,
    /// The value.
    pub value: &'static str,
}

/// A dashboard.
pub struct Dashboard {
    /// Its title.
    pub title: String,
    name: String,
    json: Value,
}

/// A panel of a dashboard.
pub struct Panel<'a> {
    dashboard: &'a Dashboard,
    json: &'a Value,
}

/// Every dashboard of `grafana/`.
pub fn all() -> Result<Vec<Dashboard>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(repository().join("grafana"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let json: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
            let title = json["title"].as_str().context("no title")?.to_owned();
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            found.push(Dashboard { title, name, json });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Dashboard {
    fn variables(&self) -> impl Iterator<Item = &Value> {
        self.json["templating"]["list"].as_array().into_iter().flatten()
    }

    /// Its variables, and what each offers.
    pub fn choices(&self, prometheus: &Prometheus) -> Result<Vec<(String, Vec<String>)>> {
        let mut found = Vec::new();
        for variable in self.variables().filter(|variable| variable["type"] == "query") {
            let name = variable["name"].as_str().context("a variable without a name")?;
            let query = variable["query"]["query"].as_str().context("a variable without a query")?;
            let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
            let (metric, label) = inner.and_then(|inner| inner.rsplit_once(", ")).with_context(|| query.to_owned())?;
            let values = prometheus.ask(&format!("label/{label}/values"), &[("match[]", metric)])?;
            found.push((name.to_owned(), serde_json::from_value(values)?));
        }
        Ok(found)
    }

    /// Its panels, without the titles of rows.
    pub fn panels(&self) -> Vec<Panel<'_>> {
        let panels = self.json["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row");
        panels.map(|json| Panel { dashboard: self, json }).collect()
    }
}

impl Panel<'_> {
    /// Its title.
    pub fn title(&self) -> &str {
        self.json["title"].as_str().unwrap_or_default()
    }

    /// What it asks, and what the answer is called.
    pub fn queries(&self) -> Vec<(&str, &str)> {
        let targets = self.json["targets"].as_array().into_iter().flatten();
        targets
            .map(|it| (it["expr"].as_str().unwrap_or_default(), it["legendFormat"].as_str().unwrap_or_default()))
            .collect()
    }

    /// Asks all that it asks, until each answer has data; the answers, for a picture.
    pub fn ask(&self, prometheus: &Prometheus, choices: &[Choice], begun: f64) -> Result<Value> {
        let mut answers = Vec::new();
        for (expr, legend) in self.queries() {
            // That there is data is one question, how it looks another: what was counted lately may be a minute old.
            let (expr, drawn) = (self.resolve(expr, choices, "15m")?, self.resolve(expr, choices, "15s")?);
            let what = format!("{}, {}: {expr}", self.dashboard.title, self.title());
            let series = wait::until(&what, LIMIT, || {
                let found = prometheus.ask("query", &[("query", &expr)])?;
                let series = found["result"].as_array().cloned().unwrap_or_default();
                let number = |sample: &Value| sample["value"][1].as_str().and_then(|it| it.parse::<f64>().ok());
                ensure!(series.iter().filter_map(number).any(f64::is_finite), "no data: {found}");
                Ok(series)
            })?;
            let series = if self.json["type"] == "timeseries" { over_time(prometheus, &drawn, begun)? } else { series };
            answers.push(json!({ "legend": legend, "series": series }));
        }
        Ok(json!({
            "dashboard": self.dashboard.name, "panel": self.title(), "type": self.json["type"],
            "question": self.json["description"], "defaults": self.json["fieldConfig"]["defaults"],
            "place": self.json["gridPos"], "answers": answers,
        }))
    }

    /// The query with the variables that Grafana resolves; an error if it knows one of them not.
    fn resolve(&self, expr: &str, choices: &[Choice], rate_interval: &str) -> Result<String> {
        let mut resolved = expr.replace("$__rate_interval", rate_interval).replace("$__range", "15m");
        for variable in self.dashboard.variables() {
            let name = variable["name"].as_str().unwrap_or_default();
            if let Some(choice) = choices.iter().find(|choice| choice.variable == name) {
                resolved = resolved.replace(&format!("${name}"), choice.value);
            }
        }
        ensure!(!resolved.contains('$'), "{}: a variable of {resolved} is unknown", self.title());
        Ok(resolved)
    }
}

/// The answer over the time since `begun`.
fn over_time(prometheus: &Prometheus, expr: &str, begun: f64) -> Result<Vec<Value>> {
    let now = prometheus.ask("query", &[("query", "time()")])?["result"][0].as_f64().context("no time")?;
    let step = ((now - begun) / 240.0).max(1.0);
    let parameters =
        [("query", expr), ("start", &begun.to_string()), ("end", &now.to_string()), ("step", &step.to_string())];
    let found = prometheus.ask("query_range", &parameters)?;
    Ok(found["result"].as_array().cloned().unwrap_or_default())
}

#[test]
fn every_panel_says_its_question_its_unit_and_what_is_bad() {
    let dashboards = all().unwrap();
    assert_eq!(dashboards.len(), 3);
    for dashboard in &dashboards {
        assert!(dashboard.json["description"].is_string() && dashboard.json["uid"].is_string(), "{}", dashboard.title);
        for panel in dashboard.panels() {
            let defaults = &panel.json["fieldConfig"]["defaults"];
            let name = format!("{}: {}", dashboard.title, panel.title());
            assert!(panel.json["description"].as_str().is_some_and(|text| text.contains('?')), "{name}");
            assert!(defaults["unit"].is_string(), "{name}");
            assert!(defaults["thresholds"]["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{name}");
            assert!(!panel.queries().is_empty() && panel.json["datasource"]["uid"] == "${datasource}", "{name}");
        }
    }
}
