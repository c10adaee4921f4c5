//! What the commands at a desk assume about the cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::api::FalcoCatalog;
use crate::language::Catalog;
use crate::render::Policy;

/// The options that say what the cluster is like.
#[derive(clap::Args, Debug)]
#[group(id = "setting")]
pub struct Args {
    /// The namespace of manifests that name none
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,

    /// The administrator's policy; without it, everything that is safe is allowed
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    #[command(flatten)]
    catalog: CatalogArgs,
}

/// The option that says what Falco offers.
#[derive(clap::Args, Debug)]
#[group(id = "offered")]
pub struct CatalogArgs {
    /// What the nodes' Falco offers, as `kubectl get falcocatalog NAME -o yaml` prints it; without it, Falco 0.44.1 with
    /// the container plugin and no rules of its own
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
}

impl CatalogArgs {
    /// Reads the file.
    pub fn load(&self) -> anyhow::Result<Catalog> {
        let Some(path) = &self.catalog else { return Ok(Catalog::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        // JSON is YAML too.
        let object: FalcoCatalog =
            serde_yaml::from_str(&text).with_context(|| format!("{} is no FalcoCatalog", path.display()))?;
        anyhow::ensure!(!object.spec.fields.is_empty(), "{} is a catalogue without fields", path.display());
        Ok(crate::render::catalog(&object.spec))
    }
}

/// Says that what the command rests on could not be read.
pub fn unreadable(err: &anyhow::Error) -> ExitCode {
    eprintln!("Error: {err:#}");
    ExitCode::from(2)
}

/// What the cluster is like.
#[derive(Debug)]
pub struct Setting {
    /// The namespace of manifests that name none.
    pub namespace: String,
    /// What is allowed.
    pub policy: Policy,
    /// What Falco offers.
    pub catalog: Catalog,
}

impl Args {
    /// Reads the files that the options name.
    pub fn load(&self) -> anyhow::Result<Setting> {
        let policy = match &self.policy {
            None => Policy::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                Policy::from_yaml(&text).with_context(|| path.display().to_string())?
            }
        };
        Ok(Setting { namespace: self.namespace.clone(), policy, catalog: self.catalog.load()? })
    }
}
