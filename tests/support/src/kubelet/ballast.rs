//! What leaves no room on a node's disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// A file that takes all room, also what others free later: one who is just replacing a file has two of it, and would
/// for ever after have room for the next one.
pub struct Ballast {
    path: PathBuf,
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Ballast {
    /// Returns when there is no room any more.
    pub fn load(path: PathBuf) -> Result<Self> {
        let mut file = File::create(&path).with_context(|| format!("{}", path.display()))?;
        take_all(&mut file);
        let (stop, stopped) = mpsc::channel();
        let keeper = thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
                take_all(&mut file);
            }
        });
        Ok(Self { path, stop: Some(stop), keeper: Some(keeper) })
    }

    /// Makes room again.
    pub fn unload(mut self) -> Result<()> {
        self.stop();
        Ok(fs::remove_file(&self.path)?)
    }

    fn stop(&mut self) {
        self.stop.take();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        self.stop();
    }
}

fn take_all(file: &mut File) {
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
}
