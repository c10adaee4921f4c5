//! Every transition of the table, and what is particular about each, as the decision takes it.

use std::collections::BTreeSet;

use super::{
    Action, EventReason, Refresh, Wave,
    testing::{NAMESPACE, TestNode, World},
};
use crate::api::{Fault, NONE, Phase, Reason, Rollout, RolloutKind, condition_is};

fn kinds(actions: &[Action]) -> Vec<&'static str> {
    actions
        .iter()
        .map(|action| match action {
            Action::CreateRulesFile { finalizer: true } => "create held",
            Action::CreateRulesFile { finalizer: false } => "create",
            Action::AddFinalizer => "hold",
            Action::WriteStatus => "status",
            Action::WriteBundle(_) => "bundle",
            Action::DeleteBundle => "delete bundle",
            Action::RemoveFinalizer => "release",
            Action::DeleteRulesFile => "delete",
        })
        .collect()
}

fn told(decision: &super::Decision) -> Vec<EventReason> {
    decision.events.iter().map(|note| note.reason).collect()
}

/// A world whose edit of its active rule has just been rolled out to nobody yet.
fn edited(nodes: usize) -> World {
    let mut world = World::active(nodes);
    world.apply_item("a", "two");
    world.step_once();
    world
}

/// A world whose edit was rolled back.
fn rolled_back() -> World {
    let mut world = edited(2);
    world.fail_on(0, Fault::Refused, "unknown field");
    world.fail_on(1, Fault::Refused, "unknown field");
    world.step();
    assert_eq!(world.phase(), Phase::RolledBack);
    world
}

#[test]
fn an_apply_is_active_after_two_writes_of_the_bundle() {
    let mut world = World::new(3);
    assert_eq!(world.step_once().actions, []);
    world.apply_item("a", "one");
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["create held", "status", "bundle"]);
    assert_eq!(world.phase(), Phase::RollingOut);
    let rollout = world.bundle.as_ref().unwrap().rollout.clone().unwrap();
    assert_eq!((rollout.kind, rollout.threshold.as_deref()), (RolloutKind::Rollout, Some(Rollout::ALL)));
    world.load_on(0);
    let decision = world.decide();
    assert_eq!((decision.actions.len(), decision.refresh), (0, Refresh::Soon));
    assert_eq!(decision.status.loaded.as_deref(), Some("1/3"));
    world.load();
    let decision = world.step();
    assert_eq!(kinds(&decision.actions), ["status", "bundle"]);
    assert_eq!(told(&decision), [EventReason::Loaded]);
    let bundle = world.bundle.clone().unwrap();
    assert_eq!((bundle.rollout, bundle.target), (None, Some(world.desired())));
    assert_eq!(world.status().loaded.as_deref(), Some("3/3"));
    assert!(condition_is(&world.status().conditions, "Ready"));
    world.load();
    world.step_once();
    assert_eq!(world.step_once().actions, []);
}

#[test]
fn a_withdrawal_waits_for_every_node_to_say_so() {
    let mut world = World::active(2);
    world.delete_item("a");
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["status", "bundle"]);
    assert_eq!(world.phase(), Phase::Withdrawing);
    let bundle = world.bundle.clone().unwrap();
    assert_eq!((bundle.target, bundle.rollout.unwrap().kind), (None, RolloutKind::Withdrawal));
    world.load_on(0);
    assert_eq!(kinds(&world.step_once().actions), [] as [&str; 0]);
    // A node that is away counts as it last did.
    world.nodes[1].live = false;
    assert_eq!(kinds(&world.step_once().actions), [] as [&str; 0]);
    world.nodes[1].live = true;
    world.load_on(1);
    let decision = world.step();
    assert_eq!(kinds(&decision.actions), ["delete bundle", "release", "delete"]);
    assert!(world.rules_file.is_none() && world.bundle.is_none());
    assert_eq!(world.step_once().actions, []);
}

