//! No condition sees what is outside its namespace, whatever it says.

use std::collections::BTreeMap;

use super::*;
use crate::api::{ExceptionFields, ExceptionSpec};
use crate::language::{Check, Expr, Op, Operand, Rhs, parse};

fn confined(condition: &str) -> World {
    let mut world = World::of(vec![rule("a")]);
    world.rules[0].spec.condition = condition.to_owned();
    world.policy = Policy::from_yaml("isolation: {scope: namespace}").unwrap();
    world
}

/// An event, as far as the evaluator knows fields.
type Event<'a> = BTreeMap<&'a str, &'a str>;

/// Whether the condition holds for the event. Checks that the evaluator does not know hold or not by `chance`.
fn holds(expr: &Expr, event: &Event<'_>, chance: &mut impl FnMut() -> bool) -> bool {
    match expr {
        Expr::And(parts) => parts.iter().all(|part| holds(part, event, chance)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, event, chance)),
        Expr::Not(inner) => !holds(inner, event, chance),
        Expr::Macro(_) => chance(),
        Expr::Check(check) => check_holds(check, event).unwrap_or_else(chance),
    }
}

fn check_holds(check: &Check, event: &Event<'_>) -> Option<bool> {
    let Operand::Field(field) = &check.operand else { return None };
    let value = event.get(&*field.name);
    Some(match (check.op, &check.rhs) {
        (Op::Exists, _) => value.is_some(),
        (Op::Eq | Op::EqEq, Rhs::Value(other)) => value.is_some_and(|value| *value == &*other.text),
        (Op::Ne, Rhs::Value(other)) => value.is_some_and(|value| *value != &*other.text),
        (Op::Contains, Rhs::Value(other)) => value.is_some_and(|value| value.contains(&*other.text)),
        (Op::In, Rhs::List(list)) => value.is_some_and(|value| list.values.iter().any(|other| *value == &*other.text)),
        _ => return None,
    })
}

