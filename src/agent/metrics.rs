//! What the agent tells about itself and its Falco.

use std::time::Duration;

use super::engine::{Observer, ReloadOutcome};
use crate::telemetry::metrics::{LATENCIES, metrics};

const RELOADS: &[&str] = &["confirmed", "assumed", "swapped_back"];
const WRITES: &[&str] = &["written", "conflict", "forbidden", "not_found", "timeout", "failed"];

metrics! {
    /// What the agent tells about itself and its Falco.
    pub struct AgentMetrics = "falco_operator_agent_";
    /// Whether Falco runs and answers.
    gauge falco_up {}
    /// Starts of Falco after an end that nobody asked for.
    counter falco_restarts_total {}
    /// Whether it is proved what Falco runs.
    gauge proved {}
    /// Attempts to bring a new set of rules files into force.
    counter reloads_total { outcome in RELOADS.iter().copied() }
    /// How long such an attempt took, from the swap to its end.
    histogram reload_seconds {} LATENCIES
    /// How long Falco was not there to see anything, as far as this agent can tell.
    seconds blind_seconds_total {}
    /// Checks of a set by Falco.
    counter checks_total { outcome in ["passed", "failed"].iter().copied() }
    /// How long such a check took.
    histogram check_seconds {} LATENCIES
    /// Namespaces whose rules file this node is to load.
    gauge namespaces {}
    /// Namespaces whose rules file Falco is proved to run.
    gauge namespaces_loaded {}
    /// Namespaces whose newest rules file was tried in vain.
    gauge namespaces_in_trouble {}
    /// Rules files that are kept for a while although their bundle is gone without having been emptied.
    gauge kept_without_bundle {}
    /// Writes of this node's report.
    counter report_writes_total { outcome in WRITES.iter().copied() }
    /// How often the report was found gone, or other than it was written.
    counter report_drifts_total {}
    /// Watches of the bundles that broke off with an error and were begun again.
    counter watch_restarts_total {}
}

impl Observer for AgentMetrics {
    fn reloaded(&self, outcome: ReloadOutcome, took: Duration) {
        let outcome = match outcome {
            ReloadOutcome::Confirmed => "confirmed",
            ReloadOutcome::Assumed => "assumed",
            ReloadOutcome::SwappedBack => "swapped_back",
        };
        self.reloads_total.with_label_values(&[outcome]).inc();
        self.reload_seconds.observe(took.as_secs_f64());
    }

    fn checked(&self, passed: bool, took: Duration) {
        self.checks_total.with_label_values(&[if passed { "passed" } else { "failed" }]).inc();
        self.check_seconds.observe(took.as_secs_f64());
    }

    fn falco_restarted(&self) {
        self.falco_restarts_total.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_prometheus_wants_it() {
        assert_eq!(crate::telemetry::metrics::tests::lint(&AgentMetrics::table()), Vec::<String>::new());
    }

    #[test]
    fn what_the_engine_tells_is_counted_under_labels_of_the_table() {
        let registry = prometheus::Registry::new();
        let metrics = AgentMetrics::register(&registry).unwrap();
        let series = || -> usize { registry.gather().iter().map(|family| family.get_metric().len()).sum() };
        let before = series();
        for outcome in [ReloadOutcome::Confirmed, ReloadOutcome::Assumed, ReloadOutcome::SwappedBack] {
            metrics.reloaded(outcome, Duration::from_millis(5));
        }
        metrics.checked(true, Duration::ZERO);
        metrics.checked(false, Duration::ZERO);
        metrics.falco_restarted();
        assert_eq!(series(), before);
        assert_eq!(metrics.reload_seconds.get_sample_count(), 3);
        assert_eq!(metrics.falco_restarts_total.get(), 1);
    }
}
