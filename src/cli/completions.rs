//! `falco-operator completions`: completion scripts for shells.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments of `falco-operator completions`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The shell that the script is for
    shell: Shell,
}

/// Prints the script, e.g. for `source <(falco-operator completions bash)`.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "falco-operator", &mut script);
    std::io::stdout().lock().write_all(&script).context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
