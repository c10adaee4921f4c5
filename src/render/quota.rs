//! What a namespace may have in all.

use super::judge::Cost;
use super::{Candidate, Settings, text};
use crate::language::{Code, Diagnostic, Part, Span};

/// Rejects what is over a quota: first comes what is in force, then the older object, then the name.
pub(super) fn apply(candidates: &mut [Candidate<'_>], settings: &Settings) {
    let quotas = [
        ("rules", settings.rules),
        ("bytes in its rules file", settings.bytes),
        ("checks and values in its conditions", settings.tree_nodes),
        ("rules that look at every event", settings.broad_rules),
    ];
    if quotas.iter().all(|(_, quota)| quota.is_none()) {
        return;
    }
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&index| {
        candidates.get(index).map(|candidate| (candidate.in_force.is_none(), text::age(&candidate.object.metadata)))
    });
    let mut used = [0; 4];
    for index in order {
        let Some(candidate) = candidates.get_mut(index) else { continue };
        let Some(cost) = candidate.cost() else { continue };
        let next = sum(used, cost);
        let over = quotas.iter().zip(used.iter().zip(next)).find_map(|((what, quota), (used, next))| {
            quota.filter(|quota| next > *used && next > *quota).map(|q| (what, q, next))
        });
        let Some((what, quota, next)) = over else {
            used = next;
            continue;
        };
        candidate.in_force = None;
        if candidate.accepted {
            candidate.accepted = false;
            let message = format!("with it the namespace would have {next} {what}, and its quota is {quota}");
            candidate.judged.findings.push(
                Diagnostic::policy(Code::Quota, Span::default(), message)
                    .within(Part::Whole)
                    .help("delete rules that are not needed, or ask the administrator for more"),
            );
        }
    }
}

/// What is used of each quota once this is added.
fn sum(used: [usize; 4], cost: Cost) -> [usize; 4] {
    let [rules, bytes, nodes, broad] = used;
    [rules + 1, bytes + cost.bytes, nodes + cost.nodes, broad + usize::from(cost.broad)]
}
