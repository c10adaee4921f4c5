//! `falco-operator crd`: the custom resource definitions.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kube::ResourceExt;

use crate::api::crds;

/// Arguments of `falco-operator crd`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Write one file per definition into this folder instead of printing them
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Prints the definitions, or writes them.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(dir) = &args.output {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    }
    for crd in crds() {
        let text = serde_yaml::to_string(&crd).context("cannot write a definition as YAML")?;
        match &args.output {
            None => write!(std::io::stdout().lock(), "---\n{text}").context("cannot write to standard output")?,
            Some(dir) => {
                let path = dir.join(format!("{}.yaml", crd.name_any()));
                std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
