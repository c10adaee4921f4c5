//! Taking a file away: written as no target first, and gone once every available node says that it loads none.

use k8s_openapi::jiff::Timestamp;

use super::{EventReason, NodeVerdict, run::Run};
use crate::api::{BundleFile, Event, NONE, Phase, RolloutKind};

impl Run<'_> {
    /// Nothing is to be loaded any more: withdraws what is, and lets go of the objects when it is gone.
    pub fn withdraw(&mut self) {
        self.rejection = None;
        match (self.at, self.facts.bundle.is_some()) {
            (Phase::Withdrawing, _) => {
                self.withdrawing();
                if self.from == Phase::Empty || self.unloaded() {
                    self.gone();
                }
            }
            (_, true) => {
                // Even where nobody is there to read it: an agent that comes just now must not take the deleted bundle for
                // a lost one.
                self.withdrawing();
                self.write_withdrawal();
            }
            (_, false) => self.without_bundle(),
        }
    }

    /// There is no bundle. Either none was ever written, or it is withdrawn already and the finalizer is all that is
    /// left, or it is lost: who can tell? Only the status of a namespace that was empty before says it for sure.
    fn without_bundle(&mut self) {
        let held = self.facts.rules_file.as_ref().is_some_and(|file| file.finalizer);
        let empty = self.was.is_some_and(|was| was.phase == Phase::Empty);
        if held && !empty && self.facts.nodes.agents {
            // Asked again, nodes that have let go say so at once.
            self.withdrawing();
            self.write_withdrawal();
        } else {
            self.empty();
        }
    }

    /// A bundle of an earlier namespace of the name: withdrawn to the end before anything else. Nothing is inherited.
    pub fn withdraw_foreign(&mut self) {
        if self.at != Phase::Withdrawing {
            self.write_withdrawal();
        } else if self.unloaded() {
            self.bundle = None;
            self.again(self.now);
        }
        (self.wave, self.started_at, self.wave_started_at) = (None, None, None);
        self.rejection = None;
        let nothing_left = self.nothing_left();
        match self.from {
            Phase::Withdrawing | Phase::Empty if nothing_left => {}
            _ if nothing_left => self.go(&[Event::NothingLeft], Phase::Withdrawing),
            Phase::Rendering => {}
            _ => self.go(&[Event::Edited], Phase::Rendering),
        }
    }

    /// Whether no available node loads anything of the namespace.
    fn unloaded(&self) -> bool {
        let nodes = &self.facts.nodes;
        !nodes.agents || self.any_live() && nodes.nodes.iter().all(has_let_go)
    }

    /// Enters the phase, once.
    fn withdrawing(&mut self) {
        if self.from != Phase::Withdrawing && self.phase != Phase::Withdrawing {
            self.go(&[Event::NothingLeft], Phase::Withdrawing);
            self.started_at = None;
            if self.facts.bundle.is_some() && self.from != Phase::Empty {
                self.note(EventReason::Withdrawing, "The last rule was deleted; nodes drop the rules file.".into());
            }
        }
        (self.wave, self.wave_started_at) = (None, None);
        let now = self.now;
        self.started_at.get_or_insert(now);
    }

    /// Makes the bundle a withdrawal. Its last good file is one that nodes which load nothing do not have either, so that
    /// every node has to say that it loads none.
    fn write_withdrawal(&mut self) {
        let started_at: Timestamp = self.started_at.unwrap_or(self.now);
        let old = self.bundle.as_deref();
        let file = old.and_then(|bundle| bundle.settled().or(bundle.target.as_ref())).cloned();
        let last_good = Some(file.unwrap_or_else(|| BundleFile::new(Vec::new())));
        let rollout = Self::rollout_of(RolloutKind::Withdrawal, last_good, started_at);
        self.rejection = None;
        self.write(None, Some(rollout));
    }

    /// Every node has let go.
    fn gone(&mut self) {
        self.note(EventReason::Unloaded, "No node loads rules of this namespace any more.".into());
        self.bundle = None;
        self.empty();
    }

    /// Nothing is there, and nothing holds the objects.
    fn empty(&mut self) {
        self.rejection = None;
        (self.wave, self.started_at, self.wave_started_at) = (None, None, None);
        match self.phase {
            Phase::Empty => {}
            Phase::Withdrawing => self.go(&[Event::AllUnloaded], Phase::Empty),
            _ => self.go(&[Event::NothingLeft, Event::AllUnloaded], Phase::Empty),
        }
        self.release = true;
    }
}

/// Whether a node loads nothing of the namespace, by its own word: what it has settled is no proof, since it may be
/// loading a file right now. Nor is it an answer to the withdrawal as long as the node still tells of a file it tried.
pub(super) fn has_let_go(node: &NodeVerdict<'_>) -> bool {
    node.said && node.loaded == Some(NONE) && node.tried.is_none()
}
