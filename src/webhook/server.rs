//! The HTTPS server that API servers ask.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use kube::api::ListParams;
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use kube::core::response::{StatusCause, StatusDetails};
use kube::core::{DeserializeGuard, DynamicObject, NamespaceResourceScope, Status};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::Reader;
use super::metrics::{KINDS, WebhookMetrics};
use super::object::{self, Reading, Written};
use super::review::{Answer, review};
use crate::api::GROUP;
use crate::render::{Policy, Snapshot};
use crate::telemetry::http::{self as telemetry_http, answer};

/// The largest request: two objects of etcd's limit, and what is around them.
const BODY: usize = 8 * 1024 * 1024;
/// How long a request may take in all; an API server waits less.
const PATIENCE: Duration = Duration::from_secs(15);
/// Requests that are judged at once; others wait their turn.
const AT_ONCE: usize = 8;

/// What answers requests. Clones share everything.
#[derive(Clone)]
pub struct Handler(Arc<Inner>);

struct Inner {
    client: Client,
    reader: Reader,
    policy: Policy,
    strict: bool,
    metrics: WebhookMetrics,
    turns: Arc<Semaphore>,
}

impl Handler {
    /// What answers by this policy, from what `reader` knows of namespaces.
    #[must_use]
    pub fn new(client: Client, reader: Reader, policy: Policy, strict: bool, metrics: WebhookMetrics) -> Self {
        Self(Arc::new(Inner { client, reader, policy, strict, metrics, turns: Arc::new(Semaphore::new(AT_ONCE)) }))
    }

    /// Answers a request.
    pub async fn handle(self, request: Request<Incoming>) -> telemetry_http::Answer {
        if request.uri().path() != super::PATH {
            return answer(StatusCode::NOT_FOUND, "text/plain", format!("there is {}\n", super::PATH));
        }
        if request.method() != Method::POST {
            return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only POST is answered\n");
        }
        let begun = Instant::now();
        let outcome = match timeout(PATIENCE, self.0.answer(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, anyhow!("the answer took too long"))),
        };
        self.0.metrics.request_seconds.observe(begun.elapsed().as_secs_f64());
        match outcome {
            Ok(body) => answer(StatusCode::OK, "application/json", body),
            Err((status, err)) => {
                tracing::warn!(%status, err = format!("{err:#}"), "a request of an API server could not be answered");
                self.0.count("other", "failed");
                answer(status, "text/plain", format!("{err:#}\n"))
            }
        }
    }
}

type Failure = (StatusCode, anyhow::Error);

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(request.into_body(), BODY).collect().await;
        let body = body.map_err(|err| (StatusCode::PAYLOAD_TOO_LARGE, anyhow!("the request can't be read: {err}")))?;
        let bad = |err: anyhow::Error| (StatusCode::BAD_REQUEST, err);
        let review: AdmissionReview<DynamicObject> =
            serde_json::from_slice(&body.to_bytes()).context("the request is no AdmissionReview").map_err(bad)?;
        let request: object::Request = review.try_into().context("the AdmissionReview has no request").map_err(bad)?;
        let (answer, verdict) = match object::read(&request) {
            Reading::Pass => (Answer::default(), "passed"),
            Reading::Undecodable { field, message } => (Answer::undecodable(&field, &message), "denied"),
            Reading::Judge(written) => {
                let answer = self.judge(&request, *written).await;
                let answer = answer.map_err(|err| (StatusCode::SERVICE_UNAVAILABLE, err))?;
                let verdict = match (answer.is_allowed(), answer.warnings.is_empty()) {
                    (false, _) => "denied",
                    (true, false) => "warned",
                    (true, true) => "allowed",
                };
                (answer, verdict)
            }
        };
        self.count(&request.kind.kind, verdict);
        let (namespace, name) = (request.namespace.as_deref().unwrap_or_default(), request.name.as_str());
        tracing::debug!(kind = request.kind.kind, namespace, name, verdict, "answered");
        let body = serde_json::to_vec(&response(&request, answer)).context("an answer of our own");
        body.map(Bytes::from).map_err(|err| (StatusCode::INTERNAL_SERVER_ERROR, err))
    }

    fn count(&self, kind: &str, verdict: &str) {
        let kind = KINDS.iter().find(|known| **known == kind).unwrap_or(&"other");
        self.metrics.requests_total.with_label_values(&[kind, verdict]).inc();
    }

    async fn judge(&self, request: &object::Request, written: Written) -> anyhow::Result<Answer> {
        let turn = Arc::new(self.turns.clone().acquire_owned().await.context("the webhook ends")?);
        let namespace = request.namespace.clone().unwrap_or_default();
        let wanted = written.object.rule_name().map(str::to_owned);
        let known = (self.reader)(namespace.clone(), wanted.into_iter().collect()).await;
        let known = known.context("the caches are not filled yet")?;
        let (answer, written, known) = self.review(written, known, &turn).await?;
        if !answer.rests_on_others {
            return Ok(answer);
        }
        // A watch may be some moments behind the object that was applied just before this one.
        let fresh = self.fresh(&namespace, known).await.context("the items of the namespace can't be read")?;
        Ok(self.review(written, fresh, &turn).await?.0)
    }

    /// The judgement, on a thread where it is in nobody's way. It holds its turn to its end, whether anybody still waits
    /// for the answer or not.
    async fn review(
        &self,
        written: Written,
        world: Snapshot,
        turn: &Arc<OwnedSemaphorePermit>,
    ) -> anyhow::Result<(Answer, Written, Snapshot)> {
        let (policy, strict, turn) = (self.policy.clone(), self.strict, turn.clone());
        let work = move || {
            let answer = review(&written, &world, &policy, strict);
            drop(turn);
            (answer, written, world)
        };
        tokio::task::spawn_blocking(work).await.context("the judgement ended badly")
    }

    /// The same with the items as the API server has them now.
    async fn fresh(&self, namespace: &str, known: Snapshot) -> kube::Result<Snapshot> {
        let (rules, macros, lists) =
            tokio::try_join!(self.list(namespace), self.list(namespace), self.list(namespace))?;
        Ok(Snapshot { rules, macros, lists, ..known })
    }

    async fn list<K>(&self, namespace: &str) -> kube::Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let api = Api::<DeserializeGuard<K>>::namespaced(self.client.clone(), namespace);
        let found = api.list(&ListParams::default()).await?.items;
        // One that is on its way out counts no more, and one that can't be decoded has nothing to say.
        let staying = found.into_iter().filter_map(|object| object.0.ok());
        Ok(staying.filter(|object| object.meta().deletion_timestamp.is_none()).collect())
    }
}

/// The answer as an API server reads it.
fn response(request: &object::Request, answer: Answer) -> AdmissionReview<DynamicObject> {
    let mut response = AdmissionResponse::from(request);
    response.allowed = answer.is_allowed();
    if !answer.warnings.is_empty() {
        response.warnings = Some(answer.warnings);
    }
    if !response.allowed {
        let texts: Vec<String> =
            answer.causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let causes = answer.causes.into_iter().map(|cause| StatusCause {
            reason: "FieldValueInvalid".to_owned(),
            message: cause.message,
            field: cause.field,
        });
        // kubectl shows the causes of what is invalid, and others show the message.
        response.result = Status::failure(&texts.join("\n"), "Invalid").with_code(422).with_details(StatusDetails {
            name: request.name.clone(),
            group: GROUP.to_owned(),
            kind: request.kind.kind.clone(),
            uid: String::new(),
            causes: causes.collect(),
            retry_after_seconds: 0,
        });
    }
    response.into_review()
}
