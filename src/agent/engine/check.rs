//! The node's own Falco judges a set before anything is swapped, in a bounded process of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// How much of what a check prints is kept.
const KEPT: usize = 64 << 10;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Falco would run with it.
    Passed,
    /// Falco would not, and says why.
    Refused(String),
    /// Falco died of it, and how.
    Crashed(String),
    /// Falco did not come to an end.
    TimedOut(Duration),
    /// Falco could not be started.
    NotRun(String),
}

impl Verdict {
    /// Whether Falco would run with it.
    pub fn passed(&self) -> bool {
        *self == Self::Passed
    }

    /// What happened, for people.
    pub fn words(&self) -> String {
        match self {
            Self::Passed => "Falco accepts it".into(),
            Self::Refused(why) | Self::NotRun(why) => why.clone(),
            Self::Crashed(how) => format!("Falco died while checking it: {how}"),
            Self::TimedOut(limit) => format!("Falco did not finish checking it within {} s", limit.as_secs()),
        }
    }
}

/// How sets are checked here.
#[derive(Clone, Debug)]
pub struct Checker {
    /// Falco.
    pub program: PathBuf,
    /// Its arguments besides `-c` and the question.
    pub arguments: Vec<String>,
    /// How long a check may take.
    pub limit: Duration,
}

struct Output {
    status: ExitStatus,
    out: String,
    err: String,
}

enum Failure {
    Time,
    Start(io::Error),
}

impl Checker {
    /// Loads everything that a configuration names, as a start would, and runs nothing.
    pub async fn dry_run(&self, config: &Path) -> (Verdict, Duration) {
        let begun = Instant::now();
        let verdict = match self.run(config, &["--dry-run".into()]).await {
            Ok(output) if output.status.success() => Verdict::Passed,
            Ok(output) => match died(output.status) {
                Some(how) => Verdict::Crashed(how),
                None => Verdict::Refused(error(&output.err)),
            },
            Err(Failure::Time) => Verdict::TimedOut(self.limit),
            Err(Failure::Start(error)) => Verdict::NotRun(format!("cannot run {}: {error}", self.program.display())),
        };
        (verdict, begun.elapsed())
    }

    /// What Falco has to say against one rules file, loaded after those of the base: only about that file, since Falco
    /// repeats the errors of others. `None` if that is nothing.
    pub async fn blame(&self, config: &Path, base: &[PathBuf], file: &Path) -> Option<String> {
        let mut arguments = vec!["-o".to_owned(), "json_output=true".to_owned()];
        for path in base.iter().map(PathBuf::as_path).chain([file]) {
            arguments.extend(["-V".to_owned(), path.display().to_string()]);
        }
        let output = self.run(config, &arguments).await.ok()?;
        blamed(&output.out, &file.display().to_string())
    }

    async fn run(&self, config: &Path, question: &[String]) -> Result<Output, Failure> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("-c").arg(config).args(question);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(Failure::Start)?;
        let group = Group(child.id());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let work = async { tokio::join!(child.wait(), kept(out), kept(err)) };
        let Ok((status, out, err)) = tokio::time::timeout(self.limit, work).await else {
            drop(group);
            let _ = child.wait().await;
            return Err(Failure::Time);
        };
        Ok(Output { status: status.map_err(Failure::Start)?, out, err })
    }
}

/// A process group that does not outlive this value.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.take() {
            // It's gone in the ordinary case.
            let _ = killpg(Pid::from_raw(leader as i32), Signal::SIGKILL);
        }
    }
}

/// The first part of a stream; the rest is read and dropped, so that nobody waits for a full pipe.
async fn kept(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = KEPT.saturating_sub(bytes.len()).min(count);
        bytes.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a process ended that did not exit by itself.
pub fn died(status: ExitStatus) -> Option<String> {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status)?;
    Some(Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string()))
}

/// Falco's error out of what it logs: from the first line that says so.
pub fn error(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let start = lines.iter().position(|line| line.contains("rror:")).unwrap_or(lines.len().saturating_sub(10));
    let words = lines.get(start..).unwrap_or_default().join("\n").trim().to_owned();
    let words = words.strip_prefix("Error: ").map(str::to_owned).unwrap_or(words);
    if words.is_empty() { "Falco ends with an error and says nothing".into() } else { words }
}

