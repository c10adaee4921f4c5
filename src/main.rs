//! The one binary: controller, agent, and the tools at a developer's desk.

use std::process::ExitCode;

fn main() -> ExitCode {
    falco_operator::cli::run()
}
