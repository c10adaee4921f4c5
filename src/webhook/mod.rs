//! The admission webhook: rules, macros and lists are answered at `kubectl apply`, by the code that the controller
//! judges them with.
//!
//! [`review`] decides what is answered and [`keyring`] when which certificate is served; both are pure. Every replica
//! answers, whoever leads; what nobody answers goes in, and is answered by the controller in the object's status.

mod certificate;
mod keeper;
pub mod keyring;
pub mod metrics;
pub mod object;
pub mod review;
mod server;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::header::{CONNECTION, HeaderValue};
use kube::Client;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use keeper::{Own, Source};
pub use keyring::Lifetimes;

use crate::render::{Policy, Snapshot};
use crate::telemetry::{Gate, http};
use metrics::WebhookMetrics;

/// The path that API servers ask.
pub const PATH: &str = "/validate";
/// How long an API server may keep a connection for its next request. Longer than the 90 s after which it closes one itself
/// (Go's `IdleConnTimeout` there): of two that close at once, one may just have asked.
const IDLE: Duration = Duration::from_mins(2);
/// How long requests are answered after the shutdown began: until then some are still sent here.
const DRAIN: Duration = Duration::from_secs(3);

/// What is known of a namespace at this moment, with who holds these names of rules beside those of its own rules;
/// `None` while too little is known to judge by it.
pub type Reader =
    Arc<dyn Fn(String, Vec<String>) -> Pin<Box<dyn Future<Output = Option<Snapshot>> + Send>> + Send + Sync>;

/// What the webhook needs to know.
#[derive(Clone)]
pub struct Options {
    /// Where its certificate comes from.
    pub source: Source,
    /// What is allowed.
    pub policy: Policy,
    /// Whether a rule that uses a macro which is not there is denied, whatever it may be that the macro is on its way.
    pub strict: bool,
}

/// Serves the webhook until `shutdown`, and a few seconds longer.
pub async fn run(
    listener: TcpListener,
    client: Client,
    reader: Reader,
    options: Options,
    metrics: WebhookMetrics,
    gate: Gate,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let serving = certificate::Serving::default();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS can't be set up")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(serving.clone()));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let handler = server::Handler::new(client.clone(), reader, options.policy, options.strict, metrics.clone());
    let (closed, leaving) = (CancellationToken::new(), shutdown.clone());
    let serve = http::serve(
        listener,
        Some(TlsAcceptor::from(Arc::new(config))),
        IDLE,
        move |request| {
            let (handler, leaving) = (handler.clone(), leaving.clone());
            async move {
                let mut answer = handler.handle(request).await;
                // So that the client takes no connection for its next request that is closed a moment later.
                if leaving.is_cancelled() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        },
        closed.clone(),
    );
    let keeper = keeper::Keeper { serving, metrics, gate: gate.clone() };
    let keep = keeper.run(client, options.source, shutdown.clone());
    let drain = async {
        shutdown.cancelled().await;
        gate.not_ready("shutting down");
        sleep(DRAIN).await;
        closed.cancel();
    };
    tokio::join!(serve, keep, drain);
    Ok(())
}

#[cfg(test)]
mod tests;
