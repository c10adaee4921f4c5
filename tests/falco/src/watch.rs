//! Falco's restart handler: what it watches, when it checks, when it restarts.

use crate::control::Control;
use crate::load::Loaded;
use crate::log;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// What wakes the watcher besides file events: one byte each.
pub mod wake {
    /// SIGHUP.
    pub const FORCED: u8 = b'h';
    /// The end of this run.
    pub const STOP: u8 = b's';
}

/// The quiet time that a trigger must be followed by.
const QUIET: u16 = 100;

/// The watches of one run. They sit on inodes and are only renewed by the next run.
pub struct Watcher {
    inotify: Inotify,
    wakes: UnixStream,
}

impl Watcher {
    /// Watches what Falco would; what is absent now is never watched. A file that went between its load and now is
    /// fatal.
    pub fn new(loaded: &Loaded, wakes: UnixStream) -> Result<Self, String> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|error| format!("could not initialize inotify handler: {error}"))?;
        let file = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        let folder = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO;
        let add = |path: &PathBuf, mask| {
            inotify.add_watch(path, mask).map_err(|error| format!("could not watch {}: {error}", path.display()))
        };
        for path in loaded.config.hashed.iter().chain(&loaded.files) {
            add(path, file)?;
        }
        for path in loaded.config.folders.iter().chain(&loaded.folders) {
            add(path, folder)?;
        }
        Ok(Self { inotify, wakes })
    }

    /// Runs until a restart is due (true) or it is told to stop (false).
    ///
    /// `check` is the dry run. A trigger is followed by 100 ms of quiet, the check, and as much quiet again; a
    /// trigger in between starts over.
    pub fn run(mut self, control: &Control, check: &mut dyn FnMut() -> bool) -> bool {
        let (mut should_check, mut should_restart) = (false, false);
        loop {
            let timeout = if should_check || should_restart { PollTimeout::from(QUIET) } else { PollTimeout::NONE };
            let (files, woken) = {
                let mut fds = [
                    PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.wakes.as_fd(), PollFlags::POLLIN),
                ];
                match poll(&mut fds, timeout) {
                    Ok(_) => {}
                    Err(nix::errno::Errno::EINTR) => continue,
                    Err(_) => {
                        log::line("Failed select with inotify handler, shutting down watcher...");
                        return false;
                    }
                }
                let ready = |fd: &PollFd| fd.revents().is_some_and(|events| !events.is_empty());
                (ready(&fds[0]), ready(&fds[1]))
            };
            let mut triggered = files && self.drain();
            if woken {
                let mut bytes = [0_u8; 64];
                match self.wakes.read(&mut bytes) {
                    Ok(count) if count > 0 && !bytes.iter().take(count).any(|byte| *byte == wake::STOP) => {
                        triggered = true;
                    }
                    _ => return false,
                }
            }
            if triggered && control.take("ignore-next-trigger") {
                continue;
            }
            if triggered {
                should_check = true;
                should_restart = false;
            } else if should_check {
                should_check = false;
                should_restart = check();
            } else if should_restart {
                return true;
            }
        }
    }

    /// Takes the waiting events; whether there were any, of whatever kind.
    fn drain(&self) -> bool {
        let mut any = false;
        while let Ok(events) = self.inotify.read_events() {
            any |= !events.is_empty();
        }
        any
    }
}
