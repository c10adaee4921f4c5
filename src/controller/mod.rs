//! The controller: watches, an index fed by them, a queue of namespaces, and an executor that carries out what
//! [`crate::machine`] decides.

pub mod metrics;
