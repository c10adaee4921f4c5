//! The threads on which a cluster's own work is done, whatever the caller's thread or runtime is or becomes.

use std::future::Future;
use std::sync::{OnceLock, mpsc};

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime shared by all clusters of this process; it ends with the process.
pub fn handle() -> Result<&'static Handle> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(2).thread_name("test-cluster").enable_all().build())
        .as_ref()
        .map(Runtime::handle)
        .map_err(|err| anyhow::anyhow!("no runtime for the cluster: {err}"))
}

/// Runs the future on the cluster's threads and waits for its result; fine inside another runtime too.
pub fn block_on<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (send, receive) = mpsc::sync_channel(1);
    handle()?.spawn(async move {
        let _ = send.send(work.await);
    });
    receive.recv().context("the cluster's work ended in a panic; its message is above")?
}
