//! Manifests against the schemas of their kinds, as the API server would check them, with the place of every mistake.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use regex::Regex;
use serde_json::Value;

use super::marked::{Kind, Node};

/// A mistake in the shape of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// The bytes of the file that are meant.
    pub span: Range<usize>,
    /// A stable word for it.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// The schemas of the kinds that developers write.
pub struct Schemas {
    by_kind: HashMap<String, Value>,
    patterns: HashMap<String, Regex>,
}

impl Schemas {
    /// Those that the binary prints.
    pub fn new() -> Self {
        let mut schemas = Self { by_kind: HashMap::new(), patterns: HashMap::new() };
        for crd in crate::api::crds() {
            let schema = crd.spec.versions.into_iter().next().and_then(|version| version.schema);
            let schema = schema.and_then(|schema| serde_json::to_value(schema.open_api_v3_schema).ok());
            schemas.by_kind.insert(crd.spec.names.kind, schema.unwrap_or_default());
        }
        schemas
    }

    /// What the API server would say against the spec of a manifest.
    pub fn check(&mut self, kind: &str, manifest: &Node) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let Some(spec) = self.by_kind.get(kind).and_then(|schema| schema.pointer("/properties/spec")).cloned() else {
            return mistakes;
        };
        for (key, _) in manifest.entries() {
            let known = ["apiVersion", "kind", "metadata", "spec", "status"];
            if !key.scalar().is_some_and(|key| known.contains(&key)) {
                mistakes.push(unknown(key, "", &known));
            }
        }
        repeated(manifest, &mut mistakes);
        for key in ["name", "namespace"] {
            let Some(node) = manifest.get("metadata").and_then(|node| node.get(key)) else { continue };
            if !node.json().is_string() {
                let message = format!("`metadata.{key}` should be text, and kubectl reads something else here");
                let help = "put it in quotes".to_owned();
                mistakes.push(Mistake { span: node.span.clone(), code: "wrong-type", message, help });
            }
        }
        match manifest.entry("spec") {
            None => mistakes.push(Mistake {
                span: manifest.span.start..manifest.span.start + 1,
                code: "missing-key",
                message: format!("the {kind} has no `spec`"),
                help: String::new(),
            }),
            Some((key, node)) => self.node(node, &spec, "spec", &key.span, &mut mistakes),
        }
        mistakes
    }

    fn node(&mut self, node: &Node, schema: &Value, path: &str, key: &Range<usize>, mistakes: &mut Vec<Mistake>) {
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
            return;
        }
        let description = || one_line(schema.get("description"));
        let json = node.json();
        let found = match &json {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a mapping",
        };
        let wanted = match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
            "object" if !json.is_object() => Some("a mapping"),
            "array" if !json.is_array() => Some("a list"),
            "string" if !json.is_string() => Some("text"),
            "boolean" if !json.is_boolean() => Some("true or false"),
            "integer" if !json.is_i64() => Some("a whole number"),
            _ => None,
        };
        if let Some(wanted) = wanted {
            let help = match (&json, wanted) {
                (Value::Null, _) => "give it a value, or remove the key".to_owned(),
                (Value::Bool(_) | Value::Number(_), "text") => "put it in quotes".to_owned(),
                _ => description(),
            };
            let span = if json.is_null() { key.clone() } else { node.span.clone() };
            mistakes.push(Mistake {
                span,
                code: "wrong-type",
                message: format!("`{path}` is {found} and should be {wanted}"),
                help,
            });
            return;
        }
        match &node.kind {
            Kind::Map(entries) => {
                let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                for (key, value) in entries {
                    match key.scalar().and_then(|key| properties.get_key_value(key)) {
                        None => mistakes.push(unknown(key, path, &known)),
                        Some((name, schema)) => {
                            self.node(value, schema, &format!("{path}.{name}"), &key.span, mistakes);
                        }
                    }
                }
                repeated(node, mistakes);
                let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
                for name in required.filter_map(Value::as_str).filter(|name| node.get(name).is_none()) {
                    let description = properties.get(name).and_then(|schema| schema.get("description"));
                    mistakes.push(Mistake {
                        span: key.clone(),
                        code: "missing-key",
                        message: format!("`{path}` has no `{name}`"),
                        help: one_line(description),
                    });
                }
            }
            Kind::Seq(items) => {
                if let Some(most) = limit(schema, "maxItems").filter(|most| items.len() > *most) {
                    mistakes.push(Mistake {
                        span: key.clone(),
                        code: "too-long",
                        message: format!("`{path}` has {} entries; at most {most} are allowed", items.len()),
                        help: String::new(),
                    });
                }
                let Some(schema) = schema.get("items") else { return };
                for (index, item) in items.iter().enumerate() {
                    self.node(item, schema, &format!("{path}[{index}]"), &item.span, mistakes);
                }
            }
            Kind::Scalar { .. } => self.scalar(node, &json, schema, path, mistakes),
        }
    }

    fn scalar(&mut self, node: &Node, json: &Value, schema: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
        let mut mistake = |code, message| {
            let help = one_line(schema.get("description"));
            mistakes.push(Mistake { span: node.span.clone(), code, message, help });
        };
        if let Some(number) = json.as_i64() {
            let bound = |key| schema.get(key).and_then(Value::as_f64);
            if bound("minimum").is_some_and(|least| (number as f64) < least)
                || bound("maximum").is_some_and(|most| number as f64 > most)
            {
                mistake("bad-value", format!("`{path}` can't be {number}"));
            }
            return;
        }
        let Some(text) = json.as_str() else { return };
        let length = text.chars().count();
        if limit(schema, "minLength").is_some_and(|least| length < least) {
            return mistake("bad-value", format!("`{path}` is empty"));
        }
        if let Some(most) = limit(schema, "maxLength").filter(|most| length > *most) {
            return mistake("too-long", format!("`{path}` is {length} characters long; at most {most} are allowed"));
        }
        let Some(pattern) = schema.get("pattern").and_then(Value::as_str) else { return };
        if !self.patterns.contains_key(pattern)
            && let Ok(regex) = Regex::new(pattern)
        {
            self.patterns.insert(pattern.to_owned(), regex);
        }
        if self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text)) {
            let shown: String = text.chars().take(60).collect();
            mistake("bad-value", format!("`{path}` can't be {shown:?}"));
        }
    }
}

