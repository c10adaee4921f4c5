use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::api::{FalcoList, FalcoMacro, FalcoRule};
use crate::language::Catalog;
use crate::render::Names;
use crate::webhook::object::{Reading, Request, read};

fn rule_spec(condition: &str) -> Value {
    json!({"rule": "shell", "desc": "d", "condition": condition, "output": "o %proc.name", "priority": "WARNING"})
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "mumoshu.github.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "team-a"}, "spec": spec,
    })
}

fn request(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "uid": "u",
        "kind": {"group": "mumoshu.github.io", "version": "v1alpha1", "kind": kind},
        "resource": {"group": "mumoshu.github.io", "version": "v1alpha1", "resource": "x"},
        "name": name, "namespace": "team-a", "operation": "CREATE", "userInfo": {},
        "object": object(kind, name, spec), "oldObject": null, "dryRun": false,
    })
}

fn parsed(request: Value) -> Request {
    serde_json::from_value(request).unwrap()
}

fn written(request: Value) -> Written {
    match read(&parsed(request)) {
        Reading::Judge(written) => *written,
        other => panic!("{other:?}"),
    }
}

fn world() -> Snapshot {
    Snapshot { namespace: "team-a".into(), catalogs: vec![Catalog::default()], ..Snapshot::default() }
}

fn with(mut world: Snapshot, kind: &str, name: &str, spec: &Value) -> Snapshot {
    written(request(kind, name, spec)).object.put(&mut world);
    world
}

fn answer(world: &Snapshot, request: Value) -> Answer {
    review(&written(request), world, &Policy::default(), false)
}

fn said(answer: &Answer) -> String {
    answer.causes.iter().map(|cause| format!("{}: {}\n", cause.field, cause.message)).collect()
}

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap()
}

