//! For who looks after a node: Falco, its loads, what it loses.

use super::{Dashboard, GREEN, NEUTRAL, NONE_IS_GOOD, ONE_IS_GOOD, Panel, RED, Show, YELLOW};

pub fn dashboard() -> Dashboard {
    Dashboard {
        name: "node",
        title: "Falco operator / Node",
        purpose: "For whoever looks after a node: whether Falco runs there and sees everything, how its loads go, and what it loses.",
        variable: Some(("node", "falco_operator_agent_falco_up")),
        rows: vec![
            ("Now", now()),
            ("Loads of rules files", loads()),
            ("What Falco sees and loses", sight()),
            ("The agent", agent()),
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel {
            title: "Falco",
            question: "Does Falco run on this node, and answer?",
            show: Show::Number,
            unit: "bool_yes_no",
            width: 4,
            steps: ONE_IS_GOOD,
            queries: vec![(r#"max(falco_operator_agent_falco_up{node="$node"})"#, "runs")],
        },
        Panel {
            title: "Proof",
            question: "Is it proved which rules files Falco runs here? Without a proof the node does not count as loaded.",
            show: Show::Number,
            unit: "bool_yes_no",
            width: 4,
            steps: ONE_IS_GOOD,
            queries: vec![(r#"max(falco_operator_agent_proved{node="$node"})"#, "proved")],
        },
        Panel {
            title: "Version",
            question: "Which Falco runs here?",
            show: Show::Word,
            unit: "none",
            width: 4,
            steps: NEUTRAL,
            queries: vec![(
                r#"max by (falco_version) (falco_operator_agent_falco_info{node="$node"})"#,
                "{{falco_version}}",
            )],
        },
        Panel {
            title: "Faults of the node",
            question: "Is something wrong with the node itself, because of which it loads nothing new? Its FalcoNode says what, in a sentence.",
            show: Show::Number,
            unit: "short",
            width: 4,
            steps: NONE_IS_GOOD,
            queries: vec![(r#"sum(max by (reason) (falco_operator_agent_node_fault{node="$node"}))"#, "faults")],
        },
        Panel {
            title: "Rules",
            question: "How many rules of developers does Falco run here?",
            show: Show::Number,
            unit: "short",
            width: 4,
            steps: NEUTRAL,
            queries: vec![(r#"max(falco_operator_agent_rules_loaded{node="$node"})"#, "rules")],
        },
        Panel {
            title: "Last load",
            question: "How long ago did Falco load rules files here?",
            show: Show::Number,
            unit: "s",
            width: 4,
            steps: NEUTRAL,
            queries: vec![(r#"time() - max(falco_operator_agent_last_reload_timestamp_seconds{node="$node"})"#, "ago")],
        },
    ]
}

fn loads() -> Vec<Panel> {
    vec![
        Panel {
            title: "Loads by outcome",
            question: "Do new rules files come into force? Swapped back: Falco died of the set, or did not confirm it.",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![(
                r#"sum by (outcome) (increase(falco_operator_agent_reloads_total{node="$node"}[10m]))"#,
                "{{outcome}}, in 10 minutes",
            )],
        },
        Panel {
            title: "How long loads take",
            question: "How long does Falco take to check a set and to bring it into force? 95 of 100 of the last half hour were faster. It grows with the number of rules.",
            show: Show::Lines,
            unit: "s",
            width: 8,
            steps: &[(0.0, GREEN), (10.0, YELLOW), (60.0, RED)],
            queries: vec![
                (
                    r#"histogram_quantile(0.95, sum by (le) (increase(falco_operator_agent_reload_seconds_bucket{node="$node"}[30m])))"#,
                    "load",
                ),
                (
                    r#"histogram_quantile(0.95, sum by (le) (increase(falco_operator_agent_check_seconds_bucket{node="$node"}[30m])))"#,
                    "check",
                ),
            ],
        },
        Panel {
            title: "Files wanted and loaded",
            question: "Does this node load what it should? `loaded` should meet `wanted`.",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![
                (r#"max(falco_operator_agent_namespaces{node="$node"})"#, "wanted"),
                (r#"max(falco_operator_agent_namespaces_loaded{node="$node"})"#, "loaded"),
                (r#"max(falco_operator_agent_namespaces_in_trouble{node="$node"})"#, "tried in vain"),
                (r#"max(falco_operator_agent_kept_without_bundle{node="$node"})"#, "kept without a bundle"),
            ],
        },
    ]
}

fn sight() -> Vec<Panel> {
    vec![
        Panel {
            title: "Blind time",
            question: "How long was Falco not there to see anything? Each load costs a moment; more than seconds is wrong.",
            show: Show::Lines,
            unit: "s",
            width: 6,
            steps: &[(0.0, GREEN), (10.0, YELLOW), (60.0, RED)],
            queries: vec![(
                r#"sum(increase(falco_operator_agent_blind_seconds_total{node="$node"}[10m]))"#,
                "blind, in 10 minutes",
            )],
        },
        Panel {
            title: "Restarts",
            question: "How often did Falco die? Each time its agent starts it again, later and later.",
            show: Show::Lines,
            unit: "short",
            width: 6,
            steps: &[(0.0, GREEN), (1.0, YELLOW), (3.0, RED)],
            queries: vec![(
                r#"sum(increase(falco_operator_agent_falco_restarts_total{node="$node"}[10m]))"#,
                "restarts, in 10 minutes",
            )],
        },
        Panel {
            title: "Events",
            question: "How much does Falco see on this node?",
            show: Show::Lines,
            unit: "eps",
            width: 6,
            steps: NEUTRAL,
            queries: vec![(
                r#"sum(rate(falco_operator_agent_falco_events_total{node="$node"}[$__rate_interval]))"#,
                "events",
            )],
        },
        Panel {
            title: "Losses",
            question: "Does Falco lose events because the node is too busy, or alerts because an output is too slow? An event that is lost is one that no rule sees.",
            show: Show::Lines,
            unit: "eps",
            width: 6,
            steps: &[(0.0, GREEN), (1.0, RED)],
            queries: vec![
                (
                    r#"sum(rate(falco_operator_agent_falco_events_dropped_total{node="$node"}[$__rate_interval]))"#,
                    "events lost",
                ),
                (
                    r#"sum(rate(falco_operator_agent_falco_outputs_dropped_total{node="$node"}[$__rate_interval]))"#,
                    "alerts lost",
                ),
            ],
        },
        Panel {
            title: "Matches by namespace",
            question: "Whose rules fire on this node, and how often? `base` are Falco's own and the administrator's.",
            show: Show::Areas,
            unit: "short",
            width: 16,
            steps: NEUTRAL,
            queries: vec![
                (
                    r#"topk(10, sum by (namespace) (rate(falco_operator_agent_rule_matches_total{node="$node"}[$__rate_interval])) * 60)"#,
                    "{{namespace}}, a minute",
                ),
                (
                    r#"sum by (of) (rate(falco_operator_agent_other_rule_matches_total{node="$node"}[$__rate_interval])) * 60"#,
                    "{{of}}, a minute",
                ),
            ],
        },
        Panel {
            title: "Namespaces that are behind",
            question: "Which namespaces' newest rules file does this node not run, and why? An empty table is the good answer.",
            show: Show::Table,
            unit: "short",
            width: 8,
            steps: NONE_IS_GOOD,
            queries: vec![(
                r#"max by (namespace, why) (falco_operator_agent_namespace_behind{node="$node"})"#,
                "behind",
            )],
        },
    ]
}

fn agent() -> Vec<Panel> {
    vec![
        Panel {
            title: "Report",
            question: "Can the agent tell the API server what its node runs? Writes of its report by outcome; at rest there are none.",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![
                (
                    r#"sum by (outcome) (increase(falco_operator_agent_report_writes_total{node="$node"}[10m]))"#,
                    "{{outcome}}, in 10 minutes",
                ),
                (
                    r#"sum(increase(falco_operator_agent_report_drifts_total{node="$node"}[10m]))"#,
                    "found changed, in 10 minutes",
                ),
            ],
        },
        Panel {
            title: "CPU of the agent",
            question: "How much of a CPU does the agent itself take? Falco's is not in it.",
            show: Show::Lines,
            unit: "percentunit",
            width: 8,
            steps: &[(0.0, GREEN), (0.2, YELLOW)],
            queries: vec![(
                r#"max(rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) falco_operator_agent_falco_up{node="$node"})"#,
                "CPU",
            )],
        },
        Panel {
            title: "Memory of the agent",
            question: "How much memory does the agent itself take? Falco's is not in it.",
            show: Show::Lines,
            unit: "bytes",
            width: 8,
            steps: &[(0.0, GREEN), (200e6, YELLOW)],
            queries: vec![(
                r#"max(process_resident_memory_bytes and on (instance) falco_operator_agent_falco_up{node="$node"})"#,
                "resident",
            )],
        },
    ]
}
