//! What works at a developer's desk and in CI, with no cluster.

pub mod convert;
pub mod explain;
mod finding;
mod input;
pub mod lint;
mod manifest;
mod marked;
mod namespace;
mod place;
mod plain;
mod plain_check;
pub mod render;
mod schema;
mod setting;
#[cfg(test)]
mod verdicts;
