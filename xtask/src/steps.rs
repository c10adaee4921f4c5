//! One line of progress for each step, with its time.

use std::time::Instant;

use anyhow::{Context, Result};
use test_cluster::tools::seconds;

/// Numbers the steps of a task.
pub struct Steps {
    done: usize,
    of: usize,
}

impl Steps {
    /// A task of so many steps.
    pub fn new(of: usize) -> Self {
        Self { done: 0, of }
    }

    /// Does one step, and says that it was done, or which one failed.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        let begun = Instant::now();
        let result = work().with_context(|| format!("step {} ({name})", self.done))?;
        println!("[{}/{}] {name} ({})", self.done, self.of, seconds(begun.elapsed()));
        Ok(result)
    }
}

/// Prints a command and what it said, indented.
pub fn show(command: &str, output: &str) {
    println!("    $ {command}");
    for line in output.trim_end().lines() {
        println!("      {line}");
    }
}
