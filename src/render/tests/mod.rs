use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::file_rule::FileRule;
use super::*;
use crate::api::{AuthoredStatus, FalcoListSpec, FalcoMacroSpec, FalcoRuleSpec, Priority};

mod isolation;
mod language;

/// The example that the project began with.
const EXAMPLE: &str = "
apiVersion: mumoshu.github.io/v1alpha1
kind: FalcoRule
metadata: {name: bash, namespace: default, generation: 1}
spec:
  rule: shell_in_container
  desc: notice shell activity within a container
  condition: container.id != host and proc.name = bash
  output: shell in a container (user=%user.name container_id=%container.id container_name=%container.name shell=%proc.name parent=%proc.pname cmdline=%proc.cmdline)
  priority: WARNING
";

const EXAMPLE_FILE: &str = "\
- rule: shell_in_container
  desc: notice shell activity within a container
  condition: container.id != host and proc.name = bash
  output: shell in a container (user=%user.name container_id=%container.id container_name=%container.name shell=%proc.name parent=%proc.pname cmdline=%proc.cmdline)
  priority: WARNING
";

fn rule(name: &str) -> FalcoRule {
    let mut rule = FalcoRule::new(
        name,
        FalcoRuleSpec {
            rule: format!("rule {name}"),
            desc: "d".into(),
            condition: "evt.type = open".into(),
            output: "o".into(),
            priority: Priority("INFO".into()),
            enabled: None,
            tags: vec![],
            source: None,
            exceptions: vec![],
            warn_evttypes: None,
            skip_if_unknown_filter: None,
            capture: None,
            capture_duration: None,
        },
    );
    rule.metadata.generation = Some(1);
    rule
}

/// A namespace as a test sets it up.
#[derive(Default)]
struct World {
    rules: Vec<FalcoRule>,
    macros: Vec<FalcoMacro>,
    lists: Vec<FalcoList>,
    catalogs: Vec<Catalog>,
    settled: Option<BundleFile>,
    names: Names,
    policy: Policy,
}

impl World {
    fn of(rules: Vec<FalcoRule>) -> Self {
        Self { rules, ..Self::default() }
    }

    fn render(&self) -> Rendered {
        render(&Input {
            namespace: "ns",
            rules: &self.rules.iter().collect::<Vec<_>>(),
            macros: &self.macros.iter().collect::<Vec<_>>(),
            lists: &self.lists.iter().collect::<Vec<_>>(),
            settled: self.settled.as_ref(),
            names: &self.names,
            policy: &self.policy,
            catalogs: &self.catalogs.iter().collect::<Vec<_>>(),
        })
    }

    /// Renders, and settles on what came out.
    fn settle(&mut self) -> Rendered {
        let rendered = self.render();
        self.settled = Some(rendered.file.clone().unwrap());
        rendered
    }
}

fn macro_(name: &str, condition: &str) -> FalcoMacro {
    FalcoMacro::new(name, FalcoMacroSpec { macro_: name.to_owned(), condition: condition.to_owned() })
}

fn list(name: &str, items: &[&str]) -> FalcoList {
    let items = items.iter().map(ToString::to_string).collect();
    FalcoList::new(name, FalcoListSpec { list: name.to_owned(), items })
}

fn text(rendered: &Rendered) -> String {
    rendered.file.as_ref().unwrap().text()
}

#[test]
fn the_example_gives_its_file_byte_for_byte() {
    let rendered = World::of(vec![serde_yaml::from_str(EXAMPLE).unwrap()]).render();
    assert_eq!(text(&rendered), EXAMPLE_FILE);
    let verdict = &rendered.rules["bash"];
    assert_eq!(rendered.written("bash"), Some(EXAMPLE_FILE));
    assert_eq!(verdict.rule_name.as_deref(), Some("shell_in_container"));
    assert_eq!((verdict.rejected, verdict.generation_in_force), (None, None));
    // It works, and Falco itself would warn that it looks at every event.
    assert!(verdict.message.as_ref().unwrap().starts_with("warning: condition: "), "{verdict:?}");
    let file = rendered.file.unwrap();
    assert_eq!((file.items[0].name.as_str(), file.items[0].generation), ("bash", 1));
}

