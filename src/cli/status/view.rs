//! A namespace as its developers ask about it: pure, from what the API server holds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::{AuthoredStatus, FalcoNode, FalcoRulesFileStatus, ItemPhase, NONE, Phase, Proof, condition_is};

/// A namespace with what is asked about it.
#[derive(Debug, Default)]
pub struct View {
    /// Its name.
    pub namespace: String,
    /// The status of its FalcoRulesFile, if there is one.
    pub file: Option<FalcoRulesFileStatus>,
    /// Whether its rollouts are paused.
    pub paused: bool,
    /// Its rules that are asked about.
    pub rules: Vec<RuleView>,
    /// Node by node, where the reader may know.
    pub nodes: Option<Vec<NodeView>>,
}

/// A rule.
#[derive(Debug, Default)]
pub struct RuleView {
    /// The name of the object.
    pub name: String,
    /// The generation of the object.
    pub generation: Option<i64>,
    /// The last change to what its developer wrote.
    pub change: Option<Change>,
    /// The name that the rule was given; none where the object could not be read.
    pub rule: Option<String>,
    /// Its priority.
    pub priority: Option<String>,
    /// What the controller says of it.
    pub status: Option<AuthoredStatus>,
}

/// A change to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// By which program.
    pub by: String,
}

/// A node, as far as it concerns one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether it has the file loaded that is to be loaded; none where it can't prove what it runs.
    pub loaded: Option<bool>,
    /// What is in the way.
    pub trouble: Option<String>,
    /// The version of its Falco.
    pub falco: Option<String>,
    /// When its Falco last loaded rules.
    pub reloaded: Option<Timestamp>,
}

impl Change {
    /// The last one that was no status' and no controller's; the API server notes them in `managedFields`.
    pub fn last(meta: &ObjectMeta) -> Option<Self> {
        let changes = meta.managed_fields.iter().flatten().filter(|it| it.subresource.is_none());
        let changes = changes.filter_map(|it| {
            Some(Self { at: it.time.as_ref()?.0, by: it.manager.clone().unwrap_or_else(|| "somebody".to_owned()) })
        });
        changes.max_by_key(|change| change.at)
    }
}

impl View {
    /// One of which nothing is known yet.
    pub fn new(namespace: String) -> Self {
        Self { namespace, ..Self::default() }
    }

    /// Whether every rule runs as it is written.
    pub fn is_well(&self) -> bool {
        self.rules.iter().all(|rule| {
            rule.is_current() && rule.status.as_ref().is_some_and(|status| condition_is(&status.conditions, "Ready"))
        })
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rules = self.rules.iter().map(|rule| {
            json!({
                "name": rule.name, "generation": rule.generation, "rule": rule.rule, "priority": rule.priority,
                "lastChange": rule.change.as_ref().map(|it| json!({ "time": it.at.to_string(), "manager": it.by })),
                "ready": rule.is_current()
                    && rule.status.as_ref().is_some_and(|status| condition_is(&status.conditions, "Ready")),
                "status": rule.status,
            })
        });
        let nodes = self.nodes.as_ref().map(|nodes| {
            let nodes = nodes.iter().map(|node| {
                json!({
                    "name": node.name, "loaded": node.loaded, "trouble": node.trouble, "falcoVersion": node.falco,
                    "lastReloadTime": node.reloaded.map(|at| at.to_string()),
                })
            });
            nodes.collect::<Vec<_>>()
        });
        json!({
            "namespace": self.namespace, "paused": self.paused, "rulesFile": self.file,
            "rules": rules.collect::<Vec<_>>(), "nodes": nodes,
        })
    }
}

impl RuleView {
    /// Whether the status is about the rule as it is written now.
    pub fn is_current(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.observed_generation == self.generation)
    }

    /// Its phase; a status that is about an earlier text says nothing of this one.
    pub fn phase(&self) -> ItemPhase {
        let phase = self.status.as_ref().and_then(|status| status.phase);
        phase.filter(|_| self.is_current()).unwrap_or_default()
    }

    /// Since when it is, or isn't, ready.
    pub fn since(&self) -> Option<Timestamp> {
        let conditions = &self.status.as_ref()?.conditions;
        Some(conditions.iter().find(|it| it.type_ == "Ready")?.last_transition_time.0)
    }
}