#[test]
fn nothing_is_released_while_no_node_is_available_and_at_once_without_agents() {
    let mut world = World::active(2);
    world.terminating = true;
    world.delete_rules_file();
    world.step_once();
    let nodes = std::mem::take(&mut world.nodes);
    assert_eq!(kinds(&world.step_once().actions), [] as [&str; 0]);
    assert!(world.rules_file.as_ref().unwrap().finalizer);
    let mut other = world.clone();
    other.agents = false;
    other.step();
    assert!(other.rules_file.is_none() && other.bundle.is_none());
    world.nodes = nodes;
    world.load();
    world.step();
    assert!(world.rules_file.is_none() && world.bundle.is_none());
}

#[test]
fn a_node_that_is_still_loading_the_first_file_has_to_say_that_it_dropped_it() {
    let mut world = World::new(2);
    world.apply_item("a", "one");
    world.step_once();
    world.delete_item("a");
    world.step_once();
    assert_eq!(world.phase(), Phase::Withdrawing);
    assert!(world.bundle.as_ref().unwrap().settled().is_some());
    world.load_on(0);
    world.step_once();
    assert!(world.bundle.is_some());
    world.load_on(1);
    world.step();
    assert!(world.bundle.is_none());
}

#[test]
fn a_rules_file_deleted_by_hand_comes_back_with_its_state() {
    for mut world in [World::active(2), edited(2), rolled_back()] {
        let (phase, bundle) = (world.phase(), world.bundle.clone());
        world.delete_rules_file();
        assert_eq!(kinds(&world.step().actions), ["release"]);
        assert!(world.rules_file.is_none());
        let decision = world.step_once();
        assert_eq!(kinds(&decision.actions), ["create held", "status"]);
        assert_eq!((world.phase(), &world.bundle), (phase, &bundle));
    }
}

#[test]
fn a_spec_without_items_stays_without_finalizer() {
    let mut world = World::active(1);
    world.spec().paused = true;
    world.step_once();
    world.delete_item("a");
    world.step();
    world.load();
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["status", "delete bundle", "release"]);
    assert_eq!(world.phase(), Phase::Empty);
    assert!(!world.rules_file.as_ref().unwrap().finalizer);
    world.spec().paused = false;
    assert_eq!(kinds(&world.step().actions), ["delete"]);
}

#[test]
fn a_bundle_of_an_earlier_namespace_is_withdrawn_to_the_end_first() {
    let mut world = World::active(2);
    world.uid = Some("uid-2".into());
    world.rules_file = None;
    world.apply_item("a", "new");
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["create", "status", "bundle"]);
    assert_eq!(world.bundle.as_ref().unwrap().namespace_uid, "uid-1");
    assert_eq!(world.phase(), Phase::Rendering);
    world.load();
    assert_eq!(kinds(&world.step().actions), ["delete bundle"]);
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["hold", "status", "bundle"]);
    let bundle = world.bundle.as_ref().unwrap();
    assert_eq!((bundle.namespace_uid.as_str(), bundle.settled()), ("uid-2", None));
}

#[test]
fn refusals_roll_back_once_a_second_node_agrees() {
    let mut world = edited(3);
    let good = world.bundle.as_ref().unwrap().settled().cloned();
    world.fail_on(0, Fault::Refused, "LOAD_ERR_COMPILE_CONDITION");
    world.step_once();
    assert_eq!(world.phase(), Phase::RollingOut);
    world.load_on(2);
    world.fail_on(1, Fault::Refused, "LOAD_ERR_COMPILE_CONDITION");
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["status", "bundle"]);
    assert_eq!(told(&decision), [EventReason::RollingBack]);
    assert_eq!(world.phase(), Phase::RollingBack);
    let bundle = world.bundle.clone().unwrap();
    assert_eq!((&bundle.target, bundle.rollout.as_ref().unwrap().kind), (&good, RolloutKind::Rollback));
    assert_eq!(bundle.rejected_hash, Some(world.desired().hash));
    assert!(world.status().rejected_reason.as_ref().unwrap().contains("LOAD_ERR_COMPILE_CONDITION"));
    world.load();
    let decision = world.step_once();
    assert_eq!(told(&decision), [EventReason::RolledBack]);
    assert_eq!(world.phase(), Phase::RolledBack);
    assert_eq!(decision.reason, Reason::Refused);
    assert!(condition_is(&world.status().conditions, "Stalled"));
    world.load();
    world.pass(10_000);
    assert_eq!(world.step_once().actions, []);
}

