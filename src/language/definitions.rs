//! The lists and macros of a namespace: read, checked, and put into the conditions that use them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use smol_str::SmolStr;

use super::catalog::{BaseList, Catalog};
use super::check;
use super::diagnostic::{Code, Diagnostic, Part, Span, nearest};
use super::events::{self, Possible};
use super::limits;
use super::name_map::NameMap;
use super::parse::{Parsed, Parser, parse};
use super::print::{ExprKind, Written, written_values};
use super::scan::is_bare;
use super::splice::splice;
use super::tree::{Check, Expr, Rhs, Value, ValueKind, ValueList, Word};
use super::word_set::WordSet;

/// A list as it is written.
#[derive(Clone, Copy, Debug)]
pub struct ListText<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its items, each a value or the name of a list.
    pub items: &'a [String],
}

/// A macro as it is written.
#[derive(Clone, Copy, Debug)]
pub struct MacroText<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its condition.
    pub condition: &'a str,
}

/// What was found of lists and macros: for each of those given, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Of each list. The part of a diagnostic is [`Part::Entry`], the span one of the item.
    pub lists: Vec<Vec<Diagnostic>>,
    /// Of each macro.
    pub macros: Vec<Vec<Diagnostic>>,
}

/// The lists and macros of a namespace, ready for its rules.
#[derive(Clone, Debug, Default)]
pub struct Definitions<'a> {
    lists: NameMap<SmolStr, List<'a>>,
    macros: NameMap<SmolStr, Macro<'a>>,
}

/// A list, flat.
#[derive(Clone, Debug, Default)]
pub(crate) struct List<'a> {
    /// Its values; `None` where it is not valid.
    pub(crate) values: Option<Vec<Value<'a>>>,
    /// The same as text, if they are short.
    pub(crate) written: Option<Written>,
    /// How many they are once Falco has put its own lists in, each name counting as one at least.
    count: usize,
    /// The lists that it names itself.
    uses: WordSet,
    base_uses: WordSet,
}

impl List<'_> {
    /// Whether nothing comes in the place of its name.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.as_ref().is_none_or(Vec::is_empty)
    }
}

/// A macro.
#[derive(Clone, Debug, Default)]
pub(crate) struct Macro<'a> {
    /// The condition as written; `None` where it is not valid for any source.
    tree: Option<Expr<'a>>,
    /// The same as text, if it is short and plainly the same.
    pub(crate) written: Option<Written>,
    /// What comes of it, and what it names itself.
    pub(crate) extent: Extent,
    uses: Uses,
    /// The types of events for which it can hold.
    possible: Option<Possible>,
    /// What keeps rules of a source from using it.
    errors: HashMap<Arc<str>, String>,
    /// What keeps rules of all sources from using it.
    error: Option<String>,
}

impl Macro<'_> {
    pub(crate) fn error(&self, source: &str) -> Option<&str> {
        self.error.as_deref().or_else(|| self.errors.get(source).map(String::as_str))
    }
}

/// What a tree comes to once expanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) depth: usize,
}

impl Size {
    const LEAF: Self = Self { nodes: 1, depth: 0 };

    /// That of an operator with these parts.
    fn of(parts: impl Iterator<Item = Self>) -> Self {
        let mut whole = Self::LEAF;
        parts.for_each(|part| whole.add(part));
        whole
    }

    /// Adds a part of an operator.
    fn add(&mut self, part: Self) {
        self.nodes = self.nodes.saturating_add(part.nodes);
        self.depth = self.depth.max(part.depth + 1);
    }
}

/// What a tree is once the lists and macros of the namespace are in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) kind: ExprKind,
    /// With Falco's own lists and macros in it too.
    pub(crate) size: Size,
    /// Operators, checks and values.
    pub(crate) nodes: usize,
    /// Levels of parentheses that it takes to write it.
    pub(crate) nesting: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self::LEAF
    }
}

impl Extent {
    const LEAF: Self = Self { kind: ExprKind::Leaf, size: Size::LEAF, nodes: 1, nesting: 0 };

    /// That of an operator with these parts.
    pub(crate) fn of(kind: ExprKind, parts: impl Iterator<Item = Self>) -> Self {
        let mut whole = Self { kind, ..Self::LEAF };
        parts.for_each(|part| whole.add(part));
        whole
    }

