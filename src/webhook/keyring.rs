//! The authorities that sign what the webhook serves, and when one follows another. Pure: (keyring, what is trusted,
//! now) → step.
//!
//! All replicas share one keyring; each has a certificate of its own, whose key never leaves it. An authority comes in
//! three steps, so that at no time a certificate is served that an API server does not trust: the next one is trusted
//! first, then signs, and the one before stays trusted for as long as a certificate that it signed can be in use.

use std::fmt;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long authorities and certificates are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority.
    pub authority: Duration,
    /// Of a certificate; at most a third of an authority's.
    pub certificate: Duration,
}

/// The shortest time for which an API server gets to learn of a new authority, where lifetimes allow it.
const INTRODUCED: Duration = Duration::from_secs(300);

impl Lifetimes {
    /// Fails in words where a certificate could outlive the authority that signed it.
    pub fn checked(self) -> Result<Self, String> {
        if self.certificate.is_zero() || self.certificate > self.authority / 3 {
            return Err("a certificate of the webhook may live for at most a third of what its authority does".into());
        }
        Ok(self)
    }

    /// How old an authority gets before the next one is made.
    fn until_next(self) -> Duration {
        self.authority / 2
    }

    /// How long the next authority is trusted before it signs.
    fn introduction(self) -> Duration {
        INTRODUCED.min(self.authority / 20)
    }

    /// How old a certificate gets before it is replaced.
    fn until_renewal(self) -> Duration {
        self.certificate / 2
    }

    /// How often to look, so that everything happens well in time.
    #[must_use]
    pub fn period(self) -> Duration {
        Duration::from_secs(15).min(self.certificate / 20).max(Duration::from_millis(250))
    }
}

/// Where an authority is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It is trusted, and signs nothing yet.
    Next,
    /// It signs.
    Current,
    /// It signs no more.
    Former,
}

/// An authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Its name, which no other has.
    pub name: String,
    /// Its certificate, as PEM.
    pub certificate: String,
    /// Its key, as PEM; empty once it signs no more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Until when it is good.
    pub not_after: Timestamp,
    /// Where it is in its life.
    pub stage: Stage,
    /// Since when it is there.
    pub since: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        f.debug_struct("Authority")
            .field("name", &self.name)
            .field("stage", &self.stage)
            .field("since", &self.since)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The authorities that there are, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// All of them.
    pub authorities: Vec<Authority>,
}

/// What is to be done to a keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new authority is needed at once: there is none that can sign.
    Begin,
    /// It is time for the next authority.
    Introduce,
    /// The next authority is known to everybody: from now on it signs.
    Promote,
    /// What a former authority signed is not in use any more.
    Retire,
}

/// A certificate that is served, as far as its renewal goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The name of the authority that signed it.
    pub authority: String,
    /// Since when it is good.
    pub since: Timestamp,
    /// Until when it is good.
    pub not_after: Timestamp,
}

