//! How a set comes into force, and how that is proved.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::config::Base;
use super::driver::{Driver, Turn, storage, trouble};
use super::leftover::Process;
use super::memory::{Attempt, Probation, Tried};
use super::page::{self, Page, PageError};
use super::plan::Plan;
use super::process::Spec;
use super::sets::Set;
use super::tally;
use super::{ReloadOutcome, Step, Strategy, cut};
use crate::api::NodeFaultReason;

/// How often Falco is asked while it loads.
const ASK: Duration = Duration::from_millis(10);
/// For so long a death of Falco is blamed on what came into force last.
const PROBATION: Duration = Duration::from_secs(30);
/// From a change of a base file to the load that Falco makes of it, at most, but for the load itself.
const NOTICED: Duration = Duration::from_millis(500);

/// What came of waiting for Falco.
#[derive(Clone, Debug)]
enum Answer {
    /// It says that it runs the set.
    Confirmed(Page),
    /// It lives, and can't be asked.
    Silent,
    /// It ended, and how.
    Died(String),
    /// It lives and does not say so, or nobody answers.
    Late,
}

impl Driver {
    /// Brings a set into force that is not yet; what it brings in vain is remembered, and the last good set is back.
    pub(super) async fn bring(&mut self, set: &Set, plan: &Plan, good: Option<&Set>, base: &Base) -> Turn<()> {
        let begun = Instant::now();
        let fresh = fresh(set, good);
        let spec = self.command.spec(base, self.options.rule_matching, None);
        self.store.prepare_trigger().map_err(storage)?;
        self.quiet().await;
        self.memory.attempt = Some(Attempt { files: fresh.clone() });
        self.save()?;
        self.store.stage(&set.id).map_err(storage)?;
        self.observer.step(Step::Staged);
        if self.died_on_probation() {
            // Not of this set: what came before is dealt with first.
            return self.gave_up();
        }

        self.count(set).await;
        let answer = self.swap_and_load(set, &spec, base).await?;
        let page = match &answer {
            Answer::Confirmed(page) => Some(page.clone()),
            Answer::Silent => None,
            Answer::Died(_) | Answer::Late => return self.back(&fresh, &answer, base, begun).await,
        };
        self.observer.step(Step::Confirmed);
        self.proves(set, base, page.as_ref());
        self.store.keep().map_err(storage)?;
        self.observer.step(Step::Kept);
        self.memory.confirmed(&set.files);
        self.on_probation(&fresh, good);
        self.save()?;
        if page.is_some() {
            self.collect(set);
        }
        self.observer.step(Step::Collected);
        let outcome = if page.is_some() { ReloadOutcome::Confirmed } else { ReloadOutcome::Assumed };
        self.observer.reloaded(outcome, begun.elapsed());
        let names: Vec<_> = plan.candidates.iter().map(|it| it.namespace.as_str()).collect();
        let took = begun.elapsed().as_secs_f64();
        tracing::info!(set = set.id, files = set.files.len(), ?outcome, took, new = ?names, "a set is in force");
        Ok(())
    }

    /// The swap, and then whatever it takes until Falco confirms.
    async fn swap_and_load(&mut self, set: &Set, spec: &Spec, base: &Base) -> Turn<Answer> {
        let Some(falco) = self.falco.clone() else {
            self.store.swap().map_err(storage)?;
            self.observer.step(Step::Swapped);
            self.spec = Some(spec.clone());
            return Ok(self.reload(set, base).await);
        };
        falco.restarts(false);
        let runs = falco.status.borrow().pid.is_some();
        let alike = self.spec.as_ref() == Some(spec);
        if runs && alike && self.options.strategy != Strategy::Restart {
            self.store.swap().map_err(storage)?;
            self.observer.step(Step::Swapped);
            match self.reload(set, base).await {
                Answer::Late => tracing::warn!("Falco does not confirm the set; starting it anew"),
                answer => return Ok(answer),
            }
            falco.stop().await;
        } else {
            falco.stop().await;
            if let Err(error) = self.store.swap() {
                self.start_on_good(base);
                return Err(storage(error));
            }
            self.observer.step(Step::Swapped);
        }
        Ok(self.started(set, spec, base).await)
    }