fn limit(schema: &Value, key: &str) -> Option<usize> {
    schema.get(key).and_then(Value::as_u64).map(|limit| limit as usize)
}

fn unknown(key: &Node, path: &str, known: &[&str]) -> Mistake {
    let name = key.scalar().unwrap_or_default();
    let help = match closest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the keys here are {}", known.join(", ")),
    };
    let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
    Mistake { span: key.span.clone(), code: "unknown-key", message: format!("there is no key `{name}`{place}"), help }
}

fn repeated(node: &Node, mistakes: &mut Vec<Mistake>) {
    let mut seen = HashSet::new();
    for (key, _) in node.entries() {
        let name = key.scalar().unwrap_or_default();
        if !seen.insert(name) {
            mistakes.push(Mistake {
                span: key.span.clone(),
                code: "repeated-key",
                message: format!("the key `{name}` is there twice"),
                help: "remove one of them".to_owned(),
            });
        }
    }
}

/// A description as one line.
fn one_line(description: Option<&Value>) -> String {
    description.and_then(Value::as_str).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The candidate that is meant by a mistyped word, if one is near enough: at most a third of the word is wrong. Case and
/// the difference between `-` and `_` count little.
pub fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let word = plain(word);
    let most = word.chars().count().div_ceil(3).min(3);
    candidates
        .iter()
        .map(|candidate| (distance(&word, &plain(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many characters must be put in, taken out or replaced to get from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            let best = (corner + usize::from(a != *b)).min(above + 1).min(left + 1);
            (corner, left, *cell) = (above, best, best);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::marked::documents;
    use super::*;

    fn mistakes(kind: &str, text: &str) -> Vec<(String, String, String)> {
        let node = documents(text).unwrap().remove(0);
        let found = Schemas::new().check(kind, &node);
        found.into_iter().map(|m| (text[m.span].to_owned(), m.code.to_owned(), m.message)).collect()
    }

    #[test]
    fn mistakes_of_shape_are_found_where_they_are() {
        let text = "
apiVersion: mumoshu.github.io/v1alpha1
kind: FalcoRule
metadata: {name: x}
spec:
  rule: a*b
  descr: x
  condition: no
  output: o
  priority: WARN
  enabled: maybe
  tags: a
  captureDuration: 0
  captureDuration: 1
";
        let found = mistakes("FalcoRule", text);
        let expect = [
            ("a*b", "bad-value", "`spec.rule` can't be \"a*b\""),
            ("descr", "unknown-key", "there is no key `descr` in `spec`"),
            ("no", "wrong-type", "`spec.condition` is a boolean and should be text"),
            ("WARN", "bad-value", "`spec.priority` can't be \"WARN\""),
            ("maybe", "wrong-type", "`spec.enabled` is text and should be true or false"),
            ("a", "wrong-type", "`spec.tags` is text and should be a list"),
            ("0", "bad-value", "`spec.captureDuration` can't be 0"),
            ("captureDuration", "repeated-key", "the key `captureDuration` is there twice"),
            ("spec", "missing-key", "`spec` has no `desc`"),
        ];
        let found: Vec<_> = found.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn what_the_api_server_takes_is_taken() {
        let text = "{apiVersion: x, kind: FalcoList, metadata: {}, spec: {list: a, items: [x, 'y z']}}";
        assert_eq!(mistakes("FalcoList", text), vec![]);
        let found = mistakes("FalcoList", "{metadata: {name: y}, spec: {list: a, items: []}}");
        assert_eq!((found.len(), found[0].0.as_str(), found[0].1.as_str()), (1, "y", "wrong-type"));
        let found = mistakes("FalcoMacro", "{kind: FalcoMacro, metadata: {}}");
        assert_eq!(found[0].2, "the FalcoMacro has no `spec`");
    }

    #[test]
    fn near_words_are_meant() {
        let keys = ["condition", "priority", "warnEvttypes", "skipIfUnknownFilter"];
        for (word, meant) in [
            ("conditon", Some("condition")),
            ("warn_evttypes", Some("warnEvttypes")),
            ("skip-if-unknown-filter", Some("skipIfUnknownFilter")),
            ("Priority", Some("priority")),
            ("macro", None),
            ("", None),
        ] {
            assert_eq!(closest(word, &keys), meant, "{word}");
        }
    }
}
