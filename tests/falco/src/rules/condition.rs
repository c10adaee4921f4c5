//! The condition language's grammar, character by character as Falco's own parser reads it.

use super::lexer::{Lexer, Parsed};

/// Parentheses nested deeper than this overflow Falco's stack and kill it; so they do here.
const FATAL_DEPTH: usize = 8_150;

/// A condition.
#[derive(Clone, Debug)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// A macro, until it is replaced by its condition.
    Macro(String),
    /// A comparison.
    Check(Check),
}

/// A place in a condition; line and column count from 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column in bytes.
    pub column: usize,
    /// Bytes from the start.
    pub offset: usize,
}

/// A field with its argument, or a transformer over others.
#[derive(Clone, Debug)]
pub enum Operand {
    /// `proc.aname[2]`.
    Field {
        /** The dotted name. */
        name: String,
        /** What stands in brackets. */
        argument: Option<String>,
    },
    /// `tolower(proc.name)`.
    Transform {
        /** Its name. */
        name: String,
        /** What it is applied to. */
        arguments: Vec<Argument>,
        /** In brackets. */
        index: Option<String>,
    },
}

/// What a transformer is applied to.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A field or another transformer.
    Operand(Operand),
    /// A string or a number.
    Text,
    /// Several of them.
    List(Vec<Argument>),
}

/// What a field is compared with.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, for `exists`.
    None,
    /// One constant.
    Text(String),
    /// Several.
    List(Vec<String>),
    /// `val(field)` or a transformer.
    Operand(Operand),
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// The left side.
    pub left: Operand,
    /// The operator.
    pub operator: String,
    /// `oneof`, `anyof` or `allof`.
    pub modifier: Option<String>,
    /// The right side.
    pub right: Value,
    /// Where it starts.
    pub position: Position,
}

/// A syntax error.
#[derive(Clone, Debug)]
pub struct SyntaxError {
    /// In Falco's words.
    pub message: String,
    /// Where the parser stands.
    pub position: Position,
}

const TRANSFORMERS: &str = "'val', 'tolower', 'toupper', 'b64', 'basename', 'len', 'join', 'concat', 'getopt'";
const TRANSFORMER_NAMES: [&str; 8] = ["tolower", "toupper", "b64", "basename", "len", "join", "concat", "getopt"];
const NUMBER_OPERATORS: [&str; 4] = ["<=", "<", ">=", ">"];
const STRING_OPERATORS: [&str; 12] = [
    "==",
    "=",
    "!=",
    "glob ",
    "iglob ",
    "contains ",
    "icontains ",
    "bcontains ",
    "startswith ",
    "bstartswith ",
    "endswith ",
    "regex ",
];
const LIST_OPERATORS: [&str; 3] = ["intersects", "in", "pmatch"];

/// Reads a condition whose lists have been put in already.
pub fn parse(text: &str) -> Parsed<Expr> {
    let mut parser = Lexer::new(text);
    parser.blank();
    let expr = parser.or()?;
    parser.blank();
    if parser.at < text.len() {
        return parser.error(format!("unexpected token after '{}', expecting 'or', 'and'", parser.last));
    }
    Ok(expr)
}

/// The longest field or transformer that starts the text, for outputs.
pub fn operand(text: &str) -> Option<(Operand, usize)> {
    let mut parser = Lexer::new(text);
    let found = if let Ok(Some(found)) = parser.transform() {
        Some(found)
    } else {
        parser.at = 0;
        parser.field().ok().flatten()
    };
    found.map(|found| (found, parser.at))
}

