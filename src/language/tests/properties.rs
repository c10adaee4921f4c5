//! What holds for every text and every tree.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::language::events::types;

use crate::language::{
    Argument, Catalog, Check, Checked, Code, Definitions, Diagnostic, ExceptionText, ExceptionValue, Expr, Field,
    ListText, MacroText, Modifier, Op, Operand, Part, Rhs, RuleText, Span, Transform, Transformer, Value, ValueKind,
    ValueList, Word, Words, check_rule, parse,
};

fn span() -> Span {
    Span::default()
}

fn word(text: String) -> Word<'static> {
    Word { text: text.into(), span: span() }
}

/// Any text that can stand in quotes.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z \\\\\"'\n\t]{0,8}", "(and|or|not|anyof|val\\(|\\)|\\(|\"|'|\\\\| |=|,|#){0,6}",]
        .prop_map(|text| text.replace('\0', ""))
}

fn field() -> impl Strategy<Value = Field<'static>> {
    let argument = prop_oneof![3 => Just(None), 1 => any_text().prop_map(Some)];
    ("[a-z]{1,6}(\\.[a-z][a-z_0-9]{0,5}){1,2}", argument).prop_map(|(name, argument)| Field {
        name: name.into(),
        argument: argument.map(|text| Box::new(word(text))),
        span: span(),
    })
}

fn number() -> impl Strategy<Value = String> {
    "(0x[0-9a-f]{1,4}|[+-]?[0-9]{1,5}(\\.[0-9]{0,3})?(e[+-][0-9]{1,2})?)"
}

fn argument(operand: BoxedStrategy<Operand<'static>>) -> impl Strategy<Value = Argument<'static>> {
    let item = prop_oneof![
        operand.prop_map(Argument::Operand),
        number().prop_map(|text| Argument::Number(word(text))),
        any_text().prop_map(|text| Argument::Text(word(text))),
    ]
    .boxed();
    prop_oneof![
        3 => item.clone(),
        1 => proptest::collection::vec(item, 0..3).prop_map(|items| Argument::List(items, span())),
    ]
}

fn operand() -> BoxedStrategy<Operand<'static>> {
    let leaf = field().prop_map(Operand::Field).boxed();
    leaf.prop_recursive(3, 12, 3, |inner| {
        let transformer = 1..Transformer::ALL.len();
        let index = prop_oneof![3 => Just(None), 1 => "[a-z]".prop_map(Some)];
        (transformer, proptest::collection::vec(argument(inner.boxed()), 1..4), index).prop_map(
            |(transformer, arguments, index)| {
                Operand::Transform(Box::new(Transform {
                    transformer: Transformer::ALL[transformer],
                    arguments,
                    index: index.map(word),
                    span: span(),
                }))
            },
        )
    })
    .boxed()
}

fn value() -> impl Strategy<Value = Value<'static>> {
    prop_oneof![
        any_text().prop_map(|text| Value { text: text.into(), kind: ValueKind::Quoted, span: span() }),
        "[^()\"'\\s=,\0\u{8}][^()\"'\\s=,\0]{0,7}".prop_map(|text| Value {
            text: text.into(),
            kind: ValueKind::Bare,
            span: span()
        }),
    ]
}

fn list() -> impl Strategy<Value = ValueList<'static>> {
    prop_oneof![
        3 => proptest::collection::vec(value(), 0..4)
            .prop_map(|values| ValueList { values, parentheses: true, span: span() }),
        1 => "x[a-z_0-9]{0,6}".prop_map(|name| ValueList {
            values: vec![Value { text: name.into(), kind: ValueKind::Bare, span: span() }],
            parentheses: false,
            span: span(),
        }),
    ]
}

fn right() -> impl Strategy<Value = Operand<'static>> {
    let val = field().prop_map(|field| {
        Operand::Transform(Box::new(Transform {
            transformer: Transformer::Val,
            arguments: vec![Argument::Operand(Operand::Field(field))],
            index: None,
            span: span(),
        }))
    });
    let transform = operand().prop_filter("a field alone is a text", |found| matches!(found, Operand::Transform(_)));
    prop_oneof![val, transform]
}

fn check() -> impl Strategy<Value = Expr<'static>> {
    let right_side = (0..Op::ALL.len(), 0..Modifier::ALL.len(), any::<u8>(), list(), value(), number(), right());
    (operand(), right_side).prop_map(|(operand, (op, modifier, choice, list, value, number, right))| {
        let op = Op::ALL[op];
        let mut with = None;
        let rhs = match op {
            Op::Exists => Rhs::Nothing,
            _ if choice % 5 == 0 => Rhs::Operand(right),
            _ if op.is_numeric() => Rhs::Value(Value { text: number.into(), kind: ValueKind::Bare, span: span() }),
            _ if op.takes_list() => Rhs::List(list),
            _ if choice % 3 == 0 => {
                with = Some(Modifier::ALL[modifier]);
                Rhs::List(list)
            }
            _ => Rhs::Value(value),
        };
        Expr::Check(Check { operand, op, op_span: span(), modifier: with, rhs, span: span() })
    })
}

