//! Sets on disk: written whole, put into force by the rename of a symlink.
//!
//! ```text
//! .sets/<id>/{falco.yaml,check.yaml,rules/<namespace>.yaml,set.json}
//! current -> .sets/<id>        the set in force
//! good    -> .sets/<id>        the last set that Falco confirmed
//! rules -> current/rules       falco.yaml -> current/falco.yaml
//! .reload/                     where a new name tells Falco to load again
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{Addition, Base, Composed, Owner};
use crate::agent::RulesText;

/// Part of a set's id: sets written by another version are other sets.
const FORMAT: &str = "2";
const SETS: &str = ".sets";
const CURRENT: &str = "current";
const GOOD: &str = "good";
/// Links that are made before a swap, so that everything after it is a rename, which a full disk allows.
const NEXT: &str = ".next";
const NEXT_GOOD: &str = ".next-good";
const BACK: &str = ".back";
const RELOAD: &str = ".reload";
const MANIFEST: &str = "set.json";

/// The folder of the agent.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// That this agent, and no other, works in the folder. Gone with the process.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why the folder isn't ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent works there.
    #[error("another agent works in {}: it must end first", .0.display())]
    Taken(PathBuf),
    /// It can't be used.
    #[error("cannot use {path}: {error}", path = path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// How sets are made of files.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many rules files Falco is given one by one.
    pub most_files: usize,
    /// Whether falco.yaml makes each alert say whose rule it comes from.
    pub alert_owners: bool,
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Hash of its inputs.
    pub id: String,
    /// The rules files by namespace.
    pub files: BTreeMap<String, RulesText>,
    /// Base name and SHA-256 of each rules file that Falco reads of it.
    pub rules_hashes: Vec<(String, String)>,
    /// The same of its configuration files.
    pub config_hashes: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, ManifestFile>,
    rules_hashes: Vec<(String, String)>,
    config_hashes: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct ManifestFile {
    hash: String,
    rules: BTreeMap<String, String>,
}

impl Store {
    /// The folder, which need not be there yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Makes the folder and takes it for this process.
    pub fn lock(&self) -> Result<Lock, LockError> {
        let failed = |error| LockError::Io { path: self.root.clone(), error };
        fs::create_dir_all(&self.root).map_err(failed)?;
        let path = self.root.join(".lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        // A folder that can only be read still has a last good set to start Falco on.
        let file = file.or_else(|error| File::open(&path).map_err(|_| error)).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(LockError::Taken(self.root.clone())),
            Err((_, error)) => Err(failed(error.into())),
        }
    }

    /// A path within the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The falco.yaml that Falco is started with.
    pub fn config(&self) -> PathBuf {
        self.path("falco.yaml")
    }

    /// The configuration of a set for a check, whose paths lie within the set.
    pub fn check_config(&self, id: &str) -> PathBuf {
        self.set(id).join("check.yaml")
    }

    /// A namespace's rules file within a set.
    pub fn rules_file(&self, id: &str, namespace: &str) -> PathBuf {
        self.set(id).join("rules").join(format!("{namespace}.yaml"))
    }

    fn set(&self, id: &str) -> PathBuf {
        self.root.join(SETS).join(id)
    }

    /// The id of the set in force.
    pub fn current(&self) -> Option<String> {
        self.target(CURRENT)
    }

    /// The id of the last set that was confirmed.
    pub fn good(&self) -> Option<String> {
        self.target(GOOD)
    }

    fn target(&self, link: &str) -> Option<String> {
        let target = fs::read_link(self.path(link)).ok()?;
        let id = target.file_name()?.to_str()?.to_owned();
        self.set(&id).join(MANIFEST).is_file().then_some(id)
    }

    /// Reads a set; `None` if it isn't there, or its files aren't those that were written.
    pub fn read(&self, id: &str) -> Option<Set> {
        let manifest: Manifest = serde_json::from_slice(&fs::read(self.set(id).join(MANIFEST)).ok()?).ok()?;
        let mut files = BTreeMap::new();
        for (namespace, file) in manifest.files {
            let text = fs::read_to_string(self.rules_file(id, &namespace)).ok()?;
            if sha256(text.as_bytes()) != file.hash {
                return None;
            }
            files.insert(namespace, RulesText { hash: file.hash, text, rules: file.rules });
        }
        let Manifest { rules_hashes, config_hashes, .. } = manifest;
        Some(Set { id: id.to_owned(), files, rules_hashes, config_hashes })
    }

