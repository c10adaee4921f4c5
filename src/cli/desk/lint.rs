//! `falco-operator lint`: manifests and rules files checked as the operator and Falco would check them.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::finding::{self, Class, Finding, ItemName, Severity};
use super::input::{self, File, Lines};
use super::manifest::{self, Document, Manifest};
use super::marked::Node;
use super::namespace::Namespace;
use super::plain::Items;
use super::plain_check::{self, class};
use super::schema::Schemas;
use super::setting::{self, Setting};
use crate::language::{Catalog, Code};
use crate::render::{ItemVerdict, Names, Policy};

/// Arguments of `falco-operator lint`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Files or folders with manifests of FalcoRules, FalcoMacros and FalcoLists, or with plain Falco rules; `-` is
    /// standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// How findings are shown
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    #[command(flatten)]
    setting: setting::Args,
}

/// How findings are shown.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    /// For people: each with its line and what is meant in it
    Text,
    /// One JSON object
    Json,
    /// Workflow commands, which GitHub shows beside the lines of a pull request
    Github,
}

/// Checks everything and prints what was found.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let setting = match args.setting.load() {
        Ok(setting) => setting,
        Err(err) => return Ok(setting::unreadable(&err)),
    };
    let (files, unreadable) = input::read(&args.paths);
    let (findings, items) = lint(&files, &setting);
    let report = match args.format {
        Format::Text => finding::text(&findings, &files),
        Format::Json => finding::json(&findings, items),
        Format::Github => finding::github(&findings),
    };
    std::io::stdout().lock().write_all(report.as_bytes()).context("cannot write to standard output")?;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if matches!(args.format, Format::Text) {
        let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (items, errors) = (counted(items, "item"), counted(errors, "error"));
        eprintln!("{items}: {errors}, {}", counted(warnings, "warning"));
    }
    for error in &unreadable {
        eprintln!("{error}");
    }
    Ok(ExitCode::from(if unreadable.is_empty() { u8::from(errors > 0) } else { 2 }))
}

/// Line and column of everything that there is to say about these texts, each taken for a file.
#[must_use]
pub fn lint_texts(texts: &[&str]) -> Vec<(usize, usize)> {
    let files: Vec<File> =
        texts.iter().enumerate().map(|(at, text)| File { name: at.to_string(), text: (*text).to_owned() }).collect();
    let setting = Setting { namespace: "default".to_owned(), policy: Policy::default(), catalog: Catalog::default() };
    lint(&files, &setting).0.iter().map(|finding| (finding.line, finding.column)).collect()
}

/// Up to how many plain rules files everything is looked at again with each of them; with more, only once, so that the time
/// does not grow with their square.
const FILES_EACH: usize = 20;

/// Everything that there is to say about the files, in the order of the files, and how many items are in them.
pub fn lint(files: &[File], setting: &Setting) -> (Vec<Finding>, usize) {
    let lines = files.iter().map(|file| Lines::of(&file.text)).collect();
    let mut linter = Linter { files, lines, findings: Vec::new(), unused: Vec::new() };
    let mut manifests = Vec::new();
    let mut plain = Items::default();
    let mut plain_files = 0;
    for (index, file) in files.iter().enumerate() {
        match manifest::documents(index, &file.text, &setting.namespace) {
            Err(err) => {
                let item = ItemName { kind: "file".to_owned(), ..ItemName::default() };
                linter.say(index, &item, err.offset..err.offset, "yaml", &err.message, yaml_help(&err.message));
            }
            Ok(documents) => {
                let is_plain = documents.iter().any(|document| matches!(document, Document::Plain(_)));
                for document in documents {
                    match document {
                        Document::Manifest(manifest) => manifests.push(*manifest),
                        Document::Plain(node) => plain.read(index, &node),
                        Document::Foreign(node) if is_plain => linter.stray(index, &node),
                        Document::Foreign(_) => {}
                    }
                }
                if is_plain {
                    plain_files += 1;
                }
                // Falco looks at everything again with each file, so that what is missing must not come later.
                if is_plain && plain_files <= FILES_EACH {
                    linter.plain(&plain, &setting.catalog);
                }
            }
        }
    }
    let items = manifests.len() + plain.lists.len() + plain.macros.len() + plain.rules.len();
    if plain_files > FILES_EACH {
        linter.plain(&plain, &setting.catalog);
    }
    linter.manifests(&manifests, setting);
    let unused = linter.unused;
    let mut findings = linter.findings;
    let order: HashMap<&str, usize> = files.iter().enumerate().map(|(at, file)| (file.name.as_str(), at)).collect();
    let place = |finding: &Finding| order.get(finding.file.as_str()).copied();
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| (place(finding), finding.span.start, finding.span.end, finding.severity);
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    findings.dedup();
    // What a later file uses is used.
    findings.retain(|finding| {
        !is_unused(&finding.code) || finding.item.kind.starts_with("Falco") || unused.contains(finding)
    });
    (findings, items)
}

