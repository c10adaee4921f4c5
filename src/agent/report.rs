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
mod tests {
    use super::*;
    use crate::agent::world::{Bundle, World};
    use crate::api::{BundleFile, BundleItem, FalcoBundleSpec, Fault, NodeFaultReason, Rollout, RolloutKind};
    use crate::machine::{AgentPodFacts, Nodes, Standing};
    use proptest::prelude::*;

    fn expected(settled: Settled, target: Option<&str>) -> Expected {
        Expected { settled, target: target.map(str::to_owned), note: None }
    }

    fn file(hash: &str) -> Settled {
        Settled::File(hash.to_owned())
    }

    fn running(loaded: &[(&str, &str)]) -> Running {
        Running {
            falco: FalcoState::Running,
            proof: Proof::Metrics,
            loaded: loaded.iter().map(|(namespace, hash)| ((*namespace).to_owned(), (*hash).to_owned())).collect(),
            settled: true,
            ..Running::default()
        }
    }

    fn trouble(tried: &str, message: &str) -> Trouble {
        Trouble { tried: tried.to_owned(), fault: Fault::Refused, message: message.to_owned() }
    }

    struct Case {
        expected: Expectations,
        running: Running,
        agent: AgentPod,
    }

    impl Case {
        fn new(expected: &[(&str, Expected)], running: Running) -> Self {
            let expected = expected.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
            Self { expected, running, agent: AgentPod { uid: "p1".into(), ..AgentPod::default() } }
        }

        fn facts(&self) -> Facts<'_> {
            Facts { expected: &self.expected, running: &self.running, agent: &self.agent, catalog: None }
        }

        fn report(&self) -> FalcoNodeStatus {
            self.facts().report()
        }

