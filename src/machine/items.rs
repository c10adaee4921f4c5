//! What becomes of a rule, a macro or a list, for the one who wrote it.

use k8s_openapi::jiff::Timestamp;

use super::{
    Decision, Desired, Facts, Refresh,
    conditions::{Outlook, nobody},
    rollout::short,
    status::{says_more, with_conditions},
    tally::names,
};
use crate::{
    api::{AuthoredStatus, BundleFile, BundleItem, ItemPhase, Phase, Reason},
    render::ItemVerdict,
};

/// An item, as its status needs to know it.
#[derive(Clone, Debug)]
pub struct ItemFacts<'a> {
    /// What kind of item.
    pub kind: ItemKind,
    /// The name of the object.
    pub name: &'a str,
    /// The generation of the object.
    pub generation: Option<i64>,
    /// The status that was written last.
    pub status: Option<&'a AuthoredStatus>,
    /// What rendering made of it.
    pub verdict: &'a ItemVerdict,
    /// Its text in the desired file, where that holds it as it is written: [`crate::render::Rendered::written`].
    pub written: Option<&'a str>,
}

/// The kinds of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A rule, which nodes load.
    Rule,
    /// A macro or a list, which rules use.
    Part,
}

/// The status that an item should have, and how soon it is to be written: not at all where it has it already.
#[must_use]
pub fn item_status(
    item: &ItemFacts<'_>,
    facts: &Facts<'_>,
    decision: &Decision,
    now: Timestamp,
) -> (AuthoredStatus, Refresh) {
    let next = match item.kind {
        ItemKind::Rule => Rule::new(item, facts, decision).status(),
        ItemKind::Part => part(item),
    };
    let old = item.status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let conditions = with_conditions(old, next.outlook.conditions(item.generation), now);
    let message = Some(next.outlook.message).filter(|message| !message.is_empty() && message != LOADED);
    let status = AuthoredStatus {
        observed_generation: item.generation,
        phase: Some(next.phase),
        message,
        conditions,
        ..next.status
    };
    let refresh = difference(item.status, &status);
    (status, refresh)
}

/// What the condition of a rule says about which there is nothing to say.
const LOADED: &str = "The nodes have loaded the rule.";

/// How soon the difference to what is stored is to be shown.
fn difference(was: Option<&AuthoredStatus>, next: &AuthoredStatus) -> Refresh {
    let Some(was) = was else { return Refresh::Now };
    if was == next {
        Refresh::None
    } else if was.observed_generation != next.observed_generation
        || was.phase != next.phase
        || was.rule_name != next.rule_name
        || was.generation_in_force != next.generation_in_force
        || was.message != next.message
        || says_more(&was.conditions, &next.conditions)
    {
        Refresh::Now
    } else if next.phase == Some(ItemPhase::RollingOut) {
        Refresh::Soon
    } else {
        // Node numbers, and the hash of a file that changed around the item.
        Refresh::Lazy
    }
}

/// A status in the making: what the conditions and the message come from, and the rest.
struct Next {
    phase: ItemPhase,
    outlook: Outlook,
    status: AuthoredStatus,
}

/// A macro or a list: it is valid or it is not.
fn part(item: &ItemFacts<'_>) -> Next {
    let message = item.verdict.message.clone().unwrap_or_default();
    let (phase, outlook) = match item.verdict.rejected {
        Some(reason) => (ItemPhase::Rejected, Outlook::stalled(reason, message)),
        None => (ItemPhase::Active, Outlook::ready(Reason::Valid, message)),
    };
    Next { phase, outlook, status: AuthoredStatus::default() }
}

/// A rule among the files of its namespace.
struct Rule<'f, 'a> {
    item: &'f ItemFacts<'f>,
    facts: &'f Facts<'a>,
    decision: &'f Decision,
    /// The file that nodes are to load.
    target: Option<&'f BundleFile>,
    /// The file that is settled: the last good one, while something is under way.
    settled: Option<&'f BundleFile>,
    /// The nodes that count whose loaded file does not hold the rule as it is written.
    without: Vec<&'f str>,
    /// How many nodes have it loaded.
    loaded: i32,
}

impl<'f, 'a> Rule<'f, 'a> {
    fn new(item: &'f ItemFacts<'f>, facts: &'f Facts<'a>, decision: &'f Decision) -> Self {
        let ours = |uid: &str| facts.namespace_uid == Some(uid);
        let bundle = decision.bundle(facts).filter(|bundle| ours(&bundle.namespace_uid));
        let target = bundle.and_then(|bundle| bundle.target.as_ref());
        let settled = bundle.and_then(|bundle| bundle.settled());
        let before = facts.bundle.filter(|bundle| ours(&bundle.namespace_uid));
        let desired = match facts.desired {
            Desired::File(file) => Some(file),
            _ => None,
        };
        let files: Vec<(&str, bool)> = [
            target,
            settled,
            before.and_then(|bundle| bundle.target.as_ref()),
            before.and_then(|bundle| bundle.settled()),
            desired,
        ]
        .into_iter()
        .flatten()
        .map(|file| (file.hash.as_str(), holds(item, Some(file))))
        .collect();
        let has = |hash: Option<&str>| files.iter().any(|(known, holds)| *holds && hash == Some(*known));
        let nodes = &facts.nodes.nodes;
        let without: Vec<_> = nodes.iter().filter(|node| !has(node.loaded)).map(|node| node.node).collect();
        let loaded = (nodes.len() - without.len()) as i32;
        Self { item, facts, decision, target, settled, without, loaded: loaded.min(facts.nodes.desired) }
    }