#[test]
fn blocks_lose_their_final_newline_and_priorities_their_case() {
    let mut odd = rule("a");
    odd.spec.desc = "two words\n".into();
    odd.spec.condition = "evt.type = open\n\n".into();
    odd.spec.output = "out\n".into();
    odd.spec.priority = Priority("warning".into());
    assert_eq!(
        text(&World::of(vec![odd]).render()),
        "- rule: rule a\n  desc: two words\n  condition: evt.type = open\n  output: out\n  priority: WARNING\n"
    );
}

#[test]
fn no_rules_are_an_empty_list() {
    assert_eq!(text(&World::default().render()), "[]\n");
}

#[test]
fn a_rejected_rule_keeps_its_version_in_force_and_blocks_nobody() {
    let mut world = World::of(vec![rule("a"), rule("b")]);
    let before = text(&world.settle());
    world.rules[0].spec.condition = format!("{}x", "(".repeat(200));
    world.rules[0].metadata.generation = Some(2);
    world.rules[1].spec.desc = "new".into();
    let rendered = world.render();
    let verdict = &rendered.rules["a"];
    assert_eq!(verdict.rejected, Some(Reason::Unsafe));
    assert_eq!((verdict.written, verdict.generation_in_force), (false, Some(1)));
    assert_eq!(verdict.rule_name.as_deref(), Some("rule a"));
    assert_eq!(text(&rendered), before.replacen("rule: rule b\n  desc: d", "rule: rule b\n  desc: new", 1));
    // It stays however often that is repeated.
    world.settle();
    assert_eq!(world.render(), rendered);
    // Repaired, it is in force again.
    world.rules[0].spec.condition = "evt.type = close".into();
    world.rules[0].metadata.generation = Some(3);
    let verdict = &world.render().rules["a"];
    assert_eq!((verdict.rejected, verdict.generation_in_force), (None, None));
}

#[test]
fn a_rejected_rule_without_a_version_in_force_is_left_out() {
    let mut world = World::of(vec![rule("a"), rule("b")]);
    world.rules[0].spec.condition = "a\0".into();
    let rendered = world.render();
    let verdict = &rendered.rules["a"];
    assert_eq!((verdict.rejected, verdict.generation_in_force), (Some(Reason::Unsafe), None));
    assert_eq!((&verdict.rule_name, verdict.written), (&None, false));
    assert_eq!(rendered.file.unwrap().items.len(), 1);
}

#[test]
fn what_is_kept_must_be_allowed_today_and_have_its_name() {
    let mut world = World::of(vec![rule("a")]);
    world.settle();
    world.rules[0].spec.condition = "a\0".into();
    assert_eq!(world.render().rules["a"].generation_in_force, Some(1));
    world.policy = Policy::from_yaml("priorities: [ERROR]").unwrap();
    assert_eq!(text(&world.render()), "[]\n");
    world.policy = Policy::default();
    world.names.hold("other", ["rule a".to_owned()].into());
    assert_eq!(text(&world.render()), "[]\n");
    world.names = Names::default();
    // A settled file that this version can't read, or that says another name than it has, is not kept.
    for forged in ["- rule: rule b\n  desc: d\n  condition: c\n  output: o\n  priority: INFO\n", "x", ""] {
        let item = BundleItem { name: "a".into(), generation: 1, rule_name: "rule a".into(), text: forged.into() };
        world.settled = Some(BundleFile::new(vec![item]));
        assert_eq!(text(&world.render()), "[]\n");
    }
}

#[test]
fn names_are_chosen_once() {
    let mut world = World::of(vec![rule("a")]);
    world.names.hold("other", ["rule a".to_owned()].into());
    let rendered = world.settle();
    assert_eq!(rendered.rules["a"].rule_name.as_deref(), Some("ns/rule a"));
    assert!(text(&rendered).starts_with("- rule: ns/rule a\n"));
    world.names = Names::default();
    assert_eq!(world.render(), rendered, "the settled file says which name was chosen");
    world.settled = None;
    world.rules[0].status = Some(AuthoredStatus { rule_name: Some("ns/rule a".into()), ..AuthoredStatus::default() });
    assert_eq!(world.render(), rendered, "and so does the status");
    world.rules[0].spec.rule = "rule b".into();
    assert_eq!(world.render().rules["a"].rule_name.as_deref(), Some("rule b"));
}

