//! `falco-operator convert`: plain Falco rules files to manifests.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::finding::Class;
use super::marked::{Kind, Node};
use super::plain::{Items, Mistake, Rule, is_true};
use super::plain_check;
use super::setting::{self, CatalogArgs};
use super::{input, marked};
use crate::render::{push_flow_scalar, push_scalar};

/// Arguments of `falco-operator convert`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Plain Falco rules files or folders with them, in the order in which Falco would load them; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,

    /// The namespace to write into the manifests; without it they go where kubectl is told to put them
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Write the manifests into this file instead of printing them
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    catalog: CatalogArgs,
}

/// Converts the files. What can't be converted, what Falco would refuse, and what it reads otherwise than it is written is
/// told on standard error, and the rest is converted all the same.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let catalog = match args.catalog.load() {
        Ok(catalog) => catalog,
        Err(err) => return Ok(setting::unreadable(&err)),
    };
    let (files, mut errors) = input::read(&args.paths);
    let mut items = Items::default();
    for (index, file) in files.iter().enumerate() {
        match marked::documents(&file.text) {
            Ok(documents) => documents.iter().for_each(|document| items.read(index, document)),
            Err(err) => {
                let (line, column, _) = input::place(&file.text, err.offset);
                errors.push(format!("{}:{line}:{column}: {}", file.name, err.message));
            }
        }
    }
    let mut out = Converter { namespace: args.namespace.as_deref(), ..Converter::default() };
    out.items(&items);
    let mut refused = false;
    let verdict = plain_check::check(&items, &files, &catalog);
    // How a rule could be better is for `lint`. What is unsafe in text that Falco pastes need not be in manifests.
    let said = verdict.mistakes.into_iter().filter(|mistake| mistake.class != Class::Style).map(|mistake| {
        let warning = mistake.warning || mistake.class == Class::Unsafe;
        Mistake { warning, ..mistake }
    });
    let mut all: Vec<Mistake> = items.mistakes.into_iter().chain(out.mistakes).chain(said).collect();
    all.sort_by_key(|mistake| (mistake.file, mistake.span.start));
    for mistake in &all {
        let Some(file) = files.get(mistake.file) else { continue };
        let (line, column, _) = input::place(&file.text, mistake.span.start);
        let word = if mistake.warning { "warning" } else { "error" };
        let help = if mistake.help.is_empty() { String::new() } else { format!("; {}", mistake.help) };
        eprintln!("{word}: {}:{line}:{column}: {}{help}", file.name, mistake.message);
        refused |= !mistake.warning;
    }
    for error in &errors {
        eprintln!("{error}");
    }
    match &args.output {
        Some(path) => std::fs::write(path, &out.text).with_context(|| format!("cannot write {}", path.display()))?,
        None => {
            std::io::stdout().lock().write_all(out.text.as_bytes()).context("cannot write to standard output")?;
        }
    }
    Ok(ExitCode::from(if errors.is_empty() { u8::from(refused) } else { 2 }))
}

/// Writes manifests.
#[derive(Default)]
struct Converter<'a> {
    namespace: Option<&'a str>,
    text: String,
    names: BTreeSet<(&'static str, String)>,
    mistakes: Vec<Mistake>,
}

