//! falco-operator: Falco rules owned by the developers whose workloads they watch.
//!
//! Pure decisions (`api`, `language`, `render`, `machine`), thin shells (`controller`, `agent`, `webhook`); arrows go
//! one way, see `docs/architecture.md`.

mod macros;

pub mod agent;
pub mod api;
pub mod cli;
pub mod controller;
pub mod language;
pub mod machine;
pub mod render;
pub mod telemetry;
pub mod webhook;
