//! The rules file's YAML: an emitter for the few shapes that a rules file has.
//!
//! General YAML libraries leave `no`, `=`, dates and some Unicode unquoted, which some parser then reads as something
//! else. Here a scalar is plain only where the parsers of YAML 1.1 and 1.2, yaml-cpp among them, all agree that it is
//! that string, and double-quoted on one line otherwise, with escapes that all of them know.

use std::fmt::Write;

use super::file_rule::FileRule;
use crate::language::is_printable_ascii;

/// Words that some parser of some version of YAML takes for a boolean, a null or a number, in lower case.
const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

/// Bytes of the longest of them.
const LONGEST_WORD: usize = {
    let (mut longest, mut index) = (0, 0);
    while index < WORDS.len() {
        if WORDS[index].len() > longest {
            longest = WORDS[index].len();
        }
        index += 1;
    }
    longest
};

/// Appends a rule as a list item of a rules file, final newline included. The keys have a fixed order, and those that
/// say nothing are left out.
pub(super) fn push_rule(out: &mut String, rule: &FileRule<'_>) {
    push_name(out, &rule.rule);
    for (key, text) in
        [("desc", &rule.desc), ("condition", &rule.condition), ("output", &rule.output), ("priority", &rule.priority)]
    {
        push_key(out, key);
        push_scalar(out, text);
    }
    push_bool(out, "enabled", rule.enabled);
    if !rule.tags.is_empty() {
        push_key(out, "tags");
        let mut separator = "[";
        for tag in rule.tags.iter() {
            out.push_str(separator);
            push_flow_scalar(out, tag);
            separator = ", ";
        }
        out.push(']');
    }
    if let Some(source) = &rule.source {
        push_key(out, "source");
        push_scalar(out, source);
    }
    push_bool(out, "warn_evttypes", rule.warn_evttypes);
    push_bool(out, "skip-if-unknown-filter", rule.skip_if_unknown_filter);
    push_bool(out, "capture", rule.capture);
    if let Some(milliseconds) = rule.capture_duration {
        push_key(out, "capture_duration");
        let _always = write!(out, "{milliseconds}");
    }
    out.push('\n');
}

/// Appends the first line of a rule, without the newline.
pub(super) fn push_name(out: &mut String, name: &str) {
    out.push_str("- rule: ");
    push_scalar(out, name);
}

fn push_key(out: &mut String, key: &str) {
    out.push_str("\n  ");
    out.push_str(key);
    out.push_str(": ");
}

fn push_bool(out: &mut String, key: &str, value: Option<bool>) {
    if let Some(value) = value {
        push_key(out, key);
        out.push_str(if value { "true" } else { "false" });
    }
}

/// Appends the text as the value of a key.
pub(crate) fn push_scalar(out: &mut String, text: &str) {
    if is_plain(text) { out.push_str(text) } else { push_quoted(out, text) }
}

/// Appends the text as an element of a list in brackets.
pub(crate) fn push_flow_scalar(out: &mut String, text: &str) {
    let indicates = |byte: u8| matches!(byte, b',' | b'[' | b']' | b'{' | b'}' | b':' | b'?');
    if is_plain(text) && !text.bytes().any(indicates) {
        out.push_str(text);
    } else {
        push_quoted(out, text);
    }
}

/// Whether every parser reads the text, unquoted, as itself: it begins with a letter (or `_`, `/`, `(`), so that it is
/// no number, date, merge key or indicator; it is no word with a meaning; it holds nothing but printable ASCII, and
/// nothing in it ends the scalar early.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    (first.is_ascii_alphabetic() || matches!(first, b'_' | b'/' | b'('))
        && !matches!(last, b' ' | b':')
        && is_printable_ascii(text)
        && !ends_early(bytes)
        && !(text.len() <= LONGEST_WORD && WORDS.iter().any(|word| word.eq_ignore_ascii_case(text)))
}

/// Whether a plain scalar would end within the text: at a colon before a blank, or at a number sign behind one.
fn ends_early(bytes: &[u8]) -> bool {
    memchr::memchr2_iter(b':', b'#', bytes).any(|at| match bytes.get(at) {
        Some(b':') => bytes.get(at + 1) == Some(&b' '),
        _ => at > 0 && bytes.get(at - 1) == Some(&b' '),
    })
}

