//! Plain Falco rules files: their items as Falco reads them, overrides and appends resolved.

use std::collections::HashMap;
use std::ops::Range;

use super::finding::Class;
use super::marked::{Kind, Node};
use super::place::whole_of;
use super::schema::closest;
use crate::language::{Code, Order};

/// The items of plain rules files once all were read, in the order in which they were first defined.
#[derive(Debug, Default)]
pub struct Items {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The macros.
    pub macros: Vec<Macro>,
    /// The lists.
    pub lists: Vec<List>,
    /// What the files ask of the engine.
    pub requirements: Vec<Requirement>,
    /// Where the files ask for versions of the engine or of plugins.
    pub asks: Vec<(usize, Range<usize>)>,
    /// What is not as Falco wants it, or can't be had.
    pub mistakes: Vec<Mistake>,
    /// How many definitions and changes of items were read.
    count: usize,
    /// The place of each item, by its kind and name.
    places: HashMap<(&'static str, String), usize>,
}

/// A version of the engine that a file asks for.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// The file, by its index.
    pub file: usize,
    /// Where it is said.
    pub span: Range<usize>,
    /// The version, in its three parts.
    pub version: [u64; 3],
}

/// Something about an item that is not right.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// The file, by its index.
    pub file: usize,
    /// The item: Falco's word for its kind, and its name.
    pub item: (&'static str, String),
    /// The bytes of the file that are meant.
    pub span: Range<usize>,
    /// A stable word for it.
    pub code: &'static str,
    /// Whether Falco takes it all the same, and no harm comes of it.
    pub warning: bool,
    /// What kind of mistake it is.
    pub class: Class,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// A text that may be put together from several places.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// The whole.
    pub text: String,
    /// Where each part of it begins, which file it is from, and its node.
    pub parts: Vec<(usize, usize, Node)>,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The file of its definition, by its index.
    pub file: usize,
    /// The item that defines it.
    pub node: Node,
    /// Its name.
    pub name: String,
    /// Its texts.
    pub desc: Text,
    /// Its condition.
    pub condition: Text,
    /// Its output.
    pub output: Text,
    /// Its priority.
    pub priority: Text,
    /// Its source, if it names one.
    pub source: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its switches and numbers, by their keys: `enabled`, `warn_evttypes`, `skip-if-unknown-filter`, `capture`,
    /// `capture_duration`.
    pub flags: Vec<(&'static str, Node)>,
    /// Its exceptions, with the files that they are from.
    pub exceptions: Vec<(usize, Node)>,
    /// Whether the exceptions came by an override that replaced others.
    pub replaced_exceptions: bool,
}

/// A macro.
#[derive(Clone, Debug)]
pub struct Macro {
    /// The file of its definition, by its index.
    pub file: usize,
    /// The item that defines it.
    pub node: Node,
    /// Its name.
    pub name: String,
    /// Its condition.
    pub condition: Text,
    /// Where it stands among all definitions.
    pub order: Order,
}

/// A list.
#[derive(Clone, Debug)]
pub struct List {
    /// The file of its definition, by its index.
    pub file: usize,
    /// The item that defines it.
    pub node: Node,
    /// Its name.
    pub name: String,
    /// Its items.
    pub items: Vec<(usize, Node)>,
    /// Where it stands among all definitions.
    pub order: Order,
}

/// The switches and numbers of a rule.
pub const FLAGS: [&str; 5] = ["enabled", "warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration"];

const RULE_KEYS: [&str; 16] = [
    "rule",
    "desc",
    "condition",
    "output",
    "priority",
    "enabled",
    "tags",
    "source",
    "exceptions",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "capture",
    "capture_duration",
    "append",
    "override",
    "required_engine_version",
];

/// How an item relates to an earlier one.
enum Mode {
    Define,
    Append,
    Override(Vec<(String, bool)>),
}

impl Text {
    fn of(file: usize, node: &Node, text: &str) -> Self {
        Self { text: text.to_owned(), parts: vec![(0, file, node.clone())] }
    }

    /// Falco joins with a blank and no parentheses.
    fn append(&mut self, other: Self) {
        self.text.push(' ');
        let length = self.text.len();
        self.text.push_str(&other.text);
        self.parts.extend(other.parts.into_iter().map(|(at, file, node)| (at + length, file, node)));
    }

    /// The file and the byte in it of a byte of the text.
    pub fn place(&self, files: &[super::input::File], offset: usize) -> Option<(usize, usize)> {
        let (start, file, node) = self.parts.iter().rev().find(|(start, ..)| *start <= offset)?;
        Some((*file, node.byte_at(&files.get(*file)?.text, offset - start)))
    }
}

impl Items {
    /// Reads the items of a document.
    pub fn read(&mut self, file: usize, document: &Node) {
        if document.seq().is_none() {
            let message = "a document of a rules file should be a list of rules, macros and lists";
            self.file_mistake(file, document, "wrong-type", message, "begin each item with `- `");
        }
        for node in document.seq().unwrap_or_default() {
            if node.is_null() {
                continue;
            }
            if !matches!(node.kind, Kind::Map(_)) {
                let message = "an item of a rules file should be a mapping with a key `rule`, `macro` or `list`";
                self.file_mistake(file, node, "wrong-type", message, "");
                continue;
            }
            let at = self.count;
            self.count += 1;
            let mut reader = Reader { file, node, kind: "file", name: String::new(), at, mistakes: Vec::new() };
            let kind = ["required_engine_version", "required_plugin_versions", "list", "macro", "rule"]
                .into_iter()
                .find(|kind| node.get(kind).is_some());
            if let Some(asks) = kind.filter(|kind| kind.starts_with("required_")).and_then(|kind| node.entry(kind)) {
                self.asks.push((file, asks.0.span.clone()));
            }
            match kind {
                Some("list") => self.list(&mut reader),
                Some("macro") => self.macro_(&mut reader),
                Some("rule") => self.rule(&mut reader),
                Some("required_engine_version") => self.requirements.extend(reader.engine_version()),
                Some(_) => reader.plugin_versions(),
                None => {
                    let help =
                        node.entries().first().and_then(|(key, _)| closest(key.scalar()?, &["rule", "macro", "list"]));
                    let help = help.map(|meant| format!("did you mean `{meant}`?")).unwrap_or_default();
                    reader.say(
                        &node.span,
                        Code::UnknownItem.word(),
                        true,
                        "Falco passes over an item without `rule`, `macro` or `list`".to_owned(),
                        &help,
                    );
                }
            }
            self.mistakes.append(&mut reader.mistakes);
        }
    }

    fn file_mistake(&mut self, file: usize, node: &Node, code: &'static str, message: &str, help: &str) {
        self.mistakes.push(Mistake {
            file,
            item: ("file", String::new()),
            span: node.span.clone(),
            code,
            warning: false,
            class: Class::Invalid,
            message: message.to_owned(),
            help: help.to_owned(),
        });
    }

    /// The place of the item among those of its kind, if it was defined before.
    fn place(&self, reader: &Reader<'_>) -> Option<usize> {
        self.places.get(&(reader.kind, reader.name.clone())).copied()
    }

    /// Notes where an item that was not known goes; warns about one that was, since nobody else does.
    fn remember(&mut self, reader: &mut Reader<'_>, replaced: Option<usize>, next: usize) {
        self.places.entry((reader.kind, reader.name.clone())).or_insert(next);
        if replaced.is_some() {
            let message = format!("{} `{}` replaces the one that was defined before it", reader.kind, reader.name);
            let help = "Falco says nothing of it; give it another name, or use `override`";
            reader.say(&whole_of(reader.node, reader.kind), "redefined", true, message, help);
        }
    }

    fn list(&mut self, reader: &mut Reader<'_>) {
        let Some(()) = reader.named("list") else { return };
        reader.keys(&["list", "items", "append", "override"]);
        let Some(items) = reader.strings("items") else { return reader.missing("items") };
        let items: Vec<_> = items.into_iter().map(|node| (reader.file, node)).collect();
        let known = self.place(reader);
        let (appended, asked_for) = match reader.mode(&["items"]) {
            None => return,
            Some(Mode::Append) => (true, true),
            Some(Mode::Override(keys)) => (keys.iter().any(|(_, append)| *append), true),
            Some(Mode::Define) => (false, false),
        };
        match known.and_then(|index| self.lists.get_mut(index)) {
            Some(list) if appended => {
                list.items.extend(items);
                list.order.last = reader.at;
            }
            None if appended => reader.nothing_to_change(),
            _ => {
                let order = reader.order(known.and_then(|index| self.lists.get(index)).map(|list| list.order));
                let (node, name) = (reader.node.clone(), reader.name.clone());
                let list = List { file: reader.file, node, name, items, order };
                self.remember(reader, known.filter(|_| !asked_for), self.lists.len());
                put(&mut self.lists, known, list);
            }
        }
    }

    fn macro_(&mut self, reader: &mut Reader<'_>) {
        let Some(()) = reader.named("macro") else { return };
        reader.keys(&["macro", "condition", "append", "override"]);
        let Some(condition) = reader.text("condition") else { return reader.missing("condition") };
        let known = self.place(reader);
        let (appended, asked_for) = match reader.mode(&["condition"]) {
            None => return,
            Some(Mode::Append) => (true, true),
            Some(Mode::Override(keys)) => (keys.iter().any(|(_, append)| *append), true),
            Some(Mode::Define) => (false, false),
        };
        match known.and_then(|index| self.macros.get_mut(index)) {
            Some(item) if appended => {
                item.condition.append(condition);
                item.order.last = reader.at;
            }
            None if appended => reader.nothing_to_change(),
            _ => {
                let order = reader.order(known.and_then(|index| self.macros.get(index)).map(|item| item.order));
                let (node, name) = (reader.node.clone(), reader.name.clone());
                let item = Macro { file: reader.file, node, name, condition, order };
                self.remember(reader, known.filter(|_| !asked_for), self.macros.len());
                put(&mut self.macros, known, item);
            }
        }
    }

    fn rule(&mut self, reader: &mut Reader<'_>) {
        let Some(()) = reader.named("rule") else { return };
        reader.keys(&RULE_KEYS);
        let overridable: Vec<&str> =
            ["condition", "output", "desc", "tags", "exceptions", "priority"].into_iter().chain(FLAGS).collect();
        let index = self.place(reader);
        let known = index.and_then(|index| self.rules.get_mut(index));
        let has_definition =
            ["condition", "output", "desc", "priority"].iter().any(|key| reader.node.get(key).is_some());
        match reader.mode(&overridable) {
            None => {}
            Some(Mode::Define) if !has_definition => match (reader.node.entry("enabled"), known) {
                (Some((key, _)), known) => {
                    reader.say(
                        &key.span,
                        Code::Deprecated.word(),
                        true,
                        "switching a rule by `enabled` alone is deprecated".to_owned(),
                        "use `override: {enabled: replace}`",
                    );
                    match known {
                        Some(rule) => reader.flags_into(&mut rule.flags),
                        None => reader.nothing_to_change(),
                    }
                }
                (None, _) => reader.missing("condition"),
            },
            Some(Mode::Define) => {
                let [desc, condition, output, priority] = ["desc", "condition", "output", "priority"].map(|key| {
                    let text = reader.text(key);
                    if text.is_none() && reader.node.get(key).is_none() {
                        reader.missing(key);
                    }
                    text
                });
                let mut rule = Rule {
                    file: reader.file,
                    node: reader.node.clone(),
                    name: reader.name.clone(),
                    desc: desc.unwrap_or_default(),
                    condition: condition.unwrap_or_default(),
                    output: output.unwrap_or_default(),
                    priority: priority.unwrap_or_default(),
                    source: reader.text("source").map(|text| text.text),
                    tags: reader.tags(),
                    flags: vec![],
                    exceptions: reader.exceptions(),
                    replaced_exceptions: false,
                };
                if known.is_some_and(|old| old.source() != rule.source()) {
                    let span = reader
                        .node
                        .entry("source")
                        .map_or(whole_of(reader.node, "rule"), |(_, node)| node.span.clone());
                    let message = format!("rule `{}` is there already, for another source", rule.name);
                    reader.say(&span, "bad-value", false, message, "give it another name");
                }
                reader.flags_into(&mut rule.flags);
                self.remember(reader, index, self.rules.len());
                put(&mut self.rules, index, rule);
            }
            Some(Mode::Append) => match known {
                None => reader.nothing_to_change(),
                Some(rule) => {
                    if reader.node.get("condition").is_none() && reader.node.get("exceptions").is_none() {
                        reader.missing("condition");
                    }
                    if let Some(condition) = reader.text("condition") {
                        rule.condition.append(condition);
                    }
                    reader.append_exceptions(&mut rule.exceptions);
                }
            },
            Some(Mode::Override(keys)) => match known {
                None => reader.nothing_to_change(),
                Some(rule) => {
                    if let Some((_, source)) = reader.node.entry("source")
                        && source.scalar().is_some_and(|source| source != rule.source())
                    {
                        let message =
                            format!("rule `{}` is for source {}, which can't be changed", rule.name, rule.source());
                        reader.say(&source.span, "bad-value", false, message, "leave out `source`");
                    }
                    for (key, append) in keys {
                        reader.override_key(rule, &key, append);
                    }
                }
            },
        }
    }
}

/// A redefinition replaces the item whole and keeps its place.
fn put<T>(items: &mut Vec<T>, known: Option<usize>, item: T) {
    match known.and_then(|index| items.get_mut(index)) {
        Some(known) => *known = item,
        None => items.push(item),
    }
}

/// Reads one item.
struct Reader<'a> {
    file: usize,
    node: &'a Node,
    kind: &'static str,
    name: String,
    /// Its number among all items.
    at: usize,
    mistakes: Vec<Mistake>,
}

