//! The one binary: controller, agent, and the tools at a developer's desk.

use std::process::ExitCode;

/// What the program does most is to make many small texts and trees, and to drop them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    falco_operator::cli::run()
}
