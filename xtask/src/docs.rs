//! The documentation's commands of these tasks are tasks that there are.

use clap::CommandFactory;
use test_cluster::tools::pages;

use crate::Cli;

#[test]
fn every_task_that_the_docs_name_is_there() {
    let mut root = Cli::command();
    root.build();
    let mut checked = 0;
    for (page, text) in pages().unwrap() {
        for (_, rest) in text.lines().filter_map(|line| line.split_once("cargo xtask ")) {
            let rest = rest.split(['`', '#', '|', '>']).next().unwrap_or_default();
            let mut words = rest.split_whitespace().map(|word| word.trim_end_matches(['.', ',', ';', ':', ')']));
            let Some(name) = words.next() else { continue };
            let task = root.find_subcommand(name).unwrap_or_else(|| panic!("{}: no task {name}", page.display()));
            for flag in words.filter_map(|word| word.strip_prefix("--")) {
                let flag = flag.split('=').next().unwrap_or_default();
                let known = task.get_arguments().any(|arg| arg.get_long() == Some(flag));
                assert!(known, "{}: {name} has no --{flag}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 3, "{checked}");
}
