//! The commands for a developer's desk, as the processes that people run.

mod convert;
mod lint;
mod render;
mod support;
