//! From what is wanted to what is proved to run.

use falco_operator::agent::engine::{ReloadOutcome, Strategy};
use falco_operator::api::{FalcoState, Fault, Proof};

use crate::place::{Agent, Place, bad, hash, rollout, rule, settled, text, wanted};

#[tokio::test]
async fn what_is_wanted_runs_and_is_proved_by_falcos_own_page() {
    let place = Place::new();
    let mut agent = place.start();
    agent.want([("team-a", settled(&rule("a")))]);
    let running = agent.settled(&[("team-a", &rule("a"))]).await;
    assert_eq!((running.falco, running.proof, running.fault), (FalcoState::Running, Proof::Metrics, None));
    assert_eq!(running.falco_version.as_deref(), Some("0.44.1"));
    assert_eq!(running.engine_version.as_deref(), Some("0.62.0"));
    assert!(running.last_reload.is_some());
    assert!(agent.engine.page.borrow().is_some());
    assert_eq!(place.files().into_iter().collect::<Vec<_>>(), [("team-a".to_owned(), text(&rule("a")).hash)]);
    assert!(place.read("state/falco.yaml").contains(&place.here("- DIR/state/rules/team-a.yaml")));

    let pid = place.falco();
    agent.want([("team-a", rollout(&rule("a2"), Some(&rule("a")))), ("team-b", rollout(&rule("b"), None))]);
    agent.settled(&[("team-a", &rule("a2")), ("team-b", &rule("b"))]).await;
    agent.want([("team-b", settled(&rule("b")))]);
    agent.settled(&[("team-b", &rule("b"))]).await;
    assert_eq!(place.falco(), pid, "one process all the time");
    assert_eq!(agent.stop().await, 0);
}

#[tokio::test]
async fn a_file_that_falco_refuses_is_held_at_the_last_good_one_and_holds_back_nobody() {
    let place = Place::new();
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a1"))), ("b", settled(&rule("b1")))]);
    agent.settled(&[("a", &rule("a1")), ("b", &rule("b1"))]).await;
    agent.want([
        ("a", rollout(&bad("a2"), Some(&rule("a1")))),
        ("b", rollout(&rule("b2"), Some(&rule("b1")))),
        ("c", rollout(&bad("c1"), None)),
    ]);
    let running = agent.settled(&[("a", &rule("a1")), ("b", &rule("b2"))]).await;
    assert_eq!(running.fault, None);
    for (namespace, rule) in [("a", "a2"), ("c", "c1")] {
        let trouble = running.trouble.get(namespace).unwrap();
        assert_eq!((trouble.fault, &trouble.tried), (Fault::Refused, &hash(bad(rule).as_bytes())));
        assert!(trouble.message.starts_with(&format!("rule '{rule}' (line 1): ")), "{}", trouble.message);
        assert!(trouble.message.contains("proc.nosuch"), "{}", trouble.message);
    }
    agent.want([("a", rollout(&rule("a3"), Some(&rule("a1")))), ("b", settled(&rule("b2")))]);
    let running = agent.settled(&[("a", &rule("a3")), ("b", &rule("b2"))]).await;
    assert!(running.trouble.is_empty());
}

#[tokio::test]
async fn of_two_files_that_define_one_rule_the_later_waits() {
    let place = Place::new();
    let mut agent = place.start();
    agent.want([("a", settled(&rule("x"))), ("b", rollout(&rule("x"), None))]);
    let running = agent.settled(&[("a", &rule("x"))]).await;
    assert_eq!(running.trouble.get("b").map(|it| it.fault), Some(Fault::NameTaken));
    agent.want([("b", rollout(&rule("x"), None))]);
    let running = agent.settled(&[("b", &rule("x"))]).await;
    assert!(running.trouble.is_empty());
}

