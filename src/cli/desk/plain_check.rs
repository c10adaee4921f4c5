//! Plain Falco rules files against the language: what Falco would say to their items, and what it would not.

use std::collections::BTreeSet;
use std::ops::Range;

use super::finding::Class;
use super::input::File;
use super::marked::{Kind, Node};
use super::place;
use super::plain::{Items, List, Macro, Mistake, Rule, Text, is_true};
use crate::language::{
    self, Catalog, Code, Diagnostic, ExceptionText, ExceptionValue, Expr, FileList, FileMacro, FileRule, ListText,
    MacroText, Part, RuleText, Severity, Span, Words, check_file,
};

/// What the language says to the items.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong, by kind, item and place.
    pub mistakes: Vec<Mistake>,
    /// The condition of each rule with everything in it, where Falco can put it together.
    pub expanded: Vec<Option<Expr<'static>>>,
}

/// Checks all items that were read from the files.
pub fn check(items: &Items, files: &[File], catalog: &Catalog) -> Verdict {
    let mut verdict = Verdict::default();
    let list_items: Vec<Vec<String>> = items.lists.iter().map(|list| scalars(&list.items)).collect();
    let lists: Vec<_> = items
        .lists
        .iter()
        .zip(&list_items)
        .map(|(list, items)| FileList { text: ListText { name: &list.name, items }, order: list.order })
        .collect();
    let macros: Vec<_> = items
        .macros
        .iter()
        .map(|item| FileMacro {
            text: MacroText { name: &item.name, condition: &item.condition.text },
            order: item.order,
        })
        .collect();
    let exceptions: Vec<Exceptions> =
        items.rules.iter().map(|rule| Exceptions::read(rule, &mut verdict.mistakes)).collect();
    let rules: Vec<_> =
        items.rules.iter().zip(&exceptions).map(|(rule, exceptions)| file_rule(rule, &exceptions.texts)).collect();

    let found = check_file(&lists, &macros, &rules, catalog);
    for (list, findings) in items.lists.iter().zip(found.lists) {
        verdict.mistakes.extend(findings.iter().map(|finding| of_list(list, files, finding)));
    }
    for (item, findings) in items.macros.iter().zip(found.macros) {
        verdict.mistakes.extend(findings.iter().map(|finding| of_macro(item, files, finding)));
    }
    for ((rule, exceptions), findings) in items.rules.iter().zip(&exceptions).zip(found.rules) {
        // What has no text, or can't be read, was found to be so.
        let said = findings.iter().filter(|finding| match finding.part {
            Part::Exception(index) => !exceptions.unreadable.contains(&index),
            part => !is_missing(rule, part),
        });
        verdict.mistakes.extend(said.map(|finding| of_rule(rule, files, finding)));
    }
    verdict.expanded = found.expanded;
    requirements(items, catalog, &mut verdict.mistakes);
    verdict
}

fn scalars(items: &[(usize, Node)]) -> Vec<String> {
    items.iter().map(|(_, node)| node.scalar().unwrap_or_default().to_owned()).collect()
}

fn file_rule<'a>(rule: &'a Rule, exceptions: &'a [ExceptionText]) -> FileRule<'a> {
    let flag = |key: &str| rule.flags.iter().find(|(known, _)| *known == key).and_then(|(_, node)| node.scalar());
    FileRule {
        text: RuleText {
            name: &rule.name,
            condition: &rule.condition.text,
            output: &rule.output.text,
            source: rule.source.as_deref(),
            priority: &rule.priority.text,
            tags: &rule.tags,
            exceptions,
            without_event_types: flag("warn_evttypes").is_some_and(|text| !is_true(text)),
            skip_if_unknown_filter: flag("skip-if-unknown-filter").is_some_and(is_true),
        },
        replaced_exceptions: rule.replaced_exceptions,
    }
}

fn is_missing(rule: &Rule, part: Part) -> bool {
    let text = match part {
        Part::Condition => &rule.condition,
        Part::Output => &rule.output,
        Part::Priority => &rule.priority,
        _ => return false,
    };
    text.parts.is_empty()
}

