//! `cargo xtask demo`: the main job, as a newcomer meets it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use test_cluster::tools::{Tool, Tools, repository, seconds};
use test_cluster::{Cluster, Product, Release, wait};

use crate::steps::{Steps, show};

/// Within this time everything that the demo waits for comes about, on a slow machine too.
const LIMIT: Duration = Duration::from_mins(2);

/// A condition that Falco refuses.
const BROKEN: &str = "container.id != host and proc.nonsense = bash";

/// How.
#[derive(clap::Args)]
pub struct Args {
    /// How many nodes the cluster has.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Leave the cluster up until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.nodes > 0, "a demo without nodes shows nothing: --nodes must be at least 1");
    let begun = Instant::now();
    let mut steps = Steps::new(if args.keep { 12 } else { 13 });
    steps.step("the pinned tools are there", || Tools::ensure(Tool::CLUSTER))?;
    let product = steps.step("the product is built", Product::build)?;
    println!("    Falco is {}", product.falco_in_words());

    let dir = repository().join("demo").join(std::process::id().to_string());
    let mut options = product.options(args.nodes);
    options.dir = Some(dir);
    let cluster = steps.step(&format!("a cluster of {} nodes is up", args.nodes), || Cluster::start(&options))?;
    show("kubectl get nodes", &cluster.kubectl(&["get", "nodes"])?);
    let release = steps.step("the chart is installed", || Release::install(&cluster, "{}\n"))?;
    let pods = ["get", "pods", "--namespace", "kube-system", "-o", "wide"];
    show("kubectl get pods --namespace kube-system -o wide", &cluster.kubectl(&pods)?);

    let demo = Demo { cluster, nodes: args.nodes };
    let took = steps.step("the first rule is loaded on every node", || demo.first_rule())?;
    steps.step("an edit is loaded on every node", || demo.edit())?;
    steps.step("a broken condition is refused, with a caret under the mistake", || demo.refused())?;
    steps.step("without the webhook the status tells it, and the last good file stays", || demo.broken(&release))?;
    steps.step("the repaired rule is loaded on every node", || demo.repaired())?;
    steps.step("a rule of the same name in another namespace is loaded beside it", || demo.second_namespace())?;
    steps.step("a deleted rule is gone from every node", || demo.delete_rules())?;
    steps.step("a deleted namespace is gone, and its file from every node", || demo.delete_namespace())?;
    println!("    from `kubectl apply` to Active on {} nodes: {}", args.nodes, seconds(took));

    if args.keep {
        println!("    KUBECONFIG={}", demo.cluster.kubeconfig().display());
        for node in demo.node_names() {
            println!("    {node}: {}", demo.cluster.node_path(&node, "/").display());
        }
        println!("    the cluster stays up until Ctrl-C");
        // Ctrl-C ends this program; what it started ends, and its folder goes, with it.
        loop {
            std::thread::park();
        }
    }
    steps.step("the release is uninstalled, and nothing is left", || {
        release.uninstall(&demo.cluster)?;
        let dir = demo.cluster.dir().to_path_buf();
        drop(demo);
        ensure!(!dir.exists(), "{} is still there", dir.display());
        // Empty now, unless another demo runs.
        let _ = std::fs::remove_dir(repository().join("demo"));
        Ok(())
    })?;
    println!("done in {}", seconds(begun.elapsed()));
    Ok(())
}

/// The example's rule with another condition.
fn manifest(namespace: &str, condition: &str) -> Value {
    serde_json::json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule",
        "metadata": {"name": "bash", "namespace": namespace},
        "spec": {
            "rule": "shell_in_container", "desc": "notice shell activity within a container",
            "condition": condition, "output": "shell in a container (user=%user.name shell=%proc.name)",
            "priority": "WARNING",
        },
    })
}

struct Demo {
    cluster: Cluster,
    nodes: usize,
}

