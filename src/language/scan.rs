//! The lexer: Falco's has no tokens, each place of the grammar tries what it can take.

use std::borrow::Cow;

use super::diagnostic::Span;

/// A place in a text.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// What is wrong with a quoted text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuoteError {
    /// It does not end.
    Open,
    /// A character behind a backslash, at this place, that means nothing.
    Escape(usize, char),
}

/// What a byte can be, each a bit: so one look tells it.
const BLANK: u8 = 1;
const ENDS_BARE: u8 = 1 << 1;
const ENDS_ARGUMENT: u8 = 1 << 2;
const LETTER: u8 = 1 << 3;
const IN_WORD: u8 = 1 << 4;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte: u8 = 0;
    loop {
        let mut class = 0;
        // A form feed is no blank, a backspace is.
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x08) {
            class |= BLANK;
        }
        // What a value without quotes can't hold. A backspace is no blank here.
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0c | b'(' | b')' | b'"' | b'\'' | b'=' | b',') {
            class |= ENDS_BARE;
        }
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0c | b'[' | b']' | b'"' | b'\'') {
            class |= ENDS_ARGUMENT;
        }
        if byte.is_ascii_alphabetic() {
            class |= LETTER;
        }
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            class |= IN_WORD;
        }
        classes[byte as usize] = class;
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// A blank, as conditions know them.
const fn is_blank(byte: u8) -> bool {
    is(byte, BLANK)
}

const fn ends_bare(byte: u8) -> bool {
    is(byte, ENDS_BARE)
}

/// Whether a value can be written without quotes at all.
pub(crate) fn is_bare(text: &str) -> bool {
    // Where a value can stand blanks are passed over, and a backspace is one.
    !text.is_empty() && !text.starts_with('\u{8}') && !text.bytes().any(ends_bare)
}

/// Whether an argument in brackets can be written without quotes.
pub(crate) fn is_bare_argument(text: &str) -> bool {
    !text.is_empty() && !text.bytes().any(ends_argument)
}

const fn ends_argument(byte: u8) -> bool {
    is(byte, ENDS_ARGUMENT)
}

/// How many of the first bytes are so.
fn count(bytes: &[u8], so: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !so(*byte)).unwrap_or(bytes.len())
}

/// The length of the identifier that the bytes begin with.
fn identifier(bytes: &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first()?;
    is(*first, LETTER).then(|| 1 + count(rest, |byte| is(byte, IN_WORD)))
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// From a place within the text, which must be the start of a character.
    pub(crate) fn starting_at(text: &'a str, at: usize) -> Self {
        Self { text, at: if text.is_char_boundary(at) { at } else { text.len() } }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// From that place to here.
    pub(crate) const fn since(&self, start: usize) -> Span {
        Span::new(start, self.at)
    }

    /// The word or sign that stands here, to point at.
    pub(crate) fn here(&self) -> Span {
        let rest = self.rest();
        let word = rest.bytes().take_while(|byte| !ends_bare(*byte)).count();
        let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
        Span::new(self.at, self.at + length)
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Goes on while the bytes, all of them ASCII, are so.
    fn skip(&mut self, so: impl Fn(u8) -> bool) -> usize {
        let length = count(self.bytes(), so);
        self.at += length;
        length
    }

    pub(crate) fn blank(&mut self) -> bool {
        self.skip(is_blank) > 0
    }

    /// Takes a text if it stands here, whatever follows.
    // In place, what is compared with is known, and takes no call.
    #[inline]
    pub(crate) fn take(&mut self, what: &str) -> bool {
        let stands = self.bytes().starts_with(what.as_bytes());
        if stands {
            self.at += what.len();
        }
        stands
    }

    /// Whether the last byte of a word stands where it would if the word stood here: of words that begin alike, that tells
    /// most apart without a call.
    pub(crate) fn begins(&self, word: &str) -> bool {
        let last = word.len().saturating_sub(1);
        self.text.as_bytes().get(self.at + last) == word.as_bytes().get(last)
    }

    /// Takes an ASCII sign if it stands here.
    pub(crate) fn take_sign(&mut self, sign: u8) -> bool {
        let stands = self.peek() == Some(sign);
        self.at += usize::from(stands);
        stands
    }

    /// Takes a word and the blanks behind it, which must be there.
    #[inline]
    pub(crate) fn take_and_blank(&mut self, what: &str) -> bool {
        let start = self.at;
        let stands = self.take(what) && self.blank();
        if !stands {
            self.at = start;
        }
        stands
    }

    /// Goes from the start of a check that can't be read to the `and`, the `or` or the parenthesis that ends it, or to the
    /// end of the text.
    pub(crate) fn pass_check(&mut self, start: usize) {
        let bytes = self.text.as_bytes();
        let (mut depth, mut apart) = (0_usize, false);
        self.at = start;
        while let Some(byte) = self.peek() {
            let ends_word =
                |length: usize| bytes.get(self.at + length).is_some_and(|next| is_blank(*next) || *next == b'(');
            let rest = bytes.get(self.at..).unwrap_or_default();
            match byte {
                b'"' | b'\'' => match self.quoted() {
                    Some(Ok(_)) => {
                        apart = true;
                        continue;
                    }
                    _ => self.at = self.text.len(),
                },
                b')' if depth == 0 => return,
                _ if depth == 0 && apart && rest.starts_with(b"and") && ends_word(3) => return,
                _ if depth == 0 && apart && rest.starts_with(b"or") && ends_word(2) => return,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            apart = is_blank(byte) || byte == b')';
            self.at += 1;
        }
        self.at = self.at.min(self.text.len());
    }

    /// `[A-Za-z][A-Za-z0-9_]*`
    pub(crate) fn identifier(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += identifier(self.bytes())?;
        self.text.get(start..self.at)
    }

    /// Identifiers with dots between them, two at least.
    pub(crate) fn field(&mut self) -> Option<&'a str> {
        let (bytes, start) = (self.bytes(), self.at);
        let first = identifier(bytes)?;
        let mut length = first;
        while let Some((b'.', behind)) = bytes.get(length..).and_then(<[u8]>::split_first)
            && let Some(more) = identifier(behind)
        {
            length += 1 + more;
        }
        if length == first {
            return None;
        }
        self.at = start + length;
        self.text.get(start..self.at)
    }

    /// A value without quotes.
    pub(crate) fn bare(&mut self) -> Option<&'a str> {
        let start = self.at;
        if self.skip(|byte| !ends_bare(byte)) == 0 {
            return None;
        }
        self.text.get(start..self.at)
    }

    /// An argument in brackets without quotes.
    pub(crate) fn bare_argument(&mut self) -> Option<&'a str> {
        let start = self.at;
        if self.skip(|byte| !ends_argument(byte)) == 0 {
            return None;
        }
        self.text.get(start..self.at)
    }

    /// A number in hexadecimal, or with sign, fraction and exponent.
    pub(crate) fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        if (self.take("0x") || self.take("0X")) && self.skip(|byte| byte.is_ascii_hexdigit()) > 0 {
            return self.text.get(start..self.at);
        }
        self.at = start;
        let _sign = self.take_sign(b'+') || self.take_sign(b'-');
        if self.skip(|byte| byte.is_ascii_digit()) == 0 {
            self.at = start;
            return None;
        }
        self.take_sign(b'.');
        self.skip(|byte| byte.is_ascii_digit());
        let exponent = self.at;
        let signed = (self.take_sign(b'e') || self.take_sign(b'E')) && (self.take_sign(b'+') || self.take_sign(b'-'));
        if !(signed && self.skip(|byte| byte.is_ascii_digit()) > 0) {
            self.at = exponent;
        }
        self.text.get(start..self.at)
    }

    /// A quoted text without quotes and escapes; `None` where no quote stands here.
    // Inlined: mostly there is none.
    #[inline]
    pub(crate) fn quoted(&mut self) -> Option<Result<Cow<'a, str>, QuoteError>> {
        let quote = self.peek().filter(|byte| matches!(byte, b'"' | b'\''))?;
        Some(self.quoted_by(quote))
    }

    fn quoted_by(&mut self, quote: u8) -> Result<Cow<'a, str>, QuoteError> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut end = start;
        loop {
            match bytes.get(end) {
                // The quote that ends the text is one without a backslash before it, whatever that backslash belongs to.
                Some(byte) if *byte == quote && (end == start || bytes.get(end - 1) != Some(&b'\\')) => break,
                Some(0) | None => return Err(QuoteError::Open),
                Some(_) => end += 1,
            }
        }
        let inner = self.text.get(start..end).unwrap_or_default();
        let text = unescape(inner, quote, start);
        if text.is_ok() {
            self.at = end + 1;
        }
        text
    }
}

