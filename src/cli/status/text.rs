//! One screen for people: what runs, where not, why not, since when, what was changed last.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;

use super::view::{NodeView, RuleView, View};
use crate::api::{FalcoRulesFileStatus, ItemPhase, Phase};

/// How it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With colours.
    pub colour: bool,
    /// About one rule, with all that there is to say of it.
    pub one: bool,
}

#[derive(Clone, Copy)]
enum Shade {
    Green = 32,
    Yellow = 33,
    Red = 31,
}

/// How many characters the bar of a rollout has.
const BAR: i32 = 20;
/// How many nodes are shown that have nothing to say.
const QUIET: usize = 12;

impl Style {
    fn paint(self, text: &str, shade: Shade) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", shade as u8) } else { text.to_owned() }
    }
}

/// All namespaces that are asked about, or that there is nothing.
pub fn screen(views: &[View], namespace: Option<&str>, style: Style, now: Timestamp) -> String {
    if views.is_empty() {
        let place = namespace.map_or("any namespace".to_owned(), |name| format!("the namespace {name}"));
        return format!("There are no FalcoRules in {place}.\n");
    }
    let texts: Vec<String> = views.iter().map(|view| of(view, style, now)).collect();
    texts.join("\n")
}

fn of(view: &View, style: Style, now: Timestamp) -> String {
    let mut text = String::new();
    if style.one {
        for rule in &view.rules {
            detail(&mut text, view, rule, style, now);
        }
    }
    heading(&mut text, view, style, now);
    if !style.one {
        table(&mut text, &view.rules, style, now);
    }
    if let Some(nodes) = &view.nodes {
        // Of one rule every node is of interest; of all rules those that differ.
        let shown: Vec<&NodeView> = nodes.iter().filter(|node| style.one || node.loaded != Some(true)).collect();
        of_nodes(&mut text, &shown, style, now);
    }
    text
}

fn heading(text: &mut String, view: &View, style: Style, now: Timestamp) {
    let _ = write!(text, "namespace {}", view.namespace);
    let Some(file) = &view.file else {
        text.push_str(": no FalcoRulesFile yet; is the operator running?\n");
        return;
    };
    let shade = match file.phase {
        Phase::Active | Phase::Empty => Shade::Green,
        Phase::Degraded | Phase::RolledBack | Phase::RollingBack => Shade::Red,
        _ => Shade::Yellow,
    };
    let since = file.phase_since.as_ref().map(|since| format!(" for {}", age(since.0, now))).unwrap_or_default();
    let _ = write!(text, ": {}{since}", style.paint(file.phase.name(), shade));
    if let Some(loaded) = &file.loaded {
        let _ = write!(text, ", {loaded} nodes");
    }
    let (accepted, rejected) = (file.rules_accepted.unwrap_or(0), file.rules_rejected.unwrap_or(0));
    let _ = write!(text, ", {}", count(accepted, "rule", "accepted"));
    if rejected > 0 {
        let _ = write!(text, ", {}", style.paint(&format!("{rejected} rejected"), Shade::Red));
    }
    text.push_str(if view.paused { ", paused\n" } else { "\n" });
    if let Some(bar) = progress(file) {
        let _ = writeln!(text, "  {bar}");
    }
    if let Some(message) = &file.message {
        let _ = writeln!(text, "  {message}");
    }
    // Who may read the nodes' own reports sees more than these lists.
    if view.nodes.is_none() {
        if !file.pending.is_empty() {
            let _ = writeln!(text, "  not loaded yet: {}", file.pending.join(", "));
        }
        for node in &file.failing {
            let message = node.message.as_deref().unwrap_or("no message");
            let _ = writeln!(text, "  {} ({:?}): {message}", node.node, node.fault);
        }
    }
}

/// How far what is under way is: `[######··············] 3 of 10 nodes, wave 2`.
fn progress(file: &FalcoRulesFileStatus) -> Option<String> {
    let under_way = matches!(file.phase, Phase::RollingOut | Phase::RollingBack | Phase::Withdrawing);
    let nodes = file.nodes.filter(|nodes| under_way && nodes.desired > 0)?;
    let (all, done) = (nodes.desired, nodes.loaded.clamp(0, nodes.desired));
    let filled = (done * BAR / all) as usize;
    let bar = format!("{}{}", "#".repeat(filled), "·".repeat(BAR as usize - filled));
    let wave = file.wave.map(|wave| format!(", wave {wave}")).unwrap_or_default();
    let failed = if nodes.failed > 0 { format!(", {} failed", nodes.failed) } else { String::new() };
    Some(format!("[{bar}] {done} of {all} nodes{wave}{failed}"))
}

fn shade_of(phase: ItemPhase) -> Shade {
    match phase {
        ItemPhase::Active => Shade::Green,
        ItemPhase::Pending | ItemPhase::RollingOut | ItemPhase::Unknown => Shade::Yellow,
        _ => Shade::Red,
    }
}