#[test]
fn a_taken_name_is_refused_in_words_and_the_old_one_stays() {
    let mut world = World::of(vec![rule("a"), rule("b")]);
    world.settle();
    world.rules[0].spec.rule = "rule b".into();
    world.rules[0].metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let rendered = world.render();
    let verdict = &rendered.rules["a"];
    assert_eq!((verdict.rejected, verdict.generation_in_force), (Some(Reason::NameTaken), Some(1)));
    assert_eq!(verdict.rule_name.as_deref(), Some("rule a"));
    assert_eq!(
        verdict.message.as_deref(),
        Some("name: FalcoRule `b` of this namespace has the name `rule b` (give the rule another name)")
    );
    world.settled = None;
    let rendered = world.render();
    assert_eq!(rendered.rules["a"].rejected, None, "the older one has it where neither is in force");
    assert_eq!(rendered.rules["b"].rejected, Some(Reason::NameTaken));
}

#[test]
fn who_has_a_taken_name_is_told_to_privileged_namespaces_only() {
    let mut world = World::of(vec![rule("a")]);
    world.names.hold("team-b", ["rule a".to_owned()].into());
    for (policy, told) in [
        ("{isolation: {names: verbatim}}", false),
        ("{isolation: {names: verbatim}, privilegedNamespaces: [ns]}", true),
    ] {
        world.policy = Policy::from_yaml(policy).unwrap();
        let verdict = world.render().rules.remove("a").unwrap();
        assert_eq!(verdict.rejected, Some(Reason::NameTaken), "{policy}");
        assert_eq!(verdict.message.unwrap().contains("team-b"), told, "{policy}");
    }
}

#[test]
fn policy_is_told_where_it_refuses() {
    let mut world = World::of(vec![rule("a")]);
    world.rules[0].spec.condition = "evt.type = open and fd.num > 0".into();
    world.rules[0].spec.output = "out %proc.name".into();
    let mut dotted = rule("dotted");
    dotted.spec.condition = "evt.type = open and evt.arg.flags contains O_WRONLY".into();
    dotted.spec.output = "out %evt.rawarg.mode".into();
    world.rules.push(dotted);
    for (policy, words) in [
        (
            "sources: [k8s_audit]",
            "source: rules of this namespace may not look at events of the source `syscall` (allowed: k8s_audit)",
        ),
        ("priorities: [ERROR, warning]", "may not have the priority INFO (allowed: ERROR, WARNING)"),
        ("quotas: {rules: 0}", "the namespace would have 1 rules, and its quota is 0"),
        ("quotas: {bytes: 10}", "bytes in its rules file, and its quota is 10"),
        ("quotas: {treeNodes: 1}", "would have 3 checks and values in its conditions, and its quota is 1"),
        ("overrides: [{namespaces: [ns], sources: []}]", "source `syscall`"),
        ("deniedFields: [evt.type]", "condition, column 1: rules of this namespace may not use the field `evt.type`"),
        ("deniedFields: ['proc.*']", "output, column 5: rules of this namespace may not use the field `proc.name`"),
    ] {
        world.policy = Policy::from_yaml(policy).unwrap();
        let rendered = world.render();
        let verdict = &rendered.rules["a"];
        assert_eq!(verdict.rejected, Some(Reason::PolicyDenied), "{policy}");
        assert!(verdict.message.as_ref().unwrap().contains(words), "{verdict:?}");
        assert!(!text(&rendered).contains("rule: a"));
    }
    // By the field, or by one of its names.
    for field in ["evt.arg", "evt.arg.flags", "evt.arg*", "evt.rawarg", "evt.rawarg.mode"] {
        world.policy = Policy::from_yaml(&format!("deniedFields: ['{field}']")).unwrap();
        let rendered = world.render();
        assert_eq!(rendered.rules["dotted"].rejected, Some(Reason::PolicyDenied), "{field}");
        assert_eq!(rendered.rules["a"].rejected, None, "{field}");
    }
}

