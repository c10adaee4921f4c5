//! What a Falco installation offers to rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use smol_str::SmolStr;

use super::FastMap;
use super::check;
use super::definitions::{Size, size_of};
use super::diagnostic::{Span, nearest};
use super::events::{self, Possible};
use super::fields::{ArgumentInfo, FieldInfo, KNOWN, Kind, serves};
use super::limits;
use super::name_map::NameMap;
use super::parse::parse;
use super::paste::{self, PASTED_BYTES, Pasted, pasted_item, pasted_items};
use super::tree::{Check, Expr, Rhs, Value};

/// The source of the rules that name none.
pub const SYSCALL: &str = "syscall";

/// What an installation offers, as it was reported.
#[derive(Clone, Debug, Default)]
pub struct CatalogData {
    /// Falco's version.
    pub falco_version: String,
    /// The version of its engine.
    pub engine_version: String,
    /// The sources that rules can name.
    pub sources: Vec<String>,
    /// The filter fields.
    pub fields: Vec<FieldData>,
    /// The names of the rules in the base files.
    pub rules: Vec<String>,
    /// Names and conditions of the macros in the base files, in their order.
    pub macros: Vec<(String, String)>,
    /// Names and items of the lists in the base files, in their order.
    pub lists: Vec<(String, Vec<String>)>,
    /// falco.yaml's `priority`: rules that are less severe never run. Empty for none.
    pub priority: String,
    /// falco.yaml's selections of rules, in their order: `disable rule NAME`, `enable tag TAG`.
    pub selections: Vec<String>,
}

/// A filter field, as it was reported.
#[derive(Clone, Debug, Default)]
pub struct FieldData {
    /// Its name.
    pub name: String,
    /// Its type, in Falco's words.
    pub type_name: String,
    /// Whether it has several values.
    pub list: bool,
    /// Its argument: empty, or `optional` or `required` and then `index`, `key` or both.
    pub argument: String,
    /// The sources of the rules that can use it; `*` is all.
    pub sources: Vec<String>,
    /// What it says of an event.
    pub description: String,
}

/// What a Falco installation offers to rules: fields, sources, macros, lists and the names of its own rules.
///
/// Cheap to clone. The default one is that of Falco 0.44.1 with the container plugin and without rules of its own.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Content>);

#[derive(Debug, Default)]
struct Content {
    falco_version: String,
    engine_version: String,
    priority: String,
    selections: Vec<String>,
    sources: Vec<Arc<str>>,
    fields: FastMap<SmolStr, FieldInfo>,
    rules: HashSet<String>,
    macros: NameMap<Arc<str>, BaseMacro>,
    lists: NameMap<Arc<str>, BaseList>,
    /// Names of lists that hold what ends a word, and are found all the same.
    odd_lists: Vec<String>,
}

/// A macro of the base files.
#[derive(Debug)]
pub(crate) struct BaseMacro {
    pub(crate) condition: String,
    /// The types of events for which it can hold.
    pub(crate) possible: Option<Possible>,
    /// What it comes to.
    pub(crate) size: Size,
    /// What keeps rules of a source from using it.
    errors: HashMap<Arc<str>, String>,
}

impl BaseMacro {
    pub(crate) fn error(&self, source: &str) -> Option<&str> {
        self.errors.get(source).map(String::as_str)
    }
}

/// A list of the base files, as Falco pastes it.
#[derive(Debug)]
pub(crate) struct BaseList {
    /// What comes of it in the end; `None` where that is not a list of values.
    pub(crate) values: Option<Vec<Value<'static>>>,
}

impl BaseList {
    /// How many values come of it, one at least: to look at none takes as much.
    pub(crate) fn count(&self) -> usize {
        self.values.as_ref().map_or(1, |values| values.len().max(1))
    }
}

static FALCO: LazyLock<Catalog> = LazyLock::new(|| Catalog::with_plugins(&["container"]));

