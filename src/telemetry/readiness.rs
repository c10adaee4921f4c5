//! Readiness as handles: who must be ready holds one, and the probe reads them all.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What a process waits for before it is ready. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// Why each gate is not ready; `None` where it is.
    gates: Arc<RwLock<BTreeMap<&'static str, Option<String>>>>,
}

/// One of the things that a process waits for. Clones share their state.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Adds something to wait for; it is not ready until it says so.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { name, readiness: self.clone() };
        gate.not_ready("has not started");
        gate
    }

    /// What is not ready, as `name: why`; empty when all is.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter_map(|(name, why)| why.as_ref().map(|why| format!("{name}: {why}"))).collect()
    }

    fn set(&self, name: &'static str, why: Option<String>) {
        self.gates.write().unwrap_or_else(PoisonError::into_inner).insert(name, why);
    }
}

impl Gate {
    /// From now on this one is ready.
    pub fn ready(&self) {
        self.readiness.set(self.name, None);
    }

    /// From now on this one is not ready, and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.readiness.set(self.name, Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_gate_is() {
        let readiness = Readiness::default();
        assert!(readiness.missing().is_empty());
        let (caches, report) = (readiness.gate("caches"), readiness.gate("report"));
        caches.ready();
        assert_eq!(readiness.missing(), ["report: has not started"]);
        report.ready();
        assert!(readiness.missing().is_empty());
        caches.clone().not_ready("shutting down");
        assert_eq!(readiness.missing(), ["caches: shutting down"]);
    }
}
