//! What a decision works on: the facts, and the bundle and the status as they become.

use std::borrow::Cow;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{EventNote, EventReason, Facts, NodeVerdict, Policy, decide::phase_of};
use crate::api::{BundleFile, Event, FalcoBundleSpec, FalcoRulesFileStatus, NONE, Phase, Reason, Rollout, RolloutKind};

/// The file that was rolled back.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    /// Its hash.
    pub hash: String,
    /// Why, in Falco's words where there are any.
    pub message: Option<String>,
    /// Why, in a word.
    pub reason: Reason,
}

/// A decision in the making.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Run<'a> {
    pub facts: &'a Facts<'a>,
    pub policy: &'a Policy,
    /// The time, to the microsecond: what the status stores must compare equal when it comes back.
    pub now: Timestamp,
    /// The status that was written last.
    pub was: Option<&'a FalcoRulesFileStatus>,
    /// The phase that the status shows; without a status, the bundle's.
    pub from: Phase,
    /// The phase in which the bundle is.
    pub at: Phase,
    /// Where the way through the table has led to.
    pub phase: Phase,
    /// The way.
    pub path: Vec<Event>,
    /// Whether the bundle is that of an earlier namespace of the name.
    pub foreign: bool,
    /// The bundle as it becomes.
    pub bundle: Option<Cow<'a, FalcoBundleSpec>>,
    pub rejection: Option<Rejection>,
    pub wave: Option<i32>,
    pub started_at: Option<Timestamp>,
    pub wave_started_at: Option<Timestamp>,
    /// Whether `spec.paused` holds something back.
    pub paused: bool,
    /// Whether the file is too large.
    pub too_large: bool,
    /// Whether no node can load the target for reasons that are not the target's.
    pub stuck: bool,
    /// Whether nothing is decided: the objects go on as they are.
    pub wait: bool,
    /// Whether the finalizer is to go.
    pub release: bool,
    pub notes: Vec<EventNote>,
    pub look_again: Option<Timestamp>,
}

impl<'a> Run<'a> {
    /// Where the facts stand.
    pub fn new(facts: &'a Facts<'a>, policy: &'a Policy, now: Timestamp) -> Self {
        let was = facts.rules_file.as_ref().and_then(|file| file.status);
        let bundle = facts.bundle;
        let foreign = bundle.is_some_and(|bundle| facts.namespace_uid != Some(bundle.namespace_uid.as_str()));
        let rejection = match was {
            Some(was) => was.rejected_hash.clone().map(|hash| Rejection {
                hash,
                message: was.rejected_reason.clone(),
                reason: stored_reason(was),
            }),
            None => bundle.filter(|_| !foreign).and_then(|bundle| bundle.rejected_hash.clone()).map(|hash| Rejection {
                hash,
                message: None,
                reason: Reason::Refused,
            }),
        };
        let known = was.map(|was| was.phase).filter(|phase| *phase != Phase::Unknown);
        let at = phase_of(bundle, rejection.is_some(), known);
        let from = known.unwrap_or(if foreign { Phase::Empty } else { at });
        let rollout = bundle.and_then(|bundle| bundle.rollout.as_ref());
        Self {
            facts,
            policy,
            now: Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
            was,
            from,
            at,
            phase: from,
            path: Vec::new(),
            foreign,
            bundle: bundle.map(Cow::Borrowed),
            rejection,
            wave: was.and_then(|was| was.wave),
            started_at: was
                .and_then(|was| was.started_at.as_ref())
                .or(rollout.map(|rollout| &rollout.started_at))
                .map(|at| at.0),
            wave_started_at: was.and_then(|was| was.wave_started_at.as_ref()).map(|at| at.0),
            paused: false,
            too_large: false,
            stuck: false,
            wait: false,
            release: false,
            notes: Vec::new(),
            look_again: None,
        }
    }

    /// Takes the way of `events` through the table, to `to`.
    pub fn go(&mut self, events: &[Event], to: Phase) {
        let mut phase = self.phase;
        for event in events {
            if let Some(next) = phase.next(*event) {
                phase = next;
                self.path.push(*event);
            }
        }
        self.phase = to;
    }

    /// Tells the developers, where anybody can be told: in a namespace that is being deleted no Event can be created.
    pub fn note(&mut self, reason: EventReason, message: String) {
        if !self.facts.terminating && self.facts.namespace_uid.is_some() {
            self.notes.push(EventNote { reason, message });
        }
    }

    /// Whether a node is available now, without which nothing is decided about nodes.
    pub fn any_live(&self) -> bool {
        self.facts.nodes.nodes.iter().any(|node| node.live)
    }

    /// The hash of the target, or `none`.
    pub fn target_hash(&self) -> &str {
        self.target().map_or(NONE, |file| file.hash.as_str())
    }

    /// The target.
    pub fn target(&self) -> Option<&BundleFile> {
        self.bundle.as_deref().and_then(|bundle| bundle.target.as_ref())
    }

    /// What is under way.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.bundle.as_deref().and_then(|bundle| bundle.rollout.as_ref())
    }

    /// Makes the bundle hold this target and rollout.
    pub fn write(&mut self, target: Option<BundleFile>, rollout: Option<Rollout>) {
        let uid = match self.bundle.as_deref() {
            Some(bundle) => bundle.namespace_uid.clone(),
            None => self.facts.namespace_uid.unwrap_or_default().to_owned(),
        };
        let rejected_hash = self.rejection.as_ref().map(|rejection| rejection.hash.clone());
        self.bundle = Some(Cow::Owned(FalcoBundleSpec { namespace_uid: uid, target, rejected_hash, rollout }));
    }

    /// Ends what is under way: the target is settled.
    pub fn settle(&mut self) {
        let target = self.target().cloned();
        self.write(target, None);
        (self.wave, self.started_at, self.wave_started_at) = (None, None, None);
    }

    /// When the wave under way is over, and whether that is past. The time of a wave counts only while any node is
    /// available: one that is away with all the others has not failed to answer.
    pub fn deadline(&mut self) -> (Timestamp, bool) {
        let start = *self.wave_started_at.get_or_insert(self.now);
        let end = super::later(start, self.policy.deadline);
        (end, self.now >= end)
    }

    /// Decides again at `at`, or before.
    pub fn again(&mut self, at: Timestamp) {
        self.look_again = Some(self.look_again.map_or(at, |old| old.min(at)));
    }

    /// A rollout of `kind` that begins now.
    pub fn rollout_of(kind: RolloutKind, last_good: Option<BundleFile>, started_at: Timestamp) -> Rollout {
        Rollout { kind, last_good, started_at: MicroTime(started_at), canaries: Vec::new(), threshold: None }
    }
}

/// Why the file was rolled back, by the status.
fn stored_reason(was: &FalcoRulesFileStatus) -> Reason {
    let nowhere = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.type_ == "Ready" && c.reason == Reason::NowhereLoaded.name()
    };
    if was.conditions.iter().find(nowhere).is_some() { Reason::NowhereLoaded } else { Reason::Refused }
}

/// The fault that keeps a node from loading `target`. One that was met with another file is over.
pub(super) fn fault_with(node: &NodeVerdict<'_>, target: &str) -> Option<crate::api::Fault> {
    node.fault.filter(|_| node.loaded != Some(target) && node.tried.is_none_or(|tried| tried == target))
}
