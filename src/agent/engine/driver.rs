//! The engine's task: waits for a reason, then one turn from what is wanted to what runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::base_watch::BaseWatch;
use super::command::Command;
use super::config::{Base, PageAt};
use super::leftover::{self, Process};
use super::memory::Memory;
use super::page::{self, Page};
use super::plan::{Held, Plan, Verdicts, is_file_name};
use super::process::{Spec, Supervisor};
use super::sets::{Lock, LockError, Set, Store};
use super::tally::{self, Counters};
use super::{EngineOptions, Installation, Observer, Step, cut};
use crate::agent::{RulesText, Running, Trouble, Wanted, WantedFile};
use crate::api::{FalcoState, NodeFaultReason, NodeTrouble, Proof};

/// How soon what has failed for the node's own reasons is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How often the base is looked at though nobody said that it changed.
const LOOK: Duration = Duration::from_secs(60);
/// The file of what must outlive the agent.
const MEMORY: &str = ".memory.json";
/// At most this much of a message is reported, in bytes.
const MESSAGE: usize = 1024;

/// What the engine tells others.
pub struct Outlets {
    /// What Falco is known to run.
    pub running: watch::Sender<Running>,
    /// Where its web server answers.
    pub page: watch::Sender<Option<SocketAddr>>,
    /// What rules may count on.
    pub installation: watch::Sender<Option<Installation>>,
    /// What Falco has counted.
    pub counters: Counters,
}

/// What is proved, and about which process.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The set.
    pub set: Set,
    /// SHA-256 over the base that it was proved with.
    pub base: String,
    /// How.
    pub proof: Proof,
    /// When Falco loaded it, by its own clock.
    pub reloaded: Option<Timestamp>,
    /// How often Falco had been started.
    pub starts: u64,
}

/// Everything that the engine's task has.
pub struct Driver {
    pub(super) options: EngineOptions,
    pub(super) store: Store,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) outlets: Outlets,
    /// `None` for a sidecar.
    pub(super) falco: Option<Supervisor>,
    pub(super) command: Command,
    pub(super) memory: Memory,
    /// What checks said of files; it holds for one base only.
    pub(super) verdicts: Verdicts,
    verdicts_base: String,
    pub(super) watch: BaseWatch,
    pub(super) proved: Option<Proved>,
    held: BTreeMap<String, Held>,
    pub(super) fault: Option<NodeTrouble>,
    settled: bool,
    pub(super) retry: Option<Instant>,
    /// How long a check of the whole takes here, which a load takes too.
    pub(super) load: Duration,
    /// Whether Falco's web server is known not to have the page.
    pub(super) no_metrics: bool,
    /// How Falco was started, as far as that is known.
    pub(super) spec: Option<Spec>,
    versions: (u64, Option<String>, Option<String>),
    /// Starts and deaths as they were when the last turn began.
    seen: (u64, u64),
}

/// A fault of the node, and the end of this turn.
pub type Turn<T> = Result<T, NodeTrouble>;

/// A fault of the node.
pub fn trouble(reason: NodeFaultReason, message: impl std::fmt::Display) -> NodeTrouble {
    NodeTrouble { reason, message: cut(&message.to_string(), MESSAGE).to_owned() }
}

/// The folder can't be written.
#[allow(clippy::needless_pass_by_value)] // as `map_err` gives it
pub fn storage(error: std::io::Error) -> NodeTrouble {
    trouble(NodeFaultReason::Storage, format!("the agent's folder can't be written: {error}; Falco keeps what it runs"))
}

impl Driver {
    /// A driver that has done nothing yet.
    pub fn new(
        options: EngineOptions,
        wanted: watch::Receiver<Wanted>,
        observer: Arc<dyn Observer>,
        outlets: Outlets,
    ) -> Self {
        let store = Store::new(&options.state_dir);
        let command = Command::new(&options.command, &store.config());
        let falco =
            command.supervises().then(|| Supervisor::new(&options.state_dir, options.grace, Arc::clone(&observer)));
        Self {
            store,
            wanted,
            observer,
            outlets,
            falco,
            command,
            memory: Memory::default(),
            verdicts: Verdicts::new(),
            verdicts_base: String::new(),
            watch: BaseWatch::new(),
            proved: None,
            held: BTreeMap::new(),
            fault: None,
            settled: false,
            retry: None,
            load: Duration::ZERO,
            no_metrics: false,
            spec: None,
            versions: (0, None, None),
            seen: (0, 0),
            options,
        }
    }

