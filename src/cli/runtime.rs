//! What long-running commands share: the runtime, and the signals that end it.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The runtime of a command that waits for the network.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the threads of the runtime")
}

/// A token that SIGTERM and SIGINT cancel; a second signal ends the process at once, for somebody who won't wait. To be
/// called within the runtime.
pub fn shutdown_on_signals() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("told to stop");
                cancelled.cancel();
            }
        }
        tracing::warn!("told to stop again: ending at once");
        std::process::exit(130);
    });
    Ok(token)
}
