//! One complete start-up short of running: configuration, rules, plugins, as a dry run or for real.

use crate::config::Config;
use crate::control::{self, Control, Fault, Phase};
use crate::log;
use crate::rules::items::Rule;
use crate::rules::{Loader, Uncaught};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Invocation {
    /// `-c`.
    pub config: PathBuf,
    /// `-o`.
    pub overrides: Vec<String>,
    /// `-r`.
    pub rules: Vec<PathBuf>,
}

/// Why it did not come up.
#[derive(Clone, Debug)]
pub struct Failure {
    /// For stderr at a start.
    pub message: String,
    /// For the alert after a failed dry run.
    pub alert: String,
}

impl Failure {
    fn error(message: impl Into<String>) -> Self {
        let message = message.into();
        let alert = message.strip_prefix("Error: ").unwrap_or(&message).to_owned();
        Self { message: format!("Error: {alert}"), alert }
    }

    /// An exception that ends the process.
    pub fn uncaught(what: &str) -> Self {
        Self { message: format!("Runtime error: {what}. Exiting."), alert: what.to_owned() }
    }
}

/// A configuration that could run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The rules that run, in order.
    pub rules: Vec<Rule>,
    /// Rules files, in order.
    pub files: Vec<PathBuf>,
    /// Folders of rules files.
    pub folders: Vec<PathBuf>,
    /// SHA-256 of the rules files by path, from disk after the load.
    pub rules_hashes: BTreeMap<PathBuf, String>,
    /// SHA-256 of the configuration files by path, likewise.
    pub config_hashes: BTreeMap<PathBuf, String>,
    /// Nanoseconds since 1970 at the start of this load.
    pub started: u128,
    /// When to die after all.
    pub crash_after: Option<Duration>,
}

/// Loads everything, with Falco's log lines.
pub fn load(invocation: &Invocation, control: &Control, phase: Phase) -> Result<Loaded, Failure> {
    let started = log::nanoseconds();
    let config = Config::load(&invocation.config, &invocation.overrides, &invocation.rules).map_err(|error| {
        let failure = Failure::error(error.message);
        let alert = if error.opaque { "std::exception".to_owned() } else { failure.alert.clone() };
        Failure { alert, ..failure }
    })?;
    log::configure(config.log_stderr, config.iso_time);
    log::line("Falco version: 0.44.1 (x86_64)");
    log::line("Stand-in for Falco: judges rules and serves metrics, watches nothing");
    log::line("Falco initialized with configuration files:");
    for file in &config.files {
        log::line(&format!("   {} | schema validation: ok", file.display()));
    }
    let (files, folders) = resolve(&config.rules);
    if files.is_empty() && folders.is_empty() {
        return Err(Failure::error(
            "You must specify at least one rules file/directory via -r or a rules_file entry in falco.yaml",
        ));
    }
    let mut contents = Vec::new();
    for file in &files {
        contents.push(read(file)?);
    }
    log::line("Loading rules from:");
    let mut loader = Loader::new(&config, Box::new(|rule: &Rule| refusal(&control.faults_of_rule(rule), phase)));
    let cost = control.number("load-cost", 120);
    let mut faults = Vec::new();
    for (file, content) in files.iter().zip(&contents) {
        let asked = control.faults_of_file(content);
        if let Some(message) = refusal(&asked, phase) {
            return Err(Failure::error(format!("{}: Invalid\n1 Errors:\n{message}\n", file.display())));
        }
        faults.extend(asked);
        let report =
            loader.load(&file.display().to_string(), content).map_err(|Uncaught(what)| Failure::uncaught(&what))?;
        log::line(&format!("   {} | schema validation: {}", file.display(), report.schema_words()));
        if !report.ok() {
            return Err(Failure::error(report.text()));
        }
        log::raw(&report.warning_text());
        if let Some(microseconds) = cost {
            std::thread::sleep(Duration::from_micros(microseconds.saturating_mul(loader.rule_count() as u64)));
        }
    }
    if let Some(message) = loader.unmet_plugins() {
        return Err(Failure::error(message));
    }
    let rules = loader.running();
    faults.extend(rules.iter().flat_map(|rule| control.faults_of_rule(rule)));
    let crash_after = carry_out(&faults, phase);
    let rules_hashes = hashes(&files);
    let config_hashes = hashes(&config.hashed);
    Ok(Loaded { config, rules, files, folders, rules_hashes, config_hashes, started, crash_after })
}

/// Why a fault has it refused.
pub fn refusal(faults: &[Fault], phase: Phase) -> Option<String> {
    faults.iter().find_map(|fault| match (fault, phase) {
        (Fault::Refuse, _) => Some("The stand-in for Falco was told to refuse this".to_owned()),
        (Fault::RefuseAtLoad, Phase::Load) => Some("The stand-in for Falco was told to refuse to load this".to_owned()),
        _ => None,
    })
}

/// Crashes, waits or hangs; when to crash later.
pub fn carry_out(faults: &[Fault], phase: Phase) -> Option<Duration> {
    let mut later = None;
    for fault in faults {
        match (fault, phase) {
            (Fault::Slow(milliseconds), _) => std::thread::sleep(Duration::from_millis(*milliseconds)),
            (Fault::CrashInCheck, Phase::Check) | (Fault::Crash, Phase::Load) => control::crash(),
            (Fault::Hang, Phase::Load) => control::hang(),
            (Fault::CrashAfter(milliseconds), Phase::Load) => later = Some(Duration::from_millis(*milliseconds)),
            _ => {}
        }
    }
    later
}

/// Falco's words for a file that can't be read.
pub fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    if file.is_dir() {
        return Err(Failure::uncaught("basic_filebuf::underflow error reading the file: Is a directory"));
    }
    std::fs::read(file).map_err(|_| Failure::error(format!("Could not open file {} for reading", file.display())))
}

/// The files that `rules_files` stands for, and its folders; what is absent is passed over.
pub fn resolve(entries: &[PathBuf]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut files = Vec::new();
    let mut folders = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            let mut inside: Vec<PathBuf> = std::fs::read_dir(entry)
                .into_iter()
                .flatten()
                .filter_map(|found| found.ok().map(|found| found.path()))
                .filter(|path| is_rules_file(path))
                .collect();
            inside.sort();
            files.extend(inside);
            folders.push(entry.clone());
        } else if is_rules_file(entry) {
            files.push(entry.clone());
        }
    }
    (files, folders)
}

fn is_rules_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") && path.is_file()
}

/// Read again from disk, as Falco does: what has changed since is not what was loaded.
fn hashes(files: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let hash = |file: &PathBuf| std::fs::read(file).map(|content| control::sha256(&content)).unwrap_or_default();
    files.iter().map(|file| (file.clone(), hash(file))).collect()
}