#[test]
fn a_quota_prefers_what_is_in_force() {
    let mut world = World::of(vec![rule("b")]);
    world.settle();
    world.rules.push(rule("a"));
    world.rules[1].metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    world.policy = Policy::from_yaml("quotas: {rules: 1}").unwrap();
    let rendered = world.render();
    assert_eq!(rendered.rules["b"].rejected, None);
    assert_eq!(rendered.rules["a"].rejected, Some(Reason::PolicyDenied));
    world.settled = None;
    assert_eq!(world.render().rules["a"].rejected, None, "and then the older");
}

#[test]
fn a_file_beyond_the_limit_is_not_written() {
    let mut world = World::of((0..200).map(|i| rule(&format!("r{i}"))).collect());
    for rule in &mut world.rules {
        rule.spec.desc = "d".repeat(4000);
    }
    let rendered = world.render();
    let too_large = rendered.file.unwrap_err();
    assert_eq!(too_large.limit, 600 * 1024);
    assert!(too_large.bytes > 800_000 && too_large.bytes < 850_000, "{too_large:?}");
    assert_eq!(rendered.rules.len(), 200);
    world.rules.truncate(100);
    let file = world.render().file.unwrap();
    assert!(serde_json::to_string(&file).unwrap().len() < MAX_FILE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The order in which the items arrive says nothing.
    #[test]
    fn shuffled_items_give_the_same_bytes(
        mut order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
        cut in 0..12_usize,
    ) {
        let rules: Vec<FalcoRule> = (0..12)
            .map(|i| {
                let mut rule = rule(&format!("r{i}"));
                rule.spec.rule = format!("rule {}", i % 8);
                rule.metadata.creation_timestamp = Timestamp::from_second(i % 5).ok().map(Time);
                rule
            })
            .collect();
        let expected = World::of(rules.clone()).render();
        let world = World::of(order.iter().map(|&i| rules[i].clone()).collect());
        prop_assert_eq!(&world.render(), &expected);
        // Nor does it once a part of the file is in force.
        let mut items = expected.file.unwrap().items;
        items.retain(|item| item.name.len() % 2 == cut % 2);
        let settled = Some(BundleFile::new(items));
        let before = World { settled: settled.clone(), ..World::of(rules.clone()) }.render();
        order.rotate_left(cut);
        let after = World { settled, ..World::of(order.iter().map(|&i| rules[i].clone()).collect()) }.render();
        prop_assert_eq!(before, after);
    }

    /// Any text that the schema lets in comes back from the file, through both parsers.
    #[test]
    fn texts_come_back_from_the_file(
        name in "[^\\x00-\\x1F\\x7F\u{80}-\u{9F}\u{2028}\u{2029}\"\\\\*]{0,30}[a-z=%#@~]",
        desc in "[^\\x00-\\x1F\\x7F\u{80}-\u{9F}\u{2028}\u{2029}]{1,30}\n?",
        value in "[^\\x00-\\x1F\"\\\\]{0,30}",
        blank in "[ \t\n\r]{1,3}",
        output in "[^\\x00-\\x1F\\x7F\u{80}-\u{9F}\u{2028}\u{2029}%]{0,30}[a-z]\n?",
    ) {
        let mut odd = rule("a");
        odd.spec.rule = name;
        odd.spec.desc = desc;
        odd.spec.condition = format!("evt.type = open and{blank}proc.cmdline contains \"{value}\"\n");
        odd.spec.output = output;
        let rendered = World::of(vec![odd.clone()]).render();
        let mut expected = FileRule::of(&odd.spec);
        prop_assert_eq!(&rendered.rules["a"].message, &None);
        expected.rule = rendered.rules["a"].rule_name.clone().unwrap().into();
        let text = text(&rendered);
        let one: Vec<FileRule<'_>> = serde_yaml::from_str(&text).unwrap();
        let two: Vec<FileRule<'_>> = serde_saphyr::from_str(&text).unwrap();
        prop_assert_eq!(&one[..], std::slice::from_ref(&expected));
        prop_assert_eq!(&two[..], &[expected]);
    }
}