    fn status(&self) -> Next {
        let verdict = self.item.verdict;
        let (phase, outlook) = match verdict.rejected {
            Some(reason) => {
                let mut message = verdict.message.clone().unwrap_or_default();
                if verdict.generation_in_force.is_some() {
                    message.push_str(" (the version before stays in force)");
                }
                (ItemPhase::Rejected, Outlook::stalled(reason, message))
            }
            None => self.accepted(),
        };
        let in_force = match verdict.rejected {
            Some(_) => verdict.generation_in_force,
            None => self.named(self.settled).map(|old| old.generation).filter(|_| !holds(self.item, self.settled)),
        };
        let desired = self.facts.nodes.desired;
        let status = AuthoredStatus {
            rule_name: verdict.rule_name.clone(),
            hash: self.target.filter(|file| self.named(Some(file)).is_some()).map(|file| short(&file.hash).to_owned()),
            loaded: Some(format!("{}/{desired}", self.loaded)),
            loaded_nodes: Some(self.loaded),
            desired_nodes: Some(desired),
            generation_in_force: in_force.filter(|generation| Some(*generation) != self.item.generation),
            ..AuthoredStatus::default()
        };
        Next { phase, outlook, status }
    }

    /// The item of the rule's object in `file`, in whatever version.
    fn named(&self, file: Option<&'f BundleFile>) -> Option<&'f BundleItem> {
        file.and_then(|file| file.items.iter().find(|item| item.name == self.item.name))
    }

    /// A rule that is valid: where it is on its way.
    fn accepted(&self) -> (ItemPhase, Outlook) {
        let status = &self.decision.status;
        let said = status.message.as_deref().unwrap_or_default();
        let warning = self.item.verdict.message.clone().unwrap_or_else(|| LOADED.to_owned());
        let phase = status.phase;
        if !holds(self.item, self.target) {
            let tried = status.rejected_hash.is_some() && status.desired_hash == status.rejected_hash;
            return match phase {
                Phase::RollingBack | Phase::RolledBack if tried => {
                    let stalled = Outlook::stalled(self.decision.reason, said);
                    let under_way = phase == Phase::RollingBack;
                    (ItemPhase::RolledBack, Outlook { reconciling: under_way, stalled: !under_way, ..stalled })
                }
                _ if self.decision.reason == Reason::TooLarge => {
                    (ItemPhase::Pending, Outlook::stalled(Reason::TooLarge, said))
                }
                _ if self.decision.reason == Reason::Paused => {
                    (ItemPhase::Pending, Outlook::under_way(Reason::Paused, said))
                }
                Phase::Withdrawing => (ItemPhase::Pending, Outlook::under_way(Reason::Withdrawing, said)),
                Phase::Rendering if !said.is_empty() => (ItemPhase::Pending, Outlook::under_way(Reason::Pending, said)),
                _ => (ItemPhase::Pending, Outlook::under_way(Reason::Pending, "The rule waits to be rolled out.")),
            };
        }
        if let Some(why) = &self.item.verdict.not_running {
            return (ItemPhase::Inactive, Outlook::stalled(Reason::NotRunning, why.as_str()));
        }
        let settled = holds(self.item, self.settled);
        let unknown = nobody(&self.facts.nodes);
        let without = || names(self.without.iter().copied());
        let (item_phase, outlook) = match phase {
            // A rule whose own text did not change stays as it is while its neighbours roll out.
            _ if settled && phase != Phase::Degraded => (ItemPhase::Active, Outlook::ready(Reason::Loaded, warning)),
            Phase::Degraded if self.lost().is_empty() => (ItemPhase::Active, Outlook::ready(Reason::Loaded, warning)),
            Phase::Degraded => {
                let message = format!("The rule is not loaded on {}. {}", names(self.lost()), self.failure());
                (ItemPhase::Degraded, Outlook::under_way(Reason::Degraded, message.trim_end()))
            }
            _ if self.decision.reason == Reason::NowhereLoaded => {
                (ItemPhase::RollingOut, Outlook::stalled(Reason::NowhereLoaded, said))
            }
            _ if self.decision.reason == Reason::Paused => {
                (ItemPhase::RollingOut, Outlook::under_way(Reason::Paused, format!("Paused before {}.", without())))
            }
            _ => (ItemPhase::RollingOut, Outlook::under_way(Reason::RollingOut, "Nodes are loading the rule.")),
        };
        match unknown {
            Some((reason, message)) => {
                let reconciling = item_phase == ItemPhase::RollingOut;
                (item_phase, Outlook { reconciling, ..Outlook::unknown(reason, message) })
            }
            None => (item_phase, outlook),
        }
    }

    /// The available nodes that do not have the rule loaded.
    fn lost(&self) -> Vec<&'f str> {
        let live = |name: &str| self.facts.nodes.nodes.iter().any(|node| node.live && node.node == name);
        self.without.iter().copied().filter(|name| live(name)).collect()
    }

    /// What one of the failing nodes says.
    fn failure(&self) -> String {
        self.decision.status.failing.iter().find_map(|failing| failing.message.clone()).unwrap_or_default()
    }
}

/// Whether `file` holds the rule as it is written.
fn holds(item: &ItemFacts<'_>, file: Option<&BundleFile>) -> bool {
    let Some(text) = item.written else { return false };
    file.is_some_and(|file| file.items.iter().any(|known| known.name == item.name && known.text == text))
}
