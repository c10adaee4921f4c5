//! What the API server wants of this node, and has settled: pure. The shell in [`super::watch`] feeds it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::{RulesText, Wanted, WantedFile};
use crate::api::{BundleFile, FalcoBundleSpec, RolloutKind};

/// How long the file of a namespace is kept whose bundle is gone without having been emptied.
pub const KEPT: Duration = Duration::from_secs(600);

/// A bundle, as far as it could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// The namespace.
    pub namespace: String,
    /// Its spec, or why it can't be read.
    pub spec: Result<FalcoBundleSpec, String>,
    /// UID of the namespace that owns it, where its metadata says so.
    pub owner_uid: Option<String>,
}

/// The settled file of a namespace, in the eyes of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// None.
    Nothing,
    /// The one with this hash.
    File(String),
    /// This agent can't know, so that what is loaded has to be said.
    Unknown,
}

/// What the report needs to know of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The settled file.
    pub settled: Settled,
    /// Hash of the file that is to be loaded here; `None` for none.
    pub target: Option<String>,
    /// What people should know about it.
    pub note: Option<String>,
}

/// What the report needs to know of all namespaces that have a bundle, or keep a file without.
pub type Expectations = BTreeMap<String, Expected>;

#[derive(Clone, Debug)]
struct Space {
    namespace_uid: Option<String>,
    settled: Settled,
    wanted: WantedFile,
    /// Whether the bundle asked for no file any more: only then may it go.
    emptied: bool,
    /// Until when the file is kept, where the bundle is gone.
    lost: Option<Timestamp>,
    note: Option<String>,
}

impl Space {
    fn on_disk(file: RulesText) -> Self {
        let wanted = WantedFile { target: Some(file), last_good: None, since: None };
        Self { namespace_uid: None, settled: Settled::Unknown, wanted, emptied: false, lost: None, note: None }
    }
}

/// Every bundle, as one node sees it.
#[derive(Debug)]
pub struct World {
    node: String,
    spaces: BTreeMap<String, Space>,
    listed: bool,
}

impl World {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(node: impl Into<String>) -> Self {
        Self { node: node.into(), spaces: BTreeMap::new(), listed: false }
    }

    /// Whether a list has been seen.
    #[must_use]
    pub const fn listed(&self) -> bool {
        self.listed
    }

    /// Takes in the files that were in force when this agent started. To be called before the first list: what that does
    /// not show any more is kept like any other file without a bundle.
    pub fn remember(&mut self, files: BTreeMap<String, RulesText>) {
        for (namespace, file) in files {
            self.spaces.entry(namespace).or_insert_with(|| Space::on_disk(file));
        }
    }

    /// Takes in all bundles that there are.
    pub fn list(&mut self, bundles: Vec<Bundle>, now: Timestamp) {
        self.listed = true;
        let there: BTreeSet<String> = bundles.iter().map(|bundle| bundle.namespace.clone()).collect();
        let gone: Vec<String> = self.spaces.keys().filter(|name| !there.contains(*name)).cloned().collect();
        for namespace in gone {
            self.delete(&namespace, now);
        }
        for bundle in bundles {
            self.apply(bundle);
        }
    }

    /// Takes in a bundle as it is now.
    pub fn apply(&mut self, bundle: Bundle) {
        let Bundle { namespace, spec, owner_uid } = bundle;
        let read = spec.and_then(|spec| {
            let (target, last_good) =
                (spec.target.as_ref(), spec.rollout.as_ref().and_then(|it| it.last_good.as_ref()));
            target.into_iter().chain(last_good).try_for_each(check)?;
            Ok(spec)
        });
        let namespace_uid = match &read {
            Ok(spec) => Some(spec.namespace_uid.clone()),
            Err(_) => owner_uid,
        };
        // Another namespace of that name inherits nothing.
        let before = self.spaces.remove(&namespace).filter(|before| {
            let (Some(old), Some(new)) = (&before.namespace_uid, &namespace_uid) else { return true };
            old == new
        });
        let space = match read {
            Ok(spec) => self.understood(&namespace, &spec, before),
            Err(why) => {
                tracing::warn!(%namespace, why, "a FalcoBundle can't be read; the namespace's last file stays");
                let wanted =
                    before.map_or_else(|| WantedFile { target: None, last_good: None, since: None }, |it| it.wanted);
                Space {
                    namespace_uid,
                    settled: Settled::Unknown,
                    wanted,
                    emptied: false,
                    lost: None,
                    note: Some(format!("the FalcoBundle can't be read, so the last file stays: {why}")),
                }
            }
        };
        self.spaces.insert(namespace, space);
    }

