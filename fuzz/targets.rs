//! What must hold for any bytes at all.

use std::sync::LazyLock;

use falco_operator::cli::lint_texts;
use falco_operator::language::{
    Catalog, CatalogData, Checked, Definitions, ExceptionText, ExceptionValue, Expr, ListText, MacroText, Part,
    RuleText, Words, check_rule, output_fields, parse,
};

/// A Falco with macros and lists of its own, one of them with the name of a word that conditions are full of.
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let mut data: CatalogData = Catalog::data_of(&["container", "k8saudit", "json"]);
    data.lists = vec![("open".into(), vec!["close".into()]), ("shells".into(), vec!["bash".into(), "a b".into()])];
    data.macros = vec![("opened".into(), "evt.type in (open) and proc.name in (shells)".into())];
    Catalog::new(data)
});

/// A condition that is read is printed so that it is read as the same again; places are within the text.
fn read(text: &str) {
    let parsed = parse(text);
    for finding in &parsed.diagnostics {
        let (start, end) = (finding.span.start as usize, finding.span.end as usize);
        assert!(start <= end && text.is_char_boundary(start) && text.is_char_boundary(end), "{finding:?} of {text:?}");
    }
    assert!(parsed.tree.is_some() || !parsed.diagnostics.is_empty(), "nothing is said of {text:?}");
    if let Some(tree) = parsed.tree.map(Expr::unplaced) {
        let printed = tree.text();
        let again = parse(&printed).tree.map(Expr::unplaced);
        assert_eq!(again.as_ref(), Some(&tree), "{text:?} is printed as {printed:?}");
    }
}

fn check<'t>(rule: &RuleText<'t>, definitions: &Definitions, catalog: &Catalog) -> Checked<'t> {
    let checked = check_rule(rule, definitions, catalog);
    for finding in &checked.diagnostics {
        let text = match finding.part {
            Part::Condition => rule.condition,
            Part::Output => rule.output,
            _ => continue,
        };
        let (start, end) = (finding.span.start as usize, finding.span.end as usize);
        assert!(start <= end && text.is_char_boundary(start) && text.is_char_boundary(end), "{finding:?} of {text:?}");
    }
    assert_eq!(checked.condition.is_some(), checked.is_accepted(), "{:?}", checked.diagnostics);
    checked
}

/// Any text at each place where a word of some kind can stand.
pub fn lexer(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for condition in [
        format!("a.b = {text}"),
        format!("a.b < {text}"),
        format!("a.b in ({text})"),
        format!("a.b[{text}] exists"),
        format!("{text} exists"),
        format!("a.b {text} c"),
        format!("concat({text}, \"x\") = y"),
        format!("not {text}"),
    ] {
        read(&condition);
    }
}

/// Any condition: alone, with others beside it, and in a namespace.
pub fn condition(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    read(&text);
    let items: Vec<String> = text.split([',', '\n']).map(str::to_owned).collect();
    let lists = [ListText { name: "l", items: &items }];
    let macros = [MacroText { name: "m", condition: &text }, MacroText { name: "n", condition: "m or not m" }];
    let exceptions = [ExceptionText {
        name: "e".into(),
        fields: Words::Many(vec!["proc.name".into()]),
        comps: None,
        values: vec![ExceptionValue::Many(vec![ExceptionValue::One(text.clone().into_owned())])],
    }];
    let (definitions, _) = Definitions::compile(&lists, &macros, &CATALOG);
    for (condition, exceptions) in
        [(&*text, &[][..]), ("n and proc.name in (l)", &[]), ("evt.type = close", &exceptions), (&*text, &exceptions)]
    {
        namespaced(condition, exceptions, &definitions);
    }
    // A macro of one half in the text of the other.
    let (own, rest) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let macros = [MacroText { name: "m", condition: own }];
    let (definitions, _) = Definitions::compile(&lists, &macros, &CATALOG);
    for condition in [format!("{rest} and m"), format!("m or {rest}"), format!("not m and proc.name in (l,{rest})")] {
        namespaced(&condition, &[], &definitions);
    }
}

/// A condition in a namespace.
fn namespaced(condition: &str, exceptions: &[ExceptionText], definitions: &Definitions<'_>) {
    let rule = RuleText { name: "r", condition, output: "o", priority: "INFO", exceptions, ..RuleText::default() };
    let checked = check(&rule, definitions, &CATALOG);
    // What is refused is not written for anybody.
    if !checked.is_accepted() {
        return;
    }
    let (Some(written), Some(tree)) = (&checked.condition, checked.expanded(definitions, &CATALOG)) else { return };
    // What Falco gets is read as what was checked, in the namespace too. Quotes may be others: a word that is the name of
    // one of Falco's lists needs them.
    let read = parse(written).tree.map(|read| read.compiled());
    assert_eq!(read, Some(tree.compiled()), "{written:?}");
    let Some(confined) = checked.tree.map(|tree| tree.wrap("k8s.ns.name", "team-a")) else { return };
    if let Ok(emitted) = confined.emit(definitions, &CATALOG) {
        let Some(Expr::And(parts)) = parse(&emitted).tree else { panic!("{emitted:?}") };
        let guard = Expr::equals("k8s.ns.name", "team-a").compiled();
        assert_eq!(parts[0].compiled(), guard, "{emitted:?}");
    }
}

/// Any output.
pub fn output(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let rule =
        RuleText { name: "r", condition: "evt.type = close", output: &text, priority: "INFO", ..RuleText::default() };
    check(&rule, &Definitions::default(), &CATALOG);
    for field in output_fields(&text, "syscall", &CATALOG) {
        assert!(field.span.of(&text).starts_with('%'), "{field:?} of {text:?}");
    }
}

/// Any file.
pub fn rules_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (line, column) in lint_texts(&[&text]) {
        let found = text.split('\n').nth(line - 1);
        assert!(found.is_some_and(|found| column <= found.chars().count() + 2), "{line}:{column} of {text:?}");
    }
}
