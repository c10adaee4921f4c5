//! `falco-operator lint`: manifests and rules files checked as the operator and Falco would check them.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::finding::{self, Class, Finding, ItemName, Severity};
use super::input::{self, File};
use super::manifest::{self, Document, Manifest};
use super::namespace::Namespace;
use super::plain::Items;
use super::schema::Schemas;
use super::setting::{self, Setting};
use crate::api::Reason;
use crate::render::{ItemVerdict, Names};

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
    let setting = args.setting.load()?;
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
        eprintln!("{items} items: {errors} errors, {warnings} warnings");
    }
    for error in &unreadable {
        eprintln!("{error}");
    }
    Ok(ExitCode::from(if unreadable.is_empty() { u8::from(errors > 0) } else { 2 }))
}

/// Everything that there is to say about the files, in the order of the files, and how many items are in them.
pub fn lint(files: &[File], setting: &Setting) -> (Vec<Finding>, usize) {
    let mut linter = Linter { files, findings: Vec::new() };
    let mut manifests = Vec::new();
    let mut plain = Items::default();
    for (index, file) in files.iter().enumerate() {
        match manifest::documents(index, &file.text, &setting.namespace) {
            Err(err) => {
                let item = ItemName { kind: "file".to_owned(), ..ItemName::default() };
                linter.say(index, &item, err.offset..err.offset, "yaml", &err.message, "");
            }
            Ok(documents) => {
                for document in documents {
                    match document {
                        Document::Manifest(manifest) => manifests.push(*manifest),
                        Document::Plain(node) => plain.read(index, &node),
                        Document::Foreign => {}
                    }
                }
            }
        }
    }
    let items = manifests.len() + plain.lists.len() + plain.macros.len() + plain.rules.len();
    linter.manifests(&manifests, setting);
    linter.plain(&plain);
    let mut findings = linter.findings;
    let place = |finding: &Finding| files.iter().position(|file| file.name == finding.file);
    findings.sort_by_key(|finding| (place(finding), finding.span.start, finding.span.end));
    findings.dedup();
    (findings, items)
}

struct Linter<'a> {
    files: &'a [File],
    findings: Vec<Finding>,
}

impl Linter<'_> {
    fn say(&mut self, file: usize, item: &ItemName, span: Range<usize>, code: &str, message: &str, help: &str) {
        let Some(File { name, text }) = self.files.get(file) else { return };
        let (line, column, _) = input::place(text, span.start);
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
            if let Ok(file) = rendered.file {
                names.hold(name, file.items.iter().map(|item| item.rule_name.clone()).collect());
            }
        }
    }

    fn verdict(&mut self, manifest: &Manifest, verdict: &ItemVerdict) {
        let Some(message) = &verdict.message else { return };
        let key = if verdict.rejected == Some(Reason::NameTaken) { "rule" } else { "condition" };
        let span = manifest.spec(key).map_or(0..0, |node| node.span.clone());
        self.say(manifest.file, &manifest.item, span, "rejected", message, "");
        if let Some(finding) = self.findings.last_mut() {
            match verdict.rejected {
                None => (finding.severity, finding.class) = (Severity::Warning, Class::Style),
                Some(Reason::Unsafe) => finding.class = Class::Unsafe,
                Some(Reason::PolicyDenied | Reason::NameTaken) => finding.class = Class::Policy,
                Some(_) => {}
            }
        }
    }

    fn plain(&mut self, items: &Items) {
        for mistake in &items.mistakes {
            let (kind, name) = &mistake.item;
            let item = ItemName { kind: (*kind).to_owned(), namespace: String::new(), name: name.clone() };
            self.say(mistake.file, &item, mistake.span.clone(), mistake.code, &mistake.message, &mistake.help);
            if let Some(finding) = self.findings.last_mut()
                && mistake.warning
            {
                (finding.severity, finding.class) = (Severity::Warning, Class::Style);
            }
        }
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