impl Converter<'_> {
    fn items(&mut self, items: &Items) {
        for (file, span) in &items.asks {
            self.mistakes.push(Mistake {
                file: *file,
                item: ("file", String::new()),
                span: span.clone(),
                code: "changed",
                warning: true,
                class: Class::Style,
                message: "manifests ask for no versions: each rule is checked against what the nodes' Falcos offer"
                    .into(),
                help: String::new(),
            });
        }
        for list in &items.lists {
            if !is_word(&list.name) {
                self.refuse(
                    list.file,
                    &list.node,
                    "list",
                    &list.name,
                    "a list's name may hold letters, digits, `_`, `.` and `-`",
                );
                continue;
            }
            self.begin("FalcoList", &list.name);
            self.key("  ", "list", &list.name);
            self.text.push_str("  items:");
            self.text.push_str(if list.items.is_empty() { " []\n" } else { "\n" });
            for (_, item) in &list.items {
                self.text.push_str("  - ");
                push_scalar(&mut self.text, item.scalar().unwrap_or_default());
                self.text.push('\n');
            }
        }
        for item in &items.macros {
            let mut bytes = item.name.bytes();
            if !bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
                || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                self.refuse(
                    item.file,
                    &item.node,
                    "macro",
                    &item.name,
                    "a macro's name is a letter, then letters, digits and `_`",
                );
                continue;
            }
            self.begin("FalcoMacro", &item.name);
            self.key("  ", "macro", &item.name);
            self.key("  ", "condition", &item.condition.text);
        }
        for rule in &items.rules {
            self.rule(rule);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let complete =
            [&rule.desc, &rule.condition, &rule.output, &rule.priority].iter().all(|text| !text.text.is_empty());
        if !complete {
            return;
        }
        if rule.name.len() > 253 || rule.name.chars().any(|c| c.is_control() || matches!(c, '"' | '\\' | '*')) {
            let why = "a rule's name has at most 253 bytes, no control characters and none of `\"`, `\\` and `*`";
            return self.refuse(rule.file, &rule.node, "rule", &rule.name, why);
        }
        if !rule.tags.iter().all(|tag| (1..=63).contains(&tag.len()) && is_word(tag)) {
            let why = "a tag has 1 to 63 letters, digits, `_`, `.` and `-`";
            return self.refuse(rule.file, &rule.node, "rule", &rule.name, why);
        }
        if rule.output.text.trim().contains('\n') {
            self.mistakes.push(Mistake {
                file: rule.file,
                item: ("rule", rule.name.clone()),
                span: rule.node.get("output").map_or(rule.node.span.clone(), |node| node.span.clone()),
                code: "changed",
                warning: true,
                class: Class::Style,
                message: format!("the output of rule `{}` has several lines; they are joined", rule.name),
                help: String::new(),
            });
        }
        self.begin("FalcoRule", &rule.name);
        self.key("  ", "rule", &rule.name);
        self.key("  ", "desc", &one_line(&rule.desc.text));
        self.key("  ", "condition", &rule.condition.text);
        self.key("  ", "output", &one_line(&rule.output.text));
        self.key("  ", "priority", &rule.priority.text.to_ascii_uppercase());
        if !rule.tags.is_empty() {
            self.flow("  ", "tags", rule.tags.iter().map(String::as_str));
        }
        if let Some(source) = &rule.source {
            self.key("  ", "source", source);
        }
        for (key, node) in &rule.flags {
            let value = node.scalar().unwrap_or_default();
            let (key, text) = match *key {
                "warn_evttypes" => ("warnEvttypes", is_true(value).to_string()),
                "skip-if-unknown-filter" => ("skipIfUnknownFilter", is_true(value).to_string()),
                "capture_duration" => ("captureDuration", value.to_owned()),
                key => (key, is_true(value).to_string()),
            };
            self.text.push_str(&format!("  {key}: {text}\n"));
        }
        if !rule.exceptions.is_empty() {
            self.text.push_str("  exceptions:\n");
        }
        for (_, exception) in &rule.exceptions {
            self.exception(exception);
        }
    }

    fn exception(&mut self, exception: &Node) {
        self.text.push_str("  - name: ");
        push_scalar(&mut self.text, exception.get("name").and_then(Node::scalar).unwrap_or_default());
        self.text.push('\n');
        for key in ["fields", "comps"] {
            if let Some(node) = exception.get(key).filter(|node| !node.is_null()) {
                self.text.push_str(&format!("    {key}: "));
                self.value(node);
                self.text.push('\n');
            }
        }
        let values = exception.get("values").and_then(Node::seq).unwrap_or_default();
        if !values.is_empty() {
            self.text.push_str("    values:\n");
        }
        for value in values {
            self.text.push_str("    - ");
            self.value(value);
            self.text.push('\n');
        }
    }

    /// A text, or a list of them in brackets. Falco takes every scalar for text.
    fn value(&mut self, node: &Node) {
        match &node.kind {
            Kind::Seq(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.text.push_str(if index > 0 { ", " } else { "" });
                    self.value(item);
                }
                self.text.push(']');
            }
            _ => push_flow_scalar(&mut self.text, node.scalar().unwrap_or_default()),
        }
    }

    fn begin(&mut self, kind: &'static str, name: &str) {
        let stem = object_name(name);
        let mut object = stem.clone();
        let mut number = 2;
        while !self.names.insert((kind, object.clone())) {
            object = format!("{stem}-{number}");
            number += 1;
        }
        if !self.text.is_empty() {
            self.text.push_str("---\n");
        }
        self.text.push_str(&format!(
            "apiVersion: {}/{}\nkind: {kind}\nmetadata:\n",
            crate::api::GROUP,
            crate::api::VERSION
        ));
        self.key("  ", "name", &object);
        if let Some(namespace) = self.namespace {
            self.key("  ", "namespace", namespace);
        }
        self.text.push_str("spec:\n");
    }

    fn key(&mut self, indent: &str, key: &str, text: &str) {
        self.text.push_str(&format!("{indent}{key}:"));
        let lines = text.strip_suffix('\n').unwrap_or(text);
        if is_block(lines) {
            self.text.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in lines.split('\n') {
                self.text.push_str(&if line.is_empty() { "\n".to_owned() } else { format!("{indent}  {line}\n") });
            }
        } else {
            self.text.push(' ');
            push_scalar(&mut self.text, text.strip_suffix('\n').unwrap_or(text));
            self.text.push('\n');
        }
    }

    fn flow<'t>(&mut self, indent: &str, key: &str, items: impl Iterator<Item = &'t str>) {
        self.text.push_str(&format!("{indent}{key}: "));
        for (index, item) in items.enumerate() {
            self.text.push_str(if index > 0 { ", " } else { "[" });
            push_flow_scalar(&mut self.text, item);
        }
        self.text.push_str("]\n");
    }

    fn refuse(&mut self, file: usize, node: &Node, kind: &'static str, name: &str, why: &str) {
        let span = node.entry(kind).map_or(node.span.clone(), |(_, value)| value.span.clone());
        self.mistakes.push(Mistake {
            file,
            item: (kind, name.to_owned()),
            span,
            code: "invalid-name",
            warning: false,
            class: Class::Invalid,
            message: format!("the {kind} `{name}` can't be a manifest: {why}"),
            help: "rename it, and what uses it".to_owned(),
        });
    }
}

