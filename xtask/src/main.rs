//! The project's own tasks.

mod bench;
mod dashboards;
mod demo;
#[cfg(test)]
mod docs;
mod pictures;
mod schemas;
mod steps;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use test_cluster::tools::{Tool, Tools, adopt, cache_dir};

/// The project's own tasks: what a bare machine needs beside cargo is here.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Shows the product at work in a real cluster on this machine, from `kubectl apply` to the nodes' files.
    Demo(demo::Args),
    /// Builds all that the tests need, and runs them.
    Test(test::Args),
    /// Measures the product in a real cluster: times, API writes, memory.
    Bench(bench::Args),
    /// Writes Grafana's dashboards into grafana/, from their tables.
    Dashboards,
    /// Draws the dashboards into docs/images, from what the tests' Prometheus answered.
    Pictures,
    /// Writes the trimmed schemas of the oldest Kubernetes that the chart is checked against (needs Go).
    Schemas,
    /// Builds the pinned tools into the cache, as far as they are not there yet.
    Tools {
        /// Prometheus and promtool too.
        #[arg(long)]
        prometheus: bool,
        /// Take binaries from this folder, as far as it has them, instead of building them.
        #[arg(long, value_name = "DIR")]
        adopt: Option<PathBuf>,
    },
}

fn main() -> Result<ExitCode> {
    match Cli::parse().task {
        Task::Demo(args) => demo::run(&args)?,
        Task::Test(args) => return test::run(&args),
        Task::Bench(args) => bench::run(&args)?,
        Task::Dashboards => dashboards::write()?,
        Task::Pictures => pictures::run()?,
        Task::Schemas => schemas::run()?,
        Task::Tools { prometheus, adopt: from } => {
            let mut wanted = Tool::CLUSTER.to_vec();
            if prometheus {
                wanted.extend(Tool::PROMETHEUS);
            }
            if let Some(from) = from {
                for &tool in wanted.iter().filter(|tool| from.join(tool.name()).is_file()) {
                    adopt(&cache_dir()?, tool, &from.join(tool.name()))?;
                }
            }
            let tools = Tools::ensure(&wanted)?;
            for tool in wanted {
                println!("{}", tools.path(tool)?.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
