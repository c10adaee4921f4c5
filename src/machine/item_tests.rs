//! What a rule, a macro or a list shows.

use super::{
    ItemFacts, ItemKind, Refresh, item_status,
    testing::{World, file},
};
use crate::{
    api::{AuthoredStatus, Fault, ItemPhase, NONE, Reason, condition_is},
    render::ItemVerdict,
};

/// The items that a world's developers see, with what was stored for each.
#[derive(Default)]
struct Seen {
    status: Option<AuthoredStatus>,
}

impl Seen {
    /// The status of the rule `name` of generation 1 with the decision that is due.
    fn rule(&self, world: &mut World, name: &str) -> (AuthoredStatus, Refresh) {
        self.verdict(world, name, |_| {})
    }

    fn verdict(
        &self,
        world: &mut World,
        name: &str,
        change: impl FnOnce(&mut ItemVerdict),
    ) -> (AuthoredStatus, Refresh) {
        let decision = world.decide();
        let text = file(&world.items).items.into_iter().find(|item| item.name == name).map(|item| item.text);
        let mut verdict =
            ItemVerdict { written: text.is_some(), rule_name: Some(name.into()), ..ItemVerdict::default() };
        change(&mut verdict);
        let item = ItemFacts {
            kind: ItemKind::Rule,
            name,
            generation: Some(1),
            status: self.status.as_ref(),
            verdict: &verdict,
            written: text.as_deref().filter(|_| verdict.written),
        };
        let now = world.now;
        world.with_facts(|facts| item_status(&item, facts, &decision, now))
    }

    /// Stores it, and checks that nothing more is to be written then.
    fn store(&mut self, world: &mut World, name: &str) -> AuthoredStatus {
        self.status = Some(self.rule(world, name).0);
        let (status, refresh) = self.rule(world, name);
        assert_eq!(refresh, Refresh::None);
        status
    }
}

fn reason(status: &AuthoredStatus) -> (&str, &str) {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    (&ready.status, &ready.reason)
}

#[test]
fn a_rule_goes_from_rolling_out_to_active() {
    let mut world = World::new(3);
    world.apply_item("a", "one");
    let mut seen = Seen::default();
    let (status, refresh) = seen.rule(&mut world, "a");
    assert_eq!((status.phase, refresh), (Some(ItemPhase::RollingOut), Refresh::Now));
    assert_eq!(status.loaded.as_deref(), Some("0/3"));
    world.step();
    let status = seen.store(&mut world, "a");
    assert_eq!(reason(&status), ("False", Reason::RollingOut.name()));
    assert!(condition_is(&status.conditions, "Reconciling"));
    world.load_on(0);
    let (status, refresh) = seen.rule(&mut world, "a");
    assert_eq!((status.loaded.as_deref(), status.loaded_nodes, refresh), (Some("1/3"), Some(1), Refresh::Soon));
    world.load();
    let (status, refresh) = seen.rule(&mut world, "a");
    assert_eq!((status.phase, refresh), (Some(ItemPhase::Active), Refresh::Now));
    assert_eq!((status.loaded.as_deref(), status.message.as_deref()), (Some("3/3"), None));
    assert_eq!(status.hash.as_deref(), Some(&world.desired().hash[..12]));
    assert!(condition_is(&status.conditions, "Ready"));
}

#[test]
fn an_untouched_rule_stays_active_while_its_neighbour_rolls_out() {
    let mut world = World::active(3);
    let mut seen = Seen::default();
    seen.store(&mut world, "a");
    world.apply_item("b", "one");
    world.step();
    for nodes in 0..3 {
        let (status, refresh) = seen.rule(&mut world, "a");
        assert_eq!((status.phase, status.loaded.as_deref()), (Some(ItemPhase::Active), Some("3/3")));
        // The file around it changed, which is no hurry.
        assert_eq!(refresh, Refresh::Lazy);
        let (other, _) = Seen::default().rule(&mut world, "b");
        assert_eq!((other.phase, other.loaded_nodes), (Some(ItemPhase::RollingOut), Some(nodes)));
        world.load_on(nodes as usize);
    }
    for index in 0..3 {
        world.nodes[index].loaded = file(&world.items[..1]).hash;
    }
    world.fail_on(0, Fault::Refused, "b is wrong");
    world.fail_on(1, Fault::Refused, "b is wrong");
    let (status, _) = seen.rule(&mut world, "a");
    assert_eq!((status.phase, status.loaded.as_deref()), (Some(ItemPhase::Active), Some("3/3")));
    let (other, _) = Seen::default().rule(&mut world, "b");
    assert_eq!((other.phase, reason(&other)), (Some(ItemPhase::RolledBack), ("False", Reason::Refused.name())));
    assert!(other.message.unwrap().contains("b is wrong"));
}

