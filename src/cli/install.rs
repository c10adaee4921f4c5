//! `falco-operator install`: the binary brings itself into a folder that another container mounts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

/// Arguments of `falco-operator install`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder that gets the program, as `falco-operator`
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Copies this program into the folder. The image it comes from need hold nothing else, no `cp` either.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Through /proc the file is found even where it was replaced or unlinked since the start.
    copy(Path::new("/proc/self/exe"), &args.dir)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts it there whole or not at all, over one that may be running.
fn copy(from: &Path, dir: &Path) -> anyhow::Result<()> {
    let to = dir.join("falco-operator");
    let partial = dir.join(".falco-operator.partial");
    std::fs::copy(from, &partial).with_context(|| format!("cannot copy this program to {}", partial.display()))?;
    std::fs::set_permissions(&partial, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", partial.display()))?;
    std::fs::rename(&partial, &to).with_context(|| format!("cannot put this program at {}", to.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_copy_is_whole_executable_and_may_be_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        for text in ["first", "second, longer"] {
            std::fs::write(&from, text).unwrap();
            super::copy(&from, dir.path()).unwrap();
            let to = dir.path().join("falco-operator");
            assert_eq!(std::fs::read_to_string(&to).unwrap(), text);
            assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing partial is left");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let err = super::copy(std::path::Path::new("/proc/self/exe"), std::path::Path::new("/nowhere")).unwrap_err();
        assert!(err.to_string().contains("/nowhere"), "{err:#}");
    }
}
