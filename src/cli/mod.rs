//! The command line: one definition from which parsing, help, completions and the reference page come.

mod agent;
mod completions;
mod controller;
mod crd;
mod desk;
mod install;
pub mod reference;
mod runtime;
mod status;
mod webhook;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use desk::lint::lint_texts;
pub use runtime::{runtime, shutdown_on_signals};

/// Falco rules owned by the developers whose workloads they watch.
#[derive(Parser, Debug)]
#[command(name = "falco-operator", version, about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the controller: from rules to the files that nodes load, and back to the rules' status
    Controller(Box<controller::Args>),
    /// Run a node's agent: load the files that the controller hands out into Falco, and report what is proved to run
    #[command(alias = "supervise")]
    Agent(agent::Args),
    /// Withdraw everything from the nodes and remove every finalizer, before the operator is uninstalled
    Cleanup(controller::CleanupArgs),
    /// Show which rules run, where not, and why not
    Status(status::Args),
    /// Stop the rollout of a namespace before its next wave
    Pause(status::PauseArgs),
    /// Let the rollout of a namespace go on
    Resume(status::PauseArgs),
    /// Try the file of a namespace again that was rolled back
    Retry(status::PauseArgs),
    /// Print the custom resource definitions, as YAML documents
    Crd(crd::Args),
    /// Check manifests and plain Falco rules files as the operator and Falco would check them, with no cluster
    Lint(desk::lint::Args),
    /// Render manifests into the rules files that nodes would get, with no cluster
    Render(desk::render::Args),
    /// Convert plain Falco rules files into manifests, appends and overrides resolved
    Convert(desk::convert::Args),
    /// Explain a field, an operator or a transformer of conditions and outputs, with no cluster
    Explain(desk::explain::Args),
    /// Print a script that completes the commands and options of this program in a shell
    Completions(completions::Args),
    /// Copy this program into a folder: for a container of another image, which runs it from there
    #[command(hide = true)]
    Install(install::Args),
}

/// Parses the command line, runs the command, and turns its outcome into an exit code: 0 for success, 1 for a finding
/// or a failure, 2 for what could not be read or was asked for wrongly.
#[must_use]
pub fn run() -> ExitCode {
    // Two providers are never compiled in, but rustls would only find that out at the first connection.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let outcome = match Cli::parse_from(command_line(std::env::args_os().collect())).command {
        Command::Controller(args) => controller::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Cleanup(args) => controller::cleanup(&args),
        Command::Status(args) => status::run(&args),
        Command::Pause(args) => status::pause(&args, true),
        Command::Resume(args) => status::pause(&args, false),
        Command::Retry(args) => status::retry(&args),
        Command::Crd(args) => crd::run(&args),
        Command::Lint(args) => desk::lint::run(&args),
        Command::Render(args) => desk::render::run(&args),
        Command::Convert(args) => desk::convert::run(&args),
        Command::Explain(args) => desk::explain::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Install(args) => install::run(&args),
    };
    outcome.unwrap_or_else(|err| {
        eprintln!("Error: {err:#}");
        ExitCode::FAILURE
    })
}

/// The command line as it is meant. Named `kubectl-falco` and found on the PATH, this program is `kubectl falco`, which
/// without a command shows the status.
fn command_line(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().map(PathBuf::from).unwrap_or_default();
    let plugin = name.file_stem().is_some_and(|name| name == "kubectl-falco" || name == "kubectl_falco");
    let says = |word: &OsString| word.to_str().unwrap_or_default().to_owned();
    let shows_status = match words.get(1).map(says) {
        None => true,
        Some(first) => first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first.as_str()),
    };
    if plugin && shows_status {
        words.insert(1, "status".into());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    #[test]
    fn as_a_plugin_of_kubectl_it_shows_the_status() {
        let line = |text: &str| {
            let words = super::command_line(text.split(' ').map(OsString::from).collect());
            words.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        for (given, meant) in [
            ("/bin/kubectl-falco", "/bin/kubectl-falco status"),
            ("kubectl-falco -n team-a", "kubectl-falco status -n team-a"),
            ("kubectl-falco pause -n team-a", "kubectl-falco pause -n team-a"),
            ("kubectl-falco --help", "kubectl-falco --help"),
            ("kubectl-falco --version", "kubectl-falco --version"),
            ("/bin/falco-operator", "/bin/falco-operator"),
            ("falco-operator -n a", "falco-operator -n a"),
        ] {
            assert_eq!(line(given), meant);
        }
        assert_eq!(super::command_line(vec![]).len(), 0);
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