impl Rule {
    /// The source of its events.
    pub fn source(&self) -> &str {
        self.source.as_deref().unwrap_or("syscall")
    }
}

impl Reader<'_> {
    /// Where the item stands, if it takes the place of another.
    fn order(&self, known: Option<Order>) -> Order {
        Order { first: known.map_or(self.at, |known| known.first), last: self.at }
    }

    fn say(&mut self, span: &Range<usize>, code: &'static str, warning: bool, message: String, help: &str) {
        self.mistakes.push(Mistake {
            file: self.file,
            item: (self.kind, self.name.clone()),
            span: span.clone(),
            code,
            warning,
            class: if warning { Class::Style } else { Class::Invalid },
            message,
            help: help.to_owned(),
        });
    }

    fn named(&mut self, kind: &'static str) -> Option<()> {
        self.kind = kind;
        let (key, value) = self.node.entry(kind)?;
        if let Some(name) = value.scalar().filter(|name| !name.is_empty()) {
            name.clone_into(&mut self.name);
            return Some(());
        }
        let span = key.span.clone();
        self.say(&span, "missing-key", false, format!("the {kind} has no name"), "");
        None
    }

    fn missing(&mut self, key: &str) {
        let span =
            self.node.entry(self.kind).map_or(self.node.span.clone(), |(key, value)| key.span.start..value.span.end);
        let message = format!("{} `{}` has no `{key}`", self.kind, self.name);
        self.say(&span, "missing-key", false, message, "");
    }

    fn nothing_to_change(&mut self) {
        let span =
            self.node.entry(self.kind).map_or(self.node.span.clone(), |(key, value)| key.span.start..value.span.end);
        let message = format!("{} `{}` is changed here, and no file defines it before", self.kind, self.name);
        self.say(&span, "undefined", false, message, "give the file that defines it first");
    }

    fn keys(&mut self, known: &[&str]) {
        let mut seen = Vec::new();
        for (key, _) in self.node.entries() {
            let name = key.scalar().unwrap_or_default();
            if !known.contains(&name) {
                let help = closest(name, known).map(|meant| format!("did you mean `{meant}`?")).unwrap_or_default();
                self.say(
                    &key.span,
                    Code::UnknownKey.word(),
                    true,
                    format!("Falco passes over the key `{name}`"),
                    &help,
                );
            } else if seen.contains(&name) {
                self.say(
                    &key.span,
                    "repeated-key",
                    true,
                    format!("the key `{name}` is there twice; Falco takes the first"),
                    "remove one of them",
                );
            }
            seen.push(name);
        }
    }

    /// The text of a key; a mistake where it has none although it is there.
    fn text(&mut self, key: &str) -> Option<Text> {
        let (key_node, node) = self.node.entry(key)?;
        let text = node.scalar().filter(|text| !text.is_empty());
        if text.is_none() {
            let span = key_node.span.clone();
            self.say(&span, "wrong-type", false, format!("`{key}` should be text"), "");
        }
        Some(Text::of(self.file, node, text?))
    }

    /// The elements of a sequence of scalars.
    fn strings(&mut self, key: &str) -> Option<Vec<Node>> {
        let (key_node, node) = self.node.entry(key)?;
        let items = node.seq().filter(|items| items.iter().all(|item| item.scalar().is_some()));
        if items.is_none() {
            let span = key_node.span.clone();
            self.say(&span, "wrong-type", false, format!("`{key}` should be a list of texts"), "");
        }
        Some(items.unwrap_or_default().to_vec())
    }

    fn tags(&mut self) -> Vec<String> {
        let tags = self.strings("tags").unwrap_or_default();
        tags.iter().filter_map(Node::scalar).map(str::to_owned).collect()
    }

    fn exceptions(&mut self) -> Vec<(usize, Node)> {
        let Some((key, node)) = self.node.entry("exceptions") else { return vec![] };
        if node.seq().is_none() && !node.is_null() {
            let span = key.span.clone();
            self.say(&span, "wrong-type", false, "`exceptions` should be a list".to_owned(), "");
        }
        node.seq().unwrap_or_default().iter().map(|node| (self.file, node.clone())).collect()
    }

    fn flags_into(&mut self, flags: &mut Vec<(&'static str, Node)>) {
        for key in FLAGS {
            if let Some(node) = self.flag(key) {
                flags.retain(|(known, _)| *known != key);
                flags.push((key, node));
            }
        }
    }

    /// The value of a switch or a number; a mistake where it is none.
    fn flag(&mut self, key: &str) -> Option<Node> {
        let (key_node, node) = self.node.entry(key)?;
        let text = node.scalar().unwrap_or_default();
        let (good, what) = match key {
            "capture_duration" => {
                (text.parse::<u32>().is_ok(), "a number of milliseconds, in decimal digits without a sign")
            }
            _ => (is_true(text) || is_false(text), "true or false"),
        };
        if !good {
            let span = if text.is_empty() { &key_node.span } else { &node.span };
            self.say(span, "wrong-type", false, format!("`{key}` should be {what}"), "");
        }
        good.then(|| node.clone())
    }

    /// What the file asks of the engine.
    fn engine_version(&mut self) -> Option<Requirement> {
        let (_, node) = self.node.entry("required_engine_version")?;
        let text = node.scalar().unwrap_or_default();
        let version = text.parse::<u32>().ok().map(|minor| [0, minor.into(), 0]).or_else(|| version(text));
        if version.is_none() {
            let message = format!("`{}` is no version of the engine", text.escape_debug());
            self.say(&node.span, "bad-value", false, message, "write three numbers, such as `0.57.0`");
        }
        Some(Requirement { file: self.file, span: node.span.clone(), version: version? })
    }

    /// Whether what the file asks of plugins can be read.
    fn plugin_versions(&mut self) {
        let Some((key, node)) = self.node.entry("required_plugin_versions") else { return };
        let Some(entries) = node.seq() else {
            let message = "`required_plugin_versions` should be a list".to_owned();
            return self.say(&key.span, "wrong-type", false, message, "");
        };
        for entry in entries {
            let alternatives = entry.get("alternatives").and_then(Node::seq).unwrap_or_default();
            let mut names: Vec<&str> = vec![];
            for one in std::iter::once(entry).chain(alternatives) {
                for key in ["name", "version"] {
                    if one.get(key).and_then(Node::scalar).is_none_or(str::is_empty) {
                        self.say(&one.span, "missing-key", false, format!("the plugin has no `{key}`"), "");
                    }
                }
                let name = one.get("name").and_then(Node::scalar).unwrap_or_default();
                if let Some(node) = one.get("version")
                    && let Some(text) = node.scalar()
                    && version(text).is_none()
                {
                    let message = format!("`{}` is no version of the plugin `{name}`", text.escape_debug());
                    self.say(&node.span, "bad-value", false, message, "write three numbers, such as `0.4.0`");
                }
                if names.contains(&name) {
                    self.say(&one.span, "bad-value", false, format!("the plugin `{name}` is there twice"), "");
                }
                names.push(name);
            }
        }
    }

    /// Values for exceptions that are there, and new exceptions.
    fn append_exceptions(&mut self, exceptions: &mut Vec<(usize, Node)>) {
        for (file, new) in self.exceptions() {
            let name = new.get("name").and_then(Node::scalar).map(str::to_owned);
            let same = exceptions.iter_mut().find(|(_, old)| old.get("name").and_then(Node::scalar) == name.as_deref());
            let Some((_, old)) = same else {
                exceptions.push((file, new));
                continue;
            };
            if new.get("fields").is_some() || new.get("comps").is_some() {
                let message = format!(
                    "the exception `{}` is there already; only values can be appended to it",
                    name.unwrap_or_default()
                );
                self.say(&new.span, "bad-value", false, message, "");
                continue;
            }
            let values = new.get("values").and_then(Node::seq).unwrap_or_default().to_vec();
            if values.is_empty() {
                let message = format!("nothing is appended to the exception `{}`", name.unwrap_or_default());
                self.say(&new.span, Code::AppendNoValues.word(), true, message, "give it `values`");
            }
            if let Kind::Map(entries) = &mut old.kind {
                match entries.iter_mut().find(|(key, _)| key.scalar() == Some("values")) {
                    Some((_, Node { kind: Kind::Seq(old), .. })) => old.extend(values),
                    Some((_, old)) => old.kind = Kind::Seq(values),
                    None => entries.extend(new.entry("values").cloned()),
                }
            }
        }
    }

    fn override_key(&mut self, rule: &mut Rule, key: &str, append: bool) {
        match key {
            "condition" | "output" | "desc" | "priority" => {
                let Some(text) = self.text(key) else { return };
                let field = match key {
                    "condition" => &mut rule.condition,
                    "output" => &mut rule.output,
                    "desc" => &mut rule.desc,
                    _ => &mut rule.priority,
                };
                if append { field.append(text) } else { *field = text }
            }
            "tags" if append => {
                for tag in self.tags() {
                    if !rule.tags.contains(&tag) {
                        rule.tags.push(tag);
                    }
                }
            }
            "tags" => rule.tags = self.tags(),
            "exceptions" if append => self.append_exceptions(&mut rule.exceptions),
            "exceptions" => {
                rule.exceptions = self.exceptions();
                rule.replaced_exceptions = true;
            }
            flag => {
                if let (Some(node), Some(flag)) = (self.flag(flag), FLAGS.iter().find(|known| **known == flag)) {
                    rule.flags.retain(|(known, _)| known != flag);
                    rule.flags.push((flag, node));
                }
            }
        }
    }

    /// What the item does to an earlier one; `None` where that is wrong.
    fn mode(&mut self, overridable: &[&str]) -> Option<Mode> {
        let append = self.node.entry("append");
        if let Some((_, node)) = append
            && !node.scalar().is_some_and(|text| is_true(text) || is_false(text))
        {
            self.say(&node.span, "wrong-type", false, "`append` should be true or false".to_owned(), "");
        }
        let append = append.filter(|(_, node)| node.scalar().is_some_and(is_true));
        let overrides = self.node.entry("override").filter(|(_, node)| !node.entries().is_empty());
        if let Some((key, _)) = append {
            self.say(
                &key.span,
                Code::Deprecated.word(),
                true,
                "`append` is deprecated".to_owned(),
                "use `override: {condition: append}`",
            );
        }
        match (append, overrides) {
            (Some((key, _)), Some(_)) => {
                self.say(
                    &key.span,
                    "bad-value",
                    false,
                    "`append` and `override` can't be there together".to_owned(),
                    "",
                );
                None
            }
            (Some(_), None) => Some(Mode::Append),
            (None, None) => Some(Mode::Define),
            (None, Some((_, node))) => self.overrides(node, overridable).map(Mode::Override),
        }
    }

    fn overrides(&mut self, node: &Node, overridable: &[&str]) -> Option<Vec<(String, bool)>> {
        const REPLACED_ONLY: [&str; 6] =
            ["priority", "enabled", "warn_evttypes", "skip-if-unknown-filter", "capture", "capture_duration"];
        let before = self.mistakes.len();
        let mut keys = Vec::new();
        for (key, value) in node.entries() {
            let name = key.scalar().unwrap_or_default().to_owned();
            let how = value.scalar().unwrap_or_default();
            if !overridable.contains(&name.as_str()) {
                let help = format!("what can be overridden: {}", overridable.join(", "));
                self.say(&key.span, "bad-value", false, format!("`{name}` can't be overridden"), &help);
            } else if how != "append" && how != "replace" {
                self.say(&value.span, "bad-value", false, format!("`{how}` is not `append` or `replace`"), "");
            } else if how == "append" && REPLACED_ONLY.contains(&name.as_str()) {
                self.say(&value.span, "bad-value", false, format!("`{name}` can't be appended to"), "use `replace`");
            } else if self.node.get(&name).is_none() {
                self.say(&key.span, "missing-key", false, format!("`{name}` is to be overridden and is not there"), "");
            }
            keys.push((name, how == "append"));
        }
        for (key, _) in self.node.entries() {
            let name = key.scalar().unwrap_or_default();
            if overridable.contains(&name) && !keys.iter().any(|(known, _)| known == name) {
                let help = format!("add `{name}: replace` to `override`");
                self.say(
                    &key.span,
                    "bad-value",
                    false,
                    format!("`{name}` is there, and `override` does not name it"),
                    &help,
                );
            }
        }
        (self.mistakes.len() == before).then_some(keys)
    }
}