/// The exceptions of a rule.
#[derive(Default)]
struct Exceptions {
    /// One for each, empty for those that can't be read.
    texts: Vec<ExceptionText>,
    /// Those that can't be read.
    unreadable: BTreeSet<u32>,
}

impl Exceptions {
    /// Reads those of a rule. What can't be read is a mistake.
    fn read(rule: &Rule, mistakes: &mut Vec<Mistake>) -> Self {
        let mut exceptions = Self::default();
        for (index, (file, node)) in rule.exceptions.iter().enumerate() {
            let text = exception(rule, *file, node, mistakes);
            if text.is_none() {
                exceptions.unreadable.insert(index as u32);
            }
            exceptions.texts.push(text.unwrap_or_default());
        }
        exceptions
    }
}

fn exception(rule: &Rule, file: usize, node: &Node, mistakes: &mut Vec<Mistake>) -> Option<ExceptionText> {
    let mut say = |span: &Range<usize>, message: String, help: &str| {
        mistakes.push(Mistake {
            file,
            item: ("rule", rule.name.clone()),
            span: span.clone(),
            code: Code::Exception.word(),
            warning: false,
            class: Class::Invalid,
            message,
            help: help.to_owned(),
        });
    };
    let name = node.get("name").and_then(Node::scalar).unwrap_or_default();
    if name.is_empty() {
        say(&node.span, "an exception needs a name".to_owned(), "");
    }
    let words = |key: &str| -> Result<Option<Words>, Range<usize>> {
        let Some((key, node)) = node.entry(key) else { return Ok(None) };
        let words = match &node.kind {
            Kind::Seq(items) => {
                items.iter().map(|item| item.scalar().map(str::to_owned)).collect::<Option<_>>().map(Words::Many)
            }
            _ => node.scalar().map(|text| Words::One(text.to_owned())),
        };
        words.map(Some).ok_or(key.span.clone())
    };
    let fields = words("fields").and_then(|fields| fields.ok_or(node.span.clone()));
    let values: Option<Vec<_>> = match node.get("values") {
        None => Some(vec![]),
        Some(node) if node.is_null() => Some(vec![]),
        Some(node) => node.seq().and_then(|items| items.iter().map(|item| value(item, 0)).collect()),
    };
    let (fields, comps, values) = match (fields, words("comps"), values) {
        (Ok(fields), Ok(comps), Some(values)) => (fields, comps, values),
        (Err(span), ..) => {
            say(&span, format!("exception `{name}` needs `fields`"), "a field, or a list of fields");
            return None;
        }
        (_, Err(span), _) => {
            say(&span, format!("the `comps` of exception `{name}` can't be read"), "an operator, or a list of them");
            return None;
        }
        (.., None) => {
            let span = node.entry("values").map_or(node.span.clone(), |(key, _)| key.span.clone());
            let help = "values for one field: `[a, b]`; for several: `[[a, 1], [b, 2]]`";
            say(&span, format!("the `values` of exception `{name}` can't be read"), help);
            return None;
        }
    };
    (!name.is_empty()).then(|| ExceptionText { name: name.to_owned(), fields, comps, values })
}

fn value(node: &Node, depth: usize) -> Option<ExceptionValue> {
    match &node.kind {
        Kind::Seq(items) if depth < 2 => {
            items.iter().map(|item| value(item, depth + 1)).collect::<Option<_>>().map(ExceptionValue::Many)
        }
        _ => node.scalar().map(|text| ExceptionValue::One(text.to_owned())),
    }
}

