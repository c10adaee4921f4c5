//! Falco as a child process: started, watched, restarted with backoff, ended in order.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::check::{self, died};
use super::leftover;
use super::{Observer, cut};

/// Between an end and the next start: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// A process that lived this long did not fail at its start.
const LIVED: Duration = Duration::from_secs(60);
/// The lines that are kept of what Falco logs, for the message of its death.
const TAIL: usize = 30;
/// The bytes of a line that are passed on at once.
const LINE: u64 = 64 * 1024;

/// How Falco is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where its web server will be; `None` where it has to be given a port on the loopback interface.
    pub page: Option<SocketAddr>,
    /// Whether it has to be given one.
    pub own_page: bool,
}

/// How Falco is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The process, while there is one.
    pub pid: Option<i32>,
    /// Where its web server should be.
    pub page: Option<SocketAddr>,
    /// How often it was started.
    pub starts: u64,
    /// How often it ended without being told to.
    pub deaths: u64,
    /// How often so in a row, soon after its start.
    pub in_a_row: u32,
    /// How it ended last, with what it said.
    pub last_end: Option<String>,
    /// Whether that was somebody else's doing: a signal that Falco does not send itself, or an end in order that nobody
    /// here asked for. It says nothing about rules.
    pub killed: bool,
}

enum Order {
    Start(Box<Spec>),
    Stop(oneshot::Sender<u8>),
    Restarts(bool),
    Signal(Signal),
}

/// A handle on the task that has the child.
#[derive(Clone, Debug)]
pub struct Supervisor {
    orders: mpsc::UnboundedSender<Order>,
    /// How Falco is.
    pub status: watch::Receiver<Status>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

impl Supervisor {
    /// A supervisor without a process yet. `state` is where it notes which process is its own.
    pub fn new(state: &Path, grace: Duration, observer: Arc<dyn Observer>) -> Self {
        let (orders, orders_rx) = mpsc::unbounded_channel();
        let (status_tx, status) = watch::channel(Status::default());
        let task = Task {
            status: status_tx,
            note: state.join(".falco.json"),
            grace,
            observer,
            spec: None,
            restarts: true,
            child: None,
            next: None,
            delay: BACKOFF.0,
        };
        tokio::spawn(task.run(orders_rx));
        Self { orders, status }
    }

    /// Starts Falco, or does nothing but note the specification where it runs.
    pub fn start(&self, spec: Spec) {
        // The task lives as long as a handle does.
        let _ = self.orders.send(Order::Start(Box::new(spec)));
    }

    /// Ends Falco: SIGTERM, a time of grace, SIGKILL. Its exit code, 128 and the signal where it was killed, 0 where
    /// there is none.
    pub async fn stop(&self) -> u8 {
        let (tell, told) = oneshot::channel();
        let _ = self.orders.send(Order::Stop(tell));
        told.await.unwrap_or_default()
    }

    /// Whether an end that nobody asked for is followed by a new start.
    pub fn restarts(&self, on: bool) {
        let _ = self.orders.send(Order::Restarts(on));
    }

