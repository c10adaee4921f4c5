//! Whether an item may go into the file, and as what.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::Base;
use super::file_rule::FileRule;
use super::policy::{OtherSources, Scope};
use super::{Input, Settings, allowed, catalogs, text};
use crate::api::{Authored, BundleItem, FalcoRuleSpec};
use crate::language::{
    Catalog, Check, Checked, Code, Definitions, Diagnostic, Expr, ListText, MacroText, Op, Operand, Part, Rhs,
    RuleText, SYSCALL, Span, Uses, WordSet, check_rule, keeps_text, parse,
};

/// What the items of one namespace are judged by.
pub(super) struct Judge<'a> {
    namespace: &'a str,
    settings: &'a Settings,
    views: Vec<View<'a>>,
    /// What is wrong with each macro and list, by the name of its object.
    pub macros: BTreeMap<&'a str, Vec<Diagnostic>>,
    pub lists: BTreeMap<&'a str, Vec<Diagnostic>>,
}

/// The namespace as the Falcos with one catalogue see it.
struct View<'a> {
    catalog: &'a Catalog,
    definitions: Definitions<'a>,
}

/// What is to be said about a rule.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Errors and warnings; with [`Judged::only_some`] those of the nodes that can't load it.
    pub findings: Vec<Diagnostic>,
    /// The rule as the file is to hold it, under the name as written; `None` where no Falco could load it.
    pub ready: Option<Ready>,
    /// The Falco versions of the nodes that can't load it, where others can.
    pub only_some: Option<String>,
    /// The catalogues, by their place, of the Falcos that would leave it out for a field that they lack.
    left_out: Vec<usize>,
    /// The macros and lists of the namespace that it uses.
    pub uses: Uses,
}

/// A rule that can go into the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ready {
    /// The rule as it stands in a rules file.
    pub text: String,
    pub cost: Cost,
}

/// What a rule takes of the namespace's quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Bytes in the file.
    pub bytes: usize,
    /// Checks, values and operators of its condition.
    pub nodes: usize,
    /// Whether it looks at every event.
    pub broad: bool,
}

impl<'a> Judge<'a> {
    pub fn new(input: &Input<'a>, settings: &'a Settings) -> Self {
        let mut macros = input.macros.to_vec();
        let mut lists = input.lists.to_vec();
        // Of two by one name the older counts.
        macros.sort_by_key(|item| text::age(&item.metadata));
        lists.sort_by_key(|item| text::age(&item.metadata));
        let list_texts: Vec<_> =
            lists.iter().map(|item| ListText { name: item.item_name(), items: &item.spec.items }).collect();
        let macro_texts: Vec<_> =
            macros.iter().map(|item| MacroText { name: item.item_name(), condition: &item.spec.condition }).collect();

        let catalogs = if input.catalogs.is_empty() { &[Catalog::falco()][..] } else { input.catalogs };
        let mut judge = Self {
            namespace: input.namespace,
            settings,
            views: Vec::with_capacity(catalogs.len()),
            macros: BTreeMap::new(),
            lists: BTreeMap::new(),
        };
        for catalog in catalogs {
            let (definitions, findings) = Definitions::compile(&list_texts, &macro_texts, catalog);
            judge.views.push(View { catalog, definitions });
            for (item, found) in macros.iter().zip(findings.macros) {
                add(judge.macros.entry(text::object_name(&item.metadata)).or_default(), found);
            }
            for (item, found) in lists.iter().zip(findings.lists) {
                add(judge.lists.entry(text::object_name(&item.metadata)).or_default(), found);
            }
        }
        judge
    }

    /// Where one of Falco's base rules has the name.
    pub fn base_rule(&self, name: &str) -> Base {
        match self.views.iter().filter(|view| view.catalog.has_rule(name)).count() {
            0 => Base::Nowhere,
            count if count == self.views.len() => Base::Everywhere,
            _ => Base::SomeNodes,
        }
    }

    /// Whether a name in force is one of those that a rule with this name as written can have.
    pub fn is_name_of(&self, rule_name: &str, written: &str) -> bool {
        rule_name == written
            || rule_name.strip_suffix(written).is_some_and(|rest| rest.strip_suffix('/') == Some(self.namespace))
    }