fn requirements(items: &Items, catalog: &Catalog, mistakes: &mut Vec<Mistake>) {
    let mut parts = catalog.engine_version().split('.').map(|part| part.parse::<u64>().ok());
    let mut next = || parts.next().flatten();
    let (Some(major), Some(minor), Some(patch)) = (next(), next(), next()) else { return };
    for wanted in &items.requirements {
        if wanted.version[0] == major && wanted.version <= [major, minor, patch] {
            continue;
        }
        let [x, y, z] = wanted.version;
        mistakes.push(Mistake {
            file: wanted.file,
            item: ("file", String::new()),
            span: wanted.span.clone(),
            code: "engine-version",
            warning: false,
            class: Class::Invalid,
            message: format!("the file needs engine {x}.{y}.{z}, and this one is {}", catalog.engine_version()),
            help: String::new(),
        });
    }
}

fn of_list(list: &List, files: &[File], finding: &Diagnostic) -> Mistake {
    let place = match finding.part {
        Part::Entry(index) => {
            list.items.get(index as usize).map(|(file, node)| within(*file, node, files, finding.span))
        }
        _ => None,
    };
    mistake(("list", &list.name), place.unwrap_or((list.file, place::whole_of(&list.node, "list"))), finding)
}

fn of_macro(item: &Macro, files: &[File], finding: &Diagnostic) -> Mistake {
    let place = match finding.part {
        Part::Condition => of_text(&item.condition, files, finding.span),
        _ => None,
    };
    mistake(("macro", &item.name), place.unwrap_or((item.file, place::whole_of(&item.node, "macro"))), finding)
}

fn of_rule(rule: &Rule, files: &[File], finding: &Diagnostic) -> Mistake {
    let scalar = |node: Option<&Node>| node.map(|node| within(rule.file, node, files, finding.span));
    let place = match finding.part {
        Part::Condition => of_text(&rule.condition, files, finding.span),
        Part::Output => of_text(&rule.output, files, finding.span),
        Part::Desc => of_text(&rule.desc, files, finding.span),
        Part::Priority => of_text(&rule.priority, files, finding.span),
        Part::Source => scalar(rule.node.get("source")),
        Part::Name => scalar(rule.node.get("rule")),
        Part::Tag(index) => {
            let tag = rule.tags.get(index as usize).map(String::as_str);
            let tags = rule.node.get("tags").and_then(Node::seq).unwrap_or_default();
            scalar(tags.iter().find(|node| node.scalar() == tag))
        }
        Part::Exception(index) => {
            rule.exceptions.get(index as usize).map(|(file, node)| (*file, place::of_exception(node, finding)))
        }
        Part::Entry(_) | Part::Whole => None,
    };
    mistake(("rule", &rule.name), place.unwrap_or((rule.file, place::whole_of(&rule.node, "rule"))), finding)
}

fn within(file: usize, node: &Node, files: &[File], span: Span) -> (usize, Range<usize>) {
    let text = files.get(file).map_or("", |file| &file.text);
    (file, place::of_span(node, text, span))
}

/// The bytes of the file that a part of a text stands for; where it reaches over several, those of the first.
fn of_text(text: &Text, files: &[File], span: Span) -> Option<(usize, Range<usize>)> {
    let (file, start) = text.place(files, span.start as usize)?;
    let (last_file, last) = text.place(files, (span.end as usize).max(span.start as usize + 1) - 1)?;
    let length = files.get(file)?.text.get(last..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    let end = if last_file == file && span.end > span.start && last >= start { last + length } else { start };
    Some((file, start..end))
}

fn mistake((kind, name): (&'static str, &str), (file, span): (usize, Range<usize>), finding: &Diagnostic) -> Mistake {
    Mistake {
        file,
        item: (kind, name.to_owned()),
        span,
        code: finding.code.word(),
        warning: finding.severity == Severity::Warning,
        class: class(finding.class),
        message: finding.message.clone(),
        help: finding.help.clone().unwrap_or_default(),
    }
}

/// The class of a finding of the language.
pub fn class(class: language::Class) -> Class {
    match class {
        language::Class::Invalid => Class::Invalid,
        language::Class::Unsafe => Class::Unsafe,
        language::Class::Policy => Class::Policy,
        language::Class::Style => Class::Style,
    }
}