    /// Runs until told to stop; Falco's exit code.
    pub async fn run(mut self, shutdown: CancellationToken) -> u8 {
        let lock = tokio::select! {
            lock = self.lock() => Some(lock),
            () = shutdown.cancelled() => None,
        };
        if lock.is_some() {
            tokio::select! {
                () = self.work() => {}
                () = shutdown.cancelled() => {}
            }
        }
        let code = match &self.falco {
            Some(falco) => falco.stop().await,
            None => 0,
        };
        if lock.is_some() && self.memory.attempt.is_some() {
            self.abandon();
        }
        drop(lock);
        code
    }

    /// An orderly end in the midst of an attempt: nobody's fault, and the next start finds the last good set.
    fn abandon(&mut self) {
        let undone = self.store.swap_back().and_then(|()| {
            self.memory.attempt = None;
            self.store.save(MEMORY, &serde_json::to_vec(&self.memory)?)
        });
        if let Err(error) = undone {
            tracing::warn!(%error, "cannot put the last good set back; the next start does");
        }
    }

    /// Waits for the folder. Where it can't be had for want of a disk, Falco runs on the base alone meanwhile.
    async fn lock(&mut self) -> Lock {
        loop {
            let error = match self.store.lock() {
                Ok(lock) => return lock,
                Err(error) => error,
            };
            tracing::warn!(%error, "waiting for the folder of the agent");
            self.fault = Some(trouble(NodeFaultReason::Storage, &error));
            if matches!(error, LockError::Io { .. })
                && self.spec.is_none()
                && let Some(falco) = self.falco.clone()
                && let Ok(base) = self.read_base()
            {
                let spec = self.command.spec(&base, self.options.rule_matching, Some(&self.options.base_config));
                falco.start(spec.clone());
                self.spec = Some(spec);
            }
            self.publish();
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn work(&mut self) {
        self.recover().await;
        let hangup = signal(SignalKind::hangup()).ok();
        let usr1 = signal(SignalKind::user_defined1()).ok();
        let (mut hangup, mut usr1) = (hangup, usr1);
        loop {
            self.turn().await;
            self.publish();
            let pause = self.retry.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
            let falco = self.falco.clone();
            let seen = self.seen;
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() {
                    // Nobody wants anything any more; what runs goes on until the end.
                    std::future::pending::<()>().await;
                },
                () = self.watch.changed() => {}
                () = changed_since(falco.clone(), seen) => {}
                () = received(&mut hangup) => self.proved = None,
                () = received(&mut usr1) => if let Some(falco) = falco {
                    falco.signal(Signal::SIGUSR1);
                },
                () = sleep(pause) => {}
            }
        }
    }

    /// What a killed agent left: a set that was never confirmed, a Falco that nobody supervises.
    async fn recover(&mut self) {
        leftover::end(&self.store.path(".falco.json"), self.options.grace).await;
        let saved = std::fs::read(self.store.path(MEMORY)).ok();
        self.memory = saved.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let (current, good) = (self.store.current(), self.store.good());
        if current != good {
            if self.runs_unconfirmed().await {
                tracing::info!("Falco runs the set that was being brought into force");
                self.memory.attempt = None;
            } else {
                tracing::warn!("the last set was never confirmed; back to the one before it");
                self.memory.interrupted();
                if let Err(error) = self.store.swap_back() {
                    self.fault = Some(storage(error));
                }
            }
        } else if self.memory.attempt.is_some() {
            // Ended before the swap, or after the confirmation: no set was tried in vain.
            self.memory.attempt = None;
        }
        if let Err(error) = self.save() {
            self.fault = Some(error);
        }
        // At once, before anything else is looked at: what ran last runs again.
        let Some(good) = self.store.good() else { return };
        let own = self.store.config();
        let base = self.read_base().or_else(|_| {
            Base::read(&own, self.command.options()).map_err(|error| trouble(NodeFaultReason::ConfigInvalid, error))
        });
        if let Ok(base) = base {
            if let Err(error) = self.store.prepare_trigger() {
                tracing::warn!(%error, "cannot prepare the folder by which Falco is told to load");
            }
            self.start_on(&good, &base);
        }
    }

    /// Starts Falco on a set, which a folder that can't be written may not have in force.
    pub(super) fn start_on(&mut self, set: &str, base: &Base) {
        let Some(falco) = &self.falco else { return };
        let within = self.store.check_config(set);
        let config = (self.store.current().as_deref() != Some(set)).then_some(within.as_path());
        let spec = self.command.spec(base, self.options.rule_matching, config);
        falco.start(spec.clone());
        self.spec = Some(spec);
    }

    /// Whether the Falco of another container has loaded the set that an agent before this one was confirming.
    async fn runs_unconfirmed(&mut self) -> bool {
        if self.falco.is_some() {
            return false;
        }
        let Ok(base) = self.read_base() else { return false };
        let Some(set) = self.store.current().and_then(|id| self.store.read(&id)) else { return false };
        let PageAt::Base(address) = base.page(false) else { return false };
        let shown = page::read(address).await.is_ok_and(|page| page.shows(&set, &base.hashes));
        shown && self.store.return_to(&set.id).is_ok()
    }

    /// Reads the base, and watches what it consists of.
    pub(super) fn read_base(&mut self) -> Turn<Base> {
        let invalid = |error: super::config::ConfigError| trouble(NodeFaultReason::ConfigInvalid, error);
        if self.command.replaces_rules() {
            return Err(invalid(super::config::ConfigError::RulesOption));
        }
        let read = |options: &[String], path: &std::path::Path| Base::read(path, options);
        let mut base = read(self.command.options(), &self.options.base_config);
        let main = [self.options.base_config.clone()];
        let watched = base.as_ref().map_or(main.as_slice(), |base| base.watched.as_slice()).to_vec();
        if self.watch.watch(&watched) {
            // It may have changed before it was watched.
            base = read(self.command.options(), &self.options.base_config);
        }
        base.map_err(invalid)
    }

    /// What is wanted, or what is on disk as long as nobody knows.
    fn wants(&mut self, loaded: &BTreeMap<String, RulesText>) -> Wanted {
        let mut wanted = self.wanted.borrow_and_update().clone();
        if !wanted.synced {
            let settled = |text: &RulesText| WantedFile { target: Some(text.clone()), last_good: None, since: None };
            wanted.files = loaded.iter().map(|(namespace, text)| (namespace.clone(), settled(text))).collect();
        }
        wanted.files.retain(|namespace, _| {
            let usable = is_file_name(namespace);
            if !usable {
                tracing::error!(namespace, "this can't be the name of a rules file, so none is written");
            }
            usable
        });
        wanted
    }

    async fn turn(&mut self) {
        self.retry = None;
        self.settled = false;
        let ended = self.towards_wanted().await;
        if ended.as_ref().is_err_and(|trouble| trouble.reason == NodeFaultReason::Storage) {
            self.prove_what_is_there().await;
        }
        if let Some(falco) = &self.falco {
            falco.restarts(true);
        }
        match ended {
            Ok(settled) => {
                self.fault = None;
                self.settled = settled;
            }
            Err(trouble) => {
                if self.fault.as_ref() != Some(&trouble) {
                    tracing::error!(reason = ?trouble.reason, "{}", trouble.message);
                }
                self.fault = Some(trouble);
                self.retry.get_or_insert_with(|| Instant::now() + RETRY);
            }
        }
    }

    /// Until what is wanted runs or was tried in vain.
    async fn towards_wanted(&mut self) -> Turn<bool> {
        loop {
            self.survived().await?;
            let base = self.read_base()?;
            if self.verdicts_base != base.fingerprint {
                self.verdicts.clear();
                self.verdicts_base.clone_from(&base.fingerprint);
            }
            let good = self.store.good().and_then(|id| self.store.read(&id));
            let loaded = good.as_ref().map(|set| set.files.clone()).unwrap_or_default();
            let wanted = self.wants(&loaded);
            if wanted.synced {
                self.memory.forget(&wanted);
            }
            let mut barred = self.verdicts.clone();
            for refusal in &self.memory.refused {
                let key = (refusal.file.namespace.clone(), refusal.file.hash.clone());
                barred.insert(key, (crate::api::Fault::Refused, refusal.message.clone()));
            }
            let memory = &self.memory;
            let plan = Plan::new(&wanted, &loaded, &barred, &|namespace, hash| memory.suspects(namespace, hash));
            self.held.clone_from(&plan.held);
            // Without anything to go back to, the base alone comes first.
            let plan = if good.is_none() { Plan::default() } else { plan };
            let files = plan.all();
            let proved = self.proved.as_ref().filter(|proved| self.still(proved));
            let same = |id: &str| good.as_ref().is_some_and(|good| good.id == id);
            if proved.is_some_and(|it| it.base == base.fingerprint && it.set.files == files && same(&it.set.id)) {
                let more = plan.candidates.is_empty() && wanted.files.is_empty() && !wanted.synced;
                return Ok(wanted.synced || more);
            }
            let set = self.store.write(&base, &files, self.options.shape()).map_err(storage)?;
            self.observer.step(Step::Written);
            if !self.judge(&plan, &set, &base).await? {
                continue;
            }
            self.observer.step(Step::Checked);
            self.announce(&base);
            if same(&set.id) && self.store.current().as_deref() == Some(set.id.as_str()) {
                self.prove(&set, &base).await?;
            } else {
                self.bring(&set, &plan, good.as_ref(), &base).await?;
            }
            self.publish();
        }
    }

    /// Whether a proof is still about the Falco that runs.
    fn still(&self, proved: &Proved) -> bool {
        match &self.falco {
            Some(falco) => {
                let status = falco.status.borrow();
                status.pid.is_some() && status.starts == proved.starts
            }
            None => true,
        }
    }

    /// How often Falco was started.
    pub(super) fn starts(&self) -> u64 {
        self.falco.as_ref().map_or(0, |falco| falco.status.borrow().starts)
    }

    /// Where the folder can't be written, Falco goes on with what lies there: what that is can still be proved.
    async fn prove_what_is_there(&mut self) {
        let (current, good) = (self.store.current(), self.store.good());
        let last = self.proved.as_ref().map(|proved| proved.set.id.clone());
        if current.is_none() || current != good && current != last {
            return;
        }
        if self.proved.as_ref().is_some_and(|proved| self.still(proved)) {
            return;
        }
        let Some(set) = current.and_then(|id| self.store.read(&id)) else { return };
        let Ok(base) = self.read_base() else { return };
        if self.spec.as_ref() != Some(&self.command.spec(&base, self.options.rule_matching, None)) {
            // It runs on a set that could not be put into force.
            return;
        }
        if let Err(trouble) = self.prove(&set, &base).await {
            tracing::warn!(reason = ?trouble.reason, "{}", trouble.message);
        }
    }

    /// Takes note of how often Falco was started and died: what has happened until now is dealt with.
    pub(super) fn look(&mut self) -> bool {
        let seen = self.falco.as_ref().map_or((0, 0), |falco| {
            let status = falco.status.borrow();
            (status.starts, status.deaths)
        });
        seen.1 > std::mem::replace(&mut self.seen, seen).1
    }

    /// Whether Falco has died with a set on probation since the last look: then that comes first.
    pub(super) fn died_on_probation(&self) -> bool {
        let deaths = self.falco.as_ref().map_or(0, |falco| falco.status.borrow().deaths);
        self.memory.probation.is_some() && deaths > self.seen.1
    }

    /// Writes what must outlive the agent.
    pub(super) fn save(&self) -> Turn<()> {
        let text = serde_json::to_vec(&self.memory).map_err(|error| storage(error.into()))?;
        self.store.save(MEMORY, &text).map_err(storage)
    }

    /// Takes in what Falco has counted so far, which it forgets when it is stopped or loads; until the next proof,
    /// matches may be those of what runs or of `next`.
    pub(super) async fn count(&self, next: &Set) {
        let page = match self.page_address() {
            Some(address) => page::read(address).await.ok(),
            None => None,
        };
        let mut owners = self.proved.as_ref().map(|proved| tally::owners(&proved.set.files)).unwrap_or_default();
        owners.extend(tally::owners(&next.files));
        self.outlets.counters.change(|tally| {
            let tally = page.iter().fold(tally, |tally, page| tally.with(page, true));
            tally.owned_by(owners)
        });
    }

    /// Notes a proof.
    pub(super) fn proves(&mut self, set: &Set, base: &Base, page: Option<&Page>) {
        self.outlets.counters.change(|tally| {
            let tally = tally.owned_by(tally::owners(&set.files));
            page.iter().fold(tally, |tally, page| tally.with(page, true))
        });
        let reloaded = page.and_then(|page| Timestamp::from_nanosecond(i128::from(page.reloaded)).ok());
        self.proved = Some(Proved {
            set: set.clone(),
            base: base.fingerprint.clone(),
            proof: if page.is_some() { Proof::Metrics } else { Proof::Assumed },
            reloaded,
            starts: self.starts(),
        });
        if let Some(version) = page.and_then(|page| page.version.clone()) {
            self.versions.1 = Some(version);
        }
    }

    /// Asks Falco for its versions, once for each time that it was started.
    pub(super) async fn ask_versions(&mut self, address: SocketAddr) {
        let asked = self.starts().max(1);
        if self.versions.0 == asked {
            return;
        }
        if let Ok((falco, engine)) = page::versions(address).await {
            self.versions = (asked, falco, engine);
        }
    }

    /// Tells what rules may count on here.
    fn announce(&self, base: &Base) {
        let matching = match self.options.rule_matching {
            super::RuleMatching::All if self.falco.is_some() => Some("all".to_owned()),
            super::RuleMatching::First if self.falco.is_some() => Some("first".to_owned()),
            _ => base.value("rule_matching"),
        };
        let program = self.options.program();
        let about = std::fs::metadata(&program).map(|it| (it.len(), it.modified().ok())).ok();
        let facts = format!("{}\0{about:?}\0{}\0{matching:?}", program.display(), base.fingerprint);
        let mut arguments = vec!["-c".to_owned(), self.options.base_config.display().to_string()];
        arguments.extend(self.command.check_arguments(base, self.options.rule_matching));
        let installation = Installation {
            fingerprint: super::sets::sha256(facts.as_bytes()),
            program,
            arguments,
            rules_files: base.rules_files.clone(),
            priority: base.value("priority"),
            rule_matching: matching,
            selections: base.json("rules"),
            static_fields: base
                .json("static_fields")
                .as_object()
                .into_iter()
                .flat_map(|map| map.keys().cloned())
                .collect(),
        };
        self.outlets.installation.send_if_modified(|last| {
            let new = last.as_ref() != Some(&installation);
            *last = Some(installation);
            new
        });
    }

    /// Tells what is.
    pub(super) fn publish(&self) {
        let proved = self.proved.as_ref().filter(|proved| self.still(proved));
        let lives = match &self.falco {
            Some(falco) => falco.status.borrow().pid.is_some(),
            None => Process::with_config(&self.store.config()).is_some() || proved.is_some(),
        };
        let falco = match (lives, proved) {
            (true, Some(_)) => FalcoState::Running,
            (true, None) => FalcoState::Starting,
            (false, _) if self.spec.is_none() && self.fault.is_none() => FalcoState::Starting,
            (false, _) => FalcoState::Down,
        };
        let files = self.proved.as_ref().map(|proved| &proved.set.files);
        let wanted = self.wanted.borrow();
        let wants = |namespace: &str, hash: &str| {
            let target = wanted.files.get(namespace).and_then(|file| file.target.as_ref());
            target.is_some_and(|target| target.hash == hash)
        };
        let held = self.held.iter().filter(|(namespace, held)| wants(namespace, &held.hash));
        let running = Running {
            falco,
            proof: proved.map_or(Proof::None, |proved| proved.proof),
            loaded: files
                .into_iter()
                .flatten()
                .map(|(namespace, text)| (namespace.clone(), text.hash.clone()))
                .collect(),
            trouble: held
                .map(|(namespace, held)| {
                    let message = cut(&held.message, MESSAGE).to_owned();
                    (namespace.clone(), Trouble { tried: held.hash.clone(), fault: held.fault, message })
                })
                .collect(),
            fault: self.fault.clone(),
            last_reload: self.proved.as_ref().and_then(|proved| proved.reloaded),
            falco_version: self.versions.1.clone(),
            engine_version: self.versions.2.clone(),
            settled: self.settled && proved.is_some(),
        };
        drop(wanted);
        self.outlets.running.send_if_modified(|last| {
            let new = *last != running;
            *last = running;
            new
        });
        let page = proved.filter(|proved| proved.proof == Proof::Metrics).and_then(|_| self.page_address());
        self.outlets.page.send_if_modified(|last| std::mem::replace(last, page) != page);
    }

    /// Where Falco's page should be.
    pub(super) fn page_address(&self) -> Option<SocketAddr> {
        match &self.falco {
            Some(falco) => falco.status.borrow().page,
            None => self.spec.as_ref().and_then(|spec| spec.page),
        }
    }
}

async fn changed_since(falco: Option<Supervisor>, seen: (u64, u64)) {
    let Some(mut falco) = falco else { return std::future::pending().await };
    if falco.status.wait_for(|status| (status.starts, status.deaths) != seen).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}