#[test]
fn an_edited_rule_tells_which_version_is_in_force() {
    let mut world = World::active(2);
    world.apply_item("a", "two");
    world.step();
    let decision = world.decide();
    let (verdict, desired) = (ItemVerdict { written: true, ..ItemVerdict::default() }, world.desired());
    let item = ItemFacts {
        kind: ItemKind::Rule,
        name: "a",
        generation: Some(2),
        status: None,
        verdict: &verdict,
        written: Some(&desired.items[0].text),
    };
    let (status, _) = world.with_facts(|facts| item_status(&item, facts, &decision, world.now));
    assert_eq!((status.generation_in_force, status.loaded.as_deref()), (Some(1), Some("0/2")));
}

#[test]
fn rejected_and_idle_rules_say_why() {
    let mut world = World::active(2);
    let seen = Seen::default();
    let (status, _) = seen.verdict(&mut world, "a", |verdict| {
        verdict.written = false;
        verdict.rejected = Some(Reason::Invalid);
        verdict.message = Some("line 1: unknown field `proc.nme`".into());
        verdict.generation_in_force = Some(0);
    });
    assert_eq!((status.phase, reason(&status)), (Some(ItemPhase::Rejected), ("False", Reason::Invalid.name())));
    assert_eq!((status.generation_in_force, status.loaded_nodes), (Some(0), Some(0)));
    assert!(status.message.as_ref().unwrap().contains("proc.nme"));
    assert!(condition_is(&status.conditions, "Stalled"));
    let (status, _) = seen.verdict(&mut world, "a", |verdict| verdict.not_running = Some("below priority".into()));
    assert_eq!((status.phase, reason(&status)), (Some(ItemPhase::Inactive), ("False", Reason::NotRunning.name())));
    assert_eq!(status.loaded.as_deref(), Some("2/2"));
}

#[test]
fn a_rule_that_is_held_back_says_by_what() {
    let mut world = World::active(2);
    world.spec().paused = true;
    world.apply_item("a", "two");
    world.step();
    let (status, _) = Seen::default().rule(&mut world, "a");
    assert_eq!((status.phase, reason(&status)), (Some(ItemPhase::Pending), ("False", Reason::Paused.name())));
    world.spec().paused = false;
    world.too_large = true;
    world.step();
    let (status, _) = Seen::default().rule(&mut world, "a");
    assert_eq!((status.phase, reason(&status)), (Some(ItemPhase::Pending), ("False", Reason::TooLarge.name())));
}

#[test]
fn node_numbers_move_lazily_and_nobody_to_ask_is_unknown() {
    let mut world = World::active(3);
    let mut seen = Seen::default();
    seen.store(&mut world, "a");
    world.nodes.pop();
    let (status, refresh) = seen.rule(&mut world, "a");
    assert_eq!((status.loaded.as_deref(), refresh), (Some("2/2"), Refresh::Lazy));
    world.nodes.clear();
    let (status, refresh) = seen.rule(&mut world, "a");
    assert_eq!((status.phase, refresh), (Some(ItemPhase::Active), Refresh::Now));
    assert_eq!(reason(&status), ("Unknown", Reason::NoNodeAvailable.name()));
}

#[test]
fn a_rule_that_a_node_lost_is_degraded_and_its_neighbours_are_not() {
    let mut world = World::active(2);
    let old = world.desired().hash;
    world.apply_item("b", "one");
    world.step();
    world.load();
    world.step();
    world.load();
    world.step();
    world.nodes[0].loaded = old;
    world.fail_on(0, Fault::BaseChanged, "the base lost a macro");
    world.step();
    let (status, _) = Seen::default().rule(&mut world, "b");
    assert_eq!((status.phase, reason(&status)), (Some(ItemPhase::Degraded), ("False", Reason::Degraded.name())));
    assert!(status.message.unwrap().contains("the base lost a macro"));
    world.nodes[1].loaded = NONE.into();
    world.nodes[1].live = false;
    let (status, _) = Seen::default().rule(&mut world, "b");
    assert_eq!((status.phase, status.loaded.as_deref()), (Some(ItemPhase::Degraded), Some("0/2")));
}

#[test]
fn macros_and_lists_are_active_once_valid() {
    let mut world = World::active(1);
    let decision = world.decide();
    let mut item = ItemFacts {
        kind: ItemKind::Part,
        name: "shells",
        generation: Some(4),
        status: None,
        verdict: &ItemVerdict::default(),
        written: None,
    };
    let (status, refresh) = world.with_facts(|facts| item_status(&item, facts, &decision, world.now));
    assert_eq!((status.phase, refresh, reason(&status).0), (Some(ItemPhase::Active), Refresh::Now, "True"));
    assert_eq!((status.loaded.clone(), status.observed_generation), (None, Some(4)));
    item.status = Some(&status);
    let (_, refresh) = world.with_facts(|facts| item_status(&item, facts, &decision, world.now));
    assert_eq!(refresh, Refresh::None);
    let rejected = ItemVerdict { rejected: Some(Reason::DependencyInvalid), ..ItemVerdict::default() };
    item.verdict = &rejected;
    let (status, refresh) = world.with_facts(|facts| item_status(&item, facts, &decision, world.now));
    assert_eq!((status.phase, refresh), (Some(ItemPhase::Rejected), Refresh::Now));
}
