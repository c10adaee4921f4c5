//! The commands of the documentation, run as they stand there, one page after the other, in a cluster of their own: every
//! fenced block of a page that is marked `sh`. One that can't run here says why behind that word, in parentheses.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use test_cluster::{Tool, tools::repository};

use crate::support::{Scenarios, World, product};

/// In an order in which a reader could take them: what one installs, the next ones use, and the last one takes away.
const PAGES: &[&str] =
    &["docs/installing.md", "README.md", "docs/developers.md", "docs/gitops.md", "docs/operations.md"];

#[test]
fn commands_of_the_documentation() {
    let world = World::bare(2).unwrap();
    let desk = Desk::new(&world).unwrap();
    let mut scenarios = Scenarios::of(&world);
    for page in PAGES {
        scenarios.run(&format!("the commands of {page}"), |_| desk.run(page));
    }
    scenarios.run("no other page has commands that nobody runs", |_| others()).end();
}

/// A folder with the examples and the chart beside it, and the programs on the PATH.
struct Desk {
    dir: std::path::PathBuf,
    path: String,
    kubeconfig: String,
}

impl Desk {
    fn new(world: &World) -> Result<Self> {
        let dir = world.cluster.dir().join("desk");
        let bin = world.cluster.dir().join("desk-bin");
        std::fs::create_dir_all(&dir)?;
        std::fs::create_dir_all(&bin)?;
        for part in ["examples", "charts", "crd"] {
            std::os::unix::fs::symlink(repository().join(part), dir.join(part))?;
        }
        let program = |tool| Ok::<_, anyhow::Error>(world.cluster.command(tool)?.get_program().to_owned());
        let operator = product()?.operator.clone().into_os_string();
        let programs = [
            ("kubectl", program(Tool::Kubectl)?),
            ("helm", program(Tool::Helm)?),
            ("falco-operator", operator.clone()),
            ("kubectl-falco", operator),
        ];
        for (name, from) in programs {
            std::os::unix::fs::symlink(from, bin.join(name))?;
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").context("there is a PATH")?);
        Ok(Self { dir, path, kubeconfig: world.cluster.kubeconfig().display().to_string() })
    }

    fn run(&self, page: &str) -> Result<()> {
        let text = std::fs::read_to_string(repository().join(page))?;
        let mut ran = 0;
        for block in blocks(&text) {
            let Some(script) = block.runs() else { continue };
            let mut command = Command::new("sh");
            command.args(["-eu", "-c", script]).current_dir(&self.dir);
            command.env("PATH", &self.path).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.dir);
            command.env_remove("KUBERNETES_SERVICE_HOST");
            let out = command.output()?;
            let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            ensure!(out.status.success(), "{page}, line {}:\n{script}\n{said}", block.line);
            ran += script.lines().filter(|line| !line.trim().is_empty()).count();
        }
        println!("       {ran} lines");
        ensure!(ran > 0, "{page} has no commands");
        Ok(())
    }
}

fn others() -> Result<()> {
    for entry in std::fs::read_dir(repository().join("docs"))? {
        let path = entry?.path();
        let page = path.strip_prefix(repository())?.display().to_string();
        if path.extension().is_some_and(|it| it == "md") && !PAGES.contains(&page.as_str()) {
            let text = std::fs::read_to_string(&path)?;
            let unrun = blocks(&text).into_iter().find(|block| block.runs().is_some());
            ensure!(unrun.is_none(), "{page} has commands that no test runs");
        }
    }
    Ok(())
}

/// A fenced block.
struct Block {
    line: usize,
    info: String,
    text: String,
}

impl Block {
    /// The script, where it is one that is to be run.
    fn runs(&self) -> Option<&str> {
        (self.info == "sh").then_some(self.text.as_str())
    }
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in page.lines().enumerate() {
        if let Some(info) = line.strip_prefix("```") {
            open = !open;
            if open {
                found.push(Block { line: index + 2, info: info.trim().to_owned(), text: String::new() });
            }
        } else if let (true, Some(block)) = (open, found.last_mut()) {
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    found
}

#[test]
fn only_marked_blocks_are_run() {
    let page = "```sh\na\nb\n```\n```sh (needs a thing)\nc\n```\n```console\n$ d\n```\n";
    let found = blocks(page);
    let runs: Vec<Option<&str>> = found.iter().map(Block::runs).collect();
    assert_eq!(runs, [Some("a\nb\n"), None, None]);
}
