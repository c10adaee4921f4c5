//! Reading configuration files and laying one over the other.

use super::ConfigError;
use crate::yaml::{self, Kind, Node};
use std::path::{Path, PathBuf};

/// Reads one file, variables put in.
pub fn read(path: &Path) -> Result<Node, ConfigError> {
    let lost = |message: String| ConfigError { message, opaque: true };
    let bytes = std::fs::read(path)
        .map_err(|error| lost(format!("Error: could not load configuration file {}: {error}", path.display())))?;
    let mut node = yaml::document(&String::from_utf8_lossy(&bytes))
        .map_err(|error| lost(format!("Error: {}: {}", path.display(), error.message)))?;
    if !(node.is_null() || matches!(node.kind, Kind::Map(_))) {
        return Err(lost(format!("Error: {}: configuration must be a map", path.display())));
    }
    expand(&mut node);
    Ok(node)
}

/// `${VAR}` becomes the variable's value, `$${VAR}` the text `${VAR}`.
fn expand(node: &mut Node) {
    match &mut node.kind {
        Kind::Scalar(text) if text.contains("${") => *text = expand_text(text),
        Kind::Scalar(_) | Kind::Null => {}
        Kind::Seq(items) => items.iter_mut().for_each(expand),
        Kind::Map(entries) => entries.iter_mut().for_each(|(_, value)| expand(value)),
    }
}

fn expand_text(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        let Some(end) = after.find('}') else { break };
        let (reference, after) = after.split_at(end + 1);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str(reference);
        } else {
            out.push_str(before);
            let name = reference.trim_start_matches("${").trim_end_matches('}');
            out.push_str(&std::env::var(name).unwrap_or_default());
        }
        rest = after;
    }
    out + rest
}

/// What `config_files` names, with the strategy for each.
pub fn includes(root: &Node) -> Vec<(PathBuf, String)> {
    let entry = |node: &Node| match node.scalar() {
        Some(path) => Some((PathBuf::from(path), "append".to_owned())),
        None => Some((
            PathBuf::from(node.get("path")?.scalar()?),
            node.get("strategy").and_then(Node::scalar).unwrap_or("append").to_owned(),
        )),
    };
    root.get("config_files").and_then(Node::seq).unwrap_or_default().iter().filter_map(entry).collect()
}

/// The regular files of a folder by path, whatever their extension.
pub fn folder(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// Merging is by top-level key only.
pub fn merge(root: &mut Node, included: Node, strategy: &str) {
    if root.is_null() {
        root.kind = Kind::Map(Vec::new());
    }
    let (Kind::Map(entries), Kind::Map(news)) = (&mut root.kind, included.kind) else { return };
    for (key, value) in news {
        let Some(at) = entries.iter().position(|(k, _)| k.scalar() == key.scalar()) else {
            entries.push((key, value));
            continue;
        };
        let Some((_, old)) = entries.get_mut(at) else { continue };
        match (strategy, &mut old.kind, value.kind) {
            ("add-only", ..) => {}
            ("override", _, kind) => old.kind = kind,
            (_, Kind::Seq(items), Kind::Seq(more)) => items.extend(more),
            (_, _, kind) => old.kind = kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{flag, texts};

    #[test]
    fn merging_replaces_maps_whole_and_appends_sequences() {
        let merged = |strategy: &str| {
            let mut root = yaml::document("rules_files: [a]\nwebserver: {enabled: true, listen_port: 1}\n").unwrap();
            let included = yaml::document("rules_files: [b]\nwebserver: {listen_port: 2}\nnew: 1\n").unwrap();
            merge(&mut root, included, strategy);
            (
                texts(root.get("rules_files").unwrap()),
                flag(&root, "webserver.enabled", false),
                root.get("new").is_some(),
            )
        };
        assert_eq!(merged("append"), (vec!["a".to_owned(), "b".to_owned()], false, true));
        assert_eq!(merged("override"), (vec!["b".to_owned()], false, true));
        assert_eq!(merged("add-only"), (vec!["a".to_owned()], true, true));
    }

    #[test]
    fn unset_variables_are_empty_and_escapes_stay() {
        assert_eq!(expand_text("a${NO_SUCH_VARIABLE_HERE}b$${X}"), "ab${X}");
    }
}
