//! The two halves of an agent, put together. Falco comes first: it runs whatever becomes of the API server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::limit::ConcurrencyLimitLayer;

use super::engine::{Engine, EngineOptions};
use super::identity::{Identity, TokenFile};
use super::metrics::{AgentMetrics, Scrape};
use super::watch::{Outlets, Seen};
use super::writer::{CatalogName, Inputs, Writer};
use super::{Running, Wanted, catalog};
use crate::api::FalcoState;
use crate::telemetry::Gate;

/// Requests that are under way at once.
const AT_ONCE: usize = 8;
/// How long to wait before looking again for a way to the API server.
const AGAIN: Duration = Duration::from_secs(10);

/// Runs an agent until `shutdown`, or until its engine has come to an end; with Falco's exit code.
pub async fn run(
    options: EngineOptions,
    metrics: AgentMetrics,
    scrape: &Scrape,
    gate: Gate,
    shutdown: CancellationToken,
) -> u8 {
    let (wanted_to, wanted) = watch::channel(Wanted::default());
    let (seen_to, seen) = watch::channel(None::<Arc<Seen>>);
    let (catalog_to, catalog) = watch::channel(CatalogName::default());
    let state_dir = options.state_dir.clone();
    let engine = Engine::start(options, wanted.clone(), Arc::new(metrics.clone()), shutdown.clone());
    scrape.of(&engine);
    // Ends with the engine, also where that ends without being told.
    let rest = shutdown.child_token();
    tokio::spawn(follow(engine.running.clone(), wanted, metrics.clone()));
    let half = Half {
        state_dir,
        catalog: catalog::Inputs { installation: engine.installation, page: engine.page, seen: seen.clone() },
        catalog_to,
        report: Inputs { seen, running: engine.running, catalog },
        outlets: Outlets { wanted: wanted_to, seen: seen_to },
        metrics,
        gate,
    };
    let talking = tokio::spawn(half.talk(rest.clone()));
    let code = engine.ended.await.unwrap_or_else(|err| {
        tracing::error!(%err, "the engine of this agent ended badly");
        1
    });
    rest.cancel();
    if let Err(err) = talking.await {
        tracing::error!(%err, "the task that talks to the API server ended badly");
    }
    code
}

/// The half that talks to the API server.
struct Half {
    state_dir: PathBuf,
    catalog: catalog::Inputs,
    catalog_to: watch::Sender<CatalogName>,
    report: Inputs,
    outlets: Outlets,
    metrics: AgentMetrics,
    gate: Gate,
}

impl Half {
    async fn talk(self, shutdown: CancellationToken) {
        let (client, token, identity) = loop {
            match connect().await {
                Ok(found) => break found,
                Err(err) => {
                    let err = format!("{err:#}");
                    tracing::error!(err, "this agent can't speak for its node; Falco runs what it ran last");
                    self.gate.not_ready(err);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(AGAIN) => {}
            }
        };
        tracing::info!(node = identity.node, pod = identity.pod.name, "this agent speaks for its node");
        let node = identity.node.clone();
        let writer = Writer::new(client.clone(), token, identity, self.report, self.metrics.clone(), self.gate);
        let catalog = catalog::run(client.clone(), self.catalog, self.catalog_to, shutdown.clone());
        let watching = super::watch::run(client, node, &self.state_dir, &self.outlets, &self.metrics, shutdown.clone());
        tokio::join!(watching, catalog, writer.run(shutdown));
    }
}

/// A way to the API server, and who this agent is by its own token.
async fn connect() -> anyhow::Result<(Client, TokenFile, Identity)> {
    let mut config = Config::infer().await.context(
        "no way to the API server: neither a kubeconfig (KUBECONFIG, ~/.kube/config) nor a pod's service account is there",
    )?;
    let token = TokenFile::of(&config)?;
    let identity = token.read()?;
    let name = concat!("falco-operator-agent/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(name)));
    let builder = ClientBuilder::try_from(config).context("the way to the API server can't be set up")?;
    Ok((builder.with_layer(&ConcurrencyLimitLayer::new(AT_ONCE)).build(), token, identity))
}

/// Keeps the metrics of what Falco runs.
async fn follow(mut running: watch::Receiver<Running>, mut wanted: watch::Receiver<Wanted>, metrics: AgentMetrics) {
    let mut blind_since = Some(Instant::now());
    loop {
        let up = {
            let running = running.borrow_and_update();
            metrics.show_running(&running, &wanted.borrow_and_update());
            running.falco == FalcoState::Running
        };
        if let Some(since) = blind_since.take() {
            metrics.blind_seconds_total.inc_by(since.elapsed().as_secs_f64());
        }
        if !up {
            blind_since = Some(Instant::now());
        }
        // While Falco is away its time is counted as it passes.
        tokio::select! {
            changed = running.changed() => if changed.is_err() { return },
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(Duration::from_secs(1)), if !up => {}
        }
    }
}
