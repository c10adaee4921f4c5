//! A disk that is full, or that can only be read, at any step of the cycle: Falco runs on a whole set, no file is to
//! blame, and once there is room again the agent goes on.
//!
//! Each test runs again in a process with mounts of its own, in which the agent's folder is a disk of its own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use falco_operator::agent::engine::{Step, Strategy};
use falco_operator::agent::{Running, Wanted};
use falco_operator::api::{FalcoState, NodeFaultReason, Proof};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Agent, Place, described, hash, rollout, rule, settled, wanted};

/// Present in the process that has mounts of its own.
const INSIDE: &str = "AGENT_HAS_MOUNTS";

/// Where a cycle may be when the disk turns bad; the first is before it begins.
const MOMENTS: [Option<Step>; 8] = [
    None,
    Some(Step::Written),
    Some(Step::Checked),
    Some(Step::Staged),
    Some(Step::Swapped),
    Some(Step::Triggered),
    Some(Step::Confirmed),
    Some(Step::Kept),
];

/// Runs the test of this name again with mounts of its own, unless this process has them.
fn with_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--"]).arg(std::env::current_exe().unwrap());
    let out = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// The disk on which the agent has its folder.
#[derive(Clone)]
struct Disk(Arc<PathBuf>);

impl Disk {
    /// A small one at the folder of this node's agent.
    fn of(place: &Place) -> Self {
        let path = place.path("state");
        fs::create_dir(&path).unwrap();
        mount(Some("disk"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=512k,nr_inodes=256")).unwrap();
        Self(Arc::new(path))
    }

    /// Leaves no room: neither for bytes nor for names.
    fn fill(&self) {
        let ballast = self.0.join(".ballast");
        fs::create_dir(&ballast).unwrap();
        let mut file = File::create(ballast.join("bytes")).unwrap();
        for size in [1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        for number in 0.. {
            if File::create(ballast.join(format!("{number}"))).is_err() {
                break;
            }
        }
    }

    fn free(&self) {
        fs::remove_dir_all(self.0.join(".ballast")).unwrap();
    }

    /// Makes it one that can only be read, as a kernel does that has met an error on it.
    fn freeze(&self) {
        let (path, none) = (self.0.as_path(), None::<&str>);
        mount(Some(path), path, none, MsFlags::MS_BIND, none).unwrap();
        let only_read = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, path, none, only_read, none).unwrap();
    }

    fn thaw(&self) {
        umount2(self.0.as_path(), MntFlags::MNT_DETACH).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            let _ = umount2(self.0.as_path(), MntFlags::MNT_DETACH);
        }
    }
}

/// How a disk turns bad, and well again.
#[derive(Clone, Copy, Debug)]
enum Illness {
    Full,
    ReadOnly,
}

impl Illness {
    fn begin(self, disk: &Disk) {
        match self {
            Self::Full => disk.fill(),
            Self::ReadOnly => disk.freeze(),
        }
    }

