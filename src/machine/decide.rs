//! The decision: from where the facts stand, along the table, to where they should be.

use k8s_openapi::jiff::Timestamp;

use super::{Decision, Desired, Facts, Policy, run::Run};
use crate::api::{BundleFile, Event, FalcoBundleSpec, FalcoRulesFileSpec, Phase, RolloutKind};

/// What is to be done about a namespace: the same answer for the same facts, and nothing once its actions are done.
#[must_use]
pub fn decide(facts: &Facts<'_>, policy: &Policy, now: Timestamp) -> Decision {
    run(facts, policy, now).finish()
}

/// The run behind a decision, with the way that it took through the table.
pub(super) fn run<'a>(facts: &'a Facts<'a>, policy: &'a Policy, now: Timestamp) -> Run<'a> {
    let mut run = Run::new(facts, policy, now);
    if facts.namespace_uid.is_none() && facts.has_items {
        // The items of a namespace that does not exist: one of the two is not up to date yet.
        run.wait = true;
    } else if run.removed_by_hand() {
        run.wait = true;
        run.release = true;
    } else if run.foreign {
        run.withdraw_foreign();
    } else if run.nothing_left() {
        run.withdraw();
    } else {
        run.fulfil_intent();
        run.compare();
        // Each step is one of the table's transitions; no chain of them is longer.
        for _ in 0..4 {
            let moved = match run.phase {
                Phase::RollingOut => run.roll(),
                Phase::RollingBack => run.restore(),
                Phase::RolledBack => run.revert(),
                Phase::Active | Phase::Degraded => run.watch(),
                _ => false,
            };
            if !moved {
                break;
            }
        }
    }
    run
}

