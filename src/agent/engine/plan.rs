//! Which files a set is to hold, and which of them are new here: pure decisions.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::agent::{RulesText, Wanted};
use crate::api::Fault;

/// A set that is worth trying.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The files that are held to be good, by namespace: what the node falls back to. The namespaces of
    /// [`Self::candidates`] are in it with their older file, if there is one.
    pub settled: BTreeMap<String, RulesText>,
    /// Files on trial, in the order in which they are added, which is the same everywhere.
    pub candidates: Vec<Candidate>,
    /// Files that wait, or are left out, and why.
    pub held: BTreeMap<String, Held>,
}

/// A file on trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its namespace.
    pub namespace: String,
    /// The file.
    pub text: RulesText,
    /// When its rollout began; `None` where it is settled elsewhere.
    pub since: Option<Timestamp>,
}

/// A file that is wanted and not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// SHA-256 of the file.
    pub hash: String,
    /// Whose fault it is.
    pub fault: Fault,
    /// Why.
    pub message: String,
}

/// What was found out about files before, by namespace and hash.
pub type Verdicts = BTreeMap<(String, String), (Fault, String)>;

impl Plan {
    /// What to try. `loaded` is what the last good set holds; `barred` what is not to be tried; of the suspects, at most
    /// one takes part, and only where nothing else is on trial.
    pub fn new(
        wanted: &Wanted,
        loaded: &BTreeMap<String, RulesText>,
        barred: &Verdicts,
        suspect: &dyn Fn(&str, &str) -> bool,
    ) -> Self {
        let mut plan = Self::default();
        let mut trial = Vec::new();
        for (namespace, file) in &wanted.files {
            let Some(target) = &file.target else { continue };
            let loaded = loaded.get(namespace);
            let verdict = |text: &RulesText| barred.get(&(namespace.clone(), text.hash.clone()));
            let hold = |text: &RulesText, (fault, message): &(Fault, String)| Held {
                hash: text.hash.clone(),
                fault: *fault,
                message: message.clone(),
            };
            let good = if file.since.is_some() { file.last_good.as_ref() } else { Some(target) };
            // What runs here already needs no trial, whatever it is called elsewhere.
            let runs = |text: &&RulesText| loaded.is_some_and(|loaded| loaded.hash == text.hash);
            let older = [good.filter(|good| file.since.is_some() || runs(good)), loaded];
            let older = older.into_iter().flatten().find(|text| verdict(text).is_none());
            if let Some(text) = older {
                plan.settled.insert(namespace.clone(), text.clone());
            }
            match verdict(target) {
                Some(verdict) => {
                    plan.held.insert(namespace.clone(), hold(target, verdict));
                }
                None if older.is_some_and(|older| older.hash == target.hash) => {}
                None => trial.push(Candidate { namespace: namespace.clone(), text: target.clone(), since: file.since }),
            }
        }
        // Settled files first: a node that joins has nothing to lose by them.
        trial.sort_by(|a, b| (a.since, &a.namespace).cmp(&(b.since, &b.namespace)));
        let suspected: Vec<bool> = trial.iter().map(|it| suspect(&it.namespace, &it.text.hash)).collect();
        let calm = suspected.iter().any(|suspected| !suspected);
        let mut first = true;
        let trial = trial.into_iter().zip(suspected).filter(|(_, suspected)| match (suspected, calm) {
            (false, _) => true,
            (true, true) => false,
            (true, false) => std::mem::take(&mut first),
        });
        let trial = trial.map(|(candidate, _)| candidate).collect();
        plan.name(trial);
        plan
    }

