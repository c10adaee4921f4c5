//! The lists of rules files: what Falco pastes for each, and over which words.

use std::collections::{BTreeSet, HashMap};

use super::FileList;
use crate::language::catalog::Catalog;
use crate::language::definitions::item_value;
use crate::language::diagnostic::{Code, Diagnostic, Part, Span};
use crate::language::limits;
use crate::language::parse::parse;
use crate::language::paste::{self, PASTED_BYTES, Pasted, pasted_item, pasted_items};
use crate::language::print::{quoted, unmeant};
use crate::language::scan::is_bare;
use crate::language::tree::Rhs;

/// All lists, in the order in which Falco pastes them.
pub(super) struct Lists<'a> {
    all: Vec<List<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// Names that hold what ends a word, and are found all the same.
    odd: Vec<usize>,
    pub(super) catalog: &'a Catalog,
}

struct List<'a> {
    name: &'a str,
    /// What is pasted.
    items: String,
    /// The lists that are named in it.
    names: Vec<usize>,
    used: bool,
}

impl<'a> Lists<'a> {
    pub(super) fn new(lists: &[FileList<'a>], catalog: &'a Catalog, findings: &mut [Vec<Diagnostic>]) -> Self {
        let by_name: HashMap<&str, usize> =
            lists.iter().enumerate().map(|(index, list)| (list.text.name, index)).collect();
        let mut made = Self { all: Vec::with_capacity(lists.len()), by_name, odd: vec![], catalog };
        let mut used = vec![false; lists.len()];
        for (list, report) in lists.iter().zip(findings) {
            let name = list.text.name;
            if !is_bare(name) {
                let message = format!("`{}` can't be referred to as a list", name.escape_debug());
                report.push(
                    Diagnostic::warning(Code::InvalidListName, Span::new(0, name.len()), message)
                        .within(Part::Name)
                        .help("no blanks, quotes, parentheses, commas and `=`"),
                );
                made.odd.push(made.all.len());
            }
            let mut flat: Vec<String> = Vec::with_capacity(list.text.items.len());
            let mut count = 0_usize;
            for (index, item) in list.text.items.iter().enumerate() {
                let named = made.by_name.get(item.as_str()).copied();
                if let Some(other) = named.filter(|other| lists[*other].order.first < list.order.last) {
                    used[other] = true;
                    count += lists[other].text.items.len();
                    if count <= limits::LIST_ENTRIES {
                        flat.extend(lists[other].text.items.iter().map(|item| pasted_item(item)));
                    }
                } else {
                    report.extend(hazard(item).map(|finding| finding.within(Part::Entry(index as u32))));
                    count += 1;
                    flat.push(pasted_item(item));
                }
            }
            if count > limits::LIST_ENTRIES {
                let message = format!("the list comes to {count} values; the limit is {}", limits::LIST_ENTRIES);
                report.push(Diagnostic::unsafe_(Code::Expansion, Span::default(), message).within(Part::Name));
            }
            let items = pasted_items(flat.iter().map(String::as_str));
            let mut names = vec![];
            paste::hits(&items, |word| {
                names.extend(made.by_name.get(word));
                false
            });
            made.all.push(List { name, items, names, used: false });
        }
        for (list, used) in made.all.iter_mut().zip(used) {
            list.used = used;
        }
        made
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Pastes all lists over a text as Falco does: each once, in the order of their definitions.
    pub(super) fn paste(&mut self, text: &str, report: &mut Vec<Diagnostic>) -> Pasted {
        let mut pasted = Pasted::new(text);
        let mut waiting: BTreeSet<usize> = self.odd.iter().copied().collect();
        paste::hits(text, |word| {
            waiting.extend(self.by_name.get(word));
            false
        });
        let mut count = 0;
        while let Some(index) = waiting.pop_first() {
            let Some(list) = self.all.get_mut(index) else { continue };
            if !pasted.paste(list.name, &list.items) {
                continue;
            }
            list.used = true;
            // A list that stands before this one has had its turn.
            waiting.extend(list.names.iter().filter(|name| **name > index));
            count += 1;
            if count > limits::LISTS_PASTED || pasted.text.len() > PASTED_BYTES {
                let message = format!(
                    "lists are put into the condition {count} times, to {} bytes; the limits are {} and {PASTED_BYTES}",
                    pasted.text.len(),
                    limits::LISTS_PASTED
                );
                report.push(Diagnostic::unsafe_(Code::Expansion, Span::new(0, text.len()), message));
                break;
            }
        }
        pasted
    }

    /// Words of a condition over which lists are pasted, or are not, so that Falco reads something else than is written.
    pub(super) fn hazards(&self, condition: &str, pasted: &Pasted, report: &mut Vec<Diagnostic>) {
        let hits = paste::hits(condition, |word| self.has(word));
        if !hits.is_empty()
            && let Some(tree) = parse(condition).tree
        {
            for hit in unmeant(&tree, &hits) {
                let word = hit.of(condition);
                let message = format!("Falco puts the items of list `{word}` in the place of this word");
                report.push(
                    Diagnostic::unsafe_(Code::PastedOver, hit, message)
                        .help(format!("write `in ({word})` for the list, or give the list another name")),
                );
            }
        }
        for hit in paste::hits(&pasted.text, |word| self.has(word)) {
            let word = hit.of(&pasted.text);
            let message = format!("Falco leaves the name of list `{word}` here as a text, and its items out");
            report.push(
                Diagnostic::unsafe_(Code::NeverMatches, pasted.original(hit), message)
                    .help("lists within lists are put in one level deep: write the items out"),
            );
        }
    }

    pub(super) fn unused(&self, findings: &mut [Vec<Diagnostic>]) {
        for (list, report) in self.all.iter().zip(findings).filter(|(list, _)| !list.used) {
            report.push(super::unused("list", Code::UnusedList, list.name));
        }
    }
}

/// What is wrong with an item that Falco doesn't read as itself where it pastes it.
fn hazard(item: &str) -> Option<Diagnostic> {
    let whole = Span::new(0, item.len());
    let wrong = |message: String| Some(Diagnostic::unsafe_(Code::ListItem, whole, message));
    if item.is_empty() {
        return wrong("Falco leaves out an empty item".into())
            .map(|finding| finding.help("write it in quotes within quotes: `'\"\"'`"));
    }
    if item.contains('\0') {
        return Some(Diagnostic::unsafe_(Code::ControlCharacter, whole, "the item holds a NUL character"));
    }
    let meant = item_value(item);
    let text = pasted_item(item);
    let condition = format!("x.x in ({text})");
    let read = match parse(&condition).tree {
        Some(crate::language::Expr::Check(check)) => match check.rhs {
            Rhs::List(list) => Some(list.values),
            _ => None,
        },
        _ => None,
    };
    let is_long = item.len() > 40 || item.chars().any(char::is_control);
    let shown = if is_long { "the item".to_owned() } else { format!("`{item}`") };
    let help = format!("write it in quotes within quotes: `'{}'`", quoted(item).replace('\'', "''"));
    match read.as_deref() {
        Some([one]) if one.text == meant.text => None,
        Some([_]) => wrong(format!("Falco reads {shown} as another value")),
        Some(values) => wrong(format!("Falco reads {shown} as {} values", values.len())),
        None => wrong(format!("Falco puts {shown} into conditions as it is, and then can't read them")),
    }
    .map(|finding| finding.help(help))
}
