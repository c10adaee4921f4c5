//! The engine: from what is wanted to what Falco is proved to run, one cycle at a time.

mod base_watch;
mod check;
mod command;
mod config;
mod driver;
mod edit;
mod force;
mod judge;
mod leftover;
mod memory;
mod page;
mod plan;
mod process;
mod sets;
pub mod tally;
mod yaml;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Running, Wanted};
use driver::{Driver, Outlets};
use tally::Counters;

/// How a new set of files comes into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The running Falco is told to load again.
    #[default]
    Reload,
    /// Falco is stopped and started.
    Restart,
    /// A second Falco is started on the new set, and the first let go once the second is confirmed.
    Overlap,
}

/// What is done about Falco's `rule_matching`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleMatching {
    /// Every rule that matches an event fires, so that no rule hides another.
    #[default]
    All,
    /// Only the first one does.
    First,
    /// As falco.yaml has it.
    Keep,
}

/// What the engine is told at its start.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The folder of the sets, which one agent at a time holds.
    pub state_dir: PathBuf,
    /// The falco.yaml that sets are cloned from; never written.
    pub base_config: PathBuf,
    /// How a new set comes into force.
    pub strategy: Strategy,
    /// What is done about `rule_matching`; a sidecar's Falco keeps its own.
    pub rule_matching: RuleMatching,
    /// The program that checks sets; `None` means the command's first word, or `/usr/bin/falco`.
    pub falco: Option<PathBuf>,
    /// The command line of the Falco to supervise; empty for a sidecar, whose Falco runs in another container.
    pub command: Vec<String>,
    /// How many rules files Falco is given one by one; with more, it is given one that holds them all.
    pub most_files: usize,
    /// Whether each alert is made to carry the namespace and the `FalcoRule` that it comes from.
    pub alert_owners: bool,
    /// For how many rules the number of matches is kept apart; 0 keeps none.
    pub most_matches: usize,
    /// How long a check may take.
    pub check_timeout: Duration,
    /// How long Falco may take at least to confirm a set; more is allowed where checks are slow.
    pub confirm_timeout: Duration,
    /// How long Falco may take to end when told to.
    pub grace: Duration,
}

impl EngineOptions {
    /// Options with the defaults of the command line.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>, base_config: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            base_config: base_config.into(),
            strategy: Strategy::default(),
            rule_matching: RuleMatching::default(),
            falco: None,
            command: Vec::new(),
            most_files: 64,
            alert_owners: true,
            most_matches: 200,
            check_timeout: Duration::from_secs(60),
            confirm_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(20),
        }
    }

    /// How sets are made.
    fn shape(&self) -> sets::Shape {
        sets::Shape { most_files: self.most_files, alert_owners: self.alert_owners }
    }

    /// The program that checks sets and lists fields.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.falco
            .clone()
            .or_else(|| self.command.first().map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from("/usr/bin/falco"))
    }
}

/// How an attempt to bring a set into force ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReloadOutcome {
    /// Falco confirmed it.
    Confirmed,
    /// Falco was told to load it and still runs, but can't be asked.
    Assumed,
    /// Falco did not confirm it, or died of it; the last good set is back.
    SwappedBack,
}

/// The steps of a cycle, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The set is on disk.
    Written,
    /// The node's Falco accepts it.
    Checked,
    /// Whatever the swap and the way back need is in place.
    Staged,
    /// It is in force on disk.
    Swapped,
    /// Falco was told to load it.
    Triggered,
    /// Falco says that it runs it.
    Confirmed,
    /// It is the last good set.
    Kept,
    /// Sets that nothing needs any more are gone.
    Collected,
    /// Instead of a confirmation: the last good set is in force on disk again.
    SwappedBack,
}

/// What the engine tells whoever counts. Calls are quick and come from the engine's own tasks.
pub trait Observer: Send + Sync + 'static {
    /// An attempt to bring a set into force ended after `took`.
    fn reloaded(&self, _outcome: ReloadOutcome, _took: Duration) {}
    /// A check of a set ended after `took`.
    fn checked(&self, _passed: bool, _took: Duration) {}
    /// Falco was started again after an end that nobody asked for.
    fn falco_restarted(&self) {}
    /// A step of a cycle is done.
    fn step(&self, _step: Step) {}
}

impl Observer for () {}

/// What rules may count on at this node, for the catalogue: how to ask Falco, and whether the answer may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// SHA-256 over the program's identity and the base configuration with its rules files: another one, another
    /// catalogue, maybe.
    pub fingerprint: String,
    /// The program to ask, such as with `--list`.
    pub program: PathBuf,
    /// Its arguments but for the question: `-c` with a configuration that Falco accepted, and the `-o` options in force.
    pub arguments: Vec<String>,
    /// The base's own rules files, in the order of loading.
    pub rules_files: Vec<PathBuf>,
    /// `priority` of the configuration in force.
    pub priority: Option<String>,
    /// `rule_matching` of the configuration in force.
    pub rule_matching: Option<String>,
    /// `rules` of the configuration in force, as JSON; null without.
    pub selections: serde_json::Value,
    /// The keys of `static_fields` of the configuration in force: rules can name each as `static.KEY`, though Falco's own
    /// list of fields has none of them.
    pub static_fields: Vec<String>,
}

/// A running engine, as others see it.
#[derive(Debug)]
pub struct Engine {
    /// What Falco is known to run.
    pub running: watch::Receiver<Running>,
    /// Where Falco's web server answers, while it is known to.
    pub page: watch::Receiver<Option<SocketAddr>>,
    /// What rules may count on; `None` until the first set was checked.
    pub installation: watch::Receiver<Option<Installation>>,
    /// What Falco has counted.
    pub counters: Counters,
    /// Ends after `shutdown`, when Falco has: with its exit code, or 0 where there is none.
    pub ended: JoinHandle<u8>,
}

impl Engine {
    /// Starts the engine: Falco from the last good set on disk at once, and from then on whatever `wanted` says. To be
    /// called within a runtime. Nothing fails here: what is wrong with the node is told in [`Running::fault`].
    #[must_use]
    pub fn start(
        options: EngineOptions,
        wanted: watch::Receiver<Wanted>,
        observer: Arc<dyn Observer>,
        shutdown: CancellationToken,
    ) -> Self {
        let (running_tx, running) = watch::channel(Running::default());
        let (page_tx, page) = watch::channel(None);
        let (installation_tx, installation) = watch::channel(None);
        let counters = Counters::new(options.most_matches);
        let outlets =
            Outlets { running: running_tx, page: page_tx, installation: installation_tx, counters: counters.clone() };
        let ended = tokio::spawn(Driver::new(options, wanted, observer, outlets).run(shutdown));
        Self { running, page, installation, counters, ended }
    }
}

/// At most so many bytes of a text, whole characters only.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}
