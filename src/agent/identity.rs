//! Who this agent is, by its own token: the API server holds it to that anyway.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::api::AgentPod;

/// The node, and the agent's pod on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's name.
    pub node: String,
    /// The node's UID: a node that is created again under its name has another one.
    pub node_uid: String,
    /// The pod.
    pub pod: AgentPod,
    /// SHA-256 of the token, by which a new one is known.
    pub token: TokenDigest,
}

/// SHA-256 of a token; says nothing about the token itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// Where the token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(PathBuf);

/// Why it is not known who this agent is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The way to the API server goes without a token file.
    #[error(
        "there is no token file: an agent speaks for the node that its pod's token is bound to; run it in a pod with a \
         service account, or with a kubeconfig whose user has a `tokenFile`"
    )]
    NoTokenFile,
    /// It can't be read.
    #[error("the token {path} can't be read: {error}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no service account token: {why}", path = path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is one, but not one of a pod on a node.
    #[error(
        "the token {path} is bound to no {missing}: an agent needs the token of its own pod, as the kubelet of Kubernetes \
         1.32 or newer mounts it",
        path = path.display()
    )]
    Unbound {
        /// The file.
        path: PathBuf,
        /// What it does not name.
        missing: &'static str,
    },
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    #[serde(default)]
    namespace: String,
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Deserialize, Default)]
struct Named {
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
}

impl TokenFile {
    /// The token file that a way to the API server uses.
    pub fn of(config: &kube::Config) -> Result<Self, IdentityError> {
        config.auth_info.token_file.as_ref().map(|path| Self(path.into())).ok_or(IdentityError::NoTokenFile)
    }

    /// Reads who the token says this is. The signature is the API server's business.
    pub fn read(&self) -> Result<Identity, IdentityError> {
        let text = std::fs::read_to_string(&self.0)
            .map_err(|error| IdentityError::Unreadable { path: self.0.clone(), error })?;
        parse(&self.0, text.trim())
    }
}

fn parse(path: &Path, token: &str) -> Result<Identity, IdentityError> {
    let not = |why: &str| IdentityError::NotAToken { path: path.to_owned(), why: why.to_owned() };
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(not("it is not made of three parts with dots between them"));
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| not("its payload is not in base64"))?;
    let claims: Claims =
        serde_json::from_slice(&payload).map_err(|_| not("its payload is not the JSON that Kubernetes writes"))?;
    let kubernetes = claims.kubernetes.ok_or_else(|| not("its payload has no `kubernetes.io`"))?;
    let bound = |named: Option<Named>, missing| {
        let named = named.unwrap_or_default();
        let whole = !named.name.is_empty() && !named.uid.is_empty();
        whole.then_some(named).ok_or(IdentityError::Unbound { path: path.to_owned(), missing })
    };
    let pod = bound(kubernetes.pod, "pod")?;
    let node = bound(kubernetes.node, "node")?;
    Ok(Identity {
        node: node.name,
        node_uid: node.uid,
        pod: AgentPod { namespace: kubernetes.namespace, name: pod.name, uid: pod.uid },
        token: TokenDigest(Sha256::digest(token.as_bytes()).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn token(payload: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    fn read(text: &str) -> Result<Identity, String> {
        parse(Path::new("/token"), text).map_err(|err| err.to_string())
    }

    #[test]
    fn a_bound_token_names_node_and_pod() {
        let payload = json!({ "sub": "system:serviceaccount:kube-system:agent", "kubernetes.io": {
            "namespace": "kube-system",
            "node": { "name": "n1", "uid": "u1" }, "pod": { "name": "agent-x", "uid": "u2" },
            "serviceaccount": { "name": "agent", "uid": "u3" }, "warnafter": 1,
        }});
        let identity = read(&token(&payload)).unwrap();
        assert_eq!((identity.node.as_str(), identity.node_uid.as_str()), ("n1", "u1"));
        let pod = AgentPod { namespace: "kube-system".into(), name: "agent-x".into(), uid: "u2".into() };
        assert_eq!(identity.pod, pod);
        assert_eq!(read(&token(&payload)).unwrap().token, identity.token);
        let rotated = json!({ "iat": 2, "kubernetes.io": payload["kubernetes.io"] });
        assert_ne!(read(&token(&rotated)).unwrap().token, identity.token, "a rotated token is another one");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let unbound = json!({ "kubernetes.io": { "namespace": "n", "pod": { "name": "a", "uid": "b" }, "node": { "name": "c" } } });
        for (text, said) in [
            (String::new(), "three parts"),
            ("a.b".into(), "three parts"),
            ("a.!.c".into(), "base64"),
            (token(&json!([])), "the JSON that Kubernetes writes"),
            (token(&json!({ "sub": "me" })), "no `kubernetes.io`"),
            (token(&json!({ "kubernetes.io": { "namespace": "n" } })), "bound to no pod"),
            (token(&unbound), "bound to no node"),
        ] {
            let err = read(&text).unwrap_err();
            assert!(err.contains(said) && err.contains("/token"), "{text}: {err}");
        }
    }

    #[test]
    fn the_file_is_that_of_the_way_to_the_api_server() {
        let mut config = kube::Config::new("https://127.0.0.1".parse().unwrap());
        assert!(matches!(TokenFile::of(&config), Err(IdentityError::NoTokenFile)));
        config.auth_info.token_file = Some("/nowhere/token".into());
        let err = TokenFile::of(&config).unwrap().read().unwrap_err();
        assert!(err.to_string().contains("/nowhere/token"), "{err}");
    }
}