    /// Starts Falco and waits for its word.
    async fn started(&mut self, set: &Set, spec: &Spec, base: &Base) -> Answer {
        let Some(falco) = self.falco.clone() else { return Answer::Late };
        let deaths = falco.status.borrow().deaths;
        falco.start(spec.clone());
        self.spec = Some(spec.clone());
        self.confirm(set, base, None, deaths, self.limit()).await
    }

    /// Tells Falco to load again and waits for its word; once more if it does not come.
    async fn reload(&mut self, set: &Set, base: &Base) -> Answer {
        let deaths = self.deaths();
        let mut answer = Answer::Late;
        for try_number in 0..2 {
            // What it says now is what it must not say then. Nothing is asked of it while it is loading.
            let before = match self.readable(deaths).await {
                Ok(before) => before,
                Err(how) => return Answer::Died(how),
            };
            if try_number > 0 && self.falco.is_none() && before.is_some() {
                // It does not watch our folder, then. It has just answered, so it isn't loading and won't die of this.
                if let Some(process) = Process::with_config(&self.store.config()) {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), nix::sys::signal::SIGHUP);
                }
            }
            if let Err(error) = self.store.trigger() {
                tracing::warn!(%error, "cannot tell Falco to load");
            }
            self.observer.step(Step::Triggered);
            answer = self.confirm(set, base, before, deaths, self.limit()).await;
            if !matches!(answer, Answer::Late) {
                break;
            }
        }
        answer
    }

    /// When Falco says that it loaded last; nothing if it can't be asked. Waits while it is loading.
    async fn readable(&self, deaths: u64) -> Result<Option<u64>, String> {
        let begun = Instant::now();
        while begun.elapsed() < self.limit() {
            if let Some(how) = self.death_since(deaths) {
                return Err(how);
            }
            let Some(address) = self.page_address() else { return Ok(None) };
            match page::read(address).await {
                Ok(page) => {
                    self.outlets.counters.change(|tally| tally.with(&page, true));
                    return Ok(Some(page.reloaded));
                }
                Err(PageError::NoMetrics(_)) if self.no_metrics => return Ok(None),
                Err(_) => sleep(ASK).await,
            }
        }
        Ok(None)
    }

    /// Waits until Falco says that it runs exactly this set, having loaded since `before`.
    async fn confirm(&mut self, set: &Set, base: &Base, before: Option<u64>, deaths: u64, limit: Duration) -> Answer {
        let begun = Instant::now();
        let mut without = None;
        loop {
            if let Some(how) = self.death_since(deaths) {
                return Answer::Died(how);
            }
            let address = self.page_address();
            match address {
                // One that is only being started again has none yet.
                None => without = without.filter(|_| self.lives()).or_else(|| self.lives().then(Instant::now)),
                Some(address) => match page::read(address).await {
                    Ok(page) => {
                        self.no_metrics = false;
                        without = None;
                        // What it counts until it is another process is counted nowhere else.
                        let is_new = before != Some(page.reloaded);
                        self.outlets.counters.change(|tally| tally.with(&page, is_new));
                        if is_new && page.shows(set, &base.hashes) {
                            self.ask_versions(address).await;
                            return Answer::Confirmed(page);
                        }
                    }
                    Err(PageError::NoMetrics(_)) => without = without.or(Some(Instant::now())),
                    Err(_) => without = None,
                },
            }
            let enough = if self.no_metrics || address.is_none() { self.quick() } else { limit };
            if without.is_some_and(|since| since.elapsed() >= enough) && self.lives() {
                self.no_metrics |= address.is_some();
                return Answer::Silent;
            }
            if begun.elapsed() >= limit.max(enough * 2) {
                return Answer::Late;
            }
            sleep(ASK).await;
        }
    }

    /// What the next pages count may be of the rules of this set: after a start of the agent's own, or after a set that was
    /// taken back, nobody else says whose they are.
    fn may_count(&self, set: &Set) {
        self.outlets.counters.change(|tally| tally.also_owned_by(tally::owners(&set.files)));
    }

    /// Proves that Falco runs the set that is in force already: it was started, or the base has changed.
    pub(super) async fn prove(&mut self, set: &Set, base: &Base) -> Turn<()> {
        self.may_count(set);
        let spec = self.command.spec(base, self.options.rule_matching, None);
        let deaths = self.deaths();
        if let Some(falco) = self.falco.clone() {
            let runs = falco.status.borrow().pid.is_some();
            if runs && self.spec.as_ref() != Some(&spec) {
                falco.stop().await;
            }
            if self.spec.as_ref() != Some(&spec) || (!runs && falco.status.borrow().in_a_row == 0) {
                falco.start(spec.clone());
            }
        }
        self.spec = Some(spec.clone());
        let loaded_before = self.proved.as_ref().is_some_and(|it| it.set.id == set.id && it.starts == self.starts());
        let mut answer = self.unasked(set, base, deaths).await;
        if matches!(answer, Answer::Late) {
            answer = self.reload(set, base).await;
        }
        if let (Answer::Late, Some(falco)) = (&answer, self.falco.clone()) {
            tracing::warn!("Falco does not confirm the set that is in force; starting it anew");
            falco.stop().await;
            answer = self.started(set, &spec, base).await;
        }
        let page = match answer {
            Answer::Confirmed(page) => Some(page),
            Answer::Silent => None,
            Answer::Died(how) => return Err(trouble(NodeFaultReason::FalcoDown, how)),
            Answer::Late => {
                let message = "Falco lives but does not confirm that it runs the rules files in force";
                return Err(trouble(NodeFaultReason::Unconfirmed, message));
            }
        };
        if !loaded_before {
            tracing::info!(set = set.id, "Falco runs the set in force");
        }
        self.proves(set, base, page.as_ref());
        if page.is_some() {
            self.collect(set);
        }
        Ok(())
    }

    /// Waits for a load that Falco makes by itself: after its start, or for a base file that changed.
    async fn unasked(&mut self, set: &Set, base: &Base, deaths: u64) -> Answer {
        let changed = self.watch.last().map(|(at, _)| at.elapsed());
        let load = NOTICED + self.load * 4;
        let patience = if self.proved.is_some() && changed.is_none_or(|ago| ago > load) { ASK } else { load };
        // Just started, it needs all its time.
        let patience =
            if self.proved.as_ref().is_some_and(|it| it.starts == self.starts()) { patience } else { self.limit() };
        let begun = Instant::now();
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            let answer = self.confirm(set, base, None, deaths, left).await;
            match &answer {
                Answer::Confirmed(page) if !page.shows_base(&base.hashes) => {
                    if begun.elapsed() >= patience {
                        return Answer::Late;
                    }
                    sleep(ASK).await;
                }
                _ => return answer,
            }
        }
    }

    /// Puts the last good set back, and finds out whether Falco runs with that one.
    async fn back(&mut self, fresh: &[Tried], answer: &Answer, base: &Base, begun: Instant) -> Turn<()> {
        let why = &match answer {
            Answer::Died(how) => format!("{how}, while it loaded this file"),
            _ => "Falco did not confirm in time that it loaded this file".to_owned(),
        };
        tracing::warn!(files = ?fresh, "{}; back to the last good set", cut(why, 1024));
        let killed = matches!(answer, Answer::Died(_)) && self.killed();
        if let Some(falco) = &self.falco {
            falco.stop().await;
        }
        // Whatever has died has died of this set, and not of one before it.
        self.look();
        if let Err(error) = self.store.swap_back() {
            self.start_on_good(base);
            return Err(storage(error));
        }
        self.observer.step(Step::SwappedBack);
        self.observer.reloaded(ReloadOutcome::SwappedBack, begun.elapsed());
        let Some(good) = self.store.good().and_then(|id| self.store.read(&id)) else {
            return Err(trouble(NodeFaultReason::FalcoDown, why));
        };
        self.proved = None;
        if let Err(fault) = self.control(&good, base).await {
            // The control failed too: whatever is wrong, the files are not known to be.
            self.look();
            self.memory.probation = None;
            self.gave_up()?;
            return Err(fault);
        }
        if killed {
            self.memory.interrupted();
        } else {
            self.memory.attempt = None;
            self.memory.failed(fresh, cut(why, 1024));
        }
        self.save()?;
        if fresh.is_empty() {
            // Nothing new to blame: files were only taken away.
            return Err(trouble(
                NodeFaultReason::Unconfirmed,
                format!("a set without some of the files failed: {why}"),
            ));
        }
        Ok(())
    }

    /// Whether Falco runs with a set that ran before, which is in force on disk again.
    async fn control(&mut self, set: &Set, base: &Base) -> Turn<()> {
        self.may_count(set);
        let spec = self.command.spec(base, self.options.rule_matching, None);
        let answer =
            if self.falco.is_some() { self.started(set, &spec, base).await } else { self.reload(set, base).await };
        let page = match answer {
            Answer::Confirmed(page) => Some(page),
            Answer::Silent => None,
            Answer::Died(how) => {
                return Err(trouble(NodeFaultReason::FalcoDown, format!("{how}, with the last good set too")));
            }
            Answer::Late => {
                let message = "Falco lives, but confirms neither a new set nor the last good one";
                return Err(trouble(NodeFaultReason::Unconfirmed, message));
            }
        };
        self.proves(set, base, page.as_ref());
        Ok(())
    }

    /// What follows from a death since the last look: a set that has only just come into force is taken back, if Falco
    /// runs with the one before it.
    pub(super) async fn survived(&mut self) -> Turn<()> {
        let died = self.look();
        let Some(mut probation) = self.memory.probation.clone() else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let previous = self.store.read(&probation.previous);
        let (Some(previous), false) = (previous, probation.until < now) else {
            self.memory.probation = None;
            return Ok(());
        };
        let (current, good) = (self.store.current(), self.store.good());
        let (Some(good), true) = (good.filter(|good| current.as_ref() == Some(good)), died) else { return Ok(()) };
        if self.killed() && !probation.killed {
            // Whoever that was, it may have had nothing to do with these files. A second time is no chance.
            probation.killed = true;
            self.memory.probation = Some(probation);
            return self.save();
        }
        let how = self.falco.as_ref().and_then(|falco| falco.status.borrow().last_end.clone());
        let message = format!("{}, soon after it loaded this file", how.unwrap_or_else(|| "Falco died".into()));
        tracing::warn!("{message}; back to the set before it");
        let base = self.read_base()?;
        if let Some(falco) = &self.falco {
            falco.restarts(false);
            falco.stop().await;
        }
        self.look();
        self.memory.probation =
            probation.before.take().map(|before| Probation { until: now + PROBATION.as_secs(), ..*before });
        self.proved = None;
        if let Err(error) = self.store.return_to(&previous.id) {
            self.memory.failed(&probation.files, cut(&message, 1024));
            self.start_on(&previous.id, &base);
            return Err(storage(error));
        }
        if let Err(fault) = self.control(&previous, &base).await {
            // These files are not known to be at fault.
            self.look();
            self.memory.probation = None;
            self.store.return_to(&good).map_err(storage)?;
            self.save()?;
            return Err(fault);
        }
        self.memory.failed(&probation.files, cut(&message, 1024));
        self.save()
    }

    /// Whether the last end of Falco was somebody else's doing.
    fn killed(&self) -> bool {
        self.falco.as_ref().is_some_and(|falco| falco.status.borrow().killed)
    }

    /// Starts Falco on the last good set, wherever that can't be put into force.
    fn start_on_good(&mut self, base: &Base) {
        if let Some(good) = self.store.good() {
            self.start_on(&good, base);
        }
    }

    fn gave_up(&mut self) -> Turn<()> {
        self.memory.attempt = None;
        self.save()
    }

    fn on_probation(&mut self, fresh: &[Tried], good: Option<&Set>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Some(good) = good.filter(|_| !fresh.is_empty()) else { return };
        let earlier = self.memory.probation.take().filter(|it| it.until >= now);
        let until = now + PROBATION.as_secs();
        let replaced = |file: &Tried| fresh.iter().any(|it| it.namespace == file.namespace);
        let new = |files: &[Tried], previous: String, before: Option<Probation>| Probation {
            previous,
            files: files.to_vec(),
            until,
            killed: false,
            before: before.map(|it| Box::new(Probation { before: None, ..it })),
        };
        self.memory.probation = Some(match earlier {
            Some(earlier) if !earlier.files.iter().all(replaced) => {
                // Any of them may be the cause of what happens: back is to before all.
                let mut files: Vec<_> = earlier.files.iter().filter(|file| !replaced(file)).cloned().collect();
                files.extend_from_slice(fresh);
                new(&files, earlier.previous, None)
            }
            earlier => new(fresh, good.id.clone(), earlier),
        });
    }

    /// Removes sets that nothing needs any more, after a proved load.
    fn collect(&self, set: &Set) {
        let (current, good) = (self.store.current(), self.store.good());
        let mut keep = vec![set.id.as_str()];
        keep.extend(current.as_deref());
        keep.extend(good.as_deref());
        let probation = self.memory.probation.as_ref();
        keep.extend(probation.map(|it| it.previous.as_str()));
        keep.extend(probation.and_then(|it| it.before.as_ref()).map(|it| it.previous.as_str()));
        if let Err(error) = self.store.collect(&keep) {
            tracing::warn!(%error, "cannot remove sets that are needed no more");
        }
    }

    /// Waits until no load of Falco's own can be under way: one that a changed base file causes.
    async fn quiet(&mut self) {
        loop {
            self.watch.drain();
            let Some((at, clock)) = self.watch.last() else { return };
            if at.elapsed() > NOTICED + self.load * 4 || !self.lives() {
                return;
            }
            let changed = clock.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            if let Some(address) = self.page_address()
                && let Ok(page) = page::read(address).await
                && u128::from(page.reloaded) > changed
                && !self.watch.drain()
            {
                return;
            }
            sleep(ASK).await;
        }
    }

    fn lives(&self) -> bool {
        match &self.falco {
            Some(falco) => falco.status.borrow().pid.is_some(),
            None => Process::with_config(&self.store.config()).is_some(),
        }
    }

    fn deaths(&self) -> u64 {
        self.falco.as_ref().map_or(0, |falco| falco.status.borrow().deaths)
    }

    fn death_since(&self, deaths: u64) -> Option<String> {
        let status = self.falco.as_ref()?.status.borrow();
        (status.deaths > deaths).then(|| status.last_end.clone().unwrap_or_else(|| "Falco ended".into()))
    }

    /// How long Falco may take to confirm: what is allowed, or more where its checks are slow.
    fn limit(&self) -> Duration {
        self.options.confirm_timeout.max(self.load * 6)
    }

    /// How long a load takes at most, to judge by a check: where Falco can't be asked, it is given this.
    fn quick(&self) -> Duration {
        Duration::from_millis(1500) + self.load * 3
    }
}

/// What a set brings that another does not have.
fn fresh(set: &Set, good: Option<&Set>) -> Vec<Tried> {
    let none = BTreeMap::new();
    let old = good.map_or(&none, |good| &good.files);
    let new = set.files.iter().filter(|(namespace, text)| old.get(*namespace).is_none_or(|it| it.hash != text.hash));
    new.map(|(namespace, text)| Tried { namespace: namespace.clone(), hash: text.hash.clone() }).collect()
}