/// The three numbers that a text begins with.
fn version(text: &str) -> Option<[u64; 3]> {
    let mut parts = text.splitn(3, '.');
    let mut next = || parts.next();
    let (major, minor, rest) = (next()?, next()?, next()?);
    let patch = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some([major.parse().ok()?, minor.parse().ok()?, patch.parse().ok()?])
}

/// Whether Falco takes the text for `true`.
pub fn is_true(text: &str) -> bool {
    is_word(text, ["true", "yes", "on", "y"])
}

/// Whether Falco takes the text for `false`.
fn is_false(text: &str) -> bool {
    is_word(text, ["false", "no", "off", "n"])
}

fn is_word(text: &str, words: [&str; 4]) -> bool {
    words.iter().any(|word| {
        let mut capital = word.to_string();
        capital.get_mut(..1).unwrap_or_default().make_ascii_uppercase();
        text == *word || text == word.to_ascii_uppercase() || text == capital
    })
}

#[cfg(test)]
mod tests {
    use super::super::{input, marked};
    use super::*;

    fn read(texts: &[&str]) -> Items {
        let mut items = Items::default();
        for (index, text) in texts.iter().enumerate() {
            for document in marked::documents(text).unwrap() {
                items.read(index, &document);
            }
        }
        items
    }

    const BASE: &str = "
- list: shells
  items: [bash, 'two words']
- macro: m
  condition: a or b
- rule: r
  desc: d
  condition: m and c
  output: o
  priority: INFO
  tags: [x]
  enabled: no
  exceptions:
  - {name: e, fields: proc.name, values: [a]}
";

