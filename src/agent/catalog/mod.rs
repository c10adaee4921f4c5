//! What this node's Falco offers to rules, published for those who check them. Nothing that is loaded waits for it.

mod read;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::engine::Installation;
use super::watch::Seen;
use super::writer::{CatalogName, MANAGER};
use crate::api::{FalcoCatalog, FalcoCatalogSpec};

/// How long Falco may take for one answer.
const ANSWER: Duration = Duration::from_secs(60);
/// How long its web server is waited for, which alone knows the versions of the plugins.
const PAGE: Duration = Duration::from_secs(30);
/// The most bytes of an answer of the web server.
const MOST_BYTES: usize = 1024 * 1024;
/// How long one call to the API server may take.
const CALL: Duration = Duration::from_secs(15);
/// How often it is looked whether the catalogue is still there.
const LOOK: Duration = Duration::from_secs(600);
/// The shortest and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// What catalogues are made of, as it comes.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// How to ask Falco.
    pub installation: watch::Receiver<Option<Installation>>,
    /// Where its web server answers.
    pub page: watch::Receiver<Option<SocketAddr>>,
    /// What is known of the API server: after a new list all may be lost.
    pub seen: watch::Receiver<Option<Arc<Seen>>>,
}

/// A catalogue, and what it was made from.
#[derive(Debug)]
struct Made {
    of: Installation,
    /// Whether Falco's web server was asked for its plugins.
    page: bool,
    spec: FalcoCatalogSpec,
}

/// Publishes the catalogue of this node's Falco, and again whenever the installation changes, until `shutdown`.
pub async fn run(client: Client, inputs: Inputs, name: watch::Sender<CatalogName>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = publish(Api::all(client), inputs, &name) => {}
    }
}

