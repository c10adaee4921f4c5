//! What the agent tells about itself and its Falco.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::engine::tally::{Counters, Owner, Tally};
use super::engine::{Engine, Observer, ReloadOutcome};
use super::{Running, Wanted};
use crate::api::{FalcoState, Fault, NodeFaultReason, Proof};
use crate::telemetry::metrics::{LATENCIES, metrics, show};

const RELOADS: &[&str] = &["confirmed", "assumed", "swapped_back"];
/// For so many namespaces at most it is told that they are behind.
const BEHIND: usize = 100;
const FAULTS: &[(NodeFaultReason, &str)] = &[
    (NodeFaultReason::FalcoDown, "FalcoDown"),
    (NodeFaultReason::BaseRefused, "BaseRefused"),
    (NodeFaultReason::ConfigInvalid, "ConfigInvalid"),
    (NodeFaultReason::Storage, "Storage"),
    (NodeFaultReason::Unconfirmed, "Unconfirmed"),
];
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
    /// A fault of the node itself, because of which it loads nothing new.
    gauge node_fault { reason in FAULTS.iter().map(|(_, name)| *name) }
    /// Always 1; the labels say which Falco and which rules engine runs here.
    gauge falco_info { falco_version, engine_version }
    /// When Falco last loaded a set of rules files, by its own clock; 0 before the first.
    ratio last_reload_timestamp_seconds {}
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
    /// Always 1, for a namespace whose rules file here is not the wanted one, and why; for a hundred namespaces at most.
    gauge namespace_behind { namespace, why in ["Pending", "Refused", "NodeFault", "BaseChanged", "NameTaken"].iter().copied() }
    /// Rules of FalcoRules that Falco is proved to run.
    gauge rules_loaded {}
    /// Matches of the rule of a FalcoRule that is loaded here, carried on across loads of Falco; for a bounded number of rules.
    counter rule_matches_total { namespace, falcorule }
    /// Matches of all other rules: of FalcoRules beyond that number, and of rules that no FalcoRule makes.
    counter other_rule_matches_total { of in ["falcorules", "base"].iter().copied() }
    /// Events that the kernel gave to Falco.
    counter falco_events_total {}
    /// Events that were lost before Falco saw them.
    counter falco_events_dropped_total {}
    /// Alerts that were lost because an output of Falco was too slow.
    counter falco_outputs_dropped_total {}
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

impl AgentMetrics {
    /// Shows what Falco runs, and in what that differs from what is wanted.
    pub(super) fn show_running(&self, running: &Running, wanted: &Wanted) {
        self.falco_up.set(i64::from(running.falco == FalcoState::Running));
        self.proved.set(i64::from(matches!(running.proof, Proof::Metrics)));
        self.namespaces_loaded.set(running.loaded.len() as i64);
        self.namespaces_in_trouble.set(running.trouble.len() as i64);
        let fault = running.fault.as_ref().map(|fault| fault.reason);
        for (reason, name) in FAULTS {
            self.node_fault.with_label_values(&[name]).set(i64::from(fault == Some(*reason)));
        }
        let word = |version: &Option<String>| version.clone().unwrap_or_default();
        let versions = vec![word(&running.falco_version), word(&running.engine_version)];
        show(&self.falco_info, &running.falco_version.iter().map(|_| (versions.clone(), 1)).collect());
        let reload = running.last_reload.map_or(0, k8s_openapi::jiff::Timestamp::as_millisecond);
        self.last_reload_timestamp_seconds.set(reload as f64 / 1000.0);
        let behind = behind(running, wanted).into_iter().take(BEHIND);
        show(&self.namespace_behind, &behind.map(|(namespace, why)| (vec![namespace.into(), why.into()], 1)).collect());
    }

    /// Shows what Falco has counted. `shown` holds the rules whose counters are there.
    fn show_counts(&self, tally: &Tally, shown: &mut BTreeSet<Owner>) {
        let grow = |counter: &prometheus::IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        shown.retain(|rule| {
            let (namespace, name) = rule;
            let stays = tally.rules.contains_key(rule);
            if !stays {
                // It is there, or was never shown; either way it is gone then.
                let _ = self.rule_matches_total.remove_label_values(&[namespace, name]);
            }
            stays
        });
        for (rule, count) in &tally.rules {
            let (namespace, name) = rule;
            grow(&self.rule_matches_total.with_label_values(&[namespace, name]), *count);
            shown.insert(rule.clone());
        }
        grow(&self.other_rule_matches_total.with_label_values(&["falcorules"]), tally.others);
        grow(&self.other_rule_matches_total.with_label_values(&["base"]), tally.base);
        grow(&self.falco_events_total, tally.events);
        grow(&self.falco_events_dropped_total, tally.events_dropped);
        grow(&self.falco_outputs_dropped_total, tally.outputs_dropped);
        self.rules_loaded.set(tally.loaded() as i64);
    }
}

