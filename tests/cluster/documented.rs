//! The commands of the documentation, run as they stand there, one page after the other, in a cluster of their own: every
//! fenced block that is marked `sh`, and every one that is marked `console`, whose answers are compared with what is shown.
//! One that can't run here says why behind that word, in parentheses.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regex::Regex;
use test_cluster::tools::{pages, repository};
use test_cluster::{Tool, wait};

use crate::support::{Scenarios, World, product};

/// In an order in which a reader could take them: what one installs, the next ones use, and the last one takes away.
const PAGES: &[&str] = &[
    "docs/installing.md",
    "charts/falco-operator/README.md",
    "docs/developers.md",
    "docs/gitops.md",
    "docs/linting.md",
    "docs/operations.md",
];

/// Has a cluster to itself when the others are through, since it installs into another namespace.
const FIRST_STEPS: &str = "README.md";

/// Their commands are run between those of the pages, while there is a rule to look at.
const RUNBOOKS: &str = "docs/runbooks";

/// Behind `console`: the block shows what comes about by the commands that follow it on the page.
const BY_WHAT_FOLLOWS: &str = "(by the commands below)";

/// How long an answer may take to become what is shown.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn commands_of_the_documentation() {
    let world = World::bare(3).unwrap();
    let desk = Desk::new(&world).unwrap();
    let mut scenarios = Scenarios::of(&world);
    scenarios.run("no page has commands that nobody runs", |_| unmarked());
    for page in PAGES {
        scenarios.run(&format!("the commands of {page}"), |_| desk.page(page));
        if page.starts_with("charts/") {
            scenarios.run("the commands of the runbooks", |_| desk.runbooks());
        }
    }
    scenarios.run("a reader begins with README.md", |_| {
        desk.sh("kubectl delete namespace team-a")?;
        desk.page(FIRST_STEPS)
    });
    scenarios.end();
}

/// A folder with the examples and the chart beside it, and the programs on the PATH.
struct Desk {
    dir: PathBuf,
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
        // What the pages take to be a reader's own.
        std::fs::write(dir.join("my-values.yaml"), "log: {level: debug}\n")?;
        let rule = std::fs::read_to_string(repository().join("examples/bash.falcorule.yaml"))?;
        let good = "container.id != host and proc.name = bash";
        ensure!(rule.contains(good), "the example is another one now");
        std::fs::write(dir.join("rule.yaml"), rule.replace(good, "evt.type = execve and proc.nmae = bash"))?;

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