    /// Lets those candidates in whose rules' names are free; the others wait. A name that a candidate gives up is free
    /// for the ones after it.
    fn name(&mut self, trial: Vec<Candidate>) {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let taken = |owners: &BTreeMap<String, String>, namespace: &str, text: &RulesText| {
            let other = |rule: &&String| owners.get(*rule).is_some_and(|owner| owner != namespace);
            text.rules.keys().find(other).cloned()
        };
        let held = |text: &RulesText, rule: &str| Held {
            hash: text.hash.clone(),
            fault: Fault::NameTaken,
            message: format!("another rules file on this node already defines a rule named '{rule}'; this file waits"),
        };
        let settled = std::mem::take(&mut self.settled);
        for (namespace, text) in settled {
            if let Some(rule) = taken(&owners, &namespace, &text) {
                self.held.entry(namespace).or_insert_with(|| held(&text, &rule));
                continue;
            }
            owners.extend(text.rules.keys().map(|rule| (rule.clone(), namespace.clone())));
            self.settled.insert(namespace, text);
        }
        let mut waiting = trial;
        loop {
            let before = waiting.len();
            let mut still = Vec::new();
            for candidate in waiting {
                if taken(&owners, &candidate.namespace, &candidate.text).is_some() {
                    still.push(candidate);
                    continue;
                }
                owners.retain(|_, owner| *owner != candidate.namespace);
                owners.extend(candidate.text.rules.keys().map(|rule| (rule.clone(), candidate.namespace.clone())));
                self.candidates.push(candidate);
            }
            if still.len() == before || still.is_empty() {
                for candidate in still {
                    let rule = taken(&owners, &candidate.namespace, &candidate.text).unwrap_or_default();
                    self.held.insert(candidate.namespace, held(&candidate.text, &rule));
                }
                return;
            }
            waiting = still;
        }
    }

    /// The files of a set with the first `count` candidates.
    pub fn files(&self, count: usize) -> BTreeMap<String, RulesText> {
        let mut files = self.settled.clone();
        for candidate in self.candidates.iter().take(count) {
            files.insert(candidate.namespace.clone(), candidate.text.clone());
        }
        files
    }

    /// The files of a set with every candidate.
    pub fn all(&self) -> BTreeMap<String, RulesText> {
        self.files(self.candidates.len())
    }
}

