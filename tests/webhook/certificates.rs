//! Certificates that come and go while API servers ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use falco_operator::api::FalcoRule;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use test_cluster::{Signal, wait};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{LIMIT, SYSTEM, Scenarios, World, ready, spec};
use crate::{NAME, answers, both_serve, manifest, secret, trusted};

/// Lives as short as they can be, and no object goes in that nobody has answered.
const SHORT: &str = "webhook: {enabled: true, failurePolicy: Fail, timeoutSeconds: 10, \
                     certificate: {authorityLifetime: 75s, lifetime: 25s}}\n";

#[test]
fn certificates_come_and_go_while_rules_are_answered() {
    let world = World::start(2, SHORT).unwrap();
    answers(&world).unwrap();
    Scenarios::of(&world)
        .run("authorities follow each other", rotation)
        .run("somebody empties the Secret and what is trusted", emptied)
        .run("the Secret holds something else", nonsense)
        .run("a controller is killed, and one is replaced", replaced)
        .end();
}

/// Asks all the time, until [`Asking::end`].
struct Asking {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: std::thread::JoinHandle<Result<()>>,
}

impl Asking {
    fn begin(world: &World) -> Result<Self> {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let api: kube::Api<FalcoRule> = world.api("default");
        let good = spec("asked", "evt.type = execve and proc.name = bash");
        let good: FalcoRule = serde_json::from_value(manifest("FalcoRule", "default", "asked", &good))?;
        let (told, counted) = (stop.clone(), count.clone());
        let task = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            runtime.block_on(async {
                while !told.load(Ordering::Relaxed) {
                    api.create(&dry, &good).await.context("a good rule was not answered")?;
                    counted.fetch_add(1, Ordering::Relaxed);
                    // Others want something of the API server too.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            })
        });
        Ok(Self { stop, count, task })
    }

    /// How many were answered; an error if one was not.
    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        match self.task.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("the asking ended in a panic"),
        }
        Ok(self.count.load(Ordering::Relaxed))
    }
}

/// The certificates that are trusted, one by one.
fn authorities(world: &World) -> Result<BTreeSet<String>> {
    let bundle = trusted(world)?;
    let ends = bundle.split_inclusive("-----END CERTIFICATE-----").map(|it| it.trim().to_owned());
    Ok(ends.filter(|it| !it.is_empty()).collect())
}

/// Waits until none of these authorities is trusted any more.
fn followed(world: &World, before: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    wait::until("all authorities have been followed by others", LIMIT, || {
        let now = authorities(world)?;
        ensure!(!now.is_empty() && now.is_disjoint(before), "{} are trusted", now.len());
        Ok(now)
    })
}

fn rotation(world: &World) -> Result<()> {
    let first = authorities(world)?;
    let asking = Asking::begin(world)?;
    let second = followed(world, &first)?;
    followed(world, &second)?;
    let answered = asking.end()?;
    ensure!(answered > 50, "only {answered} were asked about meanwhile");
    println!("       {answered} rules were answered while authorities followed each other");
    Ok(())
}

fn emptied(world: &World) -> Result<()> {
    both_serve(world)?;
    let asking = Asking::begin(world)?;
    let api = world.api::<k8s_openapi::api::core::v1::Secret>(SYSTEM);
    let none = json!({"data": null});
    world.wait(api.patch(NAME, &PatchParams::default(), &Patch::Merge(&none)))?;
    let trusted_before = trusted(world)?;
    wait::until("the Secret is filled again", LIMIT, || {
        let data = secret(world)?.data.context("it is empty")?;
        ensure!(data.contains_key("keyring.json"));
        Ok(())
    })?;
    let known = authorities(world)?;
    ensure!(known.iter().any(|authority| trusted_before.contains(authority.as_str())), "it was begun anew");
    asking.end()?;
    both_serve(world)
}

fn nonsense(world: &World) -> Result<()> {
    let api = world.api::<k8s_openapi::api::core::v1::Secret>(SYSTEM);
    let odd = json!({"stringData": {"keyring.json": "{"}});
    world.wait(api.patch(NAME, &PatchParams::default(), &Patch::Merge(&odd)))?;
    wait::until("the Secret is a keyring again", LIMIT, || {
        let data = secret(world)?.data.context("it is empty")?;
        ensure!(data.get("keyring.json").is_some_and(|it| it.0.len() > 10));
        Ok(())
    })?;
    both_serve(world)
}

fn replaced(world: &World) -> Result<()> {
    let controllers = world.controllers()?;
    let [first, second] = controllers.as_slice() else { bail!("{controllers:?}") };
    // A goodbye in order loses no request.
    let asking = Asking::begin(world)?;
    world.cluster.kubectl(&["delete", "pod", "--namespace", SYSTEM, first])?;
    wait::until("another controller is there", LIMIT, || {
        let now = world.controllers()?;
        ensure!(now.len() == 2 && !now.contains(first), "{now:?}");
        Ok(())
    })?;
    both_serve(world)?;
    asking.end()?;
    // A killed one comes back with a certificate that is trusted.
    world.cluster.signal(SYSTEM, second, None, Signal::SIGKILL)?;
    wait::until("the killed controller is back", LIMIT, || {
        let pods = world.cluster.pods("app.kubernetes.io/component=controller")?;
        let pod = pods.iter().find(|pod| pod.name_any() == *second).context("it is gone")?;
        let restarts =
            pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten()).map(|it| it.restart_count);
        ensure!(restarts.sum::<i32>() > 0 && ready(pod), "it is not");
        Ok(())
    })?;
    both_serve(world)?;
    answers(world)
}

/// Whether so many controllers are ready and each serves a certificate that API servers trust.
pub fn all_trusted(world: &World, count: usize) -> Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trusted(world)?.as_bytes()) {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let pods = world.cluster.pods("app.kubernetes.io/component=controller")?;
    let pods: Vec<_> = pods.iter().filter(|pod| ready(pod) && pod.metadata.deletion_timestamp.is_none()).collect();
    ensure!(pods.len() == count, "{} controllers are ready", pods.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for pod in pods {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("no address yet")?;
        let name = ServerName::try_from(format!("{NAME}.{SYSTEM}.svc"))?;
        runtime
            .block_on(async {
                let connect = async {
                    let stream = TcpStream::connect((address.as_str(), 9443)).await?;
                    connector.connect(name, stream).await
                };
                tokio::time::timeout(Duration::from_secs(10), connect).await?.context("its certificate is not trusted")
            })
            .with_context(|| pod.name_any())?;
    }
    Ok(())
}
