//! What Falco takes and must not be given: each is told in a class of its own.

use crate::language::{
    Catalog, CatalogData, Checked, Class, Code, Definitions, Diagnostic, ExceptionText, ExceptionValue, Expr, FileList,
    FileMacro, FileRule, ListText, MacroText, Order, Part, RuleText, Words, check_file, check_rule, limits, parse,
};

fn with_catalog<'t>(rule: &RuleText<'t>, catalog: &Catalog) -> Checked<'t> {
    let rule = RuleText {
        name: if rule.name.is_empty() { "r" } else { rule.name },
        condition: if rule.condition.is_empty() { "evt.type = open" } else { rule.condition },
        output: if rule.output.is_empty() { "o" } else { rule.output },
        priority: "INFO",
        ..rule.clone()
    };
    check_rule(&rule, &Definitions::default(), catalog)
}

fn check<'t>(rule: &RuleText<'t>) -> Checked<'t> {
    with_catalog(rule, Catalog::falco())
}

/// The first error, which must be the only kind of error there is.
fn error(checked: &Checked, what: &str) -> Diagnostic {
    let errors: Vec<_> = checked.errors().collect();
    assert!(!errors.is_empty(), "nothing is said against {what:.100}");
    assert!(checked.condition.is_none(), "{what:.100} would be given to Falco");
    errors[0].clone()
}

fn codes(found: &[Diagnostic]) -> Vec<Code> {
    found.iter().map(|finding| finding.code).collect()
}

fn unsafe_condition(condition: &str, code: Code, words: &str) {
    let found = error(&check(&RuleText { condition, ..RuleText::default() }), condition);
    assert_eq!((found.class, found.code), (Class::Unsafe, code), "{condition:.100}: {found:?}");
    assert!(found.message.contains(words), "{condition:.100}: {found:?}");
}

fn taken(condition: &str) {
    let checked = check(&RuleText { condition, ..RuleText::default() });
    assert!(checked.is_accepted(), "{condition:.100}: {:?}", checked.diagnostics);
}

fn nested(levels: usize) -> String {
    format!("{}evt.type = open{}", "(".repeat(levels), ")".repeat(levels))
}

#[test]
fn what_ends_the_engine_when_an_event_comes() {
    for (condition, words) in [
        ("fd.ip intersects (10.0.0.1)", "`fd.ip intersects`"),
        ("fd.port intersects (80)", "`fd.port intersects`"),
        ("fd.cip.name startswith a", "`fd.cip.name startswith`"),
        ("fd.sip.name contains a", "`fd.sip.name contains`"),
        ("fd.lip.name glob a*", "`fd.lip.name glob`"),
        ("fd.rip.name intersects (a)", "`fd.rip.name intersects`"),
        ("fd.rip.name pmatch (a)", "`fd.rip.name pmatch`"),
    ] {
        unsafe_condition(condition, Code::CrashesEngine, words);
    }
    for condition in ["fd.ip = 10.0.0.1", "fd.port in (80)", "fd.cip.name in (a)", "fd.sip.name != a"] {
        taken(condition);
    }
}

#[test]
fn what_ends_the_engine_when_it_reads_the_rule() {
    for condition in [
        "tolower(evt.type) = open",
        "len(evt.type) > 3",
        "concat(evt.type, \"x\") = openx",
        "tolower(syscall.type) = open",
        "evt.type = val(proc.name)",
        "proc.name = val(evt.type)",
        "evt.type in val(proc.name)",
    ] {
        unsafe_condition(condition, Code::CrashesEngine, "type");
    }
}