/// The namespaces whose file is not the wanted one, and why.
fn behind<'a>(running: &'a Running, wanted: &'a Wanted) -> BTreeMap<&'a str, &'static str> {
    let why = |namespace: &str| match running.trouble.get(namespace).map(|trouble| trouble.fault) {
        None | Some(Fault::Unknown) => "Pending",
        Some(Fault::Refused) => "Refused",
        Some(Fault::NodeFault) => "NodeFault",
        Some(Fault::BaseChanged) => "BaseChanged",
        Some(Fault::NameTaken) => "NameTaken",
    };
    let target = |namespace: &str| wanted.files.get(namespace).and_then(|file| file.target.as_ref());
    let names = wanted.files.keys().chain(running.loaded.keys()).filter(|_| wanted.synced);
    let behind = names.filter(|name| target(name).map(|file| &file.hash) != running.loaded.get(*name));
    behind.map(|name| (name.as_str(), why(name))).collect()
}

/// What is brought up to date before each scrape, once the engine runs. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Scrape(Arc<Source>);

#[derive(Debug, Default)]
struct Source {
    engine: OnceLock<(Counters, watch::Receiver<Option<SocketAddr>>)>,
    shown: Mutex<BTreeSet<Owner>>,
}

impl Scrape {
    /// From now on this engine's Falco is asked.
    pub(super) fn of(&self, engine: &Engine) {
        // A process has one engine; a second one would be told of by nobody.
        let _ = self.0.engine.set((engine.counters.clone(), engine.page.clone()));
    }

    /// Asks Falco what it has counted, and shows it.
    pub async fn refresh(&self, metrics: &AgentMetrics) {
        let Some((counters, page)) = self.0.engine.get() else { return };
        let page = *page.borrow();
        counters.ask(page).await;
        let mut shown = self.0.shown.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.show_counts(&counters.tally(), &mut shown);
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

    #[test]
    fn matches_are_shown_by_namespace_and_object_and_go_with_the_rule() {
        let metrics = AgentMetrics::register(&prometheus::Registry::new()).unwrap();
        let rule = |name: &str| ("team-a".to_owned(), name.to_owned());
        let mut tally = Tally::new(9);
        (tally.rules, tally.base) = (BTreeMap::from([(rule("a"), 3), (rule("b"), 0)]), 7);
        let mut shown = BTreeSet::new();
        metrics.show_counts(&tally, &mut shown);
        tally.rules.insert(rule("a"), 5);
        tally.rules.remove(&rule("b"));
        metrics.show_counts(&tally, &mut shown);
        assert_eq!(metrics.rule_matches_total.with_label_values(&["team-a", "a"]).get(), 5);
        assert_eq!(metrics.other_rule_matches_total.with_label_values(&["base"]).get(), 7);
        assert!(metrics.rule_matches_total.remove_label_values(&["team-a", "b"]).is_err(), "it is gone");
        assert_eq!(shown, BTreeSet::from([rule("a")]));
    }

    #[test]
    fn a_namespace_is_behind_whose_file_is_not_the_wanted_one() {
        let file =
            |hash: &str| super::super::RulesText { hash: hash.into(), text: String::new(), rules: BTreeMap::new() };
        let wants =
            |hash: Option<&str>| super::super::WantedFile { target: hash.map(file), last_good: None, since: None };
        let mut running = Running::default();
        for (namespace, hash) in [("same", "1"), ("refused", "1"), ("pending", "1"), ("dropped", "1"), ("unknown", "1")]
        {
            running.loaded.insert(namespace.into(), hash.into());
        }
        let trouble =
            super::super::Trouble { tried: "2".into(), fault: Fault::Refused, message: "no such field".into() };
        running.trouble.insert("refused".into(), trouble);
        let files = [
            ("same", Some("1")),
            ("refused", Some("2")),
            ("pending", Some("2")),
            ("new", Some("1")),
            ("dropped", None),
        ];
        let files = files.map(|(namespace, hash)| (namespace.to_owned(), wants(hash))).into_iter().collect();
        let mut wanted = Wanted { files, synced: false };
        assert_eq!(behind(&running, &wanted), BTreeMap::new(), "nobody knows yet what is wanted");
        wanted.synced = true;
        let expected = [
            ("dropped", "Pending"),
            ("new", "Pending"),
            ("pending", "Pending"),
            ("refused", "Refused"),
            ("unknown", "Pending"),
        ];
        assert_eq!(behind(&running, &wanted), BTreeMap::from(expected));
    }
}
