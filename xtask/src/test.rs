//! `cargo xtask test`: all tests, one line for each step, and the sum as the last line.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use test_cluster::tools::{Tool, Tools, seconds};
use test_cluster::{Product, cargo};

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
    let mut targets = build()?;
    targets.push(Target { order: EXAMPLES, name: "examples in the docs".into(), program: examples() });
    targets.sort_by_key(|target| target.order);
    line(true, "tests", "", begun);

    let mut sum = Sum::default();
    let mut well = true;
    for mut target in targets {
        let begun = Instant::now();
        if target.order == EXAMPLES {
            target.program.arg("--");
        }
        target.program.arg("--quiet");
        if target.name.ends_with(": cluster") {
            // A cluster mostly waits for quiet and for deadlines: one more of them than a small machine has cores.
            target.program.arg("--test-threads=3");
        }
        let out = target.program.args(&args.filter).output().with_context(|| format!("{} can't start", target.name))?;
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

/// What is run as one step.
struct Target {
    /// Libraries and programs first, what starts clusters last.
    order: usize,
    name: String,
    program: Command,
}

/// Where the examples in the docs come: after what is quicker.
const EXAMPLES: usize = 2;

fn examples() -> Command {
    let mut cargo = cargo();
    cargo.args(["test", "--workspace", "--doc"]);
    cargo
}

/// Builds the test programs of the workspace, all at once: building them one by one would build what they depend on again
/// for each set of features.
fn build() -> Result<Vec<Target>> {
    let out = cargo()
        .args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    ensure!(out.status.success(), "the tests don't build");
    Ok(out.stdout.split(|byte| *byte == b'\n').filter_map(target).collect())
}

/// The target that a line of cargo's is about, if that is a test program.
fn target(line: &[u8]) -> Option<Target> {
    let message: Value = serde_json::from_slice(line).ok()?;
    let manifest = Path::new(message["manifest_path"].as_str()?).parent()?;
    let executable = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
    let package = message["package_id"].as_str().and_then(package_name)?;
    let name = message["target"]["name"].as_str()?;
    let (order, name) = match message["target"]["kind"][0].as_str()? {
        "lib" => (0, format!("{package}: library")),
        "bin" => (1, format!("{package}: program {name}")),
        _ => (3, format!("{package}: {name}")),
    };
    let mut program = Command::new(executable);
    // As cargo runs it.
    program.current_dir(manifest).env("CARGO_MANIFEST_DIR", manifest);
    Some(Target { order, name, program })
}

/// The name in a package's id: `path+file:///a/b#0.1.0` where the folder has the same name, else `…#name@0.1.0`.
fn package_name(id: &str) -> Option<&str> {
    let (path, version) = id.split_once('#')?;
    match version.split_once('@') {
        Some((name, _)) => Some(name),
        None => path.rsplit('/').next(),
    }
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
    use super::{count, package_name};

    #[test]
    fn runners_closing_lines_are_summed() {
        let text = "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out\n\
                    test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let sum = count(text);
        assert_eq!((sum.passed, sum.failed, sum.skipped), (13, 2, 1));
    }

    #[test]
    fn packages_names_are_read_from_their_ids() {
        assert_eq!(package_name("path+file:///home/me/xtask#0.1.0"), Some("xtask"));
        assert_eq!(package_name("path+file:///home/me/support#test-cluster@0.1.0"), Some("test-cluster"));
    }
}