    fn add(&mut self, part: Self) {
        self.size.add(part.size);
        self.nodes = self.nodes.saturating_add(part.nodes);
        self.nesting = self.nesting.max(part.nesting + usize::from(self.kind.encloses(part.kind)));
    }
}

/// What a rule rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Macros of the namespace, those that macros use included.
    pub macros: WordSet,
    /// Lists of the namespace, those that macros and lists use included.
    pub lists: WordSet,
    /// Macros of the base files.
    pub base_macros: WordSet,
    /// Lists of the base files.
    pub base_lists: WordSet,
}

impl<'a> Definitions<'a> {
    /// Reads and checks the lists and macros of a namespace. Of several by one name the first counts. What is wrong with
    /// one keeps only those that use it from being valid.
    #[must_use]
    pub fn compile(lists: &[ListText<'a>], macros: &[MacroText<'a>], catalog: &Catalog) -> (Self, Findings) {
        let mut definitions = Self::default();
        let findings = Findings {
            lists: definitions.read_lists(lists, catalog),
            macros: definitions.read_macros(macros, catalog),
        };
        (definitions, findings)
    }

    /// Whether there is a list of this name.
    #[must_use]
    pub fn has_list(&self, name: &str) -> bool {
        self.lists.contains(name)
    }

    /// Whether there is a macro of this name.
    #[must_use]
    pub fn has_macro(&self, name: &str) -> bool {
        self.macros.contains(name)
    }

    /// The names of the macros, in no order.
    pub fn macros(&self) -> impl Iterator<Item = &str> {
        self.macros.names()
    }

    /// The names of the lists, in no order.
    pub fn lists(&self) -> impl Iterator<Item = &str> {
        self.lists.names()
    }

