//! What Falco 0.44.1 and its usual plugins let a rule name: fields, event types, event arguments.

use crate::config::Config;
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// One filter field.
#[derive(Debug)]
pub struct Field {
    /// Its name, without an argument.
    pub name: &'static str,
    /// Falco's name for its type.
    pub kind: &'static str,
    /// `none`, `optional` or `required`.
    pub argument: &'static str,
    /// `none`, `index`, `key` or `index|key`.
    pub argument_kind: &'static str,
    /// `none`, `bracket`, `dot` or both.
    pub syntax: &'static str,
    flags: &'static str,
    /// The group that `--list` shows it in.
    pub class: &'static str,
    sources: &'static str,
    /// `libs` or the name of the plugin.
    pub origin: &'static str,
}

impl Field {
    /// Many values at once.
    pub fn list(&self) -> bool {
        self.flags.contains('l')
    }
    /// Left out of `--list`.
    pub fn unlisted(&self) -> bool {
        self.flags.contains(['h', 'p', 'd'])
    }
    /// May stand on the right of a comparison.
    pub fn right_hand(&self) -> bool {
        self.flags.contains('r')
    }
    /// May be transformed.
    pub fn transformers(&self) -> bool {
        self.flags.contains('t')
    }
    /// Appended to outputs by `suggested_output`.
    pub fn suggested(&self) -> bool {
        self.flags.contains('s')
    }
    /// Whether a rule of this source may name it.
    pub fn in_source(&self, source: &str) -> bool {
        self.sources.split(',').any(|one| one == "*" || one == source)
    }
    /// The sources it belongs to.
    pub fn sources(&self) -> impl Iterator<Item = &'static str> {
        self.sources.split(',')
    }
}

/// The versions that the plugins known here have.
pub const PLUGINS: [(&str, &str); 4] =
    [("container", "0.7.1"), ("k8saudit", "0.18.0"), ("json", "0.7.4"), ("k8smeta", "0.4.1")];

fn table() -> &'static Vec<Field> {
    static TABLE: OnceLock<Vec<Field>> = OnceLock::new();
    TABLE.get_or_init(|| {
        include_str!("../data/fields.tsv")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut cells = line.split('\t');
                Some(Field {
                    name: cells.next()?,
                    kind: cells.next()?,
                    argument: cells.next()?,
                    argument_kind: cells.next()?,
                    syntax: cells.next()?,
                    flags: cells.next()?,
                    class: cells.next()?,
                    sources: cells.next()?,
                    origin: cells.next().map(|origin| origin.strip_prefix("plugin:").unwrap_or(origin))?,
                })
            })
            .collect()
    })
}

fn by_name() -> &'static HashMap<&'static str, &'static Field> {
    static INDEX: OnceLock<HashMap<&'static str, &'static Field>> = OnceLock::new();
    INDEX.get_or_init(|| table().iter().map(|field| (field.name, field)).collect())
}

fn event_types() -> &'static HashSet<&'static str> {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    SET.get_or_init(|| include_str!("../data/event-types.txt").lines().collect())
}

fn event_arguments() -> &'static HashMap<&'static str, &'static str> {
    static MAP: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    MAP.get_or_init(|| {
        include_str!("../data/event-arguments.tsv").lines().filter_map(|line| line.split_once('\t')).collect()
    })
}

/// The part of the tables that one configuration makes available.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    plugins: Vec<String>,
    statics: Vec<String>,
}

impl Catalogue {
    /// With these plugins loaded.
    #[cfg(test)]
    pub fn new(plugins: Vec<String>) -> Self {
        Self { plugins, statics: Vec::new() }
    }

    /// What a configuration makes available.
    pub fn of(config: &Config) -> Self {
        Self { plugins: config.plugins.clone(), statics: config.static_fields.clone() }
    }

    /// Whether `static_fields` has this one, given with its prefix.
    pub fn is_static(&self, name: &str) -> bool {
        name.strip_prefix("static.").is_some_and(|name| self.statics.iter().any(|known| known == name))
    }

    /// Name and version of what is loaded.
    pub fn plugins(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.plugins.iter().map(|name| {
            let version = PLUGINS.iter().find(|(known, _)| known == name).map_or("0.1.0", |(_, version)| version);
            (name.as_str(), version)
        })
    }

    /// Whether rules of this source are compiled.
    pub fn has_source(&self, source: &str) -> bool {
        source == "syscall" || (source == "k8s_audit" && self.plugins.iter().any(|name| name == "k8saudit"))
    }

    /// All fields, in the order of `--list`.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> {
        table().iter().filter(|field| self.available(field))
    }

    /// The field of this exact name for rules of a source.
    pub fn field(&self, name: &str, source: &str) -> Option<&'static Field> {
        by_name().get(name).copied().filter(|field| field.in_source(source) && self.available(field))
    }

    fn available(&self, field: &Field) -> bool {
        field.origin == "libs" || self.plugins.iter().any(|name| name == field.origin)
    }

    /// Whether `evt.type` may be compared with this.
    pub fn event_type(&self, name: &str) -> bool {
        event_types().contains(name)
            || (self.plugins.iter().any(|plugin| plugin == "container")
                && matches!(name, "container" | "container_removed"))
    }

    /// How many event types there are.
    pub fn event_type_count() -> usize {
        event_types().len()
    }

    /// The types of an event argument of this name.
    pub fn event_argument(name: &str) -> Option<&'static str> {
        event_arguments().get(name).copied()
    }

    /// Whether some event argument's name starts this text.
    pub fn event_argument_prefix(name: &str) -> bool {
        event_arguments().keys().any(|known| name.starts_with(known))
    }
}
