//! A rule as a whole.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::FastMap;
use super::catalog::{Catalog, SYSCALL};
use super::check;
use super::definitions::{Definitions, Extent, Uses, over_limits};
use super::diagnostic::{Class, Code, Diagnostic, Part, Severity, Span, nearest};
use super::events::{self, EventTypes};
use super::exceptions::{self, ExceptionText};
use super::limits;
use super::output;
use super::parse::parse;
use super::print::{ExprKind, means};
use super::resolve::catalogued;
use super::splice::splice;
use super::tree::{Expr, Field, Rhs, ValueKind};

/// A rule as it is written.
#[derive(Clone, Debug, Default)]
pub struct RuleText<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its condition.
    pub condition: &'a str,
    /// Its output.
    pub output: &'a str,
    /// The source of its events; `syscall` where it names none.
    pub source: Option<&'a str>,
    /// Its priority.
    pub priority: &'a str,
    /// Its tags.
    pub tags: &'a [String],
    /// Its exceptions.
    pub exceptions: &'a [ExceptionText],
    /// Whether not to warn that it looks at every event.
    pub without_event_types: bool,
    /// Whether a Falco that lacks one of its fields is to leave it out.
    pub skip_if_unknown_filter: bool,
}

/// What there is to say about a rule.
#[derive(Clone, Debug, Default)]
pub struct Checked<'a> {
    /// The condition with its exceptions, in which lists and macros have their names; [`Checked::expanded`] puts them in.
    pub tree: Option<Expr<'a>>,
    /// Operators, checks and values of the condition and its exceptions, once lists and macros of the namespace are in it.
    pub nodes: usize,
    /// The condition for Falco: as written where that means the same, with lists and macros of the namespace in the place
    /// of their names; else printed. `None` where there is an error.
    pub condition: Option<String>,
    /// Whether that is the text as written.
    pub verbatim: bool,
    /// Errors and warnings, by part and place.
    pub diagnostics: Vec<Diagnostic>,
    /// The types of events that it can match, for rules of the source `syscall`.
    pub event_types: Option<EventTypes>,
    /// What it rests on.
    pub uses: Uses,
}

impl<'a> Checked<'a> {
    /// The condition with lists and macros of the namespace and with exceptions in it. Base macros are named in it, base
    /// lists too. The arguments are those that the rule was checked with.
    #[must_use]
    pub fn expanded(&self, definitions: &Definitions<'a>, catalog: &Catalog) -> Option<Expr<'a>> {
        self.tree.clone().map(|tree| definitions.expand(tree, catalog))
    }

    /// The fields of the condition as written, such as `evt.arg.flags`, and by the names that the catalogue has them by,
    /// such as `evt.arg`; each with its first place. What comes from macros has none.
    #[must_use]
    pub fn fields(&self, definitions: &Definitions<'a>, catalog: &Catalog) -> BTreeMap<String, Span> {
        let mut found = BTreeMap::new();
        let Some(tree) = self.expanded(definitions, catalog) else { return found };
        tree.each_check(&mut |check| {
            let mut add = |field: &Field<'_>| {
                for name in [&*field.name, catalogued(catalog, &field.name)] {
                    let place = found.entry(name.to_owned()).or_insert(field.span);
                    if *place == Span::default() {
                        *place = field.span;
                    }
                }
            };
            check.operand.each_field(&mut add);
            if let Rhs::Operand(operand) = &check.rhs {
                operand.each_field(&mut add);
            }
        });
        found
    }

    /// Whether the rule is taken.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.is_error())
    }

    /// Whether Falco itself would take it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.errors().any(|diagnostic| diagnostic.class == Class::Invalid)
    }

    /// Whether it looks at every event, or at so many types that Falco does not tell them apart.
    #[must_use]
    pub fn is_broad(&self) -> bool {
        self.event_types.is_some_and(|types| types.is_broad())
    }
}

/// The priorities, most severe first, with Falco's other word for one of them.
const PRIORITIES: [&str; 9] =
    ["emergency", "alert", "critical", "error", "warning", "notice", "informational", "info", "debug"];

/// Checks a rule with the lists and macros of its namespace, against what an installation offers.
#[must_use]
pub fn check_rule<'a>(rule: &RuleText<'a>, definitions: &Definitions<'_>, catalog: &Catalog) -> Checked<'a> {
    let mut checked = check_condition(rule, definitions, catalog);
    let source = rule.source.unwrap_or(SYSCALL);
    name(rule.name, &mut checked.diagnostics);
    tags(rule.tags, &mut checked.diagnostics);
    priority(rule.priority, &mut checked.diagnostics);
    if catalog.has_source(source) {
        let mut report = vec![];
        output::check(rule.output, source, catalog, &mut report);
        lenient(rule, &mut report);
        checked.diagnostics.append(&mut report);
    }
    finish(&mut checked);
    checked
}

