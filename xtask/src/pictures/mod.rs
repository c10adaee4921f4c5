//! Pictures of the dashboards, drawn from what a real Prometheus answered to their queries.
//!
//! Grafana itself needs a browser to draw a dashboard; this draws the same answers at the same places, simpler.

mod answer;
mod draw;
mod words;

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use test_cluster::tools::repository;

use answer::Panel;

/// Draws every dashboard into `docs/images`.
pub fn run() -> Result<()> {
    let results = repository().join("target/telemetry/results.json");
    let text = fs::read_to_string(&results)
        .with_context(|| format!("{} is needed, which `cargo xtask test every_panel` writes", results.display()))?;
    let answers: Vec<Value> = serde_json::from_str(&text)?;
    let folder = repository().join("docs/images");
    fs::create_dir_all(&folder)?;
    for dashboard in super::dashboards::all() {
        let json = fs::read_to_string(repository().join("grafana").join(format!("{}.json", dashboard.name)))?;
        let json: Value = serde_json::from_str(&json)?;
        let ours = answers.iter().filter(|answer| answer["dashboard"] == dashboard.name);
        let panels: Vec<Panel> = ours.map(Panel::read).collect::<Result<_>>()?;
        let rows = json["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] == "row");
        let rows: Vec<(String, i32)> = rows
            .filter_map(|row| Some((row["title"].as_str()?.to_owned(), row["gridPos"]["y"].as_i64()?.try_into().ok()?)))
            .collect();
        let path = folder.join(format!("dashboard-{}.svg", dashboard.name));
        draw::dashboard(&path, dashboard.title, &rows, &panels)?;
        println!("{}", path.display());
    }
    Ok(())
}
