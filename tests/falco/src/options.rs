//! `-o key=value`: a path into the configuration and what to put there.

use crate::yaml::{self, Kind, Node};

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Append,
}

/// Puts one `key=value` into the configuration.
pub fn apply(root: &mut Node, option: &str) -> Result<(), String> {
    let (path, value) = split(option)?;
    let steps = parse_path(path).ok_or_else(|| format!("Invalid key of option: {option}"))?;
    let value =
        if value.starts_with('{') { yaml::document(value).map_err(|error| error.message)? } else { Node::text(value) };
    put(root, &steps, value);
    Ok(())
}

/// The top-level key that an option changes.
pub fn top_key(option: &str) -> String {
    let path = option.split('=').next().unwrap_or_default();
    match parse_path(path).unwrap_or_default().into_iter().next() {
        Some(Step::Key(key)) => key,
        _ => String::new(),
    }
}

fn split(option: &str) -> Result<(&str, &str), String> {
    option.split_once('=').ok_or_else(|| format!("Error: invalid config option {option:?}: expected key=value"))
}

fn parse_path(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut word = String::new();
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.push(chars.next()?),
            '.' | '[' => {
                if !word.is_empty() {
                    steps.push(Step::Key(std::mem::take(&mut word)));
                }
                if c == '[' {
                    let index: String = chars.by_ref().take_while(|c| *c != ']').collect();
                    steps.push(if index.is_empty() { Step::Append } else { Step::Index(index.parse().ok()?) });
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        steps.push(Step::Key(word));
    }
    (!steps.is_empty()).then_some(steps)
}

fn put(node: &mut Node, steps: &[Step], value: Node) {
    let Some((step, rest)) = steps.split_first() else {
        *node = value;
        return;
    };
    match step {
        Step::Key(key) => {
            if !matches!(node.kind, Kind::Map(_)) {
                node.kind = Kind::Map(Vec::new());
            }
            if let Kind::Map(entries) = &mut node.kind {
                let at = entries.iter().position(|(k, _)| k.scalar() == Some(key)).unwrap_or_else(|| {
                    entries.push((Node::text(key), Node::null()));
                    entries.len() - 1
                });
                if let Some((_, child)) = entries.get_mut(at) {
                    put(child, rest, value);
                }
            }
        }
        Step::Index(_) | Step::Append => {
            if !matches!(node.kind, Kind::Seq(_)) {
                node.kind = Kind::Seq(Vec::new());
            }
            if let Kind::Seq(items) = &mut node.kind {
                let at = match step {
                    Step::Index(index) => (*index).min(items.len()),
                    _ => items.len(),
                };
                if at == items.len() {
                    items.push(Node::null());
                }
                if let Some(child) = items.get_mut(at) {
                    put(child, rest, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(base: &str, options: &[&str]) -> Node {
        let mut root = yaml::document(base).unwrap();
        for option in options {
            apply(&mut root, option).unwrap();
        }
        root
    }

    #[test]
    fn paths_reach_maps_and_sequences() {
        let root = applied(
            "rules_files: [a, b]\n",
            &["rules_files[]=c", "rules_files[0]=z", "webserver.listen_port=1", "metrics={enabled: true}"],
        );
        let files: Vec<_> = root.get("rules_files").unwrap().seq().unwrap().iter().filter_map(Node::scalar).collect();
        assert_eq!(files, ["z", "b", "c"]);
        assert_eq!(root.get("webserver").unwrap().get("listen_port").unwrap().scalar(), Some("1"));
        assert_eq!(root.get("metrics").unwrap().get("enabled").unwrap().scalar(), Some("true"));
    }

    #[test]
    fn the_value_may_hold_equal_signs_and_keys_may_be_escaped() {
        let root = applied("{}", &["a\\.b=c=d"]);
        assert_eq!(root.get("a.b").unwrap().scalar(), Some("c=d"));
        assert!(apply(&mut Node::null(), "nothing").is_err());
    }
}
