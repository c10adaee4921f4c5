//! Regular expressions as the engine reads them: RE2 in POSIX syntax, without Perl's classes, groups and escapes.

use super::limits::REGEX_REPEAT;

/// Instructions of the compiled program that an expression may come to; RE2 gives up at about 130,000.
const PROGRAM: u64 = 50_000;

/// Names of classes within brackets.
const CLASSES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Whether an expression holds anything that a plain comparison could not do.
pub(crate) fn is_literal(text: &str) -> bool {
    !text.bytes().any(|byte| b"\\^$.|?*+()[]{}".contains(&byte))
}

/// What has been read of a group, or of the whole.
#[derive(Default)]
struct Group {
    /// The most often that a part is repeated, repetitions within repetitions multiplied.
    repeats: u64,
    /// About how many instructions it compiles to.
    size: u64,
    /// What a repetition would apply to: its repeats and size.
    last: Option<(u64, u64)>,
}

impl Group {
    fn push(&mut self, repeats: u64, size: u64) {
        self.settle();
        self.last = Some((repeats, size));
    }

    fn settle(&mut self) {
        if let Some((repeats, size)) = self.last.take() {
            self.repeats = self.repeats.max(repeats);
            self.size = self.size.saturating_add(size);
        }
    }
}

/// Says what is wrong with an expression, in RE2's words where it is RE2 that refuses it.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut rest = text;
    let mut groups: Vec<Group> = vec![];
    let mut group = Group::default();
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '(' => {
                groups.push(std::mem::take(&mut group));
                rest = after;
            }
            ')' => {
                let Some(outer) = groups.pop() else { return Err("unexpected )".to_owned()) };
                let mut inner = std::mem::replace(&mut group, outer);
                inner.settle();
                group.push(inner.repeats.max(1), inner.size + 2);
                rest = after;
            }
            '|' => {
                group.settle();
                group.size += 1;
                rest = after;
            }
            '*' | '+' | '?' => {
                let Some((repeats, size)) = group.last else {
                    return Err(format!("no argument for repetition operator: {c}"));
                };
                group.last = Some((repeats, size + 1));
                rest = after;
            }
            '{' => {
                if let Some((least, most, after)) = repetition(after) {
                    let shown = rest.strip_suffix(after).unwrap_or(rest);
                    let Some((repeats, size)) = group.last else {
                        return Err(format!("no argument for repetition operator: {shown}"));
                    };
                    let times = u64::from(most.unwrap_or(least).max(least));
                    let repeats = if times >= 2 { repeats.saturating_mul(times) } else { repeats };
                    if most.is_some_and(|most| most < least) || repeats > u64::from(REGEX_REPEAT) {
                        return Err(format!("invalid repetition size: {shown}"));
                    }
                    group.last = Some((repeats, size.saturating_mul(times.max(1)).saturating_add(1)));
                    rest = after;
                } else {
                    group.push(1, 1);
                    rest = after;
                }
            }
            '[' => {
                rest = class(after)?;
                group.push(1, 6);
            }
            '\\' => {
                rest = escape(after)?.1;
                group.push(1, 1);
            }
            _ => {
                group.push(1, if c == '.' { 9 } else { c.len_utf8() as u64 });
                rest = after;
            }
        }
    }
    if !groups.is_empty() {
        return Err(format!("missing ): {text}"));
    }
    group.settle();
    if group.size > PROGRAM {
        return Err(format!("too large: it compiles to about {} instructions, the limit is {PROGRAM}", group.size));
    }
    Ok(())
}

/// `n}`, `n,}` or `n,m}`. Anything else makes the brace an ordinary character. Numbers that are too large come back as
/// just too large.
fn repetition(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (least, rest) = number(text)?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((least, Some(least), rest));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(rest) = rest.strip_prefix('}') {
        // Without an upper bound the parts up to the lower one are written out.
        return Some((least, None, rest));
    }
    let (most, rest) = number(rest)?;
    Some((least, Some(most), rest.strip_prefix('}')?))
}

fn number(text: &str) -> Option<(u32, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(length)?;
    // RE2 takes no leading zeros.
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}