impl Keyring {
    /// Reads what was written by [`Keyring::to_json`]; `None` where it is not that.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// All of it as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Texts and times always serialize.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The certificates that are to be trusted, as PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| format!("{}\n", authority.certificate.trim())).collect()
    }

    /// The authority that signs, if it still can.
    #[must_use]
    pub fn current(&self, now: Timestamp) -> Option<&Authority> {
        self.staged(Stage::Current).filter(|authority| authority.not_after > now && !authority.key.is_empty())
    }

    fn staged(&self, stage: Stage) -> Option<&Authority> {
        self.authorities.iter().rev().find(|authority| authority.stage == stage)
    }

    /// What is to be done now; `None` where all is well. `trusted` is what API servers are told to trust; `None` where
    /// nobody can say.
    #[must_use]
    pub fn step(&self, trusted: Option<&str>, now: Timestamp, lifetimes: Lifetimes) -> Option<Step> {
        let Some(current) = self.current(now) else { return Some(Step::Begin) };
        match self.staged(Stage::Next) {
            None if age(current, now) >= lifetimes.until_next() => return Some(Step::Introduce),
            Some(next) => {
                let known = trusted.is_none_or(|trusted| trusted.contains(next.certificate.trim()));
                if known && age(next, now) >= lifetimes.introduction() {
                    return Some(Step::Promote);
                }
            }
            None => {}
        }
        self.authorities.iter().any(|authority| is_done(authority, now, lifetimes)).then_some(Step::Retire)
    }

    /// The keyring after a step. `fresh` is the authority that was made for it: for [`Step::Begin`] and
    /// [`Step::Introduce`].
    #[must_use]
    pub fn after(&self, step: Step, fresh: Option<Authority>, now: Timestamp, lifetimes: Lifetimes) -> Self {
        let mut authorities = self.authorities.clone();
        let mut turn = |from: Stage, to: Stage| {
            for authority in authorities.iter_mut().filter(|authority| authority.stage == from) {
                (authority.stage, authority.since) = (to, now);
                if to == Stage::Former {
                    authority.key.clear();
                }
            }
        };
        match step {
            Step::Begin => {
                turn(Stage::Current, Stage::Former);
                turn(Stage::Next, Stage::Former);
                authorities.extend(fresh.map(|fresh| Authority { stage: Stage::Current, since: now, ..fresh }));
            }
            Step::Introduce => {
                authorities.extend(fresh.map(|fresh| Authority { stage: Stage::Next, since: now, ..fresh }));
            }
            Step::Promote => {
                turn(Stage::Current, Stage::Former);
                turn(Stage::Next, Stage::Current);
            }
            Step::Retire => {}
        }
        authorities.retain(|authority| !is_done(authority, now, lifetimes));
        Self { authorities }
    }

    /// Whether another certificate is to be served than this one.
    #[must_use]
    pub fn wants_another(&self, served: Option<&Served>, now: Timestamp, lifetimes: Lifetimes) -> bool {
        let Some(current) = self.current(now) else { return false };
        served.is_none_or(|served| {
            served.authority != current.name
                || elapsed(served.since, now) >= lifetimes.until_renewal()
                || served.not_after <= now
        })
    }
}

