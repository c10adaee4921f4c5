//! Conditions, lists, macros, exceptions and catalogues on their way into the file.

use super::*;
use crate::api::{ExceptionFields, ExceptionSpec, FalcoCatalogSpec};
use crate::language::{CatalogData, Code};

/// The condition in the file of the one rule of the world.
fn condition(world: &World) -> String {
    let rendered = world.render();
    let verdict = &rendered.rules["a"];
    assert_eq!(verdict.rejected, None, "{verdict:?}");
    FileRule::read(rendered.written("a").unwrap()).unwrap().condition.into_owned()
}

fn world(condition: &str) -> World {
    let mut world = World::of(vec![rule("a")]);
    world.rules[0].spec.condition = condition.to_owned();
    world
}

fn rejection(world: &World) -> (Reason, String) {
    let rendered = world.render();
    let verdict = &rendered.rules["a"];
    assert_eq!(rendered.written("a"), None);
    (verdict.rejected.unwrap_or_else(|| panic!("{verdict:?}")), verdict.message.clone().unwrap())
}

fn catalog(version: &str, change: impl FnOnce(&mut CatalogData)) -> Catalog {
    let mut data = Catalog::data_of(&["container"]);
    data.falco_version = version.to_owned();
    change(&mut data);
    Catalog::new(data)
}

#[test]
fn conditions_that_use_nothing_of_the_namespace_stay_as_written() {
    let mut world = world("evt.type=open  and\n  proc.name in (bash,sh)\n");
    world.macros = vec![macro_("m", "evt.type = close")];
    assert_eq!(condition(&world), "evt.type=open  and\n  proc.name in (bash,sh)");
}

