//! A pod's volumes as folders of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccount, Volume};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::Machine;
use super::env::{data, field, unless_missing};

/// Paths that a hostPath may name and that are this machine's own on every node.
const OF_THE_MACHINE: [&str; 8] = ["/proc", "/sys", "/dev", "/boot", "/lib", "/lib64", "/usr", "/etc/os-release"];

/// Where a volume is, and the service account token in it.
pub struct Mounted {
    pub path: PathBuf,
    pub token: Option<String>,
}

/// Makes a volume in `dir`.
pub async fn provide(
    machine: &Machine,
    pod: &Pod,
    volume: &Volume,
    dir: &Path,
    node: &str,
    at: (&str, &str),
) -> Result<Mounted> {
    let path = dir.join("volumes").join(&volume.name);
    let namespace = pod.namespace().unwrap_or_default();
    let mut files = Vec::new();
    let mut token = None;
    if let Some(host) = &volume.host_path {
        return Ok(Mounted { path: host_path(machine, node, &host.path, host.type_.as_deref())?, token });
    } else if volume.empty_dir.is_some() {
    } else if let Some(map) = &volume.config_map {
        let found = data(&machine.client, &namespace, false, &map.name).await;
        files.extend(chosen(unless_missing(found, map.optional)?, map.items.as_deref(), map.default_mode)?);
    } else if let Some(secret) = &volume.secret {
        let found = data(&machine.client, &namespace, true, secret.secret_name.as_deref().unwrap_or_default()).await;
        files.extend(chosen(unless_missing(found, secret.optional)?, secret.items.as_deref(), secret.default_mode)?);
    } else if let Some(downward) = &volume.downward_api {
        files.extend(fields(pod, downward.items.as_deref().unwrap_or_default(), at)?);
    } else if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                let found = unless_missing(data(&machine.client, &namespace, false, &map.name).await, map.optional)?;
                files.extend(chosen(found, map.items.as_deref(), projected.default_mode)?);
            }
            if let Some(secret) = &source.secret {
                let found =
                    unless_missing(data(&machine.client, &namespace, true, &secret.name).await, secret.optional)?;
                files.extend(chosen(found, secret.items.as_deref(), projected.default_mode)?);
            }
            if let Some(downward) = &source.downward_api {
                files.extend(fields(pod, downward.items.as_deref().unwrap_or_default(), at)?);
            }
            if let Some(wanted) = &source.service_account_token {
                let fresh = request(machine, pod, wanted.audience.as_deref(), wanted.expiration_seconds).await?;
                files.push((wanted.path.clone(), fresh.clone().into_bytes(), projected.default_mode));
                token = Some(fresh);
            }
        }
    } else {
        bail!("the kubelet stand-in can't provide the kind of the volume {}", volume.name);
    }
    fs::create_dir_all(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    for (name, bytes, mode) in files {
        ensure!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."), "{name} leaves its volume");
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&path))?;
        fs::write(&file, bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode.unwrap_or(0o644) as u32))?;
    }
    Ok(Mounted { path, token })
}

/// The place of a hostPath; its type is honoured as a kubelet does.
fn host_path(machine: &Machine, node: &str, path: &str, kind: Option<&str>) -> Result<PathBuf> {
    if OF_THE_MACHINE.iter().any(|own| path == *own || path.starts_with(&format!("{own}/"))) {
        return Ok(path.into());
    }
    ensure!(!path.split('/').any(|part| part == ".."), "a hostPath can't have `..`: {path}");
    let at = machine.node_dir(node).join(path.trim_start_matches('/'));
    match kind.unwrap_or_default() {
        "DirectoryOrCreate" | "" => fs::create_dir_all(&at)?,
        "FileOrCreate" => {
            fs::create_dir_all(at.parent().unwrap_or(&at))?;
            fs::OpenOptions::new().create(true).append(true).open(&at)?;
        }
        "Directory" => ensure!(at.is_dir(), "hostPath type check failed: {path} is not a directory on {node}"),
        _ => ensure!(at.exists(), "hostPath type check failed: {path} is not there on {node}"),
    }
    Ok(at)
}

type File = (String, Vec<u8>, Option<i32>);

fn chosen(mut data: BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>, mode: Option<i32>) -> Result<Vec<File>> {
    let Some(items) = items else {
        return Ok(data.into_iter().map(|(key, value)| (key, value, mode)).collect());
    };
    let take = |item: &KeyToPath| {
        let value = data.remove(&item.key).with_context(|| format!("references non-existent key: {}", item.key))?;
        Ok((item.path.clone(), value, item.mode.or(mode)))
    };
    items.iter().map(take).collect()
}

fn fields(pod: &Pod, items: &[DownwardAPIVolumeFile], (address, host): (&str, &str)) -> Result<Vec<File>> {
    let read = |item: &DownwardAPIVolumeFile| {
        let selector = item.field_ref.as_ref().with_context(|| format!("{} names no field", item.path))?;
        Ok((item.path.clone(), field(pod, selector, address, host)?.into_bytes(), item.mode))
    };
    items.iter().map(read).collect()
}

/// A token bound to this pod, and through it to its node.
async fn request(machine: &Machine, pod: &Pod, audience: Option<&str>, seconds: Option<i64>) -> Result<String> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or("default".into());
    let api: Api<ServiceAccount> = Api::namespaced(machine.client.clone(), &pod.namespace().unwrap_or_default());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audience.map(str::to_owned).into_iter().collect(),
            expiration_seconds: seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
        },
        ..TokenRequest::default()
    };
    let answer = api.create_token_request(&account, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("a token for the service account {account}"))?;
    Ok(answer.status.context("the answer to a token request has a status")?.token)
}
