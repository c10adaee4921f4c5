//! `falco-operator status`, `pause`, `resume` and `retry`: the developer's view of a namespace.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};

use super::runtime;
use crate::api::{AuthoredStatus, FalcoRule, FalcoRulesFile, FalcoRulesFileStatus, ItemPhase, Phase, condition_is};

/// Which namespace.
#[derive(clap::Args, Debug, Clone)]
pub struct Scope {
    /// Namespace [default: that of the kubeconfig's context]
    #[arg(long, short)]
    namespace: Option<String>,
}

/// Arguments of `falco-operator status`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Name of one FalcoRule
    rule: Option<String>,
    /// All namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    /// `json` for programs
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long, short, conflicts_with = "output")]
    watch: bool,
}

/// Arguments of `falco-operator pause` and `resume`.
#[derive(clap::Args, Debug)]
pub struct PauseArgs {
    #[command(flatten)]
    scope: Scope,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Text,
    Json,
}

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

/// A namespace with what is asked about it.
struct View {
    namespace: String,
    file: Option<FalcoRulesFileStatus>,
    paused: bool,
    rules: Vec<(String, Option<AuthoredStatus>)>,
}

/// Shows what runs where, and why not.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let (client, default) = connect().await?;
        let namespace = args.scope.namespace.clone().unwrap_or(default);
        let namespace = (!args.all_namespaces).then_some(namespace);
        let mut shown = String::new();
        loop {
            let views = look(&client, namespace.as_deref(), args.rule.as_deref()).await?;
            let text = match args.output {
                Output::Json => {
                    format!("{:#}\n", json!({ "namespaces": views.iter().map(as_json).collect::<Vec<_>>() }))
                }
                Output::Text => {
                    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                    views.iter().map(|view| as_text(view, colour, Timestamp::now())).collect::<Vec<_>>().join("\n")
                }
            };
            if text != shown {
                let clear = if args.watch && std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
                write!(std::io::stdout().lock(), "{clear}{text}").context("cannot write to standard output")?;
                shown = text;
            }
            if !args.watch {
                let well = views.iter().all(|view| view.rules.iter().all(|(_, status)| is_ready(status.as_ref())));
                return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
            }
        }
    })
}

/// Stops the namespace's rollout before its next wave, or lets it go on.
pub fn pause(args: &PauseArgs, paused: bool) -> anyhow::Result<ExitCode> {
    let done = if paused { "paused" } else { "resumed" };
    change(&args.scope, &json!({ "spec": { "paused": paused } }), done)
}

/// Tries the file again that was rolled back.
pub fn retry(args: &PauseArgs) -> anyhow::Result<ExitCode> {
    let token = Timestamp::now().to_string();
    change(&args.scope, &json!({ "spec": { "retryToken": token } }), "will be tried again")
}

fn change(scope: &Scope, patch: &Value, done: &str) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let (client, default) = connect().await?;
        let namespace = scope.namespace.clone().unwrap_or(default);
        let api = Api::<FalcoRulesFile>::namespaced(client, &namespace);
        match api.patch(&namespace, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => println!("falcorulesfile/{namespace} {done}"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                bail!("the namespace {namespace} has no FalcoRulesFile: there is no FalcoRule in it, or the operator does not run")
            }
            Err(err) => return Err(err).with_context(|| format!("falcorulesfile/{namespace} can't be changed")),
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn connect() -> anyhow::Result<(Client, String)> {
    let config = Config::infer().await.context("no kubeconfig (KUBECONFIG, ~/.kube/config) leads to a cluster")?;
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).context("the way to the cluster can't be set up")?, namespace))
}

async fn look(client: &Client, namespace: Option<&str>, rule: Option<&str>) -> anyhow::Result<Vec<View>> {
    let params = match rule {
        Some(rule) => ListParams::default().fields(&format!("metadata.name={rule}")),
        None => ListParams::default(),
    };
    let (rules, files): (Api<DeserializeGuard<FalcoRule>>, Api<DeserializeGuard<FalcoRulesFile>>) = match namespace {
        Some(namespace) => (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace)),
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    let rules = rules.list(&params).await.context("the FalcoRules can't be listed")?.items;
    let files = files.list(&ListParams::default()).await.context("the FalcoRulesFiles can't be listed")?.items;
    if let Some(rule) = rule
        && rules.is_empty()
    {
        bail!("there is no FalcoRule {rule} in {}", namespace.unwrap_or("any namespace"));
    }
    let mut views: Vec<View> = vec![];
    let at = |views: &mut Vec<View>, namespace: String| {
        views.iter().position(|view| view.namespace == namespace).unwrap_or_else(|| {
            views.push(View { namespace, file: None, paused: false, rules: vec![] });
            views.len() - 1
        })
    };
    for object in rules {
        let (name, at) = (object.name_any(), at(&mut views, object.namespace().unwrap_or_default()));
        let status = object.0.ok().and_then(|rule| rule.status);
        if let Some(view) = views.get_mut(at) {
            view.rules.push((name, status));
        }
    }
    for file in files {
        let namespace = file.namespace().unwrap_or_default();
        if file.name_any() != namespace || (rule.is_some() && !views.iter().any(|view| view.namespace == namespace)) {
            continue;
        }
        let at = at(&mut views, namespace);
        if let (Some(view), Ok(file)) = (views.get_mut(at), file.0) {
            view.paused = file.spec.paused;
            view.file = file.status;
        }
    }
    views.sort_by(|one, two| one.namespace.cmp(&two.namespace));
    Ok(views)
}

