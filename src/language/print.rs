//! Trees as text: so that they are read back as the same tree, so that Falco reads them so too, and as Falco itself shows
//! a condition that it compiled.

use std::collections::HashSet;

use super::catalog::Catalog;
use super::definitions::{Definitions, List};
use super::diagnostic::{Code, Diagnostic, Span};
use super::limits;
use super::parse::parse;
use super::scan::{is_bare, is_bare_argument};
use super::tree::{Argument, Check, Expr, Field, Operand, Rhs, Transform, Value, ValueKind, ValueList, Word};

impl Expr<'_> {
    /// The condition as text. Reading it gives the same tree.
    #[must_use]
    pub fn text(&self) -> String {
        let mut printer = Printer::new(Style::Exact);
        printer.expr(self);
        printer.out
    }

    /// The condition as Falco describes what it has compiled. It is no condition: quotes are left out where the reader
    /// can do without them.
    #[must_use]
    pub fn compiled(&self) -> String {
        let mut printer = Printer::new(Style::Compiled);
        printer.expr(self);
        printer.out
    }

    /// The condition as text, with lists and macros of the namespace in the place of their names, that means this to a
    /// Falco with the base lists of the catalogue, which it pastes over words of conditions. It is the catalogue that the
    /// lists and macros were compiled with. An error names each word that can't be kept from Falco, or says that the
    /// text would be too long.
    pub fn emit(&self, definitions: &Definitions<'_>, catalog: &Catalog) -> Result<String, Vec<Diagnostic>> {
        let mut printer = Printer::new(Style::Guarded(definitions, catalog));
        printer.part(self, ExprKind::Leaf);
        if printer.is_full() {
            let limit = limits::CONDITION_BYTES;
            let message =
                format!("it comes to more than {limit} bytes once macros and lists are inserted, which is the limit");
            return Err(vec![Diagnostic::unsafe_(Code::Expansion, self.span(), message)]);
        }
        let hits = catalog.pasted_over(&printer.out);
        let unmeant: Vec<Diagnostic> = hits
            .iter()
            .filter(|hit| printer.base_lists.binary_search(hit).is_err())
            .map(|hit| {
                let word = hit.of(&printer.out);
                let message = format!("Falco would put its own list `{word}` in the place of the word `{word}`");
                Diagnostic::unsafe_(Code::PastedOver, self.span(), message)
                    .help("use another word; quotes don't keep a list from being put in")
            })
            .collect();
        if unmeant.is_empty() { Ok(printer.out) } else { Err(unmeant) }
    }

    /// Levels of parentheses around parts of the condition, as [`Expr::text`] writes it.
    #[must_use]
    pub fn nesting(&self) -> usize {
        let kind = self.kind();
        let within = |part: &Self| part.nesting() + usize::from(kind.encloses(part.kind()));
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().map(within).max().unwrap_or(0),
            Self::Not(inner) => within(inner),
            Self::Check(_) | Self::Macro(_) => 0,
        }
    }

    pub(crate) const fn kind(&self) -> ExprKind {
        match self {
            Self::And(_) => ExprKind::And,
            Self::Or(_) => ExprKind::Or,
            Self::Not(_) => ExprKind::Not,
            Self::Check(_) | Self::Macro(_) => ExprKind::Leaf,
        }
    }
}

/// What a tree is at its root, which decides about parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExprKind {
    And,
    Or,
    Not,
    Leaf,
}

impl ExprKind {
    /// Whether a part of such a kind needs parentheses to be read back as a part of this.
    pub(crate) const fn encloses(self, part: Self) -> bool {
        match self {
            Self::And => matches!(part, Self::And | Self::Or),
            Self::Or => matches!(part, Self::Or),
            // Falco reads `not not x` as `x`, which is the same but not the same tree.
            Self::Not => !matches!(part, Self::Leaf),
            Self::Leaf => false,
        }
    }
}

/// A condition or the values of a list as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) text: String,
    /// Where in it the names of base lists stand for the lists, in order.
    pub(crate) base_lists: Vec<Span>,
    /// Levels of parentheses in it, at most.
    pub(crate) nesting: usize,
}

impl Written {
    /// Appends it to a longer text.
    pub(crate) fn append_to(&self, text: &mut String, base_lists: &mut Vec<Span>) {
        let start = text.len() as u32;
        text.push_str(&self.text);
        base_lists.extend(self.base_lists.iter().map(|at| Span { start: at.start + start, end: at.end + start }));
    }
}