    /// Whether a script ended well, and what it printed: its answer, its complaints.
    fn run(&self, script: &str) -> Result<(bool, String, String)> {
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", script]).current_dir(&self.dir);
        command.env("PATH", &self.path).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.dir);
        command.env_remove("KUBERNETES_SERVICE_HOST");
        let out = command.output()?;
        let text = |bytes| without_logs(&String::from_utf8_lossy(bytes));
        Ok((out.status.success(), text(&out.stdout), text(&out.stderr)))
    }

    fn sh(&self, script: &str) -> Result<String> {
        let (well, out, err) = self.run(script)?;
        ensure!(well, "{script}\n{out}{err}");
        Ok(out)
    }

    fn page(&self, page: &str) -> Result<()> {
        let text = std::fs::read_to_string(repository().join(page))?;
        let (now, later): (Vec<Block>, Vec<Block>) =
            blocks(&text).into_iter().filter(|block| block.kind() != Kind::Text).partition(|it| !it.waits());
        let mut faults = Vec::new();
        let mut ran = 0;
        for (index, block) in now.iter().chain(&later).enumerate() {
            if index == now.len() {
                self.asked()?;
            }
            match block.kind() {
                Kind::Script => {
                    self.sh(&block.text).with_context(|| format!("{page}, line {}", block.line))?;
                    ran += block.text.lines().filter(|line| !line.trim().is_empty()).count();
                }
                Kind::Session => {
                    for (command, shown) in session(&block.text) {
                        if let Err(err) = self.answers(&command, &shown) {
                            faults.push(format!("{page}, in the block of line {}: {err:#}", block.line));
                        }
                        ran += 1;
                    }
                }
                Kind::Text => {}
            }
        }
        println!("       {ran} commands");
        ensure!(ran > 0, "{page} has no commands");
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }

    /// Waits until the API server asks the webhook. It hears of that by a watch, a moment after the controllers are said
    /// to be rolled out: no reader is as fast as this test.
    fn asked(&self) -> Result<()> {
        let example = "kubectl apply --dry-run=server --filename examples/bash.falcorule.yaml 2>&1";
        wait::until("the webhook warns", PATIENCE, || {
            let answer = self.sh(example)?;
            ensure!(answer.contains("Warning: "), "{example}: {answer}");
            Ok(())
        })
    }

    /// A command's answer is the one that is shown, at the latest after a while: who only looks may look again.
    fn answers(&self, command: &str, shown: &str) -> Result<()> {
        let looks =
            ["kubectl get ", "kubectl describe ", "kubectl explain ", "kubectl wait ", "falco-operator status "];
        let begun = Instant::now();
        loop {
            // In the order in which a terminal shows it.
            let (_, answer, _) = self.run(&format!("exec 2>&1\n{command}"))?;
            let again = looks.iter().any(|look| command.starts_with(look)) && begun.elapsed() < PATIENCE;
            match compared(shown, &answer) {
                Ok(()) => return Ok(()),
                Err(_) if again => std::thread::sleep(Duration::from_millis(500)),
                Err(line) => anyhow::bail!("`{command}` does not print this line there: {line}\nit prints:\n{answer}"),
            }
        }
    }

    /// Each command of the runbooks, line by line, about a rule, a node and a pod that there are.
    fn runbooks(&self) -> Result<()> {
        self.sh("kubectl apply --filename examples/bash.falcorule.yaml")?;
        // The page before was an upgrade.
        self.sh(
            "kubectl rollout status --namespace falco-operator deployment/fo1-falco-operator-controller --timeout=3m",
        )?;
        self.sh("kubectl rollout status --namespace falco-operator daemonset/fo1-falco-operator-agent --timeout=3m")?;
        self.sh("kubectl wait --for=condition=Ready falcorule/bash --timeout=2m")?;
        let agent = "kubectl get pods --namespace falco-operator --selector app.kubernetes.io/component=agent \
                     --field-selector spec.nodeName=node-1 --output name";
        let agent = self.sh(agent)?;
        let pod = agent.trim().strip_prefix("pod/").context(agent.clone())?;
        let names = [("NODE", "node-1"), ("POD", pod), ("TEAM", "default"), ("RULE", "bash")];
        let (mut faults, mut ran) = (Vec::new(), 0);
        for (page, text) in pages()?.iter().filter(|(page, _)| page.starts_with(RUNBOOKS)) {
            for block in blocks(text).iter().filter(|block| block.kind() == Kind::Script) {
                for line in block.text.lines() {
                    let mut line = line.to_owned();
                    for (name, value) in names {
                        line = Regex::new(&format!(r"\b{name}\b"))?.replace_all(&line, value).into_owned();
                    }
                    let (well, out, err) = self.run(&line)?;
                    // What is looked for need not be there.
                    let found_nothing = line.contains(" | grep ") && out.is_empty() && err.is_empty();
                    // The nodes here serve no logs: the API server knew pod and container, and asked the node.
                    let asked = line.starts_with("kubectl logs ") && err.contains("/containerLogs/");
                    if !well && !found_nothing && !asked {
                        faults.push(format!("{}: {line}\n{out}{err}", page.display()));
                    }
                    ran += 1;
                }
            }
        }
        println!("       {ran} commands");
        ensure!(ran > 40, "{ran} commands");
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }
}