fn is_ready(status: Option<&AuthoredStatus>) -> bool {
    status.is_some_and(|status| condition_is(&status.conditions, "Ready"))
}

fn as_json(view: &View) -> Value {
    let rules = view.rules.iter().map(|(name, status)| json!({ "name": name, "status": status }));
    json!({
        "namespace": view.namespace,
        "paused": view.paused,
        "rulesFile": view.file,
        "rules": rules.collect::<Vec<_>>(),
    })
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

fn paint(text: &str, colour: Option<&str>) -> String {
    match colour {
        Some(colour) => format!("\x1b[{colour}m{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

fn as_text(view: &View, colour: bool, now: Timestamp) -> String {
    let mut text = format!("namespace {}", view.namespace);
    match &view.file {
        None => text.push_str(": no FalcoRulesFile yet\n"),
        Some(file) => {
            let shade = match file.phase {
                Phase::Active | Phase::Empty => GREEN,
                Phase::Degraded | Phase::RolledBack | Phase::RollingBack => RED,
                _ => YELLOW,
            };
            let since = file.phase_since.as_ref().map(|since| age(since.0, now)).unwrap_or_default();
            let _ = write!(text, ": {}{since}", paint(file.phase.name(), colour.then_some(shade)));
            if let Some(loaded) = &file.loaded {
                let _ = write!(text, ", {loaded} nodes");
            }
            let counts = (file.rules_accepted.unwrap_or(0), file.rules_rejected.unwrap_or(0));
            let _ = write!(text, ", {} rules accepted, {} rejected", counts.0, counts.1);
            text.push_str(if view.paused { ", paused\n" } else { "\n" });
            if let Some(message) = &file.message {
                let _ = writeln!(text, "  {message}");
            }
            if !file.pending.is_empty() {
                let _ = writeln!(text, "  not loaded yet: {}", file.pending.join(", "));
            }
            for node in &file.failing {
                let message = node.message.as_deref().unwrap_or("no message");
                let _ = writeln!(text, "  {} ({:?}): {message}", node.node, node.fault);
            }
        }
    }
    let width = view.rules.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("RULE".len());
    if !view.rules.is_empty() {
        let _ = writeln!(text, "  {:width$}  {:10}  {:7}  MESSAGE", "RULE", "PHASE", "LOADED");
    }
    for (name, status) in &view.rules {
        let phase = status.as_ref().and_then(|status| status.phase).unwrap_or_default();
        let shade = match phase {
            ItemPhase::Active => GREEN,
            ItemPhase::Pending | ItemPhase::RollingOut | ItemPhase::Unknown => YELLOW,
            _ => RED,
        };
        let loaded = status.as_ref().and_then(|status| status.loaded.as_deref()).unwrap_or("-");
        let message = status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default();
        let phase = paint(&format!("{:10}", format!("{phase:?}")), colour.then_some(shade));
        let line = format!("  {name:width$}  {phase}  {loaded:7}  {message}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// ` for 5m`.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!(" for {seconds}s"),
        120..7200 => format!(" for {}m", seconds / 60),
        7200..172_800 => format!(" for {}h", seconds / 3600),
        _ => format!(" for {}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FailingNode, Fault};

    #[test]
    fn one_screen_says_what_runs_where_not_and_why() {
        let file = FalcoRulesFileStatus {
            phase: Phase::Degraded,
            loaded: Some("2/3".into()),
            rules_accepted: Some(1),
            rules_rejected: Some(1),
            message: Some("node-3 does not load the file".into()),
            failing: vec![FailingNode {
                node: "node-3".into(),
                fault: Fault::NodeFault,
                message: Some("no space".into()),
            }],
            ..FalcoRulesFileStatus::default()
        };
        let good =
            AuthoredStatus { phase: Some(ItemPhase::Active), loaded: Some("2/3".into()), ..AuthoredStatus::default() };
        let view = View {
            namespace: "team-a".into(),
            file: Some(file),
            paused: true,
            rules: vec![("bash".into(), Some(good)), ("b".into(), None)],
        };
        assert_eq!(
            as_text(&view, false, Timestamp::UNIX_EPOCH),
            "namespace team-a: Degraded, 2/3 nodes, 1 rules accepted, 1 rejected, paused\n  node-3 does not load the file\n  \
             node-3 (NodeFault): no space\n  RULE  PHASE       LOADED   MESSAGE\n  bash  Active      2/3\n  b     Pending     -\n"
        );
        assert!(as_text(&view, true, Timestamp::UNIX_EPOCH).contains("\x1b[31mDegraded\x1b[0m"));
        assert_eq!(as_json(&view)["rulesFile"]["loaded"], "2/3");
    }

    #[test]
    fn ages_are_short() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (seconds, text) in [(5, " for 5s"), (600, " for 10m"), (10_000, " for 2h"), (900_000, " for 10d")] {
            assert_eq!(age(at(0), at(seconds)), text);
        }
    }
}