/// The first error of `falco -V` about a file.
fn blamed(json: &str, file: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(json.lines().find(|line| line.starts_with('{'))?).ok()?;
    let results = json.get("falco_load_results")?.as_array()?;
    let result = results.iter().find(|result| result.get("name").is_some_and(|name| name == file))?;
    let errors = result.get("errors")?.as_array()?;
    let locations = |error: &serde_json::Value| -> Vec<serde_json::Value> {
        error.pointer("/context/locations").and_then(|it| it.as_array().cloned()).unwrap_or_default()
    };
    let about = |error: &&serde_json::Value| {
        let locations = locations(error);
        locations.is_empty() || locations.iter().any(|at| at.pointer("/position/name").is_some_and(|name| name == file))
    };
    let error = errors.iter().find(about)?;
    let text = |field: &str| error.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
    let mut place = String::new();
    for at in &locations(error) {
        let item = at.get("item_name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let kind = at.get("item_type").and_then(serde_json::Value::as_str).unwrap_or_default();
        if !item.is_empty() && ["rule", "macro", "list"].contains(&kind) {
            let line = at.pointer("/position/line").and_then(serde_json::Value::as_u64).unwrap_or_default() + 1;
            place = format!("{kind} '{item}' (line {line}): ");
        }
    }
    Some(format!("{place}{} ({}): {}", text("code"), text("codedesc"), text("message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than a shell takes to start on a machine that is busy.
    const LONG: Duration = Duration::from_mins(1);

    async fn verdict(script: &str, limit: Duration) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("falco");
        test_cluster::write_program(&program, &format!("#!/bin/sh\n{script}\n")).unwrap();
        Checker { program, arguments: vec![], limit }.dry_run(Path::new("/x/check.yaml")).await.0
    }

    #[tokio::test]
    async fn every_end_of_a_check_has_its_verdict() {
        assert_eq!(verdict("exit 0", LONG).await, Verdict::Passed);
        let said = verdict("echo noise >&2; echo 'Error: x.yaml: Invalid' >&2; echo why >&2; exit 1", LONG).await;
        assert_eq!(said, Verdict::Refused("x.yaml: Invalid\nwhy".into()));
        assert_eq!(verdict("kill -SEGV $$", LONG).await, Verdict::Crashed("SIGSEGV".into()));
        assert!(matches!(verdict("sleep 600", Duration::from_millis(300)).await, Verdict::TimedOut(_)));
        let absent = Checker { program: "/nowhere/falco".into(), arguments: vec![], limit: LONG };
        assert!(matches!(absent.dry_run(Path::new("/x")).await.0, Verdict::NotRun(_)));
    }

    #[tokio::test]
    async fn a_check_that_takes_too_long_leaves_no_process_behind() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sh -c 'echo $$ > {}; exec sleep 600' & wait", pid.display());
        let mut limit = Duration::from_millis(300);
        let pid: i32 = loop {
            assert!(matches!(verdict(&script, limit).await, Verdict::TimedOut(_)));
            // A busy machine may need longer to start the two.
            match std::fs::read_to_string(&pid).ok().and_then(|text| text.trim().parse().ok()) {
                Some(pid) => break pid,
                None => limit *= 2,
            }
        };
        let gone = || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(Instant::now() < deadline, "the grandchild lives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn only_what_concerns_the_file_is_said() {
        let json = r#"noise
{"falco_load_results":[{"name":"/b.yaml","errors":[{"code":"X","codedesc":"x","message":"other","context":{"locations":[{"item_name":"","item_type":"rules content","position":{"line":0,"name":"/b.yaml"}}]}}]},{"name":"/s/a.yaml","errors":[{"code":"Y","codedesc":"y","message":"repeated","context":{"locations":[{"item_type":"rules content","position":{"line":0,"name":"/b.yaml"}}]}},{"code":"LOAD_ERR_COMPILE_CONDITION","codedesc":"Error compiling condition","message":"nonexistent field proc.nosuch","context":{"locations":[{"item_name":"","item_type":"rules content","position":{"line":0,"name":"/s/a.yaml"}},{"item_name":"r","item_type":"rule","position":{"line":4,"name":"/s/a.yaml"}}]}}]}]}"#;
        let said =
            "rule 'r' (line 5): LOAD_ERR_COMPILE_CONDITION (Error compiling condition): nonexistent field proc.nosuch";
        assert_eq!(blamed(json, "/s/a.yaml").as_deref(), Some(said));
        assert_eq!(blamed("", "/s/a.yaml"), None);
        assert_eq!(blamed(json, "/s/c.yaml"), None);
    }
}