    pub(crate) fn list(&self, name: &str) -> Option<&List<'a>> {
        self.lists.get(name)
    }

    pub(crate) fn macro_(&self, name: &str) -> Option<&Macro<'a>> {
        self.macros.get(name)
    }

    /// What a macro stands for, as it is written; `None` where it is not valid.
    pub(crate) fn tree(&self, name: &str) -> Option<&Expr<'a>> {
        self.macros.get(name).and_then(|own| own.tree.as_ref())
    }

    fn read_lists(&mut self, lists: &[ListText<'a>], catalog: &Catalog) -> Vec<Vec<Diagnostic>> {
        let mut findings: Vec<Vec<Diagnostic>> = vec![vec![]; lists.len()];
        let mut by_name: HashMap<&str, usize> = HashMap::with_capacity(lists.len());
        for (index, list) in lists.iter().enumerate() {
            if by_name.contains_key(list.name) {
                findings[index].push(duplicate("list", list.name));
                continue;
            }
            by_name.insert(list.name, index);
            if !is_bare(list.name) {
                let message = format!("`{}` can't be the name of a list", list.name.escape_debug());
                findings[index].push(
                    Diagnostic::invalid(Code::InvalidName, Span::default(), message)
                        .within(Part::Name)
                        .help("no blanks, quotes, parentheses, commas and `=`"),
                );
            }
        }
        let needs: Vec<Vec<usize>> = lists
            .iter()
            .enumerate()
            .map(|(index, list)| {
                let own = by_name.get(list.name) == Some(&index);
                list.items.iter().filter(|_| own).filter_map(|item| by_name.get(item.as_str()).copied()).collect()
            })
            .collect();
        let (order, looped) = in_order(&needs);
        for index in looped {
            let message = format!("list `{}` holds itself, directly or through others", lists[index].name);
            findings[index].push(Diagnostic::invalid(Code::ListLoop, Span::default(), message).within(Part::Whole));
            self.lists.insert(lists[index].name.into(), List::default());
        }
        let mut left = limits::LISTED_VALUES;
        for index in order {
            let list = lists[index];
            if by_name.get(list.name) != Some(&index) {
                continue;
            }
            let read = self.read_list(list, catalog, &mut left, &mut findings[index]);
            self.lists.insert(list.name.into(), read);
        }
        findings
    }

    /// `left` is how many values lists may still take from others.
    fn read_list(
        &self,
        list: ListText<'a>,
        catalog: &Catalog,
        left: &mut usize,
        findings: &mut Vec<Diagnostic>,
    ) -> List<'a> {
        let mut values: Vec<Value<'a>> = Vec::with_capacity(list.items.len());
        let (mut uses, mut base_uses) = (WordSet::default(), WordSet::default());
        let (mut count, mut is_too_much) = (0_usize, false);
        for (index, item) in list.items.iter().enumerate() {
            let whole = Span::new(0, item.len());
            let mut report =
                |diagnostic: Diagnostic| add_bounded(findings, diagnostic.within(Part::Entry(index as u32)));
            if let Some(inner) = self.lists.get(item.as_str()) {
                uses.insert(item);
                if let Some(values_of_inner) = &inner.values {
                    count = count.saturating_add(inner.count.max(1));
                    if count <= limits::LIST_ENTRIES {
                        match left.checked_sub(values_of_inner.len()) {
                            Some(rest) => {
                                *left = rest;
                                values.extend(values_of_inner.iter().cloned());
                            }
                            None => is_too_much = true,
                        }
                    }
                } else {
                    let message = format!("list `{item}` is not valid");
                    report(Diagnostic::invalid(Code::BrokenList, whole, message).help("correct that list"));
                }
                continue;
            }
            if catalog.has_list(item) {
                let value = Value { text: item.into(), kind: ValueKind::BaseList, span: Span::default() };
                count = count.saturating_add(base_list(&value, catalog).map_or(1, BaseList::count));
                base_uses.insert(item);
                values.push(value);
                continue;
            }
            count += 1;
            if item.is_empty() {
                let message = "an empty item stands for nothing and is left out";
                report(Diagnostic::warning(Code::Suspicious, whole, message));
                continue;
            }
            if item.contains('\0') {
                report(Diagnostic::unsafe_(Code::ControlCharacter, whole, "the item holds a NUL character"));
                continue;
            }
            let value = item_value(item);
            if value.text.len() > limits::VALUE_BYTES {
                let message =
                    format!("the item is {} bytes long; the limit is {}", value.text.len(), limits::VALUE_BYTES);
                report(Diagnostic::invalid(Code::ValueTooLong, whole, message));
                continue;
            }
            values.push(value);
        }
        let over = if count > limits::LIST_ENTRIES {
            Some(format!("the list comes to {count} values; the limit is {}", limits::LIST_ENTRIES))
        } else {
            let limit = limits::LISTED_VALUES;
            is_too_much.then(|| {
                format!("the lists of the namespace that name others come to more than {limit} values of these")
            })
        };
        findings
            .extend(over.map(|over| Diagnostic::unsafe_(Code::Expansion, Span::default(), over).within(Part::Whole)));
        let valid = !findings.iter().any(Diagnostic::is_error);
        let bytes: usize = values.iter().map(|value| value.text.len()).sum();
        let written = (valid && bytes <= KEPT_BYTES).then(|| written_values(&values, catalog));
        let written = written.filter(|written| written.text.len() <= KEPT_BYTES);
        List { values: valid.then_some(values), written, count, uses, base_uses }
    }

    fn read_macros(&mut self, macros: &[MacroText<'a>], catalog: &Catalog) -> Vec<Vec<Diagnostic>> {
        let mut findings: Vec<Vec<Diagnostic>> = vec![vec![]; macros.len()];
        let mut by_name: HashMap<&str, usize> = HashMap::with_capacity(macros.len());
        let mut read: Vec<Option<Parsed<'a>>> = Vec::with_capacity(macros.len());
        for (index, text) in macros.iter().enumerate() {
            read.push(None);
            if by_name.contains_key(text.name) {
                findings[index].push(duplicate("macro", text.name));
                continue;
            }
            by_name.insert(text.name, index);
            if !is_macro_name(text.name) {
                let message = format!("`{}` can't be the name of a macro", text.name.escape_debug());
                findings[index].push(
                    Diagnostic::invalid(Code::InvalidName, Span::default(), message)
                        .within(Part::Name)
                        .help("a letter, and then letters, digits and `_`"),
                );
            }
            let mut parsed = parse(text.condition);
            findings[index].append(&mut parsed.diagnostics);
            read[index] = Some(parsed);
        }
        let needs: Vec<Vec<usize>> = read
            .iter()
            .map(|parsed| {
                let mut needs = vec![];
                if let Some(tree) = parsed.as_ref().and_then(|parsed| parsed.tree.as_ref()) {
                    tree.each_macro(&mut |word| needs.extend(by_name.get(&*word.text).copied()));
                }
                needs
            })
            .collect();
        let (order, looped) = in_order(&needs);
        let loops: BTreeSet<&str> = looped.iter().map(|index| macros[*index].name).collect();
        for index in looped {
            let name = macros[index].name;
            let message = format!("macro `{name}` stands for itself, directly or through others");
            let mut span = None;
            if let Some(tree) = read[index].as_ref().and_then(|parsed| parsed.tree.as_ref()) {
                tree.each_macro(&mut |word| span = span.or(loops.contains(&*word.text).then_some(word.span)));
            }
            let finding = Diagnostic::invalid(Code::MacroLoop, span.unwrap_or_default(), message.clone());
            findings[index].push(finding.help("leave it out of its own condition"));
            self.macros.insert(name.into(), Macro { error: Some(message), ..Macro::default() });
        }
        for index in order {
            // Only the first of a name was read.
            if let Some(parsed) = read[index].take() {
                let text = macros[index];
                let own = self.read_macro(text.condition, parsed, catalog, &mut findings[index]);
                self.macros.insert(text.name.into(), own);
            }
        }
        findings
    }

    fn read_macro(
        &self,
        text: &str,
        parsed: Parsed<'a>,
        catalog: &Catalog,
        findings: &mut Vec<Diagnostic>,
    ) -> Macro<'a> {
        let Parsed { tree, readable, nesting, .. } = parsed;
        let mut errors = HashMap::new();
        let (mut extent, mut uses) = (Extent::default(), Uses::default());
        let read = tree.as_ref().or(readable.as_ref());
        let over = read.and_then(|tree| {
            extent = self.extent(tree, catalog, &mut uses);
            over_limits(extent.size, tree)
        });
        // What is too large is not looked at: that would take as long as it is large.
        if let Some(over) = over {
            findings.push(over);
        } else if let Some(tree) = read {
            // Falco checks a macro only where a rule uses it. It is in error itself if no rule could.
            let mut best: Option<Vec<Diagnostic>> = None;
            for source in catalog.sources() {
                let mut report = vec![];
                check::condition(tree, source, self, catalog, &mut report);
                let failed = |report: &[Diagnostic]| report.iter().filter(|finding| finding.is_error()).count();
                if let Some(first) = report.iter().find(|finding| finding.is_error()) {
                    errors.insert(Arc::from(source), first.message.clone());
                }
                if best.as_deref().is_none_or(|best| failed(&report) < failed(best)) {
                    best = Some(report);
                }
            }
            findings.extend(best.unwrap_or_default());
        }
        let error = findings.iter().find(|finding| finding.is_error()).map(|finding| finding.message.clone());
        let tree = tree.filter(|_| error.is_none());
        let splice = |tree| splice(text, (tree, nesting), (self, catalog), KEPT_BYTES);
        let mut written = tree.as_ref().and_then(splice);
        if let Some(written) = &mut written {
            written.text.shrink_to_fit();
        }
        let tree = tree.map(|tree| self.without_detour(tree));
        let possible = tree.as_ref().and_then(|tree| self.possible(tree, catalog));
        if tree.is_none() {
            // Nothing is put in its place then.
            (extent, uses) = (Extent { size: extent.size, ..Extent::LEAF }, Uses::default());
        }
        Macro { tree, written, extent, uses, possible, errors, error }
    }

    /// What is only the name of a macro that is only the name of another stands for that other at once: so no chain of
    /// names is followed each time that its first is used.
    fn without_detour(&self, tree: Expr<'a>) -> Expr<'a> {
        if let Expr::Macro(word) = &tree
            && let Some(Expr::Macro(next)) = self.tree(&word.text)
        {
            return Expr::Macro(Word { text: next.text.clone(), span: Span::default() });
        }
        tree
    }

    /// What comes of a tree, without making it; what it names is added to what is used.
    pub(crate) fn extent(&self, expr: &Expr<'_>, catalog: &Catalog, uses: &mut Uses) -> Extent {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => {
                Extent::of(expr.kind(), parts.iter().map(|part| self.extent(part, catalog, uses)))
            }
            Expr::Not(inner) => Extent::of(ExprKind::Not, std::iter::once(self.extent(inner, catalog, uses))),
            Expr::Check(Check { rhs: Rhs::List(list), .. }) => {
                let mut whole = Extent::LEAF;
                for value in &list.values {
                    let (loaded, nodes) = self.count(value, catalog, uses);
                    whole.size.nodes = whole.size.nodes.saturating_add(loaded);
                    whole.nodes = whole.nodes.saturating_add(nodes);
                }
                whole
            }
            Expr::Check(_) => Extent::LEAF,
            Expr::Macro(word) => {
                if let Some(own) = self.macros.get(&word.text) {
                    uses.macros.insert(&word.text);
                    return own.extent;
                }
                let Some(base) = catalog.base_macro(&word.text) else { return Extent::LEAF };
                uses.base_macros.insert(&word.text);
                Extent { size: base.size, ..Extent::LEAF }
            }
        }
    }

    /// How many values a value stands for: with Falco's own lists in it, each name counting as one at least, since it takes
    /// as much to look at; and with those as they are.
    fn count(&self, value: &Value<'_>, catalog: &Catalog, uses: &mut Uses) -> (usize, usize) {
        if let Some(own) = self.own_list(value) {
            uses.lists.insert(&value.text);
            return (own.count.max(1), own.values.as_ref().map_or(0, Vec::len));
        }
        let Some(base) = base_list(value, catalog) else { return (1, 1) };
        if value.kind == ValueKind::Bare {
            uses.base_lists.insert(&value.text);
        }
        (base.count(), 1)
    }

    /// Adds to what is used all that this uses in turn. It is not kept with each macro and list: together that would be as
    /// much as the square of them.
    pub(crate) fn complete(&self, uses: &mut Uses) {
        if named(&self.macros, &uses.macros).any(|own| own.uses != Uses::default()) {
            let mut macros: Vec<&Macro<'_>> = named(&self.macros, &uses.macros).collect();
            let mut found: [HashSet<&str>; 4] = Default::default();
            let [of_macros, of_lists, of_base_macros, of_base_lists] = &mut found;
            while let Some(own) = macros.pop() {
                let new = own.uses.macros.iter().filter(|name| of_macros.insert(name));
                macros.extend(new.filter_map(|name| self.macros.get(name)));
                of_lists.extend(own.uses.lists.iter());
                of_base_macros.extend(own.uses.base_macros.iter());
                of_base_lists.extend(own.uses.base_lists.iter());
            }
            let [of_macros, of_lists, of_base_macros, of_base_lists] = found;
            uses.macros.extend(of_macros);
            uses.lists.extend(of_lists);
            uses.base_macros.extend(of_base_macros);
            uses.base_lists.extend(of_base_lists);
        }
        if named(&self.lists, &uses.lists).any(|own| !own.uses.is_empty() || !own.base_uses.is_empty()) {
            let mut lists: Vec<&List<'_>> = named(&self.lists, &uses.lists).collect();
            let (mut of_lists, mut of_base_lists) = (HashSet::new(), HashSet::new());
            while let Some(own) = lists.pop() {
                let new = own.uses.iter().filter(|name| of_lists.insert(*name));
                lists.extend(new.filter_map(|name| self.lists.get(name)));
                of_base_lists.extend(own.base_uses.iter());
            }
            uses.lists.extend(of_lists);
            uses.base_lists.extend(of_base_lists);
        }
    }

    /// The types of events for which a condition can hold; to be called only within the limits.
    pub(crate) fn possible(&self, tree: &Expr<'_>, catalog: &Catalog) -> Option<Possible> {
        let resolve = |name: &str| match self.macros.get(name) {
            Some(own) => own.possible,
            None => catalog.base_macro(name).and_then(|base| base.possible),
        };
        let expand = |value: &Value<'_>, f: &mut dyn FnMut(&str)| match self.own_list(value) {
            Some(own) => own.values.iter().flatten().for_each(|value| catalog.each_value(&value.text, f)),
            None => catalog.each_value(&value.text, f),
        };
        events::possible(tree, &resolve, &expand)
    }

    /// The list of the namespace that a value is the name of.
    pub(crate) fn own_list(&self, value: &Value<'_>) -> Option<&List<'a>> {
        if value.kind == ValueKind::Bare { self.lists.get(&value.text) } else { None }
    }

    /// The tree with lists and macros in the place of their names; to be called only within the limits. What is wrong with
    /// them was reported by the checker, and stays as it is.
    pub(crate) fn expand(&self, mut tree: Expr<'a>, catalog: &Catalog) -> Expr<'a> {
        self.insert(&mut tree, catalog, false);
        tree
    }

    /// `foreign` is what comes from another text, in which its places are.
    fn insert(&self, expr: &mut Expr<'a>, catalog: &Catalog, foreign: bool) {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => {
                for part in parts {
                    self.insert(part, catalog, foreign);
                }
            }
            Expr::Not(inner) => self.insert(inner, catalog, foreign),
            Expr::Check(check) => {
                if let Rhs::List(list) = &mut check.rhs {
                    self.expand_list(list, catalog);
                }
                if foreign {
                    check.unplace();
                }
            }
            Expr::Macro(_) => {
                let meant = expr.meant(|name| self.tree(name));
                if !std::ptr::eq(meant, expr) {
                    *expr = meant.clone();
                    self.insert(expr, catalog, true);
                }
            }
        }
    }

    fn expand_list(&self, list: &mut ValueList<'a>, catalog: &Catalog) {
        for mut value in std::mem::take(&mut list.values) {
            if let Some(own) = self.own_list(&value) {
                list.values.extend(own.values.iter().flatten().cloned());
                list.parentheses = true;
                continue;
            }
            if value.kind == ValueKind::Bare && catalog.has_list(&value.text) {
                value.kind = ValueKind::BaseList;
                list.parentheses = true;
            }
            list.values.push(value);
        }
    }

    /// Which lists and macros none of these rules uses, as Falco's warnings say it.
    #[must_use]
    pub fn unused<'u>(&self, uses: impl IntoIterator<Item = &'u Uses>) -> BTreeMap<&str, Diagnostic> {
        let (mut lists, mut macros): (HashSet<&str>, HashSet<&str>) = (self.lists().collect(), self.macros().collect());
        for uses in uses {
            lists.retain(|name| !uses.lists.contains(name));
            macros.retain(|name| !uses.macros.contains(name));
        }
        let unused = |what: &str, code, name: &str| {
            let message = format!("no rule uses {what} `{name}`");
            Diagnostic::warning(code, Span::default(), message).within(Part::Whole)
        };
        let lists = lists.into_iter().map(|name| (name, unused("list", Code::UnusedList, name)));
        lists.chain(macros.into_iter().map(|name| (name, unused("macro", Code::UnusedMacro, name)))).collect()
    }

    /// The list or macro that was probably meant.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.macros().chain(self.lists()))
    }
}

