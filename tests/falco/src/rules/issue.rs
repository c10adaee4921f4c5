//! Errors and warnings about rules, and how Falco prints them.

use crate::yaml::Mark;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Falco's codes, with the words that it prints for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Code {
    YamlParse,
    YamlValidate,
    CompileCondition,
    CompileOutput,
    Validate,
    UnknownSource,
    NoEvttype,
    UnknownFilter,
    UnusedMacro,
    UnusedList,
    UnknownItem,
    UnknownKey,
    DeprecatedItem,
    AppendNoValues,
    ExceptionNameNotUnique,
    InvalidMacroName,
    InvalidListName,
}

impl Code {
    /// As in the JSON.
    #[cfg(test)]
    pub fn name(self) -> &'static str {
        self.words().0
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::YamlParse => ("LOAD_ERR_YAML_PARSE", "Error parsing YAML"),
            Self::YamlValidate => ("LOAD_ERR_YAML_VALIDATE", "Error validating internal structure of YAML file"),
            Self::CompileCondition => ("LOAD_ERR_COMPILE_CONDITION", "Error compiling condition"),
            Self::CompileOutput => ("LOAD_ERR_COMPILE_OUTPUT", "Error compiling output"),
            Self::Validate => ("LOAD_ERR_VALIDATE", "Error validating rule/macro/list/exception objects"),
            Self::UnknownSource => ("LOAD_UNKNOWN_SOURCE", "Unknown event source"),
            Self::NoEvttype => ("LOAD_NO_EVTTYPE", "Condition has no event-type restriction"),
            Self::UnknownFilter => ("LOAD_UNKNOWN_FILTER", "Unknown field or event-type in condition or output"),
            Self::UnusedMacro => ("LOAD_UNUSED_MACRO", "Unused macro"),
            Self::UnusedList => ("LOAD_UNUSED_LIST", "Unused list"),
            Self::UnknownItem => ("LOAD_UNKNOWN_ITEM", "Unknown rules file item"),
            Self::UnknownKey => ("LOAD_UNKNOWN_KEY", "Unknown key in rules file item"),
            Self::DeprecatedItem => ("LOAD_DEPRECATED_ITEM", "Used deprecated item"),
            Self::AppendNoValues => ("LOAD_APPEND_NO_VALUES", "Overriding/appending exception with no values"),
            Self::ExceptionNameNotUnique => {
                ("LOAD_EXCEPTION_NAME_NOT_UNIQUE", "Multiple exceptions defined with the same name")
            }
            Self::InvalidMacroName => ("LOAD_INVALID_MACRO_NAME", "Invalid macro name"),
            Self::InvalidListName => ("LOAD_INVALID_LIST_NAME", "Invalid list name"),
        }
    }
}

/// One place on the way to the error.
#[derive(Clone, Debug)]
pub struct Location {
    /// What stands there.
    pub item_type: &'static str,
    /// Its name, if it has one.
    pub item_name: String,
    /// The file, or the start of the condition.
    pub file: String,
    /// Where in it.
    pub mark: Mark,
}

/// The way to the error, from the file inwards.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Outermost first.
    pub locations: Vec<Location>,
    /// The condition or output that the innermost location is in.
    pub content: Option<String>,
}

impl Context {
    /// The start of a file.
    pub fn file(name: &str) -> Self {
        let location = Location {
            item_type: "rules content",
            item_name: String::new(),
            file: name.to_owned(),
            mark: Mark::default(),
        };
        Self { locations: vec![location], content: None }
    }

    /// One step inwards.
    pub fn item(&self, item_type: &'static str, item_name: &str, mark: Mark) -> Self {
        let mut inner = self.clone();
        let file = inner.locations.first().map(|location| location.file.clone()).unwrap_or_default();
        inner.locations.push(Location { item_type, item_name: item_name.to_owned(), file, mark });
        inner
    }

    /// Into a condition, at a position counted from 1 as its parser does.
    pub fn expression(&self, item_type: &'static str, text: &str, line: usize, column: usize, offset: usize) -> Self {
        let base = self.locations.last().map(|location| location.mark).unwrap_or_default();
        let mut inner = self.clone();
        let start: String = text.chars().take(20).collect();
        let start = if start.len() < text.len() { format!("{start}...") } else { start };
        inner.locations.push(Location {
            item_type,
            item_name: String::new(),
            file: format!("\"{start}\""),
            mark: Mark { line: line + base.line, column: column + base.column, offset: offset + base.offset },
        });
        inner.content = Some(text.to_owned());
        inner
    }

