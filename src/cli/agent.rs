//! `falco-operator agent`: one per node, around or beside Falco.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::controller::duration;
use super::{runtime, shutdown_on_signals};
use crate::agent::engine::{EngineOptions, RuleMatching, Strategy};
use crate::agent::metrics::{AgentMetrics, Scrape};
use crate::telemetry::{self, Readiness, Telemetry};

/// Arguments of `falco-operator agent`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to serve metrics and probes
    #[arg(long, env = "FALCO_OPERATOR_LISTEN", default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Folder for the sets of rules files, on the node's own disk; one agent at a time holds it
    #[arg(long, env = "FALCO_OPERATOR_STATE_DIR", default_value = "/var/falco-operator", value_name = "DIR")]
    state_dir: PathBuf,
    /// Falco's own configuration, which is never written
    #[arg(long, env = "FALCO_OPERATOR_BASE_CONFIG", default_value = "/etc/falco/falco.yaml", value_name = "FILE")]
    base_config: PathBuf,
    /// How a new set of rules files comes into force
    #[arg(long, env = "FALCO_OPERATOR_STRATEGY", value_enum, default_value = "reload")]
    strategy: StrategyArg,
    /// Which rules fire for an event that several match
    #[arg(long, env = "FALCO_OPERATOR_RULE_MATCHING", value_enum, default_value = "all")]
    rule_matching: RuleMatchingArg,
    /// The Falco that checks rules files [default: the command's first word, or /usr/bin/falco]
    #[arg(long, env = "FALCO_OPERATOR_FALCO", value_name = "PROGRAM")]
    falco: Option<PathBuf>,
    /// How many rules files Falco is given one by one; more are given as one, because many take Falco long
    #[arg(long, env = "FALCO_OPERATOR_MOST_FILES", default_value_t = 64, value_name = "COUNT")]
    most_files: usize,
    /// Whether each alert carries the namespace and the FalcoRule that it comes from, as `falcorule.namespace` and
    /// `falcorule.name` among its `output_fields`
    #[arg(long, env = "FALCO_OPERATOR_ALERT_OWNERS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    alert_owners: bool,
    /// For how many of the node's rules the metrics tell how often they matched; 0 turns that off
    #[arg(long, env = "FALCO_OPERATOR_MOST_MATCHES", default_value_t = 200, value_name = "COUNT")]
    most_matches: usize,
    /// How long a check of rules files may take
    #[arg(long, env = "FALCO_OPERATOR_CHECK_TIMEOUT", default_value = "1m", value_name = "DURATION", value_parser = duration)]
    check_timeout: Duration,
    /// How long Falco may take at least to confirm what it has loaded
    #[arg(long, env = "FALCO_OPERATOR_CONFIRM_TIMEOUT", default_value = "10s", value_name = "DURATION", value_parser = duration)]
    confirm_timeout: Duration,
    /// How long Falco may take to end when told to
    #[arg(long, env = "FALCO_OPERATOR_GRACE", default_value = "20s", value_name = "DURATION", value_parser = duration)]
    grace: Duration,
    /// The command line of the Falco to supervise; without one, the Falco of the pod's shared process namespace is told
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// [`Strategy`], as it is written on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum StrategyArg {
    /// The running Falco is told to load again
    Reload,
    /// Falco is stopped and started
    Restart,
    /// A second Falco is started on the new files, and the first let go once that is confirmed
    Overlap,
}

/// [`RuleMatching`], as it is written on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum RuleMatchingArg {
    /// Every one, so that no rule hides another
    All,
    /// The first one
    First,
    /// As Falco's own configuration has it
    Keep,
}

impl Args {
    fn options(&self) -> EngineOptions {
        EngineOptions {
            strategy: match self.strategy {
                StrategyArg::Reload => Strategy::Reload,
                StrategyArg::Restart => Strategy::Restart,
                StrategyArg::Overlap => Strategy::Overlap,
            },
            rule_matching: match self.rule_matching {
                RuleMatchingArg::All => RuleMatching::All,
                RuleMatchingArg::First => RuleMatching::First,
                RuleMatchingArg::Keep => RuleMatching::Keep,
            },
            falco: self.falco.clone(),
            command: self.command.clone(),
            most_files: self.most_files,
            alert_owners: self.alert_owners,
            most_matches: self.most_matches,
            check_timeout: self.check_timeout,
            confirm_timeout: self.confirm_timeout,
            grace: self.grace,
            ..EngineOptions::new(&self.state_dir, &self.base_config)
        }
    }
}

/// Runs the agent until it is told to stop; ends with Falco's exit code.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    telemetry::logs::init()?;
    runtime()?.block_on(async {
        let shutdown = shutdown_on_signals()?;
        let registry = telemetry::registry().context("the metrics can't be set up")?;
        let metrics = AgentMetrics::register(&registry).context("the metrics can't be set up")?;
        let readiness = Readiness::default();
        let gate = readiness.gate("report");
        let done = CancellationToken::new();
        let scrape = Scrape::default();
        let telemetry = Telemetry { registry, readiness, refresh: Some(refresh(&scrape, &metrics)) };
        let server = tokio::spawn(serve(args.listen, telemetry, done.clone()));
        tracing::info!(listen = %args.listen, version = env!("CARGO_PKG_VERSION"), "the agent starts");
        let code = crate::agent::run(args.options(), metrics, &scrape, gate, shutdown).await;
        done.cancel();
        server.await.context("the task of the metrics ended badly")?;
        tracing::info!(code, "the agent has stopped");
        Ok(ExitCode::from(code))
    })
}

/// What Falco has counted is asked before each scrape.
fn refresh(scrape: &Scrape, metrics: &AgentMetrics) -> telemetry::http::Refresh {
    let (scrape, metrics) = (scrape.clone(), metrics.clone());
    Arc::new(move || {
        let (scrape, metrics) = (scrape.clone(), metrics.clone());
        Box::pin(async move { scrape.refresh(&metrics).await })
    })
}

/// Serves metrics and probes. A port that can't be had costs readiness, but not the node its detection.
async fn serve(address: SocketAddr, telemetry: Telemetry, done: CancellationToken) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return telemetry::run(listener, telemetry, done).await,
            Err(err) => tracing::error!(%err, %address, "metrics and probes can't be served; trying again"),
        }
        tokio::select! {
            () = done.cancelled() => return,
            () = sleep(Duration::from_secs(5)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_stands_on_the_command_line_reaches_the_engine() {
        let line = "x --alert-owners false --most-matches 7 --strategy overlap --rule-matching keep --confirm-timeout 1m30s --state-dir /s --falco /f \
                    -- /usr/bin/falco -c /s/falco.yaml -o a=b";
        let options = Line::parse_from(line.split_whitespace()).args.options();
        assert_eq!((options.strategy, options.rule_matching), (Strategy::Overlap, RuleMatching::Keep));
        assert_eq!(options.confirm_timeout, Duration::from_secs(90));
        assert_eq!((options.alert_owners, options.most_matches), (false, 7));
        assert_eq!(options.command, ["/usr/bin/falco", "-c", "/s/falco.yaml", "-o", "a=b"]);
        assert_eq!(options.program(), PathBuf::from("/f"));
    }

    #[test]
    fn the_defaults_are_those_of_the_engine() {
        let options = Line::parse_from(["x"]).args.options();
        let expected = EngineOptions::new("/var/falco-operator", "/etc/falco/falco.yaml");
        assert_eq!(format!("{options:?}"), format!("{expected:?}"));
    }
}
