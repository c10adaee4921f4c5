//! A base that changes in the midst of a change of ours.

use falco_operator::agent::engine::Step;
use falco_operator::api::{NodeFaultReason, Proof};

use crate::place::{Place, bad, hash, rollout, rule, settled};

/// Rewrites a file in place, or puts another one in its place.
type Write = fn(&Place, &str, &str);

const WAYS: [(&str, Write); 2] = [("in place", Place::write), ("by rename", Place::replace)];

const MOMENTS: [Step; 6] =
    [Step::Written, Step::Checked, Step::Staged, Step::Swapped, Step::Triggered, Step::Confirmed];

/// Wants a change of a file, and writes the base when that has come to a step.
async fn at_each_step(base: &str, after: impl AsyncFn(&Place, Write, &mut crate::place::Agent, &str)) {
    for (way, write) in WAYS {
        for moment in MOMENTS {
            let place = Place::new();
            let mut agent = place.running().await;
            let (here, base, mut waits) = (Place::at(place.folder()), base.to_owned(), true);
            agent.seen.at_step(move |step| {
                if step == moment && std::mem::take(&mut waits) {
                    write(&here, "etc/base_rules.yaml", &base);
                }
            });
            agent.want([("a", rollout(&rule("a2"), Some(&rule("a"))))]);
            after(&place, write, &mut agent, &format!("{way} at {moment:?}")).await;
            agent.stop().await;
        }
    }
}

#[tokio::test]
async fn a_good_base_is_loaded_beside_our_change() {
    at_each_step(&rule("base2"), async |place, _, agent, about| {
        let running = agent.settled(&[("a", &rule("a2"))]).await;
        assert_eq!((running.proof, &running.fault), (Proof::Metrics, &None), "{about}");
        assert!(running.trouble.is_empty(), "{about}: {:?}", running.trouble);
        assert_eq!(place.whole(), running.loaded, "{about}");
    })
    .await;
}

#[tokio::test]
async fn a_bad_base_is_reported_and_blames_no_file() {
    at_each_step(&bad("base2"), async |place, write, agent, about| {
        // It may have killed a Falco that was loading just then: that, too, is the base's fault.
        let about_base = |reason| matches!(reason, NodeFaultReason::BaseRefused | NodeFaultReason::FalcoDown);
        let told = |reason| about_base(reason) || reason == NodeFaultReason::Unconfirmed;
        let running = agent.until("the fault", |it| it.fault.as_ref().is_some_and(|it| told(it.reason))).await;
        assert!(running.trouble.is_empty(), "{about}: {:?}", running.trouble);
        let files = place.whole();
        let ours = [rule("a"), rule("a2")].map(|file| Some(hash(file.as_bytes())));
        assert!(ours.contains(&files.get("a").cloned()), "{about}: {files:?}");
        write(place, "etc/base_rules.yaml", &rule("base3"));
        let running = agent.settled(&[("a", &rule("a2"))]).await;
        assert!(running.trouble.is_empty() && running.fault.is_none(), "{about}: {running:?}");
    })
    .await;
}

/// Written over and over, while files of ours come and go: each load of Falco's own may meet one of ours.
#[tokio::test]
async fn a_base_and_our_files_that_change_all_the_time_come_to_the_last_of_both() {
    let place = Place::new();
    let mut agent = place.running().await;
    for number in 0..30 {
        let (_, write) = WAYS[number % WAYS.len()];
        write(&place, "etc/base_rules.yaml", &rule(&format!("base{number}")));
        agent.want([("a", settled(&rule(&format!("edit{number}"))))]);
        tokio::time::sleep(std::time::Duration::from_millis(17 * (number as u64 % 11))).await;
    }
    let running = agent.settled(&[("a", &rule("edit29"))]).await;
    assert_eq!((running.proof, &running.fault), (Proof::Metrics, &None));
    assert!(running.trouble.is_empty(), "{:?}", running.trouble);
}