    /// Writes a set, or finds it already written. Nothing outside of it changes.
    ///
    /// A file that the set in force has alike is linked, not written: with many namespaces that is what takes time.
    pub fn write(&self, base: &Base, files: &BTreeMap<String, RulesText>, shape: Shape) -> io::Result<Set> {
        let together = files.len() > shape.most_files;
        let id = id(&self.root, base, files, together, shape.alert_owners);
        let owners: Vec<Owner<'_>> = files.iter().filter(|_| shape.alert_owners).flat_map(owners).collect();
        let folder = self.set(&id);
        fs::create_dir_all(self.path(RELOAD))?;
        if let Some(set) = self.read(&id) {
            return Ok(set);
        }
        let clone = |rules: &Path, combined: &Path, include: &Path| {
            let paths: Vec<String> = if together {
                vec![combined.display().to_string()]
            } else {
                files.keys().map(|namespace| rules.join(format!("{namespace}.yaml")).display().to_string()).collect()
            };
            let trigger = self.path(RELOAD).display().to_string();
            let include = include.display().to_string();
            base.clone_with(&Addition { id: &id, files: &paths, trigger: &trigger, include: &include, owners: &owners })
                .map_err(io::Error::other)
        };
        let live = self.path(CURRENT);
        let main = clone(&self.path("rules"), &live.join("combined.yaml"), &live.join("include.yaml"))?;
        let check = clone(&folder.join("rules"), &folder.join("combined.yaml"), &folder.join("check-include.yaml"))?;

        let draft = self.root.join(SETS).join(format!(".draft-{id}"));
        remove(&draft)?;
        fs::create_dir_all(draft.join("rules"))?;
        let put = |name: &str, text: &str| {
            write_synced(&draft.join(name), text.as_bytes()).map(|()| (name_only(name), sha256(text.as_bytes())))
        };
        let mut set = Set {
            id: id.clone(),
            files: files.clone(),
            rules_hashes: Vec::new(),
            config_hashes: put_clone(&main, &put, "falco.yaml", "include.yaml")?,
        };
        put_clone(&check, &put, "check.yaml", "check-include.yaml")?;
        let current = self.current().and_then(|id| self.read(&id));
        for (namespace, file) in files {
            let name = format!("rules/{namespace}.yaml");
            let alike = current.as_ref().filter(|set| set.files.get(namespace).is_some_and(|it| it.hash == file.hash));
            let linked =
                alike.is_some_and(|set| fs::hard_link(self.rules_file(&set.id, namespace), draft.join(&name)).is_ok());
            if linked {
                set.rules_hashes.push((name_only(&name), file.hash.clone()));
            } else {
                set.rules_hashes.push(put(&name, &file.text)?);
            }
        }
        if together {
            set.rules_hashes = vec![put("combined.yaml", &combined(files))?];
        }
        let manifest = Manifest {
            files: files
                .iter()
                .map(|(namespace, file)| {
                    (namespace.clone(), ManifestFile { hash: file.hash.clone(), rules: file.rules.clone() })
                })
                .collect(),
            rules_hashes: set.rules_hashes.clone(),
            config_hashes: set.config_hashes.clone(),
        };
        put(MANIFEST, &serde_json::to_string(&manifest)?)?;
        sync(&draft.join("rules"))?;
        sync(&draft)?;
        if folder.exists() {
            // Somebody has changed it. Falco may be watching it, for which a removal would be an event.
            let aside = self.root.join(SETS).join(format!(".broken-{id}"));
            remove(&aside)?;
            fs::rename(&folder, &aside)?;
        }
        fs::rename(&draft, &folder)?;
        sync(&self.root.join(SETS))?;
        Ok(set)
    }

    /// Makes the links that a swap to `id`, its confirmation and the way back need.
    pub fn stage(&self, id: &str) -> io::Result<()> {
        self.link(&format!("{CURRENT}/rules"), "rules")?;
        self.link(&format!("{CURRENT}/falco.yaml"), "falco.yaml")?;
        let back = self.good().or_else(|| self.current());
        let ways = [(NEXT, Some(id)), (NEXT_GOOD, Some(id)), (BACK, back.as_deref())];
        for (link, target) in ways {
            remove(&self.path(link))?;
            if let Some(target) = target {
                symlink(Path::new(SETS).join(target), self.path(link))?;
            }
        }
        sync(&self.root)
    }

