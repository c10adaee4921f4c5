//! A node in a folder: a base configuration, the agent's folder, a Falco, and an engine that has both.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use falco_operator::agent::engine::{Engine, EngineOptions, Observer, ReloadOutcome, Step};
use falco_operator::agent::{RulesText, Running, Wanted, WantedFile};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far longer than anything takes; what is tested is what happens, not when.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node.
pub struct Place {
    folder: tempfile::TempDir,
}

/// An engine at work on a node.
pub struct Agent {
    pub wanted: watch::Sender<Wanted>,
    pub running: watch::Receiver<Running>,
    pub engine: Engine,
    pub seen: Arc<Seen>,
    shutdown: CancellationToken,
}

/// What an engine told.
#[derive(Default)]
pub struct Seen {
    pub reloads: Mutex<Vec<ReloadOutcome>>,
    pub steps: Mutex<Vec<Step>>,
}

impl Observer for Seen {
    fn reloaded(&self, outcome: ReloadOutcome, _took: Duration) {
        self.reloads.lock().unwrap().push(outcome);
    }

    fn step(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
    }
}

impl Seen {
    pub fn count(&self, outcome: ReloadOutcome) -> usize {
        self.reloads.lock().unwrap().iter().filter(|it| **it == outcome).count()
    }
}

/// The stand-in, built once.
pub fn stand_in() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let out = Command::new(cargo)
            .args(["build", "--quiet", "--package", "falco-stand-in", "--message-format=json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let mut messages = out.stdout.split(|byte| *byte == b'\n');
        let executable = messages.find_map(|line| {
            let message: serde_json::Value = serde_json::from_slice(line).ok()?;
            (message["target"]["name"] == "falco-stand-in")
                .then(|| message["executable"].as_str().map(PathBuf::from))?
        });
        executable.expect("cargo names the stand-in that it built")
    })
}

/// A sound rule.
pub fn rule(name: &str) -> String {
    described(name, "d")
}

/// A rule with this description.
pub fn described(name: &str, desc: &str) -> String {
    format!(
        "- rule: {name}\n  desc: \"{desc}\"\n  condition: evt.type = open and proc.name = a\n  output: o %proc.name\n  \
         priority: WARNING\n"
    )
}

/// A rule that Falco refuses.
pub fn bad(name: &str) -> String {
    rule(name).replace("proc.name = a", "proc.nosuch = a")
}

/// A rules file; its rules' names are read from it, and each comes from a `FalcoRule` of the name with `-object`.
pub fn text(text: &str) -> RulesText {
    let names = text.lines().filter_map(|line| line.strip_prefix("- rule: "));
    let rules = names.map(|name| (name.to_owned(), format!("{name}-object"))).collect();
    RulesText { hash: hash(text.as_bytes()), text: text.to_owned(), rules }
}

pub fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A file on its way.
pub fn rollout(target: &str, last_good: Option<&str>) -> WantedFile {
    WantedFile { target: Some(text(target)), last_good: last_good.map(text), since: Some(Timestamp::UNIX_EPOCH) }
}

/// A file that has arrived.
pub fn settled(target: &str) -> WantedFile {
    WantedFile { target: Some(text(target)), last_good: None, since: None }
}

pub fn wanted<const N: usize>(files: [(&str, WantedFile); N]) -> Wanted {
    Wanted { files: files.into_iter().map(|(ns, file)| (ns.to_owned(), file)).collect(), synced: true }
}

impl Place {
    /// With a base that lists one rules file.
    pub fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["etc", "control"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        place.write("etc/base_rules.yaml", &rule("base"));
        place.base("rules_files:\n  - DIR/etc/base_rules.yaml\n");
        let script = format!(
            "#!/bin/sh\nexport FALCO_STAND_IN_CONTROL={}\nexec {} \"$@\"\n",
            place.path("control").display(),
            stand_in().display()
        );
        place.write("falco", &script);
        fs::set_permissions(place.path("falco"), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    /// Writes the base configuration: what each has, and these lines, in which `DIR` stands for the node's folder.
    pub fn base(&self, lines: &str) {
        let usual = "engine: {kind: nodriver}\nstdout_output: {enabled: true}\nlog_stderr: false\n";
        self.write("etc/falco.yaml", &format!("{usual}{}", self.here(lines)));
    }

    pub fn here(&self, text: &str) -> String {
        text.replace("DIR", &self.folder.path().display().to_string())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Puts a file into place as a whole.
    pub fn replace(&self, name: &str, text: &str) {
        let draft = self.path("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path(name)).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn options(&self) -> EngineOptions {
        let mut options = EngineOptions::new(self.path("state"), self.path("etc/falco.yaml"));
        options.command = vec![self.path("falco").display().to_string()];
        options.confirm_timeout = Duration::from_secs(3);
        options.grace = Duration::from_secs(5);
        options
    }

    pub fn start(&self) -> Agent {
        Agent::start(self.options(), Wanted::default())
    }

    /// The set in force.
    pub fn current(&self) -> PathBuf {
        self.path("state").join(fs::read_link(self.path("state/current")).unwrap())
    }

    /// The process that was noted as ours.
    pub fn falco(&self) -> Option<i32> {
        let noted = fs::read(self.path("state/.falco.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&noted).ok()?["pid"].as_i64()?.try_into().ok()
    }

    /// The files of namespaces in force, with their hashes.
    pub fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.path("state/rules")).unwrap();
        let file = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            (name.trim_end_matches(".yaml").to_owned(), hash(&fs::read(entry.path()).unwrap()))
        };
        entries.map(|entry| file(entry.unwrap())).collect()
    }
}

impl Agent {
    pub fn start(options: EngineOptions, first: Wanted) -> Self {
        let (wanted, wanted_rx) = watch::channel(first);
        let seen = Arc::new(Seen::default());
        let shutdown = CancellationToken::new();
        let engine = Engine::start(options, wanted_rx, Arc::clone(&seen) as _, shutdown.clone());
        Self { wanted, running: engine.running.clone(), engine, seen, shutdown }
    }

    /// Asks for these files.
    pub fn want<const N: usize>(&self, files: [(&str, WantedFile); N]) {
        self.wanted.send_replace(wanted(files));
    }

    /// Waits until what is told is so.
    pub async fn until(&mut self, what: &str, so: impl Fn(&Running) -> bool) -> Running {
        let found = timeout(PATIENCE, self.running.wait_for(|running| so(running))).await.map(|it| it.unwrap().clone());
        found.unwrap_or_else(|_| panic!("waited in vain for {what}: {:#?}", self.engine.running.borrow().clone()))
    }

    /// Waits until nothing is under way, and this is what runs.
    pub async fn settled(&mut self, files: &[(&str, &str)]) -> Running {
        let files: BTreeMap<_, _> = files.iter().map(|(ns, it)| ((*ns).to_owned(), hash(it.as_bytes()))).collect();
        self.until(&format!("{:?}", files.keys()), |running| running.settled && running.loaded == files).await
    }

    /// Ends it in order; Falco's exit code.
    pub async fn stop(self) -> u8 {
        self.shutdown.cancel();
        self.ended().await
    }

    async fn ended(self) -> u8 {
        let ended: JoinHandle<u8> = self.engine.ended;
        timeout(PATIENCE, ended).await.expect("the engine ends").unwrap()
    }
}
