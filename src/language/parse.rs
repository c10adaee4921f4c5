//! The parser of conditions.
//!
//! It keeps the levels of parentheses on a stack of its own, so that no nesting can overflow the thread's.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::complaints::bad_escape;
use super::diagnostic::{Code, Diagnostic, Span};
use super::limits;
use super::scan::{QuoteError, Scanner};
use super::tree::{
    Argument, Check, Expr, Field, Modifier, Op, Operand, Rhs, Transform, Transformer, Value, ValueKind, ValueList, Word,
};

/// What became of a text.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// The tree, where the text is in the language and not nested beyond all measure.
    pub tree: Option<Expr<'a>>,
    /// Where there is no tree: that of the checks that could be read, for what else is to be said of them. It is nobody's
    /// condition.
    pub readable: Option<Expr<'a>>,
    /// Levels of parentheses in it.
    pub nesting: usize,
    /// What is wrong with it. A tree and a diagnostic together: it is read by Falco, but not taken by us.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a condition.
#[must_use]
pub fn parse(text: &str) -> Parsed<'_> {
    let mut parser = Parser { scan: Scanner::new(text), deepest: 0, unread: vec![] };
    if text.len() > limits::CONDITION_BYTES {
        let (size, limit) = (text.len(), limits::CONDITION_BYTES);
        let message = format!("the condition is {size} bytes long; the limit is {limit}");
        let end = Span::new(limit, text.len());
        let diagnostics = vec![Diagnostic::unsafe_(Code::TooLong, end, message)];
        return Parsed { tree: None, readable: None, nesting: 0, diagnostics };
    }
    let read = parser.condition();
    let mut diagnostics = std::mem::take(&mut parser.unread);
    let (tree, readable) = match read {
        Ok(tree) if diagnostics.is_empty() => (Some(tree), None),
        Ok(tree) => (None, Some(tree)),
        Err(diagnostic) => {
            // Behind what could not be read the rest may only seem to be wrong.
            if diagnostics.is_empty() {
                diagnostics.push(*diagnostic);
            }
            (None, None)
        }
    };
    if parser.deepest > limits::NESTING {
        let message =
            format!("parentheses are nested {} levels deep; the limit is {}", parser.deepest, limits::NESTING);
        let span = Span::new(0, text.len());
        diagnostics.insert(
            0,
            Diagnostic::unsafe_(Code::Nesting, span, message)
                .help("take parts of the condition into macros, or leave out parentheses that change nothing"),
        );
    }
    if let Some(at) = memchr::memchr(0, text.as_bytes()) {
        let span = Span::new(at, at + 1);
        diagnostics.push(Diagnostic::unsafe_(Code::ControlCharacter, span, "the condition holds a NUL character"));
    }
    Parsed { tree, readable, nesting: parser.deepest, diagnostics }
}

pub(crate) type Outcome<T> = Result<T, Box<Diagnostic>>;

/// How a pair of parentheses was opened, which decides where what is in them goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    /// `(`, or `not(`: as a check.
    Check,
    /// `and(`: as a part of the conjunction.
    And,
    /// `or(`: as a part of the disjunction, after which no `and` may follow.
    Or,
}

/// One level of parentheses. Its parts are the last ones that were read and have no operator around them yet: first those
/// of its disjunction, then those of the conjunction that is being read.
struct Level {
    opened: Opened,
    ors: Parts,
    ands: Parts,
    negate: bool,
}

/// The parts of an operator: all from a place on, and the depth of the deepest.
struct Parts {
    start: usize,
    depth: usize,
}

impl Parts {
    const fn from(start: usize) -> Self {
        Self { start, depth: 0 }
    }

    /// Puts them into one, unless there is but one; says how deep what comes of it is.
    fn fold<'a>(&self, read: &mut Vec<Expr<'a>>, make: fn(Vec<Expr<'a>>) -> Expr<'a>) -> usize {
        if read.len() <= self.start + 1 {
            return self.depth;
        }
        let parts = read.drain(self.start..).collect();
        read.push(make(parts));
        self.depth + 1
    }
}

