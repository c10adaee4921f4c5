//! The rules of rules files.

use super::FileRule;
use super::lists::Lists;
use super::macros::Macros;
use crate::language::catalog::SYSCALL;
use crate::language::definitions::{Definitions, over_limits};
use crate::language::diagnostic::{Class, Code, Diagnostic, Part, Span, nearest};
use crate::language::exceptions::{self, ExceptionText, ExceptionValue, Words};
use crate::language::parse::{Parser, parse};
use crate::language::paste::{Pasted, pasted_item};
use crate::language::resolve::Resolver;
use crate::language::tree::{Expr, Operand};
use crate::language::{check, events, limits, output, rule};

/// Checks a rule. Gives its condition with macros, lists and exceptions in it.
pub(super) fn check(
    file_rule: &FileRule<'_>,
    lists: &mut Lists<'_>,
    macros: &mut Macros<'_>,
    macro_findings: &mut [Vec<Diagnostic>],
    report: &mut Vec<Diagnostic>,
) -> Option<Expr<'static>> {
    let text = &file_rule.text;
    let catalog = lists.catalog;
    let source = text.source.unwrap_or(SYSCALL);
    rule::name(text.name, report);
    rule::tags(text.tags, report);
    rule::priority(text.priority, report);
    if !catalog.has_source(source) {
        let message = format!("no source `{}` is loaded, so the rule would never run", source.escape_debug());
        report.push(
            Diagnostic::warning(Code::UnknownSource, Span::new(0, source.len()), message)
                .within(Part::Source)
                .suggest(nearest(source, catalog.sources())),
        );
        return None;
    }
    let mut found = vec![];
    output::check(text.output, source, catalog, &mut found);
    rule::lenient(text, &mut found);
    report.append(&mut found);

    let excepted = exceptions::compile(text.exceptions, catalog, report);
    let fields_exist = exception_fields(file_rule, source, lists, report);
    let whole = with_exceptions(text.condition, text.exceptions);
    let pasted = lists.paste(&whole.text, report);
    let alone = if whole.ends.is_empty() { pasted.clone() } else { lists.paste(text.condition, &mut vec![]) };
    lists.hazards(text.condition, &alone, report);
    let parsed = parse(&pasted.text);
    if !whole.ends.is_empty() {
        let first = parse(&alone.text);
        let mut class = Class::Invalid;
        if first.tree.is_none() && parsed.tree.is_some() {
            // Put in parentheses it can be read, as something that nobody wrote.
            class = Class::Unsafe;
        }
        report.extend(first.diagnostics.into_iter().map(|mut finding| {
            finding.span = alone.original(finding.span);
            finding.class = class;
            finding
        }));
    }
    let is_alone_readable = !report.iter().any(|finding| finding.part == Part::Condition && finding.is_error());
    if whole.ends.is_empty() || is_alone_readable {
        report.extend(parsed.diagnostics.into_iter().map(|finding| whole.place(finding, &pasted)));
    }
    if !fields_exist {
        return None;
    }
    let Some(tree) = parsed.tree else {
        let mut found = vec![];
        parsed.readable.iter().for_each(|tree| check::alone(tree, source, catalog, &mut found));
        report.extend(found.into_iter().map(|finding| whole.place(finding, &pasted)));
        return None;
    };
    let mut found = vec![];
    check::alone(&tree, source, catalog, &mut found);
    let sound = macros.of_rule(&tree, source, lists, macro_findings, &mut found);
    rule::lenient(text, &mut found);
    report.extend(found.into_iter().map(|finding| whole.place(finding, &pasted)));
    if !whole.ends.is_empty() && excepted.len() == whole.ends.len() {
        exceptions_are_read(text.condition, &excepted, &tree, lists, report);
    }
    if let Some(over) = over_limits(macros.size(&tree), &tree) {
        report.push(whole.place(over, &pasted));
        return None;
    }
    if !sound {
        return None;
    }
    let expanded = macros.expand(&tree);
    let nesting = expanded.nesting();
    if nesting > limits::NESTING && tree.nesting() <= limits::NESTING {
        let limit = limits::NESTING;
        let message =
            format!("parentheses are nested {nesting} levels deep once macros are inserted; the limit is {limit}");
        report.push(Diagnostic::unsafe_(Code::Nesting, Span::new(0, text.condition.len()), message));
    }
    if source == SYSCALL {
        let types = events::types(Definitions::default().possible(&expanded, catalog));
        rule::warn_if_broad(text, types, report);
    }
    Some(expanded.into_owned())
}

/// A condition with the text of exceptions behind it.
struct Whole {
    text: String,
    /// Bytes before the condition.
    before: usize,
    /// Bytes of the condition.
    condition: usize,
    /// Which exceptions there are, and where in the text each ends.
    ends: Vec<(u32, usize)>,
}

impl Whole {
    /// The finding in the part that it is about.
    fn place(&self, mut finding: Diagnostic, pasted: &Pasted) -> Diagnostic {
        let span = pasted.original(finding.span);
        let (start, end) = (span.start as usize, span.end as usize);
        let limit = self.before + self.condition;
        if start >= limit && !self.ends.is_empty() {
            let index = self.ends.iter().find(|(_, end)| start < *end).or(self.ends.last());
            finding.part = Part::Exception(index.map_or(0, |(index, _)| *index));
            finding.span = Span::default();
        } else {
            let within = |at: usize| at.clamp(self.before, limit) - self.before;
            finding.span = Span::new(within(start), within(end));
        }
        finding
    }
}

