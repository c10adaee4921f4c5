//! An agent that is killed at any step of its cycle leaves a Falco that runs on a whole set, and the next one goes on.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use falco_operator::agent::engine::Step;
use falco_operator::api::{Fault, Proof};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Agent, Place, described, hash, page_of, rollout, rule, settled};

/// The steps of a cycle that succeeds.
const STEPS: [Step; 8] = [
    Step::Written,
    Step::Checked,
    Step::Staged,
    Step::Swapped,
    Step::Triggered,
    Step::Confirmed,
    Step::Kept,
    Step::Collected,
];

/// For the process that is to die: the node's folder, the step, and how often it comes before that.
const DIES: &str = "AGENT_DIES_AT";

fn kill_myself() {
    let _ = kill(Pid::this(), Signal::SIGKILL);
}

/// Where this process is the one that is to die: an agent that wants this file, until it is dead.
async fn die_if_told(wanted: &str, last_good: Option<&str>) {
    let Ok(told) = std::env::var(DIES) else { return };
    let mut words = told.split(' ');
    let (folder, step) = (words.next().unwrap(), words.next().unwrap().to_owned());
    let mut left: usize = words.next().unwrap().parse().unwrap();
    let mut agent = Place::at(folder).start();
    if last_good.is_some() {
        // Of the change, not of the start.
        agent.until("the set on disk", |running| running.proof == Proof::Metrics).await;
    }
    agent.seen.at_step(move |now| {
        if format!("{now:?}") == step {
            if left == 0 {
                kill_myself();
            }
            left -= 1;
        }
    });
    agent.want([("a", rollout(wanted, last_good))]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    panic!("nothing has killed this process");
}

/// Runs this test again in a process that dies at a step, and waits for its death.
async fn let_die(test: &str, place: &Place, step: Step, before: usize) {
    let output = place.path("died.log");
    let log = std::fs::File::create(&output).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIES, format!("{} {step:?} {before}", place.folder().display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    let said = || std::fs::read_to_string(&output).unwrap_or_default();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{step:?}: {status}\n{}", said());
}

/// Waits until the Falco that was left behind says what it runs, and that this is one of these.
async fn runs_one_of(place: &Place, files: &[&str], step: Step) {
    let pid = place.falco().unwrap_or_else(|| panic!("{step:?}: no Falco was left"));
    let begun = Instant::now();
    loop {
        if let Some(page) = page_of(pid) {
            let found = files.iter().any(|file| page.contains(&hash(file.as_bytes())));
            assert!(found, "{step:?}: Falco runs something else:\n{page}");
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{step:?}: process {pid} does not say what it runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The next agent: it begins with a whole set at once, alone with its Falco, and comes to what is wanted.
async fn goes_on(place: &Place, begins: &[&str], wanted: &str, last_good: Option<&str>, step: Step) {
    let left = place.falco();
    let mut agent = place.start();
    if !begins.is_empty() {
        let running = agent.until("the set on disk", |running| running.proof == Proof::Metrics).await;
        let loaded = running.loaded.get("a");
        let known = begins.iter().any(|file| loaded == Some(&hash(file.as_bytes())));
        assert!(known, "{step:?}: it begins with {loaded:?}");
        assert_eq!(place.whole(), running.loaded, "{step:?}");
    }
    agent.want([("a", rollout(wanted, last_good))]);
    let running = agent.settled(&[("a", wanted)]).await;
    assert!(running.trouble.is_empty() && running.fault.is_none(), "{step:?}: {running:?}");
    assert_eq!(place.whole(), running.loaded, "{step:?}");
    if let Some(left) = left {
        assert!(!lives(left), "{step:?}: two Falcos run");
    }
    assert_eq!(agent.stop().await, 0);
}

#[tokio::test]
async fn killed_at_any_step_of_a_change() {
    const ME: &str = "killed::killed_at_any_step_of_a_change";
    let (old, new) = (rule("a"), rule("a2"));
    die_if_told(&new, Some(&old)).await;
    for step in STEPS {
        let place = Place::new();
        place.running().await.stop().await;
        let_die(ME, &place, step, 0).await;
        runs_one_of(&place, &[&old, &new], step).await;
        let kept = matches!(step, Step::Kept | Step::Collected);
        let begins: &[&str] = if kept { &[&new] } else { &[&old] };
        goes_on(&place, begins, &new, Some(&old), step).await;
    }
}

#[tokio::test]
async fn killed_at_any_step_of_the_first_set() {
    const ME: &str = "killed::killed_at_any_step_of_the_first_set";
    let first = rule("a");
    die_if_told(&first, None).await;
    for step in STEPS {
        let place = Place::new();
        // The base alone comes before the first file.
        let_die(ME, &place, step, 0).await;
        goes_on(&place, &[], &first, None, step).await;
    }
}

#[tokio::test]
async fn killed_on_the_way_back() {
    const ME: &str = "killed::killed_on_the_way_back";
    let (old, doomed) = (rule("a"), described("a2", "stand-in: crash"));
    die_if_told(&doomed, Some(&old)).await;
    let place = Place::new();
    place.running().await.stop().await;
    let_die(ME, &place, Step::SwappedBack, 0).await;
    let mut agent = place.start();
    agent.until("the last good set", |running| running.proof == Proof::Metrics).await;
    assert_eq!(place.whole().get("a"), Some(&hash(old.as_bytes())));
    agent.want([("a", rollout(&doomed, Some(&old)))]);
    let running = agent.until("the refusal", |running| running.settled && !running.trouble.is_empty()).await;
    assert_eq!(running.trouble["a"].fault, Fault::Refused);
    assert_eq!(running.loaded.get("a"), Some(&hash(old.as_bytes())));
}

#[tokio::test]
async fn the_falco_of_a_killed_agent_dies_with_it_in_a_container_and_runs_again_at_once() {
    const ME: &str = "killed::the_falco_of_a_killed_agent_dies_with_it_in_a_container_and_runs_again_at_once";
    let (old, new) = (rule("a"), rule("a2"));
    die_if_told(&new, Some(&old)).await;
    for step in [Step::Staged, Step::Swapped, Step::Triggered, Step::Confirmed, Step::Kept] {
        let place = Place::new();
        place.running().await.stop().await;
        let_die(ME, &place, step, 0).await;
        if let Some(pid) = place.falco() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let begins: &[&str] = if step == Step::Kept { &[&new] } else { &[&old] };
        goes_on(&place, begins, &new, Some(&old), step).await;
    }
}

/// Over and over, at no step in particular, in the midst of edits.
#[tokio::test]
async fn killed_at_random_moments() {
    const ME: &str = "killed::killed_at_random_moments";
    const EDITS: usize = 8;
    if let Ok(told) = std::env::var(DIES) {
        let folder = told.split(' ').next().unwrap();
        let agent = Place::at(folder).start();
        for number in 0.. {
            agent.want([("a", settled(&rule(&format!("edit{number}"))))]);
            tokio::time::sleep(Duration::from_millis(40 * (number % EDITS as u64))).await;
        }
    }
    let place = Place::new();
    place.running().await.stop().await;
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(std::process::id);
    println!("SEED={seed}");
    let mut random = u64::from(seed) | 1;
    for _ in 0..EDITS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let log = std::fs::File::create(place.path("died.log")).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ME, "--nocapture"])
            .env(DIES, format!("{} -", place.folder().display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(300 + (random >> 33) % 2000)).await;
        assert_eq!(child.try_wait().unwrap(), None, "{}", place.read("died.log"));
        child.kill().unwrap();
        child.wait().unwrap();
        place.whole();
    }
    let mut agent = Agent::start(place.options(), crate::place::wanted([("a", settled(&rule("last")))]));
    let running = agent.settled(&[("a", &rule("last"))]).await;
    assert!(running.trouble.is_empty() && running.fault.is_none(), "{running:?}");
}
