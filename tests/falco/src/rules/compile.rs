//! From items to rules that could run: lists put in as text, macros as trees, then checked.

use super::check::{self, Problem};
use super::condition::{self, Expr, Operand, Position, Value};
use super::issue::{Code, Context, Issue};
use super::items::{Entry, Items, Rule};
use super::output;
use crate::fields::Catalogue;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

/// Text that configuration adds to a rule's output, and fields and formats that it adds to the JSON.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Appended after a blank.
    pub text: String,
    /// Each must compile as an output.
    pub formats: Vec<String>,
}

/// Why compiling stopped.
pub enum Stop {
    /// An error that is reported.
    Issue(Box<Issue>),
    /// An exception that is not.
    Uncaught(String),
}

impl From<Issue> for Stop {
    fn from(issue: Issue) -> Self {
        Self::Issue(Box::new(issue))
    }
}

/// What is kept between the files of one load.
#[derive(Default)]
pub struct Compiler {
    /// Per rule that compiled: its warnings, and the macros and lists that it uses.
    done: HashMap<String, Done>,
}

#[derive(Clone, Default)]
struct Done {
    warnings: Vec<Issue>,
    used_macros: BTreeSet<String>,
    used_lists: BTreeSet<String>,
    dropped: bool,
}

impl Compiler {
    /// Compiles everything read so far; the names of rules that were dropped as unknown are returned.
    pub fn compile(
        &mut self,
        items: &mut Items,
        catalogue: &Catalogue,
        additions: &dyn Fn(&Rule) -> Additions,
        warnings: &mut Vec<Issue>,
    ) -> Result<HashSet<String>, Stop> {
        let mut used_lists = BTreeSet::new();
        let mut used_macros = BTreeSet::new();
        let lists = lists(items, &mut used_lists);
        let macros = macros(items, &lists, &mut used_lists, &mut used_macros)?;
        let mut dropped = HashSet::new();
        for rule in &mut items.rules {
            if rule.unknown_source {
                continue;
            }
            if rule.dirty || !self.done.contains_key(&rule.name) {
                let done = compile_rule(rule, &lists, &macros, catalogue, &additions(rule))?;
                self.done.insert(rule.name.clone(), done);
                rule.dirty = false;
            }
            let Some(done) = self.done.get(&rule.name) else { continue };
            warnings.extend(done.warnings.iter().cloned());
            used_lists.extend(done.used_lists.iter().cloned());
            used_macros.extend(done.used_macros.iter().cloned());
            if done.dropped {
                dropped.insert(rule.name.clone());
            }
        }
        for one in items.macros.iter().filter(|one| !used_macros.contains(&one.name)) {
            let message = "Macro not referred to by any other rule/macro";
            warnings.push(Issue::new(Code::UnusedMacro, message, &one.context));
        }
        for list in items.lists.iter().filter(|list| !used_lists.contains(&list.name)) {
            let message = "List not referred to by any other rule/macro";
            warnings.push(Issue::new(Code::UnusedList, message, &list.context));
        }
        Ok(dropped)
    }
}

struct FlatList {
    name: String,
    items: Vec<String>,
}

/// Lists of lists are resolved one level deep.
fn lists(items: &Items, used: &mut BTreeSet<String>) -> Vec<FlatList> {
    let mut flat = Vec::new();
    for list in &items.lists {
        let mut values = Vec::new();
        for item in &list.items {
            match items.lists.iter().find(|other| other.name == *item && other.index < list.visibility) {
                Some(other) => {
                    used.insert(other.name.clone());
                    values.extend(other.items.iter().cloned());
                }
                None => values.push(item.clone()),
            }
        }
        flat.push(FlatList { name: list.name.clone(), items: values });
    }
    flat
}

fn substitute(text: &str, lists: &[FlatList], used: &mut BTreeSet<String>) -> String {
    let mut text = text.to_owned();
    for list in lists {
        if !list.name.is_empty() && text.contains(&list.name) {
            text = substitute_one(&text, list, used);
        }
    }
    text
}

