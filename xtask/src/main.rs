//! The project's own tasks.

use std::path::PathBuf;

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
    /// Builds the pinned tools into the cache, as far as they are not there yet.
    Tools {
        /// Prometheus and promtool too.
        #[arg(long)]
        prometheus: bool,
        /// Take binaries from this folder instead of building them.
        #[arg(long, value_name = "DIR")]
        adopt: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Tools { prometheus, adopt: from } => {
            let mut wanted = Tool::CLUSTER.to_vec();
            if prometheus {
                wanted.extend(Tool::PROMETHEUS);
            }
            if let Some(from) = from {
                for &tool in wanted.iter().filter(|tool| from.join(tool.name()).is_file()) {
                    println!("{}", adopt(&cache_dir()?, tool, &from.join(tool.name()))?.display());
                }
            }
            let tools = Tools::ensure(&wanted)?;
            for tool in wanted {
                println!("{}", tools.path(tool)?.display());
            }
            Ok(())
        }
    }
}
