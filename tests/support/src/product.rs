//! What is tested: the binaries, and what their images hold.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::cluster::Options;
use crate::kubelet::{Image, ImageFile};
use crate::tools::repository;

/// The product's binary, and the Falco that it supervises.
#[derive(Clone, Debug)]
pub struct Product {
    /// `falco-operator`.
    pub operator: PathBuf,
    /// The real Falco if it is on the PATH, else the stand-in.
    pub falco: PathBuf,
    /// What its image has at `/etc/falco`.
    pub base: PathBuf,
    /// Whether it is the real one.
    pub real: bool,
}

impl Product {
    /// Builds what is not built yet, as it stands in the checkout.
    pub fn build() -> Result<Self> {
        Self::built(&[])
    }

    /// The same as people install it: optimized.
    pub fn build_release() -> Result<Self> {
        Self::built(&["--release"])
    }

    fn built(profile: &[&str]) -> Result<Self> {
        let [operator, stand_in] = build(["falco-operator", "falco-stand-in"], profile)?;
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/falco");
        Ok(match on_path("falco") {
            Some(falco) => {
                let own = PathBuf::from("/etc/falco");
                let base = if own.join("falco.yaml").is_file() { own } else { data };
                Self { operator, falco, base, real: true }
            }
            None => Self { operator, falco: stand_in, base: data, real: false },
        })
    }

    /// Which Falco it is, for people.
    #[must_use]
    pub fn falco_in_words(&self) -> String {
        if self.real {
            format!("the real one, {}", self.falco.display())
        } else {
            "the stand-in (no `falco` is on the PATH)".into()
        }
    }

    /// The images that the chart's pods name.
    #[must_use]
    pub fn images(&self) -> Vec<Image> {
        let file = |at: &str, from: &Path| ImageFile { at: at.into(), from: from.into(), per_node: false };
        vec![
            Image {
                name: "falco-operator".into(),
                entrypoint: vec!["/usr/local/bin/falco-operator".into()],
                files: vec![
                    file("/usr/local/bin/falco-operator", &self.operator),
                    file("/usr/bin/falco-operator", &self.operator),
                    file("/falco-operator", &self.operator),
                ],
            },
            Image {
                name: "falcosecurity/falco".into(),
                entrypoint: vec!["/usr/bin/falco".into()],
                files: vec![
                    file("/usr/bin/falco", &self.falco),
                    ImageFile { at: "/etc/falco".into(), from: self.base.clone(), per_node: true },
                ],
            },
        ]
    }

    /// A cluster for it.
    #[must_use]
    pub fn options(&self, nodes: usize) -> Options {
        Options { nodes, images: self.images(), ..Options::default() }
    }
}

/// The stand-in for Falco, built once for each process.
///
/// # Panics
///
/// If it does not build.
#[must_use]
pub fn stand_in() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let [stand_in] = build(["falco-stand-in"], &[]).unwrap_or_else(|err| panic!("{err:#}"));
        stand_in
    })
}

/// Writes a script that can be run at once.
///
/// Another process does it: a file that this one has open for writing is also open in whatever another thread forks just
/// then, and the kernel runs no program that somebody may still write to.
pub fn write_program(path: &Path, script: &str) -> Result<()> {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .context("/bin/sh could not be started")?;
    writer.stdin.take().context("a pipe")?.write_all(script.as_bytes())?;
    ensure!(writer.wait()?.success(), "{} could not be written", path.display());
    Ok(())
}

/// Cargo, in the repository. It sees what it would see if it were run from a shell: from within cargo, the package under
/// test would stand in its environment, and what looks at that would be built again each time.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        cargo.env_remove(name);
    }
    cargo.current_dir(repository());
    cargo
}

/// Builds the programs of the packages of these names, and says where they are.
fn build<const N: usize>(names: [&str; N], profile: &[&str]) -> Result<[PathBuf; N]> {
    let out = cargo()
        .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
        // With the features that the whole workspace gives to dependencies, so that none is built a second time.
        .arg("--workspace")
        .args(profile)
        .args(names.iter().flat_map(|name| ["--bin", name]))
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    ensure!(out.status.success(), "{} can't be built", names.join(" and "));
    let mut built = names.map(|_| PathBuf::new());
    for line in out.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        let place = names.iter().zip(&mut built).find(|(name, _)| message["target"]["name"] == **name);
        if let (Some((_, place)), Some(executable)) = (place, message["executable"].as_str()) {
            *place = executable.into();
        }
    }
    let missing = names.iter().zip(&built).find(|(_, path)| path.as_os_str().is_empty());
    ensure!(missing.is_none(), "cargo built no {}", missing.map_or("", |(name, _)| name));
    Ok(built)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