fn substitute_one(text: &str, list: &FlatList, used: &mut BTreeSet<String>) -> String {
    const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];
    let delimiter = |c: char| BLANKS.contains(&c) || ['(', ')', ',', '='].contains(&c);
    let values =
        list.items
            .iter()
            .filter(|item| !item.is_empty())
            .map(|item| {
                if item.contains(' ') && !item.starts_with(['"', '\'']) { format!("\"{item}\"") } else { item.clone() }
            })
            .collect::<Vec<_>>()
            .join(", ");
    let mut out = String::new();
    let mut rest = text;
    let mut searched = 0;
    while let Some(found) = rest.get(searched..).and_then(|tail| tail.find(&list.name)).map(|at| at + searched) {
        let (before, after) = rest.split_at(found);
        let after = after.strip_prefix(list.name.as_str()).unwrap_or_default();
        let left = before.chars().next_back().or(out.chars().next_back());
        if !(left.is_none_or(delimiter) && after.chars().next().is_none_or(delimiter)) {
            searched = found + list.name.chars().next().map_or(1, char::len_utf8);
            continue;
        }
        used.insert(list.name.clone());
        let mut before = before.trim_end_matches(BLANKS);
        let mut after = after.trim_start_matches(BLANKS);
        if values.is_empty() {
            // A value that vanishes takes one comma with it.
            if let Some(shorter) = before.strip_suffix(',') {
                before = shorter;
            } else if let Some(shorter) = after.strip_prefix(',') {
                after = shorter;
            }
        }
        out.push_str(before);
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&values);
        out.push(' ');
        rest = after;
        searched = 0;
    }
    out + rest
}

struct ReadyMacro {
    name: String,
    index: usize,
    expr: Expr,
}

fn parse(text: &str, context: &Context) -> Result<Expr, Issue> {
    condition::parse(text).map_err(|error| {
        let Position { line, column, offset } = error.position;
        let context = context.expression("condition expression", text, line, column, offset);
        Issue::new(Code::CompileCondition, error.message, &context)
    })
}

fn macros(
    items: &Items,
    lists: &[FlatList],
    used_lists: &mut BTreeSet<String>,
    used_macros: &mut BTreeSet<String>,
) -> Result<Vec<ReadyMacro>, Issue> {
    let mut parsed = Vec::new();
    for one in &items.macros {
        let text = substitute(&one.condition, lists, used_lists);
        let expr = parse(&text, &one.condition_context)?;
        parsed.push(ReadyMacro { name: one.name.clone(), index: one.index, expr });
    }
    let mut ready = Vec::new();
    for (one, raw) in items.macros.iter().zip(&parsed) {
        let visible: HashMap<&str, &Expr> = parsed
            .iter()
            .filter(|other| other.index < one.visibility)
            .map(|other| (other.name.as_str(), &other.expr))
            .collect();
        let mut path = Vec::new();
        let expr = resolve(&raw.expr, &visible, &mut path, used_macros)
            .map_err(|message| Issue::new(Code::Validate, message, &one.condition_context))?;
        ready.push(ReadyMacro { name: one.name.clone(), index: one.index, expr });
    }
    Ok(ready)
}

/// Puts macros in.
fn resolve(
    expr: &Expr,
    macros: &HashMap<&str, &Expr>,
    path: &mut Vec<String>,
    used: &mut BTreeSet<String>,
) -> Result<Expr, String> {
    let mut all =
        |parts: &[Expr]| parts.iter().map(|part| resolve(part, macros, path, used)).collect::<Result<Vec<_>, _>>();
    Ok(match expr {
        Expr::And(parts) => Expr::And(all(parts)?),
        Expr::Or(parts) => Expr::Or(all(parts)?),
        Expr::Not(inner) => Expr::Not(Box::new(resolve(inner, macros, path, used)?)),
        Expr::Check(check) => Expr::Check(check.clone()),
        Expr::Macro(name) => {
            if path.contains(name) {
                return Err(format!("reference loop in macro '{name}'"));
            }
            let Some(inner) = macros.get(name.as_str()) else {
                return Err(format!("Undefined macro '{name}' used in filter."));
            };
            used.insert(name.clone());
            path.push(name.clone());
            let expr = resolve(inner, macros, path, used)?;
            path.pop();
            expr
        }
    })
}

