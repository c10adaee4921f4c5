//! The exceptions of rules: reading, checking, appending.

use super::check;
use super::condition;
use super::decode::{Read, invalid, refused, required};
use super::issue::{Code, Context};
use super::items::{Entry, Exception, Rule};
use super::reader::Reader;
use crate::yaml::{Kind, Node};

impl Reader<'_> {
    /// Appends to a rule's exceptions: values to those that it has, or whole new ones.
    pub fn append_exceptions(&mut self, rule: &mut Rule, exceptions: Vec<Exception>) -> Read<()> {
        for exception in exceptions {
            if exception.values.is_empty() {
                let message = "Overriding/appending exception with no values";
                self.warn(Code::AppendNoValues, message, &exception.context);
            }
            if let Some(old) = rule.exceptions.iter_mut().find(|old| old.name == exception.name) {
                if exception.fields != Entry::Absent {
                    return refused(
                        "Can not append exception fields to existing exception, only values",
                        &exception.context,
                    );
                }
                if exception.comps != Entry::Absent {
                    return refused(
                        "Can not append exception comps to existing exception, only values",
                        &exception.context,
                    );
                }
                old.values.extend(exception.values);
                continue;
            }
            if exception.fields == Entry::Absent {
                return refused("Rule exception must have fields property with a list of fields", &exception.context);
            }
            if exception.values.is_empty() {
                return refused("Rule exception must have values property with a list of values", &exception.context);
            }
            let validated = self.validated(exception, &rule.source, rule.unknown_source)?;
            rule.exceptions.push(validated);
        }
        Ok(())
    }

    /// Reads the key `exceptions`.
    pub fn exceptions(item: &Node, append: bool, context: &Context) -> Read<Vec<Exception>> {
        let Some(node) = item.get("exceptions").filter(|node| !node.is_null()) else { return Ok(Vec::new()) };
        let context = context.item("exceptions", "", node.mark);
        let Some(entries) = node.seq() else { return invalid("Rule exceptions must be a sequence", &context) };
        let mut exceptions = Vec::new();
        for entry in entries {
            let (name, _) = required(entry, "name", &context.item("exception", "", entry.mark))?;
            let context = context.item("exception", name, entry.mark);
            let part = |key: &str| entry.get(key).map(read_entry).unwrap_or_default();
            if !append && entry.get("fields").is_none() {
                return invalid("Item has no mapping for key 'fields'", &context);
            }
            let values = match entry.get("values") {
                None => Vec::new(),
                Some(values) => match values.seq() {
                    Some(values) => values.iter().map(read_entry).collect(),
                    None => return invalid("Rule exception values must be a sequence", &context),
                },
            };
            exceptions.push(Exception {
                name: name.to_owned(),
                fields: part("fields"),
                comps: part("comps"),
                values,
                context,
            });
        }
        Ok(exceptions)
    }

    /// Fills in the default operators and checks them and the fields.
    pub fn validated(&mut self, mut exception: Exception, source: &str, unknown_source: bool) -> Read<Exception> {
        let context = exception.context.clone();
        if let Entry::Many(fields) = &exception.fields {
            if exception.comps == Entry::Absent {
                exception.comps = Entry::Many(vec![Entry::One("=".to_owned()); fields.len()]);
            }
            if !matches!(&exception.comps, Entry::Many(comps) if comps.len() == fields.len()) {
                return refused("Fields and comps lists must have equal length", &context);
            }
            for comp in exception.comps.members() {
                if !is_operator(comp.text()) {
                    return refused(format!("'{}' is not a supported comparison operator", comp.text()), &context);
                }
            }
        } else {
            if exception.comps == Entry::Absent {
                exception.comps = Entry::One("in".to_owned());
            }
            let comp = exception.comps.text();
            if !(["in", "pmatch", "intersects"].contains(&comp) || comp.contains(' ') && is_operator(comp)) {
                return refused(
                    "When fields is a single value, comps must be one of (in, pmatch, intersects) or a modifier operator (e.g. startswith oneof)",
                    &context,
                );
            }
        }
        for field in exception.fields.members() {
            let text = field.text();
            let known = condition::operand(text).is_some_and(|(operand, length)| {
                length == text.len() && check::operand_exists(&operand, source, self.catalogue)
            });
            if !known && !unknown_source {
                return refused(format!("'{text}' is not a supported filter field"), &context);
            }
        }
        Ok(exception)
    }
}

fn read_entry(node: &Node) -> Entry {
    match (&node.kind, node.scalar()) {
        (Kind::Seq(items), _) => Entry::Many(items.iter().map(read_entry).collect()),
        (_, Some(text)) => Entry::One(text.to_owned()),
        _ => Entry::One(String::new()),
    }
}

fn is_operator(text: &str) -> bool {
    const OPERATORS: [&str; 21] = [
        "exists",
        "=",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "contains",
        "icontains",
        "bcontains",
        "startswith",
        "bstartswith",
        "endswith",
        "glob",
        "iglob",
        "regex",
        "in",
        "intersects",
        "pmatch",
        "",
    ];
    match text.split_once(' ') {
        None => !text.is_empty() && OPERATORS.contains(&text),
        Some((operator, modifier)) => {
            OPERATORS.contains(&operator) && ["oneof", "anyof", "allof"].contains(&modifier.trim())
        }
    }
}