#[test]
fn one_node_alone_vetoes_nothing_if_another_of_its_kind_loads_the_file() {
    let mut world = edited(3);
    world.fail_on(0, Fault::Refused, "no");
    world.load_on(1);
    world.load_on(2);
    let decision = world.step_once();
    assert_eq!(world.phase(), Phase::Degraded);
    assert_eq!(told(&decision), [EventReason::Degraded]);
    assert_eq!(world.bundle.as_ref().unwrap().rollout, None);
    world.load();
    world.step_once();
    assert_eq!(world.phase(), Phase::Active);
}

#[test]
fn one_node_alone_is_believed_if_there_is_no_other_of_its_kind() {
    let mut world = edited(3);
    world.nodes[0].catalog = "catalog-2";
    world.fail_on(0, Fault::Refused, "no");
    world.step();
    assert_eq!(world.status().rejected_hash, Some(world.desired().hash));
}

#[test]
fn faults_that_are_not_the_files_never_roll_back() {
    for fault in [Fault::NodeFault, Fault::NameTaken, Fault::BaseChanged] {
        let mut world = edited(2);
        world.fail_on(0, fault, "not mine");
        world.fail_on(1, fault, "not mine");
        world.step_once();
        world.pass(100_000);
        world.step_once();
        assert_eq!(world.phase(), Phase::RollingOut, "{fault:?}");
        assert!(condition_is(&world.status().conditions, "Stalled"));
        world.load_on(1);
        world.step_once();
        assert_eq!(world.phase(), Phase::Degraded, "{fault:?}");
    }
}

#[test]
fn at_the_deadline_silent_nodes_are_named_and_veto_nothing() {
    let mut world = edited(3);
    world.load_on(1);
    let decision = world.step_once();
    let end = decision.look_again.unwrap();
    world.pass(299);
    assert_eq!(world.step_once().look_again, Some(end));
    world.pass(1);
    let decision = world.step_once();
    assert_eq!(told(&decision), [EventReason::NodesSilent, EventReason::Loaded]);
    assert!(decision.events[0].message.contains("node-0, node-2"));
    assert_eq!(world.phase(), Phase::Active);
    assert_eq!(world.status().loaded.as_deref(), Some("1/3"));
    world.pass(300);
    world.step_once();
    assert_eq!(world.phase(), Phase::Degraded);
}

#[test]
fn a_file_that_nobody_loaded_before_the_deadline_is_rolled_back() {
    let mut world = edited(2);
    world.pass(300);
    let decision = world.step_once();
    assert_eq!(world.phase(), Phase::RolledBack);
    assert_eq!(decision.reason, Reason::NowhereLoaded);
    assert_eq!(told(&decision), [EventReason::RollingBack, EventReason::RolledBack]);
    // The word survives a restart, since it is in the status.
    world.pass(5);
    assert_eq!(world.decide().reason, Reason::NowhereLoaded);
}

#[test]
fn the_time_of_a_wave_does_not_pass_while_no_node_is_available() {
    let mut world = edited(2);
    for node in &mut world.nodes {
        node.live = false;
    }
    world.step_once();
    world.pass(100_000);
    world.step_once();
    assert_eq!(world.phase(), Phase::RollingOut);
    world.nodes[0].live = true;
    world.step_once();
    assert_eq!(world.phase(), Phase::RollingOut);
    let nodes = std::mem::take(&mut world.nodes);
    let decision = world.step_once();
    assert_eq!((world.phase(), decision.reason), (Phase::RollingOut, Reason::NoNodeAvailable));
    world.nodes = nodes;
    world.load();
    world.step();
    assert_eq!(world.phase(), Phase::Active);
}

#[test]
fn a_rollback_leaves_out_what_was_deleted_since() {
    let mut world = World::active(2);
    world.apply_item("b", "one");
    world.step();
    world.load();
    world.step();
    world.load();
    world.apply_item("a", "broken");
    world.delete_item("b");
    world.step_once();
    world.fail_on(0, Fault::Refused, "no");
    world.fail_on(1, Fault::Refused, "no");
    world.step_once();
    assert_eq!(world.phase(), Phase::RollingBack);
    let bundle = world.bundle.clone().unwrap();
    let names: Vec<_> = bundle.target.as_ref().unwrap().items.iter().map(|item| item.name.clone()).collect();
    assert_eq!(names, ["a"]);
    world.load();
    world.step_once();
    assert_eq!(world.phase(), Phase::RolledBack);
}