impl Demo {
    fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| format!("node-{number}")).collect()
    }

    /// The example's rule with another condition.
    fn rule(&self, namespace: &str, condition: &str) -> Result<()> {
        show("kubectl apply -f -", &self.cluster.apply(&manifest(namespace, condition).to_string())?);
        Ok(())
    }

    fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let text = self.cluster.kubectl(&["get", kind, name, "--namespace", namespace, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Shows the rules as they change, until this one's present generation is Active on every node.
    fn active(&self, namespace: &str) -> Result<()> {
        let mut shown = String::new();
        let mut show_news = || -> Result<()> {
            let table = self.cluster.kubectl(&["get", "falcorules", "-A", "--no-headers=false"])?;
            // The age alone is no news.
            let words = |line: &str| line.split_whitespace().rev().skip(1).collect::<Vec<_>>().join(" ");
            let news = table.lines().map(words).collect::<Vec<_>>().join("\n");
            if news != shown {
                show("kubectl get falcorules -A", &table);
                shown = news;
            }
            Ok(())
        };
        let all = format!("{0}/{0}", self.nodes);
        wait::until("the rule is Active", LIMIT, || {
            show_news()?;
            let rule = self.get("falcorule", namespace, "bash")?;
            let status = &rule["status"];
            ensure!(
                status["observedGeneration"] == rule["metadata"]["generation"]
                    && status["phase"] == "Active"
                    && status["loaded"] == all,
                "{status}"
            );
            Ok(())
        })?;
        show_news()?;
        let wait = ["wait", "--for=condition=Ready", "--timeout=60s", "--namespace", namespace, "falcorule/bash"];
        show(&format!("kubectl {}", wait.join(" ")), &self.cluster.kubectl(&wait)?);
        Ok(())
    }

    fn file(&self, node: &str, namespace: &str) -> PathBuf {
        // The link that people see on the node leads through links whose targets are paths of the node.
        self.cluster.node_path(node, "/var/falco-operator").join("current/rules").join(format!("{namespace}.yaml"))
    }

    fn read(&self, node: &str, namespace: &str) -> Result<String> {
        let file = self.file(node, namespace);
        std::fs::read_to_string(&file).with_context(|| format!("the rules file of {namespace} on {node}"))
    }

    /// What every node has of a namespace, which must be the same everywhere.
    fn everywhere(&self, namespace: &str) -> Result<String> {
        let texts: Vec<_> = self.node_names().iter().map(|node| self.read(node, namespace)).collect::<Result<_>>()?;
        ensure!(texts.windows(2).all(|pair| pair.first() == pair.last()), "the nodes differ: {texts:?}");
        texts.into_iter().next().context("there is no node")
    }

    fn nowhere(&self, namespace: &str) -> Result<()> {
        for node in self.node_names() {
            ensure!(!self.file(&node, namespace).exists(), "{node} still has the file of {namespace}");
        }
        Ok(())
    }

    fn first_rule(&self) -> Result<Duration> {
        let applied = Instant::now();
        let apply = ["apply", "-f", "examples/bash.falcorule.yaml"];
        show("kubectl apply -f examples/bash.falcorule.yaml", &self.cluster.kubectl(&apply)?);
        self.active("default")?;
        let took = applied.elapsed();
        show("cat /var/falco-operator/rules/default.yaml # on every node", &self.everywhere("default")?);
        let diff = std::process::Command::new("diff")
            .arg(self.cluster.node_path("node-1", "/etc/falco/falco.yaml"))
            .arg(self.cluster.node_path("node-1", "/var/falco-operator/current/falco.yaml"))
            .output()?;
        show(
            "diff /etc/falco/falco.yaml /var/falco-operator/falco.yaml # on node-1",
            &String::from_utf8_lossy(&diff.stdout),
        );
        Ok(took)
    }

    fn edit(&self) -> Result<()> {
        self.rule("default", "container.id != host and proc.name in (bash, zsh)")?;
        self.active("default")?;
        ensure!(self.everywhere("default")?.contains("zsh"), "the nodes don't have the edit");
        Ok(())
    }

    /// The broken rule as a developer applies it.
    fn refused(&self) -> Result<()> {
        let good = self.get("falcorule", "default", "bash")?["spec"].clone();
        // Until API servers trust the webhook, which is a matter of moments, they let everything in.
        wait::until("the webhook answers", LIMIT, || {
            ensure!(!self.apply(&["--dry-run=server"], "default", BROKEN)?.0, "the broken rule was let in");
            Ok(())
        })?;
        let (went_in, words) = self.apply(&[], "default", BROKEN)?;
        show("kubectl apply -f -", &words);
        ensure!(!went_in && words.contains("^^^^^^^^^^^^^"), "no caret under the mistake: {words}");
        ensure!(self.get("falcorule", "default", "bash")?["spec"] == good, "the refused edit is there all the same");
        Ok(())
    }

    /// Whether a rule with this condition went in, and what kubectl said.
    fn apply(&self, more: &[&str], namespace: &str, condition: &str) -> Result<(bool, String)> {
        let file = self.cluster.dir().join("rule.json");
        std::fs::write(&file, manifest(namespace, condition).to_string())?;
        let out = self.cluster.command(Tool::Kubectl)?.arg("apply").args(more).arg("-f").arg(&file).output()?;
        let text = [out.stdout, out.stderr].concat();
        Ok((out.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// The same where the API server has nobody to ask.
    fn broken(&self, release: &Release) -> Result<()> {
        let good = self.everywhere("default")?;
        let off = ["delete", "validatingwebhookconfiguration", "fo1-falco-operator-webhook"];
        show(&format!("kubectl {}", off.join(" ")), &self.cluster.kubectl(&off)?);
        self.rule("default", BROKEN)?;
        let message = wait::until("the status says what is wrong", LIMIT, || {
            let rule = self.get("falcorule", "default", "bash")?;
            let conditions = rule["status"]["conditions"].as_array().context("no conditions yet")?;
            let ready = conditions.iter().find(|it| it["type"] == "Ready").context("no Ready condition yet")?;
            ensure!(
                ready["observedGeneration"] == rule["metadata"]["generation"] && ready["status"] == "False",
                "{ready}"
            );
            Ok(ready["message"].as_str().unwrap_or_default().to_owned())
        })?;
        show("kubectl get falcorule bash -o jsonpath=… # the Ready condition's message", &message);
        ensure!(message.contains("proc.nonsense"), "the message does not name the field: {message}");
        ensure!(self.everywhere("default")? == good, "the last good file did not stay");
        // Back again, as a user would have it.
        release.upgrade(&self.cluster, "{}\n")
    }

    fn repaired(&self) -> Result<()> {
        self.rule("default", "container.id != host and proc.name = bash")?;
        self.active("default")
    }

    fn second_namespace(&self) -> Result<()> {
        show("kubectl create namespace team-b", &self.cluster.kubectl(&["create", "namespace", "team-b"])?);
        self.rule("team-b", "container.id != host and proc.name = sh")?;
        self.active("team-b")?;
        show("cat /var/falco-operator/rules/team-b.yaml # on every node", &self.everywhere("team-b")?);
        self.everywhere("default").map(drop)
    }

    fn delete_rules(&self) -> Result<()> {
        show("kubectl delete falcorule bash", &self.cluster.kubectl(&["delete", "falcorule", "bash"])?);
        let gone = ["wait", "--for=delete", "--timeout=120s", "falcorulesfile/default"];
        show(&format!("kubectl {}", gone.join(" ")), &self.cluster.kubectl(&gone)?);
        // It goes when no node loads the file; then no node has it.
        self.nowhere("default")?;
        self.everywhere("team-b").map(drop)
    }

    fn delete_namespace(&self) -> Result<()> {
        let delete = ["delete", "namespace", "team-b", "--timeout=120s"];
        show("kubectl delete namespace team-b", &self.cluster.kubectl(&delete)?);
        self.nowhere("team-b")
    }
}
