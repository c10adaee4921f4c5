//! A container's probes.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a row of results means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// Probes until the verdict differs from `is`, and returns it with the last error.
///
/// Until a first success the probe is tried more often than its period says, as far as a failure then means
/// nothing: tests need not wait for what is ready.
pub async fn change(probe: &Probe, container: &Container, address: &str, is: Verdict) -> (Verdict, String) {
    let period = Duration::from_secs(u64::try_from(probe.period_seconds.unwrap_or(10)).unwrap_or(10).max(1));
    let limit = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
    let needed = match is {
        Verdict::Healthy => probe.failure_threshold.unwrap_or(3).max(1),
        Verdict::Unhealthy => probe.success_threshold.unwrap_or(1).max(1),
    };
    let pause = if is == Verdict::Unhealthy { period.min(Duration::from_millis(200)) } else { period };
    let mut row = 0;
    loop {
        let result = timeout(limit, once(probe, container, address)).await.context("timed out").flatten();
        let seen = if result.is_ok() { Verdict::Healthy } else { Verdict::Unhealthy };
        row = if seen == is { 0 } else { row + 1 };
        if row >= needed {
            return (seen, result.err().map(|err| format!("{err:#}")).unwrap_or_default());
        }
        tokio::time::sleep(pause).await;
    }
}

/// Fails `failureThreshold` times in a row, at the probe's own period: what a startup probe's patience is.
pub async fn patience(probe: &Probe) {
    let period = probe.period_seconds.unwrap_or(10).max(1) as u64;
    let times = probe.failure_threshold.unwrap_or(3).max(1) as u64;
    tokio::time::sleep(Duration::from_secs(period * times)).await;
}

/// The pause before the first try.
pub async fn delay(probe: &Probe) {
    tokio::time::sleep(Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0) as u64)).await;
}

async fn once(probe: &Probe, container: &Container, address: &str) -> Result<()> {
    if let Some(get) = &probe.http_get {
        ensure!(get.scheme.as_deref().unwrap_or("HTTP") == "HTTP", "the kubelet stand-in probes by HTTP only");
        let port = number(&get.port, container)?;
        let host = get.host.as_deref().unwrap_or(address);
        let stream = TcpStream::connect((host, port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = hyper::Request::get(get.path.as_deref().unwrap_or("/"))
            .header("Host", format!("{host}:{port}"))
            .header("User-Agent", "kube-probe/stand-in")
            .body(Empty::<Bytes>::new())?;
        // The sender goes with its answer, so that the connection ends too.
        let ask = async move { Ok::<_, hyper::Error>(sender.send_request(request).await?.status()) };
        let (status, _) = tokio::join!(ask, connection);
        let status = status?;
        ensure!((200..400).contains(&status.as_u16()), "HTTP probe failed with statuscode: {}", status.as_u16());
        return Ok(());
    }
    if let Some(tcp) = &probe.tcp_socket {
        TcpStream::connect((tcp.host.as_deref().unwrap_or(address), number(&tcp.port, container)?)).await?;
        return Ok(());
    }
    bail!("the kubelet stand-in knows no such probe");
}

/// A port by its number, or by its name among the container's.
pub fn number(port: &IntOrString, container: &Container) -> Result<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|it| it.name.as_ref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name.parse().ok().with_context(|| format!("there is no port {name}"))?,
            }
        }
    };
    u16::try_from(number).ok().with_context(|| format!("{number} is no port"))
}
