//! From what Falco says of itself, and from its base files, to a catalogue: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::api::{CatalogField, CatalogItem};

/// Falco's version and that of its rules engine, from `--version`, as JSON or as text.
pub fn versions(output: &str) -> Option<(String, String)> {
    let json: Option<Value> = serde_json::from_str(output).ok();
    let find = |key: &str, line: &str| {
        if let Some(json) = &json {
            return json.get(key)?.as_str().map(str::to_owned);
        }
        let text = output.lines().find_map(|text| text.trim().strip_prefix(line))?;
        text.split_whitespace().next().map(str::to_owned)
    };
    Some((find("falco_version", "Falco version:")?, find("engine_version_semver", "Engine:")?))
}

/// The loaded plugins as `name version`, from the page `/versions`.
pub fn plugins(page: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(page).unwrap_or_default();
    let versions = json.get("plugin_versions").and_then(Value::as_object).into_iter().flatten();
    let mut plugins: Vec<String> =
        versions.filter_map(|(name, version)| Some(format!("{name} {}", version.as_str()?))).collect();
    plugins.sort();
    plugins
}

#[derive(Deserialize)]
struct Listed {
    fieldclasses: Vec<Class>,
}

#[derive(Deserialize)]
struct Class {
    #[serde(default)]
    event_sources: Vec<String>,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    #[serde(rename = "type", default)]
    type_: String,
    #[serde(default)]
    desc: String,
    #[serde(default)]
    is_list: bool,
    argument: Option<Argument>,
}

#[derive(Deserialize)]
struct Argument {
    #[serde(default)]
    required: bool,
    #[serde(rename = "type", default)]
    kinds: Vec<String>,
}

/// The sources and the fields, sorted, from `--list --format json`.
pub fn fields(output: &str) -> Result<(Vec<String>, Vec<CatalogField>), serde_json::Error> {
    let listed: Listed = serde_json::from_str(output)?;
    let mut sources = BTreeSet::new();
    let mut fields: BTreeMap<String, CatalogField> = BTreeMap::new();
    for class in listed.fieldclasses {
        sources.extend(class.event_sources.iter().cloned());
        for field in class.fields {
            // A field of several sources is listed in a class for each.
            let known = fields.entry(field.name.clone()).or_insert_with(|| described(&field));
            known.sources.extend(class.event_sources.iter().cloned());
        }
    }
    let fields = fields.into_values().map(|mut field| {
        field.sources.sort();
        field.sources.dedup();
        field
    });
    Ok((sources.into_iter().collect(), fields.collect()))
}

fn described(field: &Field) -> CatalogField {
    let argument = field.argument.as_ref().map(|argument| {
        let mut words = vec![if argument.required { "required" } else { "optional" }];
        words.extend(
            ["index", "key"].iter().filter(|kind| argument.kinds.iter().any(|it| it.eq_ignore_ascii_case(kind))),
        );
        words.join(" ")
    });
    CatalogField {
        name: field.name.clone(),
        type_: field.type_.clone(),
        list: field.is_list,
        argument: argument.unwrap_or_default(),
        sources: Vec::new(),
        description: field.desc.trim().to_owned(),
    }
}

/// The field of a key of falco.yaml's `static_fields`.
pub fn static_field(key: &str) -> CatalogField {
    CatalogField {
        name: format!("static.{key}"),
        type_: "CHARBUF".into(),
        sources: vec!["*".into()],
        description: "A text of falco.yaml's `static_fields`, the same for every event.".into(),
        ..CatalogField::default()
    }
}

/// The selections of falco.yaml's `rules`, in their order, as a catalogue writes them.
pub fn selections(rules: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for selection in rules.as_array().into_iter().flatten() {
        for verb in ["disable", "enable"] {
            for what in ["rule", "tag"] {
                if let Some(name) = selection.get(verb).and_then(|it| it.get(what)).and_then(Value::as_str) {
                    found.push(format!("{verb} {what} {name}"));
                }
            }
        }
    }
    found
}

/// What base files define, after all that they redefine and append.
#[derive(Debug, Default, PartialEq)]
pub struct Base {
    /// The names of the rules.
    pub rules: Vec<String>,
    /// The macros with their conditions.
    pub macros: Vec<CatalogItem>,
    /// The lists with their items.
    pub lists: Vec<CatalogItem>,
}

/// An item of a rules file, as far as names go. Scalars are taken as their text, like Falco does.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Item {
    required_engine_version: Option<Anything>,
    required_plugin_versions: Option<Anything>,
    list: Option<String>,
    r#macro: Option<String>,
    rule: Option<String>,
    condition: Option<String>,
    items: Option<Vec<String>>,
    append: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Anything(#[allow(dead_code)] serde::de::IgnoredAny);

impl Item {
    fn appends(&self, key: &str) -> bool {
        let flag =
            self.append.as_deref().is_some_and(|it| matches!(it.to_lowercase().as_str(), "true" | "yes" | "on" | "y"));
        flag || self.overrides.as_ref().and_then(|it| it.get(key)).is_some_and(|it| it == "append")
    }
}

impl Base {
    /// Takes in one more file.
    pub fn read(&mut self, text: &str) -> Result<(), serde_yaml::Error> {
        for document in serde_yaml::Deserializer::from_str(text) {
            let items = Option::<Vec<Option<Item>>>::deserialize(document)?;
            items.into_iter().flatten().flatten().for_each(|item| self.take(&item));
        }
        Ok(())
    }

    fn take(&mut self, item: &Item) {
        if item.required_engine_version.is_some() || item.required_plugin_versions.is_some() {
            return;
        }
        if let Some(name) = &item.list {
            let text = item.items.iter().flatten().cloned().collect::<Vec<_>>().join("\n");
            define(&mut self.lists, name, &text, item.appends("items").then_some("\n"));
        } else if let Some(name) = &item.r#macro {
            define(
                &mut self.macros,
                name,
                item.condition.as_deref().unwrap_or_default(),
                item.appends("condition").then_some(" "),
            );
        } else if let Some(name) = &item.rule
            && !self.rules.contains(name)
        {
            self.rules.push(name.clone());
        }
    }
}

