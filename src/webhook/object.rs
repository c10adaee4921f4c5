//! The object that a request is about.

use kube::ResourceExt;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, Operation};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{FalcoList, FalcoMacro, FalcoRule, GROUP, Reason};
use crate::language::Part;
use crate::render::{ItemVerdict, Rendered, Snapshot, list_text, macro_text, rule_text};

/// What an API server asks.
pub type Request = AdmissionRequest<DynamicObject>;

/// What there is to do about a request.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Nothing: it deletes, it changes no spec, the object is on its way out, or the kind is another.
    Pass,
    /// The object can't be decoded; why, and which field it is, as far as it is known.
    Undecodable {
        /// The path of the field: `spec.exceptions[0].fields`.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The object is to be judged.
    Judge(Box<Written>),
}

/// An object as it is to be written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object.
    pub object: Object,
    /// Whether there is none yet.
    pub is_new: bool,
    /// Whether nothing is kept of it: somebody asks what would happen.
    pub dry_run: bool,
}

/// An object of a kind that developers write.
#[derive(Clone, Debug)]
pub enum Object {
    /// A rule.
    Rule(Box<FalcoRule>),
    /// A macro.
    Macro(Box<FalcoMacro>),
    /// A list.
    List(Box<FalcoList>),
}

/// Reads a request.
#[must_use]
pub fn read(request: &Request) -> Reading {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let part = request.sub_resource.as_deref().is_some_and(|part| !part.is_empty());
    let Some(object) = request.object.as_ref().filter(|_| writes && !part && request.kind.group == GROUP) else {
        return Reading::Pass;
    };
    let spec = |object: &DynamicObject| object.data.get("spec").cloned().unwrap_or(Value::Null);
    let unchanged = request.old_object.as_ref().is_some_and(|old| spec(old) == spec(object));
    if unchanged || object.metadata.deletion_timestamp.is_some() {
        return Reading::Pass;
    }
    let mut object = object.clone();
    if object.metadata.name.is_none() {
        object.metadata.name = Some(request.name.clone());
    }
    object.metadata.namespace.clone_from(&request.namespace);
    let decoded = match request.kind.kind.as_str() {
        "FalcoRule" => decode(object).map(|rule| Object::Rule(Box::new(rule))),
        "FalcoMacro" => decode(object).map(|item| Object::Macro(Box::new(item))),
        "FalcoList" => decode(object).map(|list| Object::List(Box::new(list))),
        _ => return Reading::Pass,
    };
    match decoded {
        Ok(object) => {
            let is_new = request.old_object.is_none();
            Reading::Judge(Box::new(Written { object, is_new, dry_run: request.dry_run }))
        }
        Err((field, message)) => Reading::Undecodable { field, message },
    }
}

fn decode<K: DeserializeOwned>(object: DynamicObject) -> Result<K, (String, String)> {
    let value = serde_json::to_value(object).map_err(|err| ("spec".to_owned(), err.to_string()))?;
    serde_path_to_error::deserialize(value).map_err(|err| {
        let path = err.path().to_string();
        (if path == "." { "spec".to_owned() } else { path }, err.into_inner().to_string())
    })
}

impl Object {
    /// `FalcoRule`, `FalcoMacro` or `FalcoList`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Rule(_) => "FalcoRule",
            Self::Macro(_) => "FalcoMacro",
            Self::List(_) => "FalcoList",
        }
    }

    /// The name of the object.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Rule(rule) => rule.name_any(),
            Self::Macro(item) => item.name_any(),
            Self::List(list) => list.name_any(),
        }
    }

    /// The name that a rule is to have, as it is written.
    #[must_use]
    pub fn rule_name(&self) -> Option<&str> {
        match self {
            Self::Rule(rule) => Some(&rule.spec.rule),
            _ => None,
        }
    }

    /// Puts it into the namespace, in the place of the one that has its name.
    pub fn put(&self, world: &mut Snapshot) {
        match self {
            Self::Rule(rule) => put(&mut world.rules, rule),
            Self::Macro(item) => put(&mut world.macros, item),
            Self::List(list) => put(&mut world.lists, list),
        }
    }

    /// What became of it.
    #[must_use]
    pub fn verdict<'r>(&self, rendered: &'r Rendered) -> Option<&'r ItemVerdict> {
        let verdicts = match self {
            Self::Rule(_) => &rendered.rules,
            Self::Macro(_) => &rendered.macros,
            Self::List(_) => &rendered.lists,
        };
        verdicts.get(&self.name())
    }

    /// The text of a part, for the places of findings in it.
    #[must_use]
    pub fn text(&self, part: Part) -> &str {
        match self {
            Self::Rule(rule) => rule_text(&rule.spec, part),
            Self::Macro(item) => macro_text(&item.spec, part),
            Self::List(list) => list_text(&list.spec, part),
        }
    }

    /// The path of the field that a part is in.
    #[must_use]
    pub fn field(&self, part: Part) -> String {
        match part {
            Part::Whole => "spec".to_owned(),
            Part::Name => match self {
                Self::Rule(_) => "spec.rule".to_owned(),
                Self::Macro(_) => "spec.macro".to_owned(),
                Self::List(_) => "spec.list".to_owned(),
            },
            part => format!("spec.{part}"),
        }
    }
}

fn put<K: ResourceExt + Clone>(items: &mut Vec<K>, item: &K) {
    items.retain(|other| other.name_any() != item.name_any());
    items.push(item.clone());
}

/// The rules, macros and lists that were rejected, by kind and name, with why.
pub fn rejected(rendered: &Rendered) -> impl Iterator<Item = (&'static str, &str, Reason, &ItemVerdict)> {
    let all = [("FalcoRule", &rendered.rules), ("FalcoMacro", &rendered.macros), ("FalcoList", &rendered.lists)];
    all.into_iter().flat_map(|(kind, verdicts)| {
        verdicts.iter().filter_map(move |(name, verdict)| Some((kind, name.as_str(), verdict.rejected?, verdict)))
    })
}
