//! Files that pass the check and then harm the Falco that loads them, and a Falco that is ill by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use falco_operator::agent::engine::{ReloadOutcome, Step};
use falco_operator::agent::{Running, Wanted};
use falco_operator::api::{FalcoState, Fault, NodeFaultReason, Proof};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Agent, Place, described, hash, rollout, rule, settled, wanted};

/// A file whose loading ends as the stand-in is asked to end it.
fn doomed(fault: &str) -> String {
    described("doomed", &format!("stand-in: {fault}"))
}

fn refused(running: &Running, namespace: &str) -> bool {
    running.settled && running.trouble.get(namespace).is_some_and(|it| it.fault == Fault::Refused)
}

/// Counts how often a set with this file of namespace `a` is put into force.
fn counts_swaps(place: &Place, agent: &Agent, file: &str) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, here, hash) = (Arc::clone(&count), Place::at(place.folder()), hash(file.as_bytes()));
    agent.seen.at_step(move |step| {
        if step == Step::Swapped && here.whole().get("a") == Some(&hash) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    count
}

/// It is taken back, said to be refused, and never tried again: neither with the next edit of another namespace, nor by
/// the next agent.
async fn is_taken_back_once(fault: &str, said: &str) {
    let place = Place::new();
    let mut agent = place.running().await;
    let doomed = doomed(fault);
    let tries = counts_swaps(&place, &agent, &doomed);
    agent.want([("a", rollout(&doomed, Some(&rule("a"))))]);
    let running = agent.until("the refusal", |running| refused(running, "a")).await;
    let trouble = &running.trouble["a"];
    assert_eq!(trouble.tried, hash(doomed.as_bytes()));
    assert!(trouble.message.contains(said), "{}", trouble.message);
    assert_eq!((running.proof, running.falco, running.fault), (Proof::Metrics, FalcoState::Running, None));
    assert_eq!(running.loaded.get("a"), Some(&hash(rule("a").as_bytes())), "the last good file is back");
    assert_eq!(place.whole(), running.loaded);
    assert_eq!(tries.load(Ordering::Relaxed), 1, "tried once");

    let now = [("a", rollout(&doomed, Some(&rule("a")))), ("b", settled(&rule("b")))];
    agent.want(now.clone());
    agent.settled(&[("a", &rule("a")), ("b", &rule("b"))]).await;
    assert_eq!(tries.load(Ordering::Relaxed), 1, "the file of b came into force without it");

    agent.stop().await;
    let mut agent = Agent::start(place.options(), wanted(now));
    let tries = counts_swaps(&place, &agent, &doomed);
    let running = agent.settled(&[("a", &rule("a")), ("b", &rule("b"))]).await;
    assert!(refused(&running, "a"), "{:?}", running.trouble);
    assert_eq!(tries.load(Ordering::Relaxed), 0, "the next agent does not try it either");

    // The next edit is another file.
    agent.want([("a", rollout(&rule("a2"), Some(&rule("a")))), ("b", settled(&rule("b")))]);
    let running = agent.settled(&[("a", &rule("a2")), ("b", &rule("b"))]).await;
    assert!(running.trouble.is_empty());
}

#[tokio::test]
async fn a_file_with_which_falco_dies_while_it_loads_is_taken_back_once() {
    is_taken_back_once("crash", "SIGABRT").await;
}

#[tokio::test]
async fn a_file_with_which_falco_does_not_start_is_taken_back_once() {
    is_taken_back_once("refuse-at-load", "exit code 1").await;
}

#[tokio::test]
async fn a_file_with_which_falco_never_comes_up_is_taken_back_once() {
    is_taken_back_once("hang", "did not confirm in time").await;
}

#[tokio::test]
async fn a_file_with_which_falco_dies_soon_after_is_taken_back_once() {
    is_taken_back_once("crash-after 300", "SIGABRT").await;
}

#[tokio::test]
async fn a_file_that_kills_whoever_checks_it_is_not_swapped_in() {
    let place = Place::new();
    let mut agent = place.running().await;
    let (pid, swaps) = (place.falco(), agent.seen.steps(Step::Swapped));
    agent.want([("a", rollout(&doomed("crash-in-check"), Some(&rule("a"))))]);
    let running = agent.until("the refusal", |running| refused(running, "a")).await;
    assert!(running.trouble["a"].message.contains("died while checking"), "{}", running.trouble["a"].message);
    assert_eq!((agent.seen.steps(Step::Swapped), place.falco()), (swaps, pid), "Falco has not noticed");
}

#[tokio::test]
async fn of_files_that_come_together_only_the_one_at_fault_is_refused() {
    let place = Place::new();
    let mut agent = place.running().await;
    let (b, c) = (rule("b"), rule("c"));
    agent.want([
        ("a", rollout(&doomed("crash"), Some(&rule("a")))),
        ("b", rollout(&b, None)),
        ("c", rollout(&c, None)),
    ]);
    let running = agent.settled(&[("a", &rule("a")), ("b", &b), ("c", &c)]).await;
    assert!(refused(&running, "a"), "{:?}", running.trouble);
    assert_eq!(running.trouble.len(), 1, "{:?}", running.trouble);
}

#[tokio::test]
async fn where_the_last_good_file_fails_too_no_file_is_to_blame() {
    let place = Place::new();
    let mut agent = place.running().await;
    place.write("control/crash", "*\n");
    agent.want([("a", rollout(&rule("a2"), Some(&rule("a"))))]);
    let running = agent.until("the fault", |running| running.fault.is_some()).await;
    let fault = running.fault.unwrap();
    assert_eq!(fault.reason, NodeFaultReason::FalcoDown);
    assert!(fault.message.contains("with the last good set too"), "{}", fault.message);
    assert!(running.trouble.is_empty(), "{:?}", running.trouble);
    assert_eq!(place.whole().get("a"), Some(&hash(rule("a").as_bytes())), "the last good set is in force");
    std::fs::remove_file(place.path("control/crash")).unwrap();
    let running = agent.settled(&[("a", &rule("a2"))]).await;
    assert!(running.trouble.is_empty() && running.fault.is_none());
}

/// Somebody else's doing, the kernel's for want of memory or a person's, says nothing about a file.
#[tokio::test]
async fn a_falco_that_is_killed_by_others_runs_again_and_no_file_is_to_blame() {
    let place = Place::new();
    let mut agent = place.running().await;
    agent.want([("a", rollout(&rule("a2"), Some(&rule("a"))))]);
    let before = agent.settled(&[("a", &rule("a2"))]).await;
    let killed = place.falco().unwrap();
    kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
    let again = |running: &Running| running.settled && running.last_reload > before.last_reload;
    let running = agent.until("another Falco", again).await;
    assert_eq!((running.proof, &running.loaded), (Proof::Metrics, &before.loaded));
    assert!(running.trouble.is_empty(), "{:?}", running.trouble);
    assert_ne!(place.falco(), Some(killed));
}

#[tokio::test]
async fn a_lost_trigger_is_repeated_and_a_falco_that_never_confirms_is_started_anew() {
    let place = Place::new();
    let mut agent = place.running().await;
    let pid = place.falco();
    place.write("control/ignore-next-trigger", "");
    agent.want([("a", rollout(&rule("a2"), Some(&rule("a"))))]);
    agent.settled(&[("a", &rule("a2"))]).await;
    assert_eq!(place.falco(), pid, "told once more, it has loaded");
    // A stopped process answers nobody and hears no trigger.
    kill(Pid::from_raw(pid.unwrap()), Signal::SIGSTOP).unwrap();
    agent.want([("a", rollout(&rule("a3"), Some(&rule("a2"))))]);
    let running = agent.settled(&[("a", &rule("a3"))]).await;
    assert!(running.trouble.is_empty(), "{:?}", running.trouble);
    assert_ne!(place.falco(), pid);
}

#[tokio::test]
async fn a_page_that_is_withheld_is_a_weaker_proof_and_named_as_such() {
    let place = Place::new();
    place.write("control/no-metrics", "");
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a")))]);
    let running = agent.settled(&[("a", &rule("a"))]).await;
    assert_eq!(running.proof, Proof::Assumed);
    assert_eq!(agent.seen.count(ReloadOutcome::Confirmed), 0);
}

#[tokio::test]
async fn two_agents_never_work_in_one_folder() {
    let place = Place::new();
    let agent = place.running().await;
    let pid = place.falco();
    let mut second = Agent::start(place.options(), Wanted::default());
    let running = second.until("the fault", |running| running.fault.is_some()).await;
    let fault = running.fault.unwrap();
    assert_eq!(fault.reason, NodeFaultReason::Storage);
    assert!(fault.message.contains("another agent"), "{}", fault.message);
    assert_eq!(place.falco(), pid, "and Falco is left alone");
    second.want([("b", settled(&rule("b")))]);
    // Once the first has gone, the second takes over.
    assert_eq!(agent.stop().await, 0);
    second.settled(&[("b", &rule("b"))]).await;
}