/// What follows a backslash: the character that it stands for.
fn escape(text: &str) -> Result<(u32, &str), String> {
    let mut chars = text.chars();
    let Some(c) = chars.next() else { return Err("trailing \\".to_owned()) };
    let rest = chars.as_str();
    let bad = || Err(format!("invalid escape sequence: \\{c}"));
    match c {
        '1'..='7' if !rest.starts_with(|next: char| next.is_digit(8)) => bad(),
        '0'..='7' => {
            let more = rest.bytes().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            let digits = text.get(..=more).unwrap_or_default();
            Ok((u32::from_str_radix(digits, 8).unwrap_or_default(), text.get(1 + more..).unwrap_or_default()))
        }
        'x' => {
            if let Some(braced) = rest.strip_prefix('{') {
                let hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                let braced = braced.split_once('}').filter(|(digits, _)| hexadecimal(digits));
                return match braced.map(|(digits, rest)| (u32::from_str_radix(digits, 16), rest)) {
                    Some((Ok(value), rest)) if value <= 0x0010_ffff => Ok((value, rest)),
                    _ => bad(),
                };
            }
            match rest.get(..2).map(|digits| (digits, u32::from_str_radix(digits, 16))) {
                Some((digits, Ok(value))) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    Ok((value, rest.get(2..).unwrap_or_default()))
                }
                _ => bad(),
            }
        }
        'n' => Ok((10, rest)),
        'r' => Ok((13, rest)),
        't' => Ok((9, rest)),
        'a' => Ok((7, rest)),
        'f' => Ok((12, rest)),
        'v' => Ok((11, rest)),
        _ if c.is_ascii_punctuation() && c != '_' => Ok((c as u32, rest)),
        _ => bad(),
    }
}

/// What follows an opening bracket, up to behind the closing one.
fn class(text: &str) -> Result<&str, String> {
    let mut rest = text.strip_prefix('^').unwrap_or(text);
    let mut first = true;
    loop {
        if rest.starts_with(']') && !first {
            return Ok(&rest[1..]);
        }
        if rest.is_empty() {
            return Err(format!("missing ]: [{text}"));
        }
        // A `-` is a range's only between two; elsewhere it must be first or last.
        if rest.starts_with('-') && !first && !rest[1..].starts_with(']') {
            return Err(format!("invalid character class range: {}", rest.chars().take(2).collect::<String>()));
        }
        first = false;
        if let Some(named) = rest.strip_prefix("[:")
            && let Some((name, after)) = named.split_once(":]")
        {
            if !CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                return Err(format!("invalid character class range: [:{name}:]"));
            }
            rest = after;
            continue;
        }
        let start = rest;
        let low;
        (low, rest) = class_character(rest)?;
        if rest.starts_with('-') && !rest[1..].starts_with(']') && rest.len() > 1 {
            let high;
            (high, rest) = class_character(&rest[1..])?;
            if high < low {
                let shown = start.strip_suffix(rest).unwrap_or(start);
                return Err(format!("invalid character class range: {shown}"));
            }
        }
    }
}

fn class_character(text: &str) -> Result<(u32, &str), String> {
    if let Some(rest) = text.strip_prefix('\\') {
        return escape(rest);
    }
    let mut chars = text.chars();
    match chars.next() {
        Some(c) => Ok((c as u32, chars.as_str())),
        None => Err("missing ]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posix_syntax_is_taken_and_no_other() {
        for text in [
            "",
            "^a.*b$",
            "a|b",
            "[a-z]",
            "a{2}",
            "x{0,}",
            "(|a)",
            "a**",
            "^*",
            "[]a]",
            "[^]]",
            "[[:alpha:]_]",
            r"\.",
            r"\x41",
            r"\012",
            "{",
            "a{,5}",
            "a{x}",
            "é+",
            "[a-]",
            "[-a]",
            "(a{10}){100}",
            "()",
            "a{01}",
            r"[\]]",
            "a]",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in [
            "[",
            "(a",
            "a)",
            "*",
            "+a",
            "a|*",
            "(?=a)",
            "(?:a)",
            r"\d+",
            r"\w",
            r"\b",
            r"\1",
            r"\Q.\E",
            "a{1001}",
            "a{5,2}",
            "(a{100}){11}",
            "[z-a]",
            "[[:foo:]]",
            r"\",
            r"[\d]",
            "[a",
            "{2}",
            "[a-b-c]",
            r"\p{L}",
            r"\x4",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(check(&"[a-z]{1000}".repeat(20)).is_err());
    }

    #[test]
    fn what_has_no_metacharacters_is_a_comparison() {
        assert!(is_literal("foo") && is_literal(""));
        assert!(!is_literal("a+") && !is_literal("[a]"));
    }
}
