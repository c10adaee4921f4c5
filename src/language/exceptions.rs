//! Exceptions: cases in which a rule does not match although its condition holds, as parts of the condition's tree.
//!
//! Falco puts them together as text. Here values are values, whatever they hold; but a value that is wholly in quotes, a
//! list in parentheses, or another field is read as Falco's text would be.

use std::collections::HashSet;

use super::catalog::Catalog;
use super::diagnostic::{Code, Diagnostic, Part, Span};
use super::parse::Parser;
use super::tree::{Check, Expr, Modifier, Op, Operand, Rhs, Value, ValueKind, ValueList};

/// An exception as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExceptionText {
    /// Its name.
    pub name: String,
    /// The field, or the fields.
    pub fields: Words,
    /// The operator, or one for each field.
    pub comps: Option<Words>,
    /// Values for one field; tuples of values for several.
    pub values: Vec<ExceptionValue>,
}

/// One word, or several.
#[derive(Clone, Debug, PartialEq)]
pub enum Words {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Many(vec![])
    }
}

/// A value of an exception, or several.
#[derive(Clone, Debug, PartialEq)]
pub enum ExceptionValue {
    /// One.
    One(String),
    /// Several.
    Many(Vec<ExceptionValue>),
}

impl ExceptionValue {
    /// Whether a text in it ends early for Falco.
    fn holds_nul(&self) -> bool {
        match self {
            Self::One(text) => text.contains('\0'),
            Self::Many(values) => values.iter().any(Self::holds_nul),
        }
    }
}

/// The conditions that keep a rule from matching, one for each exception that has values, with the index of the
/// exception.
pub(crate) fn compile<'e>(
    exceptions: &'e [ExceptionText],
    catalog: &Catalog,
    report: &mut Vec<Diagnostic>,
) -> Vec<(u32, Expr<'e>)> {
    let mut compiled = vec![];
    let mut names: HashSet<&str> = HashSet::with_capacity(exceptions.len());
    for (index, exception) in exceptions.iter().enumerate() {
        let index = index as u32;
        let mut found = vec![];
        let expr = one(exception, catalog, &mut found);
        report.extend(found.into_iter().map(|diagnostic| diagnostic.within(Part::Exception(index))));
        compiled.extend(expr.map(|expr| (index, expr.negated())));
        if !names.insert(&exception.name) {
            let message = format!("there are several exceptions `{}`", exception.name);
            let warning = Diagnostic::warning(Code::ExceptionNameNotUnique, Span::default(), message);
            report.push(warning.within(Part::Exception(index)));
        }
    }
    compiled
}

fn one<'e>(exception: &'e ExceptionText, catalog: &Catalog, report: &mut Vec<Diagnostic>) -> Option<Expr<'e>> {
    let name = &exception.name;
    let wrong = |message: String| Diagnostic::invalid(Code::Exception, Span::default(), message);
    if name.is_empty() {
        report.push(wrong("an exception needs a name".into()));
    }
    if exception.values.iter().any(ExceptionValue::holds_nul) {
        let message = format!("a value of exception `{name}` holds a NUL character");
        report.push(Diagnostic::unsafe_(Code::ControlCharacter, Span::default(), message));
        return None;
    }
    let (fields, single) = match &exception.fields {
        Words::One(field) => (std::slice::from_ref(field), true),
        Words::Many(fields) => (fields.as_slice(), false),
    };
    let before = report.len();
    let comps: Vec<&str> = match (&exception.comps, single) {
        (None, true) => vec!["in"],
        (None, false) => vec!["="; fields.len()],
        (Some(Words::One(comp)), true) => vec![comp],
        (Some(Words::Many(comps)), false) => comps.iter().map(String::as_str).collect(),
        (Some(Words::One(_)), false) => {
            report.push(wrong(format!("exception `{name}` has a list of fields, and so needs a list of comps")));
            return None;
        }
        (Some(Words::Many(_)), true) => {
            report.push(wrong(format!("exception `{name}` has one field, and so needs one word as comps")));
            return None;
        }
    };
    if fields.is_empty() {
        report.push(wrong(format!("exception `{name}` has no fields")));
    }
    if comps.len() != fields.len() {
        report.push(wrong(format!("exception `{name}` has {} fields, but comps for {}", fields.len(), comps.len())));
        return None;
    }
    let mut tests: Vec<(Operand<'_>, Op, Option<Modifier>)> = vec![];
    for (field, comp) in fields.iter().zip(comps) {
        let operand = Parser::whole_operand(field);
        if operand.is_none() {
            report.push(
                wrong(format!("`{field}` of exception `{name}` is not a field"))
                    .suggest(catalog.nearest_field(field, super::catalog::SYSCALL)),
            );
        }
        let op = Parser::whole_operator(comp).filter(|(op, modifier)| {
            let of_lists = op.takes_list() || modifier.is_some();
            *op != Op::Exists && (!single || of_lists)
        });
        if op.is_none() {
            let help = if single {
                "for one field: `in`, `pmatch`, `intersects`, or an operator with `oneof`, `anyof` or `allof`"
            } else {
                "operators are `=`, `in`, `startswith` and others, but not `exists`"
            };
            report.push(wrong(format!("`{comp}` can't be a comp of exception `{name}`")).help(help));
        }
        if let (Some(operand), Some((op, modifier))) = (operand, op) {
            tests.push((operand, op, modifier));
        }
    }
    if single {
        if exception.values.iter().any(|value| matches!(value, ExceptionValue::Many(_))) {
            let message = format!("exception `{name}` has one field, and so its values are no lists");
            report.push(wrong(message).help("`values: [a, b]`, or `fields: [field]` with `values: [[a], [b]]`"));
        }
    } else {
        for value in &exception.values {
            let count = match value {
                ExceptionValue::One(_) => 0,
                ExceptionValue::Many(values) => values.len(),
            };
            if count != fields.len() {
                let is = if count == 0 { "no list".to_owned() } else { format!("of {count}") };
                let message = format!("exception `{name}` has {} fields, but one of its values is {is}", fields.len());
                report.push(wrong(message).help("each of the values is a list with one value for each field"));
                break;
            }
        }
    }
    if report.len() > before || exception.values.is_empty() {
        return None;
    }
    if single {
        let (operand, op, modifier) = tests.into_iter().next()?;
        let rhs = list(&exception.values, name, report)?;
        return Some(check(operand, op, modifier, Rhs::List(rhs)));
    }
    let mut cases = vec![];
    for tuple in &exception.values {
        let ExceptionValue::Many(values) = tuple else { continue };
        let mut parts = vec![];
        for ((operand, op, modifier), value) in tests.iter().zip(values) {
            let rhs = if op.takes_list() || modifier.is_some() {
                list(std::slice::from_ref(value), name, report).map(Rhs::List)
            } else {
                single_value(value, *op, name, report)
            };
            parts.push(check(operand.clone(), *op, *modifier, rhs?));
        }
        cases.extend(Expr::all(parts));
    }
    Expr::any(cases)
}