impl Default for Catalog {
    fn default() -> Self {
        FALCO.clone()
    }
}

impl Catalog {
    /// Falco 0.44.1 with the container plugin and without rules of its own: what is assumed of nodes that have not
    /// reported.
    #[must_use]
    pub fn falco() -> &'static Self {
        &FALCO
    }

    /// Falco 0.44.1 with some of the plugins `container`, `k8saudit`, `json` and `k8smeta`, without rules of its own.
    #[must_use]
    pub fn with_plugins(plugins: &[&str]) -> Self {
        Self::new(Self::data_of(plugins))
    }

    /// The data of [`Catalog::with_plugins`], to add to.
    #[must_use]
    pub fn data_of(plugins: &[&str]) -> CatalogData {
        let loaded = |origin: &str| origin.strip_prefix("plugin:").is_none_or(|plugin| plugins.contains(&plugin));
        let mut sources = vec![SYSCALL.to_owned()];
        sources.extend(plugins.contains(&"k8saudit").then(|| "k8s_audit".to_owned()));
        let field = |info: &FieldInfo| FieldData { name: info.name.to_string(), ..FieldData::default() };
        CatalogData {
            falco_version: "0.44.1".to_owned(),
            engine_version: "0.62.0".to_owned(),
            sources,
            fields: KNOWN.fields.iter().filter(|info| loaded(&info.origin)).map(field).collect(),
            ..CatalogData::default()
        }
    }

    /// A catalogue of what an installation reports. What it leaves out of the fields that every Falco has is filled in:
    /// those that `falco --list` does not show, and what it does not say of those it shows.
    #[must_use]
    pub fn new(data: CatalogData) -> Self {
        let mut content = Content {
            falco_version: data.falco_version,
            engine_version: data.engine_version,
            priority: data.priority,
            selections: data.selections,
            sources: data.sources.iter().map(|source| source.as_str().into()).collect(),
            rules: data.rules.into_iter().collect(),
            ..Content::default()
        };
        if content.sources.is_empty() {
            content.sources.push(SYSCALL.into());
        }
        let known: HashMap<&str, &FieldInfo> = KNOWN.fields.iter().map(|field| (&*field.name, field)).collect();
        let mut origins: BTreeSet<&str> = BTreeSet::from(["libs"]);
        for field in data.fields {
            let info = match known.get(field.name.as_str()) {
                Some(info) => {
                    origins.insert(&info.origin);
                    let mut info = (*info).clone();
                    if !field.description.is_empty() {
                        info.description = field.description.into();
                    }
                    // Another version of Falco may have given it another type.
                    if !field.type_name.is_empty() && *field.type_name != *info.type_name {
                        info.kind = Kind::of(&field.type_name);
                        info.type_name = field.type_name.into();
                        info.list = field.list;
                    }
                    info
                }
                None => reported(field),
            };
            content.fields.insert(SmolStr::new(&info.name), info);
        }
        for info in KNOWN.fields.iter().filter(|info| info.unlisted && origins.contains(&*info.origin)) {
            content.fields.entry(SmolStr::new(&info.name)).or_insert_with(|| info.clone());
        }
        let lists = pasted_lists(&data.lists);
        content.lists = base_lists(&lists);
        content.odd_lists = lists.iter().map(|(name, _)| name).filter(|name| paste::is_odd(name)).cloned().collect();
        let mut catalog = Self(Arc::new(content));
        let macros = catalog.base_macros(&data.macros, &lists);
        if let Some(content) = Arc::get_mut(&mut catalog.0) {
            content.macros = macros;
        }
        catalog
    }

    /// Falco's version.
    #[must_use]
    pub fn falco_version(&self) -> &str {
        &self.0.falco_version
    }

    /// The version of its engine.
    #[must_use]
    pub fn engine_version(&self) -> &str {
        &self.0.engine_version
    }

    /// falco.yaml's `priority`: rules that are less severe never run. Empty for none.
    #[must_use]
    pub fn priority(&self) -> &str {
        &self.0.priority
    }

    /// falco.yaml's selections of rules, in their order: `disable rule NAME`, `enable tag TAG`.
    #[must_use]
    pub fn selections(&self) -> &[String] {
        &self.0.selections
    }

    /// The sources that rules can name.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.0.sources.iter().map(|source| &**source)
    }

    /// Whether rules can name the source.
    #[must_use]
    pub fn has_source(&self, source: &str) -> bool {
        self.sources().any(|other| other == source)
    }

    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&FieldInfo> {
        self.0.fields.get(name)
    }

    /// All fields, in no order.
    pub fn fields(&self) -> impl Iterator<Item = &FieldInfo> {
        self.0.fields.values()
    }

    /// The field that was probably meant, for rules of a source.
    #[must_use]
    pub fn nearest_field(&self, name: &str, source: &str) -> Option<&str> {
        nearest(name, self.fields().filter(|field| !field.deprecated && field.serves(source)).map(|field| &*field.name))
    }

    /// Whether the base files define a rule of this name.
    #[must_use]
    pub fn has_rule(&self, name: &str) -> bool {
        self.0.rules.contains(name)
    }

    /// Whether the base files define a list of this name.
    #[must_use]
    pub fn has_list(&self, name: &str) -> bool {
        self.0.lists.contains(name)
    }

    /// Whether the base files define a macro of this name.
    #[must_use]
    pub fn has_macro(&self, name: &str) -> bool {
        self.0.macros.contains(name)
    }

    /// The condition of the base macro of this name.
    #[must_use]
    pub fn macro_condition(&self, name: &str) -> Option<&str> {
        self.base_macro(name).map(|base| base.condition.as_str())
    }

    /// The names of the base macros, in no order.
    pub fn macros(&self) -> impl Iterator<Item = &str> {
        self.0.macros.names()
    }

    /// The names of the base lists, in no order.
    pub fn lists(&self) -> impl Iterator<Item = &str> {
        self.0.lists.names()
    }

    /// Where in a condition Falco would paste base lists.
    pub(crate) fn pasted_over(&self, condition: &str) -> Vec<Span> {
        if self.0.lists.is_empty() {
            return vec![];
        }
        let mut hits = paste::hits(condition, |word| self.has_list(word));
        for name in &self.0.odd_lists {
            hits.extend(condition.match_indices(name.as_str()).map(|(at, found)| Span::new(at, at + found.len())));
        }
        hits
    }

    pub(crate) fn base_macro(&self, name: &str) -> Option<&BaseMacro> {
        self.0.macros.get(name)
    }

    pub(crate) fn base_list(&self, name: &str) -> Option<&BaseList> {
        self.0.lists.get(name)
    }

    /// Calls back for each value that a word of a list stands for: those of the base list of that name, or itself.
    pub(crate) fn each_value(&self, word: &str, f: &mut dyn FnMut(&str)) {
        match self.base_list(word).and_then(|list| list.values.as_ref()) {
            Some(values) => values.iter().for_each(|value| f(&value.text)),
            None => f(word),
        }
    }

    /// Reads the base macros as Falco does, each with those before it.
    fn base_macros(&self, macros: &[(String, String)], lists: &[(String, String)]) -> NameMap<Arc<str>, BaseMacro> {
        let mut read: NameMap<Arc<str>, BaseMacro> = NameMap::default();
        for (name, condition) in macros {
            let mut text = Pasted::new(condition);
            for (list, items) in lists {
                text.paste(list, items);
            }
            let parsed = parse(&text.text);
            let mut errors = HashMap::new();
            let mut size = Size { nodes: 1, depth: 0 };
            let possible = if let Some(tree) = &parsed.tree {
                for source in &self.0.sources {
                    let error = check::first_error(tree, source, self).or_else(|| macro_error(tree, source, &read));
                    errors.extend(error.map(|error| (source.clone(), error)));
                }
                size = size_of(tree, &|word| read.get(&word.text).map(|base: &BaseMacro| base.size));
                let resolve = |name: &str| read.get(name).and_then(|base| base.possible);
                events::possible(tree, &resolve, &|value, f| f(&value.text))
            } else {
                let error = parsed.diagnostics.first().map_or("it can't be read", |first| &first.message);
                errors.extend(self.0.sources.iter().map(|source| (source.clone(), error.to_owned())));
                None
            };
            read.insert(name.as_str().into(), BaseMacro { condition: condition.clone(), possible, size, errors });
        }
        read
    }
}

