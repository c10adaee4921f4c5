//! For a developer: one namespace.

use super::{ALL_IS_GOOD, Dashboard, GREEN, NEUTRAL, NONE_IS_GOOD, Panel, Show, YELLOW};

pub fn dashboard() -> Dashboard {
    Dashboard {
        name: "namespace",
        title: "Falco operator / My namespace",
        purpose: "For a developer: whether the rules of one namespace are in force, on how many nodes, and how often they fire.",
        variable: Some(("namespace", "falco_operator_controller_namespace_phase")),
        rows: vec![("My rules", now()), ("How often they fire", firing()), ("Where they are loaded", places())],
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel {
            title: "Phase",
            question: "Where is the namespace's rules file on its way to the nodes? Active: every available node runs it.",
            show: Show::Word,
            unit: "none",
            width: 6,
            steps: NEUTRAL,
            queries: vec![(
                r#"max by (phase) (falco_operator_controller_namespace_phase{namespace="$namespace"})"#,
                "{{phase}}",
            )],
        },
        Panel {
            title: "Nodes that have loaded it",
            question: "Which share of the nodes that should load my newest rules has proved that it did?",
            show: Show::Number,
            unit: "percentunit",
            width: 6,
            steps: ALL_IS_GOOD,
            queries: vec![(
                r#"max(falco_operator_controller_namespace_nodes{namespace="$namespace",state="loaded"}) / max(falco_operator_controller_namespace_nodes{namespace="$namespace",state="desired"})"#,
                "nodes",
            )],
        },
        Panel {
            title: "Rules that are not in force",
            question: "How many of my rules are not in force as they are written? `kubectl get falcorules -o wide` says which, and why.",
            show: Show::Number,
            unit: "short",
            width: 6,
            steps: &[(0.0, GREEN), (1.0, YELLOW)],
            queries: vec![(
                r#"sum(max by (phase) (falco_operator_controller_namespace_rules{namespace="$namespace",phase!="Active"})) or vector(0)"#,
                "rules",
            )],
        },
        Panel {
            title: "Matches",
            question: "How often did my rules fire in the time shown, on all nodes?",
            show: Show::Number,
            unit: "short",
            width: 6,
            steps: NEUTRAL,
            queries: vec![(
                r#"sum(increase(falco_operator_agent_rule_matches_total{namespace="$namespace"}[$__range]))"#,
                "matches",
            )],
        },
        Panel {
            title: "Rules by state over time",
            question: "What became of my rules when I edited them?",
            show: Show::Areas,
            unit: "short",
            width: 12,
            steps: NEUTRAL,
            queries: vec![(
                r#"max by (phase) (falco_operator_controller_namespace_rules{namespace="$namespace"})"#,
                "{{phase}}",
            )],
        },
        Panel {
            title: "Nodes over time",
            question: "How fast does a change reach the nodes, and does it stay there? `loaded` should meet `desired`.",
            show: Show::Lines,
            unit: "short",
            width: 12,
            steps: NEUTRAL,
            queries: vec![(
                r#"max by (state) (falco_operator_controller_namespace_nodes{namespace="$namespace"})"#,
                "{{state}}",
            )],
        },
    ]
}

fn firing() -> Vec<Panel> {
    vec![
        Panel {
            title: "Matches by rule",
            question: "Which of my rules fires when? One that fires all the time is too broad; a sudden rise deserves a look.",
            show: Show::Lines,
            unit: "short",
            width: 16,
            steps: NEUTRAL,
            queries: vec![(
                r#"sum by (falcorule) (rate(falco_operator_agent_rule_matches_total{namespace="$namespace"}[$__rate_interval])) * 60"#,
                "{{falcorule}}, a minute",
            )],
        },
        Panel {
            title: "Matches by node",
            question: "On which nodes do my rules fire?",
            show: Show::Bars,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![(
                r#"topk(10, sum by (node) (increase(falco_operator_agent_rule_matches_total{namespace="$namespace"}[$__range])))"#,
                "{{node}}",
            )],
        },
    ]
}

fn places() -> Vec<Panel> {
    vec![
        Panel {
            title: "Rule by rule",
            question: "On how many nodes does each of my rules run, and how often did it fire in the time shown?",
            show: Show::Table,
            unit: "short",
            width: 12,
            steps: NEUTRAL,
            queries: vec![
                (r#"count by (falcorule) (falco_operator_agent_rule_matches_total{namespace="$namespace"})"#, "nodes"),
                (
                    r#"round(sum by (falcorule) (increase(falco_operator_agent_rule_matches_total{namespace="$namespace"}[$__range])))"#,
                    "matches",
                ),
            ],
        },
        Panel {
            title: "Nodes that run something else",
            question: "Which nodes do not run my newest rules file, and why? Refused: that node's Falco does not take it. Pending: not yet its turn, or under way. An empty table is the good answer.",
            show: Show::Table,
            unit: "short",
            width: 12,
            steps: NONE_IS_GOOD,
            queries: vec![(
                r#"max by (node, why) (falco_operator_agent_namespace_behind{namespace="$namespace"})"#,
                "behind",
            )],
        },
    ]
}
