//! Alerts: which rules fire for an event that a test reports, what they print, and how often they fired.

use crate::config::priority_name;
use crate::fields::Catalogue;
use crate::load::Loaded;
use crate::log::{self, Civil};
use crate::rules::items::Rule;
use crate::rules::{additions, applies, output};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// An event that a test says has happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// The rules whose conditions it meets.
    pub rules: Vec<String>,
    /// How many such events there were.
    pub times: u64,
    /// Values of its fields.
    pub fields: BTreeMap<String, String>,
}

impl Event {
    /// From a line of JSON: `{"rule": "x", "times": 3, "fields": {"proc.name": "bash"}}`, or `rules` for several.
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let names = value.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
        let rules = names.iter().chain(value.get("rule")).filter_map(Value::as_str).map(str::to_owned).collect();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let fields = value.get("fields").and_then(Value::as_object);
        let fields = fields.into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect();
        let times = value.get("times").and_then(Value::as_u64).unwrap_or(1);
        Some(Self { rules, times, fields })
    }
}

/// The outputs of one run, and its counters, which start at nothing with each run.
pub struct Alerts {
    loaded: Loaded,
    catalogue: Catalogue,
    hostname: String,
    matches: Mutex<BTreeMap<usize, u64>>,
}

impl Alerts {
    /// For one run.
    pub fn new(loaded: Loaded, hostname: &str) -> Self {
        let catalogue = Catalogue::of(&loaded.config);
        Self { loaded, catalogue, hostname: hostname.to_owned(), matches: Mutex::default() }
    }

    /// Lets the rules fire that an event meets: the first one only, unless `rule_matching` is `all`.
    pub fn happened(&self, event: &Event) {
        let met = self.loaded.rules.iter().enumerate().filter(|(_, rule)| event.rules.contains(&rule.name));
        let limit = if self.loaded.config.match_all { usize::MAX } else { 1 };
        for (index, rule) in met.take(limit) {
            if let Ok(mut matches) = self.matches.lock() {
                *matches.entry(index).or_default() += event.times;
            }
            for _ in 0..event.times {
                self.fire(rule, &event.fields);
            }
        }
    }

    /// The rules that fired and how often.
    pub fn matches(&self) -> Vec<(&Rule, u64)> {
        let Ok(matches) = self.matches.lock() else { return Vec::new() };
        matches.iter().filter_map(|(index, count)| Some((self.loaded.rules.get(*index)?, *count))).collect()
    }

    /// What runs.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    fn fire(&self, rule: &Rule, values: &BTreeMap<String, String>) {
        let config = &self.loaded.config;
        let text = rule.output.clone() + &additions(config, &self.catalogue, rule).text;
        let Ok(tokens) = output::compile(&text, &rule.source, &self.catalogue) else { return };
        let mut fields = Map::new();
        let value = |name: &str| values.get(name).map_or(Value::Null, |value| json!(value));
        for token in &tokens {
            if let output::Token::Field { name, plain: true, .. } = token {
                fields.insert(name.clone(), value(name));
            }
        }
        for entry in config.append_output.iter().filter(|entry| applies(entry, rule)) {
            for (name, format) in &entry.extra_fields {
                let shown = match format {
                    None => value(name.trim_start_matches('%')),
                    Some(format) => match output::compile(format, &rule.source, &self.catalogue) {
                        Ok(tokens) => json!(output::render(&tokens, values)),
                        Err(_) => continue,
                    },
                };
                fields.insert(name.clone(), shown);
            }
        }
        fields.insert("evt.time".to_owned(), json!(log::nanoseconds() as u64));
        self.emit(&rule.name, rule.priority, &rule.source, &rule.tags, &output::render(&tokens, values), fields);
    }

    /// One of Falco's own alerts.
    pub fn internal(&self, rule: &str, priority: u8, message: &str, fields: Map<String, Value>) {
        let text = if message.is_empty() { rule.to_owned() } else { format!("{rule}: {message}") };
        self.emit(rule, priority, "internal", &[], &text, fields);
    }

    fn emit(&self, rule: &str, priority: u8, source: &str, tags: &[String], text: &str, fields: Map<String, Value>) {
        let config = &self.loaded.config;
        if !config.stdout {
            return;
        }
        let now = Civil::now();
        let priority = priority_name(priority);
        if !config.json {
            let time = if config.iso_time { now.iso_nanos() } else { now.clock_nanos() };
            log::stdout(&format!("{time}: {priority} {text}\n"));
            return;
        }
        let mut alert = json!({
            "hostname": self.hostname,
            "priority": priority,
            "rule": rule,
            "source": source,
            "time": now.iso_nanos(),
        });
        let mut add = |wanted: bool, key: &str, value: Value| {
            if wanted && let Some(alert) = alert.as_object_mut() {
                alert.insert(key.to_owned(), value);
            }
        };
        add(config.json_output_property, "output", json!(format!("{}: {priority} {text}", now.clock_nanos())));
        add(config.json_fields, "output_fields", Value::Object(fields));
        add(config.json_tags, "tags", json!(tags));
        add(config.json_message, "message", json!(text));
        log::stdout(&format!("{alert}\n"));
    }
}
