//! The options of the admission webhook, which each controller serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kube::Client;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::controller::duration;
use crate::controller::Reader;
use crate::render::Policy;
use crate::telemetry::Readiness;
use crate::webhook::{self, Lifetimes, Own, Source, metrics::WebhookMetrics};

/// The options of the admission webhook.
#[derive(clap::Args, Debug)]
#[group(id = "webhook")]
// They stand among those of the controller.
#[allow(clippy::struct_field_names)]
pub struct Args {
    /// Where to serve the admission webhook [default: it is not served]
    #[arg(long, env = "FALCO_OPERATOR_WEBHOOK_LISTEN", value_name = "ADDRESS")]
    webhook_listen: Option<SocketAddr>,
    /// Name of the Service by which API servers reach the webhook
    #[arg(long, env = "FALCO_OPERATOR_WEBHOOK_SERVICE", default_value = "falco-operator-webhook", value_name = "NAME")]
    webhook_service: String,
    /// Name of the Secret in which controllers keep the authority of their certificates; it is there, and may be empty
    #[arg(long, env = "FALCO_OPERATOR_WEBHOOK_SECRET", default_value = "falco-operator-webhook", value_name = "NAME")]
    webhook_secret: String,
    /// Name of the ValidatingWebhookConfiguration that tells API servers whom to trust
    #[arg(
        long,
        env = "FALCO_OPERATOR_WEBHOOK_CONFIGURATION",
        default_value = "falco-operator-webhook",
        value_name = "NAME"
    )]
    webhook_configuration: String,
    /// Folder with `tls.crt` and `tls.key`, read anew when they change [default: certificates are made and renewed]
    #[arg(long, env = "FALCO_OPERATOR_WEBHOOK_TLS_DIR", value_name = "FOLDER")]
    webhook_tls_dir: Option<PathBuf>,
    /// How long an authority is good for; the next one follows at half of that
    #[arg(
        long,
        env = "FALCO_OPERATOR_WEBHOOK_AUTHORITY_LIFETIME",
        default_value = "8760h",
        value_name = "DURATION",
        value_parser = duration
    )]
    webhook_authority_lifetime: Duration,
    /// How long a certificate is good for; the next one follows at half of that
    #[arg(
        long,
        env = "FALCO_OPERATOR_WEBHOOK_CERTIFICATE_LIFETIME",
        default_value = "720h",
        value_name = "DURATION",
        value_parser = duration
    )]
    webhook_certificate_lifetime: Duration,
    /// Deny rules whose macros are not there, even where these may be on their way
    #[arg(long, env = "FALCO_OPERATOR_WEBHOOK_STRICT_REFERENCES")]
    webhook_strict_references: bool,
}

/// What the webhook has in common with the controller in its process.
pub struct Parts<'a> {
    /// The client.
    pub client: &'a Client,
    /// The namespace of the release.
    pub namespace: &'a str,
    /// What is allowed.
    pub policy: &'a Policy,
    /// The metrics.
    pub registry: &'a Registry,
    /// What `/readyz` answers.
    pub readiness: &'a Readiness,
}

/// Begins to serve the webhook, if it is to be served, until `shutdown`.
pub async fn start(
    args: &Args,
    parts: Parts<'_>,
    reader: Reader,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<JoinHandle<anyhow::Result<()>>>> {
    let Some(address) = args.webhook_listen else { return Ok(None) };
    let source = match &args.webhook_tls_dir {
        Some(folder) => Source::Files(folder.clone()),
        None => Source::Own(Own {
            namespace: parts.namespace.to_owned(),
            secret: args.webhook_secret.clone(),
            service: args.webhook_service.clone(),
            configuration: args.webhook_configuration.clone(),
            lifetimes: Lifetimes {
                authority: args.webhook_authority_lifetime,
                certificate: args.webhook_certificate_lifetime,
            }
            .checked()
            .map_err(|err| anyhow!(err))?,
        }),
    };
    let options = webhook::Options { source, policy: parts.policy.clone(), strict: args.webhook_strict_references };
    let metrics = WebhookMetrics::register(parts.registry).context("the metrics can't be set up")?;
    let gate = parts.readiness.gate("webhook");
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(listen = %address, "the admission webhook is served");
    let read: webhook::Reader = Arc::new(move |namespace, wanted| {
        let reader = reader.clone();
        Box::pin(async move { reader.read(namespace, wanted).await })
    });
    Ok(Some(tokio::spawn(webhook::run(listener, parts.client.clone(), read, options, metrics, gate, shutdown))))
}
