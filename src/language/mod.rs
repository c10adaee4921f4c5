//! Falco's condition and output language: lexer, parser, tree, printer, checker. Pure.

/// What a Falco installation offers to rules: fields, sources, macros, lists and the names of its own rules.
#[derive(Clone, Debug, Default)]
pub struct Catalog {}
