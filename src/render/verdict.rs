//! What is said about each item in the end.

use std::collections::BTreeMap;

use super::claims::Claim;
use super::file_rule::FileRule;
use super::judge::{Judge, Judged, Ready};
use super::{Candidate, Input, ItemVerdict, message, text};
use crate::api::{BundleItem, Reason};
use crate::language::{Class, Code, Diagnostic, Part, Span};

/// The verdict on a rule, and what goes into the file.
pub(super) fn settle(candidate: Candidate<'_>, claim: Claim, judge: &Judge<'_>) -> (ItemVerdict, Option<BundleItem>) {
    let Candidate { object, name, generation, mut judged, accepted, in_force, .. } = candidate;
    let spec = &object.spec;
    let text_of = |part| text::rule_text(spec, part);
    let (why, kept) = match claim {
        Claim::Name(rule_name) => {
            if let Some(Ready { mut text, .. }) = judged.ready.take_if(|_| accepted) {
                if rule_name != spec.rule {
                    text = FileRule::renamed(&text, &rule_name);
                }
                let not_running = judge.why_not_running(spec, &rule_name, &judged);
                let verdict = accepted_verdict(judged, rule_name.clone(), not_running, text_of);
                return (verdict, Some(BundleItem { name: name.to_owned(), generation, rule_name, text }));
            }
            (None, None)
        }
        Claim::Kept(why) => (why, in_force),
        Claim::Nothing(why) => (why, None),
    };
    // A version that goes on under its name was not looked at while it seemed that it would be replaced.
    let kept = kept.filter(|item| judge.may_keep(item).is_some());
    let mut findings = judged.findings;
    let taken = why.is_some();
    findings.extend(why.map(|why| {
        let whole = Span::new(0, spec.rule.len());
        Diagnostic::policy(Code::NameTaken, whole, why).within(Part::Name).help("give the rule another name")
    }));
    let errors: Vec<&Diagnostic> = findings.iter().filter(|finding| finding.is_error()).collect();
    let only_some = judged.only_some.filter(|_| judged.ready.is_some() && !taken && !over_quota(&errors));
    let (reason, said) = match only_some {
        Some(versions) => (
            Reason::SomeNodesOnly,
            format!("nodes with Falco {versions} can't load it: {}", message::paragraph(&errors, text_of)),
        ),
        None => (reason(&errors), message::paragraph(&errors, text_of)),
    };
    let verdict = ItemVerdict {
        rejected: Some(reason),
        message: Some(said),
        rule_name: kept.map(|item| item.rule_name.clone()),
        generation_in_force: kept.map(|item| item.generation),
        findings,
        ..ItemVerdict::default()
    };
    (verdict, kept.cloned())
}

fn accepted_verdict<'t>(
    judged: Judged,
    rule_name: String,
    (not_running, elsewhere): (Option<String>, Option<String>),
    text_of: impl Fn(Part) -> &'t str,
) -> ItemVerdict {
    let said = if let Some(versions) = &judged.only_some {
        let errors: Vec<_> = judged.findings.iter().filter(|finding| finding.is_error()).collect();
        Some(format!("nodes with Falco {versions} can't load it: {}", message::paragraph(&errors, text_of)))
    } else {
        // Why a rule never runs is said in another place.
        let told = |code| not_running.is_some() && tells_not_running(code);
        let warnings: Vec<_> = judged.findings.iter().filter(|finding| !told(finding.code)).collect();
        (!warnings.is_empty()).then(|| format!("warning: {}", message::paragraph(&warnings, text_of)))
    };
    let message = [said, elsewhere].into_iter().flatten().collect::<Vec<_>>().join(". ");
    ItemVerdict {
        written: true,
        rule_name: Some(rule_name),
        message: Some(message).filter(|message| !message.is_empty()),
        not_running,
        findings: judged.findings,
        ..ItemVerdict::default()
    }
}

fn tells_not_running(code: Code) -> bool {
    matches!(code, Code::UnknownSource | Code::UnknownFilter)
}

fn over_quota(errors: &[&Diagnostic]) -> bool {
    errors.iter().any(|finding| finding.code == Code::Quota)
}

/// The one word for why an item was rejected: what the item itself gets wrong comes before what others do.
fn reason(errors: &[&Diagnostic]) -> Reason {
    let own = |class| errors.iter().any(|e| e.class == class && !message::is_of_dependency(e.code));
    if own(Class::Unsafe) {
        Reason::Unsafe
    } else if errors.iter().any(|e| matches!(e.code, Code::NameTaken | Code::DuplicateName)) {
        Reason::NameTaken
    } else if own(Class::Invalid) {
        Reason::Invalid
    } else if errors.iter().any(|e| message::is_of_dependency(e.code)) {
        Reason::DependencyInvalid
    } else if own(Class::Policy) {
        Reason::PolicyDenied
    } else {
        Reason::Invalid
    }
}

/// The verdicts on macros and on lists, by the names of their objects.
pub(super) fn parts(
    input: &Input<'_>,
    judge: &Judge<'_>,
    candidates: &[Candidate<'_>],
) -> (BTreeMap<String, ItemVerdict>, BTreeMap<String, ItemVerdict>) {
    let unused = judge.unused(candidates.iter().map(|candidate| &candidate.judged.uses));
    let mut macros = BTreeMap::new();
    for item in input.macros {
        let name = text::object_name(&item.metadata);
        let found = judge.macros.get(name).map(Vec::as_slice).unwrap_or_default();
        let unused = unused.get(item.spec.macro_.as_str()).filter(|unused| unused.code == Code::UnusedMacro);
        macros.insert(name.to_owned(), part(found, unused, |part| text::macro_text(&item.spec, part)));
    }
    let mut lists = BTreeMap::new();
    for item in input.lists {
        let name = text::object_name(&item.metadata);
        let found = judge.lists.get(name).map(Vec::as_slice).unwrap_or_default();
        let unused = unused.get(item.spec.list.as_str()).filter(|unused| unused.code == Code::UnusedList);
        lists.insert(name.to_owned(), part(found, unused, |part| text::list_text(&item.spec, part)));
    }
    (macros, lists)
}

fn part<'t>(found: &[Diagnostic], unused: Option<&Diagnostic>, text_of: impl Fn(Part) -> &'t str) -> ItemVerdict {
    let mut findings = found.to_vec();
    let errors: Vec<&Diagnostic> = found.iter().filter(|finding| finding.is_error()).collect();
    if errors.is_empty() {
        findings.extend(unused.cloned());
    }
    let rejected = (!errors.is_empty()).then(|| reason(&errors));
    let message = if rejected.is_some() {
        Some(message::paragraph(&errors, text_of))
    } else {
        let all: Vec<&Diagnostic> = findings.iter().collect();
        (!all.is_empty()).then(|| format!("warning: {}", message::paragraph(&all, text_of)))
    };
    ItemVerdict { rejected, message, findings, ..ItemVerdict::default() }
}
