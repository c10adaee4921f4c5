//! Faults and events that tests ask for. None of this is Falco's.
//!
//! A fault is asked for by a file in the folder that `FALCO_STAND_IN_CONTROL` names, read each time that it
//! matters, or by a rule whose `desc` says `stand-in: FAULT`. README.md lists them.

use crate::rules::items::Rule;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Whether rules are loaded to find out or to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `-V`, `--dry-run`, and the dry run before a hot reload.
    Check,
    /// A start, and the restart after the dry run.
    Load,
}

/// The ways in which a load can go wrong on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused by check and load.
    Refuse,
    /// Passes the check, refused by the load.
    RefuseAtLoad,
    /// Kills whoever checks it.
    CrashInCheck,
    /// Passes the check, kills at the load.
    Crash,
    /// Kills this many milliseconds after the load.
    CrashAfter(u64),
    /// The load never ends.
    Hang,
    /// Check and load take this many milliseconds more.
    Slow(u64),
}

const NAMES: [&str; 7] = ["refuse-at-load", "refuse", "crash-in-check", "crash-after", "crash", "hang", "slow"];

impl Fault {
    fn parse(name: &str, number: Option<&str>) -> Option<Self> {
        let number = || number.and_then(|word| word.parse().ok());
        Some(match name {
            "refuse" => Self::Refuse,
            "refuse-at-load" => Self::RefuseAtLoad,
            "crash-in-check" => Self::CrashInCheck,
            "crash" => Self::Crash,
            "crash-after" => Self::CrashAfter(number()?),
            "hang" => Self::Hang,
            "slow" => Self::Slow(number()?),
            _ => return None,
        })
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Control {
    folder: Option<PathBuf>,
    node: String,
}

impl Control {
    /// From the environment.
    pub fn from_environment() -> Self {
        let node = ["FALCO_HOSTNAME", "NODE_NAME"].iter().find_map(|name| std::env::var(name).ok());
        Self {
            folder: std::env::var_os("FALCO_STAND_IN_CONTROL").map(PathBuf::from),
            node: node.unwrap_or_else(hostname),
        }
    }

    /// The folder, if there is one.
    pub fn folder(&self) -> Option<&PathBuf> {
        self.folder.as_ref()
    }

    /// The name that alerts carry as `hostname`.
    pub fn node(&self) -> &str {
        &self.node
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.as_ref()?.join(name)).ok()
    }

    /// Whether a switch is on.
    pub fn on(&self, name: &str) -> bool {
        self.folder.as_ref().is_some_and(|folder| folder.join(name).exists())
    }

    /// The number in a control file; a default where it holds none.
    pub fn number(&self, name: &str, default: u64) -> Option<u64> {
        self.file(name).map(|text| text.trim().parse().unwrap_or(default))
    }

    /// Events of the kernel, those lost, and alerts lost, since the load.
    pub fn counts(&self) -> [u64; 3] {
        let text = self.file("counts").unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0))
    }

    /// Takes a control file away; whether this call was the one that did.
    pub fn take(&self, name: &str) -> bool {
        self.folder.as_ref().is_some_and(|folder| std::fs::remove_file(folder.join(name)).is_ok())
    }

    /// What a rule's `desc` asks for on this node.
    pub fn faults_of_rule(&self, rule: &Rule) -> Vec<Fault> {
        let asks = |text: &str| {
            let (text, node) = match text.split_once(" on ") {
                Some((text, node)) => (text, node.split_whitespace().next()),
                None => (text, None),
            };
            let mut words = text.split_whitespace();
            let name = words.next()?.trim_end_matches(['.', ',', ';']);
            let fault = Fault::parse(name, words.next().map(|word| word.trim_end_matches("ms")))?;
            node.is_none_or(|node| node == self.node).then_some(fault)
        };
        rule.desc.split("stand-in:").skip(1).filter_map(asks).collect()
    }

    /// What control files ask for a rules file with this content.
    pub fn faults_of_file(&self, content: &[u8]) -> Vec<Fault> {
        let mut faults = Vec::new();
        for name in NAMES {
            let Some(text) = self.file(name) else { continue };
            let lines: Vec<&str> = if text.trim().is_empty() { vec!["*"] } else { text.lines().collect() };
            for line in lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
                let (number, selector) = match name {
                    "crash-after" | "slow" => {
                        let (number, selector) = line.split_once(' ').unwrap_or((line, "*"));
                        (Some(number), selector.trim())
                    }
                    _ => (None, line),
                };
                if selects(selector, content) {
                    faults.extend(Fault::parse(name, number));
                }
            }
        }
        faults
    }
}

/// `*`, the SHA-256 of the file, or a text within it.
fn selects(selector: &str, content: &[u8]) -> bool {
    selector == "*"
        || selector.eq_ignore_ascii_case(&sha256(content))
        || !selector.is_empty() && String::from_utf8_lossy(content).contains(selector)
}

/// In hexadecimal.
pub fn sha256(content: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(content) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

/// Dies as of a signal, without a word.
pub fn crash() -> ! {
    std::process::abort()
}

/// Waits for good, in the way of a process that has lost its way.
pub fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}