    #[test]
    fn definitions_appends_and_overrides_resolve_as_falco_does_it() {
        let later = "
- list: shells
  items: [zsh]
  override: {items: append}
- macro: m
  condition: or d
  append: true
- rule: r
  condition: and e
  priority: ERROR
  tags: [x, y]
  exceptions: [{name: e, values: [b]}, {name: f, fields: [proc.name], values: [[z]]}]
  override: {condition: append, priority: replace, tags: append, exceptions: append}
- rule: r
  enabled: true
";
        let items = read(&[BASE, later]);
        let words: Vec<_> = items.lists[0].items.iter().filter_map(|(_, node)| node.scalar()).collect();
        assert_eq!(words, ["bash", "two words", "zsh"]);
        assert_eq!(items.macros[0].condition.text, "a or b or d");
        let rule = &items.rules[0];
        assert_eq!((rule.condition.text.as_str(), rule.priority.text.as_str()), ("m and c and e", "ERROR"));
        assert_eq!(rule.tags, ["x", "y"]);
        assert_eq!(rule.exceptions.len(), 2);
        assert_eq!(rule.exceptions[0].1.get("values").unwrap().seq().unwrap().len(), 2);
        assert!(rule.flags.iter().any(|(key, node)| *key == "enabled" && is_true(node.scalar().unwrap())));
        assert!(
            items.mistakes.iter().all(|mistake| mistake.warning && mistake.code == "LOAD_DEPRECATED_ITEM"),
            "{:?}",
            items.mistakes
        );
        // A place in the whole leads back to the file that the part is from.
        let files = [BASE, later].map(|text| input::File { name: String::new(), text: text.to_owned() });
        let (file, at) = rule.condition.place(&files, "m and c and ".len()).unwrap();
        assert_eq!((file, &later[at..=at]), (1, "e"));
        let (file, at) = rule.condition.place(&files, 6).unwrap();
        assert_eq!((file, &BASE[at..=at]), (0, "c"));
    }

