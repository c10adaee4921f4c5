//! What works at a developer's desk and in CI, with no cluster.

pub mod convert;
mod finding;
mod input;
pub mod lint;
mod manifest;
mod marked;
mod namespace;
mod plain;
pub mod render;
mod schema;
mod setting;