    fn understood(&self, namespace: &str, spec: &FalcoBundleSpec, before: Option<Space>) -> Space {
        let last_good = spec.rollout.as_ref().and_then(|rollout| rollout.last_good.as_ref());
        let target = spec.wanted(namespace, &self.node);
        let fresh = || WantedFile {
            target: target.map(text),
            last_good: last_good.map(text),
            since: spec
                .rollout
                .as_ref()
                .filter(|_| target.map(|file| &file.hash) != last_good.map(|file| &file.hash))
                .map(|rollout| rollout.started_at.0),
        };
        let unknown = spec.rollout.as_ref().is_some_and(|rollout| rollout.kind == RolloutKind::Unknown);
        let (wanted, note) = match before {
            Some(before) if unknown => {
                let note = "the FalcoBundle was written by a newer version for something that this agent does not know, so the last file stays";
                (before.wanted, Some(note.to_owned()))
            }
            _ => (fresh(), None),
        };
        Space {
            namespace_uid: Some(spec.namespace_uid.clone()),
            settled: spec.settled().map_or(Settled::Nothing, |file| Settled::File(file.hash.clone())),
            wanted,
            emptied: spec.target.is_none() && !unknown,
            lost: None,
            note,
        }
    }

    /// Takes in that a bundle is gone. If it had been emptied, so is its file; else that is none of the controller's
    /// doing, and the file is kept for [`KEPT`], in which the bundle may be written again.
    pub fn delete(&mut self, namespace: &str, now: Timestamp) {
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        if space.emptied || space.wanted.target.is_none() {
            self.spaces.remove(namespace);
        } else if space.lost.is_none() {
            let until = later(now, KEPT);
            space.lost = Some(until);
            space.settled = Settled::Nothing;
            space.note = Some(format!(
                "the FalcoBundle is gone without having been emptied; the file is kept until {}",
                until.round(k8s_openapi::jiff::Unit::Second).unwrap_or(until)
            ));
            tracing::warn!(namespace, kept_until = %until, "a FalcoBundle is gone without having been emptied; its file is kept for now");
        }
    }

    /// Drops files that were kept long enough; whether there was one.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.spaces.len();
        self.spaces.retain(|namespace, space| {
            let over = space.lost.is_some_and(|until| until <= now);
            if over {
                tracing::warn!(namespace, "a file is dropped whose FalcoBundle did not come back");
            }
            !over
        });
        self.spaces.len() != before
    }

    /// When to call [`World::expire`] next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.spaces.values().filter_map(|space| space.lost).min()
    }

    /// How many files are kept without a bundle.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.spaces.values().filter(|space| space.lost.is_some()).count()
    }

    /// What this node is to load. Before the first list that is not known.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        if !self.listed {
            return Wanted::default();
        }
        let files = self.spaces.iter().map(|(namespace, space)| (namespace.clone(), space.wanted.clone())).collect();
        Wanted { files, synced: true }
    }

    /// What the report is held against.
    #[must_use]
    pub fn expectations(&self) -> Expectations {
        let expected = |space: &Space| Expected {
            settled: space.settled.clone(),
            target: space.wanted.target.as_ref().map(|file| file.hash.clone()),
            note: space.note.clone(),
        };
        self.spaces.iter().map(|(namespace, space)| (namespace.clone(), expected(space))).collect()
    }
}

/// A file is the one that its hash says, and can lie under the namespace's name.
fn check(file: &BundleFile) -> Result<(), String> {
    let found = hex::encode(Sha256::digest(file.text().as_bytes()));
    if found == file.hash { Ok(()) } else { Err(format!("its file says it is {}, but is {found}", file.hash)) }
}

