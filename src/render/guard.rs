//! What no rules file may hold, whoever checked it before: texts that harm Falco's engine or another tenant's alerts.

use std::collections::BTreeSet;

use super::Rejection;
use super::file_rule::FileRule;
use crate::api::Reason;

/// How deep parentheses may be nested; Falco's own limit is not enforced, and its stack overflows far above this one.
const MAX_DEPTH: usize = 100;
/// The longest condition, in bytes.
const MAX_CONDITION: usize = 65_536;
/// The longest output, in bytes.
const MAX_OUTPUT: usize = 8_192;
/// How many digits the width of an output field may have; Falco allocates as much as is asked for.
const MAX_WIDTH_DIGITS: usize = 4;
/// The longest name, in bytes.
const MAX_NAME: usize = 253;

/// Checks a rule, as written or as it stands in a bundle.
pub(super) fn check(rule: &FileRule) -> Result<(), Rejection> {
    let unsafe_ = |message: String| Err(Rejection::new(Reason::Unsafe, message));
    if rule.condition.contains('\0') {
        return Err(Rejection::new(Reason::Invalid, "the condition contains a NUL character; remove it".to_owned()));
    }
    for (what, length, limit) in [
        ("condition", rule.condition.len(), MAX_CONDITION),
        ("output", rule.output.len(), MAX_OUTPUT),
        ("name", rule.rule.len(), MAX_NAME + 64),
    ] {
        if length > limit {
            return unsafe_(format!("the {what} is {length} bytes long; at most {limit} are allowed"));
        }
    }
    if let Some(c) = rule.rule.chars().find(|c| is_control(*c) || matches!(c, '"' | '\\' | '*')) {
        return unsafe_(format!(
            "the name of the rule contains {c:?}, which Falco's metrics would not escape; remove it"
        ));
    }
    for (what, text) in [("desc", &rule.desc), ("output", &rule.output)] {
        if let Some(c) = text.chars().find(|c| is_control(*c)) {
            return unsafe_(format!(
                "the {what} contains the control character {c:?}, with which an alert could be forged; remove it"
            ));
        }
    }
    let depth = depth(&rule.condition);
    if depth > MAX_DEPTH {
        return unsafe_(format!(
            "the parentheses of the condition are nested {depth} deep; at most {MAX_DEPTH} are allowed"
        ));
    }
    if let Some(width) = wide_field(&rule.output) {
        return unsafe_(format!(
            "the output asks for a field of {width} characters; a width has at most {MAX_WIDTH_DIGITS} digits"
        ));
    }
    if rule.level().is_none() {
        return Err(Rejection::new(
            Reason::Invalid,
            format!(
                "`{}` is no priority; there are EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO and DEBUG",
                rule.priority
            ),
        ));
    }
    let mut seen = BTreeSet::new();
    for tag in &rule.tags {
        if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            return unsafe_(format!("the tag `{tag}` is not made of letters, digits, `_`, `.` and `-` alone"));
        }
        if !seen.insert(tag.replace(['.', '-'], "_")) {
            return unsafe_(format!(
                "the tag `{tag}` is like another one once all but letters and digits are read as `_`"
            ));
        }
    }
    Ok(())
}

/// C0, DEL, C1, and the two separators that some readers take for line breaks.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// How deep parentheses are nested at most, quoted ones included.
fn depth(condition: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for byte in condition.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

/// The first width of a field that is too large, as written.
fn wide_field(output: &str) -> Option<&str> {
    output.split('%').skip(1).find_map(|field| {
        let end = field.find(|c: char| !c.is_ascii_digit()).unwrap_or(field.len());
        field.get(..end).filter(|digits| digits.len() > MAX_WIDTH_DIGITS)
    })
}

/// A word of the text that is one of the names, where Falco would see one: between blanks, parentheses, commas, quotes
/// and operators.
pub(super) fn word_of<'t>(text: &'t str, names: &BTreeSet<&str>) -> Option<&'t str> {
    let by = |is_delimiter: fn(char) -> bool| text.split(is_delimiter).find(|word| names.contains(word));
    by(|c| c.is_whitespace() || "()\"'=,<>!\u{8}".contains(c))
        .or_else(|| by(|c| !(c.is_ascii_alphanumeric() || c == '_')))
        .or_else(|| by(|c| " \t\n\r(),=".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> FileRule {
        FileRule {
            rule: "r".into(),
            desc: "d".into(),
            condition: "evt.num > 0".into(),
            output: "o".into(),
            priority: "INFO".into(),
            ..FileRule::default()
        }
    }

    #[test]
    fn what_harms_is_refused_in_words() {
        assert!(check(&rule()).is_ok());
        let deep = |n: usize| FileRule { condition: format!("{}a.b=c{}", "(".repeat(n), ")".repeat(n)), ..rule() };
        assert!(check(&deep(100)).is_ok());
        for (odd, words) in [
            (deep(101), "nested 101 deep; at most 100"),
            (FileRule { condition: "a\0b".into(), ..rule() }, "NUL"),
            (FileRule { condition: "x".repeat(65_537), ..rule() }, "65537 bytes long; at most 65536"),
            (FileRule { output: "%10000proc.name".into(), ..rule() }, "a field of 10000 characters"),
            (FileRule { output: "a\nb".into(), ..rule() }, "control character"),
            (FileRule { output: "a\u{2028}b".into(), ..rule() }, "control character"),
            (FileRule { rule: "a\"b".into(), ..rule() }, "metrics"),
            (FileRule { priority: "WARN".into(), ..rule() }, "`WARN` is no priority"),
            (FileRule { tags: vec!["a b".into()], ..rule() }, "letters, digits"),
            (FileRule { tags: vec!["a.b".into(), "a-b".into()], ..rule() }, "like another one"),
        ] {
            let err = check(&odd).unwrap_err();
            assert!(err.message.contains(words), "{}", err.message);
        }
        assert!(check(&FileRule { output: "%1000proc.name 12345".into(), ..rule() }).is_ok());
    }

    #[test]
    fn words_are_found_as_falco_finds_them() {
        let names = BTreeSet::from(["shells", "my-list", "m"]);
        for text in [
            "proc.name in (shells)",
            "a in(x,shells)",
            "evt.type=shells",
            "fd.name = \"x shells y\"",
            "not(m)",
            "m and x",
            "a.b>m",
            "proc.name in (my-list)",
            "x = 'my-list'",
            "m",
        ] {
            assert!(word_of(text, &names).is_some(), "{text}");
        }
        for text in ["proc.name in (shellsx)", "xm", "m1", "fd.name = my_list"] {
            assert!(word_of(text, &names).is_none(), "{text}");
        }
    }
}
