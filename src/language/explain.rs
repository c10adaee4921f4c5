//! What fields, operators and transformers are for, in words.

use std::sync::LazyLock;

use super::fields::{FieldInfo, KNOWN, Kind, Need};
use super::tree::Op;

/// What a word of the language does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordInfo {
    /// The word: an operator, a modifier, a transformer, or `and`, `or`, `not`.
    pub word: &'static str,
    /// What it does, in sentences.
    pub description: &'static str,
    /// A condition with it.
    pub example: &'static str,
}

static WORDS: LazyLock<Vec<WordInfo>> = LazyLock::new(|| {
    let lines = include_str!("data/words.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut columns = line.splitn(3, " | ");
            let (word, description, example) = (columns.next()?, columns.next()?, columns.next()?);
            Some(WordInfo { word, description, example })
        })
        .collect()
});

/// What a word does; `None` where it is none of the language.
#[must_use]
pub fn word_info(word: &str) -> Option<&'static WordInfo> {
    WORDS.iter().find(|info| info.word == word)
}

/// All words of the language that have a meaning of their own, in an order in which people look for them.
pub fn words() -> impl Iterator<Item = &'static WordInfo> {
    WORDS.iter()
}

impl FieldInfo {
    /// The operators that the field's type takes, in an order in which people look for them.
    pub fn operators(&self) -> impl Iterator<Item = Op> + '_ {
        // Those that Falco takes and then ends by, or that never hold, are none.
        let harmful = |op| match &*self.name {
            "fd.ip" => matches!(op, Op::In | Op::Intersects),
            "fd.port" | "fd.net" => op == Op::Intersects,
            "fd.cip.name" | "fd.sip.name" | "fd.lip.name" | "fd.rip.name" => {
                !matches!(op, Op::Exists | Op::Eq | Op::EqEq | Op::Ne | Op::In)
            }
            _ => false,
        };
        operators().filter(move |op| self.kind.takes(*op, self.list) && !harmful(*op))
    }

    /// The field as it is written where it has an argument, such as `proc.aname[2]`; the name alone where it takes none.
    #[must_use]
    pub fn with_argument(&self) -> String {
        let name = &self.name;
        match &**name {
            "evt.arg" | "evt.rawarg" => return format!("{name}.flags"),
            "evt.abspath" => return format!("{name}.src"),
            "evt.type.is" => return format!("{name}.open"),
            "thread.cgroup" => return format!("{name}.cpu"),
            "evt.around" => return format!("{name}[1700000000000000000]"),
            "container.mount" | "container.mount.dest" | "ka.req.volume.hostpath" => return format!("{name}[/data]"),
            "json.value" | "jevt.value" => return format!("{name}[/user/name]"),
            "proc.env" | "proc.aenv" => return format!("{name}[HOME]"),
            _ => {}
        }
        match (self.argument.need, self.argument.index) {
            (Need::None, _) => name.to_string(),
            (_, true) => format!("{name}[1]"),
            (_, false) => format!("{name}[app]"),
        }
    }

    /// A condition with the field.
    #[must_use]
    pub fn example(&self) -> String {
        let field = self.with_argument();
        if self.list {
            return format!("{field} intersects (value)");
        }
        match &*self.name {
            "evt.type" | "syscall.type" => return format!("{field} in (execve, execveat)"),
            "evt.rawarg" => return format!("{field} > 0"),
            "evt.dir" => return format!("{field} = <"),
            "fd.typechar" => return format!("{field} = f"),
            _ => {}
        }
        let is_path = ["path", "fd.name", "fd.directory", "cwd", ".mount.", "homedir"]
            .iter()
            .any(|part| self.name.contains(part));
        match self.kind {
            Kind::Text if is_path => format!("{field} startswith /etc/"),
            Kind::Text => format!("{field} = value"),
            Kind::Bytes => format!("{field} contains \"text\""),
            Kind::Number => format!("{field} > 1000"),
            Kind::Port => format!("{field} = 443"),
            Kind::Bool => format!("{field} = true"),
            Kind::Address => format!("{field} = 10.0.0.1"),
            Kind::Network => format!("{field} = 10.0.0.0/8"),
            Kind::Opaque | Kind::Other => format!("{field} exists"),
        }
    }

    /// The plugin that provides the field; `None` for those of Falco itself.
    #[must_use]
    pub fn plugin(&self) -> Option<&str> {
        self.origin.strip_prefix("plugin:")
    }
}

/// All operators, in an order in which people look for them.
pub fn operators() -> impl Iterator<Item = Op> {
    words().filter_map(|info| Op::ALL.iter().copied().find(|op| op.word() == info.word))
}

/// The plugin whose field this would be, were it loaded.
#[must_use]
pub fn plugin_of(field: &str) -> Option<&'static str> {
    KNOWN.fields.iter().find(|info| &*info.name == field).and_then(FieldInfo::plugin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{Catalog, Class, Definitions, Modifier, RuleText, Transformer, check_condition};

    fn errors(condition: &str, source: &str) -> Vec<String> {
        let catalog = Catalog::with_plugins(&["container", "k8saudit", "json", "k8smeta"]);
        let rule = RuleText { condition, source: Some(source), ..RuleText::default() };
        let checked = check_condition(&rule, &Definitions::default(), &catalog);
        checked
            .errors()
            .filter(|error| error.class == Class::Invalid || error.class == Class::Unsafe)
            .map(|e| e.message.clone())
            .collect()
    }

    #[test]
    fn every_word_is_explained_by_a_condition_that_holds_it() {
        let all = Op::ALL.iter().map(|op| op.word()).chain(Modifier::ALL.iter().map(|word| word.word()));
        for word in all.chain(Transformer::ALL.iter().map(|word| word.word())).chain(["and", "or", "not"]) {
            let info = word_info(word).unwrap_or_else(|| panic!("{word}"));
            assert!(info.example.contains(word) && info.description.ends_with('.'), "{info:?}");
            let source = if info.example.starts_with("ka.") { "k8s_audit" } else { "syscall" };
            assert_eq!(errors(info.example, source), Vec::<String>::new(), "{word}");
        }
        assert_eq!(words().count(), Op::ALL.len() + Modifier::ALL.len() + Transformer::ALL.len() + 3);
    }

    #[test]
    fn every_field_is_described_and_its_example_is_one() {
        for info in &KNOWN.fields {
            assert!(info.description.ends_with('.'), "{}", info.name);
            let source = info.sources.iter().find(|source| &***source != "*").map_or("syscall", |source| source);
            assert_eq!(errors(&info.example(), source), Vec::<String>::new(), "{}", info.example());
            assert!(info.operators().next().is_some());
        }
    }
}