    /// Passes a signal on.
    pub fn signal(&self, signal: Signal) {
        let _ = self.orders.send(Order::Signal(signal));
    }
}

struct Running {
    child: Child,
    since: Instant,
    tail: Tail,
}

struct Task {
    status: watch::Sender<Status>,
    note: PathBuf,
    grace: Duration,
    observer: Arc<dyn Observer>,
    spec: Option<Spec>,
    restarts: bool,
    child: Option<Running>,
    next: Option<Instant>,
    delay: Duration,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let wait = self.next.map(|at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                order = orders.recv() => match order {
                    None => break,
                    Some(Order::Start(spec)) => {
                        self.spec = Some(*spec);
                        if self.child.is_none() {
                            self.delay = BACKOFF.0;
                            self.spawn();
                        }
                    }
                    Some(Order::Stop(tell)) => {
                        self.spec = None;
                        self.next = None;
                        let _ = tell.send(self.end().await);
                    }
                    Some(Order::Restarts(on)) => {
                        self.restarts = on;
                        if on && self.child.is_none() && self.spec.is_some() && self.next.is_none() {
                            self.next = Some(Instant::now());
                        }
                    }
                    Some(Order::Signal(signal)) => self.signal(signal),
                },
                status = ended(&mut self.child) => self.died(status),
                () = pause(wait) => {
                    self.next = None;
                    self.observer.falco_restarted();
                    self.spawn();
                }
            }
        }
        self.end().await;
    }

    fn spawn(&mut self) {
        let Some(spec) = &self.spec else { return };
        let mut command = Command::new(&spec.program);
        command.args(&spec.arguments).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let page = if spec.own_page { free_port().map(|port| (Ipv4Addr::LOCALHOST, port).into()) } else { spec.page };
        if let (true, Some(page)) = (spec.own_page, page) {
            command.arg("-o").arg(format!("webserver.listen_port={}", page.port()));
        }
        match command.spawn() {
            Ok(mut child) => {
                let tail = Tail::default();
                if let Some(stderr) = child.stderr.take() {
                    tokio::spawn(forward(stderr, tail.clone()));
                }
                let pid = child.id().map(|pid| pid as i32);
                leftover::note(&self.note, pid);
                tracing::info!(pid, program = %spec.program.display(), "Falco started");
                self.child = Some(Running { child, since: Instant::now(), tail });
                self.status.send_modify(|status| {
                    status.pid = pid;
                    status.page = page;
                    status.starts += 1;
                });
            }
            Err(error) => {
                self.failed(format!("{} can't be started: {error}", spec.program.display()), false, Duration::ZERO);
            }
        }
    }

    fn died(&mut self, status: std::io::Result<ExitStatus>) {
        let Some(running) = self.child.take() else { return };
        let killed = status.as_ref().is_ok_and(|status| by_others(*status));
        let how = status.map_or_else(|error| error.to_string(), in_words);
        let said = running.tail.error();
        let gap = if said.is_empty() { "" } else { ": " };
        self.failed(format!("Falco {how}{gap}{said}"), killed, running.since.elapsed());
    }

    fn failed(&mut self, message: String, killed: bool, lived: Duration) {
        tracing::warn!("{}", cut(&message, 2048));
        leftover::note(&self.note, None);
        if lived >= LIVED {
            self.delay = BACKOFF.0;
        }
        if self.spec.is_some() && self.restarts {
            self.next = Some(Instant::now() + self.delay);
            self.delay = (self.delay * 2).min(BACKOFF.1);
        }
        self.status.send_modify(|status| {
            status.pid = None;
            status.page = None;
            status.deaths += 1;
            status.in_a_row = if lived >= LIVED { 1 } else { status.in_a_row + 1 };
            status.last_end = Some(message);
            status.killed = killed;
        });
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().and_then(|running| running.child.id()) {
            let _ = kill(Pid::from_raw(pid as i32), signal);
        }
    }

    async fn end(&mut self) -> u8 {
        self.signal(Signal::SIGTERM);
        let Some(mut running) = self.child.take() else { return 0 };
        let status = if let Ok(status) = timeout(self.grace, running.child.wait()).await {
            status
        } else {
            tracing::warn!(seconds = self.grace.as_secs(), "Falco does not end when told to, killing it");
            let _ = running.child.start_kill();
            running.child.wait().await
        };
        leftover::note(&self.note, None);
        self.status.send_modify(|status| {
            status.pid = None;
            status.page = None;
            status.in_a_row = 0;
        });
        status.map_or(1, |status| {
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()) as u8
        })
    }
}

fn in_words(status: ExitStatus) -> String {
    died(status).map_or_else(
        || format!("ended with exit code {}", status.code().unwrap_or_default()),
        |signal| format!("died of {signal}"),
    )
}

/// Whether an end was somebody else's doing: the kernel's for want of memory, or a person's.
fn by_others(status: ExitStatus) -> bool {
    const SENT: [Signal; 5] = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    status.success() || signal.is_some_and(|signal| SENT.iter().any(|sent| *sent as i32 == signal))
}

async fn ended(child: &mut Option<Running>) -> std::io::Result<ExitStatus> {
    match child {
        Some(running) => running.child.wait().await,
        None => std::future::pending().await,
    }
}