#[test]
fn a_first_file_is_rolled_back_to_none_and_withdrawn_from_there() {
    let mut world = World::new(1);
    world.apply_item("a", "broken");
    world.step_once();
    world.fail_on(0, Fault::Refused, "no");
    world.step_once();
    assert_eq!((world.phase(), world.bundle.as_ref().unwrap().target.clone()), (Phase::RolledBack, None));
    world.load();
    world.delete_item("a");
    world.step_once();
    assert_eq!(world.phase(), Phase::Withdrawing);
    world.load();
    world.step();
    assert!(world.bundle.is_none() && world.rules_file.is_none());
}

#[test]
fn a_target_that_only_takes_away_is_never_rolled_back() {
    let mut world = World::active(2);
    world.apply_item("b", "one");
    world.step();
    world.load();
    world.step();
    world.load();
    world.delete_item("b");
    world.step_once();
    world.fail_on(0, Fault::Refused, "no");
    world.fail_on(1, Fault::Refused, "no");
    world.step_once();
    assert_eq!(world.phase(), Phase::Degraded);
    assert_eq!(world.bundle.as_ref().unwrap().target, Some(world.desired()));
    world.load();
    world.step_once();
    assert_eq!(world.phase(), Phase::Active);
}

#[test]
fn a_new_token_tries_the_rejected_file_again_and_the_same_does_not() {
    let mut world = rolled_back();
    world.load();
    world.step_once();
    world.spec().retry_token = Some("1".into());
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["status", "bundle"]);
    assert_eq!((world.phase(), world.status().retry_token.as_deref()), (Phase::RollingOut, Some("1")));
    assert_eq!(world.bundle.as_ref().unwrap().rejected_hash, None);
    world.fail_on(0, Fault::Refused, "no");
    world.fail_on(1, Fault::Refused, "no");
    world.step();
    world.load();
    world.step_once();
    assert_eq!(world.phase(), Phase::RolledBack);
    // A pause keeps the wish.
    world.spec().paused = true;
    world.spec().retry_token = Some("2".into());
    world.step_once();
    assert_eq!((world.phase(), world.status().retry_token.as_deref()), (Phase::Distributing, Some("1")));
    world.spec().paused = false;
    world.step_once();
    assert_eq!((world.phase(), world.status().retry_token.as_deref()), (Phase::RollingOut, Some("2")));
}

#[test]
fn what_runs_is_what_is_wished_for_again() {
    let mut world = rolled_back();
    world.apply_item("a", "one");
    world.step_once();
    assert_eq!((world.phase(), &world.status().rejected_hash), (Phase::Active, &None));
    assert_eq!(world.bundle.as_ref().unwrap().rejected_hash, None);
}

#[test]
fn an_edit_while_rolling_back_starts_over_from_the_last_good_file() {
    let mut world = edited(3);
    let good = world.bundle.as_ref().unwrap().settled().cloned();
    world.load_on(2);
    world.fail_on(0, Fault::Refused, "no");
    world.fail_on(1, Fault::Refused, "no");
    world.step_once();
    assert_eq!(world.phase(), Phase::RollingBack);
    world.apply_item("a", "three");
    world.step_once();
    assert_eq!(world.phase(), Phase::RollingOut);
    let bundle = world.bundle.clone().unwrap();
    assert_eq!((bundle.settled().cloned(), bundle.rejected_hash), (good, None));
}

#[test]
fn a_pause_stops_before_the_next_wave_and_before_the_first() {
    let mut world = edited(4);
    world.policy.waves = vec![Wave::Nodes(1)];
    world.apply_item("a", "three");
    world.step_once();
    let canaries = world.bundle.as_ref().unwrap().rollout.clone().unwrap().canaries;
    assert_eq!(canaries.len(), 1);
    world.spec().paused = true;
    world.load();
    let decision = world.step_once();
    assert_eq!((world.phase(), decision.reason), (Phase::RollingOut, Reason::Paused));
    world.apply_item("a", "four");
    world.step_once();
    assert_ne!(world.bundle.as_ref().unwrap().target, Some(world.desired()));
    world.spec().paused = false;
    world.step_once();
    assert_eq!(world.bundle.as_ref().unwrap().target, Some(world.desired()));
    world.load();
    world.step();
    world.load();
    world.step();
    assert_eq!(world.phase(), Phase::Active);
    world.spec().paused = true;
    world.step_once();
    world.apply_item("a", "five");
    world.step_once();
    assert_eq!(world.phase(), Phase::Distributing);
    world.apply_item("a", "four");
    world.step_once();
    assert_eq!(world.phase(), Phase::Active);
}

