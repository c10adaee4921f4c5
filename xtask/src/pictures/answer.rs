//! What was answered to a panel's queries.

use anyhow::{Context, Result};
use serde_json::Value;

/// A panel and its answers.
#[derive(Debug)]
pub struct Panel {
    pub title: String,
    pub kind: String,
    pub unit: String,
    /// Whether areas add up.
    pub stacked: bool,
    /// From which value on it has which colour.
    pub steps: Vec<(f64, String)>,
    /// Column, row, width and height in Grafana's grid.
    pub place: [i32; 4],
    /// What each query is called, and what it gave.
    pub answers: Vec<(String, Vec<Series>)>,
}

/// One series of an answer.
#[derive(Debug)]
pub struct Series {
    /// Its labels, in their order.
    pub labels: Vec<(String, String)>,
    /// Times in seconds, and values that are numbers.
    pub points: Vec<(f64, f64)>,
}

impl Panel {
    /// From what the test of the dashboards keeps.
    pub fn read(json: &Value) -> Result<Self> {
        let defaults = &json["defaults"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |name: &str| -> Result<i32> {
            let value = json["place"][name].as_i64().with_context(|| format!("a place without {name}"))?;
            Ok(i32::try_from(value)?)
        };
        let steps = defaults["thresholds"]["steps"].as_array().into_iter().flatten();
        let answers = json["answers"].as_array().into_iter().flatten();
        Ok(Self {
            title: text(&json["panel"]),
            kind: text(&json["type"]),
            unit: text(&defaults["unit"]),
            stacked: defaults["custom"]["stacking"]["mode"] == "normal",
            steps: steps.map(|step| (step["value"].as_f64().unwrap_or(f64::MIN), text(&step["color"]))).collect(),
            place: [number("x")?, number("y")?, number("w")?, number("h")?],
            answers: answers.map(|answer| (text(&answer["legend"]), series(&answer["series"]))).collect(),
        })
    }

    /// Every series with what it is called.
    pub fn named(&self) -> Vec<(String, &Series)> {
        let all = self.answers.iter().flat_map(|(legend, series)| series.iter().map(move |it| (legend, it)));
        all.map(|(legend, series)| (series.name(legend), series)).filter(|(_, it)| !it.points.is_empty()).collect()
    }

    /// The colour of a value.
    pub fn color(&self, value: f64) -> &str {
        let reached = self.steps.iter().rev().find(|(from, _)| value >= *from).or(self.steps.first());
        reached.map_or("blue", |(_, color)| color.as_str())
    }
}

impl Series {
    /// The last value.
    pub fn last(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |(_, value)| *value)
    }

    /// The legend with the labels put in.
    fn name(&self, legend: &str) -> String {
        let put = |text: String, (name, value): &(String, String)| text.replace(&format!("{{{{{name}}}}}"), value);
        self.labels.iter().fold(legend.to_owned(), put)
    }
}

fn series(json: &Value) -> Vec<Series> {
    let point = |pair: &Value| {
        let value: f64 = pair[1].as_str()?.parse().ok()?;
        value.is_finite().then_some((pair[0].as_f64()?, value))
    };
    let one = |json: &Value| {
        let labels = json["metric"].as_object().into_iter().flatten();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        let points = match json["values"].as_array() {
            Some(values) => values.iter().filter_map(point).collect(),
            None => point(&json["value"]).into_iter().collect(),
        };
        Series { labels: labels.collect(), points }
    };
    json.as_array().into_iter().flatten().map(one).collect()
}