    #[test]
    fn the_last_definition_counts_and_keeps_the_place_of_the_first() {
        let items = read(&[BASE, "- rule: s\n  desc: d\n  condition: c\n  output: o\n  priority: INFO\n", BASE]);
        assert_eq!(items.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["r", "s"]);
        assert_eq!(items.rules[0].file, 2);
    }

    #[test]
    fn what_falco_refuses_is_refused_in_words() {
        for (text, words) in [
            ("- x", "should be a mapping"),
            ("- rules: x", "passes over an item"),
            ("- rule:\n  desc: x", "the rule has no name"),
            ("- rule: x\n  desc: x\n  condition: c\n  output: o", "rule `x` has no `priority`"),
            ("- rule: x", "has no `condition`"),
            ("- rule: x\n  enabled: false", "is changed here, and no file defines it"),
            ("- macro: x\n  condition: [a]", "`condition` should be text"),
            ("- list: x", "list `x` has no `items`"),
            ("- list: x\n  items: [{a: b}]", "should be a list of texts"),
            ("- macro: x\n  condition: a\n  override: {condition: prepend}", "`prepend` is not"),
            ("- macro: x\n  condition: a\n  override: {macro: replace}", "`macro` can't be overridden"),
            ("- macro: x\n  condition: a\n  append: true\n  override: {condition: append}", "can't be there together"),
            ("- rule: x\n  condition: a\n  output: o\n  override: {condition: replace}", "`override` does not name it"),
            ("- rule: x\n  override: {condition: replace}", "is to be overridden and is not there"),
            ("- rule: x\n  priority: INFO\n  override: {priority: append}", "can't be appended to"),
            ("- macro: x\n  condition: a\n  descr: a", "passes over the key `descr`"),
        ] {
            let mistakes = read(&[text]).mistakes;
            assert!(mistakes.iter().any(|mistake| mistake.message.contains(words)), "{text}: {mistakes:?}");
        }
    }
}