impl Level {
    const fn new(opened: Opened, read: &[Expr<'_>]) -> Self {
        Self { opened, ors: Parts::from(read.len()), ands: Parts::from(read.len()), negate: false }
    }

    /// Takes the last that was read as a part of the conjunction.
    fn push_and(&mut self, read: &mut Vec<Expr<'_>>, mut depth: usize) {
        if std::mem::take(&mut self.negate)
            && let Some(last) = read.pop()
        {
            read.push(last.negated());
            depth += 1;
        }
        self.ands.depth = self.ands.depth.max(depth);
    }

    /// Ends the conjunction, which is a part of the disjunction.
    fn end_and(&mut self, read: &mut Vec<Expr<'_>>) {
        let depth = self.ands.fold(read, Expr::And);
        self.push_or(read, depth);
    }

    /// Takes the last that was read as a part of the disjunction.
    fn push_or(&mut self, read: &[Expr<'_>], depth: usize) {
        self.ors.depth = self.ors.depth.max(depth);
        self.ands = Parts::from(read.len());
    }
}

/// What is read next.
enum State {
    /// `not`, an opening parenthesis, or a check.
    Start,
    /// `and`, or the end of a conjunction.
    AfterAnd,
    /// `or`, or the end of a disjunction.
    AfterOr,
}

pub(crate) struct Parser<'a> {
    pub(super) scan: Scanner<'a>,
    deepest: usize,
    /// What is wrong with the checks that were passed over.
    unread: Vec<Diagnostic>,
}

/// Checks that can't be read of which one is told at once.
const UNREAD: usize = 20;

/// Parts of operators for which there is room at once: as many as most conditions have.
const PARTS: usize = 16;

/// The operators by the byte that they begin with, each in the order of [`Op::ALL`].
static OPERATORS: LazyLock<[Vec<Op>; 128]> = LazyLock::new(|| {
    let begins = |op: &Op, byte: usize| op.word().bytes().next().map(usize::from) == Some(byte);
    std::array::from_fn(|byte| Op::ALL.iter().copied().filter(|op| begins(op, byte)).collect())
});

impl<'a> Parser<'a> {
    fn condition(&mut self) -> Outcome<Expr<'a>> {
        let mut levels: Vec<Level> = vec![];
        let mut read: Vec<Expr<'a>> = Vec::with_capacity(PARTS);
        let mut level = Level::new(Opened::Check, &read);
        let mut state = State::Start;
        loop {
            match state {
                State::Start => {
                    self.deepest = self.deepest.max(levels.len());
                    self.scan.blank();
                    while self.scan.take_and_blank("not") {
                        level.negate = !level.negate;
                    }
                    if self.scan.take("not(") {
                        level.negate = !level.negate;
                        levels.push(std::mem::replace(&mut level, Level::new(Opened::Check, &read)));
                    } else if self.scan.take_sign(b'(') {
                        levels.push(std::mem::replace(&mut level, Level::new(Opened::Check, &read)));
                    } else {
                        let start = self.scan.at();
                        match self.leaf(&mut read) {
                            Ok(()) => {}
                            Err(diagnostic) if self.unread.len() < UNREAD => {
                                self.unread.push(*diagnostic);
                                self.scan.pass_check(start);
                                read.push(Expr::And(vec![]));
                            }
                            Err(diagnostic) => return Err(diagnostic),
                        }
                        level.push_and(&mut read, 0);
                        state = State::AfterAnd;
                    }
                }
                State::AfterAnd => {
                    self.scan.blank();
                    if self.scan.take("and") {
                        if let Some(opened) = self.after_operator("and", Opened::And)? {
                            levels.push(std::mem::replace(&mut level, Level::new(opened, &read)));
                        }
                        state = State::Start;
                    } else {
                        level.end_and(&mut read);
                        state = State::AfterOr;
                    }
                }
                State::AfterOr => {
                    self.scan.blank();
                    if self.scan.take("or") {
                        if let Some(opened) = self.after_operator("or", Opened::Or)? {
                            levels.push(std::mem::replace(&mut level, Level::new(opened, &read)));
                        }
                        state = State::Start;
                        continue;
                    }
                    let depth = level.ors.fold(&mut read, Expr::Or);
                    if depth > limits::TREE_DEPTH {
                        return Err(self.too_deep().into());
                    }
                    let Some(outer) = levels.pop() else {
                        return match read.pop().filter(|_| self.scan.is_at_end()) {
                            Some(whole) => Ok(whole),
                            None => Err(self.unexpected().into()),
                        };
                    };
                    if !self.scan.take_sign(b')') {
                        return Err(self.expected_closing().into());
                    }
                    let opened = std::mem::replace(&mut level, outer).opened;
                    state = match opened {
                        Opened::Or => {
                            level.push_or(&read, depth);
                            State::AfterOr
                        }
                        Opened::Check | Opened::And => {
                            level.push_and(&mut read, depth);
                            State::AfterAnd
                        }
                    };
                }
            }
        }
    }