#[test]
fn what_is_well_is_allowed_without_a_word() {
    for (kind, spec) in [
        ("FalcoRule", rule_spec("evt.type = execve and proc.name = bash")),
        ("FalcoMacro", json!({"macro": "m", "condition": "proc.name = bash"})),
        ("FalcoList", json!({"list": "l", "items": ["a", "b"]})),
    ] {
        assert_eq!(answer(&world(), request(kind, "x", &spec)), Answer::default(), "{kind}");
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let mut spec = rule_spec("evt.type = execve and proc.nmae = bash\n  and fd.sport = https");
    spec["output"] = json!("%proc.nam");
    spec["tags"] = json!(["ok"]);
    let answer = answer(&world(), request("FalcoRule", "bash", &spec));
    assert!(!answer.is_allowed());
    let text = said(&answer);
    assert!(
        text.contains(
            "spec.condition: there is no field `proc.nmae` [unknown-field]\n --> spec.condition:1:23\n  |\n\
             1 | evt.type = execve and proc.nmae = bash\n  |                       ^^^^^^^^^\n  \
             = help: did you mean `proc.name`?\n"
        ),
        "{text}"
    );
    assert!(text.contains("--> spec.condition:2:"), "{text}");
    assert!(text.contains("spec.output: "), "{text}");
    assert!(answer.causes.len() >= 3, "{text}");
}

#[test]
fn falco_s_warnings_are_warnings_of_one_line() {
    let answer = answer(&world(), request("FalcoRule", "bash", &rule_spec("proc.name = bash")));
    assert!(answer.is_allowed());
    assert_eq!(answer.warnings.len(), 1, "{answer:?}");
    assert!(answer.warnings[0].starts_with("condition: "), "{answer:?}");
    let many = (0..50).map(|n| format!("a{n} = <NA>")).collect::<Vec<_>>();
    let mut answer = Answer { warnings: many, ..Answer::default() };
    answer.warnings.push(String::new());
    answer.warnings[0] = "é\n".repeat(300);
    shorten(&mut answer);
    assert_eq!(answer.warnings.len(), MOST + 1);
    assert_eq!(answer.warnings[0].chars().count(), WARNING);
    assert!(!answer.warnings[0].contains('\n'));
    assert_eq!(answer.warnings[MOST], "and 35 more warnings");
}

#[test]
fn macros_and_lists_are_judged_as_rules_are() {
    let macro_ = answer(&world(), request("FalcoMacro", "m", &json!({"macro": "m", "condition": "proc.nmae = x"})));
    assert!(said(&macro_).contains("--> spec.condition:1:1"), "{macro_:?}");
    let spec = json!({"macro": "m", "condition": "m or proc.name = x"});
    let looped = answer(&world(), request("FalcoMacro", "m", &spec));
    assert!(said(&looped).contains("stands for itself"), "{looped:?}");
    let list = answer(&world(), request("FalcoList", "l", &json!({"list": "l", "items": ["a", "l"]})));
    assert!(said(&list).starts_with("spec: list `l` holds itself"), "{list:?}");
    let taken = with(world(), "FalcoMacro", "first", &json!({"macro": "m", "condition": "proc.name = x"}));
    let second = answer(&taken, request("FalcoMacro", "second", &json!({"macro": "m", "condition": "proc.name = x"})));
    assert!(said(&second).contains("there is another macro `m`") && second.rests_on_others, "{second:?}");
}

#[test]
fn manifests_of_one_folder_can_be_applied_in_any_order() {
    let rule = rule_spec("evt.type = execve and team_shells_started");
    let early = answer(&world(), request("FalcoRule", "r", &rule));
    assert!(early.is_allowed() && early.rests_on_others, "{early:?}");
    assert_eq!(
        early.warnings,
        ["condition, column 23: there is no macro `team_shells_started`; until that changes, this is not in force"]
    );
    assert!(!review(&written(request("FalcoRule", "r", &rule)), &world(), &Policy::default(), true).is_allowed());

    let macro_ = json!({"macro": "team_shells_started", "condition": "proc.name in (bash)"});
    let known = with(world(), "FalcoMacro", "m", &macro_);
    assert_eq!(answer(&known, request("FalcoRule", "r", &rule)), Answer::default());

    // A slip is none of order, unless a whole folder is tried out.
    let slip = rule_spec("evt.type = execve and team_shell_started");
    let denied = answer(&known, request("FalcoRule", "r", &slip));
    assert!(said(&denied).contains("did you mean `team_shells_started`?"), "{denied:?}");
    let mut dry = request("FalcoRule", "r", &slip);
    dry["dryRun"] = json!(true);
    assert!(answer(&known, dry).is_allowed());

    // What can't be the name of a macro will never be there.
    let list = with(world(), "FalcoList", "l", &json!({"list": "team_shells", "items": ["bash"]}));
    for condition in ["evt.type = execve and proc.name", "evt.type = execve and team_shells", "evt.num > 0 and or"] {
        let denied = answer(&list, request("FalcoRule", "r", &rule_spec(condition)));
        assert!(!denied.is_allowed(), "{condition}");
    }
}

#[test]
fn a_change_that_breaks_others_is_told_and_not_denied() {
    let good = json!({"macro": "m", "condition": "proc.name = bash"});
    let world = with(world(), "FalcoMacro", "m", &good);
    let world = with(world, "FalcoRule", "user", &rule_spec("evt.type = execve and m"));
    let mut other = rule_spec("evt.type = execve and nothing_of_the_kind");
    other["rule"] = json!("other");
    let world = with(world, "FalcoRule", "broken-before", &other);

    let renamed = json!({"macro": "another", "condition": "proc.name = bash"});
    let answer = answer(&world, request("FalcoMacro", "m", &renamed));
    assert!(answer.is_allowed() && answer.rests_on_others, "{answer:?}");
    assert_eq!(answer.warnings.len(), 1, "{answer:?}");
    assert!(
        answer.warnings[0].starts_with("this breaks FalcoRule `user`: condition, column 23: there is no macro `m`")
    );
}

#[test]
fn names_are_answered_as_the_policy_says() {
    let mut names = Names::default();
    names.hold("team-b", ["shell".to_owned()].into());
    let world = Snapshot { names, ..world() };
    let rule = rule_spec("evt.type = execve and proc.name = bash");
    let auto = answer(&world, request("FalcoRule", "r", &rule));
    assert_eq!(
        auto.warnings,
        ["the name `shell` is taken in the cluster; alerts will show this rule as `team-a/shell`"]
    );
    let verbatim = policy("isolation: {names: verbatim}");
    let denied = review(&written(request("FalcoRule", "r", &rule)), &world, &verbatim, false);
    assert!(said(&denied).starts_with("spec.rule: a rule of another namespace has the name `shell`"), "{denied:?}");
    assert!(said(&denied).contains("1 | shell\n  | ^^^^^"), "{denied:?}");
    let qualified = policy("isolation: {names: qualified}");
    assert_eq!(review(&written(request("FalcoRule", "r", &rule)), &world, &qualified, false), Answer::default());

    let known = with(world, "FalcoRule", "first", &rule);
    let twin = answer(&known, request("FalcoRule", "second", &rule));
    assert!(said(&twin).contains("FalcoRule `first` of this namespace has the name `shell`"), "{twin:?}");
    assert!(answer(&known, request("FalcoRule", "first", &rule)).is_allowed(), "it is its own name");
}

#[test]
fn policy_and_quotas_are_answered() {
    let strict = policy("quotas: {rules: 1}\ndeniedFields: [proc.env]\n");
    let mut rule = rule_spec("evt.type = execve and proc.env contains x");
    rule["rule"] = json!("second");
    let denied = review(&written(request("FalcoRule", "r", &rule)), &world(), &strict, false);
    assert!(said(&denied).contains("may not use the field `proc.env`"), "{denied:?}");
    let full = with(world(), "FalcoRule", "first", &rule_spec("evt.type = execve and proc.name = bash"));
    rule["condition"] = json!("evt.type = execve and proc.name = sh");
    let denied = review(&written(request("FalcoRule", "second", &rule)), &full, &strict, false);
    assert!(said(&denied).contains("quota is 1") && denied.rests_on_others, "{denied:?}");
}

#[test]
fn what_only_some_nodes_can_load_goes_in_with_a_word() {
    let old = Catalog::new(crate::language::CatalogData {
        falco_version: "0.1.0".into(),
        sources: vec!["syscall".into()],
        ..crate::language::CatalogData::default()
    });
    let world = Snapshot { catalogs: vec![Catalog::default(), old], ..world() };
    let rule = rule_spec("evt.type = execve and proc.name = bash");
    let answer = answer(&world, request("FalcoRule", "r", &rule));
    assert!(answer.is_allowed(), "{answer:?}");
    assert!(
        answer.warnings.iter().any(|warning| warning.contains("nodes with Falco 0.1.0 can't load it")),
        "{answer:?}"
    );
}

#[test]
fn a_file_that_nodes_could_not_be_given_does_not_begin() {
    let long = format!("evt.type = execve and proc.name in ({})", vec!["a_word_of_some_length"; 2400].join(", "));
    let mut world = world();
    for number in 0..11 {
        let mut spec = rule_spec(&long);
        spec["rule"] = json!(format!("rule {number}"));
        world = with(world, "FalcoRule", &format!("rule-{number}"), &spec);
    }
    let mut spec = rule_spec(&long);
    spec["rule"] = json!("one more");
    let answer = answer(&world, request("FalcoRule", "one-more", &spec));
    assert!(said(&answer).contains("the most that nodes can be given"), "{answer:?}");
}

#[test]
fn nothing_is_in_the_way_of_what_changes_no_spec() {
    let broken = rule_spec("proc.nonsense = x");
    let base = || request("FalcoRule", "r", &broken);
    let pass = |request: Value| matches!(read(&parsed(request)), Reading::Pass);
    assert!(!pass(base()));
    let mut delete = base();
    delete["operation"] = json!("DELETE");
    delete["oldObject"] = delete["object"].take();
    assert!(pass(delete));
    let mut leaving = base();
    leaving["object"]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(pass(leaving));
    let mut labelled = base();
    labelled["operation"] = json!("UPDATE");
    labelled["oldObject"] = labelled["object"].clone();
    labelled["object"]["metadata"]["labels"] = json!({"a": "b"});
    assert!(pass(labelled.clone()));
    labelled["oldObject"]["spec"]["condition"] = json!("proc.name = x");
    assert!(!pass(labelled));
    let mut status = base();
    status["subResource"] = json!("status");
    assert!(pass(status));
    for (group, kind) in [("mumoshu.github.io", "FalcoRulesFile"), ("", "Pod")] {
        let mut other = base();
        other["kind"] = json!({"group": group, "version": "v1", "kind": kind});
        assert!(pass(other), "{kind}");
    }
}

#[test]
fn what_can_not_be_decoded_is_denied_in_words() {
    let mut spec = rule_spec("evt.type = execve");
    spec["exceptions"] = json!([{"name": "x", "fields": 5}]);
    match read(&parsed(request("FalcoRule", "r", &spec))) {
        Reading::Undecodable { field, message } => {
            assert_eq!(
                (field.as_str(), message.as_str()),
                ("spec.exceptions[0].fields", "expected a text or a list of texts")
            );
            let answer = Answer::undecodable(&field, &message);
            assert!(!answer.is_allowed());
        }
        other => panic!("{other:?}"),
    }
    let none: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "r"}})).unwrap();
    let mut empty = parsed(request("FalcoRule", "r", &spec));
    empty.object = Some(none);
    assert!(matches!(read(&empty), Reading::Undecodable { .. }));
}

#[test]
fn an_object_takes_the_place_of_the_one_of_its_name() {
    let world = with(world(), "FalcoRule", "r", &rule_spec("evt.type = execve"));
    let world = with(world, "FalcoRule", "r", &rule_spec("evt.type = open"));
    let world = with(world, "FalcoList", "r", &json!({"list": "l", "items": []}));
    let (rules, macros, lists): (&[FalcoRule], &[FalcoMacro], &[FalcoList]) =
        (&world.rules, &world.macros, &world.lists);
    assert_eq!((rules.len(), macros.len(), lists.len()), (1, 0, 1));
    assert_eq!(rules[0].spec.condition, "evt.type = open");
}