/// Whether a namespace's name can be a file's.
pub fn is_file_name(namespace: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !namespace.is_empty() && namespace.len() <= 253 && !namespace.starts_with('.') && namespace.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::agent::WantedFile;

    fn text(hash: &str, rules: &[&str]) -> RulesText {
        let rules = rules.iter().map(|rule| ((*rule).to_owned(), format!("object-of-{rule}"))).collect();
        RulesText { hash: hash.into(), text: format!("# {hash}\n"), rules }
    }

    fn rollout(target: RulesText, last_good: Option<RulesText>, second: i64) -> WantedFile {
        WantedFile { target: Some(target), last_good, since: Timestamp::from_second(second).ok() }
    }

    fn settled(target: RulesText) -> WantedFile {
        WantedFile { target: Some(target), last_good: None, since: None }
    }

    fn wanted(files: Vec<(&str, WantedFile)>) -> Wanted {
        Wanted { files: files.into_iter().map(|(ns, file)| (ns.to_owned(), file)).collect(), synced: true }
    }

    fn plan(files: Vec<(&str, WantedFile)>, loaded: &[(&str, RulesText)], barred: &[(&str, &str)]) -> Plan {
        let loaded = loaded.iter().map(|(ns, text)| ((*ns).to_owned(), text.clone())).collect();
        let barred =
            barred.iter().map(|(ns, hash)| (((*ns).to_owned(), (*hash).to_owned()), (Fault::Refused, "no".to_owned())));
        Plan::new(&wanted(files), &loaded, &barred.collect(), &|_, hash| hash.starts_with('s'))
    }

    /// Rules that two of these files define.
    fn shared_names(files: &BTreeMap<String, RulesText>) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        files
            .values()
            .flat_map(|text| text.rules.keys())
            .map(String::as_str)
            .filter(|rule| !seen.insert(*rule))
            .collect()
    }

    fn hashes(files: &BTreeMap<String, RulesText>) -> Vec<(&str, &str)> {
        files.iter().map(|(ns, text)| (ns.as_str(), text.hash.as_str())).collect()
    }

    #[test]
    fn candidates_come_in_the_order_of_their_rollouts_then_by_name() {
        let found = plan(
            vec![
                ("a", rollout(text("a2", &[]), None, 30)),
                ("b", rollout(text("b2", &[]), Some(text("b1", &[])), 20)),
                ("c", rollout(text("c2", &[]), None, 20)),
                ("d", settled(text("d1", &[]))),
                ("e", settled(text("e1", &[]))),
            ],
            &[("b", text("b1", &[])), ("d", text("d1", &[]))],
            &[],
        );
        let order: Vec<_> = found.candidates.iter().map(|it| it.namespace.as_str()).collect();
        assert_eq!(order, ["e", "b", "c", "a"]);
        assert_eq!(hashes(&found.settled), [("b", "b1"), ("d", "d1")]);
        assert_eq!(hashes(&found.files(2)), [("b", "b2"), ("d", "d1"), ("e", "e1")]);
    }

    #[test]
    fn a_barred_file_is_held_at_the_last_good_one() {
        let files = || vec![("a", rollout(text("a2", &[]), Some(text("a1", &[])), 1)), ("b", settled(text("b2", &[])))];
        let found = plan(files(), &[("b", text("b0", &[]))], &[("a", "a2"), ("b", "b2")]);
        assert_eq!(hashes(&found.all()), [("a", "a1"), ("b", "b0")]);
        assert_eq!(found.held.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(found.candidates.is_empty());
        let found = plan(files(), &[], &[("a", "a2"), ("a", "a1"), ("b", "b2")]);
        assert!(found.all().is_empty());
        assert_eq!(found.held.get("a").map(|held| held.hash.as_str()), Some("a2"));
    }

    #[test]
    fn a_dropped_file_is_in_no_set() {
        let dropped = WantedFile { target: None, last_good: Some(text("a1", &[])), since: None };
        let found = plan(vec![("a", dropped)], &[("a", text("a1", &[])), ("gone", text("g", &[]))], &[]);
        assert!(found.all().is_empty() && found.held.is_empty());
    }

    #[test]
    fn of_the_suspects_one_at_a_time_is_tried_after_all_others() {
        let files = |more: bool| {
            let mut files = vec![("a", rollout(text("s1", &[]), None, 2)), ("b", rollout(text("s2", &[]), None, 1))];
            files.extend(more.then(|| ("c", rollout(text("c1", &[]), None, 3))));
            files
        };
        assert_eq!(hashes(&plan(files(true), &[], &[]).all()), [("c", "c1")]);
        assert_eq!(hashes(&plan(files(false), &[], &[]).all()), [("b", "s2")]);
        assert_eq!(hashes(&plan(files(false), &[("b", text("s2", &[]))], &[]).all()), [("a", "s1"), ("b", "s2")]);
    }

    #[test]
    fn of_two_files_that_define_one_name_the_later_waits() {
        let found = plan(
            vec![("a", rollout(text("a1", &["x"]), None, 2)), ("b", rollout(text("b1", &["x"]), None, 1))],
            &[],
            &[],
        );
        assert_eq!(hashes(&found.all()), [("b", "b1")]);
        let held = found.held.get("a").unwrap();
        assert_eq!((held.fault, held.hash.as_str()), (Fault::NameTaken, "a1"));
    }

    #[test]
    fn a_name_that_is_given_up_is_free_for_another_in_the_same_set() {
        let files = |second| {
            vec![
                ("a", rollout(text("a2", &["y"]), Some(text("a1", &["x"])), second)),
                ("b", rollout(text("b2", &["x"]), Some(text("b1", &[])), 5)),
            ]
        };
        let loaded = [("a", text("a1", &["x"])), ("b", text("b1", &[]))];
        for second in [1, 9] {
            let found = plan(files(second), &loaded, &[]);
            assert_eq!(hashes(&found.all()), [("a", "a2"), ("b", "b2")]);
            assert!(shared_names(&found.all()).is_empty());
        }
        // Where the first can't give it up, the other waits.
        let found = plan(files(1), &loaded, &[("a", "a2")]);
        assert_eq!(hashes(&found.all()), [("a", "a1"), ("b", "b1")]);
        assert_eq!(found.held.get("b").map(|held| held.fault), Some(Fault::NameTaken));
    }

    #[test]
    fn names_of_namespaces_are_names_of_files() {
        for name in ["default", "team-a", "a.b"] {
            assert!(is_file_name(name));
        }
        for name in ["", ".", "..", "a/b", "A", ".hidden", "a b"] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