/// Whether a text holds nothing but what names of lists and tags may hold.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Whether every YAML parser reads the text back from a literal block: several lines of printable ASCII, none of which
/// begins or ends with a blank at the ends of the text.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with([' ', '\n'])
        && text.lines().all(|line| line.is_empty() || !line.trim().is_empty())
}

/// The text with its lines joined by blanks.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A name for the object: lower case, words joined by `-`.
fn object_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut joined = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    joined.truncate(240);
    let joined = joined.trim_matches('-');
    if joined.is_empty() { "unnamed".to_owned() } else { joined.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{self, Document, Object};
    use super::*;
    use crate::api::{Authored, ExceptionFields};

    fn converted(text: &str) -> (String, Vec<Mistake>) {
        let mut items = Items::default();
        for document in marked::documents(text).unwrap() {
            items.read(0, &document);
        }
        let mut out = Converter { namespace: Some("team-a"), ..Converter::default() };
        out.items(&items);
        items.mistakes.append(&mut out.mistakes);
        (out.text, items.mistakes)
    }

    const RULES: &str = r#"
- required_engine_version: 0.57.0
- list: my-shells
  items: [bash, no, "a: b", 1, 'with "quotes"']
- macro: spawned_process
  condition: >
    evt.type in (execve, execveat)
    and evt.arg.res = 0
- rule: Terminal shell / in "no" container
  desc: x
  condition: y
  output: z
  priority: INFO
- rule: Terminal shell in container
  desc: >
    One paragraph
    of words.

    Another.
  condition: |
    spawned_process
      and proc.name in (my-shells)
  output: "Shell: %proc.name"
  priority: Notice
  tags: [container, T1059, "no"]
  enabled: no
  capture_duration: 3000
  exceptions:
  - name: known
    fields: [proc.name, fd.name]
    comps: [in, =]
    values:
    - [[bash, "y"], /etc/x]
  - name: one
    fields: proc.name
    values: [a, "b c"]
- rule: terminal-shell-in-container
  desc: d
  condition: c
  output: o
  priority: INFO
"#;

    #[test]
    fn manifests_say_what_the_rules_file_said() {
        let (text, mistakes) = converted(RULES);
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert!(mistakes.iter().any(|it| !it.warning && it.message.contains("none of `\"`")), "{mistakes:?}");
        assert!(mistakes.iter().any(|it| it.warning && it.message.contains("ask for no versions")), "{mistakes:?}");
        let documents = manifest::documents(0, &text, "default").unwrap();
        assert_eq!(documents.len(), 4, "{text}");
        let object = |index: usize| match &documents[index] {
            Document::Manifest(manifest) => manifest.object.clone().unwrap_or_else(|err| panic!("{err} in {text}")),
            other => panic!("{other:?}"),
        };
        let Object::List(list) = object(0) else { panic!("{text}") };
        assert_eq!(list.spec.items, ["bash", "no", "a: b", "1", "with \"quotes\""]);
        let Object::Macro(item) = object(1) else { panic!("{text}") };
        assert_eq!(item.spec.condition, "evt.type in (execve, execveat) and evt.arg.res = 0");
        let Object::Rule(rule) = object(2) else { panic!("{text}") };
        assert_eq!(rule.item_name(), "Terminal shell in container");
        assert_eq!(rule.metadata.name.as_deref(), Some("terminal-shell-in-container"));
        assert_eq!(rule.metadata.namespace.as_deref(), Some("team-a"));
        assert_eq!(rule.spec.desc, "One paragraph of words. Another.");
        assert_eq!(rule.spec.condition, "spawned_process\n  and proc.name in (my-shells)\n");
        assert_eq!((rule.spec.priority.0.as_str(), rule.spec.enabled), ("NOTICE", Some(false)));
        assert_eq!(rule.spec.tags, ["container", "T1059", "no"]);
        assert_eq!(rule.spec.capture_duration, Some(3000));
        assert_eq!(rule.spec.exceptions.len(), 2);
        assert_eq!(rule.spec.exceptions[0].comps, Some(ExceptionFields::Many(vec!["in".into(), "=".into()])));
        assert_eq!(rule.spec.exceptions[0].values[0], serde_json::json!([["bash", "y"], "/etc/x"]));
        assert_eq!(rule.spec.exceptions[1].fields, ExceptionFields::One("proc.name".into()));
        let Object::Rule(twin) = object(3) else { panic!("{text}") };
        assert_eq!(twin.metadata.name.as_deref(), Some("terminal-shell-in-container-2"));
        // What comes out is as the API server wants it.
        let mut schemas = super::super::schema::Schemas::new();
        for document in &documents {
            let Document::Manifest(manifest) = document else { panic!("{text}") };
            assert_eq!(schemas.check(&manifest.item.kind, &manifest.node), vec![], "{text}");
        }
    }

    #[test]
    fn what_a_manifest_can_not_hold_is_refused_in_words() {
        for tag in ["a b", "", "é"] {
            let (text, mistakes) = converted(&format!(
                "- rule: r\n  desc: d\n  condition: evt.type = open\n  output: o\n  priority: INFO\n  tags: [{tag:?}]\n"
            ));
            assert_eq!(text, "", "{tag:?}");
            assert!(mistakes.iter().any(|it| !it.warning && it.message.contains("a tag has")), "{mistakes:?}");
        }
        let (_, mistakes) = converted("- required_plugin_versions:\n  - {name: json, version: 0.7.0}\n");
        assert!(mistakes.iter().any(|it| it.warning && it.message.contains("ask for no versions")), "{mistakes:?}");
    }

    #[test]
    fn blocks_are_used_where_every_parser_reads_them_back() {
        for text in ["a\nb", "a\n\n b", "a: b\n# c"] {
            assert!(is_block(text), "{text:?}");
        }
        for text in ["a", "a\n", " a\nb", "\na\nb", "a\nb ", "a\tb\nc", "a\n  \nb", "é\nb"] {
            assert!(!is_block(text), "{text:?}");
        }
    }
}
