//! The product, installed as a user installs it.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;

use crate::cluster::Cluster;
use crate::wait;

/// An installed release of the chart.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Release {
    /// `helm upgrade --install fo1 charts/falco-operator --namespace kube-system --values …/values.yaml`, with
    /// further values (YAML) on top, and waits until the Deployment and the `DaemonSet` are as they should be.
    pub fn install(cluster: &Cluster, values: &str) -> Result<Self> {
        let release = Self { name: "fo1".into(), namespace: "kube-system".into() };
        release.upgrade(cluster, values)?;
        release.wait(cluster, Duration::from_mins(5))?;
        Ok(release)
    }

    /// The same helm command again, with other values; doesn't wait for the pods.
    pub fn upgrade(&self, cluster: &Cluster, values: &str) -> Result<()> {
        let overrides = cluster.dir().join("values.yaml");
        std::fs::write(&overrides, values)?;
        let overrides = overrides.display().to_string();
        let chart = "charts/falco-operator";
        let defaults = format!("{chart}/values.yaml");
        let args = ["upgrade", "--install", &self.name, chart, "--namespace", &self.namespace];
        cluster.helm(&[&args[..], &["--values", &defaults, "--values", &overrides]].concat())?;
        Ok(())
    }

    /// Waits until every pod of the release is Ready, and there are as many as there should be.
    pub fn wait(&self, cluster: &Cluster, limit: Duration) -> Result<()> {
        let selector = format!("app.kubernetes.io/instance={}", self.name);
        wait::until("the release is ready", limit, || {
            let args = ["get", "deployments,daemonsets", "--namespace", &self.namespace, "-l", &selector, "-o", "json"];
            let list: serde_json::Value = serde_json::from_str(&cluster.kubectl(&args)?)?;
            let items = list["items"].as_array().context("kubectl printed no list")?;
            ensure!(!items.is_empty(), "no Deployment or DaemonSet has the label {selector}");
            for item in items {
                let name = format!("{} {}", item["kind"], item["metadata"]["name"]);
                let status = &item["status"];
                let number = |of: &serde_json::Value| of.as_i64().unwrap_or(0);
                ensure!(status["observedGeneration"] == item["metadata"]["generation"], "{name} is not seen yet");
                let (want, updated, ready) = if item["kind"] == "DaemonSet" {
                    let want = number(&status["desiredNumberScheduled"]);
                    (want, number(&status["updatedNumberScheduled"]), number(&status["numberReady"]))
                } else {
                    let want = number(&item["spec"]["replicas"]);
                    (want, number(&status["updatedReplicas"]), number(&status["readyReplicas"]))
                };
                let total = if item["kind"] == "DaemonSet" { updated } else { number(&status["replicas"]) };
                if updated != want || ready != want || total != want {
                    let why = self.troubles(cluster).unwrap_or_default();
                    anyhow::bail!("{name}: {updated} of {want} updated, {ready} ready{why}");
                }
            }
            Ok(())
        })
    }

    /// What the pods that are not ready say.
    fn troubles(&self, cluster: &Cluster) -> Result<String> {
        let mut text = String::new();
        for pod in cluster.pods(&format!("app.kubernetes.io/instance={}", self.name))? {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let statuses = pod.status.into_iter().flat_map(|status| {
                status.init_container_statuses.into_iter().chain(status.container_statuses).flatten()
            });
            for status in statuses.filter(|status| !status.ready) {
                let state = serde_json::to_string(&status.state)?;
                let _ = write!(text, "\n  {name}/{}: {state}", status.name);
                let log = cluster.logs(&namespace, &name).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                for line in lines.iter().skip(lines.len().saturating_sub(5)) {
                    text.push_str("\n    ");
                    text.push_str(line);
                }
            }
        }
        Ok(text)
    }

    /// `helm uninstall`, with the chart's hooks.
    pub fn uninstall(&self, cluster: &Cluster) -> Result<()> {
        cluster.helm(&["uninstall", &self.name, "--namespace", &self.namespace, "--timeout", "6m"]).map(drop)
    }
}
