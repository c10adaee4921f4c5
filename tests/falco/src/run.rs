//! Running: start, reload inside the process, the signals, the end.

use crate::alert::{Alerts, Event};
use crate::control::{self, Control, Phase};
use crate::load::{self, Invocation, Loaded};
use crate::log;
use crate::watch::{Watcher, wake};
use crate::web::{Pages, Server};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From the last service of the old run to the first act of the new one.
const TEARDOWN: Duration = Duration::from_millis(100);
/// From serving to `/metrics`.
const OPENING: Duration = Duration::from_millis(10);
/// For threads that hardly do anything.
const SMALL_STACK: usize = 256 << 10;
/// How often the control folder is looked at.
const LOOK: u16 = 50;

/// The signals that Falco handles while it runs and that kill it while it loads.
pub fn handled() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
        set.add(signal);
    }
    set
}

enum End {
    Terminated,
    Restart,
}

/// Runs until a signal ends it; the exit code.
pub fn run(invocation: &Invocation, control: &Control) -> u8 {
    let process_started = log::nanoseconds();
    if let Some(code) = control.number("exit-at-start", 1) {
        return code as u8;
    }
    loop {
        // Nobody handles the signals while a load is under way: then they do what they do by default.
        let _ = handled().thread_unblock();
        let loaded = match load::load(invocation, control, Phase::Load) {
            Ok(loaded) => loaded,
            Err(failure) => {
                log::raw(&format!("{}\n", failure.message.trim_end()));
                return 1;
            }
        };
        let _ = handled().thread_block();
        match serve(loaded, invocation, control, process_started) {
            Ok(End::Terminated) => return 0,
            Ok(End::Restart) => {}
            Err(message) => {
                log::raw(&format!("Error: {message}\n"));
                return 1;
            }
        }
    }
}

