//! From YAML to items: which keys an item needs, what they may hold, and what appends and overrides do.

use super::decode::{Read, invalid, optional, optional_bool, refused, required, sequence};
use super::issue::{Code, Context, Issue};
use super::items::{Items, List, Macro, Rule};
use crate::config::priority_level;
use crate::fields::Catalogue;
use crate::yaml::{Kind, Node};

/// The engine's version.
pub const ENGINE: (u64, u64, u64) = (0, 62, 0);

const RULE_KEYS: [&str; 15] = [
    "rule",
    "desc",
    "condition",
    "output",
    "priority",
    "source",
    "enabled",
    "tags",
    "exceptions",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "capture",
    "capture_duration",
    "append",
    "override",
];
const REPLACEABLE: [&str; 11] = [
    "condition",
    "output",
    "desc",
    "tags",
    "exceptions",
    "priority",
    "enabled",
    "capture",
    "capture_duration",
    "warn_evttypes",
    "skip-if-unknown-filter",
];
const APPENDABLE: [&str; 5] = ["condition", "output", "desc", "tags", "exceptions"];
const APPEND_DEPRECATED: &str =
    "'append' key is deprecated. Add an 'append' entry (e.g. 'condition: append') under 'override' instead.";

/// Reads the documents of one file into the items.
pub struct Reader<'a> {
    /// What was read before, added to.
    pub items: &'a mut Items,
    /// What the file gives rise to.
    pub warnings: &'a mut Vec<Issue>,
    /// The fields that exist.
    pub catalogue: &'a Catalogue,
}

/// `override`: which keys are appended to and which replaced.
struct Overrides {
    append: Vec<String>,
    replace: Vec<String>,
}

impl Overrides {
    fn any(&self) -> bool {
        !(self.append.is_empty() && self.replace.is_empty())
    }
}

