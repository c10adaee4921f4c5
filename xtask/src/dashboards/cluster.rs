//! For the administrator: the whole cluster.

use super::{ALL_IS_GOOD, Dashboard, GREEN, NEUTRAL, NONE_IS_GOOD, Panel, RED, Show, YELLOW};

pub fn dashboard() -> Dashboard {
    Dashboard {
        name: "cluster",
        title: "Falco operator / Cluster",
        purpose: "For the administrator: whether every node runs the rules that it should, how rollouts go, how long an edit takes, and what fails.",
        variable: None,
        rows: vec![
            ("Now", now()),
            ("Rollouts", rollouts()),
            ("Nodes", nodes()),
            ("Failures", failures()),
            ("Admission", admission()),
            ("The controller", controller()),
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel {
            title: "Nodes that prove their rules",
            question: "Does every node that should run Falco prove which rules it runs? Less than all for long: see Nodes, below.",
            show: Show::Number,
            unit: "percentunit",
            width: 4,
            steps: ALL_IS_GOOD,
            queries: vec![(
                r#"max(falco_operator_controller_nodes{state="available"}) / max(falco_operator_controller_nodes{state="desired"})"#,
                "nodes",
            )],
        },
        Panel {
            title: "Rules in force",
            question: "How many rules of developers do all available nodes run as they are written?",
            show: Show::Number,
            unit: "short",
            width: 4,
            steps: NEUTRAL,
            queries: vec![(r#"max(falco_operator_controller_rules{phase="Active"})"#, "rules")],
        },
        Panel {
            title: "Rules not in force",
            question: "How many rules are written and not in force? Some for a moment is a rollout; some for long are refused, rolled back or not running: see Failures, below.",
            show: Show::Number,
            unit: "short",
            width: 4,
            steps: &[(0.0, GREEN), (1.0, YELLOW)],
            queries: vec![(r#"sum(max by (phase) (falco_operator_controller_rules{phase!="Active"}))"#, "rules")],
        },
        Panel {
            title: "Namespaces in trouble",
            question: "In how many namespaces was a change rolled back, or does a node no longer load what it had loaded?",
            show: Show::Number,
            unit: "short",
            width: 4,
            steps: NONE_IS_GOOD,
            queries: vec![(
                r#"sum(max by (phase) (falco_operator_controller_namespaces{phase=~"Degraded|RollingBack|RolledBack"}))"#,
                "namespaces",
            )],
        },
        Panel {
            title: "Leaders",
            question: "Does exactly one controller lead? Without one nothing is rolled out; nodes go on with what they run.",
            show: Show::Number,
            unit: "short",
            width: 4,
            steps: &[(0.0, RED), (1.0, GREEN), (2.0, RED)],
            queries: vec![("sum(falco_operator_controller_leader)", "leaders")],
        },
        Panel {
            title: "Webhook's certificate",
            question: "How long is the certificate good for with which rules are answered when they are applied? It is renewed at half of its life.",
            show: Show::Number,
            unit: "s",
            width: 4,
            steps: &[(0.0, RED), (604_800.0, YELLOW), (1_209_600.0, GREEN)],
            queries: vec![("min(falco_operator_webhook_certificate_expiry_timestamp_seconds > 0) - time()", "left")],
        },
    ]
}

fn rollouts() -> Vec<Panel> {
    vec![
        Panel {
            title: "Namespaces by phase",
            question: "Where are the namespaces' rules files on their way to the nodes? Active is the end of the way.",
            show: Show::Areas,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![("max by (phase) (falco_operator_controller_namespaces) > 0", "{{phase}}")],
        },
        Panel {
            title: "Rollouts and rollbacks",
            question: "How often do changes go out, and how often are they taken back, and why?",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![
                ("sum(increase(falco_operator_controller_rollouts_total[10m]))", "rollouts in 10 minutes"),
                (
                    "sum by (reason) (increase(falco_operator_controller_rollbacks_total[10m]))",
                    "rolled back: {{reason}}",
                ),
            ],
        },
        Panel {
            title: "From the edit to the proof",
            question: "How long after an edit do all available nodes prove that they run it? Of the edits of the last half hour, half were faster than the lower line, 95 of 100 faster than the upper one.",
            show: Show::Lines,
            unit: "s",
            width: 8,
            steps: &[(0.0, GREEN), (60.0, YELLOW), (300.0, RED)],
            queries: vec![
                (
                    "histogram_quantile(0.95, sum by (le) (increase(falco_operator_controller_apply_to_loaded_seconds_bucket[30m])))",
                    "95 of 100",
                ),
                (
                    "histogram_quantile(0.5, sum by (le) (increase(falco_operator_controller_apply_to_loaded_seconds_bucket[30m])))",
                    "half",
                ),
            ],
        },
        Panel {
            title: "Where the time goes",
            question: "Which step makes an edit slow: deciding, writing the bundle, Falco's check on the nodes, or its load? 95 of 100 of the last half hour were faster.",
            show: Show::Lines,
            unit: "s",
            width: 12,
            steps: NEUTRAL,
            queries: vec![
                (
                    "histogram_quantile(0.95, sum by (le) (increase(falco_operator_controller_decision_seconds_bucket[30m])))",
                    "deciding",
                ),
                (
                    "histogram_quantile(0.95, sum by (le) (increase(falco_operator_controller_event_to_bundle_seconds_bucket[30m])))",
                    "from the event to the bundle",
                ),
                (
                    "histogram_quantile(0.95, sum by (le) (increase(falco_operator_agent_check_seconds_bucket[30m])))",
                    "Falco's check",
                ),
                (
                    "histogram_quantile(0.95, sum by (le) (increase(falco_operator_agent_reload_seconds_bucket[30m])))",
                    "Falco's load",
                ),
                (
                    "histogram_quantile(0.95, sum by (le) (increase(falco_operator_controller_seen_to_loaded_seconds_bucket[30m])))",
                    "all, from the event to the proof",
                ),
            ],
        },
        Panel {
            title: "Rules by state",
            question: "What has become of the rules that developers wrote?",
            show: Show::Areas,
            unit: "short",
            width: 12,
            steps: NEUTRAL,
            queries: vec![("max by (phase) (falco_operator_controller_rules) > 0", "{{phase}}")],
        },
    ]
}

fn nodes() -> Vec<Panel> {
    vec![
        Panel {
            title: "Nodes over time",
            question: "How many nodes should run Falco, how many have proved what they run, and how many can't prove it?",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![("max by (state) (falco_operator_controller_nodes)", "{{state}}")],
        },
        Panel {
            title: "Nodes that are away",
            question: "Why are nodes not available? Their rules files are not waited for meanwhile.",
            show: Show::Areas,
            unit: "short",
            width: 8,
            steps: NONE_IS_GOOD,
            queries: vec![("max by (reason) (falco_operator_controller_nodes_away)", "{{reason}}")],
        },
        Panel {
            title: "Catalogues",
            question: "Do all nodes offer the same fields, macros and lists to rules? More than one catalogue means that Falco installations differ, and that a rule may load on some nodes only.",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: NEUTRAL,
            queries: vec![("max by (catalog) (falco_operator_controller_catalog_nodes)", "{{catalog}}")],
        },
        Panel {
            title: "Node by node",
            question: "Which node does not load what it should, and when did its Falco load last?",
            show: Show::Table,
            unit: "short",
            width: 16,
            steps: NEUTRAL,
            queries: vec![
                ("max by (node) (falco_operator_agent_falco_up)", "Falco runs"),
                ("max by (node) (falco_operator_agent_namespaces)", "files wanted"),
                ("max by (node) (falco_operator_agent_namespaces_loaded)", "files loaded"),
                ("max by (node) (falco_operator_agent_namespaces_in_trouble)", "files tried in vain"),
                (
                    "time() - max by (node) (falco_operator_agent_last_reload_timestamp_seconds)",
                    "seconds since the last load",
                ),
            ],
        },
        Panel {
            title: "Blind time",
            question: "On which nodes was Falco not there to see anything in the last hour, and how long in all?",
            show: Show::Bars,
            unit: "s",
            width: 8,
            steps: &[(0.0, GREEN), (10.0, YELLOW), (60.0, RED)],
            queries: vec![(
                "topk(10, sum by (node) (increase(falco_operator_agent_blind_seconds_total[1h])))",
                "{{node}}",
            )],
        },
    ]
}

fn failures() -> Vec<Panel> {
    vec![
        Panel {
            title: "Items that are not ready",
            question: "Why are rules, macros and lists not ready? Their authors read the same reason, with a remedy, in their Ready condition.",
            show: Show::Areas,
            unit: "short",
            width: 8,
            steps: NONE_IS_GOOD,
            queries: vec![("max by (reason) (falco_operator_controller_items_not_ready) > 0", "{{reason}}")],
        },
        Panel {
            title: "Files that nodes could not load",
            question: "Whose fault is it that nodes do not load files: the file's (Refused), the node's, the base's, or that of a name that is taken?",
            show: Show::Areas,
            unit: "short",
            width: 8,
            steps: NONE_IS_GOOD,
            queries: vec![("max by (fault) (falco_operator_controller_node_refusals)", "{{fault}}")],
        },
        Panel {
            title: "Drift",
            question: "How often was something found to be other than it was left: a node's report by itself, or a file on a node that had it?",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: NONE_IS_GOOD,
            queries: vec![(
                "sum by (of) (increase(falco_operator_controller_drifts_total[10m]))",
                "of a {{of}}, in 10 minutes",
            )],
        },
    ]
}

fn admission() -> Vec<Panel> {
    vec![
        Panel {
            title: "Answers of the webhook",
            question: "What do developers hear when they apply rules? Many refusals by one answer call for a word to the team; `failed` is for the log.",
            show: Show::Lines,
            unit: "short",
            width: 12,
            steps: NEUTRAL,
            queries: vec![(
                "sum by (verdict) (increase(falco_operator_webhook_requests_total[10m]))",
                "{{verdict}}, in 10 minutes",
            )],
        },
        Panel {
            title: "How long the webhook takes",
            question: "Does the check hold up `kubectl apply`? 95 of 100 answers of the last half hour were faster.",
            show: Show::Lines,
            unit: "s",
            width: 12,
            steps: &[(0.0, GREEN), (1.0, YELLOW), (5.0, RED)],
            queries: vec![(
                "histogram_quantile(0.95, sum by (le) (increase(falco_operator_webhook_request_seconds_bucket[30m])))",
                "95 of 100",
            )],
        },
    ]
}

fn controller() -> Vec<Panel> {
    vec![
        Panel {
            title: "Queue",
            question: "Does the controller keep up? Namespaces that wait to be decided for; in a healthy cluster there are none for more than a moment.",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: &[(0.0, GREEN), (50.0, YELLOW), (200.0, RED)],
            queries: vec![("max(falco_operator_controller_queue_depth)", "namespaces that wait")],
        },
        Panel {
            title: "Age of the queue",
            question: "How long has the namespace waited that waits longest?",
            show: Show::Lines,
            unit: "s",
            width: 8,
            steps: &[(0.0, GREEN), (30.0, YELLOW), (120.0, RED)],
            queries: vec![("max(falco_operator_controller_queue_age_seconds)", "longest wait")],
        },
        Panel {
            title: "Writes to the API server",
            question: "What does the operator cost the API server? At rest it is the renewal of the lease alone.",
            show: Show::Areas,
            unit: "wps",
            width: 8,
            steps: NEUTRAL,
            queries: vec![(
                "sum by (kind) (rate(falco_operator_controller_api_writes_total[$__rate_interval])) > 0",
                "{{kind}}",
            )],
        },
        Panel {
            title: "Writes that failed",
            question: "Which writes does the API server refuse, and why? Conflicts are normal: the decision is made anew. Anything else is not.",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: &[(0.0, GREEN), (10.0, RED)],
            queries: vec![(
                r#"sum by (outcome) (increase(falco_operator_controller_api_writes_total{outcome!="written"}[10m]))"#,
                "{{outcome}}, in 10 minutes",
            )],
        },
        Panel {
            title: "Watches that broke off",
            question: "Does the connection to the API server hold?",
            show: Show::Lines,
            unit: "short",
            width: 8,
            steps: &[(0.0, GREEN), (20.0, YELLOW)],
            queries: vec![
                (
                    "sum(increase(falco_operator_controller_watch_restarts_total[10m]))",
                    "the controllers', in 10 minutes",
                ),
                ("sum(increase(falco_operator_agent_watch_restarts_total[10m]))", "the agents', in 10 minutes"),
            ],
        },
        Panel {
            title: "Memory",
            question: "How much memory do the operator's own processes need? Falco's is not in it.",
            show: Show::Lines,
            unit: "bytes",
            width: 8,
            steps: &[(0.0, GREEN), (450e6, YELLOW)],
            queries: vec![(
                "max by (pod) (process_resident_memory_bytes and on (instance) falco_operator_build_info)",
                "{{pod}}",
            )],
        },
    ]
}
