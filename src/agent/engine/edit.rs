//! Adding to a sequence of falco.yaml as a text edit, so that comments and everything unknown stay as they are.

use serde_yaml::{Mapping, Value};

/// The text with `entries` appended to the sequence under the top-level `key`; a scalar there becomes the sequence's
/// first entry, and a missing key is added.
///
/// Whatever the text looks like, the result reads as the original with that one key extended: where the edit can't be
/// made in the text (anchors, several documents in one line, …), the whole file is written anew, without its comments.
pub fn append(text: &str, key: &str, entries: &[Value]) -> Result<String, serde_yaml::Error> {
    let mut wanted = mapping(text)?;
    let mut all = match wanted.get(key) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Sequence(items)) => items.clone(),
        Some(one) => vec![one.clone()],
    };
    all.extend(entries.iter().cloned());
    wanted.insert(Value::String(key.to_owned()), Value::Sequence(all.clone()));
    let edited = edit(text, key, &all, entries)?;
    if mapping(&edited).is_ok_and(|found| found == wanted) {
        return Ok(edited);
    }
    serde_yaml::to_string(&wanted)
}

/// The top-level map of a document; an empty one where there is none.
pub fn mapping(text: &str) -> Result<Mapping, serde_yaml::Error> {
    Ok(serde_yaml::from_str::<Option<Mapping>>(text)?.unwrap_or_default())
}

fn edit(text: &str, key: &str, all: &[Value], new: &[Value]) -> Result<String, serde_yaml::Error> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(start) = lines.iter().position(|line| is_key(line, key)) else {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{gap}{key}:\n{}", sequence(all, "  ")?));
    };
    // Up to the next thing at the margin that isn't an item of this sequence, comments between them not counted.
    let mut end = start + 1;
    for (at, line) in lines.iter().enumerate().skip(start + 1) {
        let bare = line.trim_start();
        if bare.trim_end().is_empty() || bare.starts_with('#') {
            continue;
        }
        if bare.len() == line.len() && !is_item(line) {
            break;
        }
        end = at + 1;
    }
    let first = lines.get(start + 1..end).unwrap_or_default().iter().find(|line| is_item(line.trim_start()));
    let opened = lines.get(start).and_then(|line| line.split_once(':')).map_or("", |(_, rest)| rest.trim());
    let before = lines.get(..start).unwrap_or_default().concat();
    let body = lines.get(start..end).unwrap_or_default().concat();
    let after = lines.get(end..).unwrap_or_default().concat();
    let (body, addition) = match first {
        Some(item) if opened.is_empty() || opened.starts_with('#') => {
            let indent = item.len() - item.trim_start().len();
            (body, sequence(new, item.get(..indent).unwrap_or_default())?)
        }
        _ => (format!("{key}:\n"), sequence(all, "  ")?),
    };
    let gap = if body.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{before}{body}{gap}{addition}{after}"))
}

fn is_key(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| {
        let rest = rest.trim_start_matches([' ', '\t']);
        rest.strip_prefix(':').is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    })
}

fn is_item(line: &str) -> bool {
    line.strip_prefix('-').is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// The items one below the other, each on a line of its own.
fn sequence(items: &[Value], indent: &str) -> Result<String, serde_yaml::Error> {
    let mut out = String::new();
    for item in items {
        for line in serde_yaml::to_string(&[item])?.lines() {
            out.push_str(&format!("{indent}{line}\n"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(text: &str, key: &str) -> String {
        append(text, key, &["/x/a.yaml".into(), "/x/b.yaml".into()]).unwrap()
    }

    #[test]
    fn items_are_added_behind_the_last_one_and_all_else_stays() {
        let text = "# top\nunknown: {a: [1, 2]}\nrules_files: # ours\n  - /etc/one.yaml # first\n  # - /etc/off.yaml\n  \
                    - /etc/two.yaml\n\n# about the next\npriority: debug\n";
        let edited = "# top\nunknown: {a: [1, 2]}\nrules_files: # ours\n  - /etc/one.yaml # first\n  # - /etc/off.yaml\n  \
                      - /etc/two.yaml\n  - /x/a.yaml\n  - /x/b.yaml\n\n# about the next\npriority: debug\n";
        assert_eq!(add(text, "rules_files"), edited);
    }

    #[test]
    fn items_at_the_margin_are_extended_at_the_margin() {
        assert_eq!(
            add("rules_files:\n- a\n- b\nx: 1\n", "rules_files"),
            "rules_files:\n- a\n- b\n- /x/a.yaml\n- /x/b.yaml\nx: 1\n"
        );
    }

    #[test]
    fn whatever_else_is_there_becomes_a_sequence() {
        for (text, first) in [
            ("rules_files: [a, b]\nx: 1\n", "  - a\n  - b\n"),
            ("rules_files: [\n  a,\n  b\n  ]\nx: 1\n", "  - a\n  - b\n"),
            ("rules_files: a\nx: 1\n", "  - a\n"),
            ("rules_files:\nx: 1\n", ""),
            ("rules_files: []\nx: 1\n", ""),
            ("rules_files: ~\nx: 1", ""),
        ] {
            let tail = if text.ends_with('\n') { "x: 1\n" } else { "x: 1" };
            assert_eq!(
                add(text, "rules_files"),
                format!("rules_files:\n{first}  - /x/a.yaml\n  - /x/b.yaml\n{tail}"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_missing_key_is_added_at_the_end() {
        assert_eq!(add("x: 1", "rules_files"), "x: 1\nrules_files:\n  - /x/a.yaml\n  - /x/b.yaml\n");
        assert_eq!(add("", "rules_files"), "rules_files:\n  - /x/a.yaml\n  - /x/b.yaml\n");
        // A key that only begins alike is another one.
        assert_eq!(
            add("rules_file: 1\n", "rules_files"),
            "rules_file: 1\nrules_files:\n  - /x/a.yaml\n  - /x/b.yaml\n"
        );
    }

    #[test]
    fn what_cannot_be_edited_is_written_anew_and_means_the_same() {
        for text in ["{rules_files: [a], x: {y: 1}}\n", "\"rules_files\": [a]\nx: {y: 1}\n"] {
            let edited = mapping(&add(text, "rules_files")).unwrap();
            assert_eq!(edited, mapping("rules_files: [a, /x/a.yaml, /x/b.yaml]\nx: {y: 1}\n").unwrap(), "{text}");
        }
    }

    #[test]
    fn a_sequence_with_lines_of_text_that_look_like_keys_is_kept() {
        let text = "a: |\n  rules_files:\n  - no\nrules_files:\n  - yes.yaml\n";
        assert_eq!(add(text, "rules_files"), format!("{text}  - /x/a.yaml\n  - /x/b.yaml\n"));
    }

    #[test]
    fn text_that_is_no_yaml_is_an_error() {
        assert!(append("a: [", "rules_files", &[]).is_err());
        assert!(append("- a\n", "rules_files", &[]).is_err());
    }
}