/// The condition as Falco puts it together with the exceptions.
fn with_exceptions(condition: &str, exceptions: &[ExceptionText]) -> Whole {
    let mut whole = Whole { text: condition.to_owned(), before: 0, condition: condition.len(), ends: vec![] };
    for (index, exception) in exceptions.iter().enumerate() {
        let Some(text) = exception_text(exception) else { continue };
        if whole.ends.is_empty() {
            whole.text = format!("({condition})");
            whole.before = 1;
        }
        whole.text.push_str(" and not ");
        whole.text.push_str(&text);
        whole.ends.push((index as u32, whole.text.len()));
    }
    whole
}

/// An exception as text; `None` where it has no values, or is not put together as it must be.
fn exception_text(exception: &ExceptionText) -> Option<String> {
    if exception.values.is_empty() {
        return None;
    }
    let many = |values: &[ExceptionValue]| -> Option<String> {
        let each = values.iter().map(|value| match value {
            ExceptionValue::One(text) => Some(pasted_item(text)),
            ExceptionValue::Many(_) => None,
        });
        Some(each.collect::<Option<Vec<_>>>()?.join(", "))
    };
    match (&exception.fields, &exception.comps) {
        (Words::One(field), None) => Some(format!("({field} in ({}))", many(&exception.values)?)),
        (Words::One(field), Some(Words::One(comp))) => Some(format!("({field} {comp} ({}))", many(&exception.values)?)),
        (Words::Many(fields), comps) => {
            let comps: Vec<&str> = match comps {
                None => vec!["="; fields.len()],
                Some(Words::Many(comps)) if comps.len() == fields.len() => comps.iter().map(String::as_str).collect(),
                Some(_) => return None,
            };
            let mut cases = vec![];
            for value in &exception.values {
                let ExceptionValue::Many(values) = value else { return None };
                if values.len() != fields.len() {
                    return None;
                }
                let mut parts = vec![];
                for ((field, comp), value) in fields.iter().zip(&comps).zip(values) {
                    let of_lists = Parser::whole_operator(comp)
                        .is_some_and(|(op, modifier)| op.takes_list() || modifier.is_some());
                    let text = match value {
                        ExceptionValue::Many(values) => format!("({})", many(values)?),
                        ExceptionValue::One(text) if of_lists && !text.starts_with('(') => {
                            format!("({})", pasted_item(text))
                        }
                        ExceptionValue::One(text) => pasted_item(text),
                    };
                    parts.push(format!("{field} {comp} {text}"));
                }
                cases.push(format!("({})", parts.join(" and ")));
            }
            Some(format!("({})", cases.join(" or ")))
        }
        (Words::One(_), Some(Words::Many(_))) => None,
    }
}

/// Falco looks whether the fields of exceptions exist, those without values included. Says whether they do.
fn exception_fields(rule: &FileRule<'_>, source: &str, lists: &Lists<'_>, report: &mut Vec<Diagnostic>) -> bool {
    let resolver = Resolver { catalog: lists.catalog, source };
    let mut exist = true;
    for (index, exception) in rule.text.exceptions.iter().enumerate() {
        let part = Part::Exception(index as u32);
        let fields = match &exception.fields {
            Words::One(field) => std::slice::from_ref(field),
            Words::Many(fields) => fields.as_slice(),
        };
        for field in fields {
            let mut found = vec![];
            if let Some(operand) = Parser::whole_operand(field) {
                let wrong = match &operand {
                    Operand::Field(field) => resolver.field(field).err().map(|finding| found.push(finding)).is_some(),
                    Operand::Transform(_) => resolver.operand(&operand, &mut found).is_none(),
                };
                exist &= !wrong;
            }
            report.extend(found.into_iter().map(|mut finding| {
                finding.span = Span::default();
                finding.within(part)
            }));
        }
        if rule.replaced_exceptions && exception.comps.is_none() && !exception.values.is_empty() {
            let message = format!(
                "exception `{}` replaces others and has no comps, which Falco then reads anyhow",
                exception.name
            );
            report.push(
                Diagnostic::unsafe_(Code::Exception, Span::default(), message)
                    .within(part)
                    .help("write its `comps`, such as `in` for one field or `[=]` for a list of one"),
            );
        }
    }
    exist
}

/// Whether Falco reads the values of exceptions as values, and not as a part of the condition.
fn exceptions_are_read(
    condition: &str,
    excepted: &[(u32, Expr<'_>)],
    tree: &Expr<'_>,
    lists: &mut Lists<'_>,
    report: &mut Vec<Diagnostic>,
) {
    let mut meant = format!("({condition})");
    for (_, expr) in excepted {
        meant.push_str(" and ");
        meant.push_str(&expr.text());
    }
    let meant = lists.paste(&meant, &mut vec![]);
    let Some(meant) = parse(&meant.text).tree else { return };
    if meant.unplaced().text() == tree.clone().unplaced().text() {
        return;
    }
    let message =
        "Falco puts the values of exceptions into the condition as text, and reads something else than is written";
    let part = Part::Exception(excepted.first().map_or(0, |(index, _)| *index));
    report.push(
        Diagnostic::unsafe_(Code::Exception, Span::default(), message)
            .within(part)
            .help("put values that hold more than letters, digits and `/._-` in quotes within quotes: `'\"a,b\"'`"),
    );
}
