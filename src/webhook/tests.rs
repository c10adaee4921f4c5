//! The server as an API server meets it, but for the API server.

use std::path::Path;

use ::http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use kube::client::Body;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::language::Catalog;
use crate::telemetry::{Readiness, registry};

const LIFETIMES: Lifetimes = Lifetimes { authority: Duration::from_secs(3600), certificate: Duration::from_secs(600) };

/// Writes a certificate for `webhook` and its key into a folder; what trusts it.
fn renew(folder: &Path) -> String {
    let now = Timestamp::now();
    let authority = certificate::authority(now, LIFETIMES).unwrap();
    let (certificate, key) = certificate::issue_pem(&authority, &["webhook".to_owned()], now, LIFETIMES).unwrap();
    // As a kubelet does: both change at once, by one rename.
    let fresh = folder.join("fresh");
    std::fs::create_dir_all(&fresh).unwrap();
    std::fs::write(fresh.join("tls.crt"), certificate).unwrap();
    std::fs::write(fresh.join("tls.key"), key).unwrap();
    let served = folder.join("served");
    let _first_time = std::fs::remove_dir_all(&served);
    std::fs::rename(fresh, served).unwrap();
    authority.certificate
}

async fn connect(address: std::net::SocketAddr, trusted: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes())?)?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("webhook")?, stream).await?)
}

async fn ask(
    address: std::net::SocketAddr,
    trusted: &str,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, String)> {
    let stream = connect(address, trusted).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request =
        Request::builder().method(method).uri(path).header("host", "webhook").body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    Ok((status, String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?))
}

fn review_of(condition: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "the-uid",
            "kind": {"group": "mumoshu.github.io", "version": "v1alpha1", "kind": "FalcoRule"},
            "resource": {"group": "mumoshu.github.io", "version": "v1alpha1", "resource": "falcorules"},
            "name": "r", "namespace": namespace, "operation": "CREATE", "userInfo": {},
            "object": {
                "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoRule",
                "metadata": {"name": "r", "namespace": namespace},
                "spec": {"rule": "r", "desc": "d", "condition": condition, "output": "o", "priority": "WARNING"},
            },
        },
    })
}

#[tokio::test]
async fn api_servers_are_answered_by_files_that_change() {
    let folder = tempfile::tempdir().unwrap();
    let first = renew(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (readiness, registry) = (Readiness::default(), registry().unwrap());
    let metrics = WebhookMetrics::register(&registry).unwrap();
    let gate = readiness.gate("webhook");
    // Nothing of this test may need to ask the API server, which answers nobody.
    let (service, _nobody) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "default");
    let reader: Reader = Arc::new(|namespace, _| {
        Box::pin(async move {
            let known = Snapshot { namespace, catalogs: vec![Catalog::default()], ..Snapshot::default() };
            (known.namespace != "unknown").then_some(known)
        })
    });
    let options =
        Options { source: Source::Files(folder.path().join("served")), policy: Policy::default(), strict: false };
    let stop = CancellationToken::new();
    let server = tokio::spawn(run(listener, client, reader, options, metrics.clone(), gate, stop.clone()));
    while !readiness.missing().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let post = async |review: Value| ask(address, &first, "POST", PATH, review.to_string().into_bytes()).await.unwrap();
    let (status, text) = post(review_of("proc.nonsense = x", "team-a")).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, answer["response"]["uid"].as_str()), (StatusCode::OK, Some("the-uid")), "{text}");
    assert_eq!(
        (answer["kind"].as_str(), answer["apiVersion"].as_str()),
        (Some("AdmissionReview"), Some("admission.k8s.io/v1"))
    );
    assert_eq!(answer["response"]["allowed"], false);
    let told = &answer["response"]["status"];
    assert_eq!((told["code"].as_i64(), told["reason"].as_str()), (Some(422), Some("Invalid")));
    assert_eq!(told["details"]["causes"][0]["field"], "spec.condition");
    assert!(told["message"].as_str().unwrap().contains("^^^^^^^^^^^^^"), "{told}");
    let (_, text) = post(review_of("proc.name = x", "team-a")).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["warnings"].as_array().unwrap().len(), 1, "{text}");

    assert_eq!(post(review_of("proc.name = x", "unknown")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post(json!({"a": 1})).await.0, StatusCode::BAD_REQUEST);
    let (status, _) = ask(address, &first, "GET", PATH, vec![]).await.unwrap();
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _) = ask(address, &first, "POST", "/other", vec![]).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);
    let count = |verdict| metrics.requests_total.with_label_values(&["FalcoRule", verdict]).get();
    assert_eq!((count("denied"), count("warned"), count("allowed")), (1, 1, 0));
    assert_eq!(metrics.requests_total.with_label_values(&["other", "failed"]).get(), 2);

    // Another certificate is served as soon as it is there; what is half there changes nothing.
    std::fs::write(folder.path().join("served/tls.crt"), "half").unwrap();
    while metrics.certificate_failures_total.get() == 0 {
        assert!(connect(address, &first).await.is_ok());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let second = renew(folder.path());
    while connect(address, &second).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(connect(address, &first).await.is_err());
    assert!(metrics.certificate_expiry_timestamp_seconds.get() > 1e9);

    stop.cancel();
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed after the shutdown");
    assert_eq!(readiness.missing(), ["webhook: shutting down"]);
}
