//! Leadership by a Lease.
//!
//! A lease is expired when this process has seen the same version of it for its whole duration, by its own clock; no
//! written time is ever compared with it. Validity counts from before a renewal was sent. What still slips through, such
//! as a write that a paused process sends when it wakes, is stopped by the resourceVersion that every write carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long others wait for a holder that says nothing.
const DURATION: Duration = Duration::from_secs(15);
/// How long a holder leads after a renewal that succeeded.
const VALID: Duration = Duration::from_secs(10);
/// The time from one attempt to the next.
const RETRY: Duration = Duration::from_secs(2);

/// Whether this process leads, and until when if nothing more happens. Clones share their state.
#[derive(Clone, Debug)]
pub struct Lead {
    base: Instant,
    /// Milliseconds after `base`.
    until: Arc<AtomicU64>,
    changes: watch::Sender<bool>,
}

impl Default for Lead {
    fn default() -> Self {
        Self { base: Instant::now(), until: Arc::default(), changes: watch::Sender::new(false) }
    }
}

impl Lead {
    /// When leadership ends unless the lease is renewed; `None` while another process leads.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        let until = self.base + Duration::from_millis(self.until.load(Ordering::Acquire));
        (until > Instant::now()).then_some(until)
    }

    /// Tells whether this process leads, at once and whenever that changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<bool> {
        let mut changes = self.changes.subscribe();
        // Leadership may have been won before anybody listens.
        changes.mark_changed();
        changes
    }

    fn hold(&self, until: Instant) {
        let millis = until.saturating_duration_since(self.base).as_millis();
        self.until.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
        self.changes.send_if_modified(|leading| !std::mem::replace(leading, true));
    }

    fn lose(&self) {
        self.until.store(0, Ordering::Release);
        self.changes.send_if_modified(|leading| std::mem::replace(leading, false));
    }
}

/// Which lease, and in whose name.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The leases of the namespace.
    pub leases: Api<Lease>,
    /// The name of the lease.
    pub name: String,
    /// The name of this process: that of its pod.
    pub me: String,
}

/// What to do about the lease that was read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take,
    Renew,
    Wait,
}

/// The version of the lease that was seen last, and since when it has been the same.
#[derive(Debug, Default)]
struct Observed {
    version: Option<String>,
    at: Option<Instant>,
}

impl Observed {
    fn step(&mut self, lease: Option<&Lease>, me: &str, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        if self.at.is_none() || self.version != lease.metadata.resource_version {
            *self = Self { version: lease.metadata.resource_version.clone(), at: Some(now) };
        }
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|secs| u64::try_from(secs).ok());
        let expires = self.at.unwrap_or(now) + Duration::from_secs(seconds.unwrap_or(0));
        match spec.and_then(|spec| spec.holder_identity.as_deref()) {
            Some(holder) if holder == me => Step::Renew,
            Some(holder) if !holder.is_empty() && now < expires => Step::Wait,
            _ => Step::Take,
        }
    }
}