impl Run<'_> {
    /// Whether the `FalcoRulesFile` was deleted by hand while its namespace lives and has items. That is no withdrawal:
    /// the object goes at once, is created again, and takes its state from the bundle.
    fn removed_by_hand(&self) -> bool {
        self.facts.rules_file.as_ref().is_some_and(|file| file.deleting)
            && self.facts.has_items
            && !self.facts.terminating
            && self.facts.namespace_uid.is_some()
    }

    /// Whether nothing is to be loaded any more.
    pub fn nothing_left(&self) -> bool {
        !self.facts.has_items || self.facts.terminating || self.facts.namespace_uid.is_none()
    }

    /// The status is written before the bundle: after a crash between the two the status is the intent, and the bundle
    /// is brought up to it here.
    fn fulfil_intent(&mut self) {
        let Some(was) = self.was else { return };
        let Some(bundle) = self.bundle.as_deref() else { return };
        let Some(rollout) = &bundle.rollout else { return };
        let target = bundle.target.as_ref().map(|file| file.hash.as_str());
        let reached = was.target_hash.as_deref() == target;
        match (rollout.kind, was.phase) {
            (RolloutKind::Rollout, Phase::Active | Phase::Degraded) if reached && target.is_some() => {
                self.settle();
                self.at = was.phase;
            }
            (RolloutKind::Rollback, Phase::RolledBack) if reached => {
                self.settle();
                self.at = Phase::RolledBack;
            }
            (RolloutKind::Rollout, _) if target.is_some() && was.rejected_hash.as_deref() == target => {
                let started_at = was.started_at.as_ref().map_or(self.now, |at| at.0);
                self.write_rollback(started_at);
                self.at = Phase::RollingBack;
                if was.phase == Phase::RolledBack {
                    self.settle();
                    self.at = Phase::RolledBack;
                }
            }
            _ => {}
        }
    }

    /// Compares the file that the items make with what is under way or settled.
    fn compare(&mut self) {
        let desired = match self.facts.desired {
            Desired::File(file) => file,
            Desired::TooLarge { .. } => {
                self.too_large = true;
                if self.at == Phase::Empty {
                    let events: &[Event] = if self.from == Phase::Rendering { &[] } else { &[Event::Edited] };
                    self.go(events, Phase::Rendering);
                    self.go(&[Event::TooLarge], Phase::Rendering);
                } else {
                    self.arrive();
                }
                return;
            }
            Desired::Unknown => {
                match self.at {
                    Phase::Empty if matches!(self.from, Phase::Rendering | Phase::Distributing) => {}
                    Phase::Empty => self.go(&[Event::Edited], Phase::Rendering),
                    _ => self.arrive(),
                }
                return;
            }
        };
        let target = self.bundle.as_deref().and_then(|bundle| bundle.target.as_ref()).map(|file| file.hash.as_str());
        if target == Some(desired.hash.as_str()) && self.at != Phase::Withdrawing && !self.unknown_kind() {
            return self.arrive();
        }
        if self.is_rejected(desired) && !(self.at == Phase::RolledBack && self.retried()) {
            return self.arrive();
        }
        if self.at == Phase::Empty && self.was_settled(desired) {
            // The bundle is lost, not withdrawn: it is written again as it was, and no node has anything to do.
            self.write(Some(desired.clone()), None);
            return self.go(&[Event::Edited, Event::Unchanged], Phase::Active);
        }
        let first = match self.phase.next(Event::Retried) {
            Some(_) if self.is_rejected(desired) => Event::Retried,
            _ => Event::Edited,
        };
        if !self.spec().is_some_and(|spec| spec.paused) {
            self.go(&[first, Event::Rendered, Event::Distributed], Phase::RollingOut);
            return self.begin(desired);
        }
        self.paused = true;
        if matches!(self.at, Phase::RollingOut | Phase::RollingBack) {
            // What is under way goes on to the end of its wave; the edit waits behind it.
            return self.arrive();
        }
        if self.from != Phase::Distributing {
            self.go(&[first, Event::Rendered], Phase::Distributing);
        }
    }

    /// What is developers' wish for the namespace's rollout.
    pub fn spec(&self) -> Option<&FalcoRulesFileSpec> {
        self.facts.rules_file.as_ref().map(|file| file.spec)
    }

    /// Whether `file` is the one that was rolled back.
    fn is_rejected(&self, file: &BundleFile) -> bool {
        self.rejection.as_ref().is_some_and(|rejection| rejection.hash == file.hash)
            && matches!(self.at, Phase::RollingBack | Phase::RolledBack)
    }

    /// Whether somebody asked anew for the rejected file. A status that was lost knows of no token, so none is new.
    pub fn retried(&self) -> bool {
        let token = self.spec().and_then(|spec| spec.retry_token.as_deref());
        self.was.is_some_and(|was| token.is_some() && was.retry_token.as_deref() != token)
    }

    /// Whether, by the status, `file` was settled when the bundle was last seen. What was being withdrawn need never have
    /// been loaded by anybody.
    fn was_settled(&self, file: &BundleFile) -> bool {
        let is = |hash: &Option<String>| hash.as_ref() == Some(&file.hash);
        let was = self.was.filter(|was| was.phase != Phase::Withdrawing);
        was.is_some_and(|was| is(&was.last_good_hash) && was.rejected_hash.is_none())
    }

    /// Whether a newer version has something under way that this one does not know.
    fn unknown_kind(&self) -> bool {
        let rollout = self.bundle.as_deref().and_then(|bundle| bundle.rollout.as_ref());
        rollout.is_some_and(|rollout| rollout.kind == RolloutKind::Unknown)
    }

    /// From the phase that the status shows to the one in which the bundle is; mostly they are the same.
    fn arrive(&mut self) {
        let events: &[Event] = match (self.from, self.at) {
            (from, at) if from == at => &[],
            (_, Phase::Active | Phase::Degraded) => &[Event::Edited, Event::Unchanged],
            (_, Phase::RolledBack) => &[Event::Edited, Event::AlreadyRejected],
            (_, Phase::RollingOut) => &[Event::Edited, Event::Rendered, Event::Distributed],
            (Phase::RollingOut, Phase::RollingBack) => &[Event::TooManyRefused],
            // The bundle never heard of the rollback, nor of an edit that was held back since.
            (_, Phase::RollingBack) => &[Event::Edited, Event::Rendered, Event::Distributed, Event::TooManyRefused],
            _ => &[],
        };
        self.go(events, self.at);
    }

    /// What runs is what is wished for: the rejected file is forgotten.
    fn revert(&mut self) -> bool {
        let Desired::File(desired) = self.facts.desired else { return false };
        let target = self.bundle.as_deref().and_then(|bundle| bundle.target.as_ref());
        if target.is_none_or(|target| target.hash != desired.hash) {
            return false;
        }
        self.rejection = None;
        self.go(&[Event::Reverted], Phase::Active);
        true
    }
}

/// In which phase a bundle is by itself.
pub(super) fn phase_of(bundle: Option<&FalcoBundleSpec>, rejected: bool, was: Option<Phase>) -> Phase {
    let Some(bundle) = bundle else { return Phase::Empty };
    match bundle.rollout.as_ref().map(|rollout| rollout.kind) {
        None if rejected => Phase::RolledBack,
        None if was == Some(Phase::Degraded) => Phase::Degraded,
        None => Phase::Active,
        Some(RolloutKind::Rollout | RolloutKind::Unknown) => Phase::RollingOut,
        Some(RolloutKind::Rollback) => Phase::RollingBack,
        Some(RolloutKind::Withdrawal) => Phase::Withdrawing,
    }
}