/// Checks the condition of a rule alone, with its exceptions.
#[must_use]
pub fn check_condition<'a>(rule: &RuleText<'a>, definitions: &Definitions<'_>, catalog: &Catalog) -> Checked<'a> {
    let source = rule.source.unwrap_or(SYSCALL);
    let parsed = parse(rule.condition);
    let mut checked = Checked { diagnostics: parsed.diagnostics, ..Checked::default() };
    let is_known = catalog.has_source(source);
    if !is_known {
        let message = format!("no source `{}` is loaded, so the rule would never run", source.escape_debug());
        checked.diagnostics.push(
            Diagnostic::warning(Code::UnknownSource, Span::new(0, source.len()), message)
                .within(Part::Source)
                .suggest(nearest(source, catalog.sources())),
        );
    }
    let excepted = exceptions::compile(rule.exceptions, catalog, &mut checked.diagnostics);
    // Of a condition that can't be read as a whole, what can be is looked at all the same, and so are its exceptions: each
    // mistake is told at once.
    let tree = parsed.tree.as_ref().or(parsed.readable.as_ref());
    let mut uses = Uses::default();
    let all = || tree.into_iter().chain(excepted.iter().map(|(_, expr)| expr));
    let mut extents = all().map(|expr| definitions.extent(expr, catalog, &mut uses));
    let extent = match (extents.next(), excepted.is_empty()) {
        (first, true) => first.unwrap_or_default(),
        (first, false) => Extent::of(ExprKind::And, first.into_iter().chain(extents)),
    };
    // What is too large is not looked at: that would take as long as it is large.
    if let Some(over) = all().next().and_then(|first| over_limits(extent.size, first)) {
        checked.diagnostics.push(over);
        finish(&mut checked);
        return checked;
    }
    if is_known {
        let mut report = vec![];
        if let Some(tree) = tree {
            check::condition(tree, source, definitions, catalog, &mut report);
        }
        for (index, expr) in &excepted {
            let mut found = vec![];
            check::condition(expr, source, definitions, catalog, &mut found);
            report.extend(found.into_iter().map(|diagnostic| diagnostic.within(Part::Exception(*index))));
        }
        lenient(rule, &mut report);
        checked.diagnostics.append(&mut report);
    }
    let Some(tree) = parsed.tree else {
        finish(&mut checked);
        return checked;
    };
    let is_plain = excepted.is_empty();
    let whole = if is_plain {
        tree
    } else {
        Expr::And(std::iter::once(tree).chain(excepted.into_iter().map(|(_, expr)| expr)).collect())
    };
    if extent.nesting > limits::NESTING {
        let (nesting, limit) = (extent.nesting, limits::NESTING);
        let message =
            format!("parentheses are nested {nesting} levels deep once macros are inserted; the limit is {limit}");
        checked.diagnostics.push(Diagnostic::unsafe_(Code::Nesting, whole.span(), message));
        finish(&mut checked);
        return checked;
    }
    if source == SYSCALL && is_known {
        let types = events::types(definitions.possible(&whole, catalog));
        warn_if_broad(rule, types, &mut checked.diagnostics);
        checked.event_types = Some(types);
    }
    let names_nothing = uses.lists.is_empty() && uses.macros.is_empty();
    if is_plain && names_nothing && means(&whole, &catalog.pasted_over(rule.condition)) {
        checked.verbatim = true;
        checked.condition = Some(rule.condition.to_owned());
    } else {
        let spliced = is_plain
            .then(|| splice(rule.condition, (&whole, parsed.nesting), (definitions, catalog), limits::CONDITION_BYTES));
        match spliced.flatten().map_or_else(|| whole.emit(definitions, catalog), |written| Ok(written.text)) {
            Ok(text) => checked.condition = Some(text),
            Err(mut unmeant) => checked.diagnostics.append(&mut unmeant),
        }
    }
    definitions.complete(&mut uses);
    checked.nodes = extent.nodes;
    checked.uses = uses;
    checked.tree = Some(whole);
    finish(&mut checked);
    checked
}

fn finish(checked: &mut Checked) {
    checked.diagnostics.sort_by_key(|diagnostic| (diagnostic.part, diagnostic.span));
    if !checked.is_accepted() {
        checked.condition = None;
        checked.verbatim = false;
    }
}

/// Falco leaves out a rule that asks for it where a field is missing.
pub(crate) fn lenient(rule: &RuleText<'_>, report: &mut [Diagnostic]) {
    if !rule.skip_if_unknown_filter {
        return;
    }
    for diagnostic in report {
        let is_missing = matches!(
            diagnostic.code,
            Code::UnknownField | Code::FieldOfOtherSource | Code::UnknownEventType | Code::OutputFormat
        );
        if is_missing && diagnostic.class == Class::Invalid {
            diagnostic.code = Code::UnknownFilter;
            diagnostic.severity = Severity::Warning;
            diagnostic.class = Class::Style;
            diagnostic.message.push_str("; the rule would be left out");
        }
    }
}

