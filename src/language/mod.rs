//! Falco's condition and output language: lexer, parser, tree, printer, checker. Pure.
