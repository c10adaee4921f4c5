//! What rules files say, collected over all files: rules, macros and lists by name.

use super::issue::Context;

/// A list as written.
#[derive(Clone, Debug)]
pub struct List {
    /// Its name.
    pub name: String,
    /// Its items, unresolved.
    pub items: Vec<String>,
    /// Where it is defined.
    pub context: Context,
    /// Moves forward with each redefinition; it sees lists whose place is before this.
    pub visibility: usize,
    /// Its place, which redefinitions keep.
    pub index: usize,
}

/// A macro as written.
#[derive(Clone, Debug)]
pub struct Macro {
    /// Its name.
    pub name: String,
    /// Its text.
    pub condition: String,
    /// Where it is defined.
    pub context: Context,
    /// Where its condition stands.
    pub condition_context: Context,
    /// See [`List::visibility`].
    pub visibility: usize,
    /// See [`List::index`].
    pub index: usize,
}

/// `fields`, `comps` or a member of `values`: one or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Not given.
    #[default]
    Absent,
    /// A scalar.
    One(String),
    /// A sequence.
    Many(Vec<Entry>),
}

impl Entry {
    /// Its scalars; one for a scalar.
    pub fn members(&self) -> Vec<&Entry> {
        match self {
            Entry::Absent => Vec::new(),
            Entry::One(_) => vec![self],
            Entry::Many(entries) => entries.iter().collect(),
        }
    }

    /// The text of a scalar, empty for the rest.
    pub fn text(&self) -> &str {
        match self {
            Entry::One(text) => text,
            _ => "",
        }
    }
}

/// One exception of a rule.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Its name.
    pub name: String,
    /// What is compared.
    pub fields: Entry,
    /// How.
    pub comps: Entry,
    /// With what.
    pub values: Vec<Entry>,
    /// Where it stands.
    pub context: Context,
}

/// A rule as written, appends and overrides applied.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is a key of a rule or follows from one.
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Its description, in which faults may be asked for.
    pub desc: String,
    /// Its condition's text.
    pub condition: String,
    /// Its output's text.
    pub output: String,
    /// 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// Its event source.
    pub source: String,
    /// `enabled`.
    pub enabled: bool,
    /// `tags`, in order and each once.
    pub tags: Vec<String>,
    /// `exceptions`.
    pub exceptions: Vec<Exception>,
    /// `warn_evttypes`.
    pub warn_evttypes: bool,
    /// `skip-if-unknown-filter`.
    pub skip_unknown: bool,
    /// No loaded plugin has its source.
    pub unknown_source: bool,
    /// Where it is defined.
    pub context: Context,
    /// Where its condition stands.
    pub condition_context: Context,
    /// Where its output stands.
    pub output_context: Context,
    /// Changed since it was last compiled.
    pub dirty: bool,
}

/// `required_plugin_versions`: one of these must be loaded.
pub type PluginRequirement = Vec<(String, String)>;

/// Everything read so far.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// In order of first definition.
    pub lists: Vec<List>,
    /// In order of first definition.
    pub macros: Vec<Macro>,
    /// In order of first definition, which is the order of evaluation.
    pub rules: Vec<Rule>,
    /// Of all files.
    pub plugins: Vec<PluginRequirement>,
    /// Goes up with every definition of a list or macro.
    pub visibility: usize,
}

impl Items {
    /// A list by name.
    pub fn list(&mut self, name: &str) -> Option<&mut List> {
        self.lists.iter_mut().find(|list| list.name == name)
    }

    /// A macro by name.
    pub fn macro_named(&mut self, name: &str) -> Option<&mut Macro> {
        self.macros.iter_mut().find(|one| one.name == name)
    }

    /// A rule by name.
    pub fn rule(&mut self, name: &str) -> Option<&mut Rule> {
        self.rules.iter_mut().find(|rule| rule.name == name)
    }
}