    fn end(self, disk: &Disk) {
        match self {
            Self::Full => disk.free(),
            Self::ReadOnly => disk.thaw(),
        }
    }
}

/// The disk is what is wrong, or the new file has come into force before that mattered.
fn told(running: &Running, new: &str) -> bool {
    let storage = running.fault.as_ref().is_some_and(|fault| fault.reason == NodeFaultReason::Storage);
    storage || running.settled && running.loaded.get("a") == Some(&hash(new.as_bytes()))
}

async fn ill(illness: Illness) {
    for moment in MOMENTS {
        let place = Place::new();
        let disk = Disk::of(&place);
        let mut agent = place.running().await;
        let (old, new) = (rule("a"), described("a2", &"long ".repeat(2000)));
        match moment {
            None => illness.begin(&disk),
            Some(moment) => {
                let (disk, mut well) = (disk.clone(), true);
                agent.seen.at_step(move |step| {
                    if step == moment && std::mem::take(&mut well) {
                        illness.begin(&disk);
                    }
                });
            }
        }
        agent.want([("a", rollout(&new, Some(&old)))]);
        let running = agent.until("what is wrong", |running| told(running, &new)).await;
        let about = format!("{illness:?} at {moment:?}: {running:?}");
        assert!(running.trouble.is_empty(), "a file is blamed: {about}");
        assert_eq!((running.falco, running.proof), (FalcoState::Running, Proof::Metrics), "{about}");
        let loaded = place.whole();
        assert!([&old, &new].iter().any(|file| loaded.get("a") == Some(&hash(file.as_bytes()))), "{about}");

        // A Falco that dies now is started again, on a whole set.
        let [pid] = place.falcos()[..] else { panic!("not one Falco: {:?}; {about}", place.falcos()) };
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let again = |it: &Running| it.proof == Proof::Metrics && it.last_reload > running.last_reload;
        let running = agent.until("Falco again", again).await;
        assert_eq!(place.whole(), running.loaded, "{illness:?} at {moment:?}");

        illness.end(&disk);
        let running = agent.settled(&[("a", &new)]).await;
        assert!(running.trouble.is_empty() && running.fault.is_none(), "{illness:?} at {moment:?}: {running:?}");
        assert_eq!(place.whole(), running.loaded);
        agent.seen.at_step(|_| {});
        assert_eq!(agent.stop().await, 0);
    }
}

#[tokio::test]
async fn a_full_disk_at_any_step() {
    if with_mounts("disk::a_full_disk_at_any_step") {
        ill(Illness::Full).await;
    }
}

#[tokio::test]
async fn a_read_only_disk_at_any_step() {
    if with_mounts("disk::a_read_only_disk_at_any_step") {
        ill(Illness::ReadOnly).await;
    }
}

/// With a disk that turns bad when the new set has just been swapped in, the way back from a file that kills Falco can't
/// be taken on disk; nor, with the strategy that stops Falco first, the way forward.
#[tokio::test]
async fn a_bad_disk_leaves_no_node_without_a_falco() {
    if !with_mounts("disk::a_bad_disk_leaves_no_node_without_a_falco") {
        return;
    }
    for illness in [Illness::Full, Illness::ReadOnly] {
        for (strategy, moment, fault) in [
            (Strategy::Reload, Step::Swapped, "crash"),
            (Strategy::Reload, Step::Triggered, "refuse-at-load"),
            (Strategy::Reload, Step::Collected, "crash-after 500"),
            (Strategy::Restart, Step::Staged, "crash"),
        ] {
            let place = Place::new();
            let disk = Disk::of(&place);
            place.running().await.stop().await;
            let mut options = place.options();
            options.strategy = strategy;
            let mut agent = Agent::start(options, wanted([("a", settled(&rule("a")))]));
            agent.settled(&[("a", &rule("a"))]).await;
            let doomed = described("doomed", &format!("stand-in: {fault}"));
            let (sick, mut well) = (disk.clone(), true);
            agent.seen.at_step(move |step| {
                if step == moment && std::mem::take(&mut well) {
                    illness.begin(&sick);
                }
            });
            agent.want([("a", rollout(&doomed, Some(&rule("a"))))]);
            let about = format!("{illness:?}, {strategy:?}, {fault}");
            let refused = |it: &Running| it.settled && it.trouble.contains_key("a");
            let storage = |it: &Running| it.fault.as_ref().is_some_and(|it| it.reason == NodeFaultReason::Storage);
            // A full disk may not matter: the way back was prepared before.
            agent.until("the fault", |it| storage(it) || refused(it)).await;
            // What runs lives on: it is not the doomed file.
            let good = hash(rule("a").as_bytes());
            let runs = async {
                while !place.pages().iter().any(|page| page.contains(&good)) {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            let ran = tokio::time::timeout(std::time::Duration::from_secs(60), runs).await;
            assert!(ran.is_ok(), "no Falco runs the last good file: {about}");
            illness.end(&disk);
            let running = agent.until("the refusal", refused).await;
            assert_eq!(running.loaded.get("a"), Some(&good), "{about}");
            assert_eq!(place.whole(), running.loaded, "{about}");
            agent.seen.at_step(|_| {});
            assert_eq!(agent.stop().await, 0);
        }
    }
}

/// An agent that finds its folder full, or that can only be read, still starts Falco on what lies there.
#[tokio::test]
async fn an_agent_that_starts_on_a_bad_disk_runs_the_last_good_set() {
    if !with_mounts("disk::an_agent_that_starts_on_a_bad_disk_runs_the_last_good_set") {
        return;
    }
    for illness in [Illness::Full, Illness::ReadOnly] {
        let place = Place::new();
        let disk = Disk::of(&place);
        place.running().await.stop().await;
        illness.begin(&disk);
        let mut agent = Agent::start(place.options(), wanted([("a", settled(&rule("a2")))]));
        let running = agent
            .until("the last good set", |running| running.proof == Proof::Metrics && running.fault.is_some())
            .await;
        assert_eq!(running.loaded.get("a"), Some(&hash(rule("a").as_bytes())), "{illness:?}");
        assert_eq!(running.fault.map(|fault| fault.reason), Some(NodeFaultReason::Storage));
        illness.end(&disk);
        agent.settled(&[("a", &rule("a2"))]).await;
        assert_eq!(agent.stop().await, 0);
    }
}

/// Without any set, and without a place for one, Falco runs on its base alone.
#[tokio::test]
async fn a_first_start_without_a_disk_runs_the_base() {
    if !with_mounts("disk::a_first_start_without_a_disk_runs_the_base") {
        return;
    }
    let place = Place::new();
    let disk = Disk::of(&place);
    disk.freeze();
    let mut agent = Agent::start(place.options(), Wanted::default());
    let running = agent.until("the fault", |running| running.fault.is_some()).await;
    assert_eq!(running.fault.map(|fault| fault.reason), Some(NodeFaultReason::Storage));
    agent.until("Falco", |running| running.falco == FalcoState::Starting).await;
    assert_eq!(place.run_with("etc/falco.yaml").len(), 1, "no Falco runs on the base");
    disk.thaw();
    agent.want([("a", settled(&rule("a")))]);
    agent.settled(&[("a", &rule("a"))]).await;
    assert_eq!(agent.stop().await, 0);
}
