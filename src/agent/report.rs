//! The report of this node, and whether it says anything new: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::world::{Expectations, Expected, Settled};
use super::{Running, Trouble};
use crate::api::{
    AgentPod, FalcoNodeStatus, FalcoState, NONE, NodeNamespace, NodeTrouble, Proof, add_to_sum, sum_text,
};

/// More entries than this are cut, and the report says so.
pub const MOST_ENTRIES: usize = 4096;
/// The most bytes of a message.
const MOST_MESSAGE: usize = 1024;
/// The most bytes of all messages together, so that the object stays far below what the API server stores.
const MOST_MESSAGES: usize = 400 * 1024;
/// How long what is likely to pass by itself is waited for before it is reported.
const PASSING: Duration = Duration::from_secs(10);
/// The same for the first report of an agent, whose Falco has just been started.
const FIRST: Duration = Duration::from_secs(30);

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The settled files, and what is wanted here.
    pub expected: &'a Expectations,
    /// What Falco is proved to run.
    pub running: &'a Running,
    /// This agent's pod.
    pub agent: &'a AgentPod,
    /// The name of the catalogue of this node's Falco.
    pub catalog: Option<&'a str>,
}

/// How urgent it is to write a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The last one still says it all.
    Nothing,
    /// What is new is likely to pass: to be written once it has lasted for so long.
    After(Duration),
    /// It is new.
    Now,
}

impl Facts<'_> {
    /// The report, with no entry that is superfluous.
    #[must_use]
    pub fn report(&self) -> FalcoNodeStatus {
        let running = self.running;
        let proved = proves(running.proof);
        let mut namespaces: Vec<NodeNamespace> = self
            .namespaces()
            .into_iter()
            .filter_map(|namespace| {
                let expected = self.expected.get(namespace);
                let trouble = running.trouble.get(namespace);
                let note = expected.and_then(|expected| expected.note.as_deref());
                let loaded = self.loaded(namespace);
                // Where nothing is proved, nobody asks what is loaded: only trouble is told.
                let settled = !proved || is_settled(expected, loaded);
                (!settled || trouble.is_some() || note.is_some()).then(|| entry(namespace, loaded, trouble, note))
            })
            .collect();
        let incomplete = namespaces.len() > MOST_ENTRIES;
        namespaces.truncate(MOST_ENTRIES);
        shorten(&mut namespaces);
        let sum = || {
            let mut sum = [0; 32];
            running.loaded.iter().for_each(|(namespace, hash)| add_to_sum(&mut sum, namespace, hash));
            sum_text(&sum)
        };
        FalcoNodeStatus {
            agent: self.agent.clone(),
            falco_version: running.falco_version.clone(),
            engine_version: running.engine_version.clone(),
            falco: running.falco,
            proof: running.proof,
            rules_sum: proved.then(sum),
            namespaces,
            incomplete,
            fault: running.fault.as_ref().map(|fault| NodeTrouble {
                reason: fault.reason,
                message: cut(&fault.message, MOST_MESSAGE).to_owned(),
            }),
            last_reload_time: running.last_reload.map(|at| MicroTime(whole_micros(at))),
            catalog: self.catalog.map(str::to_owned),
        }
    }

    /// Whether `next`, made of these facts, must be written over `last`.
    #[must_use]
    pub fn urgency(&self, last: Option<&FalcoNodeStatus>, next: &FalcoNodeStatus) -> Urgency {
        let Some(last) = last.filter(|last| last.agent == next.agent) else {
            let known =
                next.fault.is_some() || (proves(next.proof) && self.namespaces().iter().all(|it| self.answered(it)));
            return if known { Urgency::Now } else { Urgency::After(FIRST) };
        };
        let changed = self.changed(last, next);
        let rest = |status: &FalcoNodeStatus| FalcoNodeStatus { namespaces: Vec::new(), ..status.clone() };
        let (last_rest, next_rest) = (rest(last), rest(next));
        if changed.is_empty() && last_rest == next_rest {
            return Urgency::Nothing;
        }
        if next.fault.is_none() && last.fault.is_none() {
            // Falco is started again, or asked again: that it can't say anything in between is no news.
            if !proves(next.proof) && next.falco != FalcoState::Down {
                return Urgency::After(PASSING);
            }
            // The files are on their way: what will be said of them is known in a moment.
            let under_way = |it: &&str| !self.answered(it) && !self.running.trouble.contains_key(*it);
            if last_rest == next_rest && changed.iter().all(under_way) {
                return Urgency::After(PASSING);
            }
        }
        Urgency::Now
    }

    /// The namespaces about which the last report says something else than the next, or something that is not so. That it
    /// says more than it has to is fine.
    fn changed<'a>(&'a self, last: &'a FalcoNodeStatus, next: &'a FalcoNodeStatus) -> BTreeSet<&'a str> {
        let by_name = |status: &'a FalcoNodeStatus| -> BTreeMap<&'a str, &'a NodeNamespace> {
            status.namespaces.iter().map(|entry| (entry.namespace.as_str(), entry)).collect()
        };
        let (olds, news) = (by_name(last), by_name(next));
        let still_true = |entry: &NodeNamespace| {
            let plain = entry.tried.is_none() && entry.fault.is_none() && entry.message.is_none();
            plain && entry.loaded == self.loaded(&entry.namespace)
        };
        let new = news.iter().filter(|(name, entry)| olds.get(*name) != Some(entry)).map(|(name, _)| *name);
        let gone =
            olds.iter().filter(|(name, entry)| !news.contains_key(*name) && !still_true(entry)).map(|(name, _)| *name);
        new.chain(gone).collect()
    }

    /// Whether it is known what has become of the file that is wanted of a namespace.
    fn answered(&self, namespace: &str) -> bool {
        let wanted = self.expected.get(namespace).and_then(|expected| expected.target.as_deref());
        let tried = self.running.trouble.get(namespace).map(|trouble| trouble.tried.as_str());
        wanted.unwrap_or(NONE) == self.loaded(namespace) || (tried.is_some() && tried == wanted)
    }

    fn loaded(&self, namespace: &str) -> &str {
        self.running.loaded.get(namespace).map_or(NONE, String::as_str)
    }

    fn namespaces(&self) -> BTreeSet<&str> {
        let running = self.running.loaded.keys().chain(self.running.trouble.keys());
        self.expected.keys().chain(running).map(String::as_str).collect()
    }
}