/// Warns where a condition does not tell the types of events apart for which it can hold.
pub(crate) fn warn_if_broad(rule: &RuleText<'_>, types: EventTypes, report: &mut Vec<Diagnostic>) {
    // What is not known may well tell types of events apart.
    let unknown = |finding: &Diagnostic| {
        let codes = [Code::UnknownMacro, Code::BrokenMacro, Code::MacroOfOtherSource, Code::UnknownEventType];
        finding.is_error() && codes.contains(&finding.code)
    };
    if types.is_broad() && !rule.without_event_types && !report.iter().any(unknown) {
        let message = if types.is_empty() {
            "the condition holds for no type of event"
        } else {
            "the condition does not say which types of events it is for, so every event is looked at"
        };
        let span = Span::new(0, rule.condition.len());
        report.push(
            Diagnostic::warning(Code::NoEventType, span, message)
                .help("such as `evt.type = execve and …`, or `evt.type in (open, openat) and …`"),
        );
    }
}

pub(crate) fn priority(written: &str, report: &mut Vec<Diagnostic>) {
    if PRIORITIES.iter().any(|priority| priority.eq_ignore_ascii_case(written)) {
        return;
    }
    let lower = written.to_ascii_lowercase();
    let near = match lower.as_str() {
        "warn" => Some("warning"),
        "err" => Some("error"),
        "crit" => Some("critical"),
        word => nearest(word, PRIORITIES.into_iter()),
    };
    let message = format!("there is no priority `{}`", written.escape_debug());
    report.push(
        Diagnostic::invalid(Code::Structure, Span::new(0, written.len()), message)
            .within(Part::Priority)
            .suggest(near.map(str::to_ascii_uppercase))
            .help_if_none("EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO or DEBUG"),
    );
}

pub(crate) fn name(name: &str, report: &mut Vec<Diagnostic>) {
    let whole = Span::new(0, name.len());
    let mut wrong = |diagnostic: Diagnostic| report.push(diagnostic.within(Part::Name));
    if name.trim().is_empty() {
        wrong(Diagnostic::invalid(Code::InvalidName, whole, "a rule needs a name"));
    }
    if name.len() > limits::NAME_BYTES {
        let message = format!("the name is {} bytes long; the limit is {}", name.len(), limits::NAME_BYTES);
        wrong(Diagnostic::unsafe_(Code::TooLong, whole, message));
    }
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'*');
    let bad = |c: &char| c.is_control() || matches!(c, '"' | '\\' | '*' | '\u{2028}' | '\u{2029}');
    if !name.bytes().all(plain)
        && let Some((at, c)) = name.char_indices().find(|(_, c)| bad(c))
    {
        let message = format!("the name of a rule must not hold `{}`", c.escape_default());
        wrong(
            Diagnostic::unsafe_(Code::InvalidName, Span::new(at, at + c.len_utf8()), message)
                .help("Falco puts the name into its metrics and selections as it is"),
        );
    }
}

/// A tag as Falco's metrics have it.
fn label(tag: &str) -> Cow<'_, str> {
    if tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return tag.into();
    }
    tag.chars().map(in_label).collect::<String>().into()
}

/// A character of a tag as Falco's metrics have it.
const fn in_label(c: char) -> char {
    if c.is_ascii_alphanumeric() { c } else { '_' }
}

pub(crate) fn tags(tags: &[String], report: &mut Vec<Diagnostic>) {
    // Of a few tags all pairs are compared faster than a map is made.
    let few = tags.len() <= 8;
    let mut by_label: FastMap<Cow<'_, str>, &str> = FastMap::default();
    for (index, tag) in tags.iter().enumerate() {
        let first = if few {
            tags.iter()
                .take(index)
                .find(|other| other.chars().map(in_label).eq(tag.chars().map(in_label)))
                .unwrap_or(tag)
        } else {
            *by_label.entry(label(tag)).or_insert(tag)
        };
        let mut wrong = |message: String, help: &str| {
            let span = Span::new(0, tag.len());
            let diagnostic = Diagnostic::unsafe_(Code::InvalidName, span, message);
            report.push(diagnostic.within(Part::Tag(index as u32)).help(help));
        };
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if tag.is_empty() || !tag.bytes().all(fine) {
            wrong(format!("`{}` can't be a tag", tag.escape_debug()), "letters, digits, `_`, `.` and `-`");
        } else if first != tag {
            wrong(
                format!("tags `{first}` and `{tag}` are one in Falco's metrics"),
                "they must differ in more than signs",
            );
        }
    }
}

/// The base lists that a tree names.
#[must_use]
pub fn base_lists<'t>(tree: &'t Expr<'_>) -> Vec<&'t str> {
    let mut names = vec![];
    tree.each_check(&mut |check| {
        if let Rhs::List(list) = &check.rhs {
            names
                .extend(list.values.iter().filter(|value| value.kind == ValueKind::BaseList).map(|value| &*value.text));
        }
    });
    names
}