/// Threads of one run, told to stop by a byte and waited for.
struct Helper {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    fn spawn(stack: usize, stop: UnixStream, work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new().stack_size(stack).spawn(work)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// For work that needs little and is given what tells it to stop.
    fn small(work: impl FnOnce(UnixStream) + Send + 'static) -> std::io::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        Self::spawn(SMALL_STACK, stop, move || work(stopped))
    }

    fn send(&mut self, byte: u8) {
        let _ = self.stop.write_all(&[byte]);
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.send(wake::STOP);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(loaded: Loaded, invocation: &Invocation, control: &Control, process_started: u128) -> Result<End, String> {
    let words = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let crash_after = loaded.crash_after;
    let config = loaded.config.clone();
    let alerts = Arc::new(Alerts::new(loaded, control.node()));
    let counts = {
        let control = control.clone();
        Box::new(move || control.counts())
    };
    let withheld = {
        let control = control.clone();
        Box::new(move || control.on("no-metrics"))
    };
    let pages = Arc::new(Pages {
        alerts: Arc::clone(&alerts),
        process_started,
        open: AtomicBool::new(false),
        withheld,
        counts,
    });
    let signals = SignalFd::with_flags(&handled(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| format!("signalfd: {error}"))?;
    let (mut restart_sender, restart) = UnixStream::pair().map_err(words("socketpair"))?;

    let mut watcher = None;
    if config.watch {
        let (wakes, woken) = UnixStream::pair().map_err(words("socketpair"))?;
        let watching = Watcher::new(alerts.loaded(), woken)?;
        let (invocation, control, alerts) = (invocation.clone(), control.clone(), Arc::clone(&alerts));
        let work = move || {
            if watching.run(&control, &mut || dry_run(&invocation, &control, &alerts)) {
                let _ = restart_sender.write_all(b"r");
            }
        };
        // The dry run compiles conditions, whose nesting takes stack.
        watcher = Some(Helper::spawn(crate::STACK, wakes, work).map_err(words("watcher"))?);
    }
    let server = if config.web.enabled && !control.on("never-serve") {
        let server = Server::start(&config.web, Arc::clone(&pages)).map_err(words("unable to create webserver"))?;
        log::line(&format!("Starting health webserver with threadiness 2, listening on {}", server.address));
        Some(server)
    } else {
        None
    };
    log::line("Loaded event sources: syscall");
    log::line("Enabled event sources: syscall");
    let helpers =
        spawn_events(control, &alerts, &pages, crash_after, config.snapshot_every).map_err(words("helper thread"))?;
    log::line(&format!("Opening 'syscall' source with {}", engine_words(&config.engine)));

    let end = wait(&signals, &restart, &mut watcher);
    if matches!(end, End::Restart) {
        log::line("SIGHUP received, restarting...");
    }
    drop(server);
    drop(watcher);
    drop(helpers);
    std::thread::sleep(control.number("teardown", 0).map_or(TEARDOWN, Duration::from_millis));
    Ok(end)
}

fn engine_words(engine: &str) -> &str {
    match engine {
        "modern_ebpf" => "modern BPF probe.",
        "nodriver" => "no driver",
        other => other,
    }
}

/// The dry run before a hot reload; failing, it is one alert and nothing else.
fn dry_run(invocation: &Invocation, control: &Control, alerts: &Alerts) -> bool {
    match load::load(invocation, control, Phase::Check) {
        Ok(_) => true,
        Err(failure) => {
            alerts.internal("Falco internal: hot restart failure", 2, &failure.alert, serde_json::Map::new());
            false
        }
    }
}

/// Until a signal or the watcher ends this run.
fn wait(signals: &SignalFd, restart: &UnixStream, watcher: &mut Option<Helper>) -> End {
    loop {
        let mut fds =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(restart.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let ready = |fd: &PollFd| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
        let (signalled, restarted) = (ready(&fds[0]), ready(&fds[1]));
        if signalled && let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGHUP) => {
                    // Without a watcher the signal is swallowed.
                    if let Some(watcher) = watcher {
                        watcher.send(wake::FORCED);
                    }
                }
                Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                    log::line(&format!("{signal} received, exiting..."));
                    return End::Terminated;
                }
                _ => {}
            }
        }
        if restarted {
            return End::Restart;
        }
    }
}

/// The thread that opens the metrics page, lets told events happen, and dies when told to.
fn spawn_events(
    control: &Control,
    alerts: &Arc<Alerts>,
    pages: &Arc<Pages>,
    crash_after: Option<Duration>,
    snapshot_every: Option<Duration>,
) -> std::io::Result<Vec<Helper>> {
    let mut helpers = Vec::new();
    let open = Arc::clone(pages);
    helpers.push(Helper::small(move |stopped| {
        if !pause(&stopped, OPENING) {
            open.open.store(true, Ordering::Release);
        }
    })?);
    if let Some(delay) = crash_after {
        helpers.push(Helper::small(move |stopped| {
            if !pause(&stopped, delay) {
                control::crash();
            }
        })?);
    }
    if let Some(interval) = snapshot_every {
        let alerts = Arc::clone(alerts);
        helpers.push(Helper::small(move |stopped| {
            while !pause(&stopped, interval) {
                let mut fields = serde_json::Map::new();
                fields.insert("falco.version".to_owned(), "0.44.1".into());
                fields.insert("falco.reload_ts".to_owned(), (alerts.loaded().started as u64).into());
                alerts.internal("Falco internal: metrics snapshot", 6, "", fields);
            }
        })?);
    }
    if control.folder().is_some() {
        let (control, alerts) = (control.clone(), Arc::clone(alerts));
        helpers.push(Helper::small(move |stopped| {
            while !pause(&stopped, Duration::from_millis(u64::from(LOOK))) {
                if control.take("crash-now") {
                    control::crash();
                }
                for event in told_events(&control) {
                    alerts.happened(&event);
                }
            }
        })?);
    }
    Ok(helpers)
}

/// Waits; whether it was told to stop meanwhile.
fn pause(stopped: &UnixStream, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let milliseconds = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        let mut fds = [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) if Instant::now() >= deadline => return false,
            Ok(0) | Err(_) => {}
            Ok(_) => {
                let mut byte = [0];
                let _ = (&*stopped).read(&mut byte);
                return true;
            }
        }
    }
}

/// Reads and removes the files `match*` of the control folder.
fn told_events(control: &Control) -> Vec<Event> {
    let mut events = Vec::new();
    let entries = control.folder().and_then(|folder| std::fs::read_dir(folder).ok());
    for entry in entries.into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with("match") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        if std::fs::remove_file(entry.path()).is_ok() {
            events.extend(text.lines().filter_map(Event::parse));
        }
    }
    events
}