#[test]
fn what_never_holds_or_tests_something_else() {
    for condition in [
        "fd.ip in (10.0.0.1)",
        "fd.net in (10.0.0.0/8, 192.168.0.0/16)",
        "fd.net intersects (10.0.0.0/8)",
        "evt.rawarg.res in (1)",
        "evt.rawarg.res intersects (1)",
        "evt.rawarg.dev = 1",
        "evt.rawarg.type = 1",
        "fd.ip = anyof (10.0.0.1, 10.0.0.2)",
        "fd.port = oneof (80, 81)",
        "fd.snet = anyof (10.0.0.0/8)",
        "proc.aname = anyof (a, b)",
        "proc.apid = anyof (1, 2)",
        "fd.cip.name = anyof (a, b)",
        "evt.rawarg.res = anyof (1, 2)",
    ] {
        let found = error(&check(&RuleText { condition, ..RuleText::default() }), condition);
        assert_eq!((found.class, found.code), (Class::Unsafe, Code::NeverMatches), "{condition}: {found:?}");
        assert!(found.help.is_some(), "{found:?}");
    }
    for condition in ["fd.net in (10.0.0.0/8)", "fd.snet in (10.0.0.0/8, ::/0)", "proc.aname[1] = anyof (a, b)"] {
        taken(condition);
    }
}

#[test]
fn ports_are_numbers_that_are_ports() {
    unsafe_condition("fd.sport = http", Code::PortName, "list of services on the node");
    unsafe_condition(
        "fd.dport = 1 or fd.sport in (80, https)".trim_start_matches("fd.dport = 1 or "),
        Code::PortName,
        "`https`",
    );
    unsafe_condition("fd.sport = 65536", Code::PortRange, "`65536` is not a port");
    unsafe_condition("fd.cport in (80, 70000)", Code::PortRange, "`70000`");
    taken("fd.sport = 65535");
}

#[test]
fn nesting_is_bounded() {
    taken(&nested(limits::NESTING));
    unsafe_condition(&nested(limits::NESTING + 1), Code::Nesting, "101 levels deep; the limit is 100");
    unsafe_condition(&nested(100_000), Code::Nesting, "100000 levels deep; the limit is 100");
    // Each in parentheses that count: the tree itself is deep.
    let deep =
        |levels: usize| format!("{}evt.type = open{}", "not (evt.num > 0 or ".repeat(levels), ")".repeat(levels));
    taken(&deep(limits::NESTING));
    unsafe_condition(&deep(limits::NESTING + 1), Code::Nesting, "101 levels");
    unsafe_condition(&deep(300), Code::Nesting, "300 levels");
    unsafe_condition(&deep(5_000), Code::Nesting, "limit is 100");
    let transformers =
        |levels: usize| format!("{}proc.name{} = a and evt.type = open", "tolower(".repeat(levels), ")".repeat(levels));
    taken(&transformers(limits::TRANSFORMERS));
    unsafe_condition(&transformers(limits::TRANSFORMERS + 1), Code::Nesting, "more than 16 levels");
}

