//! falco.yaml as values: reading, `${VAR}`, laying one file over another, and `-o`.

use serde_yaml::{Mapping, Value};

/// Puts the environment's variables in, as Falco does: `${VAR}` becomes the value, nothing where it is unset, and
/// `$${VAR}` the text `${VAR}`.
pub fn expand(value: &mut Value, variable: &dyn Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) if text.contains("${") => *text = expand_text(text, variable),
        Value::Sequence(items) => items.iter_mut().for_each(|item| expand(item, variable)),
        Value::Mapping(entries) => entries.iter_mut().for_each(|(_, item)| expand(item, variable)),
        _ => {}
    }
}

fn expand_text(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { break };
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(&format!("{before}${{{name}}}"));
        } else {
            out.push_str(before);
            out.push_str(&variable(name).unwrap_or_default());
        }
        rest = after;
    }
    out + rest
}

/// How an included file is laid over what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// Sequences grow, everything else is replaced. The default.
    Append,
    /// Everything is replaced.
    Override,
    /// What is there stays.
    AddOnly,
}

impl Overlay {
    /// A strategy that Falco does not know is the default.
    pub fn named(name: &str) -> Self {
        match name {
            "override" => Self::Override,
            "add-only" => Self::AddOnly,
            _ => Self::Append,
        }
    }
}

/// Lays one file over another, by top-level key.
pub fn merge(root: &mut Mapping, included: Mapping, overlay: Overlay) {
    for (key, value) in included {
        match (root.get_mut(&key), overlay) {
            (None, _) => {
                root.insert(key, value);
            }
            (Some(_), Overlay::AddOnly) => {}
            (Some(Value::Sequence(items)), Overlay::Append) if value.is_sequence() => {
                if let Value::Sequence(more) = value {
                    items.extend(more);
                }
            }
            (Some(old), _) => *old = value,
        }
    }
}

/// Applies `-o a.b=value`; options that reach into sequences are passed over, since nothing that is asked here is in
/// one.
pub fn apply_option(root: &mut Mapping, option: &str) {
    let Some((path, text)) = option.split_once('=') else { return };
    if path.contains(['[', ']', '\\']) {
        return;
    }
    let value = serde_yaml::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let mut keys = path.split('.').peekable();
    let mut at = root;
    while let Some(key) = keys.next() {
        let key = Value::String(key.to_owned());
        if keys.peek().is_none() {
            at.insert(key, value);
            return;
        }
        let child = at.entry(key).or_insert_with(|| Value::Mapping(Mapping::new()));
        if !child.is_mapping() {
            *child = Value::Mapping(Mapping::new());
        }
        let Value::Mapping(next) = child else { return };
        at = next;
    }
}

/// What a path of keys leads to.
pub fn lookup<'a>(root: &'a Mapping, path: &str) -> Option<&'a Value> {
    let mut keys = path.split('.');
    let first = root.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))
}

/// A scalar as text.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A boolean in any of the spellings that Falco takes; the default where there is none.
pub fn flag(root: &Mapping, path: &str, default: bool) -> bool {
    let Some(value) = lookup(root, path).and_then(text) else { return default };
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => true,
        "false" | "no" | "off" | "n" => false,
        _ => default,
    }
}

/// A sequence of scalars, or one scalar.
pub fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Sequence(items) => items.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Mapping {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn files_are_laid_over_each_other_by_top_level_key() {
        let merged = |overlay| {
            let mut root = map("rules_files: [a]\nwebserver: {enabled: true, listen_port: 1}\n");
            merge(&mut root, map("rules_files: [b]\nwebserver: {listen_port: 2}\nnew: 1\n"), overlay);
            let web = flag(&root, "webserver.enabled", false);
            (texts(lookup(&root, "rules_files").unwrap()), web, root.contains_key("new"))
        };
        assert_eq!(merged(Overlay::Append), (vec!["a".into(), "b".into()], false, true));
        assert_eq!(merged(Overlay::Override), (vec!["b".into()], false, true));
        assert_eq!(merged(Overlay::AddOnly), (vec!["a".into()], true, true));
    }

    #[test]
    fn a_scalar_is_replaced_by_a_sequence_not_extended() {
        let mut root = map("rules_file: a\n");
        merge(&mut root, map("rules_file: [b]\n"), Overlay::Append);
        assert_eq!(texts(lookup(&root, "rules_file").unwrap()), ["b"]);
    }

    #[test]
    fn options_reach_into_maps_that_are_not_there() {
        let mut root = map("webserver: {listen_port: 1}\n");
        apply_option(&mut root, "webserver.listen_port=9");
        apply_option(&mut root, "metrics.enabled=true");
        apply_option(&mut root, "rules_files[]=x");
        assert_eq!(lookup(&root, "webserver.listen_port").and_then(text).as_deref(), Some("9"));
        assert!(flag(&root, "metrics.enabled", false));
        assert!(!root.contains_key("rules_files"));
    }

    #[test]
    fn variables_are_put_in_and_escaped_ones_stay() {
        let variable = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(expand_text("x${A}y${B}z$${A}", &variable), "x1yz${A}");
        assert_eq!(expand_text("${A", &variable), "${A");
    }
}