#[test]
fn waves_grow_and_hold_exactly_so_many_nodes() {
    let mut world = World::active(40);
    world.policy.waves = vec![Wave::Nodes(2), Wave::Percent(50), Wave::All];
    world.apply_item("a", "two");
    world.step_once();
    let part = |world: &World| {
        let rollout = world.bundle.as_ref().unwrap().rollout.clone().unwrap();
        let nodes = world.nodes.iter().map(|node| node.name.clone());
        nodes.filter(|name| rollout.includes(NAMESPACE, name)).collect::<BTreeSet<_>>()
    };
    let first = part(&world);
    assert_eq!((first.len(), world.status().wave), (2, Some(1)));
    world.load();
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["status", "bundle"]);
    let second = part(&world);
    assert_eq!((second.len(), world.status().wave), (20, Some(2)));
    assert!(first.is_subset(&second));
    world.load();
    world.step_once();
    assert_eq!((part(&world).len(), world.status().wave), (40, Some(3)));
    world.load();
    world.step();
    assert_eq!(world.phase(), Phase::Active);
}

#[test]
fn a_canary_that_goes_is_replaced_and_a_lone_refusal_gets_a_second_opinion() {
    let mut world = World::active(5);
    world.policy.waves = vec![Wave::Nodes(1)];
    world.apply_item("a", "two");
    world.step_once();
    let canaries = |world: &World| world.bundle.as_ref().unwrap().rollout.clone().unwrap().canaries;
    let first = canaries(&world)[0].clone();
    world.nodes.retain(|node| node.name != first);
    world.step_once();
    let second = canaries(&world);
    assert!(second.len() == 1 && second[0] != first);
    let index = world.nodes.iter().position(|node| node.name == second[0]).unwrap();
    world.fail_on(index, Fault::Refused, "no");
    world.step_once();
    let asked = canaries(&world);
    assert_eq!((world.phase(), asked.len()), (Phase::RollingOut, 2));
    let other = world.nodes.iter().position(|node| node.name == asked[1]).unwrap();
    let mut well = world.clone();
    world.fail_on(other, Fault::Refused, "no");
    world.step();
    assert_eq!(world.status().rejected_hash, Some(world.desired().hash));
    well.load_on(other);
    well.step_once();
    assert_eq!((well.phase(), well.status().wave), (Phase::RollingOut, Some(2)));
}

#[test]
fn too_large_a_file_stays_where_it_was_and_says_so() {
    let mut world = World::active(1);
    world.too_large = true;
    world.apply_item("b", "huge");
    let decision = world.step_once();
    assert_eq!((world.phase(), decision.reason), (Phase::Active, Reason::TooLarge));
    assert!(condition_is(&world.status().conditions, "Stalled"));
    world.too_large = false;
    world.step_once();
    assert_eq!(world.phase(), Phase::RollingOut);

    let mut world = World::new(1);
    world.too_large = true;
    world.apply_item("b", "huge");
    assert_eq!(kinds(&world.step_once().actions), ["create", "status"]);
    assert_eq!(world.phase(), Phase::Rendering);
    world.step_once();
    world.delete_item("b");
    assert_eq!(kinds(&world.step().actions), ["delete"]);
}