async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// The last lines of what Falco logs.
#[derive(Clone, Debug, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The error among them, if there is one.
    fn error(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        if text.contains("rror:") { check::error(&text) } else { String::new() }
    }
}

/// Passes Falco's log on, line by line. Its alerts go to the standard output, which it has directly: nothing of ours is
/// in their way.
async fn forward(stderr: ChildStderr, tail: Tail) {
    let mut lines = BufReader::new(stderr);
    let mut own = tokio::io::stderr();
    let mut line = Vec::new();
    // A line without an end is passed on in pieces.
    while let Ok(1..) = (&mut lines).take(LINE).read_until(b'\n', &mut line).await {
        // Where our own can't be written, Falco must not wait for it.
        let _ = own.write_all(&line).await;
        tail.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// A port of the loopback interface that nobody has, below those that the kernel gives to outgoing connections: Falco
/// closes and opens it at each reload, and must find it free.
fn free_port() -> Option<u16> {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let start = (seed ^ std::process::id().wrapping_mul(2_654_435_761)) % 20_000;
    let ports = (0..20_000_u32).map(|step| 10_240 + (start + step * 7) % 20_000);
    ports.filter_map(|port| u16::try_from(port).ok()).find(|port| {
        // Bound everywhere and listening, so that no other listener, whatever its options, goes unnoticed.
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(std::sync::atomic::AtomicU32);

    impl Observer for Counting {
        fn falco_restarted(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn shell(script: &str) -> Spec {
        Spec { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], page: None, own_page: false }
    }

    fn supervisor(state: &tempfile::TempDir, grace: Duration) -> (Supervisor, Arc<Counting>) {
        let counting = Arc::new(Counting(0.into()));
        (Supervisor::new(state.path(), grace, Arc::clone(&counting) as _), counting)
    }

    #[tokio::test]
    async fn a_process_that_ends_is_started_again_unless_told_not_to() {
        let state = tempfile::tempdir().unwrap();
        let (mut falco, counting) = supervisor(&state, Duration::from_secs(5));
        falco.start(shell("echo 'Error: what was wrong' >&2; exit 3"));
        let status = falco.status.wait_for(|status| status.deaths >= 2).await.unwrap().clone();
        let end = status.last_end.unwrap();
        assert!(end.contains("exit code 3") && status.in_a_row >= 2, "{end}");
        assert!(counting.0.load(std::sync::atomic::Ordering::Relaxed) >= 1);
        falco.restarts(false);
        let deaths = falco.status.wait_for(|status| status.pid.is_none()).await.unwrap().deaths;
        falco.start(shell("kill -KILL $$"));
        let status = falco.status.wait_for(|status| status.deaths > deaths).await.unwrap().clone();
        assert!(status.last_end.unwrap().contains("SIGKILL") && status.killed);
        let mut deaths = status.deaths;
        for (script, killed) in [("kill -ABRT $$", false), ("exit 1", false), ("exit 0", true)] {
            falco.start(shell(script));
            let status = falco.status.wait_for(|status| status.deaths > deaths && status.pid.is_none()).await.unwrap();
            assert_eq!(status.killed, killed, "{script}");
            deaths = status.deaths;
        }
        assert_eq!(falco.stop().await, 0);
    }

    #[tokio::test]
    async fn an_end_in_order_is_a_signal_and_only_then_a_kill() {
        let state = tempfile::tempdir().unwrap();
        let ready = state.path().join("ready");
        for (script, grace, code) in [
            (format!("trap 'exit 7' TERM; touch {}; while :; do sleep 0.01; done", ready.display()), 60_000, 7),
            (format!("trap '' TERM; touch {}; while :; do sleep 0.01; done", ready.display()), 200, 137),
        ] {
            let (mut falco, _) = supervisor(&state, Duration::from_millis(grace));
            falco.start(shell(&script));
            falco.status.wait_for(|status| status.pid.is_some()).await.unwrap();
            while !ready.exists() {
                sleep(Duration::from_millis(5)).await;
            }
            std::fs::remove_file(&ready).unwrap();
            assert_eq!(falco.stop().await, code);
        }
    }

    #[test]
    fn a_free_port_is_one_that_can_be_bound() {
        let port = free_port().unwrap();
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!((10_240..30_240).contains(&port));
        drop(held);
    }
}
