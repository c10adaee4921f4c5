//! A reader of Falco rules files that judges them as Falco 0.44.1 was seen to.

pub mod check;
pub mod compile;
pub mod condition;
mod decode;
mod exceptions;
pub mod issue;
pub mod items;
mod lexer;
pub mod output;
pub mod reader;
mod schema;
#[cfg(test)]
mod verdicts;

use crate::config::{AppendOutput, Config};
use crate::fields::Catalogue;
use crate::yaml;
use compile::{Additions, Compiler, Stop};
use issue::{Code, Context, Issue, Report};
use items::{Items, Rule};
use std::collections::HashSet;
use std::fmt::Write as _;

/// Says of a rule why it must be refused although it is sound.
type Refuse<'a> = Box<dyn Fn(&Rule) -> Option<String> + 'a>;

/// Loads files one on top of the other, as Falco does.
pub struct Loader<'a> {
    config: &'a Config,
    catalogue: Catalogue,
    items: Items,
    compiler: Compiler,
    dropped: HashSet<String>,
    refuse: Refuse<'a>,
}

/// What goes past every error report and ends the process.
#[derive(Debug)]
pub struct Uncaught(pub String);

impl<'a> Loader<'a> {
    /// Nothing loaded yet.
    pub fn new(config: &'a Config, refuse: Refuse<'a>) -> Self {
        Self {
            config,
            catalogue: Catalogue::of(config),
            items: Items::default(),
            compiler: Compiler::default(),
            dropped: HashSet::new(),
            refuse,
        }
    }

    /// How many rules there are.
    pub fn rule_count(&self) -> usize {
        self.items.rules.len()
    }

    /// Reads one more file and compiles everything.
    pub fn load(&mut self, name: &str, content: &[u8]) -> Result<Report, Uncaught> {
        let content = String::from_utf8_lossy(content).into_owned();
        let mut report = Report { name: name.to_owned(), content, ..Report::default() };
        let file = Context::file(name);
        let documents = match yaml::documents(&report.content) {
            Ok(documents) => documents,
            Err(error) => {
                report.errors.push(Issue::new(Code::YamlParse, error.message, &file));
                return Ok(report);
            }
        };
        report.schema = schema::verdict(&documents);
        let mut reader =
            reader::Reader { items: &mut self.items, warnings: &mut report.warnings, catalogue: &self.catalogue };
        let read = reader.documents(&documents, &file).map_err(Stop::from);
        let done = read.and_then(|()| {
            if let Some((rule, message)) = self.items.rules.iter().find_map(|rule| Some((rule, (self.refuse)(rule)?))) {
                return Err(Issue::new(Code::Validate, message, &rule.context).into());
            }
            let additions = |rule: &Rule| additions(self.config, &self.catalogue, rule);
            self.compiler.compile(&mut self.items, &self.catalogue, &additions, &mut report.warnings)
        });
        match done {
            Ok(dropped) => self.dropped = dropped,
            Err(Stop::Issue(issue)) => report.errors.push(*issue),
            Err(Stop::Uncaught(message)) => return Err(Uncaught(message)),
        }
        Ok(report)
    }

    /// The first plugin requirement that the loaded plugins don't meet, in Falco's words.
    pub fn unmet_plugins(&self) -> Option<String> {
        let loaded: Vec<(&str, &str)> = self.catalogue.plugins().collect();
        let met = |alternatives: &items::PluginRequirement| {
            let first = alternatives.iter().find_map(|(name, wanted)| {
                let (_, found) = loaded.iter().find(|(loaded, _)| loaded == name)?;
                Some((reader::version(wanted)?, reader::version(found)?))
            });
            first.is_some_and(|(wanted, found)| wanted.0 == found.0 && found >= wanted)
        };
        let unmet = self.items.plugins.iter().find(|alternatives| !met(alternatives))?;
        let names: Vec<String> = unmet.iter().map(|(name, version)| format!("{name} (>= {version})")).collect();
        Some(format!("Plugin requirement not satisfied, must load one of: {}", names.join(", ")))
    }

    /// The rules that run: enabled after all, of a known source, not dropped, severe enough.
    pub fn running(self) -> Vec<Rule> {
        let Self { config, items, dropped, .. } = self;
        let runs = |rule: &Rule| {
            let mut enabled = rule.enabled;
            for step in &config.selections {
                let by_name = step.rule.as_ref().is_some_and(|pattern| wildcard(pattern, &rule.name));
                let by_tag = step.tag.as_ref().is_some_and(|tag| rule.tags.contains(tag));
                if by_name || by_tag {
                    enabled = step.enable;
                }
            }
            enabled && !rule.unknown_source && !dropped.contains(&rule.name) && rule.priority <= config.priority
        };
        items.rules.into_iter().filter(runs).collect()
    }
}

/// Whether an entry of `append_output` is for a rule.
pub fn applies(entry: &AppendOutput, rule: &Rule) -> bool {
    entry.rule.as_ref().is_none_or(|name| *name == rule.name)
        && entry.source.as_ref().is_none_or(|source| *source == rule.source)
        && entry.tags.iter().all(|tag| rule.tags.contains(tag))
}

/// What `append_output` adds to a rule.
pub fn additions(config: &Config, catalogue: &Catalogue, rule: &Rule) -> Additions {
    let mut all = Additions::default();
    for entry in config.append_output.iter().filter(|entry| applies(entry, rule)) {
        if let Some(text) = &entry.extra_output {
            all.text.push(' ');
            all.text.push_str(text);
        }
        if entry.suggested {
            for field in catalogue.fields().filter(|field| field.suggested() && field.in_source(&rule.source)) {
                let _ = write!(all.text, " {}=%{}", field.name.replace('.', "_"), field.name);
            }
        }
        all.formats.extend(entry.extra_fields.iter().map(|(name, format)| match format {
            Some(format) => format.clone(),
            None => format!("%{}", name.trim_start_matches('%')),
        }));
    }
    all
}

/// `*` stands for any text, matched from the left without going back.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut rest = rest;
    let middle: Vec<&str> = parts.collect();
    let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}
