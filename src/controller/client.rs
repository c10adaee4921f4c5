//! The client for the API server.

use anyhow::Context;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::limit::ConcurrencyLimitLayer;

/// Requests that are under way at once, watches aside: those only count until they begin.
const AT_ONCE: usize = 32;

/// A client from the kubeconfig that `KUBECONFIG` names, or in a pod from its service account.
pub async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context(
        "no way to the API server: neither a kubeconfig (KUBECONFIG, ~/.kube/config) nor a pod's service account is there",
    )?;
    let agent = concat!("falco-operator/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
    let builder = ClientBuilder::try_from(config).context("the way to the API server can't be set up")?;
    Ok(builder.with_layer(&ConcurrencyLimitLayer::new(AT_ONCE)).build())
}
