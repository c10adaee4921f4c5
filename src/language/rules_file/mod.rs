//! Plain Falco rules files as Falco reads them: lists are text that is pasted over conditions, exceptions are text that is
//! put behind them, and a macro sees only the macros that were defined before it.
//!
//! Where that text means something else than its author can have meant, there is a finding of class `unsafe`.

mod lists;
mod macros;
mod rules;

use super::catalog::Catalog;
use super::definitions::{ListText, MacroText};
use super::diagnostic::{Code, Diagnostic, Part, Span};
use super::rule::RuleText;
use super::tree::Expr;

use lists::Lists;
use macros::Macros;

/// Where an item stands among all definitions of all files, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Its first definition, by which others know it.
    pub first: usize,
    /// Its last change, up to which it knows others.
    pub last: usize,
}

/// A list of a rules file, appends and overrides resolved.
#[derive(Clone, Copy, Debug)]
pub struct FileList<'a> {
    /// The list.
    pub text: ListText<'a>,
    /// Where it stands.
    pub order: Order,
}

/// A macro of a rules file, appends and overrides resolved.
#[derive(Clone, Copy, Debug)]
pub struct FileMacro<'a> {
    /// The macro.
    pub text: MacroText<'a>,
    /// Where it stands.
    pub order: Order,
}

/// A rule of a rules file, appends and overrides resolved.
#[derive(Clone, Debug, Default)]
pub struct FileRule<'a> {
    /// The rule.
    pub text: RuleText<'a>,
    /// Whether its exceptions came by an override that replaced others: then Falco fills in no comps.
    pub replaced_exceptions: bool,
}

/// What was found in rules files: for each item that was given, in its order.
#[derive(Clone, Debug, Default)]
pub struct FileFindings {
    /// Of each list.
    pub lists: Vec<Vec<Diagnostic>>,
    /// Of each macro.
    pub macros: Vec<Vec<Diagnostic>>,
    /// Of each rule.
    pub rules: Vec<Vec<Diagnostic>>,
    /// The condition of each rule with macros, lists and exceptions in it; `None` where Falco can't read it, or where it
    /// comes to more than the limits allow.
    pub expanded: Vec<Option<Expr<'static>>>,
}

impl FileFindings {
    /// All findings.
    pub fn all(&self) -> impl Iterator<Item = &Diagnostic> {
        self.lists.iter().chain(&self.macros).chain(&self.rules).flatten()
    }
}

/// Checks the items of rules files, once all were read.
#[must_use]
pub fn check_file(
    lists: &[FileList<'_>],
    macros: &[FileMacro<'_>],
    rules: &[FileRule<'_>],
    catalog: &Catalog,
) -> FileFindings {
    let mut findings = FileFindings {
        lists: vec![vec![]; lists.len()],
        macros: vec![vec![]; macros.len()],
        rules: vec![vec![]; rules.len()],
        expanded: Vec::with_capacity(rules.len()),
    };
    let mut lists = Lists::new(lists, catalog, &mut findings.lists);
    let mut macros = Macros::new(macros, &mut lists, catalog, &mut findings.macros);
    for (rule, report) in rules.iter().zip(&mut findings.rules) {
        let expanded = rules::check(rule, &mut lists, &mut macros, &mut findings.macros, report);
        report.sort_by_key(|finding| (finding.part, finding.span));
        findings.expanded.push(expanded);
    }
    lists.unused(&mut findings.lists);
    macros.unused(&mut findings.macros);
    findings
}

fn unused(what: &str, code: Code, name: &str) -> Diagnostic {
    let message = format!("nothing uses {what} `{name}`");
    Diagnostic::warning(code, Span::default(), message).within(Part::Name)
}