#[tokio::test]
async fn a_swap_is_no_event_for_falco_and_one_trigger_is_one_reload() {
    let place = Place::new();
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a")))]);
    let first = agent.settled(&[("a", &rule("a"))]).await;
    // Lost to Falco's watch: had the swap itself been an event, that would have been the one lost.
    place.write("control/ignore-next-trigger", "");
    agent.want([("a", rollout(&rule("b"), Some(&rule("a"))))]);
    let second = agent.settled(&[("a", &rule("b"))]).await;
    assert!(second.last_reload > first.last_reload);
    assert!(!place.path("control/ignore-next-trigger").exists());
    let triggers = || {
        let steps = agent.seen.steps.lock().unwrap();
        steps.iter().filter(|step| **step == falco_operator::agent::engine::Step::Triggered).count()
    };
    assert_eq!(triggers() - 1, 2, "the base, then the first file, then the lost one and its repetition");
}

#[tokio::test]
async fn changes_that_come_in_a_burst_are_one_reload_or_two() {
    let place = Place::new();
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a")))]);
    agent.settled(&[("a", &rule("a"))]).await;
    let before = agent.seen.count(ReloadOutcome::Confirmed);
    let begun = std::time::Instant::now();
    for number in 0..200 {
        agent.want([("a", rollout(&rule(&format!("r{number}")), Some(&rule("a"))))]);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let burst = begun.elapsed();
    agent.settled(&[("a", &rule("r199"))]).await;
    let reloads = agent.seen.count(ReloadOutcome::Confirmed) - before;
    // What begins in a burst of some milliseconds is one reload, and what came after its beginning another. A machine that
    // is busy makes the burst longer than reloads take.
    let most = 3 + (burst.as_millis() / 300) as usize;
    assert!((1..=most).contains(&reloads), "{reloads} reloads in {burst:?}");
}

#[tokio::test]
async fn with_the_strategy_restart_each_set_is_another_process() {
    let place = Place::new();
    let mut options = place.options();
    options.strategy = Strategy::Restart;
    let mut agent = Agent::start(options, wanted([("a", settled(&rule("a")))]));
    agent.settled(&[("a", &rule("a"))]).await;
    let pid = place.falco();
    agent.want([("a", rollout(&rule("b"), Some(&rule("a"))))]);
    agent.settled(&[("a", &rule("b"))]).await;
    assert_ne!(place.falco(), pid);
}

#[tokio::test]
async fn many_files_are_one_for_falco() {
    let place = Place::new();
    let mut options = place.options();
    options.most_files = 2;
    let mut agent = Agent::start(options, wanted([("a", settled(&rule("a"))), ("b", settled(&rule("b")))]));
    agent.settled(&[("a", &rule("a")), ("b", &rule("b"))]).await;
    assert!(place.read("state/falco.yaml").contains("rules/a.yaml"));
    let c = rollout(&rule("c"), None);
    agent.want([("a", settled(&rule("a"))), ("b", settled(&rule("b"))), ("c", c)]);
    let running = agent.settled(&[("a", &rule("a")), ("b", &rule("b")), ("c", &rule("c"))]).await;
    assert_eq!(running.proof, Proof::Metrics);
    let config = place.read("state/falco.yaml");
    assert!(config.contains("/combined.yaml") && !config.contains("rules/a.yaml"), "{config}");
    assert_eq!(place.files().len(), 3, "people read them one by one");
    // And one of them that is refused is still found.
    agent.want([("a", settled(&rule("a"))), ("b", rollout(&bad("b2"), Some(&rule("b")))), ("c", settled(&rule("c")))]);
    let running = agent.until("the refusal", |running| running.settled && !running.trouble.is_empty()).await;
    assert!(running.trouble["b"].message.contains("proc.nosuch"));
}

#[tokio::test]
async fn the_last_good_set_runs_before_anybody_says_what_is_wanted() {
    let place = Place::new();
    let mut agent = place.start();
    agent.want([("a", settled(&rule("a")))]);
    agent.settled(&[("a", &rule("a"))]).await;
    assert_eq!(agent.stop().await, 0);
    let mut agent = place.start();
    let running = agent.until("the set on disk", |running| running.proof == Proof::Metrics).await;
    assert_eq!(running.loaded.keys().collect::<Vec<_>>(), ["a"]);
    assert!(!running.settled, "nobody has said what is wanted");
    agent.want([]);
    agent.settled(&[]).await;
    assert!(place.files().is_empty());
}
