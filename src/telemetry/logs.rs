//! Logs: for people in a terminal, JSON otherwise; always on standard error, so that standard output stays a command's.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The variable that filters: `debug`, or `info,falco_operator::agent=debug`.
pub const FILTER: &str = "FALCO_OPERATOR_LOG";
/// The variable that chooses the form: `human` or `json`.
pub const FORMAT: &str = "FALCO_OPERATOR_LOG_FORMAT";

const DEFAULT_FILTER: &str = "info,kube=warn,kube_runtime=error,hyper=warn,rustls=warn,tower=warn";

/// Starts logging for the process. A second call is an error.
pub fn init() -> anyhow::Result<()> {
    let wished = std::env::var(FILTER).ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::try_new(wished.as_deref().unwrap_or(DEFAULT_FILTER))
        .with_context(|| format!("{FILTER} is not a filter such as `info` or `info,falco_operator::agent=debug`"))?;
    let human = match std::env::var(FORMAT).as_deref() {
        Ok("human") => true,
        Ok("json") => false,
        Ok("") | Err(_) => std::io::stderr().is_terminal(),
        Ok(other) => anyhow::bail!("{FORMAT} is {other:?}; it must be `human` or `json`"),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if human {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("logging has already been started")
}