/// No block has a command that is neither run nor said to be for elsewhere.
fn unmarked() -> Result<()> {
    let run =
        |page: &Path| PAGES.iter().chain([&FIRST_STEPS]).any(|it| Path::new(it) == page) || page.starts_with(RUNBOOKS);
    let mut faults = Vec::new();
    for (page, text) in pages()? {
        for block in blocks(&text) {
            let what = match block.kind() {
                _ if block.reason().is_some() => continue,
                Kind::Text if block.has_commands() => "has commands, and is not marked `sh` or `console`",
                Kind::Script | Kind::Session if !run(&page) => "is of a page that no test runs",
                Kind::Session if page.starts_with(RUNBOOKS) => "is a session, which runbooks have none of",
                _ => continue,
            };
            faults.push(format!("{}: the block of line {} {what}", page.display(), block.line));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// What becomes of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Run as a whole.
    Script,
    /// Run command by command, each with what it is to print.
    Session,
    /// Read only.
    Text,
}

/// A fenced block.
struct Block {
    line: usize,
    info: String,
    text: String,
}

impl Block {
    fn kind(&self) -> Kind {
        match self.info.as_str() {
            "sh" => Kind::Script,
            "console" => Kind::Session,
            _ if self.waits() => Kind::Session,
            _ => Kind::Text,
        }
    }

    /// Whether it is run once the rest of its page was.
    fn waits(&self) -> bool {
        self.info.strip_prefix("console ") == Some(BY_WHAT_FOLLOWS)
    }

    /// Why it can't run here.
    fn reason(&self) -> Option<&str> {
        let (_, rest) = self.info.split_once('(')?;
        rest.strip_suffix(')').filter(|reason| !reason.is_empty() && !self.waits())
    }

    fn has_commands(&self) -> bool {
        let programs = ["kubectl", "helm", "falco-operator", "cargo", "just", "curl", "promtool"];
        self.text.lines().any(|line| {
            let line = line.trim_start();
            let mut words = line.strip_prefix("$ ").unwrap_or(line).split_whitespace();
            words.next().is_some_and(|word| programs.contains(&word)) && words.next().is_some()
        })
    }
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in page.lines().enumerate() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
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

/// The commands of a session, each with what is shown as its answer.
fn session(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push((command.to_owned(), String::new()));
        } else if let Some((_, shown)) = found.last_mut() {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    found
}

/// What a program prints, without what the library for Kubernetes in kubectl and Helm logs beside it, at times: of a watch
/// that ended with its connection, for one. A reader looks past it.
fn without_logs(printed: &str) -> String {
    static LOGGED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \w+\.go:\d+\] ").unwrap());
    printed.split_inclusive('\n').filter(|line| !LOGGED.is_match(line)).collect()
}

/// A line without what is another thing each time: ages, times, hashes, versions, the ends of pods' names, widths.
fn stable(line: &str) -> String {
    let mut line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    for (changing, by) in [
        (r"\b\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"\bsha256:[0-9a-f]{8,}", "HASH"),
        (r"\b[0-9a-f]{12,}\b", "HASH"),
        (r"\b(\d+[dhms])+\b", "AGE"),
        (r"\b\d+\.\d+\.\d+\b", "VERSION"),
        (r"-controller-[0-9a-z]+-[0-9a-z]{5}\b", "-controller-POD"),
        (r"-agent-[0-9a-z]{5}\b", "-agent-POD"),
    ] {
        line = Regex::new(changing).unwrap().replace_all(&line, by).into_owned();
    }
    line
}

/// Whether an answer is what is shown; the first line that it lacks otherwise. A line `…` stands for any lines, and ` …` at
/// the end of one for the rest of it.
fn compared(shown: &str, answer: &str) -> Result<(), String> {
    let answer: Vec<String> = answer.lines().map(stable).filter(|line| !line.is_empty()).collect();
    let mut rest = answer.as_slice();
    let mut anywhere = false;
    for line in shown.lines().filter(|line| !line.trim().is_empty()) {
        if line.trim() == "…" {
            anywhere = true;
            continue;
        }
        let wanted = stable(line);
        let is = |given: &String| match wanted.strip_suffix(" …") {
            Some(start) => given.starts_with(start),
            None => *given == wanted,
        };
        let at = if anywhere { rest.iter().position(is) } else { rest.first().is_some_and(is).then_some(0) };
        let at = at.ok_or(line.to_owned())?;
        rest = rest.get(at + 1..).unwrap_or_default();
        anywhere = false;
    }
    match rest.first() {
        Some(more) if !anywhere => Err(format!("(nothing is shown of) {more}")),
        _ => Ok(()),
    }
}

#[test]
fn only_marked_blocks_are_run() {
    let page = "```sh\na\nb\n```\n```sh (needs a thing)\nhelm c\n```\n```console\n$ d\ne\nf\n$ g\n```\n```\n$ kubectl h\n```\n\
                ```console (by the commands below)\n$ i\n```\n";
    let found = blocks(page);
    let kinds: Vec<Kind> = found.iter().map(Block::kind).collect();
    assert_eq!(kinds, [Kind::Script, Kind::Text, Kind::Session, Kind::Text, Kind::Session]);
    assert_eq!(found[1].reason(), Some("needs a thing"));
    assert!(found[3].has_commands() && found[3].reason().is_none());
    assert!(found[4].waits() && found[4].reason().is_none() && !found[2].waits());
    assert_eq!(session(&found[2].text), [("d".into(), "e\nf\n".into()), ("g".into(), String::new())]);
}

#[test]
fn what_is_logged_is_no_answer() {
    let printed = "one\n\
        I1128 00:18:12.374394   28569 reflector.go:664] \"Warning: watch ended with error\" err=\"context canceled\"\n\
        Warning: two\nE1128 three\n";
    assert_eq!(without_logs(printed), "one\nWarning: two\nE1128 three\n");
    assert_eq!(without_logs("no end"), "no end");
}

#[test]
fn an_answer_is_compared_by_what_does_not_change() {
    let answer =
        "NAME   AGE\nbash   2m3s\n\nfo1-falco-operator-agent-x7k2p  1/1\nfile sha256:0123456789abcdef is loaded\n";
    assert_eq!(compared("NAME AGE\nbash 5s\nfo1-falco-operator-agent-aaaaa 1/1\n…\n", answer), Ok(()));
    assert_eq!(compared("NAME AGE\n…\nfile sha256:ffffffff …\n", answer), Ok(()));
    assert_eq!(compared("NAME PHASE\n…\n", answer), Err("NAME PHASE".into()));
    assert_eq!(compared("…\nsh 5s\n…\n", answer), Err("sh 5s".into()));
    assert_eq!(
        compared("NAME AGE\nbash 5s\n", answer),
        Err("(nothing is shown of) fo1-falco-operator-agent-POD 1/1".into())
    );
    assert_eq!(
        compared("…\nfo1-falco-operator-agent-aaaaa 0/1\n…\n", answer),
        Err("fo1-falco-operator-agent-aaaaa 0/1".into())
    );
}
