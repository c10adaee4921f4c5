//! The pinned programs: built once from the modules in `xtask/tools`, kept in a cache outside the checkout.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// A program that the project builds from a pinned module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The API server's store.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// Namespaces, owner references, `DaemonSet`s, Deployments, Jobs.
    KubeControllerManager,
    /// Gives pods their nodes.
    KubeScheduler,
    /// What users type.
    Kubectl,
    /// Makes nodes, and pods that are not ours, Ready.
    Kwok,
    /// Installs the chart.
    Helm,
    /// Scrapes what the product exposes.
    Prometheus,
    /// Checks alert rules and exposed metrics.
    Promtool,
}

impl Tool {
    /// What a cluster and an installation need.
    pub const CLUSTER: &'static [Self] = &[
        Self::Etcd,
        Self::Kwok,
        Self::KubeScheduler,
        Self::Kubectl,
        Self::KubeControllerManager,
        Self::Helm,
        Self::KubeApiserver,
    ];
    /// What only the tests of the telemetry need.
    pub const PROMETHEUS: &'static [Self] = &[Self::Promtool, Self::Prometheus];

    /// The program's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.pin().0
    }

    /// Name, folder of the pinning module, the module that gives the version, package to build.
    const fn pin(self) -> (&'static str, &'static str, &'static str, &'static str) {
        const K8S: &str = "k8s.io/kubernetes";
        const PROMETHEUS: &str = "github.com/prometheus/prometheus";
        match self {
            Self::Etcd => ("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
            Self::KubeApiserver => ("kube-apiserver", "kubernetes", K8S, "k8s.io/kubernetes/cmd/kube-apiserver"),
            Self::KubeControllerManager => {
                ("kube-controller-manager", "kubernetes", K8S, "k8s.io/kubernetes/cmd/kube-controller-manager")
            }
            Self::KubeScheduler => ("kube-scheduler", "kubernetes", K8S, "k8s.io/kubernetes/cmd/kube-scheduler"),
            Self::Kubectl => ("kubectl", "kubernetes", K8S, "k8s.io/kubernetes/cmd/kubectl"),
            Self::Kwok => ("kwok", "kwok", "sigs.k8s.io/kwok", "sigs.k8s.io/kwok/cmd/kwok"),
            Self::Helm => ("helm", "helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm"),
            Self::Prometheus => {
                ("prometheus", "prometheus", PROMETHEUS, "github.com/prometheus/prometheus/cmd/prometheus")
            }
            Self::Promtool => ("promtool", "prometheus", PROMETHEUS, "github.com/prometheus/prometheus/cmd/promtool"),
        }
    }

    fn module_dir(self) -> PathBuf {
        repository().join("xtask/tools").join(self.pin().1)
    }

    /// Where the cache holds this tool: the name says all that the binary was made from.
    pub fn cached(self, cache: &Path) -> Result<PathBuf> {
        Ok(self.recipe()?.path(cache, self.name()))
    }

    fn recipe(self) -> Result<Recipe> {
        let (_, _, module, _) = self.pin();
        let dir = self.module_dir();
        let read = |file: &str| {
            let path = dir.join(file);
            fs::read_to_string(&path).with_context(|| format!("the pinning module's {} is needed", path.display()))
        };
        let (go_mod, go_sum) = (read("go.mod")?, read("go.sum")?);
        let version = required_version(&go_mod, module)
            .with_context(|| format!("{}/go.mod has no `require {module}`", dir.display()))?;
        let ldflags = self.ldflags(&version);
        let mut digest = Sha256::new();
        for part in [go_mod.as_str(), go_sum.as_str(), ldflags.as_str()] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let digest = digest.finalize().iter().take(6).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        Ok(Recipe { version, ldflags, digest })
    }

    fn ldflags(self, version: &str) -> String {
        let mut flags = "-s -w".to_owned();
        if self.pin().1 == "kubernetes" {
            // Without these, clients see v0.0.0.
            let mut parts = version.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
            for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
                flags.push_str(" -X k8s.io/component-base/version.");
                flags.push_str(name);
                flags.push('=');
                flags.push_str(value);
            }
        }
        flags
    }
}