/// The values of a list with commas between them, for a Falco with the base lists of a catalogue.
pub(crate) fn written_values(values: &[Value<'_>], catalog: &Catalog) -> Written {
    let nothing = Definitions::default();
    let mut printer = Printer::new(Style::Guarded(&nothing, catalog));
    printer.values(values);
    printer.out.shrink_to_fit();
    Written { text: printer.out, base_lists: printer.base_lists, nesting: 0 }
}

/// Whether a condition, as it is written, means to a Falco with the base lists of the catalogue what it says: no word of
/// it is the name of a list without meaning the list.
#[must_use]
pub fn keeps_text(condition: &str, catalog: &Catalog) -> bool {
    let hits = catalog.pasted_over(condition);
    hits.is_empty() || parse(condition).tree.is_some_and(|tree| means(&tree, &hits))
}

/// Whether each of the places is one where the name of a list stands for the list.
pub(crate) fn means(tree: &Expr<'_>, hits: &[Span]) -> bool {
    unmeant(tree, hits).is_empty()
}

/// Those of the places where the name of a list does not stand for the list.
pub(crate) fn unmeant(tree: &Expr<'_>, hits: &[Span]) -> Vec<Span> {
    if hits.is_empty() {
        return vec![];
    }
    let places: HashSet<Span> = hits.iter().copied().collect();
    let mut meant: HashSet<Span> = HashSet::new();
    tree.each_check(&mut |check| {
        if let Rhs::List(ValueList { values, parentheses: true, .. }) = &check.rhs {
            let bare = values.iter().filter(|value| value.kind != ValueKind::Quoted);
            meant.extend(bare.map(|value| value.span).filter(|span| places.contains(span)));
        }
    });
    hits.iter().filter(|hit| !meant.contains(hit)).copied().collect()
}

#[derive(Clone, Copy)]
enum Style<'a> {
    Exact,
    Guarded(&'a Definitions<'a>, &'a Catalog),
    Compiled,
}

struct Printer<'a> {
    out: String,
    style: Style<'a>,
    /// Where the names of base lists stand for the lists, in order.
    base_lists: Vec<Span>,
}

impl<'a> Printer<'a> {
    fn new(style: Style<'a>) -> Self {
        Self { out: String::with_capacity(512), style, base_lists: vec![] }
    }

    const fn is_compiled(&self) -> bool {
        matches!(self.style, Style::Compiled)
    }

    /// Whether more is written than a condition may have, so that the rest of it is nobody's any more.
    const fn is_full(&self) -> bool {
        matches!(self.style, Style::Guarded(..)) && self.out.len() > limits::CONDITION_BYTES
    }