#[test]
fn no_text_overflows_the_stack_or_takes_long() {
    let deep = 100_000;
    let texts = [
        "(".repeat(deep),
        ")".repeat(deep),
        nested(deep),
        "not(".repeat(deep / 2),
        "not ".repeat(deep / 2) + "evt.num > 0",
        "not (".repeat(deep / 3) + "evt.num > 0",
        "evt.num > 0 and(".repeat(15_000),
        "evt.num > 0 or(".repeat(15_000),
        "m and (".repeat(30_000) + "m",
        format!("proc.name in {}", "(".repeat(deep)),
        format!("proc.name in (a{})", ",a".repeat(deep)),
        "tolower(".repeat(deep / 4),
        format!("join({}", "(".repeat(deep)),
        format!("proc.aname{}", "[".repeat(deep)),
        format!("proc.name = \"{}", "\\\"".repeat(deep)),
        format!("proc.name = {}", "a".repeat(deep)),
        "\"".repeat(deep),
        "\0".repeat(deep),
        "é".repeat(deep),
        "unknown.field = 1 and ".repeat(10_000) + "evt.num > 0",
        "unknown_macro and ".repeat(12_000) + "evt.num > 0",
        format!("evt.type in (x{})", ",opne".repeat(40_000)),
        "%proc.nosuch ".repeat(700),
        "%".repeat(8000),
        "%a.".repeat(2700),
        "%proc.name[".repeat(700),
        "%evt.arg.a".repeat(700),
    ];
    // A thread with half of what threads are given.
    let run = move || {
        for text in &texts {
            for (condition, output) in [(text.as_str(), "o"), ("evt.type = open", text.as_str())] {
                let rule = RuleText { condition, output, ..RuleText::default() };
                let checked = check(&rule);
                assert!(!checked.is_accepted() || output.len() < 9000, "{text:.40}");
                drop(checked.clone());
            }
            let name = [text.clone()];
            let lists = [ListText { name: text, items: &name }];
            let macros = [MacroText { name: "m", condition: text }];
            let _ = Definitions::compile(&lists, &macros, Catalog::falco());
        }
    };
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn expansion_is_bounded() {
    // Each macro is twice the one before.
    let conditions: Vec<(String, String)> = (0..40)
        .map(|n| match n {
            0 => ("m0".to_owned(), "proc.name = a".to_owned()),
            n => (format!("m{n}"), format!("m{} or m{}", n - 1, n - 1)),
        })
        .collect();
    let macros: Vec<_> = conditions.iter().map(|(name, condition)| MacroText { name, condition }).collect();
    let (definitions, found) = Definitions::compile(&[], &macros, Catalog::falco());
    let first = found.macros.iter().flatten().next().unwrap();
    assert_eq!((first.class, first.code), (Class::Unsafe, Code::Expansion), "{first:?}");
    assert!(first.message.contains("the limit is 20000"), "{first:?}");
    assert!(found.macros[13].is_empty() && !found.macros[15].is_empty(), "{found:?}");
    let rule = RuleText { name: "r", condition: "m39", output: "o", priority: "INFO", ..RuleText::default() };
    assert!(!check_rule(&rule, &definitions, Catalog::falco()).is_accepted());
    // Many at once, each of which is within the limits.
    let condition = ["m12"; 4].join(" and ");
    let rule = RuleText { condition: &condition, ..rule };
    let checked = check_rule(&rule, &definitions, Catalog::falco());
    let found = error(&checked, &condition);
    assert_eq!((found.class, found.code), (Class::Unsafe, Code::Expansion));
    assert!(found.message.contains("the limit is 20000"), "{found:?}");

    // Lists of lists multiply too.
    let items: Vec<(String, Vec<String>)> = (0..6)
        .map(|n| match n {
            0 => ("l0".to_owned(), vec!["a".to_owned(); 10]),
            n => (format!("l{n}"), vec![format!("l{}", n - 1); 10]),
        })
        .collect();
    let lists: Vec<_> = items.iter().map(|(name, items)| ListText { name, items }).collect();
    let (_, found) = Definitions::compile(&lists, &[], Catalog::falco());
    assert!(found.lists[3].is_empty(), "{found:?}");
    let first = &found.lists[4][0];
    assert_eq!((first.class, first.code), (Class::Unsafe, Code::Expansion), "{first:?}");
    assert!(first.message.contains("100000 values; the limit is 10000"), "{first:?}");
}

#[test]
fn what_is_too_large_is_not_looked_at() {
    // Each of the uses would be compared with each of the values, none of which is a regular expression.
    let items = vec!["(".to_owned(); 8192];
    let lists = [ListText { name: "l", items: &items }];
    let uses = vec!["proc.name regex anyof (l)"; 2000].join(" or ");
    let (definitions, found) =
        Definitions::compile(&lists, &[MacroText { name: "m", condition: &uses }], Catalog::falco());
    assert_eq!(codes(&found.macros[0]), [Code::Expansion]);
    let rule = RuleText { name: "r", condition: &uses, output: "o", priority: "INFO", ..RuleText::default() };
    assert_eq!(codes(&check_rule(&rule, &definitions, Catalog::falco()).diagnostics), [Code::Expansion]);
    // Exceptions add to it.
    let exception = ExceptionText {
        name: "e".into(),
        fields: Words::Many(vec!["proc.name".into()]),
        comps: Some(Words::Many(vec!["in".into()])),
        values: vec![ExceptionValue::Many(vec![ExceptionValue::One("(l)".into())]); 3],
    };
    let rule = RuleText { condition: "evt.type = open", exceptions: &[exception], ..rule };
    assert_eq!(codes(&check_rule(&rule, &definitions, Catalog::falco()).diagnostics), [Code::Expansion]);
}

/// What stands for a name is there as often as the name: so the text is bounded too, and not only what it says.
#[test]
fn no_text_gets_long_by_names_alone() {
    let blanks = format!("evt.num >{}1", " ".repeat(4000));
    let nots = format!("{}evt.num > 1", "not not ".repeat(500));
    let key = format!("proc.env[{}] exists", "A".repeat(20_000));
    let uses = format!("evt.type = open and {}", vec!["m"; 9990].join(" or "));
    for (condition, is_too_long) in [(&blanks, false), (&nots, false), (&key, true)] {
        let (definitions, found) = Definitions::compile(&[], &[MacroText { name: "m", condition }], Catalog::falco());
        assert!(!found.macros[0].iter().any(Diagnostic::is_error), "{found:?}");
        let rule = RuleText { name: "r", condition: &uses, output: "o", priority: "INFO", ..RuleText::default() };
        let checked = check_rule(&rule, &definitions, Catalog::falco());
        if is_too_long {
            let errors: Vec<Code> = checked.errors().map(|error| error.code).collect();
            assert_eq!((errors, checked.condition), (vec![Code::Expansion], None));
        } else {
            assert!(checked.condition.is_some_and(|text| text.len() < 160_000), "{:?}", checked.diagnostics);
        }
    }
}

#[test]
fn what_falco_puts_in_itself_counts_too() {
    let mut data = Catalog::data_of(&["container"]);
    data.macros = vec![("big".to_owned(), vec!["proc.name = a"; 100].join(" or "))];
    data.lists = vec![("many".to_owned(), vec!["a".to_owned(); 1000])];
    let catalog = Catalog::new(data);
    for (one, most) in [("big", 150), ("proc.name in (many)", 15)] {
        let of = |count: usize| format!("evt.type = open and ({})", vec![one; count].join(" or "));
        let condition = of(most);
        let checked = with_catalog(&RuleText { condition: &condition, ..RuleText::default() }, &catalog);
        assert!(checked.is_accepted(), "{one}: {:?}", checked.diagnostics);
        let found = error(&with_catalog(&RuleText { condition: &of(most * 2), ..RuleText::default() }, &catalog), one);
        assert_eq!((found.class, found.code), (Class::Unsafe, Code::Expansion), "{found:?}");
    }
    // A list that names one of Falco's holds its values.
    let items = vec!["many".to_owned(); 11];
    let (_, found) = Definitions::compile(&[ListText { name: "l", items: &items }], &[], &catalog);
    assert!(found.lists[0][0].message.contains("11000 values; the limit is 10000"), "{found:?}");
}

#[test]
fn chains_of_macros_and_lists_overflow_no_stack_and_take_no_memory_without_end() {
    const COUNT: usize = 20_000;
    let names: Vec<String> = (0..COUNT).map(|number| format!("n{number}")).collect();
    let items: Vec<Vec<String>> =
        (1..=COUNT).map(|number| vec![names.get(number).cloned().unwrap_or_else(|| "end".to_owned())]).collect();
    let lists: Vec<_> = names.iter().zip(&items).map(|(name, items)| ListText { name, items }).collect();
    let condition = |index: usize| names.get(index + 1).map_or("proc.name in (n0) and evt.type = open", String::as_str);
    let macros: Vec<_> =
        names.iter().enumerate().map(|(index, name)| MacroText { name, condition: condition(index) }).collect();
    let (definitions, _) = Definitions::compile(&lists, &macros, Catalog::falco());
    let rule = RuleText { name: "r", condition: "not n0", output: "o", priority: "INFO", ..RuleText::default() };
    let checked = check_rule(&rule, &definitions, Catalog::falco());
    assert_eq!(checked.condition.as_deref(), Some("not (proc.name in (end) and evt.type = open)"));
    let expanded = checked.expanded(&definitions, Catalog::falco()).map(|tree| tree.text());
    assert_eq!(expanded, checked.condition);
    assert_eq!((checked.uses.macros.iter().count(), checked.uses.lists.iter().count()), (COUNT, COUNT));
    assert!(definitions.unused([&checked.uses]).is_empty());

    // In a rules file what a macro names stands before it.
    let order = |index: usize| Order { first: index, last: index };
    let back: Vec<_> =
        macros.iter().rev().enumerate().map(|(at, text)| FileMacro { text: *text, order: order(at) }).collect();
    let rule = RuleText { condition: "n0 and proc.name != end", ..rule };
    let of_file = FileRule { text: rule, ..FileRule::default() };
    let found = check_file(&[], &back, &[of_file], Catalog::falco());
    let expanded = found.expanded[0].as_ref().map(Expr::text);
    assert_eq!(expanded.as_deref(), Some("(proc.name in (n0) and evt.type = open) and proc.name != end"));
}

#[test]
fn names_of_lists_without_values_count_too() {
    let mut data = Catalog::data_of(&["container"]);
    data.lists = vec![("nothing".to_owned(), vec![])];
    let catalog = Catalog::new(data);
    let of = |name: &str, count: usize| vec![name.to_owned(); count];
    let items = [of("nothing", 8192), of("l0", 8192), of("l1", 8192), vec![]];
    let names = ["l0", "l1", "l2", "empty"];
    let lists: Vec<_> = names.iter().zip(&items).map(|(name, items)| ListText { name, items }).collect();
    let most = format!("proc.name in ({})", of("empty", limits::NODES).join(", "));
    let macros = [MacroText { name: "m", condition: &most }];
    let (definitions, found) = Definitions::compile(&lists, &macros, &catalog);
    assert_eq!(
        found.lists.iter().map(|found| codes(found)).collect::<Vec<_>>(),
        [vec![], vec![Code::Expansion], vec![Code::BrokenList; limits::FINDINGS], vec![]]
    );
    assert_eq!(codes(&found.macros[0]), [Code::Expansion]);
    let rule = RuleText { name: "r", condition: &most, output: "o", priority: "INFO", ..RuleText::default() };
    assert_eq!(codes(&check_rule(&rule, &definitions, &catalog).diagnostics), [Code::Expansion]);
}

#[test]
fn many_lists_of_one_large_list_take_no_memory_without_end() {
    let (large, one): (Vec<String>, _) = ((0..8000).map(|n| format!("v{n}")).collect(), vec!["large".to_owned()]);
    let names: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    let mut lists = vec![ListText { name: "large", items: &large }];
    lists.extend(names.iter().map(|name| ListText { name, items: &one }));
    let (_, found) = Definitions::compile(&lists, &[], Catalog::falco());
    let fine = found.lists.iter().filter(|found| found.is_empty()).count();
    assert_eq!(fine, 1 + 125);
    assert!(found.lists[150][0].message.contains("more than 1000000 values"), "{:?}", found.lists[150]);
}

#[test]
fn findings_and_lists_of_lists_take_no_memory_without_end() {
    let empty = vec![String::new(); 8192];
    let mut nul = empty.clone();
    nul.push("\0".to_owned());
    let lists = [ListText { name: "empty", items: &empty }, ListText { name: "nul", items: &nul }];
    let (_, found) = Definitions::compile(&lists, &[], Catalog::falco());
    for found in &found.lists {
        assert_eq!(found.len(), limits::FINDINGS);
    }
    assert!(!found.lists[0].iter().any(Diagnostic::is_error));
    assert!(found.lists[1].iter().any(Diagnostic::is_error), "the error is lost among the warnings");

    // Ten thousand millions of values, if they were put together.
    let (inner, outer) = (vec!["a".to_owned(); 100_000], vec!["inner".to_owned(); 100_000]);
    let order = |at| Order { first: at, last: at };
    let file = |name, items, at| FileList { text: ListText { name, items }, order: order(at) };
    let found = check_file(&[file("inner", &inner, 0), file("outer", &outer, 1)], &[], &[], Catalog::falco());
    let over: Vec<_> = found.all().filter(|finding| finding.code == Code::Expansion).collect();
    assert_eq!(over.len(), 2, "{over:?}");
    assert!(over[1].message.contains("10000000000 values"), "{over:?}");
    let mut data = Catalog::data_of(&[]);
    data.lists = vec![("inner".to_owned(), inner), ("outer".to_owned(), outer)];
    assert!(Catalog::new(data).has_list("outer"));
}

#[test]
fn lists_values_and_texts_are_bounded() {
    let list = |count: usize| format!("fd.snet in (10.0.0.0/8{})", ", 10.0.0.0/8".repeat(count - 1));
    taken(&list(limits::LIST_ENTRIES));
    unsafe_condition(&list(limits::LIST_ENTRIES + 1), Code::Expansion, "10001 values; the limit is 10000");
    taken(&format!("proc.name = {}", "a".repeat(limits::VALUE_BYTES)));
    let long = format!("proc.name = {}", "a".repeat(limits::VALUE_BYTES + 1));
    let found = error(&check(&RuleText { condition: &long, ..RuleText::default() }), &long);
    // This one Falco knows itself.
    assert_eq!((found.class, found.code), (Class::Invalid, Code::ValueTooLong));
    assert!(found.message.contains("256 bytes long; the limit is 255"), "{found:?}");
    let much = format!("evt.type = open{}", " ".repeat(limits::CONDITION_BYTES));
    unsafe_condition(&much, Code::TooLong, "262159 bytes long; the limit is 262144");
    for condition in ["evt.type = open and proc.name = \"a\0b\"", "evt.type = \0", "\0", "evt.type = open\0"] {
        let checked = check(&RuleText { condition, ..RuleText::default() });
        error(&checked, condition);
        let is_it = |found: &&Diagnostic| (found.class, found.code) == (Class::Unsafe, Code::ControlCharacter);
        assert!(checked.errors().any(|found| is_it(&found)), "{condition:?}: {:?}", checked.diagnostics);
    }
}

#[test]
fn outputs_are_bounded_and_say_what_they_print() {
    let unsafe_output = |output: &str, code, words: &str| {
        let found = error(&check(&RuleText { output, ..RuleText::default() }), output);
        assert_eq!((found.class, found.code, found.part), (Class::Unsafe, code, Part::Output), "{found:?}");
        assert!(found.message.contains(words), "{output:.60}: {found:?}");
    };
    unsafe_output("%2000000000proc.name", Code::OutputWidth, "2000000000 columns; the limit is 1024");
    unsafe_output("%99999999999999999999999proc.name", Code::OutputWidth, "the limit is 1024");
    unsafe_output(&"x".repeat(limits::OUTPUT_BYTES + 1), Code::TooLong, "8193 bytes long; the limit is 8192");
    unsafe_output(&"%proc.name ".repeat(limits::OUTPUT_FIELDS + 1), Code::TooLong, "129 fields; the limit is 128");
    for (output, words) in [
        ("%proc.namefoo", "there is no field `proc.namefoo`; Falco would print `proc.name` with the text `foo`"),
        ("%k8s.ns.names", "Falco would print `k8s.ns.name` with the text `s`"),
        ("%proc.aname[x]", "Falco would print `proc.aname`"),
        ("%evt.arg.flagsx", "Falco would print `evt.arg.flags`"),
    ] {
        unsafe_output(output, Code::OutputField, words);
    }
    unsafe_output("a\u{1b}[31m %proc.name", Code::ControlCharacter, "control character");
    unsafe_output("a\nb", Code::ControlCharacter, "control character");
    for output in
        ["%1024proc.name", "%proc.name.", "%proc.name, %proc.pid!", "%proc.aname[2]: x", "%evt.arg.flags.", "x\n"]
    {
        assert!(check(&RuleText { output, ..RuleText::default() }).is_accepted(), "{output}");
    }
    // There is no way to print a percent sign: Falco refuses it, and says not why.
    for output in ["100%", "100%% %proc.name", "100% sure", "%"] {
        let found = error(&check(&RuleText { output, ..RuleText::default() }), output);
        assert_eq!((found.class, found.code), (Class::Invalid, Code::OutputFormat), "{found:?}");
        assert!(found.help.as_ref().is_some_and(|help| help.contains("percent")), "{found:?}");
    }
}

#[test]
fn names_and_tags_forge_no_facts() {
    for name in ["a\"b", "a\\b", "a*", "a\nb", "a\u{7f}b", "a\u{2028}b", &"x".repeat(254)] {
        let found = error(&check(&RuleText { name, ..RuleText::default() }), name);
        assert_eq!((found.class, found.part), (Class::Unsafe, Part::Name), "{name:?}: {found:?}");
    }
    let long = "x".repeat(254);
    let found = error(&check(&RuleText { name: &long, ..RuleText::default() }), &long);
    assert!(found.message.contains("254 bytes long; the limit is 253"), "{found:?}");
    for tags in [vec!["a b"], vec!["a*"], vec!["a\"b"], vec![""], vec!["é"], vec!["a.b", "a_b"], vec!["a-b", "a.b"]] {
        let tags: Vec<String> = tags.into_iter().map(str::to_owned).collect();
        let found = error(&check(&RuleText { tags: &tags, ..RuleText::default() }), &tags[0]);
        assert!(matches!((found.class, found.part), (Class::Unsafe, Part::Tag(_))), "{tags:?}: {found:?}");
    }
    let tags: Vec<String> = ["a.b", "T1059", "x-y_z"].map(str::to_owned).to_vec();
    assert!(check(&RuleText { tags: &tags, name: "Shell / in container: é", ..RuleText::default() }).is_accepted());
}

#[test]
fn look_alikes_are_no_words_of_the_language() {
    for condition in [
        "evt.type = open \u{ff4f}\u{ff52} evt.num > 0",
        "evt.type = open\u{a0}and\u{a0}evt.num > 0 x",
        "evt.type\u{2009}= open",
        "evt.type \u{ff1d} open",
        "\u{ff08}evt.type = open\u{ff09}",
        "pro\u{441}.name = bash",
        "\u{feff}evt.type = open",
        "evt.type = open\u{c}and evt.num > 0",
        "evt.type = open\u{b}and evt.num > 0 x",
    ] {
        let checked = check(&RuleText { condition, ..RuleText::default() });
        let found = error(&checked, condition);
        assert_eq!(found.class, Class::Invalid, "{condition}: {found:?}");
    }
    // In a value they are what they are.
    taken("evt.type = open and proc.name = \u{43e}\u{440}");
}

#[test]
fn words_that_base_lists_are_pasted_over_are_refused_where_they_cant_be_kept() {
    let mut data: CatalogData = Catalog::data_of(&["container"]);
    data.lists = vec![("open".into(), vec!["close".into()]), ("shells".into(), vec!["bash".into(), "sh".into()])];
    let catalog = Catalog::new(data);
    for condition in [
        "evt.type = open and proc.cmdline contains \"run shells now\"",
        "evt.type=open and proc.name = \"x, shells y\"",
        "evt.type = close and proc.cmdline contains \"(shells)\"",
    ] {
        let checked = with_catalog(&RuleText { condition, ..RuleText::default() }, &catalog);
        let found = error(&checked, condition);
        assert_eq!((found.class, found.code), (Class::Unsafe, Code::PastedOver), "{condition}: {found:?}");
    }
    // A word alone can be kept in quotes, and a list that is meant is one.
    for (condition, emitted) in [
        ("evt.type = open", "evt.type = \"open\""),
        ("evt.type = close and proc.name in (shells, x)", "evt.type = close and proc.name in (shells, x)"),
    ] {
        let checked = with_catalog(&RuleText { condition, ..RuleText::default() }, &catalog);
        assert_eq!(checked.condition.as_deref(), Some(emitted), "{:?}", checked.diagnostics);
    }
}

#[test]
fn values_of_exceptions_are_values() {
    for value in ["x)or(evt.num>0", "a=b", "a,b", "a\" or evt.num>0 or proc.name=\"b", "it's", "a\\", "("] {
        let exceptions = [ExceptionText {
            name: "e".into(),
            fields: Words::Many(vec!["proc.name".into()]),
            comps: None,
            values: vec![ExceptionValue::Many(vec![ExceptionValue::One(value.into())])],
        }];
        let rule = RuleText { condition: "evt.type = open", exceptions: &exceptions, ..RuleText::default() };
        let checked = check(&rule);
        assert!(checked.is_accepted(), "{value}: {:?}", checked.diagnostics);
        let read = parse(checked.condition.as_ref().unwrap()).tree.unwrap();
        let mut values = vec![];
        read.each_check(&mut |check| {
            if let crate::language::Rhs::Value(value) = &check.rhs {
                values.push(value.text.to_string());
            }
        });
        assert_eq!(values, ["open", value]);
    }
}

/// In a plain rules file Falco puts text together, and there a value can be anything.
#[test]
fn text_that_falco_puts_together_is_looked_through() {
    let order = |at| Order { first: at, last: at };
    let lists_of = |items: &[(&'static str, Vec<String>)], condition: &str, exceptions: &[ExceptionText], replaced| {
        let lists: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(at, (name, items))| FileList { text: ListText { name, items }, order: order(at) })
            .collect();
        let macros = [FileMacro { text: MacroText { name: "m", condition: "evt.type = open" }, order: order(9) }];
        let text = RuleText { name: "r", condition, output: "o", priority: "INFO", exceptions, ..RuleText::default() };
        let rule = FileRule { text, replaced_exceptions: replaced };
        let found = check_file(&lists, &macros, &[rule], Catalog::falco());
        let unsafe_: Vec<Diagnostic> = found.all().filter(|finding| finding.class == Class::Unsafe).cloned().collect();
        unsafe_
    };
    let items = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    let code = |found: &[Diagnostic]| found.first().map(|finding| finding.code);
    for item in ["a,b", "a=b", "x)or(evt.num>0", "it's", "", "a\tb"] {
        let found = lists_of(&[("l", items(&["x", item]))], "m and proc.name in (l)", &[], false);
        assert_eq!(code(&found), Some(Code::ListItem), "{item:?}: {found:?}");
        assert_eq!(found[0].part, Part::Entry(1), "{item:?}: {found:?}");
        assert!(found[0].help.as_ref().is_some_and(|help| help.contains("quotes within quotes")), "{found:?}");
    }
    for item in ["a b", "\"a,b\"", "/etc/x", "1", "a-b"] {
        let found = lists_of(&[("l", items(&["x", item]))], "m and proc.name in (l)", &[], false);
        assert_eq!(code(&found), None, "{item:?}: {found:?}");
    }
    let shells = [("shells", items(&["bash"])), ("open", items(&["close"]))];
    let found = lists_of(&shells, "m and proc.cmdline contains \"run shells now\"", &[], false);
    assert_eq!(code(&found), Some(Code::PastedOver), "{found:?}");
    let found = lists_of(&shells, "evt.type=open and proc.name in (shells)", &[], false);
    assert_eq!(code(&found), Some(Code::PastedOver), "{found:?}");
    let three = [("a", items(&["x"])), ("b", items(&["a"])), ("c", items(&["b"]))];
    let found = lists_of(&three, "m and proc.name in (c)", &[], false);
    assert_eq!(code(&found), Some(Code::NeverMatches), "{found:?}");
    let exception = |value: &str| ExceptionText {
        name: "e".into(),
        fields: Words::Many(vec!["proc.name".into()]),
        comps: None,
        values: vec![ExceptionValue::Many(vec![ExceptionValue::One(value.into())])],
    };
    let found = lists_of(&[], "m", &[exception("x)or(evt.num>0")], false);
    assert_eq!(code(&found), Some(Code::Exception), "{found:?}");
    assert_eq!(lists_of(&[], "m", &[exception("x y")], false), []);
    assert_eq!(code(&lists_of(&[], "m", &[exception("x")], true)), Some(Code::Exception));
    // Balanced only in the parentheses that Falco puts around it.
    let found = lists_of(&[], "m) or (m", &[exception("x")], false);
    assert_eq!(found.first().map(|finding| finding.part), Some(Part::Condition), "{found:?}");
}
