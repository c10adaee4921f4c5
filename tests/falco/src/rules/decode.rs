//! Values of an item's keys, with Falco's words for those that it does not take.

use super::issue::{Code, Context, Issue};
use crate::config::boolean;
use crate::yaml::{Kind, Node};

/// A value, or what Falco says of it.
pub type Read<T> = Result<T, Issue>;

/// The shape is wrong.
pub fn invalid<T>(message: impl Into<String>, context: &Context) -> Read<T> {
    Err(Issue::new(Code::YamlValidate, message, context))
}

/// The shape is right and the content is not.
pub fn refused<T>(message: impl Into<String>, context: &Context) -> Read<T> {
    Err(Issue::new(Code::Validate, message, context))
}

/// A text that is there and not empty.
pub fn scalar<'n>(node: &'n Node, key: &str, context: &Context) -> Read<&'n str> {
    let context = context.item("value for", key, node.mark);
    match &node.kind {
        Kind::Null => invalid(format!("Mapping for key '{key}' is empty"), &context),
        Kind::Scalar(text) if text.is_empty() => invalid("Value must be non-empty", &context),
        Kind::Scalar(text) => Ok(text),
        _ => invalid("Value is not a scalar value", &context),
    }
}

/// The same of a key that must be there, with its node.
pub fn required<'n>(item: &'n Node, key: &str, context: &Context) -> Read<(&'n str, &'n Node)> {
    match item.get(key) {
        Some(node) => Ok((scalar(node, key, context)?, node)),
        None => invalid(format!("Item has no mapping for key '{key}'"), context),
    }
}

/// The same of a key that may be absent.
pub fn optional<'n>(item: &'n Node, key: &str, context: &Context) -> Read<Option<&'n str>> {
    item.get(key).map(|node| scalar(node, key, context)).transpose()
}

/// A boolean of a key that may be absent.
pub fn optional_bool(item: &Node, key: &str, context: &Context) -> Read<Option<bool>> {
    let Some(text) = optional(item, key, context)? else { return Ok(None) };
    match boolean(text) {
        Some(value) => Ok(Some(value)),
        None => invalid("Can't decode YAML scalar value", &context.item("value for", key, item.mark)),
    }
}

/// A sequence of scalars.
pub fn sequence(item: &Node, key: &str, context: &Context) -> Read<Vec<String>> {
    let Some(node) = item.get(key) else {
        return invalid(format!("Item has no mapping for key '{key}'"), context);
    };
    let context = context.item("value for", key, node.mark);
    let Some(items) = node.seq() else { return invalid("Value is not a sequence", &context) };
    let text = |node: &Node| match node.scalar() {
        Some(text) => Ok(text.to_owned()),
        None => invalid("sequence value is not scalar", &context),
    };
    items.iter().map(text).collect()
}
