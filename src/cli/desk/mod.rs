//! What works at a developer's desk and in CI, with no cluster.

mod finding;
mod input;
mod manifest;
mod marked;
pub mod render;
mod schema;
mod setting;