fn table(text: &mut String, rules: &[RuleView], style: Style, now: Timestamp) {
    if rules.is_empty() {
        return;
    }
    let width = rules.iter().map(|rule| rule.name.chars().count()).max().unwrap_or(0).max("RULE".len());
    let _ = writeln!(text, "  {:width$}  {:10}  {:7}  {:5}  MESSAGE", "RULE", "PHASE", "LOADED", "SINCE");
    for rule in rules {
        let status = rule.status.as_ref().filter(|_| rule.is_current());
        let loaded = status.and_then(|status| status.loaded.as_deref()).unwrap_or("-");
        let message = status.and_then(|status| status.message.as_deref()).unwrap_or_default();
        let since = rule.since().filter(|_| rule.is_current()).map_or("-".to_owned(), |since| age(since, now));
        // Padded before it is painted: what colours is no width.
        let phase = style.paint(&format!("{:10}", format!("{:?}", rule.phase())), shade_of(rule.phase()));
        let line = format!("  {:width$}  {phase}  {loaded:7}  {since:5}  {message}", rule.name);
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn detail(text: &mut String, view: &View, rule: &RuleView, style: Style, now: Timestamp) {
    let phase = rule.phase();
    let status = rule.status.as_ref().filter(|_| rule.is_current());
    let since = rule.since().filter(|_| rule.is_current()).map(|since| format!(" for {}", age(since, now)));
    let _ = writeln!(
        text,
        "{}/{}: {}{}",
        view.namespace,
        rule.name,
        style.paint(&format!("{phase:?}"), shade_of(phase)),
        since.unwrap_or_default()
    );
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "  {key:12} {value}");
    };
    let name = status.and_then(|status| status.rule_name.as_deref()).or(rule.rule.as_deref());
    if let Some(name) = name {
        let priority = rule.priority.as_deref().unwrap_or_default();
        line("rule", &format!("{name} ({priority})"));
    }
    if let Some((loaded, all)) = status.and_then(|status| Some((status.loaded_nodes?, status.desired_nodes?))) {
        line("running on", &format!("{loaded} of {}", count(all, "node", "")));
    }
    if let Some(change) = &rule.change {
        let generation = rule.generation.map(|it| format!("generation {it}, ")).unwrap_or_default();
        line("last change", &format!("{generation}{} ago by {}", age(change.at, now), change.by));
    }
    match status {
        None => line("in force", "not known yet: the controller has not looked at this text"),
        Some(status) => match (status.generation_in_force, phase) {
            (Some(older), _) => line("in force", &format!("generation {older}, an earlier text of yours")),
            (None, ItemPhase::Active) => line("in force", "as it is written"),
            (None, ItemPhase::Degraded) => line("in force", "as it is written, where it is loaded"),
            _ => line("in force", "nothing of this rule yet"),
        },
    }
    if let Some(message) = status.and_then(|status| status.message.as_deref()) {
        line("message", message);
    }
}

fn of_nodes(text: &mut String, nodes: &[&NodeView], style: Style, now: Timestamp) {
    let width = nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
    // Those in trouble first: of thousands the others are one like another.
    let (told, quiet): (Vec<&NodeView>, Vec<&NodeView>) = nodes.iter().partition(|node| node.trouble.is_some());
    for node in told.iter().chain(quiet.iter().take(QUIET)) {
        let (word, shade) = match node.loaded {
            Some(true) => ("loaded", Shade::Green),
            Some(false) => ("not loaded", Shade::Yellow),
            None => ("unknown", Shade::Red),
        };
        let word = style.paint(&format!("{word:10}"), shade);
        let falco = node.falco.as_deref().map(|version| format!("Falco {version}")).unwrap_or_default();
        let reloaded = node.reloaded.map(|at| format!("loaded {} ago", age(at, now))).unwrap_or_default();
        let trouble = node.trouble.as_deref().unwrap_or_default();
        let facts: Vec<&str> =
            [falco.as_str(), &reloaded, trouble].into_iter().filter(|fact| !fact.is_empty()).collect();
        let _ = writeln!(text, "  {}", format!("{:width$}  {word}  {}", node.name, facts.join(", ")).trim_end());
    }
    if quiet.len() > QUIET {
        let _ = writeln!(text, "  and {} more", quiet.len() - QUIET);
    }
}

/// `1 rule accepted`, `2 rules accepted`.
fn count(number: i32, noun: &str, verb: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural} {verb}").trim_end().to_owned()
}