    /// Judges a rule as it is written.
    pub fn rule(&self, spec: &FalcoRuleSpec) -> Judged {
        let rule = FileRule::of(spec);
        let mut judged = Judged::default();
        let exceptions = text::exceptions(spec, &mut judged.findings);
        text::check_desc(&rule.desc, &mut judged.findings);
        let broken = !judged.findings.is_empty();
        let rule_text = RuleText { exceptions: &exceptions, ..rule_text(&rule) };

        let mut checked: Vec<_> = self.views.iter().map(|view| self.check(&rule, &rule_text, view)).collect();
        for (index, (checked, _)) in checked.iter_mut().enumerate() {
            judged.uses.macros.append(&mut checked.uses.macros);
            judged.uses.lists.append(&mut checked.uses.lists);
            if checked.diagnostics.iter().any(|finding| finding.code == Code::UnknownFilter) {
                judged.left_out.push(index);
            }
        }
        let (mut good, mut bad): (Vec<_>, Vec<_>) =
            self.views.iter().zip(&mut checked).partition(|(_, (checked, _))| checked.is_accepted());
        for (_, (checked, _)) in if bad.is_empty() { &mut good } else { &mut bad } {
            add(&mut judged.findings, std::mem::take(&mut checked.diagnostics));
        }
        if broken || good.is_empty() {
            return judged;
        }
        if !bad.is_empty() {
            let versions: BTreeSet<_> = bad.iter().map(|(view, _)| view.catalog.falco_version()).collect();
            judged.only_some = Some(versions.into_iter().collect::<Vec<_>>().join(" and "));
        }
        match condition(&mut good) {
            Ok(condition) => {
                let guard = |wrapped: &Option<Expr>| if wrapped.is_some() { Expr::GUARD_NODES } else { 0 };
                let nodes = good.iter().map(|(_, (checked, wrapped))| checked.nodes + guard(wrapped)).max();
                let broad = good.iter().any(|(_, (checked, _))| checked.is_broad());
                let text = FileRule { condition: condition.into(), ..rule }.text();
                let cost = Cost { bytes: text.len(), nodes: nodes.unwrap_or_default(), broad };
                judged.ready = Some(Ready { text, cost });
            }
            Err(finding) => judged.findings.push(finding),
        }
        judged
    }

    /// Judges a version that was in force by what holds today: it must be what some of the nodes can load.
    pub fn may_keep(&self, item: &BundleItem) -> Option<Cost> {
        let rule = FileRule::read(&item.text).filter(|rule| rule.rule == item.rule_name)?;
        let mut findings = Vec::new();
        text::check_desc(&rule.desc, &mut findings);
        if !findings.is_empty() {
            return None;
        }
        let rule_text = rule_text(&rule);
        let nothing = Definitions::default();
        let kept = self.views.iter().find_map(|view| {
            // What it used of the namespace is in it already, so that only Falco's own is left to be named.
            let mut checked = check_rule(&rule_text, &nothing, view.catalog);
            // The name is qualified, and may be longer than one that is written.
            checked.diagnostics.retain(|finding| finding.part != Part::Name);
            checked.diagnostics.extend(allowed::check(&rule, &checked, self.settings, (&nothing, view.catalog)));
            let fits = checked.is_accepted() && keeps_text(&rule.condition, view.catalog) && self.is_confined(&rule);
            fits.then_some(checked)
        })?;
        Some(Cost { bytes: item.text.len(), nodes: kept.nodes, broad: kept.is_broad() })
    }

    /// Checks the rule against one catalogue and policy. With a tree, that is what Falco is to read instead of the rule's.
    fn check<'t>(
        &'t self,
        rule: &FileRule<'_>,
        rule_text: &RuleText<'t>,
        view: &View<'_>,
    ) -> (Checked<'t>, Option<Expr<'t>>) {
        let mut checked = check_rule(rule_text, &view.definitions, view.catalog);
        let against = (&view.definitions, view.catalog);
        checked.diagnostics.extend(allowed::check(rule, &checked, self.settings, against));
        let mut wrapped = None;
        if self.settings.scope == Scope::Namespace {
            match self.guard(rule.source(), view.catalog) {
                Ok(Some(field)) => wrapped = checked.tree.take().map(|tree| tree.wrap(field, self.namespace)),
                Ok(None) => {}
                Err(finding) => checked.diagnostics.push(finding),
            }
        }
        (checked, wrapped)
    }

    /// The field that says which namespace an event of the source is of; `None` where rules of the source are allowed
    /// without.
    fn guard(&self, source: &str, catalog: &Catalog) -> Result<Option<&'static str>, Diagnostic> {
        let Some(field) = guard_field(source) else {
            if self.settings.other_sources == OtherSources::Allow {
                return Ok(None);
            }
            let message =
                format!("rules of this namespace see its own events only, and those of source `{source}` have none");
            let span = Span::new(0, source.len());
            return Err(Diagnostic::policy(Code::NotConfinable, span, message)
                .within(Part::Source)
                .help("rules of the sources syscall and k8s_audit can be confined to a namespace"));
        };
        if catalog.field(field).is_some_and(|info| info.serves(source)) || !catalog.has_source(source) {
            return Ok(Some(field));
        }
        let message = format!(
            "rules of this namespace see its own events only, and this Falco ({}) has no field `{field}` to tell them by",
            catalog.falco_version()
        );
        Err(Diagnostic::policy(Code::NotConfinable, Span::default(), message)
            .within(Part::Whole)
            .help("load the plugin that provides the field"))
    }

    /// Whether the rule of a version in force sees no more than is allowed today.
    fn is_confined(&self, rule: &FileRule<'_>) -> bool {
        if self.settings.scope == Scope::Cluster {
            return true;
        }
        let Some(field) = guard_field(rule.source()) else { return self.settings.other_sources == OtherSources::Allow };
        match parse(&rule.condition).tree {
            Some(Expr::And(parts)) => parts.first().is_some_and(|first| is_guard(first, field, self.namespace)),
            _ => false,
        }
    }

    /// The macros and lists that none of these rules uses, by their names.
    pub fn unused<'u>(&self, uses: impl IntoIterator<Item = &'u Uses>) -> BTreeMap<&str, Diagnostic> {
        self.views.first().map(|view| view.definitions.unused(uses)).unwrap_or_default()
    }

    /// Why the rule would be loaded under that name and not run: on all nodes, or on some.
    pub fn why_not_running(
        &self,
        rule: &FalcoRuleSpec,
        name: &str,
        judged: &Judged,
    ) -> (Option<String>, Option<String>) {
        let mut reasons = Vec::new();
        for (index, view) in self.views.iter().enumerate() {
            let why = if judged.left_out.contains(&index) {
                Some("it uses a field that this Falco lacks, and asks to be left out then".to_owned())
            } else {
                catalogs::why_not_running(rule, name, view.catalog)
            };
            reasons.extend(why.map(|why| (why, view.catalog.falco_version())));
        }
        match reasons.first() {
            None => (None, None),
            Some((why, _)) if reasons.len() == self.views.len() => (Some(why.clone()), None),
            Some((why, version)) => (None, Some(format!("it does not run on nodes with Falco {version}: {why}"))),
        }
    }
}

