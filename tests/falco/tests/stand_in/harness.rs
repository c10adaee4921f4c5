//! A running stand-in in a folder of its own.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Waits for a condition, and says which one did not come true.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A rule that is sound.
pub fn rule(name: &str) -> String {
    described(name, "d")
}

/// A rule with this description.
pub fn described(name: &str, desc: &str) -> String {
    format!(
        "- rule: {name}\n  desc: \"{desc}\"\n  condition: evt.type = open and proc.name = a\n  output: o {name} %proc.name\n  priority: INFO\n"
    )
}

/// A rule that names a field that does not exist.
pub fn bad(name: &str) -> String {
    rule(name).replace("proc.name = a", "proc.nosuch = a")
}

/// A folder with a falco.yaml, a `rules` folder, a `control` folder and a port that nobody else gets.
pub struct Place {
    folder: tempfile::TempDir,
    pub port: u16,
    _reservation: Socket,
}

impl Place {
    /// With these lines of falco.yaml, where `DIR` stands for the folder.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Bound but not listening: the port stays ours, and shared use is what Falco asks for.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let place = Self { folder, port, _reservation: socket };
        fs::create_dir(place.path("rules")).unwrap();
        fs::create_dir(place.path("control")).unwrap();
        place.write("falco.yaml", &format!("{}{config}", place.usual()));
        place
    }

    /// With the folder `rules` as its only entry.
    pub fn watching_folder() -> Self {
        Self::new("rules_files: [DIR/rules]\n")
    }

    /// What every falco.yaml here has.
    pub fn usual(&self) -> String {
        format!(
            "engine: {{kind: nodriver}}\nstdout_output: {{enabled: true}}\nlog_stderr: true\n\
             webserver: {{enabled: true, listen_port: {}, listen_address: 127.0.0.1, prometheus_metrics_enabled: true}}\n\
             metrics: {{enabled: true, interval: 1h}}\n",
            self.port
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// In place, `DIR` replaced.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text.replace("DIR", self.folder.path().to_str().unwrap())).unwrap();
    }

    /// By rename.
    pub fn place(&self, name: &str, text: &str) {
        let temporary = self.path("temporary");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, self.path(name)).unwrap();
    }

    /// A symlink, by rename.
    pub fn link(&self, name: &str, target: &str) {
        let temporary = self.path("temporary-link");
        std::os::unix::fs::symlink(self.path(target), &temporary).unwrap();
        fs::rename(&temporary, self.path(name)).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_falco-stand-in"));
        command
            .arg("-c")
            .arg(self.path("falco.yaml"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("FALCO_STAND_IN_CONTROL", self.path("control"))
            .env("FALCO_HOSTNAME", "node-1")
            .env_remove("NODE_NAME")
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts, without waiting for anything.
    pub fn spawn(&self, arguments: &[&str]) -> Running<'_> {
        let file = |name: &str| fs::File::create(self.path(name)).unwrap();
        let child = self.command(arguments).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Running { place: self, child }
    }

    /// Starts, and waits for its metrics.
    pub fn start(&self, arguments: &[&str]) -> Running<'_> {
        let mut running = self.spawn(arguments);
        until("the first page of metrics", || {
            assert!(running.child.try_wait().unwrap().is_none(), "it ended: {}", running.stderr());
            running.metrics().is_some()
        });
        running
    }
}

/// A started stand-in; killed when dropped.
pub struct Running<'a> {
    pub place: &'a Place,
    pub child: Child,
}

impl Running<'_> {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.place.path("stderr")).unwrap()
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.place.path("stdout")).unwrap()
    }

    /// How many loads, dry runs included, have begun.
    pub fn loads(&self) -> usize {
        self.stderr().matches("Loading rules from:").count()
    }

    pub fn restarts(&self) -> usize {
        self.stderr().matches("SIGHUP received, restarting...").count()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits for its end by a signal.
    pub fn ended_by(&mut self) -> Option<i32> {
        self.ended().signal()
    }

    /// A page's status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.place.port, path)
    }

    pub fn metrics(&self) -> Option<Page> {
        self.get("/metrics").filter(|(status, _)| *status == 200).map(|(_, body)| Page(body))
    }

    /// The page once its reload timestamp differs from this one.
    pub fn reloaded_since(&self, page: &Page) -> Page {
        let mut new = None;
        until("a reload", || {
            new = self.metrics().filter(|new| new.reload() != page.reload());
            new.is_some()
        });
        new.unwrap()
    }

    pub fn page(&self) -> Page {
        self.metrics().expect("a page of metrics")
    }

    /// The inodes that it watches.
    pub fn watched(&self) -> Vec<u64> {
        let folder = PathBuf::from(format!("/proc/{}/fdinfo", self.pid()));
        let infos = fs::read_dir(folder).unwrap().filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
        let mut inodes = Vec::new();
        for info in infos {
            for line in info.lines().filter(|line| line.starts_with("inotify ")) {
                let inode = line.split(' ').find_map(|word| word.strip_prefix("ino:")).unwrap();
                inodes.push(u64::from_str_radix(inode, 16).unwrap());
            }
        }
        inodes
    }

    pub fn watches(&self, name: &str) -> bool {
        self.watched().contains(&fs::metadata(self.place.path(name)).unwrap().ino())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` when nobody listens or the connection breaks off.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: falco\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A page of metrics.
pub struct Page(pub String);

impl Page {
    pub fn samples(&self, family: &str) -> Vec<&str> {
        self.0.lines().filter(|line| line.starts_with(family)).collect()
    }

    fn value(&self, family: &str) -> &str {
        self.samples(family)[0].rsplit(' ').next().unwrap()
    }

    pub fn reload(&self) -> &str {
        self.value("falcosecurity_falco_reload_timestamp_nanoseconds")
    }

    pub fn start(&self) -> &str {
        self.value("falcosecurity_falco_start_timestamp_nanoseconds")
    }

    /// Hash by file name, of rules files.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        let part = |line: &str, label: &str| {
            line.split_once(&format!("{label}=\"")).unwrap().1.split('"').next().unwrap().to_owned()
        };
        let samples = self.samples("falcosecurity_falco_sha256_rules_files_info");
        samples.iter().map(|line| (part(line, "file_name"), part(line, "sha256"))).collect()
    }
}

/// As `sha256sum` would say.
pub fn sha256(path: &Path) -> String {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    let mut hex = String::new();
    for byte in sha2::Sha256::digest(fs::read(path).unwrap()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Both as text.
pub fn texts(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}