struct Linter<'a> {
    files: &'a [File],
    lines: Vec<Lines>,
    findings: Vec<Finding>,
    /// What is unused once all plain files were read.
    unused: Vec<Finding>,
}

impl Linter<'_> {
    fn say(&mut self, file: usize, item: &ItemName, span: Range<usize>, code: &str, message: &str, help: &str) {
        let Some(File { name, text }) = self.files.get(file) else { return };
        let (column, _) = input::column(text, span.start);
        let line = self.lines.get(file).map_or(1, |lines| lines.number(span.start.min(text.len())));
        self.findings.push(Finding {
            file: name.clone(),
            item: item.clone(),
            line,
            column,
            severity: Severity::Error,
            class: Class::Invalid,
            code: code.to_owned(),
            message: message.to_owned(),
            help: help.to_owned(),
            span,
        });
    }

    fn manifests(&mut self, manifests: &[Manifest], setting: &Setting) {
        let mut schemas = Schemas::new();
        let mut namespaces: BTreeMap<&str, Namespace> = BTreeMap::new();
        let mut owners: BTreeMap<(&str, &str, &str), &Manifest> = BTreeMap::new();
        for manifest in manifests {
            let item = &manifest.item;
            let mistakes = schemas.check(&item.kind, &manifest.node);
            for mistake in &mistakes {
                self.say(manifest.file, item, mistake.span.clone(), mistake.code, &mistake.message, &mistake.help);
            }
            let metadata = manifest.node.get("metadata").and_then(|node| node.get("name"));
            let start = manifest.node.span.start;
            if !is_object_name(&item.name) {
                let span = metadata.map_or(start..start + 1, |node| node.span.clone());
                let message = if item.name.is_empty() {
                    format!("the {} has no `metadata.name`", item.kind)
                } else {
                    format!("`{}` can't be the name of an object", item.name)
                };
                let help = "a name has lower-case letters, digits, `-` and `.`, at most 253 of them, and begins and ends \
                            with a letter or digit";
                self.say(manifest.file, item, span, "object-name", &message, help);
                continue;
            }
            let key = (item.kind.as_str(), item.namespace.as_str(), item.name.as_str());
            if let Some(first) = owners.insert(key, manifest) {
                let file = self.files.get(first.file).map(|file| (file.name.as_str(), &file.text));
                let (name, line) =
                    file.map_or(("", 0), |(name, text)| (name, input::place(text, first.node.span.start).0));
                let message = format!(
                    "there is a {} {}/{} already, in {name} at line {line}",
                    item.kind, item.namespace, item.name
                );
                let span = metadata.map_or(start..start + 1, |node| node.span.clone());
                self.say(manifest.file, item, span, "repeated-object", &message, "kubectl would apply only the last");
            }
            match &manifest.object {
                Ok(object) if mistakes.is_empty() => {
                    namespaces.entry(&item.namespace).or_default().take(item.name.clone(), object.clone());
                }
                Err(err) if mistakes.is_empty() => {
                    self.say(manifest.file, item, start..start + 1, "undecodable", err, "");
                }
                _ => {}
            }
        }
        let mut names = Names::default();
        for (name, namespace) in &namespaces {
            let rendered = namespace.render(name, &names, setting);
            for (kind, verdicts) in
                [("FalcoRule", &rendered.rules), ("FalcoMacro", &rendered.macros), ("FalcoList", &rendered.lists)]
            {
                for (object, verdict) in verdicts {
                    if let Some(manifest) = owners.get(&(kind, *name, object.as_str())) {
                        self.verdict(manifest, verdict);
                    }
                }
            }
            match rendered.file {
                Ok(file) => {
                    names.hold(name, file.items.iter().map(|item| item.rule_name.clone()).collect());
                }
                Err(too_large) => {
                    let (bytes, limit) = (too_large.bytes, too_large.limit);
                    let first =
                        owners.iter().find(|((kind, namespace, _), _)| *kind == "FalcoRule" && namespace == name);
                    if let Some((_, manifest)) = first {
                        let message =
                            format!("the rules file of namespace {name} comes to {bytes} bytes; the limit is {limit}");
                        let start = manifest.node.span.start;
                        self.say(manifest.file, &manifest.item, start..start + 1, "file-too-large", &message, "");
                        self.be(Severity::Error, Class::Policy);
                    }
                }
            }
        }
    }

    /// The last finding is of another kind than most.
    fn be(&mut self, severity: Severity, class: Class) {
        if let Some(finding) = self.findings.last_mut() {
            (finding.severity, finding.class) = (severity, class);
        }
    }

    fn verdict(&mut self, manifest: &Manifest, verdict: &ItemVerdict) {
        let text = self.files.get(manifest.file).map_or("", |file| &file.text);
        for finding in &verdict.findings {
            let span = manifest.place(text, finding);
            let help = finding.help.as_deref().unwrap_or_default();
            self.say(manifest.file, &manifest.item, span, finding.code.word(), &finding.message, help);
            let severity = if finding.is_error() { Severity::Error } else { Severity::Warning };
            self.be(severity, class(finding.class));
        }
        if let Some(why) = &verdict.not_running {
            let told = |code| matches!(code, Code::UnknownSource | Code::UnknownFilter);
            if !verdict.findings.iter().any(|finding| told(finding.code)) {
                let span = manifest.name_of_item();
                let message = format!("the rule would be loaded and never run: {why}");
                self.say(manifest.file, &manifest.item, span, "never-runs", &message, "");
                self.be(Severity::Warning, Class::Style);
            }
        }
    }

    fn plain(&mut self, items: &Items, catalog: &Catalog) {
        let verdict = plain_check::check(items, self.files, catalog);
        self.unused.clear();
        for mistake in items.mistakes.iter().chain(&verdict.mistakes) {
            let (kind, name) = &mistake.item;
            let item = ItemName { kind: (*kind).to_owned(), namespace: String::new(), name: name.clone() };
            self.say(mistake.file, &item, mistake.span.clone(), mistake.code, &mistake.message, &mistake.help);
            self.be(if mistake.warning { Severity::Warning } else { Severity::Error }, mistake.class);
            if is_unused(mistake.code) {
                self.unused.extend(self.findings.last().cloned());
            }
        }
    }

    /// A document among those of a rules file that is no list of items.
    fn stray(&mut self, file: usize, node: &Node) {
        if node.get("apiVersion").is_some() && node.get("kind").is_some() {
            return;
        }
        let item = ItemName { kind: "file".to_owned(), ..ItemName::default() };
        let message = "a document of a rules file should be a list of rules, macros and lists";
        self.say(file, &item, node.span.clone(), "wrong-type", message, "begin each item with `- `");
    }
}

fn is_unused(code: &str) -> bool {
    code == Code::UnusedMacro.word() || code == Code::UnusedList.word()
}

/// What to do about what a YAML parser says.
fn yaml_help(message: &str) -> &'static str {
    if message.contains("mapping values are not allowed") {
        "a value that holds `: ` needs quotes around it"
    } else if message.contains("tab") {
        "indent with blanks"
    } else {
        ""
    }
}

/// Whether the API server takes the text for the name of an object.
fn is_object_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            label.bytes().all(|byte| inner(byte) || byte == b'-')
                && label.bytes().next().is_some_and(inner)
                && label.bytes().last().is_some_and(inner)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_api_servers() {
        for name in ["a", "a-b.c1", "0"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", "A", "-a", "a-", "a..b", "a_b", "a/b", &"a".repeat(254)] {
            assert!(!is_object_name(name), "{name}");
        }
    }
}
