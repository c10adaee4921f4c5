//! Falco's condition and output language, understood as Falco 0.44.1 does: lexer, parser, tree, printer, checker. Pure.
//!
//! - [`parse`] reads a condition into an [`Expr`], whose places are [`Span`]s of the text; [`Expr::text`] writes it so
//!   that it is read back as the same tree.
//! - A [`Catalog`] is what a Falco installation offers to rules. [`Catalog::falco`] is Falco 0.44.1 with the container
//!   plugin; [`Catalog::new`] makes one of what agents report.
//! - [`Definitions::compile`] reads the lists and macros of a namespace, and says what is wrong with each.
//! - [`check_rule`] checks a rule with them, and puts lists, macros and exceptions into its condition.
//! - [`check_file`] checks the items of plain rules files as Falco itself reads them.
//!
//! Findings are [`Diagnostic`]s. Class `invalid` is what Falco refuses; `unsafe` what it takes and must not be given: what
//! crashes or hangs the engine, or means something else than is written.
//!
//! How a rule becomes what Falco gets:
//!
//! ```
//! use falco_operator::language::{Catalog, Definitions, ListText, MacroText, RuleText, check_rule};
//!
//! let catalog = Catalog::falco();
//! let items = vec!["bash".to_owned(), "sh".to_owned()];
//! let lists = [ListText { name: "shells", items: &items }];
//! let macros = [MacroText { name: "shell_started", condition: "evt.type = execve and proc.name in (shells)" }];
//! let (definitions, findings) = Definitions::compile(&lists, &macros, catalog);
//! assert!(findings.macros[0].is_empty());
//!
//! let rule = RuleText {
//!     name: "shell in container",
//!     condition: "shell_started and container.id != host",
//!     output: "shell started by %proc.pname",
//!     priority: "WARNING",
//!     ..RuleText::default()
//! };
//! let checked = check_rule(&rule, &definitions, catalog);
//! assert_eq!(checked.diagnostics, []);
//! assert_eq!(
//!     checked.condition.as_deref(),
//!     Some("(evt.type = execve and proc.name in (bash, sh)) and container.id != host")
//! );
//! // Confined to a namespace, whatever the condition holds.
//! let confined = checked.tree.expect("accepted").wrap("k8s.ns.name", "team-a");
//! let confined = confined.emit(&definitions, catalog).expect("no base lists");
//! assert!(confined.starts_with("k8s.ns.name = team-a and ("));
//! ```

mod catalog;
mod check;
mod complaints;
mod definitions;
mod diagnostic;
mod events;
mod exceptions;
mod explain;
mod fields;
pub mod limits;
mod name_map;
mod output;
mod parse;
mod paste;
mod print;
mod regex;
mod resolve;
mod rule;
mod rules_file;
mod scan;
mod splice;
#[cfg(test)]
mod tests;
mod tree;
mod values;
mod word_set;

/// Maps that are asked for each word of each condition.
pub(crate) use foldhash::HashMap as FastMap;

pub use catalog::{Catalog, CatalogData, FieldData, SYSCALL};
pub use definitions::{Definitions, Findings, ListText, MacroText, Uses};
pub use diagnostic::{Class, Code, Diagnostic, Part, Severity, Span};
pub use events::EventTypes;
pub use exceptions::{ExceptionText, ExceptionValue, Words};
pub use explain::{WordInfo, operators, plugin_of, word_info, words};
pub use fields::{ArgumentInfo, FieldInfo, Kind, Need};
pub use output::{OutputField, output_fields};
pub(crate) use output::{control, is_printable_ascii};
pub use parse::{Parsed, parse};
pub use print::keeps_text;
pub(crate) use resolve::catalogued;
pub use rule::{Checked, RuleText, base_lists, check_condition, check_rule};
pub use rules_file::{FileFindings, FileList, FileMacro, FileRule, Order, check_file};
pub use tree::{
    Argument, Check, Expr, Field, Modifier, Op, Operand, Rhs, Transform, Transformer, Value, ValueKind, ValueList, Word,
};
pub use word_set::WordSet;
