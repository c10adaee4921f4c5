//! Processes by what /proc says of them: the Falco of an agent that was killed, and that of another container.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// A process, told apart from a later one with its number by when it started.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in the kernel's ticks since its own start.
    pub started: u64,
}

impl Process {
    /// The process that has this number now; `None` if there is none that lives.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, started })
    }

    /// Whether it still lives.
    pub fn lives(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// The Falco that runs with this configuration, in whichever container of the pod.
    pub fn with_config(config: &Path) -> Option<Self> {
        let numbers = fs::read_dir("/proc").ok()?.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        numbers.filter(|pid| runs_with(*pid, config)).find_map(Self::find)
    }
}

/// Whether a process was started as Falco is: `-c` with this file, and no question besides.
fn runs_with(pid: i32, config: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let named =
        words.windows(2).any(|pair| matches!(pair, [option, value] if option == "-c" && Path::new(value) == config))
            || words.iter().any(|word| word.strip_prefix("-c").is_some_and(|value| Path::new(value) == config));
    // Our own command line may quote Falco's.
    let program = words.first().map(PathBuf::from).unwrap_or_default();
    let ours = std::env::current_exe().ok().and_then(|path| path.file_name().map(ToOwned::to_owned));
    named
        && program.file_name().is_some_and(|name| Some(name) != ours.as_deref())
        && !words.iter().any(|word| word == "--dry-run" || word == "--" || word == "-V")
}

/// Notes which process is ours, so that one that outlives us is known to the next agent.
pub fn note(path: &Path, pid: Option<i32>) {
    // Of use only after an accident; a folder that can't be written is told elsewhere.
    let _ = match pid.and_then(Process::find) {
        Some(process) => serde_json::to_vec(&process).map_err(Into::into).and_then(|text| fs::write(path, text)),
        None => fs::remove_file(path),
    };
}

/// Ends the Falco that an agent before us left running, if there is one: two would both alert.
pub async fn end(path: &Path, grace: Duration) {
    let noted = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Process>(&text).ok());
    let Some(process) = noted.filter(|process| process.lives()) else { return };
    tracing::warn!(pid = process.pid, "ending the Falco that an agent before this one left running");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let _ = kill(Pid::from_raw(process.pid), signal);
        let mut waited = Duration::ZERO;
        while process.lives() && waited < grace {
            sleep(Duration::from_millis(20)).await;
            waited += Duration::from_millis(20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_configuration_while_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("falco.yaml");
        assert_eq!(Process::with_config(&config), None);
        // As an argument of a shell that sleeps, which is all that /proc tells of Falco too.
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read line", "sh", "-c"])
            .arg(&config)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let found = loop {
            if let Some(found) = Process::with_config(&config) {
                break found;
            }
        };
        assert_eq!(found.pid, child.id() as i32);
        assert!(found.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!found.lives());
    }

    #[tokio::test]
    async fn a_process_that_was_noted_is_ended_and_one_with_its_number_only_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let process = Process::find(child.id() as i32).unwrap();
        let other = Process { started: process.started + 1, ..process };
        fs::write(&path, serde_json::to_vec(&other).unwrap()).unwrap();
        end(&path, Duration::from_secs(5)).await;
        assert!(process.lives());
        note(&path, Some(process.pid));
        end(&path, Duration::from_secs(5)).await;
        assert!(!process.lives());
        child.wait().unwrap();
    }
}
