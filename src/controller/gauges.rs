//! How many there are of what.

use std::collections::BTreeMap;

use super::index::Index;
use super::metrics::{ControllerMetrics, ITEM_PHASES, item_phase_name};
use crate::api::{ItemPhase, Phase, Reason};
use crate::machine::{Away, Standing};

/// Sets the gauges that count what the index holds.
pub(super) fn count(index: &Index, metrics: &ControllerMetrics) {
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
    for (kind, count) in index.undecodable() {
        metrics.undecodable_objects.with_label_values(&[kind]).set(count as i64);
    }
}
