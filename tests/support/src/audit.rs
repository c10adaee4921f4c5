//! What the API server was asked, by its own audit log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

/// A place in the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub(crate) u64);

/// One request, answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group, resource and subresource: `apps/deployments/status`; the core group is left out.
    pub resource: String,
    /// Namespace, empty for what is cluster-scoped.
    pub namespace: String,
    /// Name, empty for collections and creations without one.
    pub name: String,
    /// Who asked.
    pub user: String,
    /// With which program.
    pub user_agent: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// The node of the token that was used, if it is bound to one's pod.
    pub node: Option<String>,
    /// The pod of the token that was used, if it is bound to one.
    pub pod: Option<String>,
    /// When the request came, in the API server's words (RFC 3339).
    pub at: String,
    /// The whole entry.
    pub raw: Value,
}

impl AuditEvent {
    fn read(raw: Value) -> Option<Self> {
        let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let extra = |key: &str| {
            let values = raw.pointer("/user/extra")?.get(format!("authentication.kubernetes.io/{key}"))?;
            Some(values.get(0)?.as_str()?.to_owned())
        };
        let resource = ["/objectRef/apiGroup", "/objectRef/resource", "/objectRef/subresource"]
            .map(text)
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/");
        Some(Self {
            verb: raw.get("verb")?.as_str()?.to_owned(),
            resource,
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            user: text("/user/username"),
            user_agent: text("/userAgent"),
            code: raw.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default() as u16,
            node: extra("node-name"),
            pod: extra("pod-name"),
            at: text("/requestReceivedTimestamp"),
            raw,
        })
    }

    /// True for requests that change something, or try to.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
            // Questions in the form of objects.
            && !self.resource.starts_with("authorization.k8s.io/")
            && !self.resource.starts_with("authentication.k8s.io/")
    }

    /// True for the requests of a service account: `namespace/name`, or any of a namespace with `namespace/`.
    #[must_use]
    pub fn is_by(&self, account: &str) -> bool {
        let prefix = format!("system:serviceaccount:{}", account.replacen('/', ":", 1));
        if account.ends_with('/') { self.user.starts_with(&prefix) } else { self.user == prefix }
    }

    /// True if the API server did as it was asked.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// The end of the log now.
#[must_use]
pub fn mark(log: &Path) -> Mark {
    Mark(std::fs::metadata(log).map_or(0, |meta| meta.len()))
}

/// Everything from a mark on. An entry is written before its answer is sent.
pub fn since(log: &Path, mark: Mark) -> Result<Vec<AuditEvent>> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(mark.0))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    // A line that is being written now has no end yet, and is no JSON.
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    Ok(lines.filter_map(AuditEvent::read).collect())
}

/// How many of the events there are of each kind: `patch falconodes` → 3.
#[must_use]
pub fn count(events: &[AuditEvent]) -> std::collections::BTreeMap<String, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for event in events {
        *counts.entry(format!("{} {}", event.verb, event.resource)).or_default() += 1;
    }
    counts
}
