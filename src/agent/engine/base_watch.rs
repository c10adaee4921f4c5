//! Changes of the base configuration and its rules files, as the kernel tells them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// Changes come in groups; this much quiet ends one.
const GROUP: Duration = Duration::from_millis(30);
/// A group that goes on for this long is looked at all the same.
const LONGEST: Duration = Duration::from_millis(500);

/// Watches on the folders around everything that the base consists of: a file that is replaced, or comes back, is
/// noticed too.
pub struct BaseWatch {
    /// The queue of events, read as the stream of bytes that it is: what they say does not matter.
    watches: Option<Receiver>,
    folders: BTreeSet<PathBuf>,
    /// When anything changed last.
    last: Option<(Instant, SystemTime)>,
}

impl BaseWatch {
    /// Without watches yet.
    pub fn new() -> Self {
        Self { watches: None, folders: BTreeSet::new(), last: None }
    }

    /// Watches what these paths need; whether that is anything new, so that what was read before may be out of date.
    pub fn watch(&mut self, paths: &[PathBuf]) -> bool {
        let mut folders = BTreeSet::new();
        for path in paths {
            // What a link leads to changes elsewhere.
            for path in [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten() {
                folders.extend(path.parent().map(Path::to_path_buf));
                if path.is_dir() {
                    folders.insert(path);
                }
            }
        }
        if folders == self.folders && self.watches.is_some() {
            return false;
        }
        match arm(&folders) {
            Ok(watches) => {
                self.watches = Some(watches);
                self.folders = folders;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch the base configuration; it is looked at every minute");
                false
            }
        }
    }

    /// Waits until something changes, and for the end of the group of changes.
    pub async fn changed(&mut self) {
        let begun = loop {
            let Some(watches) = &self.watches else { return std::future::pending().await };
            if watches.readable().await.is_err() {
                return std::future::pending().await;
            }
            if self.drain() {
                break Instant::now();
            }
        };
        while begun.elapsed() < LONGEST {
            tokio::time::sleep(GROUP).await;
            if !self.drain() {
                return;
            }
        }
    }

    /// Takes what has happened; whether that was anything.
    pub fn drain(&mut self) -> bool {
        let mut any = false;
        let mut events = [0; 4096];
        while let Some(Ok(1..)) = self.watches.as_ref().map(|watches| watches.try_read(&mut events)) {
            any = true;
        }
        if any {
            self.last = Some((Instant::now(), SystemTime::now()));
        }
        any
    }

    /// When anything changed last.
    pub fn last(&self) -> Option<(Instant, SystemTime)> {
        self.last
    }
}

fn arm(folders: &BTreeSet<PathBuf>) -> io::Result<Receiver> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let mask = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        inotify.add_watch(folder, mask)?;
    }
    Receiver::from_file_unchecked(File::from(inotify.as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_written_replaced_or_created_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("falco.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = BaseWatch::new();
        assert!(watch.watch(std::slice::from_ref(&file)));
        assert!(!watch.watch(std::slice::from_ref(&file)));
        assert!(!watch.drain() && watch.last().is_none());
        std::fs::write(&file, "b").unwrap();
        watch.changed().await;
        std::fs::write(folder.path().join("draft"), "c").unwrap();
        std::fs::rename(folder.path().join("draft"), &file).unwrap();
        watch.changed().await;
        std::fs::remove_file(&file).unwrap();
        watch.changed().await;
        std::fs::write(&file, "d").unwrap();
        watch.changed().await;
        assert!(watch.last().is_some());
    }
}
