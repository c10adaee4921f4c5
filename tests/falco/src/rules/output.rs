//! Outputs: which `%fields` a text holds, and the text of an alert.

use super::check::operand_exists;
use super::condition::{self, Operand};
use crate::fields::Catalogue;
use std::collections::BTreeMap;

/// A part of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Copied.
    Text(String),
    /// The value of a field, cut or filled to a width unless that is 0; `plain` ones appear in JSON objects.
    Field {
        /** As written. */
        name: String,
        /** 0 for none. */
        width: usize,
        /** Not a transformer. */
        plain: bool,
    },
}

/// Takes an output apart; each `%` is followed by the longest text that is a field.
pub fn compile(text: &str, source: &str, catalogue: &Catalogue) -> Result<Vec<Token>, String> {
    let text = text.strip_prefix('*').unwrap_or(text);
    if text.trim().is_empty() {
        return Err("empty formatting token".to_owned());
    }
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, after) = rest.split_at(at);
        if !before.is_empty() {
            tokens.push(Token::Text(before.to_owned()));
        }
        let after = after.strip_prefix('%').unwrap_or_default();
        if after.is_empty() {
            return Err("invalid formatting syntax: formatting cannot end with a %".to_owned());
        }
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (width, name) = after.split_at(digits);
        if name.is_empty() {
            return Err("invalid formatting syntax: formatting cannot end with a number".to_owned());
        }
        let (length, plain) = longest_field(name, source, catalogue)
            .ok_or_else(|| "unknown filter: unexpected token after '".to_owned())?;
        let (name, remaining) = name.split_at(length);
        tokens.push(Token::Field { name: name.to_owned(), width: width.parse().unwrap_or(0), plain });
        rest = remaining;
    }
    if !rest.is_empty() {
        tokens.push(Token::Text(rest.to_owned()));
    }
    Ok(tokens)
}

fn longest_field(text: &str, source: &str, catalogue: &Catalogue) -> Option<(usize, bool)> {
    if let Some((operand @ Operand::Transform { .. }, length)) = condition::operand(text) {
        return operand_exists(&operand, source, catalogue).then_some((length, false));
    }
    // A field's name never holds a blank; an argument may, but not without its closing bracket.
    let longest = text.find(']').map_or(0, |at| at + 1);
    let word = text.find(|c: char| c.is_whitespace()).unwrap_or(text.len());
    let mut end = longest.max(word).min(text.len());
    while end > 0 {
        if let Some(candidate) = text.get(..end)
            && let Some((operand, length)) = condition::operand(candidate)
            && length == end
            && operand_exists(&operand, source, catalogue)
        {
            return Some((length, true));
        }
        end -= 1;
    }
    None
}

/// The alert's text, with `<NA>` where the event has no value.
pub fn render(tokens: &[Token], values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for token in tokens {
        match token {
            Token::Text(text) => out.push_str(text),
            Token::Field { name, width, .. } => {
                let value = values.get(name).map_or("<NA>", String::as_str);
                if *width == 0 {
                    out.push_str(value);
                } else {
                    out.extend(value.chars().chain(std::iter::repeat(' ')).take(*width));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> Result<Vec<Token>, String> {
        compile(text, "syscall", &Catalogue::new(vec!["container".to_owned()]))
    }

    #[test]
    fn the_longest_field_is_taken_and_the_rest_is_text() {
        let tokens = compiled("a %proc.namefoo %5proc.name.").unwrap();
        let field = |width| Token::Field { name: "proc.name".into(), width, plain: true };
        let text = |text: &str| Token::Text(text.into());
        assert_eq!(tokens, [text("a "), field(0), text("foo "), field(5), text(".")]);
        let values = BTreeMap::from([("proc.name".to_owned(), "bash".to_owned())]);
        assert_eq!(render(&tokens, &values), "a bashfoo bash .");
        assert_eq!(render(&compiled("%k8s.ns.name").unwrap(), &values), "<NA>");
    }

    #[test]
    fn there_is_no_literal_percent_sign() {
        for bad in ["100%", "100% sure", "%%", "%foo bar", "%nosuch.field", " ", "%5"] {
            assert!(compiled(bad).is_err(), "{bad}");
        }
        for good in
            ["%proc.aname[2]", "%proc.aname[x]", "%proc.aname[2", "%toupper(proc.name)", "%evt.arg[0]", "*%evt.time"]
        {
            assert!(compiled(good).is_ok(), "{good}");
        }
    }
}