fn text(file: &BundleFile) -> RulesText {
    RulesText {
        hash: file.hash.clone(),
        text: file.text(),
        rules: file.items.iter().map(|item| (item.rule_name.clone(), item.name.clone())).collect(),
    }
}

fn later(at: Timestamp, after: Duration) -> Timestamp {
    SignedDuration::try_from(after).ok().and_then(|after| at.checked_add(after).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BundleItem, Rollout};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn file(text: &str) -> BundleFile {
        let item = BundleItem {
            name: text.into(),
            generation: 1,
            rule_name: format!("rule {text}"),
            text: format!("- rule: {text}\n"),
        };
        BundleFile::new(vec![item])
    }

    fn spec(target: Option<&str>) -> FalcoBundleSpec {
        FalcoBundleSpec { namespace_uid: "u1".into(), target: target.map(file), ..FalcoBundleSpec::default() }
    }

    fn rollout(kind: RolloutKind, last_good: Option<&str>) -> Rollout {
        Rollout {
            kind,
            last_good: last_good.map(file),
            started_at: MicroTime(at(7)),
            canaries: vec!["n1".into()],
            threshold: None,
        }
    }

    fn bundle(namespace: &str, spec: FalcoBundleSpec) -> Bundle {
        Bundle { namespace: namespace.into(), owner_uid: Some(spec.namespace_uid.clone()), spec: Ok(spec) }
    }

    fn odd(namespace: &str, uid: &str) -> Bundle {
        Bundle { namespace: namespace.into(), spec: Err("a number".into()), owner_uid: Some(uid.into()) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Whether no file of a namespace is to be loaded.
    fn drops(world: &World, namespace: &str) -> bool {
        world.wanted().files.get(namespace).is_none_or(|wanted| wanted.target.is_none())
    }

    fn loads(world: &World, namespace: &str, name: &str) -> bool {
        let wanted = world.wanted();
        let target = wanted.files.get(namespace).and_then(|wanted| wanted.target.as_ref());
        target.is_some_and(|target| target.text == format!("- rule: {name}\n"))
    }

    #[test]
    fn nothing_is_wanted_before_the_first_list() {
        let mut world = World::new("n1");
        world.remember(BTreeMap::from([("a".to_owned(), text(&file("old")))]));
        world.apply(bundle("b", spec(Some("one"))));
        assert_eq!(world.wanted(), Wanted::default());
        assert!(!world.wanted().synced);
        world.list(vec![bundle("b", spec(Some("one")))], at(0));
        assert!(world.wanted().synced);
        assert!(loads(&world, "b", "one") && loads(&world, "a", "old"));
    }

    #[test]
    fn a_node_of_the_wave_loads_the_target_and_the_others_keep_the_last_good_file() {
        let mut spec = spec(Some("new"));
        spec.rollout = Some(rollout(RolloutKind::Rollout, Some("old")));
        for (node, name) in [("n1", "new"), ("n2", "old")] {
            let mut world = World::new(node);
            world.list(vec![bundle("a", spec.clone())], at(0));
            assert!(loads(&world, "a", name));
            let wanted = world.wanted().files["a"].clone();
            assert!(wanted.last_good.as_ref().unwrap().rules.keys().eq(["rule old"]));
            assert_eq!(wanted.since, (name == "new").then(|| at(7)), "only a candidate has its place in the order");
            assert_eq!(world.expectations()["a"].settled, Settled::File(file("old").hash));
        }
    }

    #[test]
    fn a_bundle_that_was_emptied_may_go_and_takes_its_file_along() {
        let mut world = World::new("n1");
        let mut emptied = spec(None);
        emptied.rollout = Some(rollout(RolloutKind::Withdrawal, Some("old")));
        world.list(vec![bundle("a", emptied)], at(0));
        assert!(drops(&world, "a"));
        assert_eq!(world.expectations()["a"].settled, Settled::File(file("old").hash));
        world.delete("a", at(1));
        assert!(drops(&world, "a"));
        assert!(world.expectations().is_empty() && world.next_expiry().is_none());
    }

    #[test]
    fn a_bundle_that_is_gone_without_is_a_lost_world_for_ten_minutes() {
        let mut world = World::new("n1");
        world.list(vec![bundle("a", spec(Some("one"))), bundle("b", spec(Some("two")))], at(0));
        world.delete("a", at(10));
        world.list(vec![], at(20));
        assert!(loads(&world, "a", "one") && loads(&world, "b", "two"));
        assert_eq!(world.kept(), 2);
        assert_eq!(world.expectations()["a"].settled, Settled::Nothing);
        let note = world.expectations()["a"].note.clone().unwrap();
        assert!(note.contains("kept until 1970-01-01T00:10:10Z"), "{note}");
        assert_eq!(world.next_expiry(), Some(at(610)), "the second time that it is found missing changes nothing");
        world.apply(bundle("b", spec(Some("two"))));
        assert_eq!((world.kept(), world.expectations()["b"].note.clone()), (1, None));
        assert!(!world.expire(at(609)) && loads(&world, "a", "one"));
        assert!(world.expire(at(610)));
        assert!(drops(&world, "a"));
        assert!(loads(&world, "b", "two") && world.next_expiry().is_none());
    }

    #[test]
    fn a_file_from_before_the_start_without_a_bundle_is_kept_too() {
        let mut world = World::new("n1");
        world.remember(BTreeMap::from([("a".to_owned(), text(&file("old"))), ("b".to_owned(), text(&file("old")))]));
        world.list(vec![bundle("b", spec(None))], at(0));
        assert!(loads(&world, "a", "old"));
        assert!(drops(&world, "b"), "a bundle says more than the disk");
        assert!(world.expire(at(600)));
        assert!(drops(&world, "a"));
    }

    #[test]
    fn an_odd_bundle_keeps_its_last_file_and_no_other_is_held_back() {
        let mut world = World::new("n1");
        world.list(vec![bundle("a", spec(Some("one"))), odd("c", "u1")], at(0));
        world.apply(odd("a", "u1"));
        world.apply(bundle("b", spec(Some("two"))));
        assert!(loads(&world, "a", "one") && loads(&world, "b", "two"));
        assert_eq!(world.expectations()["a"].settled, Settled::Unknown);
        assert!(world.expectations()["a"].note.as_ref().unwrap().contains("a number"));
        assert!(drops(&world, "c"));
        world.apply(odd("a", "u2"));
        assert!(drops(&world, "a"), "it is another namespace's");
        world.apply(bundle("a", spec(Some("three"))));
        assert!(loads(&world, "a", "three") && world.expectations()["a"].note.is_none());
    }

    #[test]
    fn a_file_that_is_not_what_its_hash_says_is_odd() {
        let mut world = World::new("n1");
        world.list(vec![bundle("a", spec(Some("one")))], at(0));
        let mut forged = spec(Some("two"));
        forged.target.as_mut().unwrap().items[0].text.push_str("# more\n");
        world.apply(bundle("a", forged));
        assert!(loads(&world, "a", "one"));
    }

    #[test]
    fn a_kind_of_rollout_that_is_not_known_changes_nothing() {
        let mut world = World::new("n1");
        let mut newer = spec(Some("new"));
        newer.rollout = Some(rollout(RolloutKind::Unknown, Some("good")));
        world.list(vec![bundle("a", spec(Some("one"))), bundle("b", newer.clone())], at(0));
        world.apply(bundle("a", newer.clone()));
        assert!(loads(&world, "a", "one"), "what it loads stays");
        assert!(loads(&world, "b", "good"), "without anything to keep it is the last good file");
        assert_eq!(world.expectations()["a"].settled, Settled::File(file("good").hash));
        newer.target = None;
        world.apply(bundle("a", newer));
        world.delete("a", at(0));
        assert!(loads(&world, "a", "one"), "nothing says that it was emptied");
    }

    #[test]
    fn a_namespace_with_another_uid_inherits_nothing() {
        let mut world = World::new("n1");
        world.list(vec![bundle("a", spec(Some("one")))], at(0));
        let mut other = spec(Some("two"));
        other.namespace_uid = "u2".into();
        other.rollout = Some(rollout(RolloutKind::Unknown, None));
        world.apply(bundle("a", other));
        assert!(drops(&world, "a"));
    }
}