        fn urgency(&self, last: &FalcoNodeStatus) -> Urgency {
            self.facts().urgency(Some(last), &self.report())
        }
    }

    #[test]
    fn only_what_is_not_settled_or_in_trouble_has_an_entry() {
        let mut running = running(&[("a", "1"), ("b", "1"), ("c", "1"), ("e", "9")]);
        running.trouble.insert("c".into(), trouble("2", "bad condition"));
        let case = Case::new(
            &[
                ("a", expected(file("1"), Some("1"))),
                ("b", expected(file("2"), Some("1"))),
                ("c", expected(file("1"), Some("2"))),
                ("d", expected(file("3"), None)),
                ("f", expected(Settled::Nothing, None)),
                ("g", expected(Settled::Unknown, None)),
            ],
            running,
        );
        let report = case.report();
        let said: Vec<_> = report
            .namespaces
            .iter()
            .map(|it| (it.namespace.as_str(), it.loaded.as_str(), it.tried.as_deref(), it.message.as_deref()))
            .collect();
        assert_eq!(
            said,
            [
                ("b", "1", None, None),
                ("c", "1", Some("2"), Some("bad condition")),
                ("d", NONE, None, None),
                ("e", "9", None, None),
                ("g", NONE, None, None),
            ]
        );
        let mut sum = [0; 32];
        for (namespace, hash) in [("a", "1"), ("b", "1"), ("c", "1"), ("e", "9")] {
            add_to_sum(&mut sum, namespace, hash);
        }
        assert_eq!(report.rules_sum, Some(sum_text(&sum)));
        assert!(!report.incomplete);
    }

    #[test]
    fn without_proof_there_is_no_sum_and_only_trouble_is_told() {
        let mut running = running(&[]);
        running.proof = Proof::None;
        running.trouble.insert("b".into(), trouble("2", ""));
        let case = Case::new(&[("a", expected(file("1"), Some("1"))), ("b", expected(file("1"), Some("2")))], running);
        let report = case.report();
        assert_eq!(report.rules_sum, None);
        assert_eq!(report.namespaces.len(), 1);
        assert_eq!((report.namespaces[0].namespace.as_str(), &report.namespaces[0].message), ("b", &None));
    }

    #[test]
    fn a_superfluous_entry_is_no_news_and_is_left_out_of_the_next_report() {
        // The node of a wave has loaded the target, and then the rollout is over.
        let mut case = Case::new(&[("a", expected(file("1"), Some("2")))], running(&[("a", "2")]));
        let last = case.report();
        assert_eq!(last.namespaces.len(), 1);
        case.expected.insert("a".into(), expected(file("2"), Some("2")));
        assert_eq!(case.urgency(&last), Urgency::Nothing);
        case.expected.insert("b".into(), expected(Settled::Nothing, Some("5")));
        case.running.loaded.insert("b".into(), "5".into());
        assert_eq!(case.urgency(&last), Urgency::Now);
        let next = case.report();
        assert_eq!(next.namespaces.iter().map(|it| it.namespace.as_str()).collect::<Vec<_>>(), ["b"]);
        // An entry that has become untrue is news, even where none is needed any more.
        case.running.loaded.remove("b");
        case.expected.insert("b".into(), expected(Settled::Nothing, None));
        assert_eq!(case.urgency(&next), Urgency::Now);
    }

    #[test]
    fn trouble_that_has_passed_is_news() {
        let mut case = Case::new(&[("a", expected(file("1"), Some("2")))], running(&[("a", "1")]));
        case.running.trouble.insert("a".into(), trouble("2", "bad"));
        let last = case.report();
        case.running.trouble.clear();
        case.expected.insert("a".into(), expected(file("1"), Some("1")));
        assert_eq!(case.urgency(&last), Urgency::Now);
        assert!(case.report().namespaces.is_empty());
    }

    #[test]
    fn nothing_new_is_nothing_to_write_but_another_pod_is() {
        let mut case = Case::new(&[("a", expected(file("1"), Some("1")))], running(&[("a", "1")]));
        let last = case.report();
        assert_eq!(case.urgency(&last), Urgency::Nothing);
        case.agent.uid = "p2".into();
        assert_eq!(case.urgency(&last), Urgency::Now);
    }

    #[test]
    fn the_first_report_waits_until_it_is_known_what_became_of_the_files() {
        let mut case = Case::new(&[("a", expected(file("1"), Some("1")))], Running::default());
        let urgency = |case: &Case| case.facts().urgency(None, &case.report());
        assert_eq!(urgency(&case), Urgency::After(FIRST));
        case.running = running(&[]);
        assert_eq!(urgency(&case), Urgency::After(FIRST));
        case.running.trouble.insert("a".into(), trouble("1", "bad"));
        assert_eq!(urgency(&case), Urgency::Now, "tried in vain is an answer too");
        case.running = running(&[("a", "1")]);
        assert_eq!(urgency(&case), Urgency::Now);
        let fault = NodeTrouble { reason: NodeFaultReason::FalcoDown, message: "no driver".into() };
        case.running = Running { fault: Some(fault), ..Running::default() };
        assert_eq!(urgency(&case), Urgency::Now);
    }

    #[test]
    fn what_is_under_way_is_not_told_twice() {
        let mut case = Case::new(&[("a", expected(file("1"), Some("1")))], running(&[("a", "1")]));
        let last = case.report();
        // Another file was settled while this one is still loaded: the entry is on its way out.
        case.expected.insert("a".into(), expected(file("2"), Some("2")));
        assert_eq!(case.urgency(&last), Urgency::After(PASSING));
        // The same, with Falco being started anew.
        case.running.proof = Proof::None;
        case.running.falco = FalcoState::Starting;
        assert_eq!(case.urgency(&last), Urgency::After(PASSING));
        case.running.falco = FalcoState::Down;
        assert_eq!(case.urgency(&last), Urgency::Now);
        // What was refused is no longer under way.
        case.running = running(&[("a", "1")]);
        case.running.trouble.insert("a".into(), trouble("2", "bad"));
        assert_eq!(case.urgency(&last), Urgency::Now);
    }

    #[test]
    fn a_report_stays_within_what_the_api_server_stores() {
        let mut running = running(&[]);
        for number in 0..3000 {
            running.trouble.insert(format!("n{number:05}"), trouble("2", &"ä".repeat(700)));
        }
        let case = Case::new(&[], running);
        let report = case.report();
        assert!(!report.incomplete && report.namespaces.len() == 3000);
        assert!(serde_json::to_vec(&report).unwrap().len() < 1024 * 1024);

        let mut case = Case::new(&[], Running { proof: Proof::Metrics, ..Running::default() });
        case.running.trouble.insert("a".into(), trouble("2", &"ä".repeat(700)));
        let message = case.report().namespaces[0].message.clone().unwrap();
        assert_eq!(message.len(), 1024);
        for number in 0..MOST_ENTRIES {
            case.running.loaded.insert(format!("n{number:05}"), "1".into());
        }
        let report = case.report();
        assert!(report.incomplete && report.namespaces.len() == MOST_ENTRIES);
        assert!(report.namespaces.is_sorted_by(|one, other| one.namespace < other.namespace));
    }

    #[test]
    fn a_time_survives_the_api() {
        let mut case = Case::new(&[], running(&[]));
        case.running.last_reload = Some(Timestamp::from_nanosecond(1_234_567_890_123_456_789).unwrap());
        let report = case.report();
        let read: FalcoNodeStatus = serde_json::from_value(serde_json::to_value(&report).unwrap()).unwrap();
        assert_eq!(case.urgency(&read), Urgency::Nothing);
    }

    fn bundle_file(number: u8) -> BundleFile {
        BundleFile::new(vec![BundleItem { text: format!("- rule: {number}\n"), ..BundleItem::default() }])
    }

    /// What happens to one namespace, or to the node.
    #[derive(Clone, Debug)]
    enum Happens {
        Written { namespace: u8, target: Option<u8>, rollout: Option<(RolloutKind, Option<u8>, bool)> },
        Odd { namespace: u8 },
        Gone { namespace: u8 },
        Loaded { namespace: u8, file: Option<u8> },
        Trouble { namespace: u8, file: Option<u8> },
        Proof(Proof),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        let namespace = 0..4u8;
        let file = || proptest::option::of(0..3u8);
        let kind = prop_oneof![
            Just(RolloutKind::Rollout),
            Just(RolloutKind::Rollback),
            Just(RolloutKind::Withdrawal),
            Just(RolloutKind::Unknown)
        ];
        prop_oneof![
            4 => (namespace.clone(), file(), proptest::option::of((kind, file(), any::<bool>())))
                .prop_map(|(namespace, target, rollout)| Happens::Written { namespace, target, rollout }),
            1 => namespace.clone().prop_map(|namespace| Happens::Odd { namespace }),
            1 => namespace.clone().prop_map(|namespace| Happens::Gone { namespace }),
            5 => (namespace.clone(), file()).prop_map(|(namespace, file)| Happens::Loaded { namespace, file }),
            2 => (namespace, file()).prop_map(|(namespace, file)| Happens::Trouble { namespace, file }),
            1 => prop_oneof![Just(Proof::Metrics), Just(Proof::None)].prop_map(Happens::Proof),
        ]
    }

    proptest! {
        /// The controller reads from the reports, of which only those with news are written, what is true of the node.
        #[test]
        fn the_controller_reads_what_is_so(history in proptest::collection::vec(happens(), 1..40)) {
            let now = Timestamp::from_second(1000).unwrap();
            let mut world = World::new("n1");
            world.list(vec![], now);
            let mut nodes = Nodes::new(false);
            nodes.set_wanted(Some(1));
            nodes.set_pods("n1", vec![AgentPodFacts { uid: "p1".into(), ready: true, terminating: false }]);
            let agent = AgentPod { uid: "p1".into(), ..AgentPod::default() };
            let mut running = running(&[]);
            let mut written: Option<FalcoNodeStatus> = None;
            for happens in history {
                match happens {
                    Happens::Written { namespace, target, rollout } => {
                        let spec = FalcoBundleSpec {
                            namespace_uid: "u".into(),
                            target: target.map(bundle_file),
                            rollout: rollout.map(|(kind, last_good, canary)| Rollout {
                                kind,
                                last_good: last_good.map(bundle_file),
                                started_at: MicroTime(now),
                                canaries: if canary { vec!["n1".into()] } else { vec![] },
                                threshold: None,
                            }),
                            ..FalcoBundleSpec::default()
                        };
                        let namespace = format!("ns{namespace}");
                        nodes.set_settled(&namespace, spec.settled().map(|file| file.hash.as_str()));
                        world.apply(Bundle { namespace, spec: Ok(spec), owner_uid: None });
                    }
                    Happens::Odd { namespace } => {
                        let namespace = format!("ns{namespace}");
                        // Only this agent can't read it; the controller knows what it has written.
                        let file = bundle_file(9);
                        nodes.set_settled(&namespace, Some(&file.hash));
                        world.apply(Bundle { namespace, spec: Err("odd".into()), owner_uid: None });
                    }
                    Happens::Gone { namespace } => {
                        let namespace = format!("ns{namespace}");
                        nodes.set_settled(&namespace, None);
                        world.delete(&namespace, now);
                    }
                    Happens::Loaded { namespace, file } => {
                        let namespace = format!("ns{namespace}");
                        match file {
                            Some(file) => running.loaded.insert(namespace, bundle_file(file).hash),
                            None => running.loaded.remove(&namespace),
                        };
                    }
                    Happens::Trouble { namespace, file } => {
                        let namespace = format!("ns{namespace}");
                        match file {
                            Some(file) => running.trouble.insert(namespace, trouble(&bundle_file(file).hash, "bad")),
                            None => running.trouble.remove(&namespace),
                        };
                    }
                    Happens::Proof(proof) => running.proof = proof,
                }
                let expected = world.expectations();
                let facts = Facts { expected: &expected, running: &running, agent: &agent, catalog: None };
                let next = facts.report();
                if facts.urgency(written.as_ref(), &next) != Urgency::Nothing {
                    // One that has no news says no more than the last: writing it would change nothing for anybody.
                    nodes.set_report("n1", Some(next.clone()));
                    written = Some(next);
                }
                nodes.refresh(now);
                let available = nodes.standings().all(|(_, standing)| standing == Standing::Available);
                prop_assert_eq!(available, running.proof == Proof::Metrics, "{:?}", nodes.standings().collect::<Vec<_>>());
                if available {
                    for namespace in ["ns0", "ns1", "ns2", "ns3"] {
                        let seen = nodes.of(namespace);
                        let verdict = &seen.nodes[0];
                        let loaded = running.loaded.get(namespace).map_or(NONE, String::as_str);
                        prop_assert_eq!(verdict.loaded, Some(loaded));
                        prop_assert_eq!(verdict.tried, running.trouble.get(namespace).map(|it| it.tried.as_str()));
                    }
                }
            }
        }
    }
}
