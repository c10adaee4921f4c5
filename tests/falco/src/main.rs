//! Stands in for Falco 0.44.1 where the real one can't run: loads, checks, reloads and reports as it was seen to,
//! and watches nothing. It shares no code with the product and is never shipped.

mod alert;
mod cli;
mod config;
mod control;
mod fields;
mod load;
mod log;
mod options;
mod rules;
mod run;
mod watch;
mod web;
mod yaml;

use std::process::ExitCode;

/// Enough for conditions nested as deep as Falco bears.
pub(crate) const STACK: usize = 256 << 20;

fn main() -> ExitCode {
    // This thread only waits. It must not be the one that a signal finds with its default action while another
    // thread handles it.
    let _ = run::handled().thread_block();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let work = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        let _ = run::handled().thread_unblock();
        cli::main(&arguments)
    });
    match work.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}
