//! What the parser says where it can't go on: what is expected, and what was probably meant.

use super::diagnostic::{Code, Diagnostic, Span};
use super::limits;
use super::parse::Parser;
use super::tree::{Op, Operand};

pub(super) fn bad_escape(at: usize, c: char) -> Diagnostic {
    let span = Span::new(at, at + 1 + c.len_utf8());
    let shown = c.escape_default();
    Diagnostic::invalid(Code::Syntax, span, format!("`\\{shown}` means nothing in quotes"))
        .help("write `\\\\` for a backslash, or the value without quotes")
}

/// What went wrong, in words that say what to do.
impl Parser<'_> {
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        let span = if self.scan.is_at_end() {
            let end = self.scan.text().trim_end().len();
            Span::new(end, end)
        } else {
            self.scan.here()
        };
        Diagnostic::invalid(Code::Syntax, span, message)
    }

    pub(super) fn open_quote(&self) -> Diagnostic {
        let span = Span::new(self.scan.at(), self.scan.at() + 1);
        let help = if self.scan.rest().contains('\\') {
            "a quote with a backslash before it does not end the text; a value that ends in a backslash goes without quotes"
        } else {
            "end it with the same quote"
        };
        Diagnostic::invalid(Code::Syntax, span, "the quote is not closed").help(help)
    }

    pub(super) fn too_deep(&self) -> Diagnostic {
        let message = format!("the condition is nested too deep; the limit is {} levels", limits::NESTING);
        Diagnostic::unsafe_(Code::Nesting, self.scan.here(), message)
    }

    pub(super) fn expected_closing(&self) -> Diagnostic {
        if self.scan.is_at_end() {
            return self.error("a `)` is missing").help("each `(` needs a `)`");
        }
        self.unexpected()
    }

    pub(super) fn expected_check(&self) -> Diagnostic {
        let diagnostic = self.error("a check is expected here, such as `proc.name = bash`");
        match self.scan.peek() {
            None if self.scan.text().trim().is_empty() => self.error("the condition is empty"),
            Some(b'!') => diagnostic.help("write `not` for `!`").suggest(Some("not ")),
            Some(b'#') => diagnostic.help("conditions have no comments"),
            Some(b'"' | b'\'') => diagnostic.help("a field is written without quotes"),
            Some(b')') => diagnostic.help("there is nothing between the parentheses"),
            Some(byte) if byte.is_ascii_digit() || byte == b'_' => {
                diagnostic.help("names of fields and macros begin with a letter")
            }
            _ => diagnostic,
        }
    }

    pub(super) fn expected_operator(&self, operand: &Operand<'_>) -> Diagnostic {
        let what = operand.span().of(self.scan.text());
        let what = if what.len() > 40 { "the field" } else { what };
        let diagnostic = self.error(format!("an operator must follow `{what}`"));
        let here = self.scan.here();
        let word = here.of(self.scan.text());
        let known = || Op::ALL.iter().map(|op| op.word());
        let lower = word.to_ascii_lowercase();
        match word {
            "" | "and" | "or" => {
                diagnostic.help(format!("say what of it is looked for: `{what} = …`, `{what} exists`"))
            }
            "not" => diagnostic.help("write `not` before the field: `not proc.name in (a, b)`"),
            "is" | "equals" | "eq" => diagnostic.help("write `=`").suggest(Some("=")),
            "like" | "matches" | "=~" | "~" => diagnostic.help("write `glob` or `regex`"),
            _ if self.scan.peek() == Some(b'[') => diagnostic.help("write the argument without a blank before it"),
            _ if known().any(|op| op == word) => diagnostic.help("a blank must stand behind the operator"),
            _ if known().any(|op| op == lower) => {
                diagnostic.help("operators are written in lower case").suggest(Some(lower))
            }
            _ => match super::diagnostic::nearest(word, known()) {
                Some(op) => diagnostic.suggest(Some(op)),
                None => diagnostic.help("operators are `=`, `!=`, `in`, `contains`, `startswith`, `exists` and others"),
            },
        }
    }

    pub(super) fn expected_value(&self, op: Op) -> Diagnostic {
        if matches!(self.scan.peek(), Some(b'"' | b'\'')) {
            return self.open_quote();
        }
        let diagnostic = self.error(format!("a value must follow `{}`", op.word()));
        match self.scan.peek() {
            Some(b'(') if matches!(op, Op::Eq | Op::EqEq) => {
                diagnostic.help("write `in` to compare with several values: `in (a, b)`")
            }
            Some(b'(') => diagnostic
                .help(format!("write `{0} anyof (a, b)` for several values; a parenthesis needs quotes", op.word())),
            Some(b'=') => diagnostic.help("write `=` or `==`"),
            _ => diagnostic,
        }
    }

    pub(super) fn unexpected(&self) -> Diagnostic {
        let here = self.scan.here();
        let word = here.of(self.scan.text());
        let shown = if word.len() > 40 { "this" } else { word };
        let diagnostic = self.error(format!("`and` or `or` is expected, not `{}`", shown.escape_debug()));
        match word {
            ")" => self.error("there is no `(` for this `)`"),
            _ if word.starts_with('#') || word.starts_with("//") || word.starts_with("/*") => {
                diagnostic.help("conditions have no comments")
            }
            _ if word.starts_with("&&") => diagnostic.help("write `and`").suggest(Some("and")),
            _ if word.starts_with("||") => diagnostic.help("write `or`").suggest(Some("or")),
            "AND" | "And" | "OR" | "Or" => {
                diagnostic.help("operators are written in lower case").suggest(Some(word.to_ascii_lowercase()))
            }
            "and" => diagnostic.help("write a blank before the parenthesis that follows `or`"),
            "," => diagnostic.help("several values go in parentheses after `in`: `in (a, b)`"),
            "(" => diagnostic.help("no blank may stand between a transformer and its parenthesis; macros take none"),
            _ if word.starts_with('.') => diagnostic.help("a field is written in one word: `proc.name`"),
            _ if word.starts_with('-') => diagnostic.help("names of macros are of letters, digits and `_`"),
            _ => diagnostic.help("a value that holds blanks, `=`, quotes or parentheses needs quotes around it"),
        }
    }
}