fn check<'e>(mut operand: Operand<'e>, op: Op, modifier: Option<Modifier>, mut rhs: Rhs<'e>) -> Expr<'e> {
    operand.unplace();
    if let Rhs::Operand(operand) = &mut rhs {
        operand.unplace();
    }
    let span = Span::default();
    Expr::Check(Check { operand, op, op_span: span, modifier, rhs, span })
}

/// Values as a list. A text in parentheses is one itself.
fn list<'e>(values: &'e [ExceptionValue], name: &str, report: &mut Vec<Diagnostic>) -> Option<ValueList<'e>> {
    let mut list = ValueList { values: vec![], parentheses: true, span: Span::default() };
    for value in values {
        match value {
            ExceptionValue::Many(values) => list.values.extend(self::list(values, name, report)?.values),
            ExceptionValue::One(text) if text.starts_with('(') => {
                if let Some(Rhs::List(inner)) = Parser::whole_values(text) {
                    list.values.extend(inner.values);
                } else {
                    let message = format!("`{}` of exception `{name}` is not a list", text.escape_debug());
                    report.push(
                        Diagnostic::unsafe_(Code::Exception, Span::default(), message)
                            .help("write the list in YAML, or the value in quotes of its own: `'\"(a\"'`"),
                    );
                    return None;
                }
            }
            ExceptionValue::One(text) => list.values.push(value_of(text)),
        }
    }
    list.values.iter_mut().for_each(|value| value.span = Span::default());
    Some(list)
}

fn single_value<'e>(value: &'e ExceptionValue, op: Op, name: &str, report: &mut Vec<Diagnostic>) -> Option<Rhs<'e>> {
    let wrong = |message: String| Diagnostic::invalid(Code::Exception, Span::default(), message);
    let ExceptionValue::One(text) = value else {
        let message = format!("`{}` of exception `{name}` compares with one value, not with a list", op.word());
        report.push(wrong(message).help("use `in` among its comps"));
        return None;
    };
    if let Some(operand) = Parser::whole_right_field(text) {
        return Some(Rhs::Operand(operand));
    }
    if op.is_numeric() && !Parser::is_number(text) {
        let message =
            format!("`{}` of exception `{name}` is not a number, as `{}` needs", text.escape_debug(), op.word());
        report.push(wrong(message));
        return None;
    }
    if op.is_numeric() {
        let value = Value { text: text.as_str().into(), kind: ValueKind::Bare, span: Span::default() };
        return Some(Rhs::Value(value));
    }
    Some(Rhs::Value(value_of(text)))
}

/// A value that is wholly in quotes is what stands in them.
fn value_of(text: &str) -> Value<'_> {
    if text.starts_with(['"', '\''])
        && let Some(Rhs::Value(value)) = Parser::whole_values(text)
    {
        return Value { span: Span::default(), ..value };
    }
    Value::of(text)
}
