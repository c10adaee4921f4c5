//! YAML with the place of everything in it.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};

/// Deeper nesting is refused, as Falco refuses it.
const MAX_DEPTH: usize = 500;
/// Aliases of aliases must not fill the memory.
const MAX_NODES: usize = 4_000_000;

/// A YAML node and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its bytes in the file.
    pub span: Range<usize>,
    /// Its content.
    pub kind: Kind,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A scalar.
    Scalar {
        /// Its text, escapes and folding resolved.
        text: String,
        /// How it is written.
        style: ScalarStyle,
        /// Whether it has a tag of its own, so that it is text however it looks.
        tagged: bool,
    },
    /// A sequence.
    Seq(Vec<Node>),
    /// A mapping in the order of the file, repeated keys included.
    Map(Vec<(Node, Node)>),
}

/// Why a text is not YAML, and where.
#[derive(Clone, Debug)]
pub struct Error {
    /// The byte where the parser gave up.
    pub offset: usize,
    /// What it says.
    pub message: String,
}

/// Something begun and not yet ended.
struct Open {
    start: usize,
    anchor: usize,
    key: Option<Node>,
    kind: Kind,
}

/// The documents of a text, empty ones left out.
pub fn documents(text: &str) -> Result<Vec<Node>, Error> {
    let mut documents = Vec::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut nodes = 0_usize;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|err| Error {
            offset: err.marker().byte_offset().unwrap_or_default().min(text.len()),
            message: err.info().clone(),
        })?;
        let span = span.byte_range().unwrap_or_default();
        let open = |anchor, kind| Open { start: span.start, anchor, key: None, kind };
        let (anchor, node) = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let kind = Kind::Scalar { text: value.into_owned(), style, tagged: tag.is_some() };
                (anchor, Node { span, kind })
            }
            Event::Alias(id) => match anchors.get(&id) {
                Some(node) => (0, node.clone()),
                None => continue,
            },
            Event::SequenceStart(_, anchor, _) => {
                stack.push(open(anchor, Kind::Seq(vec![])));
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                stack.push(open(anchor, Kind::Map(vec![])));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(open) => (open.anchor, Node { span: open.start..span.end.max(open.start), kind: open.kind }),
                None => continue,
            },
            _ => continue,
        };
        nodes += if anchors.is_empty() { 1 } else { node.size() };
        if stack.len() > MAX_DEPTH || nodes > MAX_NODES {
            return Err(Error { offset: node.span.start, message: "the document is too deep or too large".to_owned() });
        }
        if anchor > 0 {
            anchors.insert(anchor, node.clone());
        }
        match stack.last_mut() {
            None if node.is_null() => {}
            None => documents.push(node),
            Some(Open { kind: Kind::Map(entries), key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
            Some(Open { kind: Kind::Seq(items), .. }) => items.push(node),
            Some(_) => {}
        }
    }
    Ok(documents)
}

impl Node {
    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key of a mapping; the first where it is repeated.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The entry of a key of a mapping; the first where it is repeated.
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        self.entries().iter().find(|(k, _)| k.scalar() == Some(key))
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
            Kind::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Whether it is null: nothing, or a word for it.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, style: ScalarStyle::Plain, tagged: false }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The node as JSON, its scalars read as kubectl reads them: `yes`, `on` and their like are booleans. Of two equal
    /// keys the last wins.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Scalar { text, style: ScalarStyle::Plain, tagged: false } => plain(text),
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::Seq(items) => Value::Array(items.iter().map(Node::json).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.scalar().unwrap_or_default().to_owned(), value.json()))
                    .collect(),
            ),
        }
    }

    /// The byte of the file that holds the byte at `offset` of a scalar's text; for anything else, and beyond the text,
    /// the nearest there is.
    pub fn byte_at(&self, file: &str, offset: usize) -> usize {
        let raw = file.get(self.span.clone()).unwrap_or_default();
        match &self.kind {
            Kind::Scalar { text, style, .. } => self.span.start + align(raw, *style, text, offset),
            _ => self.span.start,
        }
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Seq(items) => items.iter().map(Node::size).sum(),
            Kind::Map(entries) => entries.iter().map(|(key, value)| key.size() + value.size()).sum(),
            Kind::Scalar { .. } => 0,
        }
    }
}

