//! The smallest parts of conditions: blanks, words, numbers, quoted strings.

use super::condition::{Position, SyntaxError};

/// Something read, or why not.
pub type Parsed<T> = Result<T, SyntaxError>;

/// A place in a condition's text.
pub struct Lexer<'a> {
    /// The text.
    pub text: &'a str,
    /// Bytes read so far.
    pub at: usize,
    /// Parentheses open.
    pub depth: usize,
    /// What was read last, for messages.
    pub last: String,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 8)
}

impl<'a> Lexer<'a> {
    /// At the start of a text.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, last: String::new() }
    }
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next byte.
    pub fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        let before = self.text.get(..self.at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position { line: before.matches('\n').count() + 1, column: self.at - line_start + 1, offset: self.at }
    }

    /// An error here.
    pub fn error<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(SyntaxError { message: message.into(), position: self.position() })
    }

    /// Passes over blanks; whether there were any.
    pub fn blank(&mut self) -> bool {
        let start = self.at;
        while self.byte().is_some_and(is_blank) {
            self.at += 1;
        }
        self.at > start
    }

    /// Passes over this text; whether it was there.
    pub fn token(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            token.clone_into(&mut self.last);
        }
        found
    }

    /// The longest text of accepted characters.
    pub fn word(&mut self, accepts: impl Fn(usize, char) -> bool) -> Option<String> {
        let length =
            self.rest().char_indices().find(|(at, c)| !accepts(*at, *c)).map_or(self.rest().len(), |(at, _)| at);
        (length > 0).then(|| {
            let word = self.rest().get(..length).unwrap_or_default().to_owned();
            self.at += length;
            self.last.clone_from(&word);
            word
        })
    }

    /// Letters, then letters, digits and underscores.
    pub fn identifier(&mut self) -> Option<String> {
        self.word(|at, c| c.is_ascii_alphabetic() || at > 0 && (c.is_ascii_digit() || c == '_'))
    }

    /// A number as the grammar has it, which is more than fields take.
    pub fn number(&mut self) -> Option<String> {
        let bytes = self.rest().as_bytes();
        let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
        let length = if bytes.len() > 2 && bytes.starts_with(b"0x") || bytes.starts_with(b"0X") {
            let hex = bytes.iter().skip(2).take_while(|b| b.is_ascii_hexdigit()).count();
            if hex == 0 { 1 } else { 2 + hex }
        } else {
            let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
            let mut at = sign + digits(sign);
            if at == sign {
                return None;
            }
            if bytes.get(at) == Some(&b'.') {
                at += 1;
                at += digits(at);
            }
            if matches!(bytes.get(at), Some(b'e' | b'E')) && matches!(bytes.get(at + 1), Some(b'+' | b'-')) {
                let exponent = digits(at + 2);
                if exponent > 0 {
                    at += 2 + exponent;
                }
            }
            at
        };
        let number = self.rest().get(..length)?.to_owned();
        self.at += length;
        self.last.clone_from(&number);
        Some(number)
    }

    /// A quoted string; the closing quote is the first one without a backslash before it.
    pub fn quoted(&mut self) -> Parsed<Option<String>> {
        let Some(quote @ (b'"' | b'\'')) = self.byte() else { return Ok(None) };
        let bytes = self.text.as_bytes();
        let mut end = self.at + 1;
        loop {
            match bytes.get(end) {
                None => return Ok(None),
                Some(byte) if *byte == quote && bytes.get(end - 1) != Some(&b'\\') => break,
                Some(_) => end += 1,
            }
        }
        let inner = self.text.get(self.at + 1..end).unwrap_or_default();
        let mut value = String::new();
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                value.push(c);
                continue;
            }
            value.push(match chars.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(' ' | '\\') => '\\',
                Some('/') => '/',
                Some(c) if c as u32 == u32::from(quote) => c,
                Some(c @ ('"' | '\'')) => {
                    let quote = char::from(quote);
                    return self.error(format!("invalid \\{c} escape in {quote}-quoted string"));
                }
                Some(c) => return self.error(format!("unsupported string escape sequence: \\{c}")),
                None => return Ok(None),
            });
        }
        self.at = end + 1;
        self.last.clone_from(&value);
        Ok(Some(value))
    }

    /// A string without quotes.
    pub fn bare(&mut self) -> Option<String> {
        self.word(|_, c| {
            !matches!(c, '(' | ')' | '"' | '\'' | '=' | ',')
                && !matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{b}' | '\u{c}')
        })
    }

    /// A string with or without quotes.
    pub fn text_value(&mut self) -> Parsed<Option<String>> {
        Ok(match self.quoted()? {
            Some(value) => Some(value),
            None => self.bare(),
        })
    }
}