fn compile_rule(
    rule: &Rule,
    lists: &[FlatList],
    macros: &[ReadyMacro],
    catalogue: &Catalogue,
    additions: &Additions,
) -> Result<Done, Stop> {
    let mut done = Done::default();
    let text = with_exceptions(rule)?;
    let text = substitute(&text, lists, &mut done.used_lists);
    let expr = parse(&text, &rule.condition_context)?;
    let known: HashMap<&str, &Expr> = macros.iter().map(|one| (one.name.as_str(), &one.expr)).collect();
    let expr = resolve(&expr, &known, &mut Vec::new(), &mut done.used_macros)
        .map_err(|message| Issue::new(Code::Validate, message, &rule.condition_context))?;
    match check::expr(&expr, &rule.source, catalogue) {
        Ok(()) => {}
        Err(Problem::Uncaught(message)) => return Err(Stop::Uncaught(message)),
        Err(Problem::Error(message, at)) => {
            let context =
                rule.condition_context.expression("condition expression", &text, at.line, at.column, at.offset);
            if rule.skip_unknown && skippable(&message) {
                done.warnings.push(Issue::new(Code::UnknownFilter, message, &context));
                done.dropped = true;
                return Ok(done);
            }
            return Err(Issue::new(Code::CompileCondition, message, &context).into());
        }
    }
    if let Err(message) = compile_output(rule, additions, catalogue, &mut done) {
        let context = rule.output_context.expression("rule output expression", &rule.output, 0, 0, 0);
        if rule.skip_unknown && skippable(&message) {
            done.warnings.push(Issue::new(Code::UnknownFilter, message, &context));
            done.dropped = true;
            return Ok(done);
        }
        return Err(Issue::new(Code::CompileOutput, message, &context).into());
    }
    if mentions(&expr, "evt.dir") {
        let message = "due to the drop of enter events, 'evt.dir = <' always evaluates to true, and 'evt.dir = >' always evaluates to false. The rule expression can be simplified by removing the condition on 'evt.dir'";
        done.warnings.push(Issue::new(Code::DeprecatedItem, message, &rule.condition_context));
    }
    if rule.source == "syscall" && rule.warn_evttypes && too_many_types(&expr) {
        let message = "Rule matches too many evt.type values. This has a significant performance penalty.";
        done.warnings.push(Issue::new(Code::NoEvttype, message, &rule.context));
    }
    Ok(done)
}

fn compile_output(rule: &Rule, additions: &Additions, catalogue: &Catalogue, done: &mut Done) -> Result<(), String> {
    let mut text = rule.output.clone();
    if text.contains("%container.info") {
        let message = "%container.info is deprecated and no more useful, and will be dropped by Falco 1.0.0. The container plugin will automatically add required fields to the output message.";
        done.warnings.push(Issue::new(Code::DeprecatedItem, message, &rule.output_context));
        text = text.replace("%container.info", "");
        text = text.trim().into();
    }
    for name in ["evt.dir", "evt.latency"] {
        if text.contains(name) {
            let message = format!("usage of deprecated field '{name}' has been detected in the rule output");
            done.warnings.push(Issue::new(Code::DeprecatedItem, message, &rule.output_context));
        }
    }
    text += &additions.text;
    output::compile(&text, &rule.source, catalogue)?;
    additions.formats.iter().try_for_each(|format| output::compile(format, &rule.source, catalogue).map(|_| ()))
}

fn skippable(message: &str) -> bool {
    ["nonexistent field", "invalid formatting token", "unknown event type", "unknown filter:"]
        .iter()
        .any(|part| message.contains(part))
}