#[test]
fn lists_macros_and_exceptions_are_inlined_as_trees() {
    let mut world = world("m and not proc.pname in (l, cron)");
    world.macros = vec![macro_("m", "evt.type = open or n"), macro_("n", "evt.type = close and proc.name in (l)")];
    world.lists = vec![list("l", &["bash", "inner", "two words"]), list("inner", &["x) or evt.num > 0"])];
    world.rules[0].spec.exceptions = vec![ExceptionSpec {
        name: "e".into(),
        fields: ExceptionFields::Many(vec!["proc.name".into(), "fd.num".into()]),
        comps: None,
        values: vec![serde_json::json!(["a b", 3]), serde_json::json!(["x)or(evt.num>0", 4])],
    }];
    assert_eq!(
        condition(&world),
        "((evt.type = open or evt.type = close and proc.name in (bash, \"x) or evt.num > 0\", \"two words\")) \
         and not proc.pname in (bash, \"x) or evt.num > 0\", \"two words\", cron)) \
         and not (proc.name = \"a b\" and fd.num = 3 or proc.name = \"x)or(evt.num>0\" and fd.num = 4)"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_others_go_on() {
    let (reason, message) = rejection(&world("evt.type = open and proc.nam = x"));
    assert_eq!(reason, Reason::Invalid);
    assert_eq!(message, "condition, column 21: there is no field `proc.nam` (did you mean `proc.name`?)");
    let (reason, message) = rejection(&world("evt.type = open and nothing"));
    assert_eq!(reason, Reason::DependencyInvalid);
    assert!(message.contains("`nothing`"), "{message}");
    let (reason, _) = rejection(&world(&format!("{}evt.num=1{}", "(".repeat(101), ")".repeat(101))));
    assert_eq!(reason, Reason::Unsafe);
    let mut broken = world("evt.type = open and m");
    broken.macros = vec![macro_("m", "proc.name ="), macro_("unused", "evt.num > 0")];
    let (reason, message) = rejection(&broken);
    assert_eq!(reason, Reason::DependencyInvalid, "{message}");
    let rendered = broken.render();
    assert_eq!(rendered.macros["m"].rejected, Some(Reason::Invalid));
    assert!(rendered.macros["m"].message.as_ref().unwrap().starts_with("condition, column "));
    assert_eq!(rendered.macros["unused"].rejected, None);
    assert!(rendered.macros["unused"].message.as_ref().unwrap().contains("unused"), "{rendered:?}");
    for (value, words) in [(serde_json::json!({"a": 1}), "neither text"), (serde_json::json!(null), "neither text")] {
        let mut odd = world("evt.type = open");
        odd.rules[0].spec.exceptions = vec![ExceptionSpec {
            name: "e".into(),
            fields: ExceptionFields::One("proc.name".into()),
            comps: None,
            values: vec![value],
        }];
        assert!(rejection(&odd).1.contains(words));
    }
}

#[test]
fn a_broken_macro_switches_no_rule_off() {
    let mut world = world("m");
    world.macros = vec![macro_("m", "evt.type = open")];
    let before = text(&world.settle());
    world.macros[0].spec.condition = "evt.type =".into();
    let rendered = world.render();
    assert_eq!(rendered.rules["a"].rejected, Some(Reason::DependencyInvalid));
    assert_eq!(rendered.rules["a"].generation_in_force, Some(1));
    assert_eq!(text(&rendered), before);
    world.macros.clear();
    assert_eq!(text(&world.render()), before);
}

#[test]
fn of_two_macros_by_one_name_the_older_counts() {
    let mut world = world("m");
    let mut old = macro_("z", "evt.type = open");
    old.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    old.spec.macro_ = "m".into();
    world.macros = vec![macro_("m", "evt.type = close"), old];
    assert_eq!(condition(&world), "evt.type = open");
    assert_eq!(world.render().macros["m"].rejected, Some(Reason::NameTaken));
}

#[test]
fn warnings_are_told_and_do_not_reject() {
    let rendered = world("proc.name = bash").render();
    let verdict = &rendered.rules["a"];
    assert_eq!(verdict.rejected, None);
    assert!(verdict.message.as_ref().unwrap().starts_with("warning: "), "{verdict:?}");
    assert_eq!(verdict.findings[0].code, Code::NoEventType);
    let mut strict = world("proc.name = bash");
    strict.policy = Policy::from_yaml("eventTypes: require").unwrap();
    assert_eq!(rejection(&strict).0, Reason::PolicyDenied);
    let mut few = World::of(vec![rule("a"), rule("b"), rule("c")]);
    for rule in &mut few.rules {
        rule.spec.condition = "proc.name = bash".into();
        rule.spec.warn_evttypes = Some(false);
    }
    few.rules[2].spec.condition = "evt.type = open".into();
    few.policy = Policy::from_yaml("quotas: {broadRules: 1}").unwrap();
    let rendered = few.render();
    assert_eq!(rendered.rules["a"].rejected, None);
    assert_eq!(rendered.rules["b"].rejected, Some(Reason::PolicyDenied));
    assert_eq!(rendered.rules["c"].rejected, None);
}

#[test]
fn base_macros_and_lists_are_referred_to_and_base_names_are_not_taken() {
    let mut world = world("base_macro and proc.name in (base_list, x)");
    world.catalogs = vec![catalog("0.44.1", |data| {
        data.rules = vec!["rule a".into()];
        data.macros = vec![("base_macro".into(), "evt.type = open".into())];
        data.lists = vec![("base_list".into(), vec!["y".into()]), ("open".into(), vec!["close".into()])];
    })];
    assert_eq!(condition(&world), "base_macro and proc.name in (base_list, x)");
    assert_eq!(world.render().rules["a"].rule_name.as_deref(), Some("ns/rule a"));
    // A word that Falco would paste its own list over does not mean that list.
    world.rules[0].spec.condition = "evt.type=open".into();
    assert_eq!(condition(&world), "evt.type = \"open\"");
    world.rules[0].spec.condition = "proc.cmdline contains \"an open file\"".into();
    let (reason, message) = rejection(&world);
    assert_eq!(reason, Reason::Unsafe, "{message}");
    assert!(message.contains("`open`"), "{message}");
}

#[test]
fn the_namespaces_own_come_before_falcos() {
    let mut world = world("m and proc.name in (l)");
    world.catalogs = vec![catalog("0.44.1", |data| {
        data.macros = vec![("m".into(), "evt.type = close".into())];
        data.lists = vec![("l".into(), vec!["theirs".into()])];
    })];
    world.macros = vec![macro_("m", "evt.type = open")];
    world.lists = vec![list("l", &["ours"])];
    assert_eq!(condition(&world), "evt.type = open and proc.name in (ours)");
}

#[test]
fn where_nodes_differ_what_only_some_can_load_says_so() {
    let mut world = world("evt.type = open and proc.name = x");
    world.catalogs = vec![catalog("0.44.1", |_| {}), catalog("0.43.0", |_| {})];
    world.settle();
    let old = |data: &mut CatalogData| data.fields.retain(|field| field.name != "proc.name");
    world.catalogs[1] = catalog("0.43.0", old);
    // What is in force stays so, and says it.
    let verdict = &world.render().rules["a"];
    assert_eq!(verdict.rejected, None);
    assert!(verdict.message.as_ref().unwrap().starts_with("nodes with Falco 0.43.0 can't load it: "), "{verdict:?}");
    // What is new waits, and the version in force stays.
    world.rules[0].spec.condition = "evt.type = close and proc.name = x".into();
    let verdict = &world.render().rules["a"];
    assert_eq!((verdict.rejected, verdict.generation_in_force), (Some(Reason::SomeNodesOnly), Some(1)));
    world.rules[0].spec.skip_if_unknown_filter = Some(true);
    let verdict = &world.render().rules["a"];
    assert_eq!((verdict.rejected, verdict.not_running.as_deref()), (None, None));
    assert!(verdict.message.as_ref().unwrap().contains("does not run on nodes with Falco 0.43.0"), "{verdict:?}");
    // Where no node can load it, nothing of it stays.
    world.rules[0].spec.skip_if_unknown_filter = None;
    world.catalogs.remove(0);
    let verdict = &world.render().rules["a"];
    assert_eq!((verdict.rejected, verdict.generation_in_force), (Some(Reason::Invalid), None));
}

#[test]
fn a_word_that_is_a_list_on_some_nodes_only_is_refused() {
    let mut world = world("evt.type = open and proc.name in (shells)");
    world.catalogs = vec![
        catalog("0.44.1", |data| data.lists = vec![("shells".into(), vec!["bash".into()])]),
        catalog("0.43.0", |_| {}),
    ];
    let (_, message) = rejection(&world);
    assert!(message.contains("`shells` is a list of Falco's own on the nodes with Falco 0.44.1 only"), "{message}");
    world.lists = vec![list("shells", &["bash"])];
    assert_eq!(condition(&world), "evt.type = open and proc.name in (bash)");
}

#[test]
fn what_is_loaded_and_can_not_run_says_so() {
    let published = |priority: &str, selection: &str| {
        let spec = FalcoCatalogSpec {
            priority: Some(priority.to_owned()),
            selections: vec![selection.to_owned()],
            ..FalcoCatalogSpec::default()
        };
        let real = crate::render::catalog(&spec);
        catalog("0.44.1", |data| {
            data.priority = real.priority().to_owned();
            data.selections = real.selections().to_vec();
        })
    };
    let mut world = world("evt.type = open");
    world.catalogs = vec![published("notice", "enable rule x")];
    let verdict = &world.render().rules["a"];
    assert!(verdict.rejected.is_none() && verdict.written);
    assert!(verdict.not_running.as_ref().unwrap().contains("less severe"), "{verdict:?}");
    // The name that a selection is matched with is the one that Falco knows.
    world.catalogs = vec![published("debug", "disable rule ns/*")];
    assert_eq!(world.render().rules["a"].not_running, None);
    world.policy = Policy::from_yaml("isolation: {names: qualified}").unwrap();
    assert!(world.render().rules["a"].not_running.is_some());
    world.policy = Policy::default();
    world.rules[0].spec.source = Some("k8s_audit".into());
    let verdict = &world.render().rules["a"];
    assert!(verdict.not_running.as_ref().unwrap().contains("no source `k8s_audit` is loaded"), "{verdict:?}");
    assert_eq!(verdict.message, None, "it is said once");
}
