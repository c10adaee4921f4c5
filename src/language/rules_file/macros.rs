//! The macros of rules files.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::lists::Lists;
use super::{FileMacro, Order};
use crate::language::catalog::Catalog;
use crate::language::check;
use crate::language::definitions::{Size, in_order, is_macro_name, over_limits, size_of};
use crate::language::diagnostic::{Code, Diagnostic, Part, Span, nearest};
use crate::language::parse::parse;
use crate::language::paste::Pasted;
use crate::language::tree::{Expr, Word};

/// All macros.
pub(super) struct Macros<'a> {
    all: Vec<Macro<'a>>,
    by_name: HashMap<&'a str, usize>,
    catalog: &'a Catalog,
}

struct Macro<'a> {
    name: &'a str,
    order: Order,
    pasted: Pasted,
    /// `None` where it can't be read.
    tree: Option<Expr<'static>>,
    /// The macros that are named in it.
    needs: Vec<usize>,
    /// The latest first definition of those that it needs, directly or not.
    latest: usize,
    size: Size,
    /// Whether Falco can't put it together.
    broken: bool,
    /// Whether it comes to more than the limits allow.
    over: bool,
    used: bool,
    /// The sources of rules for which it was checked.
    checked: BTreeSet<Arc<str>>,
}

impl<'a> Macros<'a> {
    pub(super) fn new(
        macros: &[FileMacro<'a>],
        lists: &mut Lists<'a>,
        catalog: &'a Catalog,
        findings: &mut [Vec<Diagnostic>],
    ) -> Self {
        let by_name = macros.iter().enumerate().map(|(index, item)| (item.text.name, index)).collect();
        let mut made = Self { all: Vec::with_capacity(macros.len()), by_name, catalog };
        for (item, report) in macros.iter().zip(findings.iter_mut()) {
            let name = item.text.name;
            if !is_macro_name(name) {
                let message = format!("`{}` can't be referred to as a macro", name.escape_debug());
                report.push(
                    Diagnostic::warning(Code::InvalidMacroName, Span::new(0, name.len()), message)
                        .within(Part::Name)
                        .help("a letter, and then letters, digits and `_`"),
                );
            }
            let pasted = lists.paste(item.text.condition, report);
            lists.hazards(item.text.condition, &pasted, report);
            let parsed = parse(&pasted.text);
            let tree = parsed.tree.map(Expr::into_owned);
            report.extend(parsed.diagnostics.into_iter().map(|mut finding| {
                finding.span = pasted.original(finding.span);
                finding
            }));
            let mut needs = vec![];
            if let Some(tree) = &tree {
                tree.each_macro(&mut |word| needs.extend(made.by_name.get(&*word.text)));
            }
            made.all.push(Macro {
                name,
                order: item.order,
                pasted,
                broken: tree.is_none(),
                tree,
                needs,
                latest: 0,
                size: Size::default(),
                over: false,
                used: false,
                checked: BTreeSet::new(),
            });
        }
        made.resolve(lists, findings);
        made
    }

    /// Finds out what each macro stands for, those that it needs before it.
    fn resolve(&mut self, lists: &Lists<'_>, findings: &mut [Vec<Diagnostic>]) {
        let needs: Vec<Vec<usize>> = self.all.iter().map(|own| own.needs.clone()).collect();
        for need in needs.iter().flatten() {
            self.all[*need].used = true;
        }
        let (order, looped) = in_order(&needs);
        let loops: BTreeSet<usize> = looped.iter().copied().collect();
        for index in looped {
            let own = &self.all[index];
            let message = match needs[index].iter().map(|need| &self.all[*need]).find(|need| own.hides(need)) {
                Some(later) => format!("macro `{}` is defined after this one, which can't see it", later.name),
                None => format!("macro `{}` stands for itself, directly or through others", own.name),
            };
            let mut span = None;
            if let Some(tree) = &own.tree {
                let in_loop = |word: &Word<'_>| self.by_name.get(&*word.text).is_some_and(|need| loops.contains(need));
                tree.each_macro(&mut |word| span = span.or(in_loop(word).then_some(word.span)));
            }
            findings[index].push(Diagnostic::invalid(Code::MacroLoop, self.place(index, span), message));
            self.all[index].broken = true;
        }
        for index in order {
            let own = &self.all[index];
            let mut found = vec![];
            if let Some(tree) = &own.tree {
                tree.each_macro(&mut |word| {
                    if let Some(finding) = self.reference(word, Some(own), lists) {
                        found.push(finding);
                    }
                });
            }
            let latest = needs[index].iter().map(|need| self.all[*need].order.first.max(self.all[*need].latest)).max();
            if found.is_empty() && latest.is_some_and(|latest| latest >= own.order.last) {
                let message = "a macro that this one needs through others is defined after it, and it can't see it";
                found.push(Diagnostic::invalid(Code::UnknownMacro, Span::new(0, own.pasted.text.len()), message));
            }
            let mut broken = own.broken || !found.is_empty();
            broken |= needs[index].iter().any(|need| self.all[*need].broken);
            let size = own.tree.as_ref().map(|tree| self.size(tree)).unwrap_or_default();
            let over = own.tree.as_ref().and_then(|tree| over_limits(size, tree));
            let over_already = needs[index].iter().any(|need| self.all[*need].over);
            let is_over = over.is_some();
            found.extend(over.filter(|_| !over_already));
            findings[index].extend(found.into_iter().map(|mut finding| {
                finding.span = self.all[index].pasted.original(finding.span);
                finding
            }));
            let own = &mut self.all[index];
            (own.broken, own.size, own.over) = (broken, size, is_over || over_already);
            own.latest = latest.unwrap_or_default();
        }
    }

    fn place(&self, index: usize, span: Option<Span>) -> Span {
        let pasted = &self.all[index].pasted;
        pasted.original(span.unwrap_or(Span::new(0, pasted.text.len())))
    }

    /// What is wrong with a reference to a macro; `within` is the macro that makes it, `None` where a rule does.
    fn reference(&self, word: &Word<'_>, within: Option<&Macro<'_>>, lists: &Lists<'_>) -> Option<Diagnostic> {
        let name = &*word.text;
        let invalid = |message: String| Diagnostic::invalid(Code::UnknownMacro, word.span, message);
        if let Some(index) = self.by_name.get(name) {
            let is_hidden = within.is_some_and(|own| own.hides(&self.all[*index]));
            return is_hidden.then(|| {
                invalid(format!("macro `{name}` is defined after this one, which can't see it"))
                    .help("move it before this one")
            });
        }
        if self.catalog.has_macro(name) {
            return None;
        }
        let diagnostic = invalid(format!("there is no macro `{name}`"));
        if lists.has(name) || self.catalog.has_list(name) {
            return Some(diagnostic.help(format!("`{name}` is a list: write `field in ({name})`")));
        }
        if matches!(name, "and" | "or" | "not") {
            return Some(diagnostic.help(format!("a check must stand before and behind `{name}`")));
        }
        let known = self.all.iter().map(|own| own.name).chain(self.catalog.macros());
        Some(diagnostic.suggest(nearest(name, known)).help_if_none(
            "a word alone is the name of a macro; a check is a field, an operator and a value: `proc.name = bash`",
        ))
    }

    /// Looks at the macros that the condition of a rule of a source names. What is wrong with the macros goes to their own
    /// findings, what is wrong with the references to the rule's. Says whether Falco can put the condition together.
    pub(super) fn of_rule(
        &mut self,
        tree: &Expr<'_>,
        source: &str,
        lists: &Lists<'_>,
        findings: &mut [Vec<Diagnostic>],
        report: &mut Vec<Diagnostic>,
    ) -> bool {
        let mut sound = true;
        let mut waiting = vec![];
        tree.each_macro(&mut |word| {
            if let Some(finding) = self.reference(word, None, lists) {
                report.push(finding);
                sound = false;
            } else if let Some(index) = self.by_name.get(&*word.text) {
                waiting.push(*index);
            } else if let Some(error) = self.catalog.base_macro(&word.text).and_then(|base| base.error(source)) {
                let message = format!("macro `{}` can't be used by rules of source {source}: {error}", word.text);
                report.push(Diagnostic::invalid(Code::MacroOfOtherSource, word.span, message));
                sound = false;
            }
        });
        while let Some(index) = waiting.pop() {
            let own = &mut self.all[index];
            own.used = true;
            if own.checked.contains(source) {
                continue;
            }
            own.checked.insert(source.into());
            waiting.extend(&own.needs);
            if let Some(tree) = &own.tree {
                let mut found = vec![];
                check::alone(tree, source, self.catalog, &mut found);
                for mut finding in found {
                    finding.span = own.pasted.original(finding.span);
                    if !findings[index].contains(&finding) {
                        findings[index].push(finding);
                    }
                }
            }
        }
        let mut all_whole = true;
        tree.each_macro(&mut |word| {
            all_whole &= self.by_name.get(&*word.text).is_none_or(|index| !self.all[*index].broken);
        });
        sound && all_whole
    }

    /// What a condition comes to with its macros in it.
    pub(super) fn size(&self, tree: &Expr<'_>) -> Size {
        let of_macro = |word: &Word<'_>| self.by_name.get(&*word.text).map(|index| self.all[*index].size);
        size_of(tree, &of_macro)
    }

    /// The condition with its macros in it. To be called only within the limits.
    pub(super) fn expand<'e>(&self, expr: &Expr<'e>) -> Expr<'e> {
        let each = |parts: &[Expr<'e>]| parts.iter().map(|part| self.expand(part)).collect();
        match expr {
            Expr::And(parts) => Expr::And(each(parts)),
            Expr::Or(parts) => Expr::Or(each(parts)),
            Expr::Not(inner) => self.expand(inner).negated(),
            Expr::Check(check) => Expr::Check(check.clone()),
            Expr::Macro(_) => {
                let meant = expr.meant(|name| self.by_name.get(name).and_then(|index| self.all[*index].tree.as_ref()));
                if std::ptr::eq(meant, expr) { expr.clone() } else { self.expand(meant).unplaced() }
            }
        }
    }

    pub(super) fn unused(&self, findings: &mut [Vec<Diagnostic>]) {
        for (own, report) in self.all.iter().zip(findings).filter(|(own, _)| !own.used) {
            report.push(super::unused("macro", Code::UnusedMacro, own.name));
        }
    }
}

impl Macro<'_> {
    /// Whether the other is defined too late for this one.
    fn hides(&self, other: &Macro<'_>) -> bool {
        other.order.first >= self.order.last
    }
}