#[test]
fn nodes_that_come_and_go_move_numbers_lazily() {
    let mut world = World::active(2);
    let hash = world.desired().hash;
    world.nodes.push(TestNode { loaded: hash, ..TestNode::new("node-9") });
    let decision = world.decide();
    assert_eq!((decision.actions.len(), decision.refresh), (0, Refresh::Lazy));
    assert_eq!(decision.status.loaded.as_deref(), Some("3/3"));
    // One that has yet to load everything is no reason to call the namespace degraded.
    world.nodes[2].loaded = NONE.into();
    let decision = world.decide();
    assert_eq!((decision.actions.len(), decision.refresh), (0, Refresh::Lazy));
    assert_eq!(decision.status.phase, Phase::Active);
    world.nodes.clear();
    let decision = world.decide();
    assert_eq!((decision.refresh, decision.reason), (Refresh::Now, Reason::NoNodeAvailable));
    assert_eq!(decision.status.phase, Phase::Active);
    world.agents = false;
    assert_eq!(world.decide().reason, Reason::NoAgents);
    world.agents = true;
    world.unproved = 2;
    let decision = world.decide();
    assert_eq!((decision.reason, decision.status.loaded.as_deref()), (Reason::Unproved, Some("0/2")));
}

#[test]
fn a_node_that_loses_the_file_degrades_and_recovers() {
    let mut world = World::active(2);
    world.nodes[0].loaded = NONE.into();
    world.nodes[0].tried = Some(world.desired().hash);
    world.nodes[0].fault = Some(Fault::BaseChanged);
    let decision = world.step_once();
    assert_eq!((world.phase(), told(&decision)), (Phase::Degraded, vec![EventReason::Degraded]));
    world.load();
    let decision = world.step_once();
    assert_eq!((world.phase(), told(&decision)), (Phase::Active, vec![EventReason::Loaded]));
}

#[test]
fn a_lost_bundle_is_written_again_as_it_was() {
    let mut world = World::active(2);
    let bundle = world.bundle.take();
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["bundle"]);
    assert_eq!(world.bundle, bundle);
    // With an edit on top, every node at once: nobody knows what those outside a wave should keep.
    world.policy.waves = vec![Wave::Nodes(1)];
    world.bundle = None;
    world.apply_item("a", "two");
    world.step_once();
    let rollout = world.bundle.as_ref().unwrap().rollout.clone().unwrap();
    assert_eq!(rollout.threshold.as_deref(), Some(Rollout::ALL));
}

#[test]
fn a_lost_bundle_of_a_namespace_that_goes_is_withdrawn_all_the_same() {
    let mut world = World::active(2);
    world.bundle = None;
    world.terminating = true;
    world.delete_rules_file();
    let decision = world.step_once();
    assert_eq!(kinds(&decision.actions), ["status", "bundle"]);
    world.load();
    world.step();
    assert!(world.rules_file.is_none() && world.bundle.is_none());
}

#[test]
fn a_crash_between_status_and_bundle_is_made_good() {
    let mut worlds: Vec<(&str, World)> = vec![];
    let mut start = World::active(2);
    start.apply_item("a", "two");
    worlds.push(("start", start));
    let mut settle = edited(2);
    settle.load();
    worlds.push(("settle", settle));
    let mut back = edited(3);
    back.load_on(2);
    back.fail_on(0, Fault::Refused, "no");
    back.fail_on(1, Fault::Refused, "no");
    worlds.push(("roll back", back.clone()));
    back.step();
    back.load();
    worlds.push(("rolled back", back.clone()));
    back.step();
    back.spec().retry_token = Some("1".into());
    worlds.push(("retry", back.clone()));
    back.spec().retry_token = None;
    back.apply_item("a", "one");
    worlds.push(("revert", back));
    let mut withdraw = World::active(2);
    withdraw.delete_item("a");
    worlds.push(("withdraw", withdraw));
    for (what, world) in worlds {
        let mut whole = world.clone();
        whole.step();
        let mut crashed = world.clone();
        let decision = crashed.decide();
        assert_eq!(kinds(&decision.actions), ["status", "bundle"], "{what}");
        crashed.perform(&Action::WriteStatus, &decision);
        crashed.pass(3);
        let rest = crashed.step();
        assert_eq!(kinds(&rest.actions), ["bundle"], "{what}");
        assert_eq!(crashed.bundle, whole.bundle, "{what}");
        assert_eq!(crashed.rules_file.unwrap().status, whole.rules_file.unwrap().status, "{what}");
    }
}

