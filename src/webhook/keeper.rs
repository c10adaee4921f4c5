//! Keeps the certificate that is served and what API servers trust: from a Secret that all replicas share, or from files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::certificate::{self, Ready, Serving};
use super::keyring::{Keyring, Lifetimes, Served, Step};
use super::metrics::WebhookMetrics;
use crate::telemetry::Gate;

/// The key of the Secret that holds the keyring.
const KEYRING: &str = "keyring.json";
/// The key of the Secret that holds what is to be trusted, for people.
const BUNDLE: &str = "ca.crt";
/// How long a look at the API server may take in all.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often files are looked at.
const FILES: Duration = Duration::from_secs(5);
/// How often a step is decided anew because another replica was faster.
const ATTEMPTS: usize = 5;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// This program makes it.
    Own(Own),
    /// A folder with `tls.crt` and `tls.key`, which something else keeps current.
    Files(PathBuf),
}

/// What a certificate of one's own needs.
#[derive(Clone, Debug)]
pub struct Own {
    /// The namespace of the Secret and of the Service.
    pub namespace: String,
    /// The Secret that replicas share; it must be there, and may be empty.
    pub secret: String,
    /// The Service that API servers call.
    pub service: String,
    /// The `ValidatingWebhookConfiguration` that says what they trust.
    pub configuration: String,
    /// How long things are good for.
    pub lifetimes: Lifetimes,
}

/// What keeps the certificate, and what it tells.
pub struct Keeper {
    /// Where the certificate is put.
    pub serving: Serving,
    /// What is counted.
    pub metrics: WebhookMetrics,
    /// Ready once there is a certificate that API servers are told to trust: from then on they can ask.
    pub gate: Gate,
}

impl Keeper {
    /// Goes on until `shutdown`.
    pub async fn run(self, client: Client, source: Source, shutdown: CancellationToken) {
        let go_on = async {
            match source {
                Source::Own(own) => self.own(client, own).await,
                Source::Files(folder) => self.files(&folder).await,
            }
        };
        tokio::select! {
            // What is shutting down is never said to be ready again.
            biased;
            () = shutdown.cancelled() => {}
            () = go_on => {}
        }
    }

    async fn own(&self, client: Client, own: Own) {
        let mut replica = Replica {
            secrets: Api::namespaced(client.clone(), &own.namespace),
            configurations: Api::all(client),
            own,
            remembered: None,
            served: None,
        };
        let mut told = Told::default();
        loop {
            let outcome = timeout(PATIENCE, replica.look(self)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the API server did not answer in time")));
            self.tell(outcome, &mut told);
            sleep(replica.own.lifetimes.period()).await;
        }
    }

    async fn files(&self, folder: &Path) {
        let mut last = None;
        let mut told = Told::default();
        loop {
            let read = read_files(folder).await;
            let outcome = read.and_then(|found| {
                if last.as_ref() != Some(&found) {
                    let ready = certificate::ready(&found.0, &found.1)
                        .with_context(|| format!("the files in {}", folder.display()))?;
                    self.serve(&ready);
                    last = Some(found);
                }
                Ok(())
            });
            self.tell(outcome, &mut told);
            sleep(FILES).await;
        }
    }

    fn serve(&self, ready: &Ready) {
        self.serving.put(ready);
        self.metrics.certificates_total.inc();
        self.metrics.certificate_expiry_timestamp_seconds.set(ready.not_after.as_second() as f64);
        tracing::info!(until = %ready.not_after, "a new certificate is served");
    }

    /// Says what went wrong, once.
    fn tell(&self, outcome: anyhow::Result<()>, told: &mut Told) {
        match outcome {
            Ok(()) => {
                self.gate.ready();
                *told = Told { well_once: true, wrong: String::new() };
            }
            Err(err) => {
                self.metrics.certificate_failures_total.inc();
                let text = format!("{err:#}");
                if !told.well_once {
                    self.gate.not_ready(format!("API servers can't ask it yet: {text}"));
                }
                if told.wrong != text {
                    tracing::warn!(err = text, "the certificate can't be kept current; the one before is served on");
                    told.wrong = text;
                }
            }
        }
    }
}

/// What has been said of how it goes.
#[derive(Default)]
struct Told {
    /// Whether all was well at least once: what fails later fails for a certificate that is served and trusted.
    well_once: bool,
    /// What went wrong last.
    wrong: String,
}

async fn read_files(folder: &Path) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let read = async |name: &str| {
        let path = folder.join(name);
        tokio::fs::read(&path).await.with_context(|| format!("cannot read {}", path.display()))
    };
    Ok((read("tls.crt").await?, read("tls.key").await?))
}

/// One of those that share the keyring.
struct Replica {
    secrets: Api<Secret>,
    configurations: Api<ValidatingWebhookConfiguration>,
    own: Own,
    /// The keyring as it was seen last, in case that somebody empties the Secret.
    remembered: Option<Keyring>,
    served: Option<Served>,
}