    fn expr(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::And(parts) => self.parts(parts, " and ", ExprKind::And),
            Expr::Or(parts) => self.parts(parts, " or ", ExprKind::Or),
            Expr::Not(inner) => {
                self.out.push_str("not ");
                self.part(inner, ExprKind::Not);
            }
            Expr::Macro(word) => self.out.push_str(&word.text),
            Expr::Check(check) => self.check(check),
        }
    }

    fn parts(&mut self, parts: &[Expr<'_>], between: &str, of: ExprKind) {
        let all = self.is_compiled();
        if all {
            self.out.push('(');
        }
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.out.push_str(between);
            }
            self.part(part, of);
        }
        if all {
            self.out.push(')');
        }
    }

    fn part(&mut self, part: &Expr<'_>, of: ExprKind) {
        if self.is_full() {
            return;
        }
        let part = match self.style {
            Style::Guarded(definitions, _) => part.meant(|name| definitions.tree(name)),
            Style::Exact | Style::Compiled => part,
        };
        let parentheses = !self.is_compiled() && of.encloses(part.kind());
        if parentheses {
            self.out.push('(');
        }
        self.expr(part);
        if parentheses {
            self.out.push(')');
        }
    }

    fn check(&mut self, check: &Check<'_>) {
        self.operand(&check.operand);
        self.out.push(' ');
        self.out.push_str(check.op.word());
        if let Some(modifier) = check.modifier {
            self.out.push(' ');
            self.out.push_str(modifier.word());
        }
        if check.rhs != Rhs::Nothing {
            self.out.push(' ');
        }
        match &check.rhs {
            Rhs::Nothing => {}
            // A number can't stand in quotes there, whatever it is the name of.
            Rhs::Value(value) if check.op.is_numeric() => self.out.push_str(&value.text),
            Rhs::Value(value) => self.value(value),
            Rhs::List(list) => self.list(list),
            Rhs::Operand(operand) => self.operand(operand),
        }
    }

    fn list(&mut self, list: &ValueList<'_>) {
        let needs_them = |value: &Value<'_>| self.names_a_list(value) || self.is_quoted(value);
        let parentheses = list.parentheses || list.values.iter().any(needs_them);
        if parentheses {
            self.out.push('(');
        }
        self.values(&list.values);
        if parentheses {
            self.out.push(')');
        }
    }

    /// Whether a value of a list is the name of another, of the namespace or of Falco's own.
    fn names_a_list(&self, value: &Value<'_>) -> bool {
        match self.style {
            Style::Guarded(definitions, catalog) if value.kind == ValueKind::Bare => {
                definitions.has_list(&value.text) || catalog.has_list(&value.text)
            }
            _ => false,
        }
    }

    fn values(&mut self, values: &[Value<'_>]) {
        let mut between = "";
        for value in values {
            let named = match self.style {
                Style::Guarded(definitions, catalog) if value.kind == ValueKind::Bare => Some((definitions, catalog)),
                _ => None,
            };
            let own = named.and_then(|(definitions, _)| definitions.list(&value.text));
            if own.is_some_and(List::is_empty) {
                continue;
            }
            self.out.push_str(between);
            between = ", ";
            match (own, named) {
                (Some(List { written: Some(written), .. }), _) => {
                    written.append_to(&mut self.out, &mut self.base_lists);
                }
                (Some(own), _) => self.values(own.values.as_deref().unwrap_or_default()),
                (None, Some((_, catalog))) if catalog.has_list(&value.text) => self.base_list(&value.text),
                (None, Some(_)) if is_bare(&value.text) => self.out.push_str(&value.text),
                (None, _) => self.value(value),
            }
        }
    }

    fn base_list(&mut self, name: &str) {
        let start = self.out.len();
        self.out.push_str(name);
        self.base_lists.push(Span::new(start, self.out.len()));
    }

    /// What was read without quotes can be written without, unless a list would be put in its place; what was made here
    /// may claim to be bare and not be.
    fn is_quoted(&self, value: &Value<'_>) -> bool {
        match (self.style, value.kind) {
            (Style::Compiled, _) => false,
            (_, ValueKind::Quoted) => true,
            (Style::Guarded(_, catalog), ValueKind::Bare) if catalog.has_list(&value.text) => true,
            (_, ValueKind::Bare | ValueKind::BaseList) => !is_bare(&value.text),
        }
    }

    fn value(&mut self, value: &Value<'_>) {
        if self.is_compiled() {
            self.compiled_text(&value.text);
        } else if self.is_quoted(value) {
            quote(&value.text, &mut self.out);
        } else if value.kind == ValueKind::BaseList {
            self.base_list(&value.text);
        } else {
            self.out.push_str(&value.text);
        }
    }

    fn compiled_text(&mut self, text: &str) {
        if text.bytes().any(|byte| matches!(byte, b' ' | 0x08 | 0x0c | b'\n' | b'\r' | b'\t' | b'"' | b'\'' | b'\\')) {
            self.out.push('"');
            escape(text, &mut self.out);
            self.out.push('"');
        } else {
            self.out.push_str(text);
        }
    }

    fn operand(&mut self, operand: &Operand<'_>) {
        match operand {
            Operand::Field(field) => self.field(field),
            Operand::Transform(transform) => self.transform(transform),
        }
    }

    fn field(&mut self, field: &Field<'_>) {
        self.out.push_str(&field.name);
        self.index(field.argument.as_deref());
    }

    fn index(&mut self, word: Option<&Word<'_>>) {
        let Some(word) = word else { return };
        self.out.push('[');
        if self.is_compiled() {
            self.compiled_text(&word.text);
        } else if is_bare_argument(&word.text) {
            self.out.push_str(&word.text);
        } else {
            quote(&word.text, &mut self.out);
        }
        self.out.push(']');
    }

    fn transform(&mut self, transform: &Transform<'_>) {
        self.out.push_str(transform.transformer.word());
        self.arguments(&transform.arguments);
        self.index(transform.index.as_ref());
    }

    fn arguments(&mut self, items: &[Argument<'_>]) {
        self.out.push('(');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push_str(if self.is_compiled() { "," } else { ", " });
            }
            match item {
                Argument::Operand(operand) => self.operand(operand),
                Argument::Number(word) => self.out.push_str(&word.text),
                Argument::Text(word) if self.is_compiled() => self.out.push_str(&word.text),
                Argument::Text(word) => quote(&word.text, &mut self.out),
                Argument::List(items, _) => self.arguments(items),
            }
        }
        self.out.push(')');
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// Writes a text in quotes so that it is read back as it is.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    // A quote behind a backslash never ends the text, but a backslash may also be written with a blank behind it.
    let (rest, backslash) = text.strip_suffix('\\').map_or((text, false), |rest| (rest, true));
    escape(rest, out);
    if backslash {
        out.push_str("\\ ");
    }
    out.push('"');
}

/// A text in quotes that is read back as it is.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text, &mut out);
    out
}

/// Whether everybody reads a value without quotes as the same: people, Falco and YAML.
pub(crate) fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-' | b':' | b'+');
    !text.is_empty()
        && text.bytes().all(plain)
        && !matches!(text, "and" | "or" | "not" | "oneof" | "anyof" | "allof" | "val")
}
