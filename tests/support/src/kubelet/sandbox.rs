//! A container's root: this machine's files, the image's laid over them, the volumes at their paths.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use nix::unistd::Pid;

use super::Machine;
use super::env::{environment, expand};
use crate::proxy::kubernetes_port;

/// A folder or file that a container sees at a path.
struct Mount {
    from: PathBuf,
    at: String,
    read_only: bool,
}

/// Writes what starts a container, and returns the command for it; `shared` is the holder of the process namespace
/// that all containers of the pod share.
#[allow(clippy::too_many_arguments)] // each is a fact of its own
pub async fn prepare(
    machine: &Machine,
    pod: &Pod,
    container: &Container,
    dir: &Path,
    volumes: &BTreeMap<String, PathBuf>,
    node: &str,
    at: (&str, &str),
    shared: Option<Pid>,
) -> Result<Vec<String>> {
    let reference = container.image.as_deref().unwrap_or_default();
    let image = machine
        .image(reference)
        .with_context(|| format!("Failed to pull image {reference:?}: the test's table of images has none like it"))?;
    let base = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME", "/root".into()),
        ("HOSTNAME", pod.name_any()),
        ("KUBERNETES_SERVICE_HOST", machine.addresses.kubernetes_service().to_string()),
        ("KUBERNETES_SERVICE_PORT", kubernetes_port().to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", kubernetes_port().to_string()),
    ];
    let base = base.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let env = environment(&machine.client, pod, container, base, at).await?;
    let known: BTreeMap<_, _> = env.iter().cloned().collect();
    let command = container.command.clone().unwrap_or_else(|| image.entrypoint.clone());
    let words: Vec<_> =
        command.iter().chain(container.args.iter().flatten()).map(|word| expand(word, &known)).collect();
    if words.is_empty() {
        bail!("no command specified");
    }
    let mut mounts = Vec::new();
    for file in &image.files {
        let own = machine.node_dir(node).join(file.at.strip_prefix("/").unwrap_or(&file.at));
        let from = if file.per_node { own } else { file.from.clone() };
        mounts.push(Mount { from, at: file.at.display().to_string(), read_only: !file.per_node });
    }
    let mut wanted: Vec<_> = container.volume_mounts.iter().flatten().collect();
    wanted.sort_by_key(|mount| mount.mount_path.len());
    for mount in wanted {
        let volume = volumes.get(&mount.name).with_context(|| format!("there is no volume {}", mount.name))?;
        let sub = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(text), _) => expand(text, &known),
            (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        };
        let from = if sub.is_empty() { volume.clone() } else { volume.join(&sub) };
        if !from.exists() {
            fs::create_dir_all(&from)?;
        }
        mounts.push(Mount { from, at: mount.mount_path.clone(), read_only: mount.read_only == Some(true) });
    }
    let frozen = container.security_context.as_ref().and_then(|it| it.read_only_root_filesystem) == Some(true);
    let text = script(&dir.join("root"), &mounts, frozen, container.working_dir.as_deref(), &env, &words);
    fs::create_dir_all(dir.join("root"))?;
    let path = dir.join("start.sh");
    fs::write(&path, text)?;
    let script = path.display().to_string();
    Ok(match shared {
        Some(pause) => {
            let target = pause.to_string();
            let user = if nix::unistd::geteuid().is_root() { "--pid" } else { "--user" };
            let enter =
                ["nsenter", "--target", &target, user, "--pid", "--", "unshare", "--mount", "--", "sh", &script];
            enter.map(str::to_owned).to_vec()
        }
        None => isolated(&["--mount"], &["sh", &script]),
    })
}

/// What holds the process namespace of a pod whose containers share one: process 1 is nobody's, as in any cluster.
pub fn pause() -> Vec<String> {
    isolated(&[], &["sleep", "infinity"])
}

/// A command in a process namespace of its own, which ends with it.
fn isolated(more: &[&str], command: &[&str]) -> Vec<String> {
    let mut words = vec!["unshare"];
    if !nix::unistd::geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    words.extend(more);
    words.extend(["--pid", "--fork", "--kill-child=KILL", "--"]);
    words.extend(command);
    words.into_iter().map(str::to_owned).collect()
}

/// The shell script that makes the root and becomes the container's command. The root is entered first and filled
/// then, so that a symlink in a path (`/var/run`) leads within it.
fn script(
    root: &Path,
    mounts: &[Mount],
    read_only: bool,
    dir: Option<&str>,
    env: &[(String, String)],
    words: &[String],
) -> String {
    let mut text = format!("set -eu\nroot={}\n", quote(&root.display().to_string()));
    text.push_str(concat!(
        "mount -t tmpfs -o mode=755 tmpfs \"$root\"\n",
        "mkdir \"$root/upper\" \"$root/work\" \"$root/merged\"\n",
        "mount -t overlay -o \"lowerdir=/,upperdir=$root/upper,workdir=$root/work\" overlay \"$root/merged\"\n",
        "cd \"$root/merged\"\n",
        "mkdir .old\n",
        "pivot_root . .old\n",
        "cd /\n",
        "mount -t proc proc /proc\n",
        "mount --rbind /.old/dev /dev\n",
        "mount --rbind -o ro /.old/sys /sys\n",
        "mount -t tmpfs -o mode=1777 tmpfs /tmp\n",
        "bind() {\n",
        "  if [ -d \"$1\" ]; then mkdir -p \"$2\"; else mkdir -p \"${2%/*}/\"; [ -e \"$2\" ] || : >\"$2\"; fi\n",
        "  mount --bind \"$1\" \"$2\"\n",
        "  if [ \"$3\" = ro ]; then mount -o remount,bind,ro \"$2\"; fi\n",
        "}\n",
    ));
    for mount in mounts {
        let from = quote(&format!("/.old{}", mount.from.display()));
        let mode = if mount.read_only { "ro" } else { "rw" };
        let _ = writeln!(text, "bind {from} {} {mode}", quote(mount.at.trim_end_matches('/')));
    }
    text.push_str("umount -l /.old\nrmdir /.old\n");
    let dir = dir.filter(|dir| !dir.is_empty()).unwrap_or("/");
    let _ = writeln!(text, "mkdir -p {}", quote(dir));
    if read_only {
        text.push_str("mount -o remount,bind,ro /tmp\nmount -o remount,bind,ro /\n");
    }
    let _ = write!(text, "exec env -i -C {}", quote(dir));
    for (name, value) in env {
        let _ = write!(text, " {}", quote(&format!("{name}={value}")));
    }
    for word in words {
        let _ = write!(text, " {}", quote(word));
    }
    text.push('\n');
    text
}

/// A word that a shell takes as it is.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in ["", "a b", "it's", "$(x) `y` \\ \"", "new\nline", "'"] {
            let out = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quote(word))]).output();
            assert_eq!(String::from_utf8(out.unwrap().stdout).unwrap(), word);
        }
    }
}
