//! `cargo xtask test`: all tests, one line for each step, and the sum as the last line.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use test_cluster::Product;
use test_cluster::tools::{Tool, Tools, repository, seconds};

/// Which tests.
#[derive(clap::Args)]
pub struct Args {
    /// Only tests whose name contains this.
    filter: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs them all, whatever fails; the exit code says whether something did.
pub fn run(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    Tools::ensure(Tool::CLUSTER)?;
    Tools::ensure(Tool::PROMETHEUS)?;
    line(true, "tools", "", begun);
    let begun = Instant::now();
    Product::build()?;
    line(true, "product and stand-in for Falco", "", begun);
    let begun = Instant::now();
    let built = cargo(&["test", "--workspace", "--no-run", "--quiet"])?;
    ensure!(built.status.success(), "the tests don't build:\n{}", String::from_utf8_lossy(&built.stderr));
    line(true, "tests built", "", begun);

    let mut sum = Sum::default();
    let mut well = true;
    for target in targets()? {
        let begun = Instant::now();
        let mut command: Vec<&str> = vec!["test", "--quiet", "--no-fail-fast", "--package", &target.package];
        command.extend(target.flags.iter().map(String::as_str));
        command.push("--");
        if target.name.ends_with(": cluster") {
            // A cluster mostly waits for quiet and for deadlines: one more of them than a small machine has cores.
            command.push("--test-threads=3");
        }
        command.extend(args.filter.as_deref());
        let out = cargo(&command)?;
        let text = String::from_utf8_lossy(&out.stdout);
        let seen = count(&text);
        let ok = out.status.success();
        if !ok {
            println!("{text}{}", String::from_utf8_lossy(&out.stderr));
        }
        if seen.passed + seen.failed + seen.skipped > 0 || !ok {
            let numbers = format!("{} passed, {} failed, {} skipped, ", seen.passed, seen.failed, seen.skipped);
            line(ok, &target.name, &numbers, begun);
        }
        for told in text.lines().filter(|line| line.starts_with("fuzz ")) {
            println!("       {told}");
        }
        well &= ok;
        // A runner that ended without counting is a failure of its own.
        sum.failed += seen.failed + usize::from(!ok && seen.failed == 0);
        sum.passed += seen.passed;
        sum.skipped += seen.skipped;
    }
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(ok: bool, name: &str, numbers: &str, begun: Instant) {
    println!("{} {name} ({numbers}{})", if ok { "ok    " } else { "FAILED" }, seconds(begun.elapsed()));
}

fn cargo(args: &[&str]) -> Result<std::process::Output> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo).args(args).current_dir(repository()).output().context("cargo could not be started")
}

/// What is run as one step.
struct Target {
    name: String,
    package: String,
    flags: Vec<String>,
}

/// The test targets of the workspace: libraries and programs first, what starts clusters after them.
fn targets() -> Result<Vec<Target>> {
    let out = cargo(&["metadata", "--no-deps", "--format-version=1"])?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout)?;
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let package_name = package["name"].as_str().unwrap_or_default();
        for target in package["targets"].as_array().into_iter().flatten() {
            let (kind, name) = (target["kind"][0].as_str().unwrap_or_default(), target["name"].as_str());
            let name = name.unwrap_or_default();
            let mut add = |order: usize, title: String, flags: &[&str]| {
                let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
                found.push((order, Target { name: title, package: package_name.to_owned(), flags }));
            };
            if target["test"] == true {
                match kind {
                    "lib" => add(0, format!("{package_name}: library"), &["--lib"]),
                    "bin" => add(1, format!("{package_name}: program {name}"), &["--bin", name]),
                    "test" => add(3, format!("{package_name}: {name}"), &["--test", name]),
                    _ => {}
                }
            }
            if kind == "lib" && target["doctest"] == true {
                add(2, format!("{package_name}: examples in the docs"), &["--doc"]);
            }
        }
    }
    found.sort_by_key(|(order, _)| *order);
    Ok(found.into_iter().map(|(_, target)| target).collect())
}

/// The sum of the runners' closing lines.
fn count(text: &str) -> Sum {
    let mut sum = Sum::default();
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        let number = |word: &str| {
            let before = line.split(word).next().filter(|before| before.len() < line.len()).unwrap_or_default();
            before.split_whitespace().last().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        sum.passed += number(" passed");
        sum.failed += number(" failed");
        sum.skipped += number(" ignored");
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn runners_closing_lines_are_summed() {
        let text = "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out\n\
                    test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let sum = count(text);
        assert_eq!((sum.passed, sum.failed, sum.skipped), (13, 2, 1));
    }
}