impl Lexer<'_> {
    /// Several operands joined by one keyword, of which each may follow it directly in parentheses.
    fn chain(&mut self, keyword: &str, part: fn(&mut Self) -> Parsed<Expr>) -> Parsed<Vec<Expr>> {
        let mut parts = vec![part(self)?];
        self.blank();
        while self.token(keyword) {
            if self.blank() {
                parts.push(part(self)?);
            } else if self.byte() == Some(b'(') {
                parts.push(self.parentheses()?);
            } else {
                return self.error(format!("expected blank or '(' after '{keyword}'"));
            }
            self.blank();
        }
        Ok(parts)
    }

    fn or(&mut self) -> Parsed<Expr> {
        let mut parts = self.chain("or", Self::and)?;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut parts = self.chain("and", Self::not)?;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    fn not(&mut self) -> Parsed<Expr> {
        let mut negated = false;
        loop {
            let start = self.at;
            if !self.token("not") {
                break;
            }
            if self.blank() {
                // A lone `not` at the end is a macro's name.
                if self.at == self.text.len() || self.byte() == Some(b')') {
                    self.at = start;
                    break;
                }
                negated = !negated;
            } else if self.byte() == Some(b'(') {
                let inner = self.parentheses()?;
                return Ok(wrap(!negated, inner));
            } else {
                self.at = start;
                break;
            }
        }
        let inner = self.check()?;
        Ok(wrap(negated, inner))
    }

    fn parentheses(&mut self) -> Parsed<Expr> {
        self.depth += 1;
        if self.depth > FATAL_DEPTH {
            std::process::abort();
        }
        self.token("(");
        self.blank();
        let inner = self.or()?;
        self.blank();
        if !self.token(")") {
            return self.error("expected a ')' token");
        }
        self.depth -= 1;
        Ok(inner)
    }

    fn check(&mut self) -> Parsed<Expr> {
        let position = self.position();
        if self.byte() == Some(b'(') {
            return self.parentheses();
        }
        if let Some(left) = self.transform()? {
            return self.test(left, position).map(Expr::Check);
        }
        if let Some(left) = self.field()? {
            return self.test(left, position).map(Expr::Check);
        }
        match self.identifier() {
            Some(name) => Ok(Expr::Macro(name)),
            None => self.error("expected a '(' token, a field check, or an identifier"),
        }
    }

    fn field(&mut self) -> Parsed<Option<Operand>> {
        let start = self.at;
        let Some(mut name) = self.identifier() else { return Ok(None) };
        let mut parts = 1;
        while self.byte() == Some(b'.') {
            let dot = self.at;
            self.at += 1;
            if let Some(part) = self.identifier() {
                name = format!("{name}.{part}");
                parts += 1;
            } else {
                self.at = dot;
                break;
            }
        }
        if parts == 1 {
            self.at = start;
            return Ok(None);
        }
        self.last.clone_from(&name);
        Ok(Some(Operand::Field { argument: self.brackets()?, name }))
    }

    fn brackets(&mut self) -> Parsed<Option<String>> {
        if !self.token("[") {
            return Ok(None);
        }
        let argument = if matches!(self.byte(), Some(b'"' | b'\'')) {
            self.quoted()?
        } else {
            self.word(|_, c| !matches!(c, '[' | ']' | '"' | '\'') && !c.is_ascii_whitespace())
        };
        let Some(argument) = argument else {
            return self.error("expected a valid field argument: a quoted string or a bare string");
        };
        if !self.token("]") {
            return self.error("expected a ']' token");
        }
        Ok(Some(argument))
    }

    fn transform(&mut self) -> Parsed<Option<Operand>> {
        let start = self.at;
        for name in TRANSFORMER_NAMES {
            if !self.token(&format!("{name}(")) {
                continue;
            }
            name.clone_into(&mut self.last);
            self.blank();
            let mut arguments = vec![self.argument()?];
            self.blank();
            while self.token(",") {
                self.blank();
                arguments.push(self.argument()?);
                self.blank();
            }
            if !self.token(")") {
                return self.error("expected a ')' token closing the transformer");
            }
            let index = self.brackets()?;
            return Ok(Some(Operand::Transform { name: name.to_owned(), arguments, index }));
        }
        self.at = start;
        Ok(None)
    }

    fn argument(&mut self) -> Parsed<Argument> {
        if self.token("(") {
            self.blank();
            let mut items = Vec::new();
            if !self.token(")") {
                loop {
                    items.push(self.argument_item(
                        "expected transformer list argument: field, transformer, quoted string, or number",
                    )?);
                    self.blank();
                    if self.token(")") {
                        break;
                    }
                    if !self.token(",") {
                        return self.error("expected a ')' token");
                    }
                    self.blank();
                }
            }
            return Ok(Argument::List(items));
        }
        self.argument_item(
            "expected field transformer argument: field, transformer, quoted string, number, or transformer list",
        )
    }

    fn argument_item(&mut self, expected: &str) -> Parsed<Argument> {
        if let Some(inner) = self.transform()? {
            return Ok(Argument::Operand(inner));
        }
        if let Some(inner) = self.field()? {
            return Ok(Argument::Operand(inner));
        }
        if self.number().is_some() || self.quoted()?.is_some() {
            return Ok(Argument::Text);
        }
        self.error(expected)
    }

    fn right_operand(&mut self) -> Parsed<Option<Value>> {
        if self.token("val(") {
            self.blank();
            let Some(field) = self.field()? else { return self.error("expected a field within 'val' transformer") };
            self.blank();
            if !self.token(")") {
                return self.error("expected a ')' token closing the transformer");
            }
            if self.byte() == Some(b'[') {
                return self.error("filter error: transformer 'val' does not support field arguments");
            }
            return Ok(Some(Value::Operand(field)));
        }
        Ok(self.transform()?.map(Value::Operand))
    }

    fn list(&mut self) -> Parsed<Option<Vec<String>>> {
        if !self.token("(") {
            return Ok(None);
        }
        self.blank();
        let mut items = Vec::new();
        if let Some(first) = self.text_value()? {
            items.push(first);
            self.blank();
            while self.token(",") {
                self.blank();
                match self.text_value()? {
                    Some(item) => items.push(item),
                    None => return self.error("expected a string value"),
                }
                self.blank();
            }
        }
        self.blank();
        if !self.token(")") {
            return self.error("expected a ')' token");
        }
        Ok(Some(items))
    }

    /// `oneof (…)`: only with a blank after it and a list or a name behind.
    fn modifier(&mut self) -> Option<String> {
        let start = self.at;
        for name in ["oneof", "anyof", "allof"] {
            if self.token(name) && self.blank() {
                let here = self.at;
                let fits = self.byte() == Some(b'(')
                    || self.identifier().is_some_and(|word| !["and", "or", "not"].contains(&word.as_str()));
                if fits {
                    self.at = here;
                    name.clone_into(&mut self.last);
                    return Some(name.to_owned());
                }
            }
            self.at = start;
        }
        None
    }

    fn list_or_name(&mut self) -> Parsed<Option<Vec<String>>> {
        Ok(match self.list()? {
            Some(items) => Some(items),
            None => self.identifier().map(|name| vec![name]),
        })
    }

    fn test(&mut self, left: Operand, position: Position) -> Parsed<Check> {
        self.blank();
        let check = |operator: &str, modifier, right| {
            Ok(Check { left, operator: operator.to_owned(), modifier, right, position })
        };
        if self.token("exists") {
            return check("exists", None, Value::None);
        }
        for operator in NUMBER_OPERATORS {
            if !self.token(operator) {
                continue;
            }
            self.blank();
            let right = match self.right_operand()? {
                Some(right) => right,
                None => match self.number() {
                    Some(number) => Value::Text(number),
                    None => {
                        return self.error(format!(
                            "expected a number value or a field with a valid transformer: {TRANSFORMERS}"
                        ));
                    }
                },
            };
            return check(operator, None, right);
        }
        for operator in STRING_OPERATORS {
            let word = operator.trim_end();
            let start = self.at;
            if !self.token(word) {
                continue;
            }
            let spaced = self.blank();
            if word.len() < operator.len() && !spaced {
                self.at = start;
                continue;
            }
            if spaced && let Some(modifier) = self.modifier() {
                return match self.list_or_name()? {
                    Some(items) => check(word, Some(modifier), Value::List(items)),
                    None => self.error("expected a list or an identifier"),
                };
            }
            let right = match self.right_operand()? {
                Some(right) => right,
                None => match self.text_value()? {
                    Some(value) => Value::Text(value),
                    None => {
                        return self.error(format!(
                            "expected a string value or a field with a valid transformer: {TRANSFORMERS}"
                        ));
                    }
                },
            };
            return check(word, None, right);
        }
        for operator in LIST_OPERATORS {
            if !self.token(operator) {
                continue;
            }
            self.blank();
            let right = match self.right_operand()? {
                Some(right) => Some(right),
                None => self.list_or_name()?.map(Value::List),
            };
            return match right {
                Some(right) => check(operator, None, right),
                None => self.error(format!(
                    "expected a list, an identifier, or a field with a valid transformer: {TRANSFORMERS}"
                )),
            };
        }
        self.error(
            "expected a valid check operator: one of 'exists', '<=', '<', '>=', '>', '==', '=', '!=', 'glob', 'iglob', \
             'contains', 'icontains', 'bcontains', 'startswith', 'bstartswith', 'endswith', 'regex', 'intersects', 'in', \
             'pmatch'",
        )
    }
}

fn wrap(negated: bool, inner: Expr) -> Expr {
    if negated { Expr::Not(Box::new(inner)) } else { inner }
}