struct Recipe {
    version: String,
    ldflags: String,
    digest: String,
}

impl Recipe {
    fn path(&self, cache: &Path, name: &str) -> PathBuf {
        cache.join("tools").join(format!("{name}-{}-{}", self.version, self.digest)).join(name)
    }
}

/// The version at which a `go.mod` requires a module.
fn required_version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        let (name, version) = line.split_once(' ')?;
        (name == module).then(|| version.split_whitespace().next().unwrap_or_default().to_owned())
    })
}

/// The tools that are there.
#[derive(Clone, Debug)]
pub struct Tools {
    paths: BTreeMap<Tool, PathBuf>,
}

impl Tools {
    /// Makes sure that the given tools are in the cache, building what is missing; says on stderr what it builds.
    pub fn ensure(tools: &[Tool]) -> Result<Self> {
        Self::ensure_in(&cache_dir()?, tools, &mut |line| eprintln!("{line}"))
    }

    /// As [`Tools::ensure`], with the cache and the receiver of progress lines given.
    pub fn ensure_in(cache: &Path, tools: &[Tool], say: &mut dyn FnMut(&str)) -> Result<Self> {
        let mut paths = BTreeMap::new();
        for &tool in tools {
            paths.insert(tool, ensure_one(cache, tool, say)?);
        }
        Ok(Self { paths })
    }

    /// Where a tool is.
    pub fn path(&self, tool: Tool) -> Result<&Path> {
        let path = self.paths.get(&tool).with_context(|| format!("{} was not asked for", tool.name()))?;
        Ok(path)
    }

    /// A command that runs a tool.
    pub fn command(&self, tool: Tool) -> Result<Command> {
        Ok(Command::new(self.path(tool)?))
    }
}

fn ensure_one(cache: &Path, tool: Tool, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let recipe = tool.recipe()?;
    let path = recipe.path(cache, tool.name());
    if path.is_file() {
        return Ok(path);
    }
    let dir = path.parent().context("a cached tool has a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("the tools' cache needs the folder {}", dir.display()))?;
    // Two processes never build the same tool: the second waits here, and then finds it.
    let lock = File::create(dir.join("lock"))?;
    if lock.try_lock().is_err() {
        say(&format!("{} {}: another process is building it, waiting", tool.name(), recipe.version));
        lock.lock()?;
    }
    if path.is_file() {
        return Ok(path);
    }
    let begun = Instant::now();
    say(&format!("{} {}: building (once)", tool.name(), recipe.version));
    build(tool, &recipe, &path, &lock, &mut |elapsed| {
        say(&format!("{} {}: still building after {}", tool.name(), recipe.version, seconds(elapsed)));
    })?;
    say(&format!("{} {}: built in {}", tool.name(), recipe.version, seconds(begun.elapsed())));
    Ok(path)
}

/// How often a tool's build is tried: Go does not repeat a download that failed, and goes on where it was.
const ATTEMPTS: usize = 3;

fn build(tool: Tool, recipe: &Recipe, path: &Path, lock: &File, still: &mut dyn FnMut(Duration)) -> Result<()> {
    let mut outcome = build_once(tool, recipe, path, lock, still);
    for _ in 1..ATTEMPTS {
        if outcome.is_err() {
            outcome = build_once(tool, recipe, path, lock, still);
        }
    }
    outcome
}

fn build_once(tool: Tool, recipe: &Recipe, path: &Path, lock: &File, still: &mut dyn FnMut(Duration)) -> Result<()> {
    // Go's own cache resumes what was interrupted; the name that is looked for appears only when the file is whole.
    let partial = path.with_extension("partial");
    let log_path = path.with_extension("log");
    let log = File::create(&log_path)?;
    let begun = Instant::now();
    let mut child = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", &recipe.ldflags, "-o"])
        .arg(&partial)
        .arg(tool.pin().3)
        .current_dir(tool.module_dir())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        // The compiler holds the lock too: it may outlive this program, and then nobody builds beside it.
        .stdin(Stdio::from(lock.try_clone()?))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("`go` could not be started; Go is needed to build the tools (https://go.dev/dl)")?;
    let mut next = Duration::from_mins(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() >= next {
            still(begun.elapsed());
            next += Duration::from_mins(1);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        let mut text = String::new();
        File::open(&log_path)?.read_to_string(&mut text)?;
        bail!("building {} failed ({status}):\n{text}", tool.name());
    }
    File::open(&partial)?.sync_all()?;
    fs::rename(&partial, path)?;
    let _ = fs::remove_file(log_path);
    Ok(())
}

/// The folder that outlives checkouts: `$FALCO_OPERATOR_CACHE`, or `~/.cache/falco-operator`.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("FALCO_OPERATOR_CACHE").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither FALCO_OPERATOR_CACHE nor HOME says where the cache is")?;
    Ok(base.join("falco-operator"))
}

/// Every page of documentation, by its path within the repository: its text.
pub fn pages() -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![repository()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                // What is built or left by a demo is nobody's documentation.
                folders
                    .extend((!name.starts_with('.') && !["target", "demo"].contains(&name.as_str())).then_some(path));
            } else if path.extension().is_some_and(|it| it == "md") {
                found.insert(path.strip_prefix(repository())?.to_path_buf(), fs::read_to_string(&path)?);
            }
        }
    }
    Ok(found)
}