    /// A fixed link, made where it isn't what it should be.
    fn link(&self, target: &str, name: &str) -> io::Result<()> {
        let path = self.path(name);
        if fs::read_link(&path).is_ok_and(|found| found == Path::new(target)) {
            return Ok(());
        }
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)?;
        }
        let draft = self.path(&format!(".link-{name}"));
        remove(&draft)?;
        symlink(target, &draft)?;
        fs::rename(&draft, &path)
    }

    /// Puts the staged set into force: one rename.
    pub fn swap(&self) -> io::Result<()> {
        fs::rename(self.path(NEXT), self.path(CURRENT))?;
        sync(&self.root)
    }

    /// Notes that the set in force was confirmed: one rename.
    pub fn keep(&self) -> io::Result<()> {
        fs::rename(self.path(NEXT_GOOD), self.path(GOOD))?;
        sync(&self.root)
    }

    /// Puts the last good set back into force: one rename, of a link made beforehand where there is one.
    pub fn swap_back(&self) -> io::Result<()> {
        let Some(good) = self.good() else { return Ok(()) };
        let back = self.path(BACK);
        if self.target(BACK).as_deref() != Some(good.as_str()) {
            remove(&back)?;
            symlink(Path::new(SETS).join(&good), &back)?;
        }
        fs::rename(&back, self.path(CURRENT))?;
        sync(&self.root)
    }

    /// Puts an older set back into force and takes it for good.
    pub fn return_to(&self, id: &str) -> io::Result<()> {
        self.stage(id)?;
        self.swap()?;
        self.keep()
    }

    /// Removes every set but those named.
    pub fn collect(&self, keep: &[&str]) -> io::Result<usize> {
        let mut gone = 0;
        for entry in fs::read_dir(self.root.join(SETS))? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| keep.contains(&name)) {
                remove(&entry.path())?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Tells Falco to load again: a name in the watched folder changes, which needs no space.
    pub fn trigger(&self) -> io::Result<()> {
        let folder = self.path(RELOAD);
        let last = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).find(|path| path.is_file());
        let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let next: u64 = last.as_ref().and_then(name).map_or(0, |last: u64| last.wrapping_add(1));
        let next = folder.join(next.to_string());
        match last {
            Some(last) => fs::rename(last, next),
            None => File::create(next).map(drop),
        }
    }

    /// Makes the file whose name [`Self::trigger`] changes, before Falco watches.
    pub fn prepare_trigger(&self) -> io::Result<()> {
        let folder = self.path(RELOAD);
        fs::create_dir_all(&folder)?;
        if fs::read_dir(&folder)?.next().is_none() { self.trigger() } else { Ok(()) }
    }

    /// Replaces a small file of state as a whole.
    pub fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.path(&format!("{name}.draft"));
        write_synced(&draft, bytes)?;
        fs::rename(&draft, self.path(name))?;
        sync(&self.root)
    }
}

/// Writes a file of a set; its base name and SHA-256.
type Put<'a> = dyn Fn(&str, &str) -> io::Result<(String, String)> + 'a;

fn put_clone(clone: &Composed, put: &Put<'_>, main: &str, include: &str) -> io::Result<Vec<(String, String)>> {
    let mut hashes = vec![put(main, &clone.main)?];
    if let Some(text) = &clone.include {
        hashes.push(put(include, text)?);
    }
    Ok(hashes)
}

/// Whose each rule of a file is, as far as that is known.
fn owners<'a>((namespace, file): (&'a String, &'a RulesText)) -> impl Iterator<Item = Owner<'a>> {
    let known = file.rules.iter().filter(|(_, object)| !object.is_empty());
    known.map(|(rule, object)| Owner { rule, namespace, object })
}

/// The hash of everything that decides what a set holds.
fn id(root: &Path, base: &Base, files: &BTreeMap<String, RulesText>, together: bool, alert_owners: bool) -> String {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(FORMAT.as_bytes());
    add(root.as_os_str().as_encoded_bytes());
    add(&[u8::from(together), u8::from(alert_owners)]);
    for input in base.inputs() {
        add(input.as_bytes());
    }
    for (namespace, file) in files {
        add(namespace.as_bytes());
        add(file.hash.as_bytes());
        // Whose a rule is may change without a change of the text: an object of another name takes its place.
        for (rule, object) in &file.rules {
            add(rule.as_bytes());
            add(object.as_bytes());
        }
    }
    let mut id = hex::encode(digest.finalize());
    // Enough to tell sets apart, and short enough to be read aloud.
    id.truncate(32);
    id
}

/// All files as one; each is a block sequence at the margin, or an empty list.
fn combined(files: &BTreeMap<String, RulesText>) -> String {
    let mut text = String::new();
    for file in files.values().filter(|file| file.text.trim() != "[]") {
        text.push_str(&file.text);
        if !file.text.ends_with('\n') {
            text.push('\n');
        }
    }
    if text.is_empty() { "[]\n".to_owned() } else { text }
}

