//! What is answered to a write of a rule, macro or list. Pure: (object, namespace, policy) → answer.
//!
//! An object is denied for what is wrong in itself, by the verdict that the controller would come to. What is wrong only
//! as long as other objects or nodes are as they are is a warning: it can come right without another edit, and a folder
//! of manifests is applied in any order.

use std::collections::BTreeSet;

use super::object::{Object, Written, rejected};
use crate::api::{Authored, Reason};
use crate::language::{Code, Diagnostic, Part};
use crate::render::{ItemVerdict, NameMode, Policy, Rendered, Snapshot, excerpt, is_of_dependency, sentence};

/// How many causes and warnings are told at most.
const MOST: usize = 16;
/// The longest warning, in characters: API servers cut longer ones.
const WARNING: usize = 250;

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Why the object is denied; nothing where it is not.
    pub causes: Vec<Cause>,
    /// What is to be told though it is not: one line each.
    pub warnings: Vec<String>,
    /// Whether the answer rests on other objects of the namespace, so that it is only as good as what is known of them.
    pub rests_on_others: bool,
}

/// A reason to deny an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// The path of the field: `spec.condition`.
    pub field: String,
    /// What is wrong; over several lines where the text of the field is shown.
    pub message: String,
}

impl Answer {
    /// A denial of an object that can't be decoded.
    #[must_use]
    pub fn undecodable(field: &str, message: &str) -> Self {
        let message = format!("the object can't be read: {message}");
        Self { causes: vec![Cause { field: field.to_owned(), message }], ..Self::default() }
    }

    /// Whether the object may be written.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.causes.is_empty()
    }
}

/// Judges an object as it is to be written into the namespace. With `strict`, a macro that is missing is no matter of
/// order.
#[must_use]
pub fn review(written: &Written, before: &Snapshot, policy: &Policy, strict: bool) -> Answer {
    let object = &written.object;
    let mut world = before.clone();
    object.put(&mut world);
    let after = world.render(policy);
    let mut answer = Answer::default();
    let Some(verdict) = object.verdict(&after) else { return answer };
    let case = Case { written, world: &world, strict };

    for finding in &verdict.findings {
        answer.rests_on_others |= rests_on_others(finding.code);
        if finding.is_error() && !case.can_come_right(finding, verdict) {
            answer.causes.push(cause(object, finding));
        } else if finding.is_error() {
            let plain = Diagnostic { help: None, ..finding.clone() };
            let said = sentence(&plain, object.text(finding.part));
            answer.warnings.push(format!("{said}; until that changes, this is not in force"));
        } else if case.is_news(finding) {
            answer.warnings.push(sentence(finding, object.text(finding.part)));
        }
    }
    let errors = verdict.findings.iter().any(Diagnostic::is_error);
    if verdict.rejected.is_some() && !errors {
        let message = verdict.message.clone().unwrap_or_else(|| "the object is not valid".to_owned());
        answer.causes.push(Cause { field: "spec".to_owned(), message });
    }
    if answer.causes.is_empty() {
        answer.warnings.extend(case.about_nodes_and_names(verdict, policy));
        let others = rejected(&after).any(|(kind, name, ..)| (kind, name) != (object.kind(), &*object.name()));
        if others || after.file.is_err() {
            // What was so before is no consequence of this write.
            let old = before.render(policy);
            if let (Err(large), true) = (&after.file, grows(&old, &after)) {
                let message = format!(
                    "with it the rules file of the namespace would be {} bytes, and the most that nodes can be given is {}",
                    large.bytes, large.limit
                );
                answer.causes.push(Cause { field: "spec".to_owned(), message });
                answer.rests_on_others = true;
            }
            let broken = case.breaks(&old, &after);
            answer.rests_on_others |= !broken.is_empty();
            answer.warnings.extend(broken);
        }
    }
    shorten(&mut answer);
    answer
}

/// What a judgement rests on.
struct Case<'a> {
    written: &'a Written,
    world: &'a Snapshot,
    strict: bool,
}