impl Replica {
    /// Looks once, and does what is to be done.
    async fn look(&mut self, keeper: &Keeper) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            // The Secret is read last: what is trusted can then only be older than the keyring, never newer, and the
            // version that the patch rests on keeps an older keyring from replacing a newer one's bundle.
            let configuration = self.configuration().await?;
            let trusted = configuration.as_ref().map(trusted);
            let Some(keyring) = self.keyring(trusted.as_deref()).await? else { continue };
            let now = Timestamp::now();
            if keyring.wants_another(self.served.as_ref(), now, self.own.lifetimes)
                && let Some(authority) = keyring.current(now)
            {
                let names = [format!("{}.{}.svc", self.own.service, self.own.namespace)];
                let (ready, served) = certificate::issue(authority, &names, now, self.own.lifetimes)?;
                keeper.serve(&ready);
                keeper.metrics.authority_expiry_timestamp_seconds.set(authority.not_after.as_second() as f64);
                self.served = Some(served);
            }
            let bundle = keyring.bundle();
            self.remembered = Some(keyring);
            if let Some(found) = configuration
                && !all_trust(&found, &bundle)
                && !self.trust(&found, &bundle).await?
            {
                continue;
            }
            return Ok(());
        }
        bail!("other replicas were faster {ATTEMPTS} times in a row")
    }

    /// The configuration that tells API servers of the webhook; `None` where there is none.
    async fn configuration(&self) -> anyhow::Result<Option<ValidatingWebhookConfiguration>> {
        let name = &self.own.configuration;
        let found = self.configurations.get_opt(name).await;
        found.with_context(|| format!("the ValidatingWebhookConfiguration {name} can't be read"))
    }

    /// The keyring, after what was due; `None` where another replica was faster.
    async fn keyring(&self, trusted: Option<&str>) -> anyhow::Result<Option<Keyring>> {
        let Own { namespace, secret, lifetimes, .. } = &self.own;
        let what = || format!("the Secret {namespace}/{secret} for the webhook's certificates");
        let found = self.secrets.get(secret).await.with_context(|| format!("{} can't be read", what()))?;
        let now = Timestamp::now();
        let held = found.data.as_ref().and_then(|data| data.get(KEYRING));
        let read = held.and_then(|bytes| Keyring::from_json(&bytes.0));
        if held.is_some() && read.is_none() {
            tracing::warn!("{} holds something else than a keyring, which is replaced", what());
        }
        // An emptied Secret is no reason to begin anew: what is served would not be trusted for a while.
        let lost = read.is_none();
        let keyring = read.or_else(|| self.remembered.clone()).unwrap_or_default();
        let Some(next) = next(&keyring, trusted, now, *lifetimes)?.or_else(|| lost.then(|| keyring.clone())) else {
            return Ok(Some(keyring));
        };
        let mut changed = found;
        let data = changed.data.get_or_insert_default();
        data.insert(KEYRING.to_owned(), ByteString(next.to_json()));
        data.insert(BUNDLE.to_owned(), ByteString(next.bundle().into_bytes()));
        match self.secrets.replace(secret, &PostParams::default(), &changed).await {
            Ok(_) => Ok(Some(next)),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(None),
            Err(err) => Err(err).with_context(|| format!("{} can't be written", what())),
        }
    }

    /// Tells API servers what to trust; false where the configuration is not what it was any more.
    async fn trust(&self, found: &ValidatingWebhookConfiguration, bundle: &str) -> anyhow::Result<bool> {
        let encoded = BASE64_STANDARD.encode(bundle);
        let webhooks: Vec<_> = found
            .webhooks
            .iter()
            .flatten()
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": encoded}}))
            .collect();
        let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "webhooks": webhooks});
        let name = found.name_any();
        let params = PatchParams { field_manager: Some("falco-operator-webhook".into()), ..PatchParams::default() };
        match self.configurations.patch(&name, &params, &Patch::Strategic(patch)).await {
            Ok(_) => {
                tracing::info!(configuration = name, "API servers are told which certificates to trust");
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(err) => Err(err).with_context(|| format!("the ValidatingWebhookConfiguration {name} can't be patched")),
        }
    }
}

/// The keyring after the step that is due, if one is.
fn next(
    keyring: &Keyring,
    trusted: Option<&str>,
    now: Timestamp,
    lifetimes: Lifetimes,
) -> anyhow::Result<Option<Keyring>> {
    let Some(step) = keyring.step(trusted, now, lifetimes) else { return Ok(None) };
    let fresh = match step {
        Step::Begin | Step::Introduce => Some(certificate::authority(now, lifetimes)?),
        Step::Promote | Step::Retire => None,
    };
    tracing::info!(?step, "the authorities of the webhook change");
    Ok(Some(keyring.after(step, fresh, now, lifetimes)))
}

/// What API servers trust.
fn trusted(configuration: &ValidatingWebhookConfiguration) -> String {
    let first = configuration.webhooks.iter().flatten().next();
    let bytes = first.and_then(|webhook| webhook.client_config.ca_bundle.as_ref()).map(|bundle| bundle.0.clone());
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// Whether all webhooks of the configuration trust the same.
fn all_trust(configuration: &ValidatingWebhookConfiguration, bundle: &str) -> bool {
    configuration
        .webhooks
        .iter()
        .flatten()
        .all(|webhook| webhook.client_config.ca_bundle.as_ref().is_some_and(|found| found.0 == bundle.as_bytes()))
}
