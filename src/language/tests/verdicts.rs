//! What Falco 0.44.1 said to conditions, held against what is said here.

use serde_json::Value;

use crate::language::{Catalog, Class, Definitions, RuleText, check_condition};

pub(super) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_recorded_condition_gets_its_verdict() {
    let cases = lines(include_str!("../../../tests/falco/data/conditions.jsonl"));
    assert_eq!(cases.len(), 716);
    let plain = Catalog::with_plugins(&[]);
    let mut wrong = vec![];
    for case in &cases {
        let (id, condition) = (&case["id"], case["condition"].as_str().unwrap());
        let mut with = vec![(&plain, &case["valid"])];
        with.extend(case.get("valid_with_container_plugin").map(|valid| (Catalog::falco(), valid)));
        for (catalog, valid) in with {
            let rule = RuleText { condition, ..RuleText::default() };
            let checked = check_condition(&rule, &Definitions::default(), catalog);
            let errors: Vec<_> = checked.errors().filter(|error| error.class == Class::Invalid).collect();
            if errors.is_empty() != valid.as_bool().unwrap() {
                wrong.push(format!("{id}: {condition:.120}: Falco says {}, here {errors:?}", case["why"]));
                continue;
            }
            if !valid.as_bool().unwrap() {
                continue;
            }
            let expanded = checked.expanded(&Definitions::default(), catalog).map(|tree| tree.compiled());
            if let Some(compiled) = case["compiled"].as_str()
                && expanded.as_deref() != Some(compiled)
            {
                wrong.push(format!("{id}: {condition:.120}: compiled {compiled:.120}, here {expanded:?}"));
            }
            let mut recorded: Vec<&str> =
                case["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if case.get("warnings").is_none() {
                continue;
            }
            let mut given: Vec<&str> = checked
                .diagnostics
                .iter()
                .map(|diagnostic| diagnostic.code.word())
                .filter(|code| code.starts_with("LOAD_"))
                .collect();
            recorded.sort_unstable();
            given.sort_unstable();
            // Each kind is recorded once.
            given.dedup();
            if recorded != given {
                wrong.push(format!("{id}: {condition:.120}: Falco warns {recorded:?}, here {given:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
