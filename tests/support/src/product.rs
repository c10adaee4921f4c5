//! What is tested: the binaries, and what their images hold.

use std::path::{Path, PathBuf};
use std::process::Command;

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
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let out = Command::new(cargo)
            .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
            .args(["--bin", "falco-operator", "--bin", "falco-stand-in"])
            .args(["--package", "falco-operator", "--package", "falco-stand-in"])
            .current_dir(repository())
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cargo could not be started")?;
        ensure!(out.status.success(), "the product does not build");
        let executable = |name: &str| {
            let mut messages = out.stdout.split(|byte| *byte == b'\n');
            let found = messages.find_map(|line| {
                let message: serde_json::Value = serde_json::from_slice(line).ok()?;
                let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
                ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
            });
            found.with_context(|| format!("cargo built no {name}"))
        };
        let operator = executable("falco-operator")?;
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/falco");
        Ok(match on_path("falco") {
            Some(falco) => {
                let own = PathBuf::from("/etc/falco");
                let base = if own.join("falco.yaml").is_file() { own } else { data };
                Self { operator, falco, base, real: true }
            }
            None => Self { operator, falco: executable("falco-stand-in")?, base: data, real: false },
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

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