/// Bytes of a macro, or of the values of a list, up to which their text is kept for the conditions that name it.
const KEPT_BYTES: usize = 4096;

/// What is known by these names.
fn named<'k, T>(known: &'k NameMap<SmolStr, T>, names: &WordSet) -> impl Iterator<Item = &'k T> {
    names.iter().filter_map(|name| known.get(name))
}

/// The list of Falco's own that a value is the name of.
fn base_list<'a>(value: &Value<'_>, catalog: &'a Catalog) -> Option<&'a BaseList> {
    if value.kind == ValueKind::Quoted { None } else { catalog.base_list(&value.text) }
}

/// Adds a finding, if there are not so many that nobody reads more. That there is an error is never lost.
fn add_bounded(findings: &mut Vec<Diagnostic>, finding: Diagnostic) {
    if findings.len() < limits::FINDINGS {
        findings.push(finding);
    } else if finding.is_error() && !findings.iter().any(Diagnostic::is_error) {
        findings.pop();
        findings.push(finding);
    }
}

fn duplicate(what: &str, name: &str) -> Diagnostic {
    let message = format!("there is another {what} `{name}` in the namespace");
    Diagnostic::invalid(Code::DuplicateName, Span::default(), message).within(Part::Name)
}

pub(crate) fn is_macro_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// An item that is wholly in quotes is what stands in them, as it would be where Falco pastes it.
pub(crate) fn item_value(item: &str) -> Value<'_> {
    if item.starts_with(['"', '\''])
        && let Some(Rhs::Value(mut value)) = Parser::whole_values(item)
    {
        value.span = Span::default();
        return value;
    }
    Value::of(item)
}