/// The checkout that this crate was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// A duration as people read it: `0.4 s`, `12 s`, `3 min 5 s`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        secs @ 10..100 => format!("{secs} s"),
        secs => format!("{} min {} s", secs / 60, secs % 60),
    }
}

/// Puts a binary that is already built into the cache under its right name; for machines that have one.
pub fn adopt(cache: &Path, tool: Tool, binary: &Path) -> Result<PathBuf> {
    let path = tool.cached(cache)?;
    if path.is_file() {
        return Ok(path);
    }
    let dir = path.parent().context("a cached tool has a folder")?;
    fs::create_dir_all(dir)?;
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    let partial = path.with_extension("partial");
    let mut from = File::open(binary).with_context(|| format!("{} can't be read", binary.display()))?;
    let mut to = File::create(&partial)?;
    let copied = std::io::copy(&mut from, &mut to)?;
    ensure!(copied > 0, "{} is empty", binary.display());
    to.flush()?;
    to.set_permissions(from.metadata()?.permissions())?;
    to.sync_all()?;
    drop(to);
    fs::rename(&partial, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_pinning_modules() {
        for &tool in Tool::CLUSTER.iter().chain(Tool::PROMETHEUS) {
            let recipe = tool.recipe().unwrap();
            assert!(recipe.version.starts_with('v'), "{}: {}", tool.name(), recipe.version);
        }
        let single = "module x\n\nrequire a.b/c v1.2.3 // indirect\n";
        let block = "require (\n\ta.b/cc v9.9.9\n\ta.b/c v1.2.3 // indirect\n)\n";
        assert_eq!(required_version(single, "a.b/c").as_deref(), Some("v1.2.3"));
        assert_eq!(required_version(block, "a.b/c").as_deref(), Some("v1.2.3"));
        assert_eq!(required_version(block, "a.b/d"), None);
    }

    #[test]
    fn kubernetes_knows_its_version() {
        let flags = Tool::KubeApiserver.ldflags("v1.37.2");
        assert!(flags.contains("version.gitVersion=v1.37.2"), "{flags}");
        assert!(flags.contains("gitMajor=1") && flags.contains("gitMinor=37"), "{flags}");
        assert!(!Tool::Etcd.ldflags("v3.7.3").contains("gitMinor"));
    }

    #[test]
    fn what_is_cached_is_not_built_again() {
        let cache = tempfile::tempdir().unwrap();
        let binary = cache.path().join("some-etcd");
        fs::write(&binary, "#!/bin/sh\n").unwrap();
        let adopted = adopt(cache.path(), Tool::Etcd, &binary).unwrap();
        let mut said = Vec::new();
        let tools = Tools::ensure_in(cache.path(), &[Tool::Etcd], &mut |line| said.push(line.to_owned())).unwrap();
        assert_eq!(tools.path(Tool::Etcd).unwrap(), adopted);
        assert!(tools.path(Tool::Helm).is_err());
        assert_eq!(said, Vec::<String>::new());
    }
}
