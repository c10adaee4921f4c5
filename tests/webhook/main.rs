//! What is answered at `kubectl apply`: a real API server asks the webhook of the installed chart, at the address of its
//! Service, and trusts what the controllers told it to trust.

mod answers;
mod certificates;
// The same world as that of `tests/cluster`, of which not everything is needed here.
#[allow(dead_code)]
#[path = "../cluster/support.rs"]
mod support;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::json;
use test_cluster::{Tool, wait};

use support::{LIMIT, SYSTEM, World};

/// The name of the webhook's objects.
const NAME: &str = "fo1-falco-operator-webhook";

/// What a program printed, and whether it was content.
struct Said {
    well: bool,
    out: String,
    err: String,
}

/// Runs kubectl with a manifest.
fn kubectl(world: &World, args: &[&str], manifest: &serde_json::Value) -> Result<Said> {
    let file = world.cluster.dir().join("manifest.json");
    std::fs::write(&file, manifest.to_string())?;
    let mut command = world.cluster.command(Tool::Kubectl)?;
    let out = command.args(args).arg("-f").arg(&file).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { well: out.status.success(), out: text(&out.stdout), err: text(&out.stderr) })
}

/// The manifest of a rule, macro or list.
fn manifest(kind: &str, namespace: &str, name: &str, spec: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// The configuration that API servers go by.
fn configuration(world: &World) -> Result<ValidatingWebhookConfiguration> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(world.cluster.client());
    world.get(&api, NAME)?.context("there is no ValidatingWebhookConfiguration")
}

/// What API servers trust.
fn trusted(world: &World) -> Result<String> {
    let webhooks = configuration(world)?.webhooks.context("no webhook")?;
    let bundle = webhooks.first().and_then(|it| it.client_config.ca_bundle.clone()).context("no caBundle yet")?;
    Ok(String::from_utf8(bundle.0)?)
}

/// The Secret of the authorities.
fn secret(world: &World) -> Result<Secret> {
    let api: Api<Secret> = world.api(SYSTEM);
    world.get(&api, NAME)?.context("there is no Secret")
}

/// Waits until the webhook answers: it denies what it must.
fn answers(world: &World) -> Result<()> {
    let probe = manifest("FalcoRule", "default", "probe", &support::spec("probe", "proc.nonsense = probe"));
    wait::until("the webhook answers", LIMIT, || {
        let said = kubectl(world, &["create", "--dry-run=server"], &probe)?;
        ensure!(!said.well && said.err.contains("proc.nonsense"), "{}{}", said.out, said.err);
        Ok(())
    })
}

/// Waits until both controllers serve what API servers trust.
fn both_serve(world: &World) -> Result<()> {
    wait::until("both controllers serve what is trusted", LIMIT, || certificates::all_trusted(world, 2))
}