/// What a tree comes to once macros are in it, without making it. A macro that is not known counts as one.
pub(crate) fn size_of(expr: &Expr<'_>, of_macro: &impl Fn(&Word<'_>) -> Option<Size>) -> Size {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => Size::of(parts.iter().map(|part| size_of(part, of_macro))),
        Expr::Not(inner) => Size::of(std::iter::once(size_of(inner, of_macro))),
        Expr::Macro(word) => of_macro(word).unwrap_or(Size::LEAF),
        Expr::Check(Check { rhs: Rhs::List(list), .. }) => Size { nodes: 1 + list.values.len(), depth: 0 },
        Expr::Check(_) => Size::LEAF,
    }
}

pub(crate) fn over_limits(size: Size, tree: &Expr<'_>) -> Option<Diagnostic> {
    let message = if size.nodes > limits::NODES {
        let nodes = if size.nodes == usize::MAX { "uncountably many".to_owned() } else { size.nodes.to_string() };
        format!(
            "it comes to {nodes} checks and values once macros and lists are inserted; the limit is {}",
            limits::NODES
        )
    } else if size.depth > limits::TREE_DEPTH {
        format!("it is nested {} levels deep once macros are inserted; the limit is {}", size.depth, limits::NESTING)
    } else {
        return None;
    };
    Some(Diagnostic::unsafe_(Code::Expansion, tree.span(), message))
}