/// Takes part until `shutdown`, which must come only after the last write; then gives the lease back.
pub async fn run(candidate: Candidate, lead: Lead, shutdown: CancellationToken) {
    let mut observed = Observed::default();
    let mut held: Option<Lease> = None;
    loop {
        let begun = Instant::now();
        match timeout(VALID / 2, attempt(&candidate, &mut observed, begun)).await {
            Ok(Ok(Some(lease))) => {
                if lead.until().is_none() {
                    tracing::info!(lease = candidate.name, me = candidate.me, "leading");
                }
                held = Some(lease);
                lead.hold(begun + VALID);
            }
            Ok(Ok(None)) => {
                if lead.until().is_some() {
                    tracing::warn!(lease = candidate.name, "another process holds the lease");
                }
                held = None;
                lead.lose();
            }
            Ok(Err(err)) => tracing::warn!(%err, lease = candidate.name, "the lease can't be read or written"),
            Err(_) => tracing::warn!(lease = candidate.name, "the lease can't be read or written in time"),
        }
        let expiry = async {
            match lead.until() {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = sleep(RETRY) => {}
            () = expiry => {}
        }
        if held.is_some() && lead.until().is_none() {
            tracing::warn!(lease = candidate.name, "the lease could not be renewed in time");
            held = None;
            lead.lose();
        }
    }
    lead.lose();
    if let Some(mut lease) = held
        && let Some(spec) = &mut lease.spec
    {
        spec.holder_identity = Some(String::new());
        let given = timeout(RETRY, candidate.leases.replace(&candidate.name, &PostParams::default(), &lease)).await;
        if !matches!(given, Ok(Ok(_))) {
            tracing::debug!("the lease was not given back; others wait until it has expired");
        }
    }
}

/// One attempt to get or keep the lease: the lease as held, or `None` where another process has it.
async fn attempt(candidate: &Candidate, observed: &mut Observed, now: Instant) -> kube::Result<Option<Lease>> {
    let found = candidate.leases.get_opt(&candidate.name).await?;
    let written = match observed.step(found.as_ref(), &candidate.me, now) {
        Step::Wait => return Ok(None),
        Step::Create => {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(candidate.name.clone()), ..ObjectMeta::default() },
                spec: Some(spec(None, &candidate.me, Timestamp::now())),
            };
            candidate.leases.create(&PostParams::default(), &lease).await
        }
        Step::Take | Step::Renew => {
            let mut lease = found.unwrap_or_default();
            lease.metadata.managed_fields = None;
            lease.spec = Some(spec(lease.spec.as_ref(), &candidate.me, Timestamp::now()));
            candidate.leases.replace(&candidate.name, &PostParams::default(), &lease).await
        }
    };
    match written {
        Ok(lease) => Ok(Some(lease)),
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(err) => Err(err),
    }
}

fn spec(old: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let same = old.filter(|old| old.holder_identity.as_deref() == Some(me));
    // Microseconds, as the API keeps them.
    let now = MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now));
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(DURATION.as_secs() as i32),
        acquire_time: same.and_then(|old| old.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(match (old, same) {
            (None, _) => 0,
            (Some(old), Some(_)) => old.lease_transitions.unwrap_or(0),
            (Some(old), None) => old.lease_transitions.unwrap_or(0).saturating_add(1),
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, holder: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() },
            spec: Some(spec(None, holder, Timestamp::UNIX_EPOCH)),
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_seen_unchanged_for_its_whole_duration() {
        let begin = Instant::now();
        let mut observed = Observed::default();
        assert_eq!(observed.step(None, "me", begin), Step::Create);
        assert_eq!(observed.step(Some(&lease("1", "other")), "me", begin), Step::Wait);
        assert_eq!(observed.step(Some(&lease("1", "other")), "me", begin + Duration::from_secs(14)), Step::Wait);
        assert_eq!(observed.step(Some(&lease("2", "other")), "me", begin + Duration::from_secs(16)), Step::Wait);
        assert_eq!(observed.step(Some(&lease("2", "other")), "me", begin + Duration::from_secs(31)), Step::Take);
        assert_eq!(observed.step(Some(&lease("3", "me")), "me", begin), Step::Renew);
        assert_eq!(observed.step(Some(&lease("4", "")), "me", begin), Step::Take);
    }

    #[test]
    fn transitions_count_changes_of_the_holder() {
        let first = spec(None, "a", Timestamp::UNIX_EPOCH);
        let renewed = spec(Some(&first), "a", Timestamp::UNIX_EPOCH);
        let taken = spec(Some(&renewed), "b", Timestamp::UNIX_EPOCH);
        assert_eq!([&first, &renewed, &taken].map(|spec| spec.lease_transitions), [Some(0), Some(0), Some(1)]);
    }

    #[test]
    fn leadership_ends_by_itself() {
        let lead = Lead::default();
        assert!(lead.until().is_none());
        lead.hold(Instant::now() + Duration::from_secs(60));
        assert!(lead.until().is_some());
        lead.hold(Instant::now());
        assert!(lead.until().is_none());
    }

    #[tokio::test]
    async fn who_listens_late_hears_of_leadership_too() {
        let lead = Lead::default();
        lead.hold(Instant::now() + Duration::from_secs(60));
        let mut changes = lead.changes();
        changes.changed().await.unwrap();
        assert!(*changes.borrow_and_update());
        lead.hold(Instant::now() + Duration::from_secs(70));
        assert!(!changes.has_changed().unwrap());
        lead.lose();
        changes.changed().await.unwrap();
        assert!(!*changes.borrow_and_update());
    }
}