/// The rendered condition has the guard at its root, and holds for no event of another namespace.
fn cannot_escape(rendered: &Rendered, seed: u64) {
    let Some(text) = rendered.written("a") else { return };
    let condition = FileRule::read(text).unwrap().condition;
    let tree = parse(&condition).tree.unwrap_or_else(|| panic!("{condition}")).unplaced();
    let Expr::And(parts) = &tree else { panic!("{condition}") };
    let Expr::Check(Check {
        operand: Operand::Field(field), op: Op::Eq, modifier: None, rhs: Rhs::Value(value), ..
    }) = &parts[0]
    else {
        panic!("{condition}")
    };
    assert_eq!((&*field.name, field.argument.is_some(), &*value.text), ("k8s.ns.name", false, "ns"), "{condition}");
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20 {
        let pick = |words: &[&'static str], at: u64| words[at as usize % words.len()];
        let mut event = Event::new();
        if random() % 4 > 0 {
            event.insert("k8s.ns.name", pick(&["other", "nsx", "", "NS", "ns "], random()));
        }
        event.insert("proc.name", pick(&["bash", "ns", "x"], random()));
        event.insert("evt.type", pick(&["open", "close"], random()));
        assert!(!holds(&tree, &event, &mut || random() % 2 == 0), "{condition} holds for {event:?}");
    }
}

#[test]
fn conditions_are_confined_as_trees() {
    let rendered = confined("evt.type = open or proc.name = bash").render();
    let condition = FileRule::read(rendered.written("a").unwrap()).unwrap().condition;
    assert_eq!(condition, "k8s.ns.name = ns and (evt.type = open or proc.name = bash)");
    cannot_escape(&rendered, 7);
}

#[test]
fn no_text_gets_out() {
    let deep = format!("{}evt.num=1{}", "(".repeat(100_000), ")".repeat(100_000));
    for (text, accepted) in [
        ("evt.type=open) or (proc.name=bash", false),
        ("evt.type=open) or (evt.num>0", false),
        ("(evt.type=open", false),
        ("evt.type=open)", false),
        ("evt.type=open # and", false),
        ("evt.type=open -- or evt.num>0", false),
        ("evt.type=open /* */ or evt.num>0", false),
        ("proc.name = \"x\" or evt.num > 0", true),
        ("proc.name = \"x\\\") or (evt.num > 0 or proc.name = \\\"y\"", true),
        ("proc.name = 'x' or evt.type = open", true),
        ("proc.name = \"x", false),
        ("proc.name in (a) or evt.type = open", true),
        ("proc.name in (l) or evt.type = open", true),
        ("m or evt.type = open", true),
        ("not m", true),
        ("not not (m or not evt.type = open)", true),
        ("tolower(proc.name) = bash or evt.type = open", true),
        ("proc.name = val(proc.pname) or evt.type = open", true),
        ("evt.type = open \u{ff4f}\u{ff52} evt.num > 0", false),
        ("evt.type = open\u{a0}or\u{a0}evt.num>0", false),
        ("evt.type = open\0 or evt.num > 0", false),
        ("k8s.ns.name = other or evt.type = open", true),
        ("not k8s.ns.name = ns", true),
        (deep.as_str(), false),
    ] {
        let mut world = confined(text);
        world.macros = vec![macro_("m", "proc.name = bash or k8s.ns.name = other")];
        world.lists = vec![list("l", &["x) or (evt.num > 0", "a\" or evt.num > 0 or proc.name = \"b", "ns"])];
        let rendered = world.render();
        let shown: String = text.chars().take(80).collect();
        assert_eq!(rendered.rules["a"].rejected.is_none(), accepted, "{shown}: {:?}", rendered.rules["a"].message);
        cannot_escape(&rendered, 11);
    }
}

#[test]
fn exceptions_do_not_get_out() {
    for value in ["x)or(evt.num>0", "a\" or evt.num>0 or proc.name=\"b", "(a) or evt.num>0", "a' or 'b", "\") or (\""] {
        let mut world = confined("evt.type = open");
        world.rules[0].spec.exceptions = vec![ExceptionSpec {
            name: "e".into(),
            fields: ExceptionFields::Many(vec!["proc.name".into()]),
            comps: None,
            values: vec![serde_json::json!([value])],
        }];
        cannot_escape(&world.render(), 13);
    }
}

/// Falco pastes its own lists over words, those of the guard too.
#[test]
fn lists_of_falcos_own_open_no_guard() {
    for (name, accepted) in [("ns", true), ("k8s.ns.name", false), ("and", false), ("evt.type", false), ("open", true)]
    {
        for items in [vec!["x"], vec!["ns) or (evt.num > 0", "y"], vec![]] {
            let mut data = Catalog::data_of(&["container"]);
            data.lists = vec![(name.to_owned(), items.into_iter().map(str::to_owned).collect())];
            let mut world = confined("evt.type = open or proc.name in (a, b)");
            world.catalogs = vec![Catalog::new(data)];
            let rendered = world.settle();
            let verdict = &rendered.rules["a"];
            assert_eq!(verdict.rejected.is_none(), accepted, "{name}: {verdict:?}");
            cannot_escape(&rendered, 17);
            // What is in force is known to be confined.
            world.rules[0].spec.condition = "evt.type =".into();
            assert_eq!(world.render().rules["a"].generation_in_force, accepted.then_some(1), "{name}");
        }
    }
}

#[test]
fn other_sources_are_refused_unless_allowed() {
    let mut world = confined("json.value[/a] = x");
    world.catalogs = vec![Catalog::with_plugins(&["container", "k8saudit", "json"])];
    world.rules[0].spec.source = Some("github".into());
    let verdict = &world.render().rules["a"];
    assert_eq!(verdict.rejected, Some(Reason::PolicyDenied), "{verdict:?}");
    assert!(verdict.message.as_ref().unwrap().contains("those of source `github` have none"), "{verdict:?}");
    world.policy = Policy::from_yaml("isolation: {scope: namespace, otherSources: allow}").unwrap();
    assert_eq!(world.render().rules["a"].rejected, None);
    world.rules[0].spec.source = Some("k8s_audit".into());
    world.rules[0].spec.condition = "ka.verb = create".into();
    let rendered = world.render();
    let text = rendered.written("a").unwrap();
    assert!(text.contains("ka.target.namespace = ns and ka.verb = create"), "{text}");
    // A Falco that can't tell the namespace of an event can't confine a rule to it.
    let mut world = confined("evt.type = open");
    world.catalogs = vec![Catalog::with_plugins(&[])];
    let verdict = &world.render().rules["a"];
    assert_eq!(verdict.rejected, Some(Reason::PolicyDenied));
    assert!(verdict.message.as_ref().unwrap().contains("no field `k8s.ns.name`"), "{verdict:?}");
}

#[test]
fn a_version_from_before_the_confinement_is_not_kept() {
    let mut world = confined("evt.type = open");
    world.policy = Policy::default();
    world.settle();
    world.rules[0].spec.condition = "evt.type =".into();
    assert_eq!(world.render().rules["a"].generation_in_force, Some(1));
    world.policy = Policy::from_yaml("isolation: {scope: namespace}").unwrap();
    assert_eq!(world.render().rules["a"].generation_in_force, None);
    world.rules[0].spec.condition = "evt.type = open".into();
    world.settle();
    world.rules[0].spec.condition = "evt.type =".into();
    assert_eq!(world.render().rules["a"].generation_in_force, Some(1));
}

/// Pieces that conditions, and attempts to leave one, are made of.
const PIECES: [&str; 30] = [
    "evt.type = open",
    "proc.name = bash",
    "k8s.ns.name = other",
    "k8s.ns.name != ns",
    "evt.num > 0",
    "m",
    "n",
    "proc.name in (l)",
    "proc.name in (l, 'x y')",
    "proc.name contains \")\"",
    "proc.name exists",
    "not",
    "and",
    "or",
    "(",
    ")",
    "not(",
    "or(",
    "and(",
    "\"",
    "'",
    "#",
    "=",
    ",",
    "()",
    "proc.name = \"a ) or ( b\"",
    "tolower(proc.name) = x",
    "fd.name startswith /etc",
    "l",
    "in",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_condition_gets_out(
        pieces in proptest::collection::vec(0..PIECES.len(), 1..14), seed in any::<u64>(),
        item in "[ -~]{0,12}",
    ) {
        let text = pieces.iter().map(|index| PIECES[*index]).collect::<Vec<_>>().join(" ");
        let mut world = confined(&text);
        world.macros = vec![macro_("m", "evt.type = open or proc.name in (l)"), macro_("n", "not k8s.ns.name = ns")];
        world.lists = vec![list("l", &["bash", &item])];
        cannot_escape(&world.render(), seed);
    }

    #[test]
    fn no_exception_gets_out(
        values in proptest::collection::vec("[a-z)(\"'= ,\\\\]{0,14}|ns|k8s\\.ns\\.name|\\) or \\(evt\\.num > 0", 1..4),
        comp in "=|!=|in|startswith|contains|pmatch|glob", one in any::<bool>(), seed in any::<u64>(),
    ) {
        let mut world = confined("evt.type = open or proc.name = bash");
        let tuples = values.iter().map(|value| if one { serde_json::json!(value) } else { serde_json::json!([value]) });
        world.rules[0].spec.exceptions = vec![ExceptionSpec {
            name: "e".into(),
            fields: if one { ExceptionFields::One("proc.name".into()) } else { ExceptionFields::Many(vec!["k8s.ns.name".into()]) },
            comps: Some(if one { ExceptionFields::One("in".into()) } else { ExceptionFields::Many(vec![comp]) }),
            values: tuples.collect(),
        }];
        cannot_escape(&world.render(), seed);
    }

    /// Most random texts are no conditions; these are.
    #[test]
    fn no_valid_condition_gets_out(
        checks in proptest::collection::vec((0..13_usize, any::<bool>(), any::<bool>(), 0..3_usize), 1..8),
        seed in any::<u64>(),
    ) {
        let valid = [
            "evt.type = open", "proc.name = bash", "k8s.ns.name = other", "k8s.ns.name != ns", "evt.num > 0", "m", "n",
            "proc.name in (l)", "proc.name in (l, 'x y')", "proc.name contains \")\"", "proc.name exists",
            "proc.name = \"a ) or ( b\"", "not not n",
        ];
        let mut text = String::new();
        let mut open = 0;
        for (index, (check, or, not, parentheses)) in checks.into_iter().enumerate() {
            if index > 0 {
                text.push_str(if or { " or " } else { " and " });
            }
            text.push_str(if not { "not " } else { "" });
            if parentheses == 1 {
                text.push('(');
                open += 1;
            }
            text.push_str(valid[check]);
            if parentheses == 2 && open > 0 {
                text.push(')');
                open -= 1;
            }
        }
        text.push_str(&")".repeat(open));
        let mut world = confined(&text);
        world.macros = vec![macro_("m", "evt.type = open or proc.name in (l)"), macro_("n", "not k8s.ns.name = ns")];
        world.lists = vec![list("l", &["bash"])];
        let rendered = world.render();
        prop_assert!(rendered.rules["a"].rejected.is_none(), "{text}: {:?}", rendered.rules["a"].message);
        cannot_escape(&rendered, seed);
    }
}
