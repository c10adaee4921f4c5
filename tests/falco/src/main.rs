//! Stands in for Falco.

fn main() {}