impl Case<'_> {
    /// Whether an error is one only as long as other objects, or nodes, are as they are.
    fn can_come_right(&self, finding: &Diagnostic, verdict: &ItemVerdict) -> bool {
        if verdict.rejected == Some(Reason::SomeNodesOnly) {
            return true;
        }
        match finding.code {
            Code::UnknownMacro => self.may_come(finding),
            Code::BrokenMacro | Code::BrokenList => true,
            // An object that closes a loop is at fault; a rule that uses one is not.
            Code::MacroLoop | Code::ListLoop => matches!(self.written.object, Object::Rule(_)),
            _ => false,
        }
    }

    /// Whether a macro that is missing may be on its way: what names nothing can't, and what is nearly the name of one
    /// that is there is a slip, unless somebody only asks what would happen if this came together with others.
    fn may_come(&self, finding: &Diagnostic) -> bool {
        let name = finding.span.of(self.written.object.text(finding.part));
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !matches!(name, "and" | "or" | "not");
        let is_list = self.world.lists.iter().any(|list| list.item_name() == name)
            || self.world.catalogs.iter().any(|catalog| catalog.has_list(name));
        let is_slip = finding.suggestion.is_some();
        is_name && !is_list && (self.written.dry_run || !(is_slip || self.strict))
    }

    /// Whether a warning is worth its line: a new macro or list is made before what uses it.
    fn is_news(&self, finding: &Diagnostic) -> bool {
        !(self.written.is_new && matches!(finding.code, Code::UnusedMacro | Code::UnusedList))
    }

    fn about_nodes_and_names(&self, verdict: &ItemVerdict, policy: &Policy) -> Vec<String> {
        let Object::Rule(rule) = &self.written.object else { return vec![] };
        let mut warnings = vec![];
        if verdict.rejected == Some(Reason::SomeNodesOnly) {
            warnings.extend(verdict.message.clone());
        }
        let told = |why: &String| verdict.findings.iter().any(|finding| finding.message.contains(why.as_str()));
        if let Some(why) = verdict.not_running.as_ref().filter(|why| !told(why)) {
            warnings.push(format!("it would be loaded and never run: {why}"));
        }
        let known = rule.status.as_ref().and_then(|status| status.rule_name.as_deref());
        let mode = policy.settings(&self.world.namespace).names;
        if let Some(name) = verdict.rule_name.as_deref().filter(|_| verdict.rejected.is_none())
            && mode == NameMode::Auto
            && name != rule.spec.rule
            && known != Some(name)
        {
            let written = &rule.spec.rule;
            warnings
                .push(format!("the name `{written}` is taken in the cluster; alerts will show this rule as `{name}`"));
        }
        warnings
    }

    /// What else of the namespace is rejected now and was not before.
    fn breaks(&self, old: &Rendered, new: &Rendered) -> Vec<String> {
        let broken: BTreeSet<(&str, &str)> = rejected(old).map(|(kind, name, ..)| (kind, name)).collect();
        let object = (self.written.object.kind(), self.written.object.name());
        rejected(new)
            .filter(|(kind, name, ..)| !broken.contains(&(*kind, *name)) && (*kind, *name) != (object.0, &object.1))
            .map(|(kind, name, _, verdict)| {
                let stays = if verdict.generation_in_force.is_some() { " (what is in force stays)" } else { "" };
                let said = verdict.message.as_deref().unwrap_or_default();
                format!("this breaks {kind} `{name}`{stays}: {said}")
            })
            .collect()
    }
}

/// Whether what is known of other objects decides.
fn rests_on_others(code: Code) -> bool {
    is_of_dependency(code) || matches!(code, Code::DuplicateName | Code::NameTaken | Code::Quota)
}

fn grows(old: &Rendered, new: &Rendered) -> bool {
    match (&old.file, &new.file) {
        (Err(old), Err(new)) => old.bytes < new.bytes,
        (Ok(_), Err(_)) => true,
        (_, Ok(_)) => false,
    }
}

fn cause(object: &Object, finding: &Diagnostic) -> Cause {
    let (field, text) = (object.field(finding.part), object.text(finding.part));
    let mut message = format!("{} [{}]", finding.message, finding.code);
    let shown = match finding.part {
        Part::Whole => finding.help.as_ref().map(|help| format!("  = help: {help}\n")).unwrap_or_default(),
        _ => excerpt(finding, &field, text),
    };
    if !shown.is_empty() {
        message.push('\n');
        message.push_str(shown.trim_end());
    }
    Cause { field, message }
}

/// Keeps the answer within what an API server passes on.
fn shorten(answer: &mut Answer) {
    let causes = answer.causes.len();
    if causes > MOST {
        answer.causes.truncate(MOST);
        let message = format!("and {} more mistakes", causes - MOST);
        answer.causes.push(Cause { field: "spec".to_owned(), message });
    }
    let warnings = answer.warnings.len();
    if warnings > MOST {
        answer.warnings.truncate(MOST);
        answer.warnings.push(format!("and {} more warnings", warnings - MOST));
    }
    for warning in &mut answer.warnings {
        let line: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        *warning = if line.chars().count() > WARNING {
            let cut: String = line.chars().take(WARNING - 3).collect();
            format!("{cut}...")
        } else {
            line
        };
    }
}

#[cfg(test)]
mod tests;
