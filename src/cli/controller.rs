//! `falco-operator controller`, and `falco-operator cleanup`, which is a controller that withdraws everything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{runtime, shutdown_on_signals, webhook};
use crate::controller::{self, Options, Policies, Reader, Watched, metrics::ControllerMetrics};
use crate::machine::{self, Wave};
use crate::render;
use crate::telemetry::{self, Readiness, Telemetry};

/// What the commands that act as the controller have in common.
#[derive(clap::Args, Debug)]
struct Common {
    /// Namespace of the release, where the lease is
    #[arg(long, env = "FALCO_OPERATOR_NAMESPACE", default_value = "falco-operator")]
    namespace: String,
    /// Name of this process' pod, by which it holds the lease [default: the machine's name]
    #[arg(long, env = "FALCO_OPERATOR_POD_NAME", default_value_t = fallback_name(), hide_default_value = true)]
    pod_name: String,
    /// Namespace of the agents [default: that of the release]
    #[arg(long, env = "FALCO_OPERATOR_AGENT_NAMESPACE")]
    agent_namespace: Option<String>,
    /// Name of a DaemonSet whose pods are agents; may be given again [default: every one of the agents' namespace]
    #[arg(long, env = "FALCO_OPERATOR_AGENT_DAEMONSET", value_delimiter = ',', value_name = "NAME")]
    agent_daemonset: Vec<String>,
    /// Labels of the agents' pods, as a selector
    #[arg(
        long,
        env = "FALCO_OPERATOR_AGENT_SELECTOR",
        default_value = "app.kubernetes.io/name=falco-operator,app.kubernetes.io/component=agent",
        value_name = "SELECTOR"
    )]
    agent_selector: String,
    /// Name of the lease
    #[arg(long, env = "FALCO_OPERATOR_LEASE_NAME", default_value = "falco-operator", value_name = "NAME")]
    lease_name: String,
    /// Count nodes that can't prove what they load as if they could
    #[arg(long, env = "FALCO_OPERATOR_ACCEPT_ASSUMED")]
    accept_assumed: bool,
}

/// Two processes outside pods must not take each other for themselves.
fn fallback_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    format!("{host}-{}", std::process::id())
}

impl Common {
    fn options(&self, most_namespaces: usize, cleanup: bool) -> Options {
        Options {
            namespace: self.namespace.clone(),
            pod_name: self.pod_name.clone(),
            watched: Watched {
                agent_namespace: self.agent_namespace.clone().unwrap_or_else(|| self.namespace.clone()),
                agent_selector: self.agent_selector.clone(),
            },
            daemon_sets: self.agent_daemonset.iter().cloned().collect::<BTreeSet<_>>(),
            lease_name: self.lease_name.clone(),
            most_namespaces,
            accept_assumed: self.accept_assumed,
            cleanup,
        }
    }
}

/// Arguments of `falco-operator controller`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Where to serve metrics and probes
    #[arg(long, env = "FALCO_OPERATOR_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// For how many namespaces there are metrics of their own, by name; 0 turns those off
    #[arg(long, env = "FALCO_OPERATOR_MOST_NAMESPACES", default_value_t = 500, value_name = "COUNT")]
    most_namespaces: usize,
    /// File with the policy for rules, as YAML
    #[arg(long, env = "FALCO_OPERATOR_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Waves of a rollout: numbers of nodes, percentages, `all`
    #[arg(
        long,
        env = "FALCO_OPERATOR_ROLLOUT_WAVES",
        default_value = "all",
        value_delimiter = ',',
        value_name = "WAVES"
    )]
    rollout_waves: Vec<Wave>,
    /// How many nodes may refuse a file before it is rolled back
    #[arg(long, env = "FALCO_OPERATOR_ROLLOUT_MAX_FAILED", default_value_t = 0, value_name = "COUNT")]
    rollout_max_failed: u32,
    /// How long a wave may take; nodes that said nothing until then are not waited for
    #[arg(long, env = "FALCO_OPERATOR_ROLLOUT_DEADLINE", default_value = "5m", value_name = "DURATION", value_parser = duration)]
    rollout_deadline: Duration,
    #[command(flatten)]
    webhook: webhook::Args,
}

/// A duration as Kubernetes writes it: `90s`, `5m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration =
        text.parse().map_err(|err| format!("not a duration such as `90s` or `5m`: {err}"))?;
    if parsed.is_negative() {
        return Err("a duration can't be negative".to_owned());
    }
    Ok(parsed.into())
}

