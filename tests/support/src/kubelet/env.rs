//! A container's environment and arguments, as its spec wants them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, ObjectFieldSelector, Pod, Secret};
use kube::{Api, Client, ResourceExt};

/// The value of a `fieldRef`.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, address: &str, host: &str) -> Result<String> {
    let spec = pod.spec.as_ref().context("a pod has a spec")?;
    let path = selector.field_path.as_str();
    let quoted = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']").map(str::to_owned);
    if let Some(key) = quoted("metadata.labels") {
        return Ok(pod.labels().get(&key).cloned().unwrap_or_default());
    }
    if let Some(key) = quoted("metadata.annotations") {
        return Ok(pod.annotations().get(&key).cloned().unwrap_or_default());
    }
    let lines = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.podIP" | "status.podIPs" => address.to_owned(),
        "status.hostIP" | "status.hostIPs" => host.to_owned(),
        _ => bail!("the kubelet stand-in knows no field {path}"),
    })
}

/// The data of a ConfigMap or Secret.
pub async fn data(client: &Client, namespace: &str, secret: bool, name: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut data = BTreeMap::new();
    if secret {
        let object: Secret = Api::namespaced(client.clone(), namespace).get(name).await?;
        data.extend(object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)));
    } else {
        let object: ConfigMap = Api::namespaced(client.clone(), namespace).get(name).await?;
        data.extend(object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes())));
        data.extend(object.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)));
    }
    Ok(data)
}

/// Nothing where an optional object is missing.
pub fn unless_missing<T: Default>(found: Result<T>, optional: Option<bool>) -> Result<T> {
    match found {
        Err(err)
            if optional == Some(true)
                && matches!(err.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 404) =>
        {
            Ok(T::default())
        }
        found => found,
    }
}

/// The whole environment of a container; later entries win.
pub async fn environment(
    client: &Client,
    pod: &Pod,
    container: &Container,
    base: Vec<(String, String)>,
    (address, host): (&str, &str),
) -> Result<Vec<(String, String)>> {
    let namespace = pod.namespace().unwrap_or_default();
    let mut env: BTreeMap<String, String> = base.into_iter().collect();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let (secret, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => (false, &map.name, map.optional),
            (None, Some(secret)) => (true, &secret.name, secret.optional),
            (None, None) => continue,
        };
        let found = unless_missing(data(client, &namespace, secret, name).await, optional)?;
        env.extend(
            found
                .into_iter()
                .map(|(key, value)| (format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned())),
        );
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) => Some(expand(value, &env)),
            (None, Some(from)) => {
                if let Some(selector) = &from.field_ref {
                    Some(field(pod, selector, address, host)?)
                } else if let Some(resource) = &from.resource_field_ref {
                    let limits = container.resources.as_ref().and_then(|it| it.limits.clone()).unwrap_or_default();
                    let (_, name) = resource.resource.split_once('.').unwrap_or_default();
                    limits.get(name).map(|quantity| quantity.0.clone())
                } else {
                    let (secret, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
                        (Some(it), _) => (false, &it.name, &it.key, it.optional),
                        (None, Some(it)) => (true, &it.name, &it.key, it.optional),
                        (None, None) => bail!("the kubelet stand-in can't read the source of {}", var.name),
                    };
                    let found = unless_missing(data(client, &namespace, secret, name).await, optional)?;
                    let value = found.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
                    if value.is_none() && optional != Some(true) {
                        bail!("{name} has no key {key}, which {} needs", var.name);
                    }
                    value
                }
            }
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(var.name.clone(), value);
        }
    }
    Ok(env.into_iter().collect())
}

/// Replaces `$(NAME)` where the name is known; `$$` is a dollar sign.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|it| it.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_a_kubelet_does() {
        let env = BTreeMap::from([("POD_IP".to_owned(), "127.0.0.9".to_owned())]);
        for (text, expanded) in [
            ("$(POD_IP):8081", "127.0.0.9:8081"),
            ("$$(POD_IP)", "$(POD_IP)"),
            ("$(UNKNOWN) $POD_IP $", "$(UNKNOWN) $POD_IP $"),
            ("$(POD_IP", "$(POD_IP"),
            ("a$(POD_IP)$(POD_IP)b", "a127.0.0.9127.0.0.9b"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }
}