/// Defines, redefines in its place, or appends after a separator.
fn define(items: &mut Vec<CatalogItem>, name: &str, text: &str, appended_after: Option<&str>) {
    let Some(known) = items.iter_mut().find(|item| item.name == name) else {
        items.push(CatalogItem { name: name.to_owned(), text: text.to_owned() });
        return;
    };
    match appended_after {
        Some(_) if text.is_empty() => {}
        Some(separator) if !known.text.is_empty() => known.text = format!("{}{separator}{text}", known.text),
        _ => text.clone_into(&mut known.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_read_from_json_and_from_text() {
        let json = r#"{"engine_version":"62","engine_version_semver":"0.62.0","falco_version":"0.44.1"}"#;
        let text = "Falco version: 0.44.1 (x86_64)\nLibs version:  0.25.4\nPlugin API:    3.12.0\nEngine:        0.62.0\nDriver:\n";
        for output in [json, text] {
            assert_eq!(versions(output), Some(("0.44.1".into(), "0.62.0".into())), "{output}");
        }
        assert_eq!(versions("Error: no"), None);
        assert_eq!(versions("{}"), None);
        let page = json!({ "falco_version": "0.44.1", "plugin_versions": { "json": "0.7.4", "container": "0.7.1" } });
        assert_eq!(plugins(&page.to_string()), ["container 0.7.1", "json 0.7.4"]);
        assert!(plugins("not there").is_empty());
    }

    #[test]
    fn a_field_has_the_sources_of_all_its_classes() {
        let one = |name: &str, argument: Value| json!({ "name": name, "type": "CHARBUF", "desc": " a name ", "is_list": false, "argument": argument });
        let output = json!({ "fieldclasses": [
            { "name": "proc", "desc": "", "event_sources": ["syscall"], "fields": [
                one("proc.name", Value::Null), one("proc.aname", json!({ "required": false, "type": [] })) ] },
            { "name": "evt", "desc": "", "event_sources": ["syscall"], "fields": [one("evt.num", Value::Null)] },
            { "name": "evt", "desc": "", "event_sources": ["k8s_audit"], "fields": [
                one("evt.num", Value::Null), one("ka.x", json!({ "required": true, "type": ["INDEX", "KEY"] })) ] },
        ]});
        let (sources, fields) = fields(&output.to_string()).unwrap();
        assert_eq!(sources, ["k8s_audit", "syscall"]);
        let found: Vec<_> =
            fields.iter().map(|it| (it.name.as_str(), it.argument.as_str(), it.sources.join(","))).collect();
        assert_eq!(
            found,
            [
                ("evt.num", "", "k8s_audit,syscall".into()),
                ("ka.x", "required index key", "k8s_audit".into()),
                ("proc.aname", "optional", "syscall".into()),
                ("proc.name", "", "syscall".into()),
            ]
        );
        assert_eq!(fields[3].description, "a name");
        assert!(super::fields("Error: no").is_err());
    }

    #[test]
    fn base_files_are_read_as_falco_reads_them() {
        let mut base = Base::default();
        let first = "
- required_engine_version: 0.57.0
- required_plugin_versions: [{name: container, version: 0.4.0}]
- list: numbers
  items: [1, 0x10, yes, 'a b']
- list: empty
  items: []
- macro: m
  condition: a or b
-
- rule: r1
  desc: d
  condition: m
  output: o
  priority: NOTICE
  exceptions: [{name: e, fields: [proc.name]}]
---
- macro: n
  condition: evt.type = open
";
        let second = "
- list: numbers
  append: true
  items: [2]
- list: empty
  items: [x]
  override: {items: append}
- macro: m
  condition: and c
  append: true
- macro: n
  condition: never_true
- rule: r1
  append: true
  condition: and x
- rule: r2
  enabled: false
- strange: 1
";
        base.read(first).unwrap();
        base.read("").unwrap();
        base.read(second).unwrap();
        let item = |name: &str, text: &str| CatalogItem { name: name.into(), text: text.into() };
        assert_eq!(base.rules, ["r1", "r2"]);
        assert_eq!(base.macros, [item("m", "a or b and c"), item("n", "never_true")]);
        assert_eq!(base.lists, [item("numbers", "1\n0x10\nyes\na b\n2"), item("empty", "x")]);
        assert!(Base::default().read("- [").is_err());
    }

    #[test]
    fn selections_keep_their_order() {
        let rules =
            json!([{ "disable": { "rule": "*" } }, { "enable": { "tag": "t1" } }, { "enable": { "rule": "a b" } }]);
        assert_eq!(selections(&rules), ["disable rule *", "enable tag t1", "enable rule a b"]);
        assert!(selections(&Value::Null).is_empty());
    }
}