    /// What follows `and` or `or`: a blank, or a parenthesis that is opened as said.
    fn after_operator(&mut self, word: &str, opened: Opened) -> Outcome<Option<Opened>> {
        if self.scan.blank() {
            return Ok(None);
        }
        if self.scan.take_sign(b'(') {
            return Ok(Some(opened));
        }
        let diagnostic = if self.scan.is_at_end() {
            self.error(format!("a check must follow `{word}`"))
        } else {
            self.error(format!("a blank or `(` must follow `{word}`"))
        };
        Err(Box::new(diagnostic))
    }

    /// Reads a check, or the name of a macro. It is pushed and not returned, since it is large to move.
    fn leaf(&mut self, read: &mut Vec<Expr<'a>>) -> Outcome<()> {
        let start = self.scan.at();
        if let Some(operand) = self.operand(0)? {
            return self.check(start, operand, read);
        }
        let Some(name) = self.scan.identifier() else { return Err(self.expected_check().into()) };
        read.push(Expr::Macro(Word { text: name.into(), span: self.scan.since(start) }));
        Ok(())
    }

    fn check(&mut self, start: usize, operand: Operand<'a>, read: &mut Vec<Expr<'a>>) -> Outcome<()> {
        self.scan.blank();
        let op_start = self.scan.at();
        let Some(op) = self.operator() else {
            return Err(self.expected_operator(&operand).into());
        };
        // A word's blanks belong to it, but not to what is pointed at.
        let op_span = Span::new(op_start, op_start + op.word().len());
        let (modifier, rhs) = match op {
            Op::Exists => (None, Rhs::Nothing),
            _ if op.is_numeric() => (None, self.number_or_field(op)?),
            _ if op.takes_list() => (None, self.list_or_field(op)?),
            _ => self.text_or_field(op)?,
        };
        read.push(Expr::Check(Check { operand, op, op_span, modifier, rhs, span: self.scan.since(start) }));
        Ok(())
    }

    fn operator(&mut self) -> Option<Op> {
        let first = self.scan.peek()?;
        OPERATORS.get(usize::from(first))?.iter().copied().find(|op| {
            let wants_blank = op.takes_text() && !op.is_sign();
            self.scan.begins(op.word())
                && if wants_blank { self.scan.take_and_blank(op.word()) } else { self.scan.take(op.word()) }
        })
    }

