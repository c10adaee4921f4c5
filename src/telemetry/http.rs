//! HTTP: `/metrics`, `/healthz`, `/readyz`, and the loop that serves them, which other servers of the process share.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::{Registry, TextEncoder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Readiness;

/// Connections served at once; further ones wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long a client of the telemetry may take to send the head of its next request.
const IDLE: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections get to finish after the shutdown began.
const GRACE: Duration = Duration::from_secs(5);

/// The answer of a server of ours: its body is in memory.
pub type Answer = Response<Full<Bytes>>;

/// What the telemetry server serves.
#[derive(Clone)]
pub struct Telemetry {
    /// The metrics.
    pub registry: Registry,
    /// What `/readyz` answers.
    pub readiness: Readiness,
    /// Called before each scrape, for what is known only when asked: ages, depths.
    pub refresh: Option<Refresh>,
}

/// What is done before each scrape.
pub type Refresh = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown`, then lets open requests finish for a few seconds.
pub async fn run(listener: TcpListener, telemetry: Telemetry, shutdown: CancellationToken) {
    let telemetry = Arc::new(telemetry);
    let handler = move |request| {
        let telemetry = Arc::clone(&telemetry);
        async move { route(&telemetry, &request).await }
    };
    serve(listener, None, IDLE, handler, shutdown).await;
}

async fn route(telemetry: &Telemetry, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD are answered\n");
    }
    match request.uri().path() {
        "/healthz" => answer(StatusCode::OK, "text/plain", "ok\n"),
        "/readyz" => {
            let missing = telemetry.readiness.missing();
            if missing.is_empty() {
                answer(StatusCode::OK, "text/plain", "ok\n")
            } else {
                answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{}\n", missing.join("\n")))
            }
        }
        "/metrics" => {
            if let Some(refresh) = &telemetry.refresh {
                refresh().await;
            }
            match TextEncoder::new().encode_to_string(&telemetry.registry.gather()) {
                Ok(text) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
                Err(err) => answer(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "text/plain",
                    format!("cannot write the metrics: {err}\n"),
                ),
            }
        }
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "there are /metrics, /healthz and /readyz\n"),
    }
}

/// An answer with a body.
#[must_use]
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// Serves `handler` on each connection, with TLS where an acceptor is given, until `shutdown`; then open requests get a
/// few seconds to finish. Clients that have sent no whole head of a request within `idle` are cut off.
pub async fn serve<H, F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    idle: Duration,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = async {
            // The semaphore is never closed, so there is always a permit in the end.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let (stream, place) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(err) => {
                    // Out of file descriptors, most likely: another try at once would fail alike.
                    tracing::warn!(%err, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let watcher = graceful.watcher();
        let (tls, handler) = (tls.clone(), handler.clone());
        tokio::spawn(async move {
            let _place = place;
            match tls {
                None => connection(stream, idle, handler, watcher).await,
                Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, idle, handler, watcher).await,
                    Ok(Err(err)) => tracing::debug!(%err, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    if timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections were cut off that did not finish in time");
    }
}

async fn connection<S, H, F>(stream: S, idle: Duration, handler: H, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Answer> + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(err) = watcher.watch(served).await {
        tracing::debug!(%err, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn probes_and_metrics_are_served_until_the_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::default();
        let gate = readiness.gate("caches");
        let registry = super::super::registry().unwrap();
        let asked = prometheus::IntCounter::new("asked_total", "Scrapes.").unwrap();
        registry.register(Box::new(asked.clone())).unwrap();
        let refresh: Refresh = Arc::new(move || {
            let asked = asked.clone();
            Box::pin(async move { asked.inc() })
        });
        let stop = CancellationToken::new();
        let server =
            tokio::spawn(run(listener, Telemetry { registry, readiness, refresh: Some(refresh) }, stop.clone()));

        assert!(get(address, "GET /healthz").await.starts_with("HTTP/1.1 200"));
        let unready = get(address, "GET /readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("caches: has not started"), "{unready}");
        gate.ready();
        assert!(get(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "GET /metrics").await.contains("asked_total 1"));
        assert!(get(address, "GET /secrets").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));

        stop.cancel();
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed after the shutdown");
    }
}