const fn proves(proof: Proof) -> bool {
    matches!(proof, Proof::Metrics | Proof::Assumed)
}

fn is_settled(expected: Option<&Expected>, loaded: &str) -> bool {
    match expected.map(|expected| &expected.settled) {
        None | Some(Settled::Nothing) => loaded == NONE,
        Some(Settled::File(hash)) => loaded == hash,
        Some(Settled::Unknown) => false,
    }
}

fn entry(namespace: &str, loaded: &str, trouble: Option<&Trouble>, note: Option<&str>) -> NodeNamespace {
    let said = [trouble.map(|trouble| trouble.message.trim()), note];
    let message = said.into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    NodeNamespace {
        namespace: namespace.to_owned(),
        loaded: loaded.to_owned(),
        tried: trouble.map(|trouble| trouble.tried.clone()),
        fault: trouble.map(|trouble| trouble.fault),
        message: (!message.is_empty()).then_some(message),
    }
}

/// Brings messages to the length that is allowed, one by one and all together.
fn shorten(namespaces: &mut [NodeNamespace]) {
    let messages = namespaces.iter().filter(|entry| entry.message.is_some()).count();
    let most = MOST_MESSAGE.min(MOST_MESSAGES / messages.max(1));
    for message in namespaces.iter_mut().filter_map(|entry| entry.message.as_mut()) {
        let kept = cut(message, most).len();
        message.truncate(kept);
    }
}

/// The longest beginning of at most `most` bytes that ends with a whole character.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// The API keeps microseconds: a finer time would never compare equal again.
fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
