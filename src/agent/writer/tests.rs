use super::*;
use crate::agent::identity::tests::token;
use crate::agent::report::Facts;
use crate::agent::world::{Expected, Settled};
use crate::api::{FalcoState, Proof};
use crate::telemetry::Readiness;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use std::sync::{Mutex, PoisonError};
use tokio::time::sleep;

/// The one object of an API server.
#[derive(Debug, Default)]
struct Server {
    object: Option<Value>,
    version: u64,
    /// The writes, with what they sent.
    writes: Vec<(String, Value)>,
    reads: usize,
    /// What every call fails with.
    broken: Option<StatusCode>,
}

fn merge(old: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *old = patch.clone();
        return;
    };
    if !old.is_object() {
        *old = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            old.as_object_mut().unwrap().remove(key);
        } else {
            merge(old.as_object_mut().unwrap().entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

impl Server {
    fn set(&mut self, object: Value) {
        self.version += 1;
        let mut object = object;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.object = Some(object);
    }

    fn answer(&mut self, method: &str, path: &str, sent: Value) -> Result<Value, StatusCode> {
        const AT: &str = "/apis/mumoshu.github.io/v1alpha1/falconodes";
        if let Some(code) = self.broken {
            return Err(code);
        }
        let name = path.strip_prefix(AT).unwrap();
        match method {
            "GET" => self.reads += 1,
            method => self.writes.push((format!("{method} {name}"), sent.clone())),
        }
        match (method, name, self.object.clone()) {
            ("GET", "/n1", object) => object.ok_or(StatusCode::NOT_FOUND),
            ("POST", "", Some(_)) => Err(StatusCode::CONFLICT),
            ("POST", "", None) => {
                self.set(sent);
                Ok(self.object.clone().unwrap())
            }
            ("PATCH", "/n1" | "/n1/status", None) => Err(StatusCode::NOT_FOUND),
            ("PATCH", "/n1" | "/n1/status", Some(mut object)) => {
                if sent["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return Err(StatusCode::CONFLICT);
                }
                let part = if name == "/n1" { "metadata" } else { "status" };
                merge(&mut object, &json!({ part: sent[part] }));
                self.set(object);
                Ok(self.object.clone().unwrap())
            }
            other => panic!("nobody should call {other:?}"),
        }
    }
}

struct Case {
    server: Arc<Mutex<Server>>,
    running: watch::Sender<Running>,
    seen: watch::Sender<Option<Arc<Seen>>>,
    catalog: watch::Sender<CatalogName>,
    readiness: Readiness,
    metrics: AgentMetrics,
    dir: tempfile::TempDir,
    stop: CancellationToken,
}

impl Case {
    /// A writer at work, with a Falco that runs what is wanted, which is a file of one namespace.
    fn start(object: Option<Value>) -> Self {
        let server = Arc::new(Mutex::new(Server::default()));
        if let Some(object) = object {
            server.lock().unwrap().set(object);
        }
        let (service, mut calls) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let answering = Arc::clone(&server);
        tokio::spawn(async move {
            while let Some((request, send)) = calls.next_request().await {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let sent = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let answer = answering.lock().unwrap().answer(parts.method.as_str(), parts.uri.path(), sent);
                let (code, body) = answer.map_or_else(
                    |code| {
                        let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
                        let status = json!({
                            "kind": "Status", "status": "Failure", "code": code.as_u16(), "message": "no", "reason": reason,
                        });
                        (code, status)
                    },
                    |object| (StatusCode::OK, object),
                );
                let answer = Response::builder().status(code).body(Body::from(serde_json::to_vec(&body).unwrap()));
                send.send_response(answer.unwrap());
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let case = Self {
            server,
            running: watch::channel(falco(&[("a", "1")])).0,
            seen: watch::channel(Some(Arc::new(seen(1, &[("a", "1")])))).0,
            catalog: watch::channel(CatalogName::Pending).0,
            readiness: Readiness::default(),
            metrics: AgentMetrics::register(&prometheus::Registry::new()).unwrap(),
            dir,
            stop: CancellationToken::new(),
        };
        case.write_token("u1", "p1", 0);
        let file = TokenFile::at(case.dir.path().join("token"));
        let identity = file.read().unwrap();
        let inputs = Inputs {
            seen: case.seen.subscribe(),
            running: case.running.subscribe(),
            catalog: case.catalog.subscribe(),
        };
        let client = Client::new(service, "default");
        let gate = case.readiness.gate("report");
        let writer = Writer::new(client, file, identity, inputs, case.metrics.clone(), gate);
        tokio::spawn(writer.run(case.stop.clone()));
        case
    }

    fn write_token(&self, node_uid: &str, pod_uid: &str, issued: u32) {
        let named = |name: &str, uid: &str| json!({ "name": name, "uid": uid });
        let bound = json!({ "namespace": "ns", "node": named("n1", node_uid), "pod": named("agent", pod_uid) });
        let text = token(&json!({ "iat": issued, "kubernetes.io": bound }));
        std::fs::write(self.dir.path().join("token"), text).unwrap();
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writes(&self) -> Vec<String> {
        self.server().writes.iter().map(|(call, _)| call.clone()).collect()
    }

    fn status(&self) -> FalcoNodeStatus {
        serde_json::from_value(self.server().object.as_ref().unwrap()["status"].clone()).unwrap()
    }

    fn ready(&self) -> bool {
        self.readiness.missing().is_empty()
    }
}

fn falco(loaded: &[(&str, &str)]) -> Running {
    Running {
        falco: FalcoState::Running,
        proof: Proof::Metrics,
        loaded: loaded.iter().map(|(namespace, hash)| ((*namespace).to_owned(), (*hash).to_owned())).collect(),
        ..Running::default()
    }
}

fn seen(lists: u64, settled: &[(&str, &str)]) -> Seen {
    let expected =
        |hash: &str| Expected { settled: Settled::File(hash.to_owned()), target: Some(hash.to_owned()), note: None };
    Seen { lists, expected: settled.iter().map(|(name, hash)| ((*name).to_owned(), expected(hash))).collect() }
}

/// The object as an agent leaves it that runs what [`Case::start`] lets run.
fn left_behind(node_uid: &str, pod_uid: &str) -> Value {
    let pod = crate::api::AgentPod { namespace: "ns".into(), name: "agent".into(), uid: pod_uid.into() };
    let (running, seen) = (falco(&[("a", "1")]), seen(1, &[("a", "1")]));
    let facts = Facts { expected: &seen.expected, running: &running, agent: &pod, catalog: Some("falco-x") };
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node_uid });
    json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoNode",
        "metadata": { "name": "n1", "ownerReferences": [owner] }, "spec": {}, "status": facts.report(),
    })
}

const CREATE: &str = "POST ";
const META: &str = "PATCH /n1";
const STATUS: &str = "PATCH /n1/status";

#[tokio::test(start_paused = true)]
async fn the_object_is_created_once_and_reported_to_once() {
    let case = Case::start(None);
    assert!(!case.ready());
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(case.writes(), [CREATE, STATUS]);
    assert!(case.ready());
    let server = case.server();
    let owner = json!([{ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u1" }]);
    assert_eq!(server.writes[0].1["metadata"]["ownerReferences"], owner);
    assert_eq!(server.writes[1].1["metadata"]["resourceVersion"], "1", "a write rests on what was read");
    assert!(server.reads < 60, "looking is rare: {}", server.reads);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_written_at_once_and_a_burst_becomes_few_writes() {
    let case = Case::start(None);
    sleep(Duration::from_secs(60)).await;
    let before = case.writes().len();
    case.running.send_replace(falco(&[("a", "0")]));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(case.writes().len(), before + 1);
    assert_eq!(case.status().namespaces[0].loaded, "0");
    for number in 1..100 {
        case.running.send_replace(falco(&[("a", &format!("{number:02}"))]));
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let writes = case.writes().len() - before;
    assert!((3..=7).contains(&writes), "{writes} writes in a second");
    assert_eq!(case.status().namespaces[0].loaded, "99", "the last word is the newest");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_only_another_pod_is_news() {
    for (pod, writes) in [("p1", 0), ("p0", 1)] {
        let case = Case::start(Some(left_behind("u1", pod)));
        sleep(Duration::from_secs(600)).await;
        assert_eq!(case.writes().len(), writes, "{:?}", case.server().writes);
        assert!(case.ready());
        assert_eq!(case.status().agent.uid, "p1");
        assert_eq!(case.status().catalog.as_deref(), Some("falco-x"), "the catalogue stands until it is known anew");
        case.catalog.send_replace(CatalogName::None);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(case.writes().len(), writes + 1);
        let sent = case.server().writes.last().unwrap().1["status"].clone();
        assert_eq!(sent, json!({ "catalog": null }), "only what changed is sent");
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_first_list_nothing_is_reported() {
    let case = Case::start(None);
    case.seen.send_replace(None);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(case.writes(), [CREATE]);
    assert!(!case.ready());
    case.seen.send_replace(Some(Arc::new(seen(1, &[("a", "1")]))));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(case.writes(), [CREATE, STATUS]);
    assert!(case.ready());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_went_with_its_node_waits_for_a_token_of_the_new_one() {
    let case = Case::start(None);
    sleep(Duration::from_secs(10)).await;
    assert!(case.ready());
    case.server().object = None;
    sleep(Duration::from_secs(200)).await;
    assert_eq!(case.writes(), [CREATE, STATUS], "with the old token it would be collected again");
    assert!(!case.ready() && case.readiness.missing()[0].contains("FalcoNode is gone"));
    case.write_token("u2", "p1", 1);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(case.writes(), [CREATE, STATUS, CREATE, STATUS]);
    let owner = case.server().object.as_ref().unwrap()["metadata"]["ownerReferences"][0]["uid"].clone();
    assert_eq!(owner, "u2");
    assert!(case.ready());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_went_with_the_world_or_by_hand_comes_back() {
    let case = Case::start(None);
    sleep(Duration::from_secs(10)).await;
    case.server().object = None;
    case.seen.send_replace(Some(Arc::new(seen(2, &[("a", "1")]))));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(case.writes(), [CREATE, STATUS, CREATE, STATUS], "all bundles were listed again");
    assert!(case.ready());
    case.server().object = None;
    sleep(Duration::from_secs(900)).await;
    assert_eq!(case.writes().len(), 6, "nobody re-created the Node in all that time");
    assert!(case.ready());
}

#[tokio::test(start_paused = true)]
async fn a_report_that_can_not_be_sent_costs_readiness_after_a_while() {
    let case = Case::start(None);
    sleep(Duration::from_secs(10)).await;
    case.server().broken = Some(StatusCode::INTERNAL_SERVER_ERROR);
    sleep(Duration::from_secs(300)).await;
    assert!(case.ready(), "nothing waits to be sent");
    case.running.send_replace(falco(&[]));
    sleep(Duration::from_secs(25)).await;
    assert!(case.ready());
    sleep(Duration::from_secs(10)).await;
    assert!(!case.ready() && case.readiness.missing()[0].contains("30 s"), "{:?}", case.readiness.missing());
    sleep(Duration::from_secs(600)).await;
    case.server().broken = None;
    sleep(Duration::from_secs(40)).await;
    assert!(case.ready());
    assert_eq!(case.writes(), [CREATE, STATUS, STATUS]);
    assert!(case.metrics.report_writes_total.with_label_values(&["failed"]).get() > 5);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_rests_on_old_news_is_decided_again() {
    let case = Case::start(None);
    sleep(Duration::from_secs(10)).await;
    let object = case.server().object.clone().unwrap();
    case.server().set(object);
    case.running.send_replace(falco(&[]));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(case.writes(), [CREATE, STATUS, STATUS, STATUS]);

    assert_eq!(case.status().namespaces[0].loaded, "none");
    assert_eq!(case.metrics.report_writes_total.with_label_values(&["conflict"]).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_an_older_node_or_another_hand_left_is_set_right() {
    let case = Case::start(Some(left_behind("u0", "p1")));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(case.writes(), [META]);
    let mut tampered = case.server().object.clone().unwrap();
    tampered["status"]["rulesSum"] = json!("00");
    case.server().set(tampered);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(case.writes(), [META, STATUS]);
    assert_ne!(case.status().rules_sum.as_deref(), Some("00"));
    assert_eq!(case.metrics.report_drifts_total.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_told_to_stop_says_no_more() {
    let case = Case::start(None);
    sleep(Duration::from_secs(10)).await;
    case.stop.cancel();
    case.running.send_replace(Running { falco: FalcoState::Down, ..Running::default() });
    sleep(Duration::from_secs(60)).await;
    assert_eq!(case.writes(), [CREATE, STATUS]);
    assert!(!case.ready());
}

#[test]
fn a_difference_makes_the_one_into_the_other() {
    let values = [
        json!({}),
        json!({ "a": 1, "b": { "c": 2, "d": [1] }, "e": [1] }),
        json!({ "a": 1, "b": { "c": 3 }, "e": [] }),
        json!({ "b": 5 }),
        json!({ "b": { "x": { "y": 1 } } }),
    ];
    for old in &values {
        for new in &values {
            let mut merged = old.clone();
            merge(&mut merged, &difference(old, new));
            assert_eq!(&merged, new, "{old} → {new}");
        }
        assert_eq!(difference(old, old), json!({}));
    }
}
