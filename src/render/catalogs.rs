//! What nodes offer to rules, and whether a rule that they load ever runs there.

use crate::api::{CatalogField, FalcoCatalogSpec, FalcoRuleSpec, Priority};
use crate::language::{Catalog, CatalogData, FieldData, SYSCALL};

/// The catalogue that agents published as a `FalcoCatalog`.
#[must_use]
pub fn catalog(spec: &FalcoCatalogSpec) -> Catalog {
    let field = |field: &CatalogField| FieldData {
        name: field.name.clone(),
        type_name: field.type_.clone(),
        list: field.list,
        argument: field.argument.clone(),
        sources: field.sources.clone(),
        description: field.description.clone(),
    };
    Catalog::new(CatalogData {
        falco_version: spec.falco_version.clone(),
        engine_version: spec.engine_version.clone(),
        sources: spec.sources.clone(),
        fields: spec.fields.iter().map(field).collect(),
        rules: spec.rules.clone(),
        macros: spec.macros.iter().map(|item| (item.name.clone(), item.text.clone())).collect(),
        lists: spec
            .lists
            .iter()
            .map(|item| (item.name.clone(), item.text.lines().map(str::to_owned).collect()))
            .collect(),
        priority: spec.priority.clone().unwrap_or_default(),
        selections: spec.selections.clone(),
    })
}

/// Why a Falco with this catalogue would load the rule under that name and never run it; `None` where it would run.
pub(super) fn why_not_running(rule: &FalcoRuleSpec, name: &str, catalog: &Catalog) -> Option<String> {
    let source = rule.source.as_deref().unwrap_or(SYSCALL);
    if !catalog.has_source(source) {
        return Some(format!("no source `{source}` is loaded"));
    }
    let least = Priority::level_of(catalog.priority());
    if let (Some(least), Some(level)) = (least, rule.priority.level())
        && level > least
    {
        let (least, own) = (catalog.priority().to_ascii_uppercase(), rule.priority.0.to_ascii_uppercase());
        return Some(format!("falco.yaml's `priority` is {least}, and the rule's {own} is less severe"));
    }
    let decisive = catalog.selections().iter().rev().find_map(|selection| {
        let (enable, rest) = selection.split_once(' ')?;
        let (what, pattern) = rest.split_once(' ')?;
        let selected = match what {
            "rule" => fits(pattern, name),
            "tag" => rule.tags.iter().any(|tag| tag == pattern),
            _ => false,
        };
        selected.then_some((enable, selection))
    });
    match decisive {
        Some(("disable", selection)) => Some(format!("falco.yaml's `rules` turn it off: {selection}")),
        _ => None,
    }
}

/// Whether a name fits a pattern as Falco reads it: each `*` stands for anything, up to the first place where what
/// follows it is found.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else { return false };
    let mut open = false;
    for part in parts {
        open = part.is_empty();
        match rest.find(part).and_then(|at| rest.get(at + part.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    open || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CatalogItem;

    #[test]
    fn patterns_fit_as_falco_reads_them() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("*b*", "abc", true),
            ("a*c", "abc", true),
            ("a*d", "abc", false),
            ("*ab", "abab", false),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_keeps_a_rule_from_running_is_named() {
        let spec = r#"{"rule": "r", "desc": "d", "condition": "c", "output": "o", "priority": "info", "tags": ["t"]}"#;
        let rule: FalcoRuleSpec = serde_json::from_str(spec).unwrap();
        let with = |priority: &str, selections: &[&str]| {
            let selections = selections.iter().map(ToString::to_string).collect();
            catalog(&FalcoCatalogSpec {
                priority: Some(priority.to_owned()),
                selections,
                ..FalcoCatalogSpec::default()
            })
        };
        for (priority, selections, words) in [
            ("", &[][..], None),
            ("informational", &[], None),
            ("Notice", &[], Some("is NOTICE, and the rule's INFO is less severe")),
            ("debug", &["disable tag t"], Some("turn it off: disable tag t")),
            ("debug", &["disable rule ns/*"], Some("disable rule ns/*")),
            ("debug", &["disable rule *", "enable tag t"], None),
            ("debug", &["enable tag t", "disable rule other"], None),
        ] {
            let why = why_not_running(&rule, "ns/r", &with(priority, selections));
            assert_eq!(why.is_some(), words.is_some(), "{priority} {selections:?}");
            assert!(why.unwrap_or_default().contains(words.unwrap_or_default()));
        }
        let audit = FalcoRuleSpec { source: Some("k8s_audit".into()), ..rule };
        assert!(why_not_running(&audit, "r", &with("", &[])).is_some_and(|why| why.contains("k8s_audit")));
    }

    #[test]
    fn what_agents_publish_is_what_rules_are_checked_against() {
        let spec = FalcoCatalogSpec {
            falco_version: "0.44.1".into(),
            sources: vec!["syscall".into(), "x".into()],
            fields: vec![CatalogField {
                name: "x.y".into(),
                type_: "CHARBUF".into(),
                argument: "required key".into(),
                sources: vec!["x".into()],
                ..CatalogField::default()
            }],
            rules: vec!["Base rule".into()],
            macros: vec![CatalogItem { name: "m".into(), text: "evt.num > 0".into() }],
            lists: vec![CatalogItem { name: "l".into(), text: "a\nb c".into() }],
            ..FalcoCatalogSpec::default()
        };
        let catalog = catalog(&spec);
        assert!(catalog.has_source("x") && catalog.has_rule("Base rule") && catalog.has_macro("m"));
        assert!(catalog.has_list("l") && catalog.field("x.y").is_some_and(|field| field.argument.key));
    }
}