/// The one text that means the same to all Falcos that can load the rule.
fn condition(good: &mut [(&View<'_>, &mut (Checked, Option<Expr>))]) -> Result<String, Diagnostic> {
    if let [(view, (checked, _)), others @ ..] = &*good {
        for (other, (theirs, _)) in others {
            same_base(&checked.uses.base_lists, &theirs.uses.base_lists, "list", (view.catalog, other.catalog))?;
            same_base(&checked.uses.base_macros, &theirs.uses.base_macros, "macro", (view.catalog, other.catalog))?;
        }
    }
    let mut error = None;
    for index in 0..good.len() {
        let Some((view, (checked, wrapped))) = good.get_mut(index) else { continue };
        let text = match (checked.condition.take(), wrapped) {
            (Some(text), None) => text,
            (_, Some(tree)) => match tree.emit(&view.definitions, view.catalog) {
                Ok(text) => text,
                Err(findings) => {
                    error = error.or(findings.into_iter().next());
                    continue;
                }
            },
            _ => continue,
        };
        if good.len() == 1 || good.iter().all(|(other, _)| keeps_text(&text, other.catalog)) {
            return Ok(text);
        }
    }
    Err(error.unwrap_or_else(|| {
        let message = "the Falcos of the nodes have different lists, and each way to write the condition means \
                       something else to some of them";
        Diagnostic::unsafe_(Code::PastedOver, Span::default(), message)
            .help("use other words for values that are names of Falco's own lists")
    }))
}

/// Whether this is `field = namespace`, in quotes or not.
fn is_guard(expr: &Expr<'_>, field: &str, namespace: &str) -> bool {
    let Expr::Check(Check { operand: Operand::Field(own), op: Op::Eq, modifier: None, rhs: Rhs::Value(value), .. }) =
        expr
    else {
        return false;
    };
    &*own.name == field && own.argument.is_none() && &*value.text == namespace
}

fn guard_field(source: &str) -> Option<&'static str> {
    match source {
        SYSCALL => Some("k8s.ns.name"),
        "k8s_audit" => Some("ka.target.namespace"),
        _ => None,
    }
}

/// Whether two Falcos take the same words for lists or macros of their own.
fn same_base(
    ours: &WordSet,
    theirs: &WordSet,
    what: &str,
    (our, their): (&Catalog, &Catalog),
) -> Result<(), Diagnostic> {
    let only = |one: &'_ WordSet, other: &WordSet| one.iter().find(|word| !other.contains(word)).map(str::to_owned);
    let (odd, with) = match (only(ours, theirs), only(theirs, ours)) {
        (Some(odd), _) => (odd, our),
        (None, Some(odd)) => (odd, their),
        (None, None) => return Ok(()),
    };
    let message = format!(
        "`{odd}` is a {what} of Falco's own on the nodes with Falco {} only, and means something else on others",
        with.falco_version()
    );
    Err(Diagnostic::invalid(Code::UnknownMacro, Span::default(), message)
        .help(format!("define the {what} in the namespace")))
}

fn rule_text<'t>(rule: &'t FileRule<'_>) -> RuleText<'t> {
    RuleText {
        name: &rule.rule,
        condition: &rule.condition,
        output: &rule.output,
        source: rule.source.as_deref(),
        priority: &rule.priority,
        tags: &rule.tags,
        exceptions: &[],
        without_event_types: rule.warn_evttypes == Some(false),
        skip_if_unknown_filter: rule.skip_if_unknown_filter == Some(true),
    }
}

/// Adds findings that are not there yet: several catalogues mostly say the same.
fn add(findings: &mut Vec<Diagnostic>, more: Vec<Diagnostic>) {
    for finding in more {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
}