    fn snippet(&self, file: &str) -> String {
        let mark = self.locations.last().map(|location| location.mark).unwrap_or_default();
        let line = match &self.content {
            Some(text) => text.lines().next(),
            None => file.lines().nth(mark.line),
        };
        let line: String = line.unwrap_or_default().chars().take(160).collect();
        let caret = " ".repeat(mark.column.min(160));
        format!("------\n{line}\n{caret}^\n------\n")
    }
}

/// An error or a warning.
#[derive(Clone, Debug)]
pub struct Issue {
    /// Its kind.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub context: Context,
}

impl Issue {
    /// An issue at a place.
    pub fn new(code: Code, message: impl Into<String>, context: &Context) -> Self {
        Self { code, message: message.into(), context: context.clone() }
    }

    fn json(&self, file: &str) -> Value {
        let locations: Vec<Value> = self
            .context
            .locations
            .iter()
            .map(|location| {
                json!({
                    "item_type": location.item_type,
                    "item_name": location.item_name,
                    "position": {
                        "name": location.file,
                        "line": location.mark.line,
                        "column": location.mark.column,
                        "offset": location.mark.offset,
                    },
                })
            })
            .collect();
        let (code, description) = self.code.words();
        json!({
            "code": code,
            "codedesc": description,
            "message": self.message,
            "context": {"locations": locations, "snippet": self.context.snippet(file)},
        })
    }

    fn text(&self, file: &str) -> String {
        let mut out = String::new();
        for (depth, location) in self.context.locations.iter().enumerate() {
            let indent = if depth == 0 { "In " } else { "    " };
            let name = if location.item_name.is_empty() { String::new() } else { format!(" '{}'", location.item_name) };
            let Mark { line, column, .. } = location.mark;
            let _ = writeln!(out, "{indent}{}{name}: ({}:{line}:{column})", location.item_type, location.file);
        }
        let (code, description) = self.code.words();
        out + &self.context.snippet(file) + &format!("{code} ({description}): {}\n", self.message)
    }
}

/// The verdict on one file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The path as given.
    pub name: String,
    /// The file's text, for snippets.
    pub content: String,
    /// At most one.
    pub errors: Vec<Issue>,
    /// Any number.
    pub warnings: Vec<Issue>,
    /// Whether the file fits the JSON schema; `None` for an empty document.
    pub schema: Option<bool>,
}

impl Report {
    /// Whether the file loads.
    pub fn ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// An element of `falco_load_results`.
    pub fn json(&self) -> Value {
        let list = |issues: &[Issue]| issues.iter().map(|issue| issue.json(&self.content)).collect::<Vec<_>>();
        json!({
            "name": self.name,
            "successful": self.ok(),
            "errors": list(&self.errors),
            "warnings": list(&self.warnings),
            "schema_valid": self.schema.unwrap_or(false),
            "schema_warnings": [],
        })
    }

    /// What stands after `name: ` on one line.
    pub fn verdict(&self) -> &'static str {
        match (self.ok(), self.warnings.is_empty()) {
            (true, true) => "Ok",
            (true, false) => "Ok, with warnings",
            (false, _) => "Invalid",
        }
    }

    /// Verdict and errors in full.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {}\n", self.name, self.verdict());
        if !self.ok() {
            let _ = writeln!(out, "{} Errors:", self.errors.len());
            out.extend(self.errors.iter().map(|issue| issue.text(&self.content)));
        }
        out
    }

    /// The warnings in full, empty without any.
    pub fn warning_text(&self) -> String {
        if self.warnings.is_empty() {
            return String::new();
        }
        let mut out = format!("{}: {}\n{} Warnings:\n", self.name, self.verdict(), self.warnings.len());
        out.extend(self.warnings.iter().map(|issue| issue.text(&self.content)));
        out
    }

    /// What the log says of the schema.
    pub fn schema_words(&self) -> &'static str {
        match self.schema {
            None => "none",
            Some(true) => "ok",
            Some(false) => "failed",
        }
    }
}

impl Report {
    /// Makes the file invalid although nothing is wrong with it.
    pub fn refuse(&mut self, message: &str) {
        self.errors.push(Issue::new(Code::Validate, message, &Context::file(&self.name)));
    }
}
