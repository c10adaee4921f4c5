//! The end of a decision: the status as it should be, what is to be written for it, and how soon.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime},
    jiff::Timestamp,
};

use super::{
    Action, Decision, Desired, NodeVerdict, Refresh,
    conditions::{self, Outlook},
    run::{Run, fault_with},
    tally::within,
};
use crate::api::{FailingNode, FalcoRulesFileSpec, FalcoRulesFileStatus, NONE, NodeCounts, Phase, set_condition};

/// How many nodes a status names.
const NAMED: usize = 10;

impl Run<'_> {
    /// The decision.
    pub fn finish(mut self) -> Decision {
        if self.wait {
            return self.untouched();
        }
        self.mark_rejected();
        let create = self.is_to_be_created();
        let outlook = self.outlook();
        let status = self.status(&outlook, create);
        let stays = create || self.stays();
        let changed = self.bundle.as_deref() != self.facts.bundle;
        let mut refresh = if stays { self.difference(&status) } else { Refresh::None };
        let mut actions = Vec::new();
        let held = self.facts.rules_file.as_ref().is_some_and(|file| file.finalizer);
        let needed = self.bundle.is_some() && !self.foreign;
        if create {
            actions.push(Action::CreateRulesFile { finalizer: needed });
        } else if needed && !held && self.facts.rules_file.as_ref().is_some_and(|file| !file.deleting) {
            actions.push(Action::AddFinalizer);
        }
        // What a decision rests on after a restart is written before the bundle.
        if stays && (self.essential(&status) || changed && refresh != Refresh::None) {
            actions.push(Action::WriteStatus);
            refresh = Refresh::None;
        }
        match (self.bundle, changed) {
            (Some(bundle), true) => actions.push(Action::WriteBundle(Box::new(bundle.into_owned()))),
            (None, true) => actions.push(Action::DeleteBundle),
            (_, false) => {}
        }
        if let Some(file) = self.facts.rules_file.as_ref().filter(|_| self.release) {
            if file.finalizer {
                actions.push(Action::RemoveFinalizer);
            }
            if !file.deleting && !self.facts.terminating && *file.spec == FalcoRulesFileSpec::default() {
                actions.push(Action::DeleteRulesFile);
            }
        }
        Decision { status, actions, refresh, look_again: self.look_again, events: self.notes, reason: outlook.reason }
    }

    /// Nothing is decided but, maybe, that the finalizer goes.
    fn untouched(self) -> Decision {
        let held = self.facts.rules_file.as_ref().is_some_and(|file| file.finalizer);
        let outlook = self.outlook();
        Decision {
            status: self.was.cloned().unwrap_or_default(),
            actions: if self.release && held { vec![Action::RemoveFinalizer] } else { vec![] },
            refresh: Refresh::None,
            look_again: None,
            events: vec![],
            reason: outlook.reason,
        }
    }

    /// The bundle repeats which file was rolled back, for a status that gets lost.
    fn mark_rejected(&mut self) {
        let rejected = self.rejection.as_ref().map(|rejection| rejection.hash.clone());
        if let Some(bundle) = self.bundle.as_mut().filter(|_| !self.foreign)
            && bundle.rejected_hash != rejected
        {
            bundle.to_mut().rejected_hash = rejected;
        }
    }

    fn is_to_be_created(&self) -> bool {
        self.facts.rules_file.is_none()
            && !self.nothing_left()
            && (self.bundle.is_some() || self.too_large || self.foreign)
    }

    /// Whether the `FalcoRulesFile` is there after this, so that its status is worth writing.
    fn stays(&self) -> bool {
        self.facts.rules_file.as_ref().is_some_and(|file| {
            let goes = file.deleting || self.facts.terminating || *file.spec == FalcoRulesFileSpec::default();
            !(self.release && goes)
        })
    }

    /// What there is to say about the namespace.
    fn outlook(&self) -> Outlook {
        let nodes = &self.facts.nodes.nodes;
        let target = self.target_hash();
        let (loaded, all) = (nodes.iter().filter(|node| node.loaded == Some(target)).count(), nodes.len());
        conditions::outlook(self, loaded, all)
    }

    /// The status as it should be.
    fn status(&self, outlook: &Outlook, create: bool) -> FalcoRulesFileStatus {
        let facts = self.facts;
        let was = self.was;
        // The first generation of an object is 1, whoever creates it.
        let generation = if create { Some(1) } else { facts.rules_file.as_ref().and_then(|file| file.generation) };
        let since = was.filter(|was| was.phase == self.phase).and_then(|was| was.phase_since.clone());
        let known = !matches!(facts.desired, Desired::Unknown);
        let ours = self.bundle.as_deref().filter(|_| !self.foreign);
        let target = ours.and_then(|bundle| bundle.target.as_ref()).map(|file| file.hash.clone());
        let settled = ours.map(|bundle| bundle.settled().map_or(NONE, |file| file.hash.as_str()).to_owned());
        let keeps_token = self.rejection.is_some() && self.retried();
        let token = self.spec().and_then(|spec| spec.retry_token.clone());
        let (pending, failing) = self.named();
        let counts = self.counts();
        let gone = self.phase == Phase::Empty || self.phase == Phase::Withdrawing;
        let old = was.map(|was| was.conditions.as_slice()).unwrap_or_default();
        let conditions = with_conditions(old, outlook.conditions(generation), self.now);
        FalcoRulesFileStatus {
            observed_generation: generation,
            phase: self.phase,
            phase_since: Some(since.unwrap_or(MicroTime(self.now))),
            desired_hash: match facts.desired {
                _ if gone => None,
                Desired::File(file) => Some(file.hash.clone()),
                Desired::TooLarge { .. } => None,
                Desired::Unknown => was.and_then(|was| was.desired_hash.clone()),
            },
            loaded: target.as_ref().map(|_| format!("{}/{}", counts.loaded, counts.desired)),
            target_hash: target,
            last_good_hash: settled,
            rejected_hash: self.rejection.as_ref().map(|rejection| rejection.hash.clone()),
            rejected_reason: self.rejection.as_ref().and_then(|rejection| rejection.message.clone()),
            retry_token: if keeps_token { was.and_then(|was| was.retry_token.clone()) } else { token },
            rules_accepted: if known || gone { Some(facts.accepted) } else { was.and_then(|was| was.rules_accepted) },
            rules_rejected: if known || gone { Some(facts.rejected) } else { was.and_then(|was| was.rules_rejected) },
            nodes: Some(counts),
            wave: self.wave,
            started_at: self.started_at.map(MicroTime),
            wave_started_at: self.wave_started_at.map(MicroTime),
            pending,
            failing,
            message: Some(outlook.message.clone()),
            conditions,
        }
    }

    /// The nodes, counted. A node that is about to leave counts as it last did, but not beyond those that should load.
    fn counts(&self) -> NodeCounts {
        let facts = &self.facts.nodes;
        let target = self.target().map(|file| file.hash.as_str());
        let count =
            |with: &dyn Fn(&NodeVerdict<'_>) -> bool| facts.nodes.iter().filter(|node| with(node)).count() as i32;
        NodeCounts {
            desired: facts.desired,
            available: (facts.nodes.len() as i32).min(facts.desired),
            loaded: count(&|node| target.is_some() && node.loaded == target).min(facts.desired),
            unproved: facts.unproved,
            failed: count(&|node| fault_with(node, self.target_hash()).is_some()),
        }
    }

    /// Some of the nodes that have yet to load the target, and of those that can't.
    fn named(&self) -> (Vec<String>, Vec<FailingNode>) {
        if matches!(self.phase, Phase::Empty | Phase::Rendering) {
            return (vec![], vec![]);
        }
        let target = self.target_hash();
        let waves = self.rollout().filter(|_| self.phase == Phase::RollingOut);
        let takes_part =
            |node: &&NodeVerdict<'_>| waves.is_none_or(|rollout| within(rollout, self.facts.namespace)(node));
        let (mut pending, mut failing) = (Vec::new(), Vec::new());
        for node in self.facts.nodes.nodes.iter().filter(|node| node.loaded != Some(target)).filter(takes_part) {
            match fault_with(node, target) {
                Some(fault) if failing.len() < NAMED => failing.push(FailingNode {
                    node: node.node.to_owned(),
                    fault,
                    message: node.message.map(str::to_owned),
                }),
                None if pending.len() < NAMED => pending.push(node.node.to_owned()),
                _ => {}
            }
        }
        (pending, failing)
    }

    /// Whether what a decision rests on after a restart differs from what is stored.
    fn essential(&self, next: &FalcoRulesFileStatus) -> bool {
        let Some(was) = self.was else { return true };
        let clocked = matches!(next.phase, Phase::RollingOut | Phase::RollingBack);
        was.observed_generation != next.observed_generation
            || was.phase != next.phase
            || was.target_hash != next.target_hash
            || was.last_good_hash != next.last_good_hash
            || was.rejected_hash != next.rejected_hash
            || was.rejected_reason != next.rejected_reason
            || was.retry_token != next.retry_token
            || was.wave != next.wave
            || was.started_at != next.started_at
            || clocked && was.wave_started_at != next.wave_started_at
    }

    /// How soon the difference to what is stored is to be shown.
    fn difference(&self, next: &FalcoRulesFileStatus) -> Refresh {
        let Some(was) = self.was else { return Refresh::Now };
        if was == next {
            return Refresh::None;
        }
        let failing = |status: &FalcoRulesFileStatus| -> Vec<String> {
            status.failing.iter().map(|failing| failing.node.clone()).collect()
        };
        let under_way = matches!(next.phase, Phase::RollingOut | Phase::RollingBack | Phase::Withdrawing);
        if says_more(&was.conditions, &next.conditions)
            || was.desired_hash != next.desired_hash
            || was.rules_accepted != next.rules_accepted
            || was.rules_rejected != next.rules_rejected
        {
            Refresh::Now
        } else if under_way || failing(was) != failing(next) {
            Refresh::Soon
        } else {
            Refresh::Lazy
        }
    }
}

/// Whether a condition's status or reason differs, or what generation it is about.
pub(super) fn says_more(was: &[Condition], next: &[Condition]) -> bool {
    let gist = |conditions: &[Condition]| -> Vec<(String, String, String, Option<i64>)> {
        conditions
            .iter()
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.observed_generation))
            .collect()
    };
    gist(was) != gist(next)
}

/// Puts the conditions in their place.
pub(super) fn with_conditions(was: &[Condition], next: Vec<Condition>, now: Timestamp) -> Vec<Condition> {
    let mut conditions = was.to_vec();
    for condition in next {
        set_condition(&mut conditions, condition, now);
    }
    conditions
}
