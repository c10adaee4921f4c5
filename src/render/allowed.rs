//! What the administrator's policy says to a rule.

use super::file_rule::FileRule;
use super::policy::{EventTypeMode, Settings};
use crate::api::Priority;
use crate::language::{Catalog, Checked, Code, Definitions, Diagnostic, Part, Span, catalogued, output_fields};

/// What policy objects to in a rule that was checked against these.
pub(super) fn check(
    rule: &FileRule<'_>,
    checked: &Checked,
    settings: &Settings,
    (definitions, catalog): (&Definitions<'_>, &Catalog),
) -> Vec<Diagnostic> {
    let mut report = Vec::new();
    let mut deny = |code, part, span, message: String, help: String| {
        report.push(Diagnostic::policy(code, span, message).within(part).help(help));
    };
    if let Some(sources) = settings.sources.as_ref().filter(|sources| !sources.contains(rule.source())) {
        let source = rule.source();
        let allowed = sources.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        deny(
            Code::DeniedSource,
            Part::Source,
            Span::new(0, source.len()),
            format!("rules of this namespace may not look at events of the source `{source}`"),
            format!("allowed: {allowed}"),
        );
    }
    if let Some(allowed) = &settings.priorities
        && let Some(level) = rule.level()
        && !allowed.contains(&level)
    {
        let names = allowed.iter().filter_map(|level| Priority::LEVELS.get(usize::from(*level)).copied());
        deny(
            Code::DeniedPriority,
            Part::Priority,
            Span::new(0, rule.priority.len()),
            format!("rules of this namespace may not have the priority {}", rule.priority),
            format!("allowed: {}", names.collect::<Vec<_>>().join(", ")),
        );
    }
    if settings.event_types == EventTypeMode::Require && checked.is_broad() {
        deny(
            Code::NeedsEventType,
            Part::Condition,
            Span::new(0, rule.condition.len()),
            "rules of this namespace must say which types of events they are for".to_owned(),
            "such as `evt.type = execve and ...`, or `evt.type in (open, openat) and ...`".to_owned(),
        );
    }
    if settings.denied_fields.is_empty() {
        return report;
    }
    let message = |field: &str| format!("rules of this namespace may not use the field `{field}`");
    let help = || "the administrator's policy denies it".to_owned();
    for (field, place) in checked.fields(definitions, catalog).iter().filter(|(field, _)| settings.denies(field)) {
        let span = if *place == Span::default() { Span::new(0, rule.condition.len()) } else { *place };
        deny(Code::DeniedField, Part::Condition, span, message(field), help());
    }
    for output in output_fields(&rule.output, rule.source(), catalog) {
        output.operand.each_field(&mut |field| {
            if settings.denies(&field.name) || settings.denies(catalogued(catalog, &field.name)) {
                deny(Code::DeniedField, Part::Output, output.span, message(&field.name), help());
            }
        });
    }
    report
}