/// `5m`.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

    use super::super::view::Change;
    use super::*;
    use crate::api::{AuthoredStatus, FailingNode, Fault, NodeCounts, Reason, condition};

    const NOW: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn status(phase: ItemPhase, ready: bool) -> AuthoredStatus {
        let mut ready = condition("Ready", Some(ready), Reason::Loaded, "", Some(2));
        ready.last_transition_time = Time(at(NOW - 300));
        AuthoredStatus {
            observed_generation: Some(2),
            phase: Some(phase),
            loaded: Some("2/3".into()),
            loaded_nodes: Some(2),
            desired_nodes: Some(3),
            conditions: vec![ready],
            ..AuthoredStatus::default()
        }
    }

    fn view() -> View {
        let file = FalcoRulesFileStatus {
            phase: Phase::Degraded,
            phase_since: Some(MicroTime(at(NOW - 600))),
            loaded: Some("2/3".into()),
            rules_accepted: Some(1),
            rules_rejected: Some(1),
            message: Some("2 of 3 available nodes have loaded the rules file, but not node-3.".into()),
            failing: vec![FailingNode {
                node: "node-3".into(),
                fault: Fault::NodeFault,
                message: Some("no space".into()),
            }],
            ..FalcoRulesFileStatus::default()
        };
        let good = RuleView {
            name: "bash".into(),
            rule: Some("shell_in_container".into()),
            priority: Some("WARNING".into()),
            generation: Some(2),
            change: Some(Change { at: at(NOW - 400), by: "kubectl".into() }),
            status: Some(status(ItemPhase::Active, true)),
        };
        let new = RuleView { name: "b".into(), generation: Some(1), ..RuleView::default() };
        View { file: Some(file), paused: true, rules: vec![good, new], ..View::new("team-a".into()) }
    }

    fn plain(view: &View, one: bool) -> String {
        screen(std::slice::from_ref(view), None, Style { colour: false, one }, at(NOW))
    }

    #[test]
    fn one_screen_says_what_runs_where_not_and_why() {
        assert_eq!(
            plain(&view(), false),
            "namespace team-a: Degraded for 10m, 2/3 nodes, 1 rule accepted, 1 rejected, paused\n  \
             2 of 3 available nodes have loaded the rules file, but not node-3.\n  \
             node-3 (NodeFault): no space\n  \
             RULE  PHASE       LOADED   SINCE  MESSAGE\n  \
             bash  Active      2/3      5m\n  \
             b     Pending     -        -\n"
        );
        let coloured = screen(&[view()], None, Style { colour: true, one: false }, at(NOW));
        assert!(coloured.contains("\x1b[31mDegraded\x1b[0m") && coloured.contains("\x1b[32mActive    \x1b[0m"));
        assert!(!plain(&view(), false).contains('\x1b'));
    }

    #[test]
    fn one_rule_is_told_about_in_full() {
        let mut view = view();
        view.rules.truncate(1);
        view.paused = false;
        let node = |name: &str, loaded, trouble: Option<&str>| NodeView {
            name: name.into(),
            loaded,
            trouble: trouble.map(Into::into),
            falco: Some("0.44.1".into()),
            reloaded: Some(at(NOW - 30)),
        };
        view.nodes =
            Some(vec![node("node-1", Some(true), None), node("node-3", Some(false), Some("NodeFault: no space"))]);
        assert_eq!(
            plain(&view, true),
            "team-a/bash: Active for 5m\n  \
             rule         shell_in_container (WARNING)\n  \
             running on   2 of 3 nodes\n  \
             last change  generation 2, 6m ago by kubectl\n  \
             in force     as it is written\n\
             namespace team-a: Degraded for 10m, 2/3 nodes, 1 rule accepted, 1 rejected\n  \
             2 of 3 available nodes have loaded the rules file, but not node-3.\n  \
             node-3  not loaded  Falco 0.44.1, loaded 30s ago, NodeFault: no space\n  \
             node-1  loaded      Falco 0.44.1, loaded 30s ago\n"
        );
        let rejected = AuthoredStatus {
            generation_in_force: Some(1),
            message: Some("condition, column 3: there is no field proc.nam".into()),
            ..status(ItemPhase::Rejected, false)
        };
        view.rules[0].status = Some(rejected);
        let text = plain(&view, true);
        assert!(text.contains("in force     generation 1, an earlier text of yours\n"), "{text}");
        assert!(text.contains("message      condition, column 3: there is no field proc.nam\n"), "{text}");
    }

    #[test]
    fn a_rollout_shows_how_far_it_is() {
        let nodes = NodeCounts { desired: 10, available: 10, loaded: 3, failed: 1, ..NodeCounts::default() };
        let file = FalcoRulesFileStatus {
            phase: Phase::RollingOut,
            nodes: Some(nodes),
            wave: Some(2),
            ..FalcoRulesFileStatus::default()
        };
        assert_eq!(progress(&file).unwrap(), "[######··············] 3 of 10 nodes, wave 2, 1 failed");
        assert_eq!(progress(&FalcoRulesFileStatus { phase: Phase::Active, ..file.clone() }), None);
        let none = NodeCounts::default();
        assert_eq!(progress(&FalcoRulesFileStatus { nodes: Some(none), ..file }), None);
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let style = Style::default();
        assert_eq!(screen(&[], Some("a"), style, at(0)), "There are no FalcoRules in the namespace a.\n");
        assert_eq!(screen(&[], None, style, at(0)), "There are no FalcoRules in any namespace.\n");
        let text = plain(&View::new("a".into()), false);
        assert_eq!(text, "namespace a: no FalcoRulesFile yet; is the operator running?\n");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [(5, "5s"), (600, "10m"), (10_000, "2h"), (900_000, "10d")] {
            assert_eq!(age(at(0), at(seconds)), text);
        }
    }
}