    fn number_or_field(&mut self, op: Op) -> Outcome<Rhs<'a>> {
        self.scan.blank();
        if let Some(operand) = self.right_field()? {
            return Ok(Rhs::Operand(operand));
        }
        let start = self.scan.at();
        if let Some(number) = self.scan.number() {
            let value = Value { text: number.into(), kind: ValueKind::Bare, span: self.scan.since(start) };
            return Ok(Rhs::Value(value));
        }
        let help = if matches!(self.scan.peek(), Some(b'"' | b'\'')) {
            "write the number without quotes"
        } else {
            "write a number, or another field as `val(proc.vpid)`"
        };
        Err(Box::new(self.error(format!("a number must follow `{}`", op.word())).help(help)))
    }

    fn list_or_field(&mut self, op: Op) -> Outcome<Rhs<'a>> {
        self.scan.blank();
        if let Some(list) = self.list()? {
            return Ok(Rhs::List(list));
        }
        if let Some(operand) = self.right_field()? {
            return Ok(Rhs::Operand(operand));
        }
        match self.lone_name() {
            Some(list) => Ok(Rhs::List(list)),
            None => Err(Box::new(
                self.error(format!("a list must follow `{}`", op.word()))
                    .help(format!("write the values in parentheses: `{} (a, b)`", op.word())),
            )),
        }
    }

    fn text_or_field(&mut self, op: Op) -> Outcome<(Option<Modifier>, Rhs<'a>)> {
        // The operators that are words have taken their blanks.
        let blank = self.scan.blank() || !op.is_sign();
        if blank && let Some(modifier) = self.modifier() {
            let list = match self.list()? {
                Some(list) => Some(list),
                None => self.lone_name(),
            };
            return match list {
                Some(list) => Ok((Some(modifier), Rhs::List(list))),
                None => Err(Box::new(self.error(format!("a list must follow `{}`", modifier.word())))),
            };
        }
        if let Some(operand) = self.right_field()? {
            return Ok((None, Rhs::Operand(operand)));
        }
        match self.value()? {
            Some(value) => Ok((None, Rhs::Value(value))),
            None => Err(self.expected_value(op).into()),
        }
    }

    /// A modifier, if what follows makes it one: blanks, and then a list or its name. Else it is an ordinary value.
    fn modifier(&mut self) -> Option<Modifier> {
        if !matches!(self.scan.peek(), Some(b'o' | b'a')) {
            return None;
        }
        let start = self.scan.clone();
        let modifier = Modifier::ALL.iter().copied().find(|modifier| self.scan.take_and_blank(modifier.word()))?;
        let mut ahead = self.scan.clone();
        let is_list = ahead.peek() == Some(b'(');
        if is_list || ahead.identifier().is_some_and(|word| !matches!(word, "and" | "or" | "not")) {
            return Some(modifier);
        }
        self.scan = start;
        None
    }

    /// A word in the place of a list.
    fn lone_name(&mut self) -> Option<ValueList<'a>> {
        let start = self.scan.at();
        let name = self.scan.identifier()?;
        let span = self.scan.since(start);
        let values = vec![Value { text: name.into(), kind: ValueKind::Bare, span }];
        Some(ValueList { values, parentheses: false, span })
    }

    fn list(&mut self) -> Outcome<Option<ValueList<'a>>> {
        let start = self.scan.at();
        if !self.scan.take_sign(b'(') {
            return Ok(None);
        }
        self.scan.blank();
        let mut values = vec![];
        if let Some(value) = self.value()? {
            values.push(value);
            self.scan.blank();
            while self.scan.take_sign(b',') {
                self.scan.blank();
                let Some(value) = self.value()? else {
                    return Err(Box::new(self.error("a value must follow the comma")));
                };
                values.push(value);
                self.scan.blank();
            }
        }
        self.scan.blank();
        if !self.scan.take_sign(b')') {
            let diagnostic = match self.scan.peek() {
                Some(b',') => self.error("a value must stand before the comma"),
                Some(b'(') => self.error("a list can't hold another in parentheses"),
                Some(b'"' | b'\'') if self.scan.clone().quoted() == Some(Err(QuoteError::Open)) => self.open_quote(),
                _ if values.is_empty() || self.scan.is_at_end() => self.error("`)` must end the list"),
                _ => self
                    .error("`,` or `)` must follow a value of a list")
                    .help("values that hold blanks, `=`, quotes or parentheses need quotes around them"),
            };
            return Err(Box::new(diagnostic));
        }
        Ok(Some(ValueList { values, parentheses: true, span: self.scan.since(start) }))
    }

    fn value(&mut self) -> Outcome<Option<Value<'a>>> {
        let start = self.scan.at();
        let (text, kind): (Cow<'a, str>, _) = match self.scan.quoted() {
            Some(Ok(text)) => (text, ValueKind::Quoted),
            Some(Err(QuoteError::Escape(at, c))) => return Err(bad_escape(at, c).into()),
            // What stands here is no value then, and the caller says what was expected.
            Some(Err(QuoteError::Open)) => return Ok(None),
            None => match self.scan.bare() {
                Some(text) => (text.into(), ValueKind::Bare),
                None => return Ok(None),
            },
        };
        Ok(Some(Value { text, kind, span: self.scan.since(start) }))
    }

    /// `val(field)`, or a transformer.
    fn right_field(&mut self) -> Outcome<Option<Operand<'a>>> {
        let start = self.scan.at();
        if !self.scan.take("val(") {
            return Ok(self.transform(0)?.map(|transform| Operand::Transform(Box::new(transform))));
        }
        self.scan.blank();
        let Some(field) = self.field()? else {
            return Err(Box::new(self.error("a field must stand in `val(…)`").help("such as `val(proc.pname)`")));
        };
        self.scan.blank();
        self.close_transformer()?;
        Ok(Some(Operand::Transform(Box::new(Transform {
            transformer: Transformer::Val,
            arguments: vec![Argument::Operand(Operand::Field(field))],
            index: self.index()?,
            span: self.scan.since(start),
        }))))
    }

    /// A field or a transformer, if one stands here.
    fn operand(&mut self, depth: usize) -> Outcome<Option<Operand<'a>>> {
        if let Some(field) = self.field()? {
            return Ok(Some(Operand::Field(field)));
        }
        Ok(self.transform(depth)?.map(|transform| Operand::Transform(Box::new(transform))))
    }

    fn field(&mut self) -> Outcome<Option<Field<'a>>> {
        let start = self.scan.at();
        let Some(name) = self.scan.field() else { return Ok(None) };
        let argument = self.index()?.map(Box::new);
        Ok(Some(Field { name: name.into(), argument, span: self.scan.since(start) }))
    }

    /// An argument in brackets, if a bracket stands here.
    // Inlined: mostly there is none.
    #[inline]
    fn index(&mut self) -> Outcome<Option<Word<'a>>> {
        if self.scan.take_sign(b'[') { self.argument_in_brackets().map(Some) } else { Ok(None) }
    }

    fn argument_in_brackets(&mut self) -> Outcome<Word<'a>> {
        let start = self.scan.at();
        let text: Cow<'a, str> = match self.scan.quoted() {
            Some(Ok(text)) => text,
            Some(Err(QuoteError::Escape(at, c))) => return Err(bad_escape(at, c).into()),
            Some(Err(QuoteError::Open)) => return Err(self.open_quote().into()),
            None => match self.scan.bare_argument() {
                Some(text) => text.into(),
                None => return Err(Box::new(self.error("an argument must stand in `[…]`, without blanks around it"))),
            },
        };
        let word = Word { text, span: self.scan.since(start) };
        if !self.scan.take_sign(b']') {
            return Err(Box::new(self.error("`]` must follow the argument, without a blank before it")));
        }
        Ok(word)
    }

    fn transform(&mut self, depth: usize) -> Outcome<Option<Transform<'a>>> {
        // Few words begin as one of these does.
        if !matches!(self.scan.peek(), Some(b't' | b'b' | b'l' | b'j' | b'c' | b'g')) {
            return Ok(None);
        }
        let start = self.scan.clone();
        let named = Transformer::ALL[1..].iter().copied().find(|transformer| {
            let found = self.scan.take(transformer.word()) && self.scan.take_sign(b'(');
            if !found {
                self.scan = start.clone();
            }
            found
        });
        let Some(transformer) = named else { return Ok(None) };
        if depth >= limits::TRANSFORMERS {
            let message = format!("transformers are nested more than {} levels deep", limits::TRANSFORMERS);
            return Err(Box::new(Diagnostic::unsafe_(Code::Nesting, self.scan.since(start.at()), message)));
        }
        let mut arguments = vec![];
        loop {
            self.scan.blank();
            let argument = match self.argument_list(depth)? {
                Some(list) => Some(list),
                None => self.argument(depth)?,
            };
            let Some(argument) = argument else {
                let help = "such as `tolower(proc.name)`; a text needs quotes around it";
                return Err(Box::new(
                    self.error(format!("a field must stand in `{}(…)`", transformer.word())).help(help),
                ));
            };
            arguments.push(argument);
            self.scan.blank();
            if !self.scan.take_sign(b',') {
                break;
            }
        }
        self.close_transformer()?;
        let index = self.index()?;
        Ok(Some(Transform { transformer, arguments, index, span: self.scan.since(start.at()) }))
    }

    fn argument_list(&mut self, depth: usize) -> Outcome<Option<Argument<'a>>> {
        let start = self.scan.at();
        if !self.scan.take_sign(b'(') {
            return Ok(None);
        }
        self.scan.blank();
        let mut items = vec![];
        if let Some(item) = self.argument(depth)? {
            items.push(item);
            self.scan.blank();
            while self.scan.take_sign(b',') {
                self.scan.blank();
                let Some(item) = self.argument(depth)? else {
                    return Err(Box::new(self.error("a field, a text in quotes or a number must follow the comma")));
                };
                items.push(item);
                self.scan.blank();
            }
        }
        if !self.scan.take_sign(b')') {
            return Err(Box::new(self.error("`)` must end the list")));
        }
        Ok(Some(Argument::List(items, self.scan.since(start))))
    }

    fn argument(&mut self, depth: usize) -> Outcome<Option<Argument<'a>>> {
        let start = self.scan.at();
        match self.scan.quoted() {
            Some(Ok(text)) => {
                return Ok(Some(Argument::Text(Word { text, span: self.scan.since(start) })));
            }
            Some(Err(QuoteError::Escape(at, c))) => return Err(bad_escape(at, c).into()),
            Some(Err(QuoteError::Open)) => return Err(self.open_quote().into()),
            None => {}
        }
        if let Some(number) = self.scan.number() {
            return Ok(Some(Argument::Number(Word { text: number.into(), span: self.scan.since(start) })));
        }
        Ok(self.operand(depth + 1)?.map(Argument::Operand))
    }

    fn close_transformer(&mut self) -> Outcome<()> {
        if self.scan.take_sign(b')') {
            return Ok(());
        }
        Err(Box::new(self.error("`)` must end what the transformer is applied to")))
    }

    /// Reads a field or transformer that begins at a place of the text, as outputs hold them.
    pub(crate) fn operand_at(text: &'a str, at: usize) -> Outcome<Option<(Operand<'a>, usize)>> {
        let mut parser = Parser { scan: Scanner::starting_at(text, at), deepest: 0, unread: vec![] };
        Ok(parser.operand(0)?.map(|operand| (operand, parser.scan.at())))
    }

    /// Reads a field or transformer that is the whole of a text, as exceptions hold them.
    pub(crate) fn whole_operand(text: &'a str) -> Option<Operand<'a>> {
        let (operand, end) = Self::operand_at(text, 0).ok()??;
        (end == text.len()).then_some(operand)
    }

    /// Reads a value, or a list in parentheses, that is the whole of a text, as exceptions hold them.
    pub(crate) fn whole_values(text: &'a str) -> Option<Rhs<'a>> {
        let mut parser = Parser { scan: Scanner::new(text), deepest: 0, unread: vec![] };
        let rhs = match parser.list().ok()? {
            Some(list) => Rhs::List(list),
            None => Rhs::Value(parser.value().ok()??),
        };
        parser.scan.is_at_end().then_some(rhs)
    }

    /// Reads `val(field)` or a transformer that is the whole of a text, as exceptions hold them.
    pub(crate) fn whole_right_field(text: &'a str) -> Option<Operand<'a>> {
        let mut parser = Parser { scan: Scanner::new(text), deepest: 0, unread: vec![] };
        let operand = parser.right_field().ok()??;
        parser.scan.is_at_end().then_some(operand)
    }

    /// Whether the whole of a text is a number, as `<` and the like are followed by.
    pub(crate) fn is_number(text: &str) -> bool {
        let mut scan = Scanner::new(text);
        scan.number().is_some() && scan.is_at_end()
    }

    /// Reads an operator with its modifier that is the whole of a text, as exceptions hold them.
    pub(crate) fn whole_operator(text: &str) -> Option<(Op, Option<Modifier>)> {
        let mut words = text.split(|c: char| c.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let first = words.next()?;
        let op = Op::ALL.iter().copied().find(|op| op.word() == first)?;
        let modifier = match words.next() {
            None => None,
            Some(word) => Some(Modifier::ALL.iter().copied().find(|m| m.word() == word && op.takes_text())?),
        };
        words.next().is_none().then_some((op, modifier))
    }
}