impl Reader<'_> {
    /// Reads one file's documents, as far as its first error.
    pub fn documents(&mut self, documents: &[Node], context: &Context) -> Read<()> {
        for document in documents {
            match &document.kind {
                Kind::Null => {}
                Kind::Seq(items) => items.iter().try_for_each(|item| self.item(item, context))?,
                Kind::Map(_) => return invalid("Rules content is not yaml array of objects", context),
                Kind::Scalar(_) => return invalid("Rules content is not yaml", context),
            }
        }
        Ok(())
    }

    /// Notes a warning.
    pub fn warn(&mut self, code: Code, message: impl Into<String>, context: &Context) {
        self.warnings.push(Issue::new(code, message, context));
    }

    fn unknown_keys(&mut self, item: &Node, known: &[&str], context: &Context) {
        for (key, _) in item.entries() {
            let key = key.scalar().unwrap_or_default();
            if !known.contains(&key) {
                self.warn(Code::UnknownKey, format!("Unknown key '{key}'. The key will be ignored."), context);
            }
        }
    }

    fn item(&mut self, item: &Node, file: &Context) -> Read<()> {
        if item.is_null() {
            return Ok(());
        }
        let context = file.item("rules content item", "", item.mark);
        if !matches!(item.kind, Kind::Map(_)) {
            return invalid("Unexpected element type. Each element should be a yaml associative array.", &context);
        }
        if item.get("required_engine_version").is_some() {
            self.engine_version(item, file)
        } else if let Some(node) = item.get("required_plugin_versions") {
            self.plugin_versions(item, node, file)
        } else if item.get("list").is_some() {
            self.list(item, file)
        } else if item.get("macro").is_some() {
            self.macro_item(item, file)
        } else if item.get("rule").is_some() {
            self.rule(item, file)
        } else {
            self.warn(Code::UnknownItem, "Unknown top level item", &context);
            Ok(())
        }
    }

    fn engine_version(&mut self, item: &Node, file: &Context) -> Read<()> {
        let context = file.item("required_engine_version", "", item.mark);
        let (text, _) = required(item, "required_engine_version", &context)?;
        self.unknown_keys(item, &["required_engine_version"], &context);
        let version = match text.parse::<u64>() {
            Ok(minor) => Some((ENGINE.0, minor, ENGINE.2)),
            Err(_) => version(text),
        };
        let Some((major, minor, patch)) = version else {
            return invalid(
                format!(
                    "Unable to parse engine version '{text}' as a semver string. Expected \"x.y.z\" semver format."
                ),
                &context,
            );
        };
        if major != ENGINE.0 || (minor, patch) > (ENGINE.1, ENGINE.2) {
            return refused(
                format!("Rules require engine version {major}.{minor}.{patch}, but engine version is 0.62.0"),
                &context,
            );
        }
        Ok(())
    }

    fn plugin_versions(&mut self, item: &Node, node: &Node, file: &Context) -> Read<()> {
        let context = file.item("required plugin versions", "", node.mark);
        self.unknown_keys(item, &["required_plugin_versions"], &context);
        let Some(entries) = node.seq() else {
            return invalid("Value of required_plugin_versions must be a sequence", &context);
        };
        for entry in entries {
            let context = context.item("required plugin versions entry", "", entry.mark);
            let mut requirement = vec![Self::plugin_version(entry, &context)?];
            for alternative in entry.get("alternatives").and_then(Node::seq).unwrap_or_default() {
                let context = context.item("required plugin versions alternative", "", alternative.mark);
                let found = Self::plugin_version(alternative, &context)?;
                if requirement.iter().any(|(name, _)| *name == found.0) {
                    return refused(
                        format!("Defined multiple alternative version requirements for plugin '{}'", found.0),
                        &context,
                    );
                }
                requirement.push(found);
            }
            self.items.plugins.push(requirement);
        }
        Ok(())
    }

    fn plugin_version(entry: &Node, context: &Context) -> Read<(String, String)> {
        let (name, _) = required(entry, "name", context)?;
        let (text, _) = required(entry, "version", context)?;
        if version(text).is_none() {
            return refused(format!("Invalid required version '{text}' for plugin '{name}'"), context);
        }
        Ok((name.to_owned(), text.to_owned()))
    }

    /// Reads `append` and `override`, which exclude each other.
    fn changes(
        &mut self,
        item: &Node,
        append: &[&str],
        replace: &[&str],
        context: &Context,
    ) -> Read<(bool, Overrides)> {
        let flag = optional_bool(item, "append", context)?.unwrap_or(false);
        if flag {
            self.warn(Code::DeprecatedItem, APPEND_DEPRECATED, context);
        }
        let mut overrides = Overrides { append: Vec::new(), replace: Vec::new() };
        for (key, operation) in item.get("override").map(Node::entries).unwrap_or_default() {
            let context = context.item("overrides", "", key.mark);
            let key = key.scalar().unwrap_or_default();
            match operation.scalar().unwrap_or_default() {
                "append" if append.contains(&key) => overrides.append.push(key.to_owned()),
                "replace" if replace.contains(&key) => overrides.replace.push(key.to_owned()),
                "append" if replace.contains(&key) => {
                    return invalid(format!("Key '{key}' cannot be appended to, use 'replace' instead"), &context);
                }
                "append" => return invalid(format!("Key '{key}' cannot be appended to"), &context),
                "replace" => return invalid(format!("Key '{key}' cannot be replaced"), &context),
                other => {
                    return invalid(
                        format!(
                            "Invalid override operation for key '{key}': '{other}'. Allowed values are: append replace "
                        ),
                        &context,
                    );
                }
            }
        }
        if flag && overrides.any() {
            return invalid(
                "Keys 'override' and 'append: true' cannot be used together. Add an 'append' entry (e.g. 'condition: append') under 'override' instead.",
                context,
            );
        }
        if overrides.any() {
            let listed = |key: &str| overrides.append.iter().chain(&overrides.replace).any(|one| one == key);
            for (operation, keys) in [("append", &overrides.append), ("replace", &overrides.replace)] {
                if let Some(key) = keys.iter().find(|key| item.get(key).is_none()) {
                    return invalid(
                        format!("An {operation} override for '{key}' was specified but '{key}' is not defined"),
                        context,
                    );
                }
            }
            if let Some(key) = replace.iter().find(|key| item.get(key).is_some() && !listed(key)) {
                return invalid(
                    format!("Unexpected key '{key}': no corresponding entry under 'override' is defined."),
                    context,
                );
            }
        }
        Ok((flag, overrides))
    }

    fn list(&mut self, item: &Node, file: &Context) -> Read<()> {
        let (name, _) = required(item, "list", &file.item("list", "", item.mark))?;
        let context = file.item("list", name, item.mark);
        if name.contains(['(', ')', '"', '\'', '=', ',']) || name.contains(char::is_whitespace) {
            self.warn(
                Code::InvalidListName,
                "List has an invalid name. List names should match a regular expression: ([^()\"'[:space:]=,]+)",
                &context,
            );
        }
        self.unknown_keys(item, &["list", "items", "append", "override"], &context);
        let items = sequence(item, "items", &context)?;
        let (flag, overrides) = self.changes(item, &["items"], &["items"], &context)?;
        let visibility = self.items.visibility;
        self.items.visibility += 1;
        match (flag || !overrides.append.is_empty(), self.items.list(name)) {
            (true, None) => {
                return refused(
                    "List uses 'append' or 'override.items: append' but no list by that name already exists",
                    &context,
                );
            }
            (true, Some(list)) => {
                list.items.extend(items);
                list.visibility = visibility;
            }
            (false, Some(list)) => {
                *list = List { name: name.to_owned(), items, context, visibility, index: list.index };
            }
            (false, None) => {
                self.items.lists.push(List { name: name.to_owned(), items, context, visibility, index: visibility });
            }
        }
        self.renumber();
        Ok(())
    }

    fn macro_item(&mut self, item: &Node, file: &Context) -> Read<()> {
        let (name, _) = required(item, "macro", &file.item("macro", "", item.mark))?;
        let context = file.item("macro", name, item.mark);
        let usable = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !usable {
            self.warn(
                Code::InvalidMacroName,
                "Macro has an invalid name. Macro names should match a regular expression: ([a-zA-Z]+[a-zA-Z0-9_]*)",
                &context,
            );
        }
        self.unknown_keys(item, &["macro", "condition", "append", "override"], &context);
        let (condition, node) = required(item, "condition", &context)?;
        let condition_context = context.item("macro condition", "", node.mark);
        let (flag, overrides) = self.changes(item, &["condition"], &["condition"], &context)?;
        let visibility = self.items.visibility;
        self.items.visibility += 1;
        match (flag || !overrides.append.is_empty(), self.items.macro_named(name)) {
            (true, None) => {
                return refused(
                    "Macro uses 'append' or 'override.condition: append' but no macro by that name already exists",
                    &context,
                );
            }
            (true, Some(one)) => {
                one.condition = format!("{} {condition}", one.condition);
                one.visibility = visibility;
            }
            (false, found) => {
                let index = found.as_ref().map(|one| one.index);
                let fresh = Macro {
                    name: name.to_owned(),
                    condition: condition.to_owned(),
                    context,
                    condition_context,
                    visibility,
                    index: index.unwrap_or(visibility),
                };
                match found {
                    Some(one) => *one = fresh,
                    None => self.items.macros.push(fresh),
                }
            }
        }
        self.renumber();
        Ok(())
    }

    /// A list or macro may change what any rule means.
    fn renumber(&mut self) {
        for rule in &mut self.items.rules {
            rule.dirty = true;
        }
    }

    fn rule(&mut self, item: &Node, file: &Context) -> Read<()> {
        let (name, _) = required(item, "rule", &file.item("rule", "", item.mark))?;
        let context = file.item("rule", name, item.mark);
        self.unknown_keys(item, &RULE_KEYS, &context);
        let (flag, overrides) = self.changes(item, &APPENDABLE, &REPLACEABLE, &context)?;
        let defined = ["condition", "output", "desc", "priority"].iter().any(|key| item.get(key).is_some());
        if overrides.any() {
            self.override_rule(item, name, &overrides, &context)
        } else if flag {
            self.append_rule(item, name, &context)
        } else if defined {
            self.define_rule(item, name, &context)
        } else {
            let Some(enabled) = optional_bool(item, "enabled", &context)? else {
                return invalid("Item has no mapping for key 'enabled'", &context);
            };
            self.warn(
                Code::DeprecatedItem,
                "The standalone 'enabled' key usage is deprecated. The correct approach requires also a 'replace' entry under the 'override' key (i.e. 'enabled: replace').",
                &context,
            );
            match self.items.rule(name) {
                Some(rule) => {
                    rule.enabled = enabled;
                    Ok(())
                }
                None => refused("Rule has 'enabled' key but no rule by that name already exists", &context),
            }
        }
    }

    fn define_rule(&mut self, item: &Node, name: &str, context: &Context) -> Read<()> {
        let (condition, condition_node) = required(item, "condition", context)?;
        let (output, output_node) = required(item, "output", context)?;
        let (desc, _) = required(item, "desc", context)?;
        let priority = Self::priority(item, context)?;
        let source = optional(item, "source", context)?.unwrap_or("syscall").to_owned();
        Self::capture(item, context)?;
        let mut rule = Rule {
            name: name.to_owned(),
            desc: desc.to_owned(),
            condition: condition.to_owned(),
            output: output.trim().to_owned(),
            priority,
            unknown_source: !self.catalogue.has_source(&source),
            enabled: optional_bool(item, "enabled", context)?.unwrap_or(true),
            warn_evttypes: optional_bool(item, "warn_evttypes", context)?.unwrap_or(true),
            skip_unknown: optional_bool(item, "skip-if-unknown-filter", context)?.unwrap_or(false),
            tags: Self::tags(item, context)?,
            exceptions: Vec::new(),
            source,
            context: context.clone(),
            condition_context: context.item("rule condition", "", condition_node.mark),
            output_context: context.item("rule output", "", output_node.mark),
            dirty: true,
        };
        let exceptions = Self::exceptions(item, false, context)?;
        for exception in exceptions {
            if rule.exceptions.iter().any(|one| one.name == exception.name) {
                let message = format!("Multiple definitions of exception '{}' in the same rule", exception.name);
                self.warn(Code::ExceptionNameNotUnique, message, &exception.context.clone());
            }
            rule.exceptions.push(self.validated(exception, &rule.source, rule.unknown_source)?);
        }
        match self.items.rule(name) {
            Some(old) if old.source != rule.source => {
                return refused("Rule has been re-defined with a different source", context);
            }
            _ => {}
        }
        if rule.unknown_source {
            let message = format!("Unknown source {}, skipping", rule.source);
            self.warn(Code::UnknownSource, message, context);
        }
        match self.items.rule(name) {
            Some(old) => *old = rule,
            None => self.items.rules.push(rule),
        }
        Ok(())
    }

    fn priority(item: &Node, context: &Context) -> Read<u8> {
        let (text, node) = required(item, "priority", context)?;
        match priority_level(text) {
            Some(level) => Ok(level),
            None => invalid("Invalid priority", &context.item("rule priority", "", node.mark)),
        }
    }

    fn capture(item: &Node, context: &Context) -> Read<()> {
        optional_bool(item, "capture", context)?;
        match optional(item, "capture_duration", context)? {
            Some(text) if text.parse::<u32>().is_err() => invalid("Can't decode YAML scalar value", context),
            _ => Ok(()),
        }
    }

    fn tags(item: &Node, context: &Context) -> Read<Vec<String>> {
        if item.get("tags").is_none() {
            return Ok(Vec::new());
        }
        let mut tags = sequence(item, "tags", context)?;
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    fn append_rule(&mut self, item: &Node, name: &str, context: &Context) -> Read<()> {
        let condition = optional(item, "condition", context)?;
        if condition.is_none() && item.get("exceptions").is_none() {
            return refused("Appended rule must have exceptions or condition property", context);
        }
        let exceptions = Self::exceptions(item, true, context)?;
        let Some(rule) = self.items.rule(name).cloned() else {
            return refused(
                "Rule uses 'append' or 'override.<key>: append' but no rule by that name already exists",
                context,
            );
        };
        let mut rule = Rule { dirty: true, ..rule };
        if let Some(condition) = condition {
            rule.condition = format!("{} {condition}", rule.condition);
        }
        self.append_exceptions(&mut rule, exceptions)?;
        self.store(rule);
        Ok(())
    }

    fn store(&mut self, rule: Rule) {
        if let Some(old) = self.items.rule(&rule.name.clone()) {
            *old = rule;
        }
    }

    fn override_rule(&mut self, item: &Node, name: &str, overrides: &Overrides, context: &Context) -> Read<()> {
        let appends = |key: &str| overrides.append.iter().any(|one| one == key);
        let replaces = |key: &str| overrides.replace.iter().any(|one| one == key);
        let Some(rule) = self.items.rule(name).cloned() else {
            return refused(
                if overrides.append.is_empty() {
                    "An 'override.<key>: replace' to a rule was requested but no rule by that name already exists"
                } else {
                    "Rule uses 'append' or 'override.<key>: append' but no rule by that name already exists"
                },
                context,
            );
        };
        let mut rule = Rule { dirty: true, ..rule };
        match item.get("source").and_then(Node::scalar) {
            Some(source) if !source.is_empty() && source != rule.source => {
                return refused("Rule has been re-defined with a different source", context);
            }
            _ => {}
        }
        let texts: [(&str, &mut String, Option<&mut Context>, &'static str); 3] = [
            ("condition", &mut rule.condition, Some(&mut rule.condition_context), "rule condition"),
            ("output", &mut rule.output, Some(&mut rule.output_context), "rule output"),
            ("desc", &mut rule.desc, None, ""),
        ];
        for (key, target, place, kind) in texts {
            let Some(text) = optional(item, key, context)? else { continue };
            if appends(key) {
                *target = format!("{target} {text}");
            } else {
                text.clone_into(target);
                if let (Some(place), Some(node)) = (place, item.get(key)) {
                    *place = context.item(kind, "", node.mark);
                }
            }
        }
        if appends("tags") {
            rule.tags.extend(Self::tags(item, context)?);
            rule.tags.sort();
            rule.tags.dedup();
        } else if replaces("tags") {
            rule.tags = Self::tags(item, context)?;
        }
        if replaces("priority") {
            rule.priority = Self::priority(item, context)?;
        }
        Self::capture(item, context)?;
        let flags: [(&str, &mut bool); 3] = [
            ("enabled", &mut rule.enabled),
            ("warn_evttypes", &mut rule.warn_evttypes),
            ("skip-if-unknown-filter", &mut rule.skip_unknown),
        ];
        for (key, target) in flags {
            if let Some(value) = optional_bool(item, key, context)? {
                *target = value;
            }
        }
        if replaces("exceptions") {
            rule.exceptions = Self::exceptions(item, false, context)?;
            for exception in &rule.exceptions {
                self.validated(exception.clone(), &rule.source, rule.unknown_source)?;
            }
        } else if appends("exceptions") {
            let exceptions = Self::exceptions(item, true, context)?;
            self.append_exceptions(&mut rule, exceptions)?;
        }
        self.store(rule);
        Ok(())
    }
}

/// `x.y.z`, whatever follows.
pub fn version(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.splitn(3, '.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let patch: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor, patch.parse().ok()?))
}