fn tree() -> impl Strategy<Value = Expr<'static>> {
    let leaf = prop_oneof![4 => check(), 1 => "m[a-z_0-9]{0,6}".prop_map(|name| Expr::Macro(word(name)))];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            inner.prop_map(Expr::negated),
        ]
    })
}

/// A condition that names lists and macros.
fn named() -> impl Strategy<Value = String> {
    let check = prop_oneof![
        "proc\\.name in \\((l0|l1|based|a)(, (l0|l1|a|\"b c\"|\"l0\"|based)){0,3}\\)",
        "evt\\.type in \\((open|l0|based)(, close)?\\)",
        "proc\\.name (=|contains) (a|l0|l1|a\u{a0})",
        "foo\\.bar (in|= oneof) (l0|l1|based|a)",
        "fd\\.num > [0-9]",
        "m0|m1|mb",
    ];
    check.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), "and|or", inner.clone()).prop_map(|(one, by, two)| format!("({one}) {by} ({two})")),
            (inner.clone(), " ?( and | and\\(| or | or \\(|\n or)", inner.clone()).prop_map(|(one, by, two)| {
                let closing = if by.ends_with('(') { " )" } else { "" };
                format!("{one} {by} {two}{closing} ")
            }),
            (" ?not ?|\\(|", inner)
                .prop_map(|(before, inner)| format!("{before}({inner}{}", ")".repeat(before.matches('(').count() + 1))),
        ]
    })
}

/// Pieces that conditions and attempts at them are made of.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("proc.name".to_owned()),
        Just("evt.type".to_owned()),
        Just("fd.ip".to_owned()),
        Just("proc.aname[".to_owned()),
        Just("evt.arg.".to_owned()),
        Just("tolower(".to_owned()),
        Just("getopt(".to_owned()),
        Just("val(".to_owned()),
        "(=|!=|<|>=|in|pmatch|intersects|exists|regex|contains|glob|startswith|bcontains) ?",
        "(oneof|anyof|allof) ?",
        "(and|or|not) ?",
        "[()\\[\\]\"'\\\\,%]",
        any_text(),
        number(),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.join(" "))
}

fn within(text: &str, finding: &Diagnostic) -> bool {
    let (start, end) = (finding.span.start as usize, finding.span.end as usize);
    start <= end && text.is_char_boundary(start) && text.is_char_boundary(end)
}