fn unescape(inner: &str, quote: u8, start: usize) -> Result<Cow<'_, str>, QuoteError> {
    if !inner.contains('\\') {
        return Ok(inner.into());
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match chars.next() {
            Some((_, 'b')) => '\u{8}',
            Some((_, 'f')) => '\u{c}',
            Some((_, 'n')) => '\n',
            Some((_, 'r')) => '\r',
            Some((_, 't')) => '\t',
            // Yes, a backslash before a blank is a backslash alone.
            Some((_, '\\' | ' ')) => '\\',
            Some((_, '/')) => '/',
            Some((_, c)) if c == char::from(quote) => c,
            Some((_, c)) => return Err(QuoteError::Escape(start + at, c)),
            None => return Err(QuoteError::Open),
        });
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_they_end() {
        for (text, number) in
            [("1e3", "1"), ("1e+3x", "1e+3"), ("0x1g", "0x1"), ("0xg", "0"), ("-5.x", "-5."), ("+1.5,", "+1.5")]
        {
            assert_eq!(Scanner::new(text).number(), Some(number), "{text}");
        }
        assert_eq!(Scanner::new("-").number(), None);
        assert_eq!(Scanner::new("x1").number(), None);
    }

    #[test]
    fn quotes_end_at_the_first_that_no_backslash_precedes() {
        for (text, value) in [
            (r#""a b" c"#, Ok("a b".to_owned())),
            (r#""a\\""#, Err(QuoteError::Open)),
            (r#""a\"b""#, Ok("a\"b".to_owned())),
            (r#""a\ ""#, Ok("a\\".to_owned())),
            (r#""""#, Ok(String::new())),
            (r#"'it\"s'"#, Err(QuoteError::Escape(3, '"'))),
            ("'a\0'", Err(QuoteError::Open)),
            (r#""é\n""#, Ok("é\n".to_owned())),
        ] {
            assert_eq!(Scanner::new(text).quoted(), Some(value.map(Cow::from)), "{text}");
        }
        assert_eq!(Scanner::new("a").quoted(), None);
    }

    #[test]
    fn fields_have_a_dot() {
        assert_eq!(Scanner::new("proc.name.x-").field(), Some("proc.name.x"));
        assert_eq!(Scanner::new("proc.1").field(), None);
        assert_eq!(Scanner::new("evt.arg.0").field(), Some("evt.arg"));
        assert_eq!(Scanner::new("_a.b").field(), None);
    }
}
