//! YAML as Falco's parser sees it: every scalar is text with a position, and of two equal keys the first wins.

use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// A place in a file, counted from 0 as Falco does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
    /// Bytes from the start.
    pub offset: usize,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `~`, `null` or nothing.
    Null,
    /// Any other scalar, as its text.
    Scalar(String),
    /// A sequence.
    Seq(Vec<Node>),
    /// A mapping in the order of the file, repeated keys included.
    Map(Vec<(Node, Node)>),
}

/// One YAML node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it starts.
    pub mark: Mark,
    /// Its content.
    pub kind: Kind,
}

/// Why a text is not YAML.
#[derive(Clone, Debug)]
pub struct Error {
    /// In the words of Falco's parser where they are known.
    pub message: String,
}

/// Falco's parser gives up on deeper nesting.
const MAX_DEPTH: usize = 500;
/// Aliases of aliases must not fill the memory.
const MAX_NODES: usize = 4_000_000;

impl Node {
    /// A scalar without a position.
    pub fn text(text: &str) -> Self {
        Self { mark: Mark::default(), kind: Kind::Scalar(text.to_owned()) }
    }

    /// A null without a position.
    pub fn null() -> Self {
        Self { mark: Mark::default(), kind: Kind::Null }
    }

    /// The value of a key of a mapping; the first where it is repeated.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(k, _)| k.scalar() == Some(key)).map(|(_, v)| v)
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a sequence.
    pub fn seq(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a scalar that is not null.
    pub fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Seq(items) => items.iter().map(Node::size).sum(),
            Kind::Map(entries) => entries.iter().map(|(k, v)| k.size() + v.size()).sum::<usize>(),
            _ => 0,
        }
    }
}

enum Open {
    Seq(Mark, usize, Vec<Node>),
    Map(Mark, usize, Vec<(Node, Node)>, Option<Node>),
}

/// All documents of a text. A syntax error anywhere loses them all, as it does for Falco.
pub fn documents(text: &str) -> Result<Vec<Node>, Error> {
    let mut documents = Vec::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut nodes = 0_usize;
    let mut pending = false;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| syntax_error(text, &error))?;
        let mark = Mark {
            line: span.start.line().saturating_sub(1),
            column: span.start.col(),
            offset: span.start.byte_offset().unwrap_or(span.start.index()),
        };
        let done = match event {
            Event::DocumentStart(..) => {
                pending = true;
                None
            }
            Event::DocumentEnd => {
                if pending {
                    documents.push(Node::null());
                    pending = false;
                }
                None
            }
            Event::Scalar(value, style, anchor, tag) => {
                let null = style == ScalarStyle::Plain
                    && tag.is_none()
                    && matches!(&*value, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Scalar(value.into_owned()) };
                Some((anchor, Node { mark, kind }))
            }
            Event::Alias(id) => anchors.get(&id).cloned().map(|node| (0, node)),
            Event::SequenceStart(_, anchor, _) => {
                stack.push(Open::Seq(mark, anchor, Vec::new()));
                None
            }
            Event::MappingStart(_, anchor, _) => {
                stack.push(Open::Map(mark, anchor, Vec::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => stack.pop().map(|open| match open {
                Open::Seq(mark, anchor, items) => (anchor, Node { mark, kind: Kind::Seq(items) }),
                Open::Map(mark, anchor, entries, _) => (anchor, Node { mark, kind: Kind::Map(entries) }),
            }),
            _ => None,
        };
        if stack.len() > MAX_DEPTH {
            return Err(Error { message: "yaml-cpp: error at line 1, column 1: bad file".into() });
        }
        let Some((anchor, node)) = done else { continue };
        nodes += if anchors.is_empty() { 1 } else { node.size() };
        if nodes > MAX_NODES {
            return Err(Error { message: "yaml-cpp: error at line 1, column 1: bad file".into() });
        }
        if anchor > 0 {
            anchors.insert(anchor, node.clone());
        }
        match stack.last_mut() {
            None => {
                pending = false;
                documents.push(node);
            }
            Some(Open::Seq(_, _, items)) => items.push(node),
            Some(Open::Map(_, _, entries, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
    }
    Ok(documents)
}

/// The one document of a configuration file; null when it is empty.
pub fn document(text: &str) -> Result<Node, Error> {
    Ok(documents(text)?.into_iter().next().unwrap_or_else(Node::null))
}

fn syntax_error(text: &str, error: &granit_parser::ScanError) -> Error {
    let marker = error.marker();
    let info = error.info();
    let tab = (marker.line().saturating_sub(1)..=marker.line())
        .find(|line| text.lines().nth(*line).is_some_and(|text| text.starts_with('\t')));
    // The three mistakes that people make most get the words that Falco has for them.
    let (line, column, words) = if let Some(line) = tab {
        (line + 1, 1, "illegal tab when looking for indentation".to_owned())
    } else if info.contains("mapping values") || info.contains("block mapping") {
        (marker.line(), marker.col() + 1, "illegal map value".to_owned())
    } else if info.contains("unclosed bracket '['") {
        (text.lines().count() + 1, 1, "end of sequence flow not found".to_owned())
    } else {
        (marker.line(), marker.col() + 1, info)
    };
    Error { message: format!("yaml-cpp: error at line {line}, column {column}: {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_equal_keys_wins() {
        let node = document("a: 1\na: 2\n").unwrap();
        assert_eq!(node.get("a").and_then(Node::scalar), Some("1"));
    }

    #[test]
    fn aliases_documents_and_byte_order_marks_are_read() {
        let all = documents("\u{feff}- &x [1, 2]\n- *x\n---\n- ~\n").unwrap();
        assert_eq!(all.len(), 2);
        let first = all[0].seq().unwrap();
        assert_eq!(first[1].seq().unwrap().len(), 2);
        assert!(all[1].seq().unwrap()[0].is_null());
    }

    #[test]
    fn an_empty_text_has_no_document_and_quoted_null_is_text() {
        assert!(documents("# nothing\n").unwrap().iter().all(Node::is_null));
        assert_eq!(document("\"null\"").unwrap().scalar(), Some("null"));
    }

    #[test]
    fn bottomless_nesting_is_refused() {
        assert!(documents(&"[".repeat(20_000)).is_err());
    }
}
