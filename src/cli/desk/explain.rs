//! `falco-operator explain`: what fields, operators and transformers are for.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use super::schema::closest;
use super::setting::{self, CatalogArgs};
use crate::language::{
    Catalog, Definitions, Diagnostic, EventTypes, FieldInfo, Modifier, Need, Op, RuleText, Transformer, WordInfo,
    check_condition, operators, plugin_of, word_info, words,
};

/// Arguments of `falco-operator explain`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A field such as `proc.name`, the beginning of fields such as `proc`, an operator, a modifier, a transformer or a
    /// type of events; without it, everything that there is, in short
    #[arg(value_name = "FIELD|OPERATOR")]
    what: Option<String>,

    #[command(flatten)]
    catalog: CatalogArgs,
}

/// Explains, or says that there is nothing of the kind.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let catalog = match args.catalog.load() {
        Ok(catalog) => catalog,
        Err(err) => return Ok(setting::unreadable(&err)),
    };
    match explain(args.what.as_deref().unwrap_or_default().trim(), &catalog) {
        Ok(text) => {
            std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(text) => {
            eprintln!("{text}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The explanation, or why there is none.
fn explain(what: &str, catalog: &Catalog) -> Result<String, String> {
    if what.is_empty() {
        return Ok(overview(catalog));
    }
    // As it may be copied from an output, with its argument, or from a condition.
    let name = what.trim_start_matches('%').split('[').next().unwrap_or_default().trim_end_matches("()");
    if let Some(info) = catalog.field(name) {
        return Ok(field(info, None, catalog));
    }
    if let Some(info) = word_info(name) {
        return Ok(word(info, catalog));
    }
    let group = name.trim_end_matches('.');
    let members: Vec<&FieldInfo> =
        sorted(catalog, |info| info.name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')));
    if !members.is_empty() {
        return Ok(list_of(group, &members));
    }
    if let Some((info, suffix)) = name.match_indices('.').rev().find_map(|(at, _)| {
        let info = catalog.field(name.get(..at)?)?;
        info.argument.dotted.then_some((info, name.get(at + 1..)?))
    }) {
        let condition = format!("{name} exists");
        let source = info.sources.iter().find(|source| &***source != "*").map(|source| &**source);
        let rule = RuleText { condition: &condition, source, ..RuleText::default() };
        let checked = check_condition(&rule, &Definitions::default(), catalog);
        return match checked.errors().next() {
            None => Ok(field(info, Some(suffix), catalog)),
            Some(Diagnostic { message, help, .. }) => {
                Err(help.as_ref().map_or(message.clone(), |help| format!("{message}; {help}")))
            }
        };
    }
    if EventTypes::is_known(name) {
        return Ok(format!("EVENT:    {name}\n\nEXAMPLE:\n    evt.type = {name}\n"));
    }
    Err(unknown(name, catalog))
}

fn unknown(name: &str, catalog: &Catalog) -> String {
    let message = format!("there is no field, operator or transformer `{name}`");
    if let Some(plugin) = plugin_of(name) {
        return format!("{message} here: it comes with the plugin {plugin}, which is not loaded");
    }
    let mut names: Vec<&str> = catalog.fields().map(|info| &*info.name).chain(words().map(|info| info.word)).collect();
    names.sort_unstable();
    match closest(name, &names).or_else(|| EventTypes::names_of_all().find(|known| known.eq_ignore_ascii_case(name))) {
        Some(meant) => format!("{message}; did you mean `{meant}`?"),
        None => format!("{message}; `falco-operator explain` without a word shows what there is"),
    }
}

fn sorted(catalog: &Catalog, which: impl Fn(&FieldInfo) -> bool) -> Vec<&FieldInfo> {
    let mut found: Vec<&FieldInfo> = catalog.fields().filter(|info| which(info)).collect();
    found.sort_unstable_by_key(|info| &info.name);
    found
}

/// A heading and what belongs to it, broken into lines.
fn section(out: &mut String, heading: &str, text: &str) {
    const WIDTH: usize = 100;
    out.push_str(&format!("\n{heading}:\n"));
    for paragraph in text.lines() {
        let mut column = 0;
        for word in paragraph.split(' ') {
            let length = word.chars().count();
            if column == 0 {
                out.push_str("    ");
            } else if column + 1 + length > WIDTH {
                out.push_str("\n    ");
                column = 0;
            } else {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += length;
        }
        out.push('\n');
    }
}

fn field(info: &FieldInfo, suffix: Option<&str>, catalog: &Catalog) -> String {
    let name = suffix.map_or(info.name.to_string(), |suffix| format!("{}.{suffix}", info.name));
    let several = if info.list { "several values, each " } else { "" };
    let mut out = format!("FIELD:    {name}\nTYPE:     {several}{} ({})\n", info.kind.word(), info.type_name);
    let sources: Vec<&str> = info.sources.iter().map(|source| if &**source == "*" { "all" } else { source }).collect();
    out.push_str(&format!("SOURCES:  {}\n", sources.join(", ")));
    let from = match info.plugin() {
        None => "Falco itself".to_owned(),
        Some("") => "a plugin".to_owned(),
        Some(plugin) => format!("the plugin {plugin}"),
    };
    out.push_str(&format!("FROM:     {from}\n"));
    if info.deprecated {
        out.push_str("          DEPRECATED: Falco will remove it, or no longer fills it\n");
    }
    let description = if info.description.is_empty() { "Nothing is known about it." } else { &*info.description };
    section(&mut out, "DESCRIPTION", description);
    if info.argument.need != Need::None && suffix.is_none() {
        section(&mut out, "ARGUMENT", &argument(info));
    }
    let operators: Vec<&str> = info.operators().map(Op::word).collect();
    section(&mut out, "OPERATORS", &operators.join(" "));
    let mut can = vec![];
    if info.right_hand {
        can.push(format!("It can be compared with another field of its type: `… = val({})`.", info.with_argument()));
    } else {
        can.push("It can't be compared with another field.".to_owned());
    }
    if info.transformer {
        let takes: Vec<&str> = Transformer::ALL
            .iter()
            .filter(|transformer| takes_field(**transformer, info))
            .map(|transformer| transformer.word())
            .collect();
        if !takes.is_empty() {
            can.push(format!("Transformers that it can be given to: {}.", takes.join(", ")));
        }
    } else {
        can.push("It can't be given to a transformer.".to_owned());
    }
    section(&mut out, "WITH OTHERS", &can.join("\n"));
    let own = suffix.map_or_else(|| info.example(), |suffix| format!("{}.{suffix} exists", info.name));
    let written = suffix.map_or_else(|| info.with_argument(), |suffix| format!("{}.{suffix}", info.name));
    section(&mut out, "EXAMPLE", &format!("condition: {own}\noutput:    %{written}"));
    let family = info.name.split('.').next().unwrap_or_default();
    let others = sorted(catalog, |other| other.name.starts_with(&format!("{}.", info.name)));
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|other| &*other.name).collect();
        section(&mut out, "SEE ALSO", &format!("{}, {family}", names.join(", ")));
    }
    out
}

fn argument(info: &FieldInfo) -> String {
    let what = match (info.argument.index, info.argument.key) {
        (true, true) => "a number or a name",
        (true, false) => "a number",
        _ => "a name",
    };
    let place = match (info.argument.dotted, info.argument.index) {
        (true, true) => ", the number in brackets or the name behind a dot",
        (true, false) => " behind a dot",
        _ => " in brackets",
    };
    let need = if info.argument.need == Need::Required { "Required" } else { "Optional" };
    format!("{need}: {what}{place}, such as `{}`.", info.with_argument())
}

fn takes_field(transformer: Transformer, info: &FieldInfo) -> bool {
    use crate::language::Kind;
    let (text, bytes) = (info.kind == Kind::Text, info.kind == Kind::Bytes);
    match transformer {
        Transformer::Val => false,
        Transformer::Tolower | Transformer::Toupper | Transformer::Basename => text,
        Transformer::B64 => text || bytes,
        Transformer::Len => info.list || text || bytes,
        Transformer::Concat => text && !info.list,
        Transformer::Join | Transformer::Getopt => info.list && text,
    }
}

fn word(info: &WordInfo, catalog: &Catalog) -> String {
    let op = Op::ALL.iter().find(|op| op.word() == info.word);
    let kind = if op.is_some() || matches!(info.word, "and" | "or" | "not") {
        "OPERATOR: "
    } else if Modifier::ALL.iter().any(|modifier| modifier.word() == info.word) {
        "MODIFIER: "
    } else {
        "TRANSFORMER: "
    };
    let mut out = format!("{kind}{}\n", info.word);
    section(&mut out, "DESCRIPTION", info.description);
    if let Some(op) = op {
        let mut types: Vec<&str> = vec![];
        let mut counts = 0;
        for field in sorted(catalog, |field| field.operators().any(|taken| taken == *op)) {
            counts += 1;
            let word = if field.list { "fields with several values" } else { field.kind.word() };
            if !types.contains(&word) {
                types.push(word);
            }
        }
        types.sort_unstable();
        section(&mut out, "TAKEN BY", &format!("{counts} fields, of the types: {}", types.join(", ")));
    } else if kind == "TRANSFORMER: " && info.word != "val" {
        let transformer = Transformer::ALL.iter().find(|transformer| transformer.word() == info.word);
        let takes = |field: &FieldInfo| field.transformer && transformer.is_some_and(|t| takes_field(*t, field));
        let fields = sorted(catalog, takes).len();
        let takes = match transformer {
            Some(Transformer::Join) => {
                "a text in quotes, then a list: `(proc.name, \"x\")`, or a field with several values"
            }
            Some(Transformer::Getopt) => {
                "a list: `(proc.args[0], proc.args[1])`, or a field with several values, then a text in quotes"
            }
            _ => &format!("{fields} fields, what other transformers make, and texts in quotes"),
        };
        section(&mut out, "TAKES", takes);
    }
    section(&mut out, "EXAMPLE", info.example);
    out
}

fn list_of(group: &str, members: &[&FieldInfo]) -> String {
    let mut out = format!("FIELDS:   {group}.*\n\n");
    let width = members.iter().map(|info| info.name.len()).max().unwrap_or_default();
    for info in members {
        let first = info.description.split_inclusive('.').next().unwrap_or_default();
        // A dot within a word ends no sentence.
        let end = info.description.find(". ").map_or(info.description.len(), |at| at + 1);
        let sentence = info.description.get(..end).unwrap_or(first);
        let flag = if info.deprecated { "(deprecated) " } else { "" };
        out.push_str(&format!("    {:width$}  {flag}{sentence}\n", info.name));
    }
    out
}

fn overview(catalog: &Catalog) -> String {
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    for info in catalog.fields() {
        *families.entry(info.name.split('.').next().unwrap_or_default()).or_default() += 1;
    }
    let mut out = format!("What conditions and outputs of rules can hold for Falco {}:\n", catalog.falco_version());
    let shown: Vec<String> = families.iter().map(|(family, count)| format!("{family} ({count})")).collect();
    section(&mut out, "FIELDS, by what their names begin with", &shown.join(", "));
    let join = |words: Vec<&str>| words.join(" ");
    section(&mut out, "OPERATORS", &join(operators().map(Op::word).chain(["and", "or", "not"]).collect()));
    section(&mut out, "MODIFIERS", &join(Modifier::ALL.iter().map(|word| word.word()).collect()));
    section(&mut out, "TRANSFORMERS", &join(Transformer::ALL.iter().map(|word| word.word()).collect()));
    section(&mut out, "SOURCES", &join(catalog.sources().collect()));
    out.push_str("\n`falco-operator explain WORD` says more about each.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(what: &str) -> String {
        explain(what, Catalog::falco()).unwrap_or_else(|text| text)
    }

    #[test]
    fn a_field_is_explained_whole() {
        insta::assert_snapshot!(said("proc.aname"));
        assert_eq!(said("%proc.aname[2]"), said("proc.aname"));
    }

    #[test]
    fn words_families_and_arguments_are_explained() {
        insta::assert_snapshot!(said("pmatch"));
        insta::assert_snapshot!(said("getopt"));
        insta::assert_snapshot!(said("k8s.pod"));
        insta::assert_snapshot!(said("evt.arg.flags"));
        insta::assert_snapshot!(said(""));
        assert!(said("execve").contains("evt.type = execve"));
        assert!(said("anyof").starts_with("MODIFIER: anyof\n"));
    }

    #[test]
    fn what_is_not_there_is_said_with_what_was_meant() {
        for (word, words) in [
            ("proc.nmae", "did you mean `proc.name`?"),
            ("contians", "did you mean `contains`?"),
            ("evt.arg.flgs", "there is no event parameter `flgs`; did you mean `evt.arg.flags`?"),
            ("ka.verb", "it comes with the plugin k8saudit, which is not loaded"),
            ("xyz.what", "without a word shows what there is"),
        ] {
            let text = explain(word, Catalog::falco()).unwrap_err();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn everything_has_an_explanation_of_bounded_width() {
        let catalog = Catalog::with_plugins(&["container", "k8saudit", "json", "k8smeta"]);
        let names = catalog.fields().map(|info| &*info.name).chain(words().map(|info| info.word));
        for name in names {
            let text = explain(name, &catalog).unwrap();
            assert!(text.contains("DESCRIPTION") && text.contains("EXAMPLE"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
        }
    }
}
