//! What the processes tell about themselves: metrics, logs, probes.
//!
//! Each process declares its metrics as one table with the `metrics!` macro, registers them in a registry of its own,
//! and serves them with its probes by [`http::run`]. Nothing here knows what a rule is.

pub mod http;
pub mod logs;
pub mod metrics;
pub mod readiness;

pub use http::{Telemetry, run};
pub use metrics::{Family, FamilyKind, Label, registry};
pub use readiness::{Gate, Readiness};
