//! Grafana's dashboards: one table for each, from which comes the JSON in `grafana/`.

mod cluster;
mod json;
mod namespace;
mod node;

use std::fs;

use anyhow::{Context, Result};
use test_cluster::tools::repository;

/// A dashboard.
pub struct Dashboard {
    /// The name of its file, and the end of its UID.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Whom it is for, and what for.
    pub purpose: &'static str,
    /// What its user chooses, as the name and the metric whose label of that name has the choices.
    pub variable: Option<(&'static str, &'static str)>,
    /// Its rows, by title.
    pub rows: Vec<(&'static str, Vec<Panel>)>,
}

/// A panel.
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// The question that it answers.
    pub question: &'static str,
    /// How it shows the answer.
    pub show: Show,
    /// Grafana's word for the unit.
    pub unit: &'static str,
    /// Its width; 24 fill a row.
    pub width: u32,
    /// From which value on it has which colour, the lowest first.
    pub steps: &'static [(f64, &'static str)],
    /// What it asks: PromQL, and what the answer is called.
    pub queries: Vec<(&'static str, &'static str)>,
}

/// How a panel shows its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// As one number.
    Number,
    /// As the name of the series that there is.
    Word,
    /// As lines over time.
    Lines,
    /// As areas that add up, over time.
    Areas,
    /// As bars, one for each series.
    Bars,
    /// As a table, with a column for each query.
    Table,
}

pub const GREEN: &str = "green";
pub const YELLOW: &str = "yellow";
pub const RED: &str = "red";
pub const BLUE: &str = "blue";

/// For what is only good or bad by its height.
pub const NONE_IS_GOOD: &[(f64, &str)] = &[(0.0, GREEN), (1.0, RED)];
/// For what is neither good nor bad.
pub const NEUTRAL: &[(f64, &str)] = &[(0.0, BLUE)];
/// For a share that should be all.
pub const ALL_IS_GOOD: &[(f64, &str)] = &[(0.0, RED), (0.9, YELLOW), (1.0, GREEN)];
/// For what is there or not.
pub const ONE_IS_GOOD: &[(f64, &str)] = &[(0.0, RED), (1.0, GREEN)];

/// Every dashboard.
pub fn all() -> [Dashboard; 3] {
    [cluster::dashboard(), namespace::dashboard(), node::dashboard()]
}

/// Writes the JSON of every dashboard into `grafana/`.
pub fn write() -> Result<()> {
    for dashboard in all() {
        let path = repository().join("grafana").join(format!("{}.json", dashboard.name));
        fs::write(&path, json::text(&dashboard)?).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_current() {
        for dashboard in all() {
            let path = repository().join("grafana").join(format!("{}.json", dashboard.name));
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == json::text(&dashboard).unwrap(),
                "{} is out of date; run cargo xtask dashboards",
                path.display()
            );
        }
    }

    #[test]
    fn every_panel_answers_a_question_in_a_unit_and_says_what_is_bad() {
        for dashboard in all() {
            assert!(dashboard.purpose.ends_with('.'), "{}", dashboard.name);
            let panels: Vec<&Panel> = dashboard.rows.iter().flat_map(|(_, panels)| panels).collect();
            for panel in &panels {
                let name = format!("{}: {}", dashboard.name, panel.title);
                assert!(panel.question.contains('?'), "{name}: no question");
                assert!(!panel.unit.is_empty() && !panel.steps.is_empty() && !panel.queries.is_empty(), "{name}");
                assert!(panel.steps.is_sorted_by(|a, b| a.0 < b.0), "{name}: thresholds out of order");
                assert_eq!(
                    panels.iter().filter(|other| other.title == panel.title).count(),
                    1,
                    "{name} is there twice"
                );
            }
            for (title, panels) in &dashboard.rows {
                assert_eq!(panels.iter().map(|panel| panel.width).sum::<u32>() % 24, 0, "{title} leaves a gap");
            }
        }
    }
}
