//! What a file holds: manifests of the kinds that developers write, plain Falco rules, or something else.

use std::ops::Range;

use serde::de::DeserializeOwned;

use super::finding::ItemName;
use super::marked::{self, Node};
use super::place;
use crate::api::{FalcoList, FalcoMacro, FalcoRule, GROUP};
use crate::language::{Diagnostic, Part};

/// A document of a file.
#[derive(Clone, Debug)]
pub enum Document {
    /// A manifest of a rule, a macro or a list.
    Manifest(Box<Manifest>),
    /// The items of a plain Falco rules file.
    Plain(Node),
    /// Something that is not for this program, such as a Deployment.
    Foreign(Node),
}

/// A manifest of a rule, a macro or a list.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file that it is in, by its index.
    pub file: usize,
    /// The manifest with its places.
    pub node: Node,
    /// What it is called.
    pub item: ItemName,
    /// The object, or why it can't be decoded.
    pub object: Result<Object, String>,
}

/// An authored object.
#[derive(Clone, Debug)]
pub enum Object {
    /// A rule.
    Rule(FalcoRule),
    /// A macro.
    Macro(FalcoMacro),
    /// A list.
    List(FalcoList),
}

/// The kinds that developers write.
const KINDS: [&str; 3] = ["FalcoRule", "FalcoMacro", "FalcoList"];

/// Reads the documents of a file. Manifests without a namespace are of `namespace`.
pub fn documents(file: usize, text: &str, namespace: &str) -> Result<Vec<Document>, marked::Error> {
    let mut found = Vec::new();
    for node in marked::documents(text)? {
        sort(file, node, namespace, &mut found);
    }
    Ok(found)
}

fn sort(file: usize, node: Node, namespace: &str, found: &mut Vec<Document>) {
    let word = |key: &str| node.get(key).and_then(Node::scalar).unwrap_or_default();
    let (kind, version) = (word("kind"), word("apiVersion"));
    if node.seq().is_some() {
        found.push(Document::Plain(node));
    } else if kind == "List" && version == "v1" {
        for item in node.get("items").and_then(Node::seq).unwrap_or_default() {
            sort(file, item.clone(), namespace, found);
        }
    } else if version.split_once('/').is_some_and(|(group, _)| group == GROUP) && KINDS.contains(&kind) {
        found.push(Document::Manifest(Box::new(Manifest::new(file, node, namespace))));
    } else {
        found.push(Document::Foreign(node));
    }
}

impl Manifest {
    fn new(file: usize, node: Node, namespace: &str) -> Self {
        let word = |key: &str| node.get("metadata")?.get(key)?.scalar().map(str::to_owned);
        let item = ItemName {
            kind: node.get("kind").and_then(Node::scalar).unwrap_or_default().to_owned(),
            namespace: word("namespace").unwrap_or_else(|| namespace.to_owned()),
            name: word("name").unwrap_or_default(),
        };
        let object = match item.kind.as_str() {
            "FalcoRule" => decode(&node).map(Object::Rule),
            "FalcoMacro" => decode(&node).map(Object::Macro),
            _ => decode(&node).map(Object::List),
        };
        Self { file, node, item, object }
    }

    /// The node of a key of the spec.
    fn spec(&self, key: &str) -> Option<&Node> {
        self.node.get("spec")?.get(key)
    }

    /// Where the name stands that Falco would know the item by.
    pub fn name_of_item(&self) -> Range<usize> {
        let key = match self.item.kind.as_str() {
            "FalcoRule" => "rule",
            "FalcoMacro" => "macro",
            _ => "list",
        };
        let start = self.node.span.start;
        self.spec(key).map_or(start..start, |node| node.span.clone())
    }

    /// Where in the file stands what a finding is about.
    pub fn place(&self, file: &str, finding: &Diagnostic) -> Range<usize> {
        let node = match finding.part {
            Part::Condition => self.spec("condition"),
            Part::Desc => self.spec("desc"),
            Part::Output => self.spec("output"),
            Part::Source => self.spec("source"),
            Part::Priority => self.spec("priority"),
            Part::Tag(index) => self.spec("tags").and_then(|tags| tags.seq()?.get(index as usize)),
            Part::Entry(index) => self.spec("items").and_then(|items| items.seq()?.get(index as usize)),
            Part::Exception(index) => {
                let exception = self.spec("exceptions").and_then(|all| all.seq()?.get(index as usize));
                return exception.map_or(self.name_of_item(), |node| place::of_exception(node, finding));
            }
            Part::Name | Part::Whole => return self.name_of_item(),
        };
        node.map_or(self.name_of_item(), |node| place::of_span(node, file, finding.span))
    }
}

fn decode<K: DeserializeOwned>(node: &Node) -> Result<K, String> {
    serde_json::from_value(node.json()).map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_by_their_content() {
        let text = "
apiVersion: mumoshu.github.io/v1alpha1
kind: FalcoMacro
metadata: {name: m, namespace: team-a}
spec: {macro: m, condition: evt.num > 0}
---
apiVersion: v1
kind: List
items:
- {apiVersion: mumoshu.github.io/v1beta1, kind: FalcoList, metadata: {name: l}, spec: {list: l, items: [yes]}}
- {apiVersion: v1, kind: Pod}
---
- macro: x
  condition: evt.num > 0
---
{apiVersion: mumoshu.github.io/v1alpha1, kind: FalcoRulesFile}
";
        let found = documents(0, text, "default").unwrap();
        assert_eq!(found.len(), 5);
        let Document::Manifest(first) = &found[0] else { panic!("{found:?}") };
        assert_eq!((first.item.namespace.as_str(), first.item.name.as_str()), ("team-a", "m"));
        assert!(matches!(&first.object, Ok(Object::Macro(object)) if object.spec.macro_ == "m"));
        let Document::Manifest(second) = &found[1] else { panic!("{found:?}") };
        assert_eq!(second.item.namespace, "default");
        assert!(second.object.as_ref().unwrap_err().contains("boolean"), "{:?}", second.object);
        assert!(matches!(found[2], Document::Foreign(_)));
        assert!(matches!(found[3], Document::Plain(_)));
        assert!(matches!(found[4], Document::Foreign(_)));
    }
}
