//! A pod's status, as a kubelet reports it.

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::process::Exit;

/// What a container does.
#[derive(Clone, Debug, PartialEq)]
pub enum Doing {
    /// It doesn't run yet, or not at the moment.
    Waiting { reason: String, message: String },
    /// It runs.
    Running { since: Timestamp },
    /// It has run.
    Terminated(Ended),
}

/// How a container's run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub exit: Exit,
    pub since: Timestamp,
    pub at: Timestamp,
}

/// What is reported of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerReport {
    pub name: String,
    pub image: String,
    pub doing: Doing,
    pub last: Option<Ended>,
    pub restarts: i32,
    pub started: bool,
    pub ready: bool,
}

impl ContainerReport {
    /// A container that has not run yet; a restart of the node carries the count of restarts on.
    pub fn new(container: &Container, pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let known = status.and_then(|it| it.container_statuses.as_ref()).into_iter().flatten();
        let before = known.into_iter().find(|known| known.name == container.name);
        let ran = before.filter(|it| it.state.as_ref().is_some_and(|state| state.waiting.is_none()));
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            doing: Doing::Waiting { reason: "ContainerCreating".into(), message: String::new() },
            last: None,
            restarts: before.map_or(0, |it| it.restart_count) + i32::from(ran.is_some()),
            started: false,
            ready: false,
        }
    }

    /// Waiting, and why.
    pub fn wait(&mut self, reason: &str, message: &str) {
        self.doing = Doing::Waiting { reason: reason.into(), message: message.into() };
        (self.started, self.ready) = (false, false);
    }

    fn json(&self) -> Value {
        let ended = |it: &Ended| {
            json!({"terminated": {
                "exitCode": it.exit.code, "signal": it.exit.signal.unwrap_or(0),
                "reason": if it.exit.code == 0 { "Completed" } else { "Error" },
                "startedAt": it.since.to_string(), "finishedAt": it.at.to_string(),
            }})
        };
        let state = match &self.doing {
            Doing::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
            Doing::Running { since } => json!({"running": {"startedAt": since.to_string()}}),
            Doing::Terminated(it) => ended(it),
        };
        json!({
            "name": self.name, "image": self.image, "imageID": self.image, "state": state,
            "lastState": self.last.as_ref().map_or(json!({}), ended), "restartCount": self.restarts,
            "ready": self.ready, "started": self.started,
        })
    }
}

/// What is reported of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub inits: Vec<ContainerReport>,
    pub containers: Vec<ContainerReport>,
    pub initialized: bool,
    /// `Succeeded` or `Failed` once it is over for good.
    pub over: Option<&'static str>,
    pub terminating: bool,
    pub since: Timestamp,
}

impl Report {
    fn phase(&self) -> &'static str {
        let begun = self
            .containers
            .iter()
            .any(|it| it.restarts > 0 || it.last.is_some() || !matches!(it.doing, Doing::Waiting { .. }));
        self.over.unwrap_or(if begun { "Running" } else { "Pending" })
    }

    /// The status to write. Conditions keep their transition times and those of other writers stay.
    pub fn json(&self, before: &[PodCondition], address: &str, host: &str, now: Timestamp) -> Value {
        let ready = self.over.is_none() && !self.containers.is_empty() && self.containers.iter().all(|it| it.ready);
        let ours = [
            ("PodReadyToStartContainers", true),
            ("Initialized", self.initialized),
            ("ContainersReady", ready),
            ("Ready", ready),
        ];
        let others = before.iter().filter(|it| ours.iter().all(|(kind, _)| *kind != it.type_)).map(|it| json!(it));
        let ours = ours.iter().map(|(kind, holds)| {
            let status = if *holds { "True" } else { "False" };
            let same = before.iter().find(|it| it.type_ == *kind && it.status == status);
            let since = same.and_then(|it| it.last_transition_time.as_ref()).map_or(now, |time| time.0);
            let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since.to_string()});
            if !*holds && kind.ends_with("Ready") {
                let reason = if self.over == Some("Succeeded") { "PodCompleted" } else { "ContainersNotReady" };
                condition["reason"] = json!(reason);
            }
            condition
        });
        json!({
            "phase": self.phase(),
            "startTime": self.since.to_string(),
            "podIP": address, "podIPs": [{"ip": address}], "hostIP": host, "hostIPs": [{"ip": host}],
            "conditions": others.chain(ours).collect::<Vec<_>>(),
            "initContainerStatuses": self.inits.iter().map(ContainerReport::json).collect::<Vec<_>>(),
            "containerStatuses": self.containers.iter().map(ContainerReport::json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(doing: Doing, ready: bool) -> Report {
        let pod = Pod::default();
        let mut container = ContainerReport::new(&Container { name: "c".into(), ..Container::default() }, &pod);
        (container.doing, container.ready) = (doing, ready);
        Report {
            inits: vec![],
            containers: vec![container],
            initialized: true,
            over: None,
            terminating: false,
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn condition(status: &Value, kind: &str) -> Value {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|it| it["type"] == kind).cloned().unwrap_or_default()
    }

    #[test]
    fn a_pod_is_ready_when_its_containers_are_and_only_then() {
        let now = Timestamp::from_second(9).unwrap();
        let running = Doing::Running { since: now };
        let status = report(running.clone(), false).json(&[], "127.0.0.1", "127.0.0.2", now);
        assert_eq!((&status["phase"], &condition(&status, "Ready")["status"]), (&json!("Running"), &json!("False")));
        let status = report(running, true).json(&[], "127.0.0.1", "127.0.0.2", now);
        assert_eq!(condition(&status, "Ready")["status"], "True");
        let waiting = Doing::Waiting { reason: "ContainerCreating".into(), message: String::new() };
        let status = report(waiting, false).json(&[], "127.0.0.1", "127.0.0.2", now);
        assert_eq!(status["phase"], "Pending");
    }

    #[test]
    fn conditions_of_others_and_times_stay() {
        let then = Timestamp::from_second(5).unwrap();
        let now = Timestamp::from_second(9).unwrap();
        let old = |kind: &str, status: &str| PodCondition {
            type_: kind.into(),
            status: status.into(),
            last_transition_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(then)),
            ..PodCondition::default()
        };
        let before = [old("PodScheduled", "True"), old("Ready", "True"), old("Initialized", "False")];
        let status = report(Doing::Running { since: then }, true).json(&before, "127.0.0.1", "127.0.0.2", now);
        assert_eq!(condition(&status, "PodScheduled")["status"], "True");
        assert_eq!(condition(&status, "Ready")["lastTransitionTime"], then.to_string());
        assert_eq!(condition(&status, "Initialized")["lastTransitionTime"], now.to_string());
    }
}