/// Runs the controller until it is told to stop.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    telemetry::logs::init()?;
    let policies = Policies {
        rollout: machine::Policy {
            waves: args.rollout_waves.clone(),
            max_failed: args.rollout_max_failed,
            deadline: args.rollout_deadline,
        },
        render: match &args.policy {
            None => render::Policy::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the policy {}", path.display()))?;
                render::Policy::from_yaml(&text).with_context(|| format!("the policy {}", path.display()))?
            }
        },
        ..Policies::default()
    };
    runtime()?.block_on(async {
        let shutdown = shutdown_on_signals()?;
        let registry = telemetry::registry().context("the metrics can't be set up")?;
        let metrics = ControllerMetrics::register(&registry).context("the metrics can't be set up")?;
        let readiness = Readiness::default();
        let gate = readiness.gate("caches");
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
        // The probes and metrics go on until the last write is done.
        let done = CancellationToken::new();
        let client = controller::client().await?;
        let (reader, questions) = Reader::new();
        let parts = webhook::Parts {
            client: &client,
            namespace: &args.common.namespace,
            policy: &policies.render,
            registry: &registry,
            readiness: &readiness,
        };
        let webhook = webhook::start(&args.webhook, parts, reader, shutdown.clone()).await?;
        let telemetry = Telemetry { registry, readiness, refresh: None };
        let server = tokio::spawn(telemetry::run(listener, telemetry, done.clone()));
        tracing::info!(listen = %args.listen, version = env!("CARGO_PKG_VERSION"), "the controller starts");
        let options = args.common.options(args.most_namespaces, false);
        controller::run(client, options, policies, metrics, gate, questions, shutdown).await;
        if let Some(webhook) = webhook {
            webhook.await.context("the task of the webhook ended badly")??;
        }
        done.cancel();
        server.await.context("the task of the metrics ended badly")?;
        tracing::info!("the controller has stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// Arguments of `falco-operator cleanup`.
#[derive(clap::Args, Debug)]
pub struct CleanupArgs {
    #[command(flatten)]
    common: Common,
    /// Deployment of the controller, which is scaled to zero first [default: none is]
    #[arg(long, env = "FALCO_OPERATOR_DEPLOYMENT", value_name = "NAME")]
    deployment: Option<String>,
    /// Labels of the controller's pods, as a selector
    #[arg(
        long,
        env = "FALCO_OPERATOR_CONTROLLER_SELECTOR",
        default_value = "app.kubernetes.io/name=falco-operator,app.kubernetes.io/component=controller",
        value_name = "SELECTOR"
    )]
    controller_selector: String,
    /// How long to wait for nodes to drop their files; after that nothing is waited for
    #[arg(long, env = "FALCO_OPERATOR_TIMEOUT", default_value = "2m", value_name = "DURATION", value_parser = duration)]
    timeout: Duration,
}

/// Withdraws all rules files from the nodes and removes every finalizer, so that nothing is stuck once the operator is
/// gone.
pub fn cleanup(args: &CleanupArgs) -> anyhow::Result<ExitCode> {
    telemetry::logs::init()?;
    runtime()?.block_on(async {
        let shutdown = shutdown_on_signals()?;
        let client = controller::client().await?;
        let deadline = Instant::now() + args.timeout;
        if let Some(deployment) = &args.deployment {
            scale_to_zero(&client, &args.common.namespace, deployment, &args.controller_selector, deadline).await?;
        }
        if !controller::is_defined(&client).await? {
            tracing::info!("the kinds of the operator are not defined any more, so nothing is held back");
            return Ok(ExitCode::SUCCESS);
        }
        let registry = telemetry::registry().context("the metrics can't be set up")?;
        let metrics = ControllerMetrics::register(&registry).context("the metrics can't be set up")?;
        let gate = Readiness::default().gate("caches");
        let options = args.common.options(0, true);
        let stop = shutdown.child_token();
        let withdrawn = {
            let (_, questions) = Reader::new();
            let run =
                controller::run(client.clone(), options, Policies::default(), metrics, gate, questions, stop.clone());
            tokio::pin!(run);
            tokio::select! {
                () = &mut run => true,
                () = tokio::time::sleep_until(deadline) => {
                    // The lease is given back before the rest is done by force.
                    stop.cancel();
                    run.await;
                    false
                }
            }
        };
        ensure!(!shutdown.is_cancelled(), "told to stop before everything was withdrawn; run it again");
        if !withdrawn {
            tracing::warn!(
                "some nodes have not said that they dropped their files; finalizers are removed all the same"
            );
        }
        // What is left in either case: definitions that are gone have nothing to remove.
        controller::release(&client).await?;
        tracing::info!(withdrawn, "nothing of the operator holds anything back any more");
        Ok(ExitCode::SUCCESS)
    })
}

/// Scales the controller to zero and waits until its pods are gone; none is fine.
async fn scale_to_zero(
    client: &kube::Client,
    namespace: &str,
    deployment: &str,
    selector: &str,
    deadline: Instant,
) -> anyhow::Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let zero = json!({ "spec": { "replicas": 0 } });
    let scaled: kube::Result<Scale> =
        deployments.patch_scale(deployment, &PatchParams::default(), &Patch::Merge(&zero)).await;
    match scaled {
        Ok(_) => tracing::info!(deployment, "the controller is scaled to zero"),
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(err) => {
            return Err(err).with_context(|| format!("the Deployment {namespace}/{deployment} can't be scaled"));
        }
    }
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(selector);
    loop {
        let left = pods.list(&params).await.context("the controller's pods can't be listed")?.items.len();
        if left == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{left} pods of the controller are still there; run the cleanup again later"
        );
        sleep(Duration::from_millis(250)).await;
    }
}
