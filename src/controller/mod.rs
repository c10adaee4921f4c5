//! The controller: watches, an index fed by them, a queue of namespaces, and an executor that carries out what
//! [`crate::machine`] decides.
//!
//! One task owns the index and decides; writes are made by tasks of their own, one at a time for a namespace. A follower
//! does the same but for deciding, so that its caches are warm when it becomes the leader.

mod client;
mod execute;
mod gauges;
mod index;
mod lease;
pub mod metrics;
mod plan;
mod queue;
mod reader;
mod release;
mod run;
mod watch;

pub use client::client;
pub use execute::MANAGER;
pub use plan::Policies;
pub use reader::{Questions, Reader};
pub use release::{is_defined, release};
pub use run::{Options, run};
pub use watch::Watched;