/// The condition's text with the exceptions behind it.
fn with_exceptions(rule: &Rule) -> Result<String, Issue> {
    let quoted = |text: &str| {
        if text.contains(' ') && !text.starts_with(['"', '\'']) { format!("\"{text}\"") } else { text.to_owned() }
    };
    let listed = |entry: &Entry| match entry {
        Entry::Many(entries) => {
            format!("({})", entries.iter().map(|entry| quoted(entry.text())).collect::<Vec<_>>().join(", "))
        }
        other => quoted(other.text()),
    };
    let mut text = rule.condition.clone();
    if rule.exceptions.iter().any(|exception| !exception.values.is_empty()) {
        text = format!("({text})");
    }
    for exception in rule.exceptions.iter().filter(|exception| !exception.values.is_empty()) {
        let refuse = |message: &str| Err(Issue::new(Code::Validate, message, &exception.context));
        let Entry::Many(fields) = &exception.fields else {
            let mut values = Vec::new();
            for value in &exception.values {
                match value {
                    Entry::One(text) => values.push(quoted(text)),
                    _ => return refuse("Expected values array to contain a list of strings"),
                }
            }
            let (field, comp) = (exception.fields.text(), exception.comps.text());
            let _ = write!(text, " and not ({field} {comp} ({}))", values.join(", "));
            continue;
        };
        let comps = exception.comps.members();
        let mut tuples = Vec::new();
        for value in &exception.values {
            let members = match value {
                Entry::Many(members) if members.len() == fields.len() => members,
                _ => return refuse("Fields and values lists must have equal length"),
            };
            let parts: Vec<String> = fields
                .iter()
                .zip(&comps)
                .zip(members)
                .map(|((field, comp), member)| {
                    let listing = ["in", "pmatch", "intersects"].contains(&comp.text()) || comp.text().contains(' ');
                    let value = listed(member);
                    let value = if listing && !value.starts_with('(') { format!("({value})") } else { value };
                    format!("{} {} {value}", field.text(), comp.text())
                })
                .collect();
            tuples.push(format!("({})", parts.join(" and ")));
        }
        let _ = write!(text, " and not ({})", tuples.join(" or "));
    }
    Ok(text)
}

fn mentions(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().any(|part| mentions(part, name)),
        Expr::Not(inner) => mentions(inner, name),
        Expr::Macro(..) => false,
        Expr::Check(check) => matches!(&check.left, Operand::Field { name: field, .. } if field == name),
    }
}

/// The event types that a condition can match.
enum Types {
    Only(BTreeSet<String>),
    Except(BTreeSet<String>),
}

impl Types {
    fn complement(self) -> Self {
        match self {
            Self::Only(set) => Self::Except(set),
            Self::Except(set) => Self::Only(set),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a.intersection(&b).cloned().collect()),
            (Self::Only(a), Self::Except(b)) | (Self::Except(b), Self::Only(a)) => {
                Self::Only(a.difference(&b).cloned().collect())
            }
            (Self::Except(a), Self::Except(b)) => Self::Except(a.union(&b).cloned().collect()),
        }
    }

    fn or(self, other: Self) -> Self {
        self.complement().and(other.complement()).complement()
    }
}

fn types(expr: &Expr, negated: bool) -> Types {
    let everything = || Types::Except(BTreeSet::new());
    match expr {
        Expr::And(parts) | Expr::Or(parts) => {
            let conjunction = matches!(expr, Expr::And(_)) != negated;
            parts
                .iter()
                .map(|part| types(part, negated))
                .reduce(|a, b| if conjunction { a.and(b) } else { a.or(b) })
                .unwrap_or_else(everything)
        }
        Expr::Not(inner) => types(inner, !negated),
        Expr::Macro(..) => everything(),
        Expr::Check(check) => {
            let typed =
                matches!(&check.left, Operand::Field { name, .. } if name == "evt.type" || name == "syscall.type");
            let values: BTreeSet<String> = match &check.right {
                Value::Text(text) => BTreeSet::from([text.clone()]),
                Value::List(items) => items.iter().cloned().collect(),
                _ => return everything(),
            };
            if !typed || check.modifier.is_some() {
                return everything();
            }
            match (check.operator.as_str(), negated) {
                ("=" | "==" | "in", false) | ("!=", true) => Types::Only(values),
                ("=" | "==" | "in", true) | ("!=", false) => Types::Except(values),
                _ => everything(),
            }
        }
    }
}

fn too_many_types(expr: &Expr) -> bool {
    let count = match types(expr, false) {
        Types::Only(set) => set.len(),
        Types::Except(set) => Catalogue::event_type_count().saturating_sub(set.len()),
    };
    count == 0 || count > 100
}