fn all_within(rule: &RuleText<'_>, checked: &Checked) -> Result<(), TestCaseError> {
    for finding in &checked.diagnostics {
        let text = match finding.part {
            Part::Condition => rule.condition,
            Part::Output => rule.output,
            Part::Name => rule.name,
            Part::Priority => rule.priority,
            Part::Source => rule.source.unwrap_or("syscall"),
            Part::Tag(index) => &rule.tags[index as usize],
            _ => continue,
        };
        prop_assert!(within(text, finding), "{finding:?} of {text:?}");
        prop_assert!(!finding.message.is_empty() && finding.message.len() < 2000, "{finding:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Printing and reading is the identity on trees.
    #[test]
    fn a_tree_is_read_back_from_its_text(tree in tree()) {
        let text = tree.text();
        let parsed = parse(&text);
        prop_assert_eq!(parsed.tree.map(Expr::unplaced), Some(tree), "{}", text);
    }

    /// And so on the texts that are printed.
    #[test]
    fn what_is_read_from_a_text_is_read_from_its_print(text in pieces()) {
        if let Some(tree) = parse(&text).tree {
            let printed = tree.text();
            prop_assert_eq!(parse(&printed).tree.map(Expr::unplaced), Some(tree.unplaced()), "{}", printed);
        }
    }

    /// Lists and macros are in the text as they are in the tree, whatever names what.
    #[test]
    fn what_is_emitted_is_what_is_expanded(
        items in proptest::collection::vec(proptest::collection::vec("[ab]|o p|\"a\"|based|l0|open|", 0..4), 2),
        long in any::<bool>(), conditions in proptest::collection::vec(named(), 3),
    ) {
        let mut data = Catalog::data_of(&["container"]);
        data.lists = vec![("based".into(), vec!["x".into(), "open".into()])];
        data.macros = vec![("mb".into(), "evt.type = close".into())];
        let catalog = Catalog::new(data);
        let [mut items_0, items_1] = <[Vec<String>; 2]>::try_from(items).expect("two");
        items_0.retain(|item| item != "l0");
        items_0.extend(long.then(|| "long".repeat(60)).into_iter().cycle().take(20));
        let lists = [ListText { name: "l1", items: &items_1 }, ListText { name: "l0", items: &items_0 }];
        let [condition, one, zero] = <[String; 3]>::try_from(conditions).expect("three");
        let zero = zero.replace("m0", "m9").replace("m1", "mb");
        let one = one.replace("m1", "m0");
        let macros = [MacroText { name: "m1", condition: &one }, MacroText { name: "m0", condition: &zero }];
        let (definitions, _) = Definitions::compile(&lists, &macros, &catalog);
        let rule = RuleText {
            name: "r", condition: &condition, output: "o", priority: "INFO",
            skip_if_unknown_filter: true, ..RuleText::default()
        };
        let checked = check_rule(&rule, &definitions, &catalog);
        prop_assert!(!checked.diagnostics.iter().any(|finding| finding.code == Code::PastedOver));
        if let (Some(text), Some(expanded)) = (&checked.condition, checked.expanded(&definitions, &catalog)) {
            prop_assert_eq!(parse(text).tree.map(|tree| tree.compiled()), Some(expanded.compiled()), "{}", text);
            prop_assert_eq!(checked.nodes, expanded.nodes());
            let wrapped = expanded.clone().wrap("k8s.ns.name", "team-a");
            prop_assert_eq!(wrapped.nodes(), expanded.nodes() + Expr::GUARD_NODES);
            let nothing = Definitions::default();
            prop_assert_eq!(Some(types(nothing.possible(&expanded, &catalog))), checked.event_types);
            // What is in it can be checked as it is, and rests on nothing but Falco's own.
            let again = check_rule(&RuleText { condition: text, ..rule.clone() }, &nothing, &catalog);
            prop_assert!(again.is_accepted(), "{text}: {:?}", again.diagnostics);
            prop_assert_eq!(&again.uses.base_lists, &checked.uses.base_lists);
            prop_assert_eq!(&again.uses.base_macros, &checked.uses.base_macros);
            prop_assert_eq!(again.event_types, checked.event_types);
            // And it rests on what the texts name that are named.
            let mut reached = vec![("", condition.as_str())];
            let texts = [("m1", one.clone()), ("m0", zero.clone()), ("l1", items_1.join(" ")), ("l0", String::new())];
            let mut next = 0;
            while let Some((_, text)) = reached.get(next).copied() {
                next += 1;
                for (name, own) in &texts {
                    let named = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '"').any(|word| word == *name);
                    if named && !reached.iter().any(|(known, _)| known == name) {
                        reached.push((name, own));
                    }
                }
            }
            let named: BTreeSet<&str> = reached.iter().skip(1).map(|(name, _)| *name).collect();
            // Where a name may be a mere text the model does not know it.
            let is_unsure = |text: &&String| text.contains("= l") || text.contains("contains l");
            let unsure = [&condition, &one, &zero].iter().any(is_unsure);
            prop_assert!(unsure || checked.uses.macros.iter().chain(checked.uses.lists.iter()).collect::<BTreeSet<_>>() == named);
        }
    }

    #[test]
    fn no_text_of_a_rule_is_too_much(
        condition in prop_oneof![pieces(), any::<String>()], output in prop_oneof![pieces(), "(%[a-z.0-9\\[\\]()]{0,20} ?){0,5}", any::<String>()],
        name in any::<String>(), priority in any_text(), tag in any_text(), value in any_text(), comp in pieces(),
        skip_if_unknown_filter in any::<bool>(),
    ) {
        let tags = [tag.clone(), tag];
        let exceptions = [
            ExceptionText {
                name: name.clone(),
                fields: Words::Many(vec!["proc.name".into(), "fd.num".into()]),
                comps: Some(Words::Many(vec!["=".into(), comp.clone()])),
                values: vec![ExceptionValue::Many(vec![ExceptionValue::One(value.clone()), ExceptionValue::One("1".into())])],
            },
            ExceptionText { name: "e".into(), fields: Words::One(comp), comps: None, values: vec![ExceptionValue::One(value.clone())] },
        ];
        let items = [value];
        let lists = [ListText { name: "l", items: &items }, ListText { name: &name, items: &items }];
        let macros = [MacroText { name: "m", condition: &condition }, MacroText { name: &name, condition: &output }];
        let (definitions, found) = Definitions::compile(&lists, &macros, Catalog::falco());
        for finding in &found.macros[0] {
            prop_assert!(finding.part != Part::Condition || within(&condition, finding), "{finding:?} of {condition:?}");
        }
        let rule = RuleText {
            name: &name, condition: &condition, output: &output, source: None, priority: &priority, tags: &tags,
            exceptions: &exceptions, without_event_types: false, skip_if_unknown_filter,
        };
        let checked = check_rule(&rule, &definitions, Catalog::falco());
        all_within(&rule, &checked)?;
        // What is accepted is read back as what was checked.
        if let (Some(text), Some(expanded)) = (&checked.condition, checked.expanded(&definitions, Catalog::falco())) {
            let read = parse(text).tree.map(Expr::unplaced);
            prop_assert_eq!(checked.nodes, expanded.nodes());
            prop_assert_eq!(read, Some(expanded.unplaced()));
        }
    }
}
