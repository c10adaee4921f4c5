//! What clears up when the test is killed: a small shell that outlives it by a moment.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// Waits for the end of its standard input, which comes with this program's end however that comes; then kills what
/// is still listed, unmounts, and removes the folder.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
for pid in "$1"/.pids/*; do
  [ -e "$pid" ] && kill -KILL -- "-${pid##*/}"
done
if [ -e "$1/.mounts" ]; then
  while read -r mount; do umount -l "$mount"; done <"$1/.mounts"
fi
[ -n "$2" ] || rm -rf "$1" || { sleep 0.3; rm -rf "$1"; }
"#;

/// Owns a cluster's folder and knows its processes.
#[derive(Debug)]
pub struct Guardian {
    dir: PathBuf,
    shell: Mutex<Option<Child>>,
}

impl Guardian {
    /// Starts watching over `dir`; the lock is released only when all is cleared up.
    pub fn start(dir: &Path, lock: File, keep: bool) -> Result<Self> {
        fs::create_dir_all(dir.join(".pids"))?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guardian"])
            .arg(dir)
            .arg(if keep { "keep" } else { "" })
            .current_dir("/")
            .stdin(Stdio::piped())
            // The lock lives as long as anybody has it open.
            .stdout(Stdio::from(lock))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("`sh` could not be started")?;
        Ok(Self { dir: dir.to_path_buf(), shell: Mutex::new(Some(shell)) })
    }

    /// From now on the process group `pid` is killed when this program dies.
    pub fn watch(&self, pid: Pid) {
        let _ = File::create(self.dir.join(".pids").join(pid.to_string()));
    }

    /// The process group has ended.
    pub fn forget(&self, pid: Pid) {
        let _ = fs::remove_file(self.dir.join(".pids").join(pid.to_string()));
    }

    /// Notes a mount to be undone.
    pub fn mounted(&self, path: &Path) -> Result<()> {
        use std::io::Write;
        let mut list = fs::OpenOptions::new().create(true).append(true).open(self.dir.join(".mounts"))?;
        writeln!(list, "{}", path.display())?;
        Ok(())
    }
}

impl Guardian {
    /// Clears up now, and waits until that is done.
    pub fn finish(&self) {
        let shell = self.shell.lock().ok().and_then(|mut shell| shell.take());
        if let Some(mut shell) = shell {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.finish();
    }
}
