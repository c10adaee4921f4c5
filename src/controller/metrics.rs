//! What the controller tells about itself.

use crate::api::{Fault, ItemPhase, Phase, Reason};
use crate::machine::Away;
use crate::telemetry::metrics::{LATENCIES, metrics};

/// The kinds that the controller writes.
pub const WRITTEN: &[&str] =
    &["FalcoRule", "FalcoMacro", "FalcoList", "FalcoRulesFile", "FalcoBundle", "FalcoCatalog", "Event", "Lease"];
/// The kinds that the controller watches.
pub const WATCHED: &[&str] = &[
    "FalcoRule",
    "FalcoMacro",
    "FalcoList",
    "FalcoRulesFile",
    "FalcoBundle",
    "FalcoNode",
    "FalcoCatalog",
    "Namespace",
    "Pod",
    "DaemonSet",
    "CustomResourceDefinition",
];
const VERBS: &[&str] = &["create", "update", "patch", "delete"];
const OUTCOMES: &[&str] = &["written", "conflict", "forbidden", "not_found", "timeout", "failed"];
/// The states in which a rule is counted, in words for a label.
pub const ITEM_PHASES: &[ItemPhase] = &[
    ItemPhase::Pending,
    ItemPhase::RollingOut,
    ItemPhase::Active,
    ItemPhase::Degraded,
    ItemPhase::Rejected,
    ItemPhase::RolledBack,
    ItemPhase::Inactive,
];

/// The word for an item's phase, as the API writes it.
#[must_use]
pub const fn item_phase_name(phase: ItemPhase) -> &'static str {
    match phase {
        ItemPhase::Pending => "Pending",
        ItemPhase::RollingOut => "RollingOut",
        ItemPhase::Active => "Active",
        ItemPhase::Degraded => "Degraded",
        ItemPhase::Rejected => "Rejected",
        ItemPhase::RolledBack => "RolledBack",
        ItemPhase::Inactive => "Inactive",
        ItemPhase::Unknown => "Unknown",
    }
}

/// Why nodes are not available.
pub const AWAY: &[Away] = &[
    Away::NoAgent,
    Away::NotReady,
    Away::NoReport,
    Away::OldReport,
    Away::Incomplete,
    Away::Faulty,
    Away::Unproved,
    Away::Drifted,
];
/// Whose fault it is that a node does not load a file.
pub const FAULTS: &[(Fault, &str)] = &[
    (Fault::Refused, "Refused"),
    (Fault::NodeFault, "NodeFault"),
    (Fault::BaseChanged, "BaseChanged"),
    (Fault::NameTaken, "NameTaken"),
];

metrics! {
    /// What the controller tells about itself.
    pub struct ControllerMetrics = "falco_operator_controller_";
    /// Whether this process holds the lease and writes.
    gauge leader {}
    /// Namespaces by the phase of their rules file.
    gauge namespaces { phase in Phase::ALL.iter().map(|phase| phase.name()) }
    /// Rules by what has become of them.
    gauge rules { phase in ITEM_PHASES.iter().map(|phase| item_phase_name(*phase)) }
    /// Rules, macros and lists that are not ready, by the reason of their Ready condition.
    gauge items_not_ready { reason in Reason::ALL.iter().map(|reason| reason.name()) }
    /// Nodes: those that should run Falco with our files, those that have proved what they run, those that report without a proof.
    gauge nodes { state in ["desired", "available", "unproved"].iter().copied() }
    /// Nodes that are not available, by the reason.
    gauge nodes_away { reason in AWAY.iter().map(|away| away.name()) }
    /// Files of namespaces that nodes could not load, counted once for each node, by whose fault it is.
    gauge node_refusals { fault in FAULTS.iter().map(|(_, name)| *name) }
    /// Catalogues that live nodes name; more than one means that Falco installations differ.
    gauge catalogs {}
    /// Nodes by the catalogue that they name; for twenty catalogues at most.
    gauge catalog_nodes { catalog }
    /// Always 1, by namespace and the phase of its rules file; for a bounded number of namespaces, as the two below.
    gauge namespace_phase { namespace, phase in Phase::ALL.iter().map(|phase| phase.name()) }
    /// Rules of a namespace by what has become of them.
    gauge namespace_rules { namespace, phase in ITEM_PHASES.iter().map(|phase| item_phase_name(*phase)) }
    /// Nodes by what they do with the rules file of a namespace.
    gauge namespace_nodes { namespace, state in ["desired", "available", "loaded", "unproved", "failed"].iter().copied() }
    /// Times that something was found to be other than it was left: a node's report by itself, or a namespace's file on a node that had it.
    counter drifts_total { of in ["node", "namespace"].iter().copied() }
    /// Rollouts that began.
    counter rollouts_total {}
    /// Rollouts that were rolled back, by the reason.
    counter rollbacks_total { reason in ["Refused", "NowhereLoaded"].iter().copied() }
    /// From the newest edit of a namespace, by the object's own timestamp, which has whole seconds, to the proof that every available node has loaded it.
    histogram apply_to_loaded_seconds {} LATENCIES
    /// The same from the event by which this process learned of the first edit.
    histogram seen_to_loaded_seconds {} LATENCIES
    /// From the event of the watch to the bundle written for it.
    histogram event_to_bundle_seconds {} LATENCIES
    /// How long deciding for one namespace took, rendering included.
    histogram decision_seconds {} LATENCIES
    /// Namespaces that wait to be decided for.
    gauge queue_depth {}
    /// How long the namespace that waits longest has waited.
    ratio queue_age_seconds {}
    /// Writes to the API server.
    counter api_writes_total { kind in WRITTEN.iter().copied(), verb in VERBS.iter().copied(), outcome in OUTCOMES.iter().copied() }
    /// Watches that broke off with an error and were begun again.
    counter watch_restarts_total { kind in WATCHED.iter().copied() }
    /// Objects that could not be decoded and are ignored until they can.
    gauge undecodable_objects { kind in WATCHED.iter().copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_prometheus_wants_it() {
        assert_eq!(crate::telemetry::metrics::tests::lint(&ControllerMetrics::table()), Vec::<String>::new());
    }

    #[test]
    fn names_of_item_phases_are_those_of_the_api() {
        for phase in ITEM_PHASES {
            assert_eq!(serde_json::to_value(phase).unwrap(), item_phase_name(*phase));
        }
    }
}