/// What keeps the macros that a macro refers to from being used.
fn macro_error(tree: &Expr<'_>, source: &str, read: &NameMap<Arc<str>, BaseMacro>) -> Option<String> {
    let mut error = None;
    tree.each_macro(&mut |word| {
        if error.is_none() {
            error = match read.get(&word.text) {
                Some(base) => base.error(source).map(str::to_owned),
                None => Some(format!("there is no macro `{}` before it", word.text)),
            };
        }
    });
    error
}

fn reported(field: FieldData) -> FieldInfo {
    let sources: Arc<[Arc<str>]> = field.sources.iter().map(|source| source.as_str().into()).collect();
    FieldInfo {
        kind: Kind::of(&field.type_name),
        name: field.name.into(),
        type_name: field.type_name.into(),
        list: field.list,
        argument: ArgumentInfo::of(&field.argument),
        right_hand: true,
        transformer: true,
        deprecated: false,
        unlisted: false,
        serves_syscall: serves(&sources, SYSCALL),
        sources,
        origin: "plugin:".into(),
        description: field.description.into(),
    }
}

/// The lists as Falco pastes them: an item that names a list before is replaced by that one's items, once.
///
/// An item that would make a list longer than any may be stays as it is, and so do those behind all that may be pasted:
/// what a node says of its Falco must not take all memory.
pub(crate) fn pasted_lists(lists: &[(String, Vec<String>)]) -> Vec<(String, String)> {
    let mut before: HashMap<&str, &[String]> = HashMap::new();
    let mut pasted = Vec::with_capacity(lists.len());
    let mut left = PASTED_BYTES;
    for (name, items) in lists {
        let mut flat: Vec<String> = Vec::with_capacity(items.len());
        for item in items {
            let inner = before.get(item.as_str()).filter(|inner| flat.len() + inner.len() <= limits::LIST_ENTRIES);
            let bytes = |inner: &[String]| inner.iter().map(|item| item.len() + 4).sum::<usize>();
            match inner.map(|inner| (inner, bytes(inner))).filter(|(_, bytes)| *bytes <= left) {
                Some((inner, bytes)) => {
                    left -= bytes;
                    flat.extend(inner.iter().map(|item| pasted_item(item)));
                }
                None => flat.push(pasted_item(item)),
            }
        }
        pasted.push((name.clone(), pasted_items(flat.iter().map(String::as_str))));
        before.insert(name, items);
    }
    pasted
}

/// What Falco makes of `in (name)` for each list. Of lists behind all that may be pasted it is not known which values
/// they hold.
fn base_lists(lists: &[(String, String)]) -> NameMap<Arc<str>, BaseList> {
    let mut read = NameMap::default();
    let mut left = 4 * PASTED_BYTES;
    for (name, _) in lists {
        let mut text = Pasted::new(&format!("x.x in ({name})"));
        for (list, items) in lists {
            if text.text.len() < PASTED_BYTES.min(left) {
                text.paste(list, items);
            }
        }
        left = left.saturating_sub(text.text.len());
        let values = match parse(&text.text).tree {
            Some(Expr::Check(Check { rhs: Rhs::List(list), .. })) => {
                Some(list.values.into_iter().map(Value::into_owned).collect())
            }
            _ => None,
        };
        read.insert(name.as_str().into(), BaseList { values });
    }
    read
}