/// A world whose rules file is in this phase.
fn in_phase(phase: Phase) -> World {
    let mut world = match phase {
        Phase::Empty => {
            let mut world = World::new(2);
            world.spec().retry_token = Some("0".into());
            world
        }
        Phase::Rendering => {
            let mut world = World::new(2);
            world.too_large = true;
            world.apply_item("a", "huge");
            world
        }
        Phase::Distributing => {
            let mut world = World::active(2);
            world.spec().paused = true;
            world.apply_item("a", "two");
            world
        }
        Phase::RollingOut => edited(2),
        Phase::Degraded => {
            let mut world = World::active(2);
            world.fail_on(1, Fault::BaseChanged, "the base changed");
            world.nodes[1].loaded = NONE.into();
            world
        }
        Phase::RollingBack => {
            let mut world = edited(3);
            world.load_on(0);
            world.fail_on(1, Fault::Refused, "no");
            world.fail_on(2, Fault::Refused, "no");
            world
        }
        Phase::RolledBack => rolled_back(),
        Phase::Withdrawing => {
            let mut world = World::active(2);
            world.delete_item("a");
            world
        }
        Phase::Active | Phase::Unknown => World::active(2),
    };
    world.step();
    assert_eq!(world.phase(), phase);
    world.taken.clear();
    world
}

#[test]
fn every_transition_of_the_table_is_taken() {
    let mut taken = BTreeSet::new();
    let mut note = |world: &World| taken.extend(world.taken.iter().map(|(from, on, to)| (*from, on.name(), *to)));
    for phase in Phase::ALL {
        let start = in_phase(*phase);
        let mut edited = start.clone();
        edited.too_large = false;
        edited.apply_item("a", "another");
        edited.step();
        note(&edited);
        let mut left = start.clone();
        left.terminating = true;
        left.step();
        note(&left);
        let mut done = start.clone();
        done.load();
        done.step();
        note(&done);
        let mut refused = start.clone();
        refused.fail_on(0, Fault::Refused, "no");
        refused.fail_on(1, Fault::Refused, "no");
        refused.step();
        note(&refused);
        let mut late = start.clone();
        late.pass(300);
        late.step();
        note(&late);
        let mut retried = start.clone();
        retried.spec().retry_token = Some("1".into());
        retried.step();
        note(&retried);
        let mut reverted = start.clone();
        reverted.items = vec![("a".into(), "one".into())];
        reverted.step();
        note(&reverted);
        let mut some = start.clone();
        some.load();
        some.fail_on(1, Fault::NodeFault, "not mine");
        some.nodes[1].loaded = NONE.into();
        some.step();
        note(&some);
    }
    // The first wave of two.
    let mut world = World::active(4);
    world.policy.waves = vec![Wave::Nodes(1)];
    world.apply_item("a", "two");
    world.step();
    world.load();
    world.step();
    note(&world);
    // A pause, an edit of what was rolled back, and the edit taken back.
    let mut world = rolled_back();
    world.spec().paused = true;
    world.apply_item("a", "three");
    world.step();
    world.apply_item("a", "two");
    world.step();
    assert_eq!(world.phase(), Phase::RolledBack);
    note(&world);
    // A namespace that goes before its finalizer has held anything, with nobody to say what is loaded.
    let mut world = in_phase(Phase::Empty);
    let stored = world.rules_file.as_mut().unwrap();
    (stored.finalizer, stored.status) = (true, None);
    world.terminating = true;
    world.nodes.clear();
    world.step();
    assert_eq!(world.phase(), Phase::Withdrawing);
    note(&world);
    let table: BTreeSet<_> = Phase::TRANSITIONS.iter().map(|(from, on, to)| (*from, on.name(), *to)).collect();
    assert_eq!(taken, table);
}

#[test]
fn every_phase_can_be_reached_and_left() {
    let mut reached = BTreeSet::from([Phase::default()]);
    for _ in Phase::ALL {
        let next: Vec<_> = Phase::TRANSITIONS.iter().filter(|(from, ..)| reached.contains(from)).collect();
        reached.extend(next.iter().map(|(_, _, to)| *to));
    }
    assert_eq!(reached, Phase::ALL.iter().copied().collect());
    for phase in Phase::ALL {
        assert!(phase.next(crate::api::Event::NothingLeft).is_some() || *phase == Phase::Withdrawing);
    }
}
