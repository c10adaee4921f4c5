//! Rolling a target out in waves, back, and watching over it once it is settled.

use super::{
    EventReason,
    run::{Rejection, Run, fault_with},
    tally::{Tally, names, within},
};
use crate::api::{BundleFile, Event, Phase, Reason, Rollout, RolloutKind};
use k8s_openapi::jiff::Timestamp;

/// Up to how many nodes a wave names; a larger one is given by a threshold.
const NAMED: usize = 8;

impl Run<'_> {
    /// Begins the rollout of `file`.
    pub fn begin(&mut self, file: &BundleFile) {
        // After a crash between status and bundle the status knows when it began.
        let resumed = self.was.filter(|was| {
            was.phase == Phase::RollingOut
                && was.target_hash.as_ref() == Some(&file.hash)
                && was.rejected_hash.is_none()
        });
        let started_at = resumed.and_then(|was| was.started_at.as_ref()).map_or(self.now, |at| at.0);
        self.wave_started_at = resumed.and_then(|was| was.wave_started_at.as_ref()).map(|at| at.0);
        self.started_at = Some(started_at);
        self.rejection = None;
        // What is being withdrawn was deleted: it is good for nothing any more.
        let last_good = match self.at {
            Phase::Withdrawing => None,
            _ => self.bundle.as_deref().and_then(|bundle| bundle.settled()).cloned(),
        };
        let nodes = &self.facts.nodes;
        // Where every node is to have the file already, or nobody knows which one nodes outside a wave should keep,
        // there is nothing to try on a few first.
        let back = last_good.as_ref().is_some_and(|last| last.hash == file.hash);
        let lost = self.facts.bundle.is_none()
            && nodes.nodes.iter().any(|node| node.loaded.is_some_and(|hash| hash != crate::api::NONE));
        let unproved = !self.any_live() && nodes.unproved > 0;
        let rollout = Self::rollout_of(RolloutKind::Rollout, last_good, started_at);
        let rollout = self.wave_of(rollout, 1, back || lost || unproved);
        self.note(
            EventReason::RollingOut,
            format!("Rules file {} with {} rules is being rolled out.", short(&file.hash), file.items.len()),
        );
        self.write(Some(file.clone()), Some(rollout));
        if self.any_live() {
            self.deadline();
        }
    }

    /// Sets the wave's nodes: those whose place comes first, so that a later wave holds those of the earlier ones.
    fn wave_of(&mut self, mut rollout: Rollout, wave: i32, all: bool) -> Rollout {
        self.wave = Some(wave);
        let mut nodes = self.candidates();
        // Nothing is tried on nodes that are not there: the wave fills as they come.
        match self.policy.size(wave, nodes.len()).filter(|size| !all && (nodes.is_empty() || *size < nodes.len())) {
            None => {
                rollout.canaries.clear();
                rollout.threshold = Some(Rollout::ALL.to_owned());
            }
            Some(size) if size <= NAMED => {
                let kept = rollout.canaries.len();
                nodes.retain(|(_, node)| !rollout.canaries.iter().any(|canary| canary == node));
                let more = nodes.into_iter().take(size.saturating_sub(kept)).map(|(_, node)| node.to_owned());
                rollout.canaries.extend(more);
            }
            Some(size) => rollout.threshold = nodes.into_iter().nth(size - 1).map(|(place, _)| place),
        }
        rollout
    }

    /// The available nodes with their places, the first place first.
    fn candidates(&self) -> Vec<(String, &str)> {
        let live = self.facts.nodes.nodes.iter().filter(|node| node.live && !node.faulty);
        let mut nodes: Vec<_> = live.map(|node| (Rollout::place(self.facts.namespace, node.node), node.node)).collect();
        nodes.sort();
        nodes
    }

    /// Replaces named nodes that are not there any more, and adds those that are to give a second opinion.
    fn refill(&mut self, ask: &[&str]) -> bool {
        let Some(rollout) = self.rollout().filter(|rollout| rollout.threshold.is_none()).cloned() else {
            return false;
        };
        let nodes = &self.facts.nodes.nodes;
        let there = |name: &String| nodes.iter().any(|node| node.node == name && !node.faulty);
        let mut canaries: Vec<String> = rollout.canaries.iter().filter(|name| there(name)).cloned().collect();
        let candidates = self.candidates();
        let size = self.policy.size(self.wave.unwrap_or(1), candidates.len());
        // A policy that has lost the wave since takes in everybody with the next one.
        let missing = size.unwrap_or(1).saturating_sub(canaries.len());
        let fresh = candidates.iter().map(|(_, name)| *name).filter(|name| !canaries.iter().any(|c| c == name));
        let added: Vec<String> = fresh.take(missing).map(str::to_owned).collect();
        if added.is_empty() && ask.is_empty() {
            return false;
        }
        canaries.extend(added);
        for name in ask {
            if !canaries.iter().any(|canary| canary == name) {
                canaries.push((*name).to_owned());
            }
        }
        let target = self.target().cloned();
        self.write(target, Some(Rollout { canaries, ..rollout }));
        // Who has just been asked gets the time of a wave to answer.
        self.wave_started_at = Some(self.now);
        true
    }

    /// One step of a rollout. Whether the phase or the wave changed.
    pub fn roll(&mut self) -> bool {
        let Some(rollout) = self.rollout().cloned() else { return false };
        let facts = self.facts;
        if !self.any_live() {
            self.wave_started_at = None;
            return false;
        }
        if self.refill(&[]) {
            return self.roll();
        }
        let target = self.target_hash().to_owned();
        let (end, expired) = self.deadline();
        let tally = Tally::of(&facts.nodes.nodes, &target, within(&rollout, facts.namespace));
        let refusals = tally.refusals(&facts.nodes.nodes, expired);
        let last = rollout.threshold.as_deref() == Some(Rollout::ALL);
        if refusals.counted > self.policy.max_failed as usize {
            let message = refusal(&tally);
            return self.fail(Event::TooManyRefused, Reason::Refused, message, &rollout);
        }
        if !refusals.ask.is_empty() {
            if rollout.threshold.is_none() {
                if self.refill(&refusals.ask) {
                    return self.roll();
                }
            } else if !last {
                let mut wider = rollout.clone();
                wider.canaries.extend(refusals.ask.iter().map(|name| (*name).to_owned()));
                let file = self.target().cloned();
                self.write(file, Some(wider));
                self.wave_started_at = Some(self.now);
                return self.roll();
            }
        }
        let answered = tally.silent.is_empty() && tally.blocked.is_empty() && !refusals.open;
        if !(expired || answered && tally.any_loaded()) {
            self.again(end);
            return false;
        }
        if !tally.any_loaded() {
            if tally.refused.is_empty() && !tally.silent.iter().any(|node| node.live) {
                // Whoever is there can't load anything, through no fault of the file.
                self.stuck = !tally.hindered.is_empty() || !tally.blocked.is_empty();
                return false;
            }
            let mut message = format!("no node had it loaded after {:?}", self.policy.deadline);
            if !tally.refused.is_empty() {
                message = format!("{message}; {}", refusal(&tally));
            } else if !tally.silent.is_empty() {
                let silent = names(tally.silent.iter().map(|node| node.node));
                message = format!("{message}; nothing was heard of {silent}");
            }
            return self.fail(Event::NowhereLoaded, Reason::NowhereLoaded, message, &rollout);
        }
        if !last && self.spec().is_some_and(|spec| spec.paused) {
            self.paused = true;
            return false;
        }
        if !tally.silent.is_empty() {
            let silent = names(tally.silent.iter().map(|node| node.node));
            self.note(
                EventReason::NodesSilent,
                format!("Nothing was heard of {silent} for {:?}; the rollout goes on without.", self.policy.deadline),
            );
        }
        if last {
            let failing = names(tally.failing().map(|node| node.node));
            self.end(&failing);
        } else {
            let wave = self.wave.unwrap_or(1).saturating_add(1);
            let next = self.wave_of(rollout, wave, false);
            let file = self.target().cloned();
            self.write(file, Some(next));
            self.wave_started_at = Some(self.now);
            self.go(&[Event::WaveLoaded], Phase::RollingOut);
        }
        true
    }

    /// The rollout is over: settled, on every node but those that can't load it.
    fn end(&mut self, failing: &str) {
        let hash = short(self.target_hash()).to_owned();
        self.settle();
        if failing.is_empty() {
            self.note(EventReason::Loaded, format!("Every available node has loaded rules file {hash}."));
            self.go(&[Event::AllLoaded], Phase::Active);
        } else {
            self.note(EventReason::Degraded, format!("Rules file {hash} is loaded, but not on {failing}."));
            self.go(&[Event::SomeLoaded], Phase::Degraded);
        }
    }

    /// The target failed: back to the last good file, unless that could only bring back what was deleted.
    fn fail(&mut self, event: Event, reason: Reason, message: String, rollout: &Rollout) -> bool {
        let hash = self.target_hash().to_owned();
        if self.target().is_some_and(|target| only_removes(target, rollout.last_good.as_ref())) {
            self.settle();
            self.note(
                EventReason::Degraded,
                format!("Rules file {} only takes rules away, so it stays, although {message}.", short(&hash)),
            );
            self.go(&[Event::SomeLoaded], Phase::Degraded);
            return true;
        }
        self.note(EventReason::RollingBack, format!("Rules file {} is rolled back: {message}.", short(&hash)));
        self.rejection = Some(Rejection { hash, message: Some(message), reason });
        self.write_rollback(self.now);
        self.go(&[event], Phase::RollingBack);
        true
    }

    /// Makes the bundle a rollback to the last good file without what has been deleted since.
    pub fn write_rollback(&mut self, started_at: Timestamp) {
        let last_good = self.rollout().and_then(|rollout| rollout.last_good.clone());
        let target = last_good.as_ref().and_then(|file| {
            let left: Vec<_> =
                file.items.iter().filter(|item| self.facts.rules.contains(&item.name)).cloned().collect();
            if left.len() == file.items.len() {
                Some(file.clone())
            } else {
                (!left.is_empty()).then(|| BundleFile::new(left))
            }
        });
        let rollout = Self::rollout_of(RolloutKind::Rollback, last_good, started_at);
        self.write(target, Some(rollout));
        self.wave = None;
        self.started_at = Some(started_at);
        self.wave_started_at = Some(started_at);
    }

    /// One step of a rollback. Whether it is over.
    pub fn restore(&mut self) -> bool {
        if !self.any_live() {
            self.wave_started_at = None;
            return false;
        }
        let target = self.target_hash().to_owned();
        let (end, expired) = self.deadline();
        let tally = Tally::of(&self.facts.nodes.nodes, &target, |_| true);
        if !(expired || tally.silent.is_empty() && tally.blocked.is_empty()) {
            self.again(end);
            return false;
        }
        if !tally.silent.is_empty() {
            let silent = names(tally.silent.iter().map(|node| node.node));
            self.note(
                EventReason::NodesSilent,
                format!("Nothing was heard of {silent} for {:?} since the rollback began.", self.policy.deadline),
            );
        }
        self.settle();
        self.note(
            EventReason::RolledBack,
            match self.target() {
                Some(file) => format!("The last good rules file, {}, is loaded again.", short(&file.hash)),
                None => "There was no good rules file before; none is loaded.".to_owned(),
            },
        );
        self.go(&[Event::AllRestored], Phase::RolledBack);
        true
    }

    /// Watches over a settled target: a node that can't load it any more, or stays behind for longer than a wave may
    /// take, makes the namespace degraded. Nodes that merely come or go don't.
    pub fn watch(&mut self) -> bool {
        if !self.any_live() {
            return false;
        }
        let target = self.target_hash().to_owned();
        let without: Vec<_> =
            self.facts.nodes.nodes.iter().filter(|node| node.live && node.loaded != Some(&target)).collect();
        let failing = without.iter().filter(|node| fault_with(node, &target).is_some()).map(|node| node.node);
        let failing = names(failing);
        if without.is_empty() {
            self.wave_started_at = None;
            if self.phase == Phase::Degraded {
                let hash = short(&target);
                self.note(EventReason::Loaded, format!("Every available node has loaded rules file {hash} again."));
                self.go(&[Event::AllLoaded], Phase::Active);
            }
            return false;
        }
        if self.phase == Phase::Degraded {
            self.wave_started_at = None;
            return false;
        }
        let behind = names(without.iter().map(|node| node.node));
        let late = if failing.is_empty() {
            let (end, late) = self.deadline();
            if !late {
                self.again(end);
            }
            late
        } else {
            true
        };
        if late {
            let hash = short(&target);
            self.note(EventReason::Degraded, format!("Rules file {hash} is not loaded on {behind} any more."));
            self.wave_started_at = None;
            self.go(&[Event::Drifted], Phase::Degraded);
        }
        late
    }
}

/// What the nodes that refuse a file say.
fn refusal(tally: &Tally<'_>) -> String {
    let who = names(tally.refused.iter().map(|node| node.node));
    let what = tally.refused.iter().find_map(|node| node.message).unwrap_or("no reason was given");
    format!("{who} refused it: {}", what.trim().trim_end_matches('.'))
}

/// Whether every rule of `target` is in `last_good` word for word.
fn only_removes(target: &BundleFile, last_good: Option<&BundleFile>) -> bool {
    let before = last_good.map(|file| file.items.as_slice()).unwrap_or_default();
    target.items.iter().all(|item| before.iter().any(|old| old.name == item.name && old.text == item.text))
}

/// A hash as people compare it.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
