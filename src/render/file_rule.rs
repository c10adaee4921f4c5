//! A rule as it stands in a rules file.

use std::borrow::Cow;

use serde::Deserialize;

use super::yaml;
use crate::api::{FalcoRuleSpec, Priority};

/// A rule as it stands in a rules file: everything that the namespace defines is resolved in it.
///
/// It is read back from the text of a bundle when a version in force is to be kept; a key that a newer version wrote is
/// passed over. The texts of one that is written are those of its object, as far as they are the same.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct FileRule<'a> {
    pub rule: Cow<'a, str>,
    pub desc: Cow<'a, str>,
    pub condition: Cow<'a, str>,
    pub output: Cow<'a, str>,
    pub priority: Cow<'a, str>,
    #[serde(default)]
    pub enabled: Option<bool>,
    #[serde(default)]
    pub tags: Cow<'a, [String]>,
    #[serde(default)]
    pub source: Option<Cow<'a, str>>,
    #[serde(default)]
    pub warn_evttypes: Option<bool>,
    #[serde(default, rename = "skip-if-unknown-filter")]
    pub skip_if_unknown_filter: Option<bool>,
    #[serde(default)]
    pub capture: Option<bool>,
    #[serde(default)]
    pub capture_duration: Option<i64>,
}

impl<'a> FileRule<'a> {
    /// The rule under the name as written, with the condition as written. The newlines in which a block of YAML ends are
    /// dropped; priorities are in upper case, as Falco's schema of rules files wants them.
    pub fn of(spec: &'a FalcoRuleSpec) -> Self {
        let text = |text: &'a str| Cow::Borrowed(text.trim_end_matches('\n'));
        let priority = spec.priority.0.as_str();
        let is_lower = priority.bytes().any(|byte| byte.is_ascii_lowercase());
        Self {
            rule: Cow::Borrowed(&spec.rule),
            desc: text(&spec.desc),
            condition: text(&spec.condition),
            output: text(&spec.output),
            priority: if is_lower { priority.to_ascii_uppercase().into() } else { priority.into() },
            enabled: spec.enabled,
            tags: Cow::Borrowed(&spec.tags),
            source: spec.source.as_deref().map(Cow::Borrowed),
            warn_evttypes: spec.warn_evttypes,
            skip_if_unknown_filter: spec.skip_if_unknown_filter,
            capture: spec.capture,
            capture_duration: spec.capture_duration,
        }
    }

    /// The rule that an item of a bundle holds; `None` where this version can't read it.
    pub fn read(text: &str) -> Option<Self> {
        let rules: Vec<Self> = serde_yaml::from_str(text).ok()?;
        let [rule] = <[Self; 1]>::try_from(rules).ok()?;
        Some(rule)
    }

    /// The rule as a list item of a rules file, final newline included.
    pub fn text(&self) -> String {
        let lengths = self.rule.len() + self.desc.len() + self.condition.len() + self.output.len();
        let mut text = String::with_capacity(lengths + 128);
        yaml::push_rule(&mut text, self);
        text
    }

    /// The text of a rule, as [`FileRule::text`] writes it, under another name: that is what its first line says.
    pub fn renamed(text: &str, name: &str) -> String {
        let rest = text.find('\n').and_then(|end| text.get(end..)).unwrap_or_default();
        let mut renamed = String::with_capacity(text.len() + name.len() + 16);
        yaml::push_name(&mut renamed, name);
        renamed.push_str(rest);
        renamed
    }

    /// The event source, which is `syscall` unless the rule says otherwise.
    pub fn source(&self) -> &str {
        self.source.as_deref().unwrap_or("syscall")
    }

    /// Falco's number for the priority; `None` where Falco would not take it.
    pub fn level(&self) -> Option<u8> {
        Priority::level_of(&self.priority)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full() -> FileRule<'static> {
        FileRule {
            rule: "a: b".into(),
            desc: "d".into(),
            condition: "evt.type = open\nand fd.name = \"x\"".into(),
            output: "%proc.name".into(),
            priority: "INFO".into(),
            enabled: Some(false),
            tags: vec!["no".into(), "t_1".into(), "1.5".into()].into(),
            source: Some("syscall".into()),
            warn_evttypes: Some(true),
            skip_if_unknown_filter: Some(true),
            capture: Some(true),
            capture_duration: Some(5000),
        }
    }

    #[test]
    fn every_key_has_its_place() {
        assert_eq!(
            full().text(),
            concat!(
                "- rule: \"a: b\"\n  desc: d\n  condition: \"evt.type = open\\nand fd.name = \\\"x\\\"\"\n",
                "  output: \"%proc.name\"\n  priority: INFO\n  enabled: false\n  tags: [\"no\", t_1, \"1.5\"]\n",
                "  source: syscall\n  warn_evttypes: true\n  skip-if-unknown-filter: true\n  capture: true\n",
                "  capture_duration: 5000\n"
            )
        );
        assert_eq!(FileRule::read(&full().text()), Some(full()));
    }

    #[test]
    fn what_is_no_rule_is_not_read() {
        for text in ["", "[]", "- macro: x\n", "x", "- rule: a\n", &full().text().repeat(2)] {
            assert_eq!(FileRule::read(text), None, "{text}");
        }
    }

    proptest! {
        /// Whatever the schema lets into the texts, and more.
        #[test]
        fn every_text_is_read_back_by_both_parsers(
            rule in any::<String>(), name in any::<String>(), desc in any::<String>(), condition in any::<String>(), output in any::<String>(),
            tags in proptest::collection::vec("[A-Za-z0-9_.-]{1,6}", 0..4),
        ) {
            let written = FileRule {
                rule: rule.into(),
                desc: desc.into(),
                condition: condition.into(),
                output: output.into(),
                tags: tags.into(),
                ..full()
            };
            let renamed = FileRule { rule: name.as_str().into(), ..written.clone() };
            prop_assert_eq!(FileRule::renamed(&written.text(), &name), renamed.text());
            prop_assert_eq!(FileRule::read(&written.text()), Some(written.clone()));
            let other: Vec<FileRule<'_>> = serde_saphyr::from_str(&written.text()).unwrap();
            prop_assert_eq!(other, vec![written]);
        }
    }
}
