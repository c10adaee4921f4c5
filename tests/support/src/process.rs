//! Processes that end with the one that started them.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::guardian::Guardian;

/// How a process ended: what a container's status says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 and the signal's number where a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A child in a process group of its own, with its output in a file.
///
/// It dies with this program: on drop, and by the kernel's parent-death signal and the guardian if this program is
/// killed.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// True until the process was reaped; signals are sent under this lock, so never to somebody else's process.
    alive: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts `command` behind `setpriv`, which asks the kernel to kill it when this program dies.
    pub fn start(command: &[String], log: &Path, guardian: &Arc<Guardian>) -> Result<Self> {
        let name = command.first().cloned().unwrap_or_default();
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let out = open().with_context(|| format!("the log {} can't be written", log.display()))?;
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).args(command).env_remove("KUBECONFIG");
        wrapped.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let mut child = spawn(wrapped).with_context(|| format!("{name} could not be started"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        guardian.watch(pid);
        let alive = Arc::new(Mutex::new(true));
        let (tell, exit) = watch::channel(None);
        let (reaped, guardian) = (alive.clone(), guardian.clone());
        std::thread::Builder::new().name(format!("wait-{pid}")).spawn(move || {
            while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
            let mut alive = reaped.lock().unwrap_or_else(PoisonError::into_inner);
            // What it left behind in its group goes with it.
            let _ = signal::killpg(pid, Signal::SIGKILL);
            let status = child.wait();
            *alive = false;
            guardian.forget(pid);
            drop(alive);
            let ended = status.map_or(Exit { code: 255, signal: None }, |status| {
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                Exit { code: status.code().or(signal.map(|number| 128 + number)).unwrap_or(255), signal }
            });
            let _ = tell.send(Some(ended));
        })?;
        Ok(Self { pid, alive, exit })
    }

    /// The process's id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to the whole process group; nothing happens if it is gone.
    pub fn signal_group(&self, signal: Signal) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if *alive {
            let _ = signal::killpg(self.pid, signal);
        }
    }

    /// Calls `send` with the process's id if it is still there, and keeps it from being reaped meanwhile.
    pub fn while_alive<T>(&self, send: impl FnOnce(Pid) -> T) -> Option<T> {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.then(|| send(self.pid))
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(ended) => ended.unwrap_or(Exit { code: 255, signal: None }),
            Err(_) => Exit { code: 255, signal: None },
        }
    }

    /// Kills it and everything in its group, and waits until it is gone.
    pub fn kill(&self) {
        self.signal_group(Signal::SIGKILL);
        while self.exited().is_none() && *self.alive.lock().unwrap_or_else(PoisonError::into_inner) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Spawns from a thread that never ends: the parent-death signal fires when the *thread* that forked ends, and
/// those of tests and runtimes come and go.
fn spawn(command: Command) -> Result<std::process::Child> {
    type Order = (Command, mpsc::SyncSender<std::io::Result<std::process::Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, orders) = mpsc::channel::<Order>();
        let _ = std::thread::Builder::new().name("spawner".into()).spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        send
    });
    let (answer, child) = mpsc::sync_channel(1);
    spawner.send((command, answer)).ok().context("the thread that starts processes is gone")?;
    Ok(child.recv().context("the thread that starts processes is gone")??)
}

/// All processes below `root`, itself first, as `/proc` shows them now.
pub fn tree(root: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything; the fields after the last one can be split.
        let Some(parent) = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
        else {
            continue;
        };
        parents.push((pid, parent));
    }
    let mut found = vec![root.as_raw()];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent): &&(i32, i32)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}
