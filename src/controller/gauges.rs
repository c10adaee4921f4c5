//! How many there are of what.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Index, Space};
use super::metrics::{AWAY, ControllerMetrics, FAULTS, ITEM_PHASES, item_phase_name};
use crate::api::{ItemPhase, Phase, Reason};
use crate::machine::{Away, Standing};
use crate::telemetry::metrics::show;

/// Of so many catalogues it is told how many nodes name them.
const CATALOGS: usize = 20;

/// Sets the gauges that count what the index holds; those by namespace for so many namespaces.
pub(super) fn count(index: &Index, metrics: &ControllerMetrics, most_namespaces: usize) {
    let mut phases: BTreeMap<&str, i64> = Phase::ALL.iter().map(|phase| (phase.name(), 0)).collect();
    let mut rules: BTreeMap<&str, i64> = ITEM_PHASES.iter().map(|phase| (item_phase_name(*phase), 0)).collect();
    let mut reasons: BTreeMap<&str, i64> = Reason::ALL.iter().map(|reason| (reason.name(), 0)).collect();
    for (namespace, space) in &index.spaces {
        if let Some(status) = space.rules_files.get(namespace).and_then(|file| file.status.as_ref())
            && let Some(count) = phases.get_mut(status.phase.name())
        {
            *count += 1;
        }
        for item in space.rules.values() {
            let status = item.object.status.as_ref();
            let phase = status.and_then(|status| status.phase).unwrap_or(ItemPhase::Pending);
            if let Some(count) = rules.get_mut(item_phase_name(phase)) {
                *count += 1;
            }
        }
        let statuses = space.rules.values().map(|item| item.object.status.as_ref());
        let statuses = statuses.chain(space.macros.values().map(|item| item.object.status.as_ref()));
        let statuses = statuses.chain(space.lists.values().map(|item| item.object.status.as_ref()));
        for condition in statuses.flatten().flat_map(|status| &status.conditions) {
            if condition.type_ == "Ready"
                && condition.status != "True"
                && let Some(count) = reasons.get_mut(condition.reason.as_str())
            {
                *count += 1;
            }
        }
    }
    for (phase, count) in phases {
        metrics.namespaces.with_label_values(&[phase]).set(count);
    }
    for (phase, count) in rules {
        metrics.rules.with_label_values(&[phase]).set(count);
    }
    for (reason, count) in reasons {
        metrics.items_not_ready.with_label_values(&[reason]).set(count);
    }
    let standing = |wanted: &dyn Fn(Standing) -> bool| {
        index.nodes.standings().filter(|(_, standing)| wanted(*standing)).count() as i64
    };
    let unproved = |standing| matches!(standing, Standing::Away(Away::Unproved, _));
    let nodes = &metrics.nodes;
    nodes.with_label_values(&["desired"]).set(i64::from(index.nodes.desired()));
    nodes.with_label_values(&["available"]).set(standing(&|it| it == Standing::Available));
    nodes.with_label_values(&["unproved"]).set(standing(&unproved));
    metrics.catalogs.set(index.in_use.len() as i64);
    let mut named: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    for catalog in index.offers.values() {
        *named.entry(vec![catalog.clone()]).or_default() += 1;
    }
    show(&metrics.catalog_nodes, &named.into_iter().take(CATALOGS).collect());
    for away in AWAY {
        let count = standing(&|standing| matches!(standing, Standing::Away(why, _) if why == *away));
        metrics.nodes_away.with_label_values(&[away.name()]).set(count);
    }
    for (fault, name) in FAULTS {
        let count = index.nodes.faults().filter(|it| it == fault).count();
        metrics.node_refusals.with_label_values(&[name]).set(count as i64);
    }
    let told = index.spaces.iter().filter(|(_, space)| space.has_items() || !space.rules_files.is_empty());
    by_namespace(told.take(most_namespaces), metrics);
    for (kind, count) in index.undecodable() {
        metrics.undecodable_objects.with_label_values(&[kind]).set(count as i64);
    }
}

fn by_namespace<'a>(spaces: impl Iterator<Item = (&'a String, &'a Space)>, metrics: &ControllerMetrics) {
    let (mut phases, mut rules, mut nodes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (namespace, space) in spaces {
        let key = |word: &str| vec![namespace.clone(), word.to_owned()];
        if let Some(status) = space.rules_files.get(namespace).and_then(|file| file.status.as_ref()) {
            phases.insert(key(status.phase.name()), 1);
            let counts = status.nodes.unwrap_or_default();
            let states = [
                ("desired", counts.desired),
                ("available", counts.available),
                ("loaded", counts.loaded),
                ("unproved", counts.unproved),
                ("failed", counts.failed),
            ];
            nodes.extend(states.map(|(state, count)| (key(state), i64::from(count))));
        }
        for item in space.rules.values() {
            let phase = item.object.status.as_ref().and_then(|status| status.phase).unwrap_or(ItemPhase::Pending);
            *rules.entry(key(item_phase_name(phase))).or_default() += 1;
        }
    }
    show(&metrics.namespace_phase, &phases);
    show(&metrics.namespace_rules, &rules);
    show(&metrics.namespace_nodes, &nodes);
}

/// The nodes whose report was found to contradict itself.
pub(super) fn drifted(index: &Index) -> BTreeSet<String> {
    let drifted = |standing| matches!(standing, Standing::Away(Away::Drifted, _));
    index.nodes.standings().filter(|(_, standing)| drifted(*standing)).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use prometheus::core::Collector;
    use prometheus::proto::{Metric, MetricFamily};
    use prometheus::{IntGaugeVec, Registry};

    use super::*;
    use crate::api::{FalcoRule, FalcoRulesFile, FalcoRulesFileSpec, FalcoRulesFileStatus};
    use crate::controller::index::Kept;
    use crate::controller::watch::{Change, Seen};
    use crate::machine::Nodes;

    /// The namespaces that a gauge has series of.
    fn told(gauge: &IntGaugeVec) -> BTreeSet<String> {
        let families = gauge.collect();
        let labels = families.iter().flat_map(MetricFamily::get_metric).flat_map(Metric::get_label);
        labels.filter(|label| label.name() == "namespace").map(|label| label.value().to_owned()).collect()
    }

    #[test]
    fn namespaces_beyond_the_bound_have_no_series_of_their_own() {
        let mut index = Index::new(Nodes::new(false), BTreeSet::new(), false);
        for namespace in ["b", "a", "c"] {
            let mut rule = FalcoRule::new("one", FalcoRule::empty().spec);
            rule.metadata.namespace = Some(namespace.into());
            index.take(Change::Rule(Seen::Applied(DeserializeGuard(Ok(rule)))));
            let mut file = FalcoRulesFile::new(namespace, FalcoRulesFileSpec::default());
            file.metadata.namespace = Some(namespace.into());
            file.status = Some(FalcoRulesFileStatus::default());
            index.take(Change::RulesFile(Seen::Applied(DeserializeGuard(Ok(file)))));
        }
        let metrics = ControllerMetrics::register(&Registry::new()).unwrap();
        // Fewer each time: what was told before goes.
        for (most, namespaces) in [(3, &["a", "b", "c"] as &[&str]), (1, &["a"]), (0, &[])] {
            count(&index, &metrics, most);
            for gauge in [&metrics.namespace_phase, &metrics.namespace_rules, &metrics.namespace_nodes] {
                assert_eq!(told(gauge).iter().collect::<Vec<_>>(), namespaces, "{most}");
            }
            assert_eq!(metrics.rules.with_label_values(&["Pending"]).get(), 3, "the sums are of all");
        }
    }
}
