//! From a place in the text of an item to the bytes of the file that it was read from.

use std::ops::Range;

use super::marked::{Kind, Node};
use crate::language::{Diagnostic, Span};

/// The bytes of the file that a part of a scalar stands for.
pub fn of_span(node: &Node, file: &str, span: Span) -> Range<usize> {
    let start = node.byte_at(file, span.start as usize);
    if span.end <= span.start {
        return start..start;
    }
    // The last character and not the place behind it: blanks that come from folded lines stand nowhere.
    let last = node.byte_at(file, span.end as usize - 1);
    let length = file.get(last..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    start..(last + length).max(start)
}

/// The key that says what an item is, with its name.
pub fn whole_of(node: &Node, kind: &str) -> Range<usize> {
    node.entry(kind).map_or(node.span.clone(), |(key, value)| key.span.start..value.span.end.max(key.span.end))
}

/// Where in an exception stands what a finding is about: the scalar that the finding quotes, else the exception's name.
pub fn of_exception(node: &Node, finding: &Diagnostic) -> Range<usize> {
    let quoted: Vec<&str> = finding.message.split('`').skip(1).step_by(2).collect();
    let name = node.get("name");
    let meant = quoted.iter().find_map(|word| {
        let keys = ["fields", "comps", "values"];
        keys.iter().filter_map(|key| node.get(key)).find_map(|node| scalar_of(node, word))
    });
    match (meant, name) {
        (Some(node), _) => node.span.clone(),
        (None, Some(name)) if name.scalar().is_some() => name.span.clone(),
        _ => node.span.clone(),
    }
}

fn scalar_of<'n>(node: &'n Node, word: &str) -> Option<&'n Node> {
    match &node.kind {
        Kind::Scalar { text, .. } => (text == word).then_some(node),
        Kind::Seq(items) => items.iter().find_map(|item| scalar_of(item, word)),
        Kind::Map(_) => None,
    }
}