/// How long an authority is in its stage.
fn age(authority: &Authority, now: Timestamp) -> Duration {
    elapsed(authority.since, now)
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Whether nobody can serve anything any more that the authority signed.
fn is_done(authority: &Authority, now: Timestamp, lifetimes: Lifetimes) -> bool {
    authority.stage == Stage::Former
        && (authority.not_after <= now || age(authority, now) >= lifetimes.certificate + lifetimes.introduction())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes =
        Lifetimes { authority: Duration::from_secs(6000), certificate: Duration::from_secs(600) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn fresh(name: &str, now: i64) -> Authority {
        Authority {
            name: name.to_owned(),
            certificate: format!("certificate of {name}"),
            key: format!("key of {name}"),
            not_after: at(now + 6000),
            stage: Stage::Next,
            since: at(now),
        }
    }

    fn stages(keyring: &Keyring) -> Vec<(&str, Stage)> {
        keyring.authorities.iter().map(|it| (it.name.as_str(), it.stage)).collect()
    }

    #[test]
    fn one_authority_follows_another_in_time() {
        let none = Keyring::default();
        assert_eq!(none.step(None, at(0), LIFETIMES), Some(Step::Begin));
        let first = none.after(Step::Begin, Some(fresh("a", 0)), at(0), LIFETIMES);
        assert_eq!(first.step(Some(""), at(2999), LIFETIMES), None);
        assert_eq!(first.step(Some(""), at(3000), LIFETIMES), Some(Step::Introduce));
        let second = first.after(Step::Introduce, Some(fresh("b", 3000)), at(3000), LIFETIMES);
        assert_eq!(stages(&second), [("a", Stage::Current), ("b", Stage::Next)]);
        let both = second.bundle();
        assert_eq!(both, "certificate of a\ncertificate of b\n");

        assert_eq!(second.step(Some(&both), at(3299), LIFETIMES), None);
        assert_eq!(second.step(Some("certificate of a"), at(3300), LIFETIMES), None, "API servers don't know it yet");
        assert_eq!(second.step(Some(&both), at(3300), LIFETIMES), Some(Step::Promote));
        let third = second.after(Step::Promote, None, at(3300), LIFETIMES);
        assert_eq!(stages(&third), [("a", Stage::Former), ("b", Stage::Current)]);
        assert_eq!(third.authorities[0].key, "", "what signs no more has no key");
        assert_eq!(third.bundle(), both, "what it signed is still served");

        assert_eq!(third.step(Some(&both), at(4199), LIFETIMES), None);
        assert_eq!(third.step(Some(&both), at(4200), LIFETIMES), Some(Step::Retire));
        assert_eq!(stages(&third.after(Step::Retire, None, at(4200), LIFETIMES)), [("b", Stage::Current)]);
    }

    #[test]
    fn a_certificate_is_always_trusted_and_never_runs_out() {
        // Two replicas that look at odd times, over several lives of an authority.
        let mut keyring = Keyring::default();
        let mut trusted = String::new();
        let mut served: [Option<Served>; 2] = [None, None];
        let mut names = 0;
        for second in (0..40_000).step_by(7) {
            let now = at(second);
            for (replica, period) in [(0, 14), (1, 77)] {
                if second % period != 0 {
                    continue;
                }
                if let Some(step) = keyring.step(Some(&trusted), now, LIFETIMES) {
                    names += 1;
                    let fresh = matches!(step, Step::Begin | Step::Introduce)
                        .then(|| fresh(&format!("authority-{names:05}"), second));
                    keyring = keyring.after(step, fresh, now, LIFETIMES);
                }
                if keyring.wants_another(served[replica].as_ref(), now, LIFETIMES) {
                    let authority = keyring.current(now).unwrap().name.clone();
                    served[replica] = Some(Served { authority, since: now, not_after: at(second + 600) });
                }
                trusted = keyring.bundle();
            }
            for served in served.iter().flatten() {
                assert!(trusted.contains(&format!("certificate of {}\n", served.authority)), "at {second}: {served:?}");
                assert!(served.not_after > now, "at {second}: {served:?}");
            }
            assert!(keyring.authorities.len() <= 3, "{keyring:?}");
        }
        assert!(names > 20, "{names}");
    }

    #[test]
    fn what_ran_out_or_has_no_key_is_begun_anew() {
        let first = Keyring::default().after(Step::Begin, Some(fresh("a", 0)), at(0), LIFETIMES);
        assert_eq!(first.step(None, at(6000), LIFETIMES), Some(Step::Begin));
        let again = first.after(Step::Begin, Some(fresh("b", 6000)), at(6000), LIFETIMES);
        assert_eq!(stages(&again), [("b", Stage::Current)]);
        let mut keyless = first;
        keyless.authorities[0].key.clear();
        assert_eq!(keyless.step(None, at(1), LIFETIMES), Some(Step::Begin));
        assert!(!keyless.wants_another(None, at(1), LIFETIMES));
    }

    #[test]
    fn a_keyring_reads_back_and_tells_no_key() {
        let keyring = Keyring { authorities: vec![fresh("a", 0)] };
        assert_eq!(Keyring::from_json(&keyring.to_json()), Some(keyring.clone()));
        assert_eq!(Keyring::from_json(b"{"), None);
        assert!(!format!("{keyring:?}").contains("key of a"));
    }

    #[test]
    fn a_certificate_can_not_outlive_its_authority() {
        assert!(LIFETIMES.checked().is_ok());
        let hour = Duration::from_secs(3600);
        assert!(Lifetimes { authority: hour, certificate: hour }.checked().is_err());
        assert!(Lifetimes { authority: hour, certificate: Duration::ZERO }.checked().is_err());
    }
}