async fn publish(api: Api<FalcoCatalog>, mut inputs: Inputs, name: &watch::Sender<CatalogName>) {
    let mut made: Option<Made> = None;
    let mut failures = 0u32;
    loop {
        let Ok(installation) = inputs.installation.wait_for(Option::is_some).await.map(|it| (*it).clone()) else {
            return;
        };
        let Some(installation) = installation else { continue };
        let done = match &made {
            Some(made) if made.of == installation && (made.page || inputs.page.borrow().is_none()) => {
                ensure_published(&api, &made.spec).await
            }
            _ => match make(&installation, &mut inputs.page).await {
                Ok(new) => {
                    let done = ensure_published(&api, &new.spec).await;
                    made = Some(new);
                    done
                }
                Err(err) => Err(err),
            },
        };
        let pause = match done {
            Ok(published) => {
                failures = 0;
                let published = CatalogName::Some(published);
                name.send_if_modified(|old| {
                    let other = *old != published;
                    *old = published;
                    other
                });
                LOOK
            }
            Err(err) => {
                failures = failures.saturating_add(1);
                let pause = (PAUSES.0 * 2u32.saturating_pow(failures.min(16) - 1)).min(PAUSES.1);
                tracing::warn!(err = format!("{err:#}"), again_in = ?pause, "this node's Falco has no catalogue for now");
                // One that is known to be another's would mislead whoever checks rules.
                let outdated = made.is_none();
                name.send_if_modified(|old| {
                    let other = outdated && *old != CatalogName::None;
                    if other {
                        *old = CatalogName::None;
                    }
                    other
                });
                pause
            }
        };
        let lists = inputs.seen.borrow().as_ref().map(|seen| seen.lists);
        let listed_again = inputs.seen.wait_for(|seen| seen.as_ref().map(|seen| seen.lists) != lists);
        tokio::select! {
            changed = inputs.installation.changed() => if changed.is_err() { return },
            listed = listed_again, if lists.is_some() => if listed.is_err() { return },
            asked = inputs.page.changed() => if asked.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

/// Asks Falco and reads its base files.
async fn make(installation: &Installation, page: &mut watch::Receiver<Option<SocketAddr>>) -> anyhow::Result<Made> {
    let listed = ask(installation, &["--list", "--format", "json"]).await?;
    let (sources, mut fields) = read::fields(&listed).context("Falco's list of fields can't be read")?;
    fields.extend(installation.static_fields.iter().map(|key| read::static_field(key)));
    fields.sort();
    let version = ask(installation, &["-o", "json_output=true", "--version"]).await?;
    let (falco_version, engine_version) = read::versions(&version).context("Falco's versions can't be read")?;
    let mut base = read::Base::default();
    for path in &installation.rules_files {
        let text = tokio::fs::read_to_string(path).await;
        let text = text.with_context(|| format!("the rules file {} can't be read", path.display()))?;
        base.read(&text).with_context(|| format!("the rules file {} can't be read", path.display()))?;
    }
    let page = match timeout(PAGE, page.wait_for(Option::is_some)).await {
        Ok(Ok(address)) => *address,
        _ => None,
    };
    // A Falco whose page is away for a moment has its plugins all the same; without them, its catalogue would be another.
    let plugins = match page {
        Some(address) => {
            let versions = timeout(ANSWER, get(address, "/versions")).await;
            let versions = versions.context("Falco's web server takes too long")?;
            read::plugins(&versions.context("the versions of Falco's plugins can't be read")?)
        }
        None => vec![],
    };
    let spec = FalcoCatalogSpec {
        falco_version,
        engine_version,
        plugins,
        sources,
        fields,
        rules: base.rules,
        macros: base.macros,
        lists: base.lists,
        priority: installation.priority.clone(),
        selections: read::selections(&installation.selections),
        rule_matching: installation.rule_matching.clone(),
    };
    Ok(Made { of: installation.clone(), page: page.is_some(), spec })
}

/// One answer of Falco, from a process of its own.
async fn ask(installation: &Installation, question: &[&str]) -> anyhow::Result<String> {
    let what = || format!("`{} {}`", installation.program.display(), question.join(" "));
    let mut command = Command::new(&installation.program);
    command.args(&installation.arguments).args(question).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(ANSWER, command.output()).await.with_context(|| format!("{} takes too long", what()))?;
    let output = output.with_context(|| format!("{} can't be run", what()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ended with {}: {}", what(), output.status, said.trim());
    String::from_utf8(output.stdout).with_context(|| format!("{} says what is no text", what()))
}

/// A page of Falco's web server.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request =
        http::Request::get(path).header(http::header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "{path} of Falco's web server says {}", response.status());
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    connection.abort();
    let body = body.map_err(|err| anyhow::anyhow!("{path} of Falco's web server can't be read: {err}"))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// Creates the object, or compares the one that is there; its name.
async fn ensure_published(api: &Api<FalcoCatalog>, spec: &FalcoCatalogSpec) -> anyhow::Result<String> {
    let name = spec.object_name();
    let call = async {
        if let Some(found) = api.get_opt(&name).await.context("the catalogue can't be read")? {
            return Ok(found);
        }
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&params, &FalcoCatalog::new(&name, spec.clone())).await {
            // Another node was faster.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                api.get(&name).await.context("the catalogue can't be read")
            }
            created => created.context("the catalogue can't be published"),
        }
    };
    let found = timeout(CALL, call).await.context("the API server does not answer")??;
    ensure!(
        found.spec == *spec,
        "the FalcoCatalog {name} holds something else than its name says: it was tampered with; once the controller has \
         deleted it, it is published again"
    );
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A Falco that says what it is asked.
    fn falco(dir: &std::path::Path, engine: &str) -> Installation {
        let program = dir.join("falco");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*--list*) echo '{{\"fieldclasses\":[{{\"event_sources\":[\"syscall\"],\"fields\":\
             [{{\"name\":\"proc.name\",\"type\":\"CHARBUF\"}}]}}]}}';;\n*--version*) echo 'Falco version: 0.44.1'; \
             echo 'Engine: {engine}';;\n*) echo no >&2; exit 1;;\nesac\n"
        );
        test_cluster::write_program(&program, &script).unwrap();
        let rules = dir.join("rules.yaml");
        std::fs::write(&rules, "- rule: base\n").unwrap();
        Installation {
            fingerprint: engine.to_owned(),
            program,
            arguments: vec!["-c".into(), "/x".into()],
            rules_files: vec![rules],
            priority: Some("debug".into()),
            rule_matching: Some("all".into()),
            selections: serde_json::Value::Null,
            static_fields: vec!["site".into()],
        }
    }

    /// A web server that has one page.
    async fn web() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let count = stream.read(&mut asked).await.unwrap();
                assert!(asked[..count].starts_with(b"GET /versions HTTP/1.1"));
                let body = r#"{"plugin_versions":{"container":"0.7.1"}}"#;
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    /// An API server with the catalogues that are created, and how often that was.
    fn server() -> (Client, Arc<Mutex<Vec<FalcoCatalog>>>) {
        let objects = Arc::new(Mutex::new(Vec::<FalcoCatalog>::new()));
        let (service, mut calls) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let held = Arc::clone(&objects);
        tokio::spawn(async move {
            while let Some((request, send)) = calls.next_request().await {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let mut objects = held.lock().unwrap();
                let name = parts.uri.path().rsplit('/').next().unwrap().to_owned();
                let answer = if parts.method == http::Method::POST {
                    let object: FalcoCatalog = serde_json::from_slice(&body).unwrap();
                    objects.push(object.clone());
                    Some(object)
                } else {
                    objects.iter().find(|it| it.metadata.name.as_ref() == Some(&name)).cloned()
                };
                let (code, body) = match answer {
                    Some(object) => (StatusCode::OK, serde_json::to_vec(&object).unwrap()),
                    None => (StatusCode::NOT_FOUND, br#"{"status":"Failure","reason":"NotFound","code":404}"#.to_vec()),
                };
                send.send_response(Response::builder().status(code).body(Body::from(body)).unwrap());
            }
        });
        (Client::new(service, "default"), objects)
    }

    async fn published(name: &mut watch::Receiver<CatalogName>) -> CatalogName {
        name.changed().await.unwrap();
        name.borrow_and_update().clone()
    }

    #[tokio::test]
    async fn a_catalogue_is_published_once_for_each_installation() {
        let dir = tempfile::tempdir().unwrap();
        let (client, objects) = server();
        let (installation_to, installation) = watch::channel(None);
        let (_page_to, page) = watch::channel(Some(web().await));
        let (_seen_to, seen) = watch::channel(None);
        let (name_to, mut name) = watch::channel(CatalogName::Pending);
        let inputs = Inputs { installation, page, seen };
        tokio::spawn(run(client, inputs, name_to, CancellationToken::new()));

        installation_to.send_replace(Some(falco(dir.path(), "0.62.0")));
        let CatalogName::Some(first) = published(&mut name).await else { panic!("none was published") };
        {
            let objects = objects.lock().unwrap();
            let spec = &objects[0].spec;
            assert_eq!((objects.len(), spec.object_name()), (1, first.clone()));
            assert_eq!((spec.falco_version.as_str(), spec.engine_version.as_str()), ("0.44.1", "0.62.0"));
            assert_eq!((&spec.plugins, &spec.rules), (&vec!["container 0.7.1".to_owned()], &vec!["base".to_owned()]));
            assert_eq!((spec.fields[0].name.as_str(), spec.sources.len()), ("proc.name", 1));
        }
        installation_to.send_replace(Some(falco(dir.path(), "0.63.0")));
        let CatalogName::Some(second) = published(&mut name).await else { panic!("none was published") };
        assert_ne!(first, second);
        // One that is there already is only compared.
        installation_to.send_replace(Some(falco(dir.path(), "0.62.0")));
        assert_eq!(published(&mut name).await, CatalogName::Some(first));
        assert_eq!(objects.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn one_that_was_tampered_with_is_not_named() {
        let dir = tempfile::tempdir().unwrap();
        let (client, objects) = server();
        let api = Api::all(client);
        let spec = make(&falco(dir.path(), "0.62.0"), &mut watch::channel(Some(web().await)).1).await.unwrap().spec;
        let names: Vec<_> = spec.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["proc.name", "static.site"]);
        let name = ensure_published(&api, &spec).await.unwrap();
        assert_eq!(ensure_published(&api, &spec).await.unwrap(), name);
        objects.lock().unwrap()[0].spec.rules.clear();
        let err = ensure_published(&api, &spec).await.unwrap_err();
        assert!(err.to_string().contains(&name) && err.to_string().contains("tampered"), "{err}");
    }

    #[tokio::test]
    async fn a_falco_that_says_nothing_has_no_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let mut page = watch::channel(Some(web().await)).1;
        let mut silent = falco(dir.path(), "0.62.0");
        test_cluster::write_program(&silent.program, "#!/bin/sh\necho broken >&2; exit 3\n").unwrap();
        let err = make(&silent, &mut page).await.unwrap_err();
        assert!(err.to_string().contains("--list") && err.to_string().contains("broken"), "{err}");
        silent.program = dir.path().join("nothing");
        assert!(make(&silent, &mut page).await.unwrap_err().to_string().contains("can't be run"));
        let mut odd = falco(dir.path(), "0.62.0");
        std::fs::write(&odd.rules_files[0], "- [").unwrap();
        assert!(make(&odd, &mut page).await.unwrap_err().to_string().contains("rules.yaml"));
        odd.rules_files.clear();
        assert!(make(&odd, &mut page).await.is_ok());
        // Its page is away for a moment: that is no Falco without plugins.
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let err = make(&odd, &mut watch::channel(Some(nobody)).1).await.unwrap_err();
        assert!(err.to_string().contains("plugins"), "{err}");
    }
}