/// The nodes with what they load of a namespace, by the rule of the reports: an entry says what differs from the
/// settled file, and no entry means that the settled file is loaded.
pub fn nodes_of(namespace: &str, file: &FalcoRulesFileStatus, nodes: &[FalcoNode]) -> Vec<NodeView> {
    let under_way = matches!(file.phase, Phase::RollingOut | Phase::RollingBack | Phase::Withdrawing);
    let target = file.target_hash.as_deref().unwrap_or(NONE);
    let settled = if under_way { file.last_good_hash.as_deref().unwrap_or(NONE) } else { target };
    let view = |node: &FalcoNode| {
        let name = node.name_any();
        let Some(report) = &node.status else {
            let trouble = Some("has not reported yet".to_owned());
            return NodeView { name, loaded: None, trouble, falco: None, reloaded: None };
        };
        let entry = report.namespaces.iter().find(|entry| entry.namespace == namespace);
        let loads = entry.map_or(settled, |entry| entry.loaded.as_str());
        let fault = report.fault.as_ref().map(|it| format!("{:?}: {}", it.reason, it.message));
        let failed = || {
            let entry = entry?;
            let fault = entry.fault?;
            Some(match &entry.message {
                Some(message) => format!("{fault:?}: {message}"),
                None => format!("{fault:?}"),
            })
        };
        let unproved = || (report.proof != Proof::Metrics).then(|| "can't prove what its Falco loads".to_owned());
        NodeView {
            name,
            loaded: (report.proof == Proof::Metrics && !report.incomplete && report.fault.is_none())
                .then_some(loads == target),
            trouble: fault.or_else(failed).or_else(unproved),
            falco: report.falco_version.clone(),
            reloaded: report.last_reload_time.as_ref().map(|at| at.0),
        }
    };
    let mut views: Vec<NodeView> = nodes.iter().map(view).collect();
    views.sort_by(|one, two| one.name.cmp(&two.name));
    views
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FalcoNodeStatus, Fault, NodeFaultReason, NodeNamespace, NodeTrouble};

    fn node(name: &str, status: Option<&FalcoNodeStatus>) -> FalcoNode {
        let object = json!({
            "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoNode", "metadata": { "name": name }, "spec": {},
            "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn report(entry: Option<NodeNamespace>) -> FalcoNodeStatus {
        FalcoNodeStatus {
            proof: Proof::Metrics,
            falco_version: Some("0.44.1".into()),
            namespaces: entry.into_iter().collect(),
            ..FalcoNodeStatus::default()
        }
    }

    fn entry(loaded: &str, fault: Option<Fault>) -> NodeNamespace {
        let message = fault.map(|_| "no such field".to_owned());
        NodeNamespace { namespace: "a".into(), loaded: loaded.into(), fault, message, ..NodeNamespace::default() }
    }

    #[test]
    fn what_a_node_loads_is_read_from_its_entry_or_from_its_silence() {
        let file = |phase| FalcoRulesFileStatus {
            phase,
            target_hash: Some("new".into()),
            last_good_hash: Some("old".into()),
            ..FalcoRulesFileStatus::default()
        };
        let loaded =
            |phase, report: FalcoNodeStatus| nodes_of("a", &file(phase), &[node("n", Some(&report))]).remove(0).loaded;
        // No entry: the settled file, which is the target once nothing is under way.
        assert_eq!(loaded(Phase::Active, report(None)), Some(true));
        assert_eq!(loaded(Phase::RollingOut, report(None)), Some(false));
        assert_eq!(loaded(Phase::RollingOut, report(Some(entry("new", None)))), Some(true));
        assert_eq!(loaded(Phase::Degraded, report(Some(entry("none", None)))), Some(false));
        let unproved = FalcoNodeStatus { proof: Proof::Assumed, ..report(None) };
        assert_eq!(loaded(Phase::Active, unproved), None);

        let fault = NodeTrouble { reason: NodeFaultReason::Storage, message: "no space".into() };
        let nodes = [
            node("n2", Some(&FalcoNodeStatus { fault: Some(fault), ..report(None) })),
            node("n1", Some(&report(Some(entry("old", Some(Fault::Refused)))))),
            node("n3", None),
        ];
        let views = nodes_of("a", &file(Phase::RollingOut), &nodes);
        let said: Vec<_> =
            views.iter().map(|it| (it.name.as_str(), it.loaded, it.trouble.as_deref().unwrap_or("-"))).collect();
        let wanted = [
            ("n1", Some(false), "Refused: no such field"),
            ("n2", None, "Storage: no space"),
            ("n3", None, "has not reported yet"),
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn the_last_change_is_a_developer_s() {
        let meta: ObjectMeta = serde_json::from_value(json!({ "managedFields": [
            { "manager": "kubectl", "operation": "Apply", "time": "2026-01-02T03:04:05Z" },
            { "manager": "helm", "operation": "Update", "time": "2026-01-03T03:04:05Z" },
            { "manager": "falco-operator-controller", "operation": "Update", "subresource": "status",
              "time": "2026-01-04T03:04:05Z" },
        ] }))
        .unwrap();
        let change = Change::last(&meta).unwrap();
        assert_eq!((change.by.as_str(), change.at.to_string().as_str()), ("helm", "2026-01-03T03:04:05Z"));
        assert_eq!(Change::last(&ObjectMeta::default()), None);
    }

    #[test]
    fn a_status_about_an_earlier_text_is_none() {
        let status = AuthoredStatus {
            observed_generation: Some(1),
            phase: Some(ItemPhase::Active),
            ..AuthoredStatus::default()
        };
        let mut rule = RuleView { generation: Some(1), status: Some(status), ..RuleView::default() };
        assert_eq!(rule.phase(), ItemPhase::Active);
        rule.generation = Some(2);
        assert_eq!(rule.phase(), ItemPhase::Pending);
        let view = View { rules: vec![rule], ..View::new("a".into()) };
        assert!(!view.is_well());
    }
}