fn name_only(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file, link or folder; none is fine.
fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("falco.yaml"), "rules_files: [/nowhere.yaml]\n").unwrap();
            let store = Store::new(&folder.path().join("state"));
            Self { folder, store }
        }

        fn write(&self, files: &[(&str, &str)], most: usize) -> Set {
            let base = Base::read(&self.folder.path().join("falco.yaml"), &[]).unwrap();
            let rules = BTreeMap::from([("r".to_owned(), "object".to_owned())]);
            let text =
                |text: &str| RulesText { hash: sha256(text.as_bytes()), text: text.into(), rules: rules.clone() };
            let files = files.iter().map(|(ns, it)| ((*ns).to_owned(), text(it))).collect();
            self.store.write(&base, &files, Shape { most_files: most, alert_owners: true }).unwrap()
        }
    }

    #[test]
    fn a_set_reads_back_as_it_was_written_and_a_changed_one_does_not() {
        let place = Place::new();
        let _lock = place.store.lock().unwrap();
        let set = place.write(&[("a", "- rule: r\n"), ("b", "[]\n")], 64);
        assert_eq!(place.store.read(&set.id).as_ref(), Some(&set));
        assert_eq!(place.write(&[("a", "- rule: r\n"), ("b", "[]\n")], 64).id, set.id);
        fs::write(place.store.rules_file(&set.id, "a"), "- rule: other\n").unwrap();
        assert_eq!(place.store.read(&set.id), None);
    }

    #[test]
    fn the_paths_of_a_set_lead_through_the_link_and_those_for_the_check_do_not() {
        let place = Place::new();
        let set = place.write(&[("a", "[]\n")], 64);
        let root = place.folder.path().join("state");
        let main = fs::read_to_string(root.join(format!(".sets/{}/falco.yaml", set.id))).unwrap();
        let check = fs::read_to_string(place.store.check_config(&set.id)).unwrap();
        assert!(main.contains(&format!("- {}/rules/a.yaml\n", root.display())), "{main}");
        assert!(check.contains(&format!("- {}/.sets/{}/rules/a.yaml\n", root.display(), set.id)), "{check}");
        assert!(main.contains(&set.id));
    }

    #[test]
    fn a_rule_that_becomes_another_objects_is_another_set() {
        let place = Place::new();
        let base = Base::read(&place.folder.path().join("falco.yaml"), &[]).unwrap();
        let id = |object: &str, alert_owners| {
            let rules = BTreeMap::from([("r".to_owned(), object.to_owned())]);
            let file = RulesText { hash: sha256(b"- rule: r\n"), text: "- rule: r\n".into(), rules };
            let shape = Shape { most_files: 64, alert_owners };
            let set = place.store.write(&base, &BTreeMap::from([("a".to_owned(), file.clone())]), shape).unwrap();
            assert_eq!(set.files["a"], file);
            set.id
        };
        assert_eq!(id("one", true), id("one", true));
        assert_ne!(id("one", true), id("two", true));
        assert_ne!(id("one", true), id("one", false));
    }

    #[test]
    fn many_files_become_one_for_falco_and_stay_apart_for_people() {
        let place = Place::new();
        let set = place.write(&[("a", "- rule: r\n"), ("b", "[]\n"), ("c", "- rule: s")], 2);
        assert_eq!(set.rules_hashes, [("combined.yaml".to_owned(), sha256(b"- rule: r\n- rule: s\n"))]);
        assert!(place.store.rules_file(&set.id, "c").is_file());
        assert_ne!(set.id, place.write(&[("a", "- rule: r\n"), ("b", "[]\n"), ("c", "- rule: s")], 3).id);
    }

    #[test]
    fn a_swap_can_be_taken_back_or_kept() {
        let place = Place::new();
        let (one, two) = (place.write(&[("a", "[]\n")], 64), place.write(&[("a", "[]\n"), ("b", "[]\n")], 64));
        let state = || (place.store.current(), place.store.good());
        place.store.stage(&one.id).unwrap();
        place.store.swap().unwrap();
        assert_eq!(state(), (Some(one.id.clone()), None));
        place.store.keep().unwrap();
        place.store.stage(&two.id).unwrap();
        place.store.swap().unwrap();
        assert_eq!(state(), (Some(two.id.clone()), Some(one.id.clone())));
        assert!(place.store.path("rules/b.yaml").is_file());
        place.store.swap_back().unwrap();
        assert_eq!(state(), (Some(one.id.clone()), Some(one.id.clone())));
        assert!(!place.store.path("rules/b.yaml").exists());
        assert_eq!(place.store.collect(&[&one.id]).unwrap(), 1);
        assert!(place.store.read(&two.id).is_none());
    }

    #[test]
    fn one_agent_at_a_time_has_the_folder() {
        let place = Place::new();
        let lock = place.store.lock().unwrap();
        assert!(matches!(place.store.lock(), Err(LockError::Taken(_))));
        drop(lock);
        assert!(place.store.lock().is_ok());
    }

    #[test]
    fn each_trigger_is_a_new_name() {
        let place = Place::new();
        place.store.prepare_trigger().unwrap();
        let names = || -> Vec<_> {
            fs::read_dir(place.store.path(RELOAD)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let first = names();
        place.store.trigger().unwrap();
        assert_eq!((first.len(), names().len()), (1, 1));
        assert_ne!(first, names());
    }
}
