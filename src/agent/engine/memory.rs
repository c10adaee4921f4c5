//! What must outlive the agent: which files were tried in vain, and what is being tried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent::{RulesText, Wanted};

/// A file of a namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tried {
    /// The namespace.
    pub namespace: String,
    /// SHA-256 of the file.
    pub hash: String,
}

/// What is remembered, as it lies on disk.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Memory {
    /// Files that Falco could not be brought to run, and why: they are not tried again.
    pub refused: Vec<Refusal>,
    /// Files that were in a set which failed together with others, or while the agent was killed: each is tried alone.
    pub suspects: Vec<Suspect>,
    /// What was being brought into force; present only while that is so.
    pub attempt: Option<Attempt>,
    /// What came into force a moment ago.
    pub probation: Option<Probation>,
}

/// A file that is not tried again.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    #[serde(flatten)]
    pub file: Tried,
    /// What happened.
    pub message: String,
}

/// A file that is tried alone.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The file.
    #[serde(flatten)]
    pub file: Tried,
    /// How often the agent ended while it was being tried.
    pub interrupted: u32,
}

/// A set on its way into force.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What it brings that the last good one did not have.
    pub files: Vec<Tried>,
}

/// A set that Falco confirmed so recently that its death would be blamed on it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Probation {
    /// The set before it.
    pub previous: String,
    /// What it brought.
    pub files: Vec<Tried>,
    /// When it is over, in seconds since 1970.
    pub until: u64,
    /// Whether somebody else has killed Falco since: once is no reason to take anything back.
    #[serde(default)]
    pub killed: bool,
    /// The one before, of files that these have replaced: in force again if these are taken back.
    #[serde(default)]
    pub before: Option<Box<Probation>>,
}

impl Memory {
    /// Whether a file is to be tried alone.
    pub fn suspects(&self, namespace: &str, hash: &str) -> bool {
        self.suspects.iter().any(|it| it.file.namespace == namespace && it.file.hash == hash)
    }

    /// Falco failed with these files. One alone is the culprit; of several each becomes a suspect.
    pub fn failed(&mut self, files: &[Tried], message: &str) {
        if let [one] = files {
            self.suspects.retain(|it| it.file != *one);
            self.refused.retain(|it| it.file != *one);
            self.refused.push(Refusal { file: one.clone(), message: message.to_owned() });
            return;
        }
        for file in files {
            if !self.suspects(&file.namespace, &file.hash) {
                self.suspects.push(Suspect { file: file.clone(), interrupted: 0 });
            }
        }
    }

    /// The agent ended during an attempt, or somebody killed Falco. Whose fault that was is unknown: one more try, alone,
    /// and then never again.
    pub fn interrupted(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        let alone = attempt.files.len() == 1;
        for file in attempt.files {
            let mut times = 1;
            match self.suspects.iter_mut().find(|it| it.file == file) {
                Some(suspect) => {
                    suspect.interrupted += 1;
                    times = suspect.interrupted;
                }
                None => self.suspects.push(Suspect { file: file.clone(), interrupted: 1 }),
            }
            if alone && times > 1 {
                self.failed(&[file], "Falco was killed or its agent ended, twice, while Falco loaded this file alone");
            }
        }
    }

    /// Falco runs with these files.
    pub fn confirmed(&mut self, files: &BTreeMap<String, RulesText>) {
        self.attempt = None;
        let runs = |file: &Tried| files.get(&file.namespace).is_some_and(|it| it.hash == file.hash);
        self.suspects.retain(|it| !runs(&it.file));
    }

    /// Forgets files that nobody wants any more, so that one that is wanted again later is tried again.
    pub fn forget(&mut self, wanted: &Wanted) {
        let still = |file: &Tried| {
            let target = wanted.files.get(&file.namespace).and_then(|it| it.target.as_ref());
            target.is_some_and(|target| target.hash == file.hash)
        };
        self.refused.retain(|it| still(&it.file));
        self.suspects.retain(|it| still(&it.file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::WantedFile;

    fn file(namespace: &str) -> Tried {
        Tried { namespace: namespace.into(), hash: "h".into() }
    }

    fn refusal<'a>(memory: &'a Memory, namespace: &str) -> Option<&'a str> {
        memory.refused.iter().find(|it| it.file == file(namespace)).map(|it| it.message.as_str())
    }

    fn attempt(memory: &mut Memory, namespaces: &[&str]) {
        memory.attempt = Some(Attempt { files: namespaces.iter().map(|it| file(it)).collect() });
    }

    #[test]
    fn one_file_alone_is_the_culprit_and_several_are_suspects() {
        let mut memory = Memory::default();
        memory.failed(&[file("a"), file("b")], "died");
        assert!(memory.suspects("a", "h") && memory.suspects("b", "h"));
        assert_eq!(refusal(&memory, "a"), None);
        memory.failed(&[file("a")], "died");
        assert_eq!(refusal(&memory, "a"), Some("died"));
        assert!(!memory.suspects("a", "h"));
        memory.failed(&[], "died");
        assert_eq!((memory.refused.len(), memory.suspects.len()), (1, 1));
    }

    #[test]
    fn a_killed_agent_is_one_more_try_alone_and_no_third() {
        let mut memory = Memory::default();
        attempt(&mut memory, &["a", "b"]);
        memory.interrupted();
        assert!(memory.suspects("a", "h") && memory.suspects("b", "h"));
        attempt(&mut memory, &["a"]);
        memory.interrupted();
        assert!(refusal(&memory, "a").is_some());
        assert_eq!((refusal(&memory, "b"), memory.attempt.clone()), (None, None));
        attempt(&mut memory, &["c"]);
        memory.interrupted();
        assert!(memory.suspects("c", "h"));
        memory.interrupted();
        assert!(memory.suspects("c", "h"), "nothing was under way");
    }

    #[test]
    fn what_is_wanted_no_more_is_tried_again_when_it_is() {
        let mut memory = Memory::default();
        memory.failed(&[file("a")], "died");
        memory.failed(&[file("b")], "died");
        let text = RulesText { hash: "h".into(), text: String::new(), rules: BTreeMap::new() };
        let wanted = WantedFile { target: Some(text), last_good: None, since: None };
        memory.forget(&Wanted { files: [("a".to_owned(), wanted)].into(), synced: true });
        assert!(refusal(&memory, "a").is_some());
        assert!(refusal(&memory, "b").is_none());
    }

    #[test]
    fn it_reads_back_from_disk_even_when_parts_are_missing() {
        let mut memory = Memory::default();
        memory.failed(&[file("a"), file("b")], "died");
        attempt(&mut memory, &["a"]);
        let text = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), memory);
        assert_eq!(serde_json::from_str::<Memory>("{}").unwrap(), Memory::default());
    }
}
