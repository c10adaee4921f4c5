//! Every mistake of an item is told at once, and none that is not there.

use crate::language::{
    Catalog, Code, Definitions, ExceptionText, ExceptionValue, MacroText, Part, RuleText, Words, check_rule, parse,
};

/// The words that are pointed at, with the codes.
fn told(condition: &str) -> Vec<(Code, String)> {
    let rule = RuleText { name: "r", condition, output: "o", priority: "INFO", ..RuleText::default() };
    let checked = check_rule(&rule, &Definitions::default(), Catalog::falco());
    assert!(!checked.is_accepted() && checked.condition.is_none() && checked.tree.is_none(), "{condition}");
    let errors = checked.errors().map(|error| (error.code, error.span.of(condition).to_owned()));
    errors.collect()
}

fn of(expected: &[(Code, &str)]) -> Vec<(Code, String)> {
    expected.iter().map(|(code, word)| (*code, (*word).to_owned())).collect()
}

#[test]
fn what_is_behind_a_mistake_of_syntax_is_told_too() {
    for (condition, expected) in [
        (
            "proc.name is bash and fd.nmae = x and evt.type = nosuch and !container.id = host",
            &[
                (Code::Syntax, "is"),
                (Code::UnknownField, "fd.nmae"),
                (Code::UnknownEventType, "nosuch"),
                (Code::Syntax, "!container.id"),
            ][..],
        ),
        ("(proc.name like a) or proc.nmae = b", &[(Code::Syntax, "like"), (Code::UnknownField, "proc.nmae")]),
        (
            "not (fd.name =) and (evt.num > x or fd.nmae = y)",
            &[(Code::Syntax, ")"), (Code::Syntax, "x"), (Code::UnknownField, "fd.nmae")],
        ),
        // A word in quotes ends no check.
        ("proc.name is \"a and b\" and fd.nmae = x", &[(Code::Syntax, "is"), (Code::UnknownField, "fd.nmae")]),
    ] {
        assert_eq!(told(condition), of(expected), "{condition}");
    }
}

#[test]
fn exceptions_are_looked_at_beside_a_mistake_of_syntax() {
    let one = |name: &str, field: &str| ExceptionText {
        name: name.into(),
        fields: Words::One(field.into()),
        values: vec![ExceptionValue::One("x".into())],
        ..ExceptionText::default()
    };
    let exceptions = [one("good", "proc.name"), one("bad", "proc.nmae"), one("worse", "evt.num")];
    for condition in ["proc.name is a and evt.type = open", "(proc.name = a", "proc.name = bash and evt.type = open"] {
        let rule = RuleText {
            name: "r",
            condition,
            output: "o",
            priority: "INFO",
            exceptions: &exceptions,
            ..RuleText::default()
        };
        let checked = check_rule(&rule, &Definitions::default(), Catalog::falco());
        let parts: Vec<Part> =
            checked.errors().map(|error| error.part).filter(|part| *part != Part::Condition).collect();
        assert_eq!(parts, [Part::Exception(1), Part::Exception(2)], "{condition}: {:?}", checked.diagnostics);
        assert!(checked.condition.is_none(), "{condition}");
    }
}

#[test]
fn what_only_seems_to_be_wrong_behind_it_is_not() {
    for condition in [
        "proc.name is (a and (b",
        "(proc.name is a",
        "proc.name is \"a and fd.nmae = x",
        "(proc.name is a b) c",
        "proc.name is a) and fd.name = x",
        "and proc.name = x and",
    ] {
        assert_eq!(told(condition).len(), 1, "{condition}: {:?}", told(condition));
    }
}

#[test]
fn so_many_are_told_and_no_more() {
    let condition = vec!["proc.name is a"; 1000].join(" and ");
    assert_eq!(parse(&condition).diagnostics.len(), 20);
    // Of macros too.
    let macros = [MacroText { name: "m", condition: "proc.name is a or fd.nmae = x" }];
    let (_, found) = Definitions::compile(&[], &macros, Catalog::falco());
    let codes: Vec<_> = found.macros[0].iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::Syntax, Code::UnknownField]);
}