/// A plain scalar, as kubectl reads it.
fn plain(text: &str) -> serde_json::Value {
    use serde_json::Value;
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::String(text.to_owned());
    }
    let digits = text.replace('_', "");
    let radix =
        |prefix: &str, radix| digits.strip_prefix(prefix).and_then(|rest| i64::from_str_radix(rest, radix).ok());
    if let Some(number) = digits.parse().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8)) {
        return Value::Number(i64::into(number));
    }
    let is_float = digits.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match digits.parse::<f64>().ok().filter(|_| is_float).and_then(serde_json::Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

/// Where in `raw`, the scalar as it is written, stands what is at `offset` in its text.
///
/// Whatever the style, the characters of the text that are not blank stand in `raw` in their order, with nothing but
/// blanks, quotes and escapes between them; so the two are walked side by side, and blanks follow what is before them.
fn align(raw: &str, style: ScalarStyle, text: &str, offset: usize) -> usize {
    let mut at = match style {
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => 1,
        // The indicator of a block, its modifiers and a comment fill the first line.
        ScalarStyle::Literal | ScalarStyle::Folded if raw.starts_with(['|', '>']) => {
            raw.find('\n').map_or(raw.len(), |end| end + 1)
        }
        _ => 0,
    };
    for (index, c) in text.char_indices() {
        let Some(unit) = unit(raw, at, style, c) else { return at.min(raw.len()) };
        if index >= offset {
            return unit.start;
        }
        at = unit.end;
    }
    at
}

/// The bytes of `raw`, from `at` on, that stand for `c`: none for a blank that comes from the folding of lines.
fn unit(raw: &str, mut at: usize, style: ScalarStyle, c: char) -> Option<Range<usize>> {
    let blank = c.is_ascii_whitespace();
    loop {
        let rest = raw.get(at..)?;
        let next = rest.chars().next()?;
        if style == ScalarStyle::DoubleQuoted && next == '\\' {
            let escape = rest.chars().nth(1)?;
            if escape == '\n' || escape == '\r' {
                at += rest.len() - rest.get(1..)?.trim_start().len();
                continue;
            }
            let digits = match escape {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            return Some(at..at + 1 + escape.len_utf8() + digits);
        }
        if next == c {
            let doubled = style == ScalarStyle::SingleQuoted && c == '\'';
            return Some(at..at + next.len_utf8() + usize::from(doubled));
        }
        if blank {
            return Some(at..at);
        }
        if !next.is_ascii_whitespace() {
            return None;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each word of the text is found where it stands in the file.
    fn words_are_found(file: &str) {
        let document = documents(file).unwrap().remove(0);
        let node = document.get("k").unwrap();
        let text = node.scalar().unwrap();
        for (offset, c) in text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()) {
            let at = node.byte_at(file, offset);
            assert!(file[at..].starts_with(c), "{c} of {text:?} is looked for at {:?} in {file:?}", &file[at..]);
        }
        assert!(node.byte_at(file, text.len() + 5) <= file.len());
    }

    #[test]
    fn every_style_leads_back_to_the_file() {
        for file in [
            "k: one two\n",
            "k: one\n  two\n\n  three\nl: x\n",
            "k: 'it''s one\n  two'\n",
            "k: \"one \\\"two\\\" \\u00e9 three \\\n  four\n  five\"\n",
            "k: |\n  one two\n    three\n\n  four\n",
            "k: >-\n  one\n  two\n\n  three\n    four\n",
            "k: >2 # a comment: one\n   one\n  two\n",
            "k: &a !!str one two\n",
            "{k: one two, l: 1}\n",
            "k: | # x\n\n  one\n",
        ] {
            words_are_found(file);
        }
    }

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let file = "[yes, 'yes', 1, 0x10, 1.5, ~, 1_000, 2001-12-14, 1.2.3, on, .5, -3, !!str 1, \"\"]";
        let json = documents(file).unwrap().remove(0).json();
        let expected = r#"[true,"yes",1,16,1.5,null,1000,"2001-12-14","1.2.3",true,0.5,-3,"1",""]"#;
        assert_eq!(json.to_string(), expected);
    }

    #[test]
    fn documents_anchors_and_errors() {
        let all = documents("---\n---\na: &x [1]\nb: *x\n---\n- 1\n").unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("b").unwrap().seq().unwrap().len(), 1);
        let err = documents("a: [1\nb: 2\n").unwrap_err();
        assert!(err.offset > 0 && !err.message.is_empty(), "{err:?}");
        assert!(documents(&"[".repeat(20_000)).is_err());
        let bomb: String = (1..40).map(|i| format!("- &a{i} [*a{}, *a{}]\n", i - 1, i - 1)).collect();
        assert!(documents(&format!("- &a0 x\n{bomb}")).is_err());
    }

    proptest! {
        #[test]
        fn places_are_within_the_file(file in "\\PC{0,40}|k: [|>'\"\\\\a \n]{0,30}", offset in 0..50_usize) {
            for document in documents(&file).unwrap_or_default() {
                for (_, value) in document.entries() {
                    let at = value.byte_at(&file, offset);
                    prop_assert!(file.is_char_boundary(at));
                }
            }
        }
    }
}