/// The items in an order in which each follows those it needs, and those that need themselves.
pub(crate) fn in_order(needs: &[Vec<usize>]) -> (Vec<usize>, Vec<usize>) {
    let mut waiting: Vec<usize> = vec![0; needs.len()];
    let mut needed_by: Vec<Vec<usize>> = vec![vec![]; needs.len()];
    for (index, needs) in needs.iter().enumerate() {
        let distinct: BTreeSet<usize> = needs.iter().copied().collect();
        waiting[index] = distinct.len();
        for need in distinct {
            needed_by[need].push(index);
        }
    }
    let mut order: Vec<usize> = (0..needs.len()).filter(|index| waiting[*index] == 0).collect();
    let mut next = 0;
    while let Some(done) = order.get(next).copied() {
        next += 1;
        for index in &needed_by[done] {
            waiting[*index] -= 1;
            if waiting[*index] == 0 {
                order.push(*index);
            }
        }
    }
    // What is left waits for a loop, or is in one. Peeling off those that nothing left waits for leaves the loops.
    let mut left: BTreeSet<usize> = (0..needs.len()).filter(|index| waiting[*index] > 0).collect();
    let mut followers: Vec<usize> = vec![];
    let mut counts: HashMap<usize, usize> =
        left.iter().map(|index| (*index, needed_by[*index].iter().filter(|by| left.contains(by)).count())).collect();
    let mut leaves: Vec<usize> = counts.iter().filter(|(_, count)| **count == 0).map(|(index, _)| *index).collect();
    leaves.sort_unstable();
    while let Some(leaf) = leaves.pop() {
        left.remove(&leaf);
        followers.push(leaf);
        let distinct: BTreeSet<usize> = needs[leaf].iter().copied().collect();
        for need in distinct {
            if let Some(count) = counts.get_mut(&need) {
                *count = count.saturating_sub(1);
                if *count == 0 && left.contains(&need) {
                    leaves.push(need);
                }
            }
        }
    }
    // Those that only wait for a loop come after it, the one that was peeled last first.
    order.extend(followers.into_iter().rev());
    (order, left.into_iter().collect())
}
