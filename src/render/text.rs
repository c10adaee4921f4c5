//! Authored objects as the texts that the language reads.

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use serde_json::Value;

use crate::api::{ExceptionFields, FalcoListSpec, FalcoMacroSpec, FalcoRuleSpec};
use crate::language::{Code, Diagnostic, ExceptionText, ExceptionValue, Part, Span, Words, control};

/// The name of an object.
pub(super) fn object_name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// What to sort objects by, so that the older one comes first: those that are not created yet are the youngest.
pub(super) fn age(metadata: &ObjectMeta) -> (bool, Option<Timestamp>, &str) {
    let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created.is_none(), created, object_name(metadata))
}

/// The text of a part of a rule, for the places of findings in it.
#[must_use]
pub fn rule_text(spec: &FalcoRuleSpec, part: Part) -> &str {
    match part {
        Part::Name => &spec.rule,
        Part::Condition => &spec.condition,
        Part::Desc => &spec.desc,
        Part::Output => &spec.output,
        Part::Source => spec.source.as_deref().unwrap_or_default(),
        Part::Priority => &spec.priority.0,
        Part::Tag(index) => spec.tags.get(index as usize).map(String::as_str).unwrap_or_default(),
        Part::Entry(_) | Part::Exception(_) | Part::Whole => "",
    }
}

/// The text of a part of a macro, for the places of findings in it.
#[must_use]
pub fn macro_text(spec: &FalcoMacroSpec, part: Part) -> &str {
    match part {
        Part::Name => &spec.macro_,
        Part::Condition => &spec.condition,
        _ => "",
    }
}

/// The text of a part of a list, for the places of findings in it.
#[must_use]
pub fn list_text(spec: &FalcoListSpec, part: Part) -> &str {
    match part {
        Part::Name => &spec.list,
        Part::Entry(index) => spec.items.get(index as usize).map(String::as_str).unwrap_or_default(),
        _ => "",
    }
}

/// The exceptions of a rule. What is no text, number, boolean or list of them is reported.
pub(super) fn exceptions(spec: &FalcoRuleSpec, report: &mut Vec<Diagnostic>) -> Vec<ExceptionText> {
    let words = |fields: &ExceptionFields| match fields {
        ExceptionFields::One(word) => Words::One(word.clone()),
        ExceptionFields::Many(words) => Words::Many(words.clone()),
    };
    let mut texts = Vec::with_capacity(spec.exceptions.len());
    for (index, exception) in spec.exceptions.iter().enumerate() {
        let values: Option<Vec<_>> = exception.values.iter().map(|value| exception_value(value, 0)).collect();
        if values.is_none() {
            let message = format!("a value of exception `{}` is neither text nor a list of texts", exception.name);
            let finding = Diagnostic::invalid(Code::Exception, Span::default(), message);
            report.push(finding.within(Part::Exception(index as u32)).help("put each value in quotes"));
        }
        texts.push(ExceptionText {
            name: exception.name.clone(),
            fields: words(&exception.fields),
            comps: exception.comps.as_ref().map(words),
            values: values.unwrap_or_default(),
        });
    }
    texts
}

/// Falco takes every scalar for its text; lists are in lists no deeper than a tuple with a list in it.
fn exception_value(value: &Value, depth: usize) -> Option<ExceptionValue> {
    match value {
        Value::String(text) => Some(ExceptionValue::One(text.clone())),
        Value::Number(number) => Some(ExceptionValue::One(number.to_string())),
        Value::Bool(flag) => Some(ExceptionValue::One(flag.to_string())),
        Value::Array(values) if depth < 2 => values
            .iter()
            .map(|value| exception_value(value, depth + 1))
            .collect::<Option<_>>()
            .map(ExceptionValue::Many),
        _ => None,
    }
}

/// What must not be in a description, by the same rule as for outputs.
pub(super) fn check_desc(desc: &str, report: &mut Vec<Diagnostic>) {
    let whole = Span::new(0, desc.len());
    if desc.is_empty() {
        report.push(Diagnostic::invalid(Code::Structure, whole, "a rule needs a description").within(Part::Desc));
    }
    if let Some((at, c)) = control(desc) {
        let message = format!("the description holds the control character {}", c.escape_default());
        let finding = Diagnostic::unsafe_(Code::ControlCharacter, Span::new(at, at + c.len_utf8()), message);
        report.push(finding.within(Part::Desc).help("remove it"));
    }
}
