//! A node in a folder: a base configuration, the agent's folder, a Falco, and an engine that has both.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use falco_operator::agent::engine::{Engine, EngineOptions, Observer, ReloadOutcome, Step};
use falco_operator::agent::{RulesText, Running, Wanted, WantedFile};
use falco_operator::api::Proof;
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use test_cluster::stand_in;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far longer than anything takes; what is tested is what happens, not when.
const PATIENCE: Duration = Duration::from_mins(3);

/// A node.
pub struct Place {
    folder: PathBuf,
    /// Removes it in the end, where it is this process' own.
    _own: Option<tempfile::TempDir>,
}

/// An engine at work on a node.
pub struct Agent {
    pub wanted: watch::Sender<Wanted>,
    pub running: watch::Receiver<Running>,
    pub engine: Engine,
    pub seen: Arc<Seen>,
    shutdown: CancellationToken,
}

/// What is done at a step, before the engine goes on.
type AtStep = Box<dyn FnMut(Step) + Send>;

/// What an engine told.
#[derive(Default)]
pub struct Seen {
    pub reloads: Mutex<Vec<ReloadOutcome>>,
    pub steps: Mutex<Vec<Step>>,
    at_step: Mutex<Option<AtStep>>,
}

impl Observer for Seen {
    fn reloaded(&self, outcome: ReloadOutcome, _took: Duration) {
        self.reloads.lock().unwrap().push(outcome);
    }

    fn step(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
        if let Some(act) = self.at_step.lock().unwrap().as_mut() {
            act(step);
        }
    }
}

impl Seen {
    pub fn count(&self, outcome: ReloadOutcome) -> usize {
        self.reloads.lock().unwrap().iter().filter(|it| **it == outcome).count()
    }

    pub fn steps(&self, step: Step) -> usize {
        self.steps.lock().unwrap().iter().filter(|it| **it == step).count()
    }

    /// Does this at each step from now on, while the engine waits.
    pub fn at_step(&self, act: impl FnMut(Step) + Send + 'static) {
        *self.at_step.lock().unwrap() = Some(Box::new(act));
    }
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

/// The page of metrics of the Falco with this number; `None` while it has none.
pub fn page_of(pid: i32) -> Option<String> {
    let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).into_owned();
    let port = line.split('\0').rev().find_map(|word| word.strip_prefix("webserver.listen_port="))?.parse().ok()?;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    page.contains("sha256_rules_files_info").then_some(page)
}

impl Place {
    /// With a base that lists one rules file.
    pub fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let place = Self { folder: own.path().to_owned(), _own: Some(own) };
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
        test_cluster::write_program(&place.path("falco"), &script).unwrap();
        place
    }

    /// One that another process has made.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), _own: None }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the base configuration: what each has, and these lines, in which `DIR` stands for the node's folder.
    pub fn base(&self, lines: &str) {
        let usual = "engine: {kind: nodriver}\nstdout_output: {enabled: true}\nlog_stderr: false\n";
        self.write("etc/falco.yaml", &format!("{usual}{}", self.here(lines)));
    }

    pub fn here(&self, text: &str) -> String {
        text.replace("DIR", &self.folder.display().to_string())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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
        // Half of what is usual: some of the tests wait for it.
        options.confirm_timeout = Duration::from_secs(5);
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

    /// An agent that has one file of its own in force: rule `a` of namespace `a`.
    pub async fn running(&self) -> Agent {
        let mut agent = self.start();
        agent.want([("a", settled(&rule("a")))]);
        let running = agent.settled(&[("a", &rule("a"))]).await;
        assert_eq!((running.proof, running.fault), (Proof::Metrics, None));
        agent
    }

    /// The files of namespaces of the set in force, with their hashes; fails unless that set is whole.
    pub fn whole(&self) -> BTreeMap<String, String> {
        let set = self.current();
        let at = set.display();
        let read = |name: &str| fs::read(set.join(name)).unwrap_or_else(|err| panic!("{name} of {at}: {err}"));
        let manifest: serde_json::Value = serde_json::from_slice(&read("set.json")).unwrap();
        let pairs = |key: &str| -> Vec<(String, String)> { serde_json::from_value(manifest[key].clone()).unwrap() };
        for (name, expected) in pairs("config_hashes") {
            assert_eq!(hash(&read(&name)), expected, "{name} of {at}");
        }
        for (name, expected) in pairs("rules_hashes") {
            assert_eq!(hash(&read(&format!("rules/{name}"))), expected, "{name} of {at}");
        }
        let files = manifest["files"].as_object().unwrap();
        files.iter().map(|(name, file)| (name.clone(), file["hash"].as_str().unwrap().to_owned())).collect()
    }

    /// The processes that run as Falco with this configuration of the node; or any below it, if it is a folder.
    pub fn run_with(&self, config: &str) -> Vec<i32> {
        let option = format!("\0-c\0{}", self.path(config).display());
        let runs = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains(&option) && !line.contains("\0--dry-run\0") && !line.contains("\0-V\0")
        };
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        pids.filter(runs).collect()
    }

    /// The Falcos that run on what is in force.
    pub fn falcos(&self) -> Vec<i32> {
        self.run_with("state/falco.yaml")
    }

    /// The pages of all Falcos that run on anything of the agent's.
    pub fn pages(&self) -> Vec<String> {
        self.run_with("state/").into_iter().filter_map(page_of).collect()
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
