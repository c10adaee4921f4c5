//! `falco-operator status`, `pause`, `resume` and `retry`: the developer's view of a namespace.

mod fetch;
mod text;
mod view;

use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::{Value, json};

use super::runtime;
use crate::api::FalcoRulesFile;
use view::View;

/// Which cluster and which namespace.
#[derive(clap::Args, Debug, Clone)]
pub struct Scope {
    /// Namespace [default: that of the kubeconfig's context]
    #[arg(long, short)]
    namespace: Option<String>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long)]
    context: Option<String>,
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
    /// Show it again whenever something changes, until Ctrl-C; as JSON, one object a line
    #[arg(long, short)]
    watch: bool,
}

/// Arguments of `falco-operator pause`, `resume` and `retry`.
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

/// Shows what runs where, and why not.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let (client, default) = connect(&args.scope).await?;
        let namespace = args.scope.namespace.clone().unwrap_or(default);
        let namespace = (!args.all_namespaces).then_some(namespace);
        let terminal = std::io::stdout().is_terminal();
        let style = text::Style { colour: terminal && colours(), one: args.rule.is_some() };
        let mut shown = None;
        // Listened for all the time: one that comes while the API server is asked must not be lost.
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            let views = tokio::select! {
                views = fetch::look(&client, namespace.as_deref(), args.rule.as_deref()) => views?,
                _ = &mut interrupted => return Ok(ExitCode::SUCCESS),
            };
            let json = json!({ "namespaces": views.iter().map(View::json).collect::<Vec<_>>() });
            // Ages alone are news on a screen, and not in a file.
            let news = shown.as_ref() != Some(&json);
            if news || (args.watch && terminal && args.output == Output::Text) {
                let said = match args.output {
                    Output::Json if args.watch => format!("{json}\n"),
                    Output::Json => format!("{json:#}\n"),
                    Output::Text => text::screen(&views, namespace.as_deref(), style, Timestamp::now()),
                };
                let clear = if args.watch && terminal { "\x1b[2J\x1b[H" } else { "" };
                let mut out = std::io::stdout().lock();
                write!(out, "{clear}{said}").and_then(|()| out.flush()).context("cannot write to standard output")?;
            }
            shown = Some(json);
            if !args.watch {
                let well = views.iter().all(View::is_well);
                return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = &mut interrupted => return Ok(ExitCode::SUCCESS),
            }
        }
    })
}

/// Whether somebody who has a terminal wants colours there (<https://no-color.org>).
fn colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Stops the namespace's rollout before its next wave, or lets it go on.
pub fn pause(args: &PauseArgs, paused: bool) -> anyhow::Result<ExitCode> {
    change(&args.scope, |file| {
        if file.spec.paused == paused {
            return Err(if paused { "is paused already" } else { "is not paused" }.to_owned());
        }
        let done = if paused { "is paused: no further wave begins" } else { "is resumed" };
        Ok((json!({ "spec": { "paused": paused } }), done))
    })
}

/// Tries the file again that was rolled back.
pub fn retry(args: &PauseArgs) -> anyhow::Result<ExitCode> {
    change(&args.scope, |file| {
        if file.status.as_ref().and_then(|status| status.rejected_hash.as_ref()).is_none() {
            return Err("was not rolled back, so there is nothing to try again".to_owned());
        }
        let token = Timestamp::now().to_string();
        Ok((json!({ "spec": { "retryToken": token } }), "will be tried again"))
    })
}

/// Changes the spec of the namespace's file: what `decide` says, or nothing where it says why not.
fn change(
    scope: &Scope,
    decide: impl Fn(&FalcoRulesFile) -> Result<(Value, &'static str), String>,
) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let (client, default) = connect(scope).await?;
        let namespace = scope.namespace.clone().unwrap_or(default);
        let api = Api::<FalcoRulesFile>::namespaced(client, &namespace);
        let Some(file) = api.get_opt(&namespace).await.map_err(|err| fetch::in_words(err, "the FalcoRulesFile"))? else {
            bail!(
                "the namespace {namespace} has no FalcoRulesFile: there is no FalcoRule in it, or the operator does not run"
            )
        };
        match decide(&file) {
            Err(why) => println!("falcorulesfile/{namespace} {why}"),
            Ok((patch, done)) => {
                let patched = api.patch(&namespace, &PatchParams::default(), &Patch::Merge(&patch)).await;
                patched.map_err(|err| fetch::in_words(err, &format!("changing falcorulesfile/{namespace}")))?;
                println!("falcorulesfile/{namespace} {done}");
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn connect(scope: &Scope) -> anyhow::Result<(Client, String)> {
    const NOWHERE: &str = "no kubeconfig (KUBECONFIG, ~/.kube/config) leads to a cluster";
    let config = match &scope.context {
        None => Config::infer().await.context(NOWHERE)?,
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.context(NOWHERE)?
        }
    };
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).context("the way to the cluster can't be set up")?, namespace))
}