/// Appends the text in double quotes. Whatever is not plainly printable everywhere is escaped: control characters (a
/// raw U+0004 ends yaml-cpp's input), what YAML 1.1 takes for line breaks, byte order marks and noncharacters.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _always = match code {
                    0..=0xFF => write!(out, "\\x{code:02X}"),
                    0x100..=0xFFFF => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
}

/// Whether every parser takes the character as it is within quotes.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        ..'\u{A1}' | '\u{2028}' | '\u{2029}' | '\u{FDD0}'..='\u{FDEF}' | '\u{FEFF}' => false,
        c => u32::from(c) & 0xFFFE != 0xFFFE,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_block(text: &str) -> String {
        let mut out = String::from("- rule: ");
        push_scalar(&mut out, text);
        out.push_str("\n  desc: x\n");
        out
    }

    fn in_flow(text: &str) -> String {
        let mut out = String::from("- tags: [");
        push_flow_scalar(&mut out, text);
        out.push_str(", x]\n");
        out
    }

    /// Both parsers give the text back, as a string, in both places.
    fn comes_back(text: &str) {
        for (yaml, pointer) in [(in_block(text), "/0/rule"), (in_flow(text), "/0/tags/0")] {
            let one: serde_json::Value = serde_yaml::from_str(&yaml).unwrap_or_else(|err| panic!("{err} in {yaml:?}"));
            assert_eq!(one.pointer(pointer).and_then(|v| v.as_str()), Some(text), "yaml_serde: {yaml:?}");
            let two: serde_json::Value =
                serde_saphyr::from_str(&yaml).unwrap_or_else(|err| panic!("{err} in {yaml:?}"));
            assert_eq!(two.pointer(pointer).and_then(|v| v.as_str()), Some(text), "saphyr: {yaml:?}");
        }
    }

    #[test]
    fn texts_with_a_meaning_of_their_own_come_back() {
        for text in [
            "",
            " ",
            "~",
            "null",
            "Null",
            "no",
            "NO",
            "y",
            "N",
            "on",
            "OFF",
            "true",
            "False",
            "=",
            "<<",
            "<",
            "*",
            "*a",
            "&a",
            "!a",
            "!!str a",
            "- a",
            "-",
            "--- a",
            "...",
            "? a",
            ": a",
            "a: b",
            "a:b",
            "a:",
            "a #b",
            "a#b",
            "# a",
            "{a}",
            "[a]",
            "a, b",
            "a]",
            "a}",
            "%a",
            "@a",
            "`a",
            "'a'",
            "\"a\"",
            "\\",
            "a\\",
            "0",
            "0x10",
            "0o17",
            "1e3",
            "1_000",
            "12:30:45",
            "2001-12-14",
            "2001-12-14t21:59:43.10-05:00",
            ".inf",
            ".nan",
            "nan",
            "inf",
            "-1",
            "+1",
            "a\nb",
            "a\n",
            "\n",
            "a\tb",
            "\ta",
            "a\r\nb",
            "a\u{4}b",
            "a\0b",
            "\u{7f}",
            "\u{85}",
            "\u{a0}",
            "a\u{2028}b",
            "\u{feff}a",
            "a\u{feff}",
            "\u{fffe}",
            "\u{ffff}",
            "\u{fdd0}",
            "\u{1f600}",
            "\u{1ffff}",
            "é",
            "(a) or b",
            "/etc",
            "a ",
            " a",
            "|",
            ">",
            "| a",
            "> a",
            "a | b",
            "null null",
            "a  b",
        ] {
            comes_back(text);
        }
    }

    #[test]
    fn what_reads_alike_everywhere_stays_plain() {
        for text in
            ["shell_in_container", "container.id != host and proc.name = bash", "a (b=%c d=%e[2])", "a:b", "WARNING"]
        {
            assert_eq!(in_block(text), format!("- rule: {text}\n  desc: x\n"));
        }
        for text in ["no", "=", "a: b", "1", "%proc.name", "é", "a\n", "2001-12-14", "", "Null"] {
            assert!(in_block(text).starts_with("- rule: \""), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            comes_back(&text);
        }

        #[test]
        fn any_text_of_indicators_comes_back(text in "[-ynY01.:,#&*!|>'\"%@`~=<?{}\\[\\]() \\\\\n\t\r\u{85}\u{2028}\u{feff}]{0,8}") {
            comes_back(&text);
        }
    }
}
