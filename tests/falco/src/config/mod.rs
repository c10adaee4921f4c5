//! falco.yaml: reading, merging `config_files`, `-o`, and the settings that matter here.

mod merge;

use crate::options;
use crate::yaml::Node;
use merge::{folder, includes, merge, read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a configuration can't be used.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // Each is a key of falco.yaml.
pub struct ConfigError {
    /// What a start prints.
    pub message: String,
    /// What a hot reload says instead: Falco loses the text of these.
    pub opaque: bool,
}

fn fatal<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { message: message.into(), opaque: false })
}

/// Where the web server listens and what it serves.
#[derive(Debug, Clone)]
pub struct WebServer {
    /// Whether it runs.
    pub enabled: bool,
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 takes any.
    pub port: u16,
    /// The path that answers when Falco is alive.
    pub healthz: String,
    /// Whether it serves `/metrics`.
    pub prometheus: bool,
}

/// One step of `rules:`.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Enable, or else disable.
    pub enable: bool,
    /// A rule's name, with `*` as wildcard.
    pub rule: Option<String>,
    /// A tag.
    pub tag: Option<String>,
}

/// One entry of `append_output`.
#[derive(Debug, Clone, Default)]
pub struct AppendOutput {
    /// The rule that it is for.
    pub rule: Option<String>,
    /// The source that it is for.
    pub source: Option<String>,
    /// Tags that a rule must all have.
    pub tags: Vec<String>,
    /// Text for the end of the output.
    pub extra_output: Option<String>,
    /// Fields (`None`) and constants or formats (`Some`) for the JSON object.
    pub extra_fields: Vec<(String, Option<String>)>,
    /// Whether the fields that plugins suggest are appended.
    pub suggested: bool,
}

/// The settings that change what the stand-in does.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // Each is a key of falco.yaml.
pub struct Config {
    /// Main file and included files, in order.
    pub files: Vec<PathBuf>,
    /// Included folders.
    pub folders: Vec<PathBuf>,
    /// Included files that were named one by one, and the main file: those whose hashes are shown.
    pub hashed: Vec<PathBuf>,
    /// Entries of `rules_files` or `-r` as written.
    pub rules: Vec<PathBuf>,
    /// `watch_config_files`.
    pub watch: bool,
    /// `rules`.
    pub selections: Vec<Selection>,
    /// `priority` as a number, 7 is debug.
    pub priority: u8,
    /// Whether `rule_matching` is `all`.
    pub match_all: bool,
    /// Names of the plugins that are loaded.
    pub plugins: Vec<String>,
    /// `engine.kind`.
    pub engine: String,
    /// `json_output`.
    pub json: bool,
    /// `json_include_output_property`.
    pub json_output_property: bool,
    /// `json_include_tags_property`.
    pub json_tags: bool,
    /// `json_include_message_property`.
    pub json_message: bool,
    /// `json_include_output_fields_property`.
    pub json_fields: bool,
    /// `append_output`.
    pub append_output: Vec<AppendOutput>,
    /// Names under `static_fields`.
    pub static_fields: Vec<String>,
    /// `stdout_output.enabled`.
    pub stdout: bool,
    /// `webserver`.
    pub web: WebServer,
    /// `metrics.enabled`.
    pub metrics: bool,
    /// `metrics.rules_counters_enabled`.
    pub rule_counters: bool,
    /// `metrics.interval`, for `metrics.output_rule`; `None` when no alert is wanted.
    pub snapshot_every: Option<Duration>,
    /// `log_stderr`.
    pub log_stderr: bool,
    /// `time_format_iso_8601`.
    pub iso_time: bool,
}

/// The level of a priority's name, `None` for what Falco does not know.
pub fn priority_level(name: &str) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "emergency" => 0,
        "alert" => 1,
        "critical" => 2,
        "error" => 3,
        "warning" => 4,
        "notice" => 5,
        "informational" | "info" => 6,
        "debug" => 7,
        _ => return None,
    })
}

/// The long name of a level.
pub fn priority_name(level: u8) -> &'static str {
    ["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"]
        .get(level as usize)
        .copied()
        .unwrap_or("Debug")
}

/// `true` and its friends, as yaml-cpp decodes them.
pub fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let capitalised = text.get(1..) == lower.get(1..);
    if !(capitalised || text == text.to_ascii_uppercase()) {
        return None;
    }
    match lower.as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

impl Config {
    /// Reads the file, what it includes, and the options; `-r` replaces the rules files.
    pub fn load(main: &Path, overrides: &[String], rules: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut root = read(main)?;
        for option in overrides.iter().filter(|option| options::top_key(option) == "config_files") {
            options::apply(&mut root, option).or_else(fatal)?;
        }
        let mut files = vec![main.to_path_buf()];
        let mut hashed = files.clone();
        let mut folders = Vec::new();
        for (path, strategy) in includes(&root) {
            let named = if path.is_dir() {
                folders.push(path.clone());
                folder(&path)
            } else if path.is_file() {
                hashed.push(path.clone());
                vec![path]
            } else {
                continue;
            };
            for file in named {
                let included = read(&file)?;
                if included.get("config_files").is_some() {
                    return fatal(format!(
                        "Error: 'config_files' directive in included config file {}",
                        file.display()
                    ));
                }
                merge(&mut root, included, &strategy);
                files.push(file);
            }
        }
        for option in overrides.iter().filter(|option| options::top_key(option) != "config_files") {
            options::apply(&mut root, option).or_else(fatal)?;
        }
        Self::settings(&root, (files, hashed, folders), rules)
    }

    fn settings(
        root: &Node,
        (files, hashed, folders): (Vec<PathBuf>, Vec<PathBuf>, Vec<PathBuf>),
        rules: &[PathBuf],
    ) -> Result<Self, ConfigError> {
        let own = (root.get("rules_files"), root.get("rules_file"));
        let rules = match own {
            (Some(_), Some(_)) => {
                return fatal(
                    "Error: both 'rules_files' and 'rules_file' keys set in the configuration, only one of them may be used",
                );
            }
            _ if !rules.is_empty() => rules.to_vec(),
            (Some(node), None) | (None, Some(node)) => texts(node).into_iter().map(PathBuf::from).collect(),
            (None, None) => Vec::new(),
        };
        let priority = text(root, "priority").unwrap_or_else(|| "debug".into());
        let Some(priority) = priority_level(&priority) else {
            return fatal(format!(
                "Unknown priority \"{priority}\"--must be one of emergency, alert, critical, error, warning, notice, informational, debug"
            ));
        };
        let matching = text(root, "rule_matching").unwrap_or_else(|| "first".into());
        let match_all = match matching.to_ascii_lowercase().as_str() {
            "all" => true,
            "first" => false,
            _ => return fatal(format!("Unknown rule matching strategy \"{matching}\"--must be one of first, all")),
        };
        let engine = text(root, "engine.kind").unwrap_or_else(|| "kmod".into());
        if !["kmod", "modern_ebpf", "replay", "nodriver"].contains(&engine.as_str()) {
            return fatal(format!("engine.kind '{engine}' is not a valid kind."));
        }
        let sinks = ["stdout_output", "syslog_output", "file_output", "program_output", "http_output"];
        if !sinks.iter().any(|sink| flag(root, &format!("{sink}.enabled"), false)) {
            return fatal(
                "No outputs configured. Please configure at least one output file output enabled in configuration file.",
            );
        }
        let web = web_server(root)?;
        let metrics = flag(root, "metrics.enabled", false);
        let interval = duration(&text(root, "metrics.interval").unwrap_or_else(|| "5000".into())).unwrap_or_default();
        let output_rule = flag(root, "metrics.output_rule", false);
        if metrics {
            if interval < Duration::from_millis(100) {
                return fatal("Metrics interval must have a minimum value of 100ms");
            }
            let file = text(root, "metrics.output_file").is_some_and(|file| !file.is_empty());
            if !(output_rule || file || web.enabled && web.prometheus) {
                return fatal(
                    "Metrics are enabled with no output configured. Please enable at least one output channel",
                );
            }
        }
        Ok(Self {
            files,
            folders,
            hashed,
            rules,
            watch: flag(root, "watch_config_files", true),
            selections: selections(root)?,
            priority,
            match_all,
            plugins: plugins(root)?,
            engine,
            json: flag(root, "json_output", false),
            json_output_property: flag(root, "json_include_output_property", true),
            json_tags: flag(root, "json_include_tags_property", true),
            json_message: flag(root, "json_include_message_property", false),
            json_fields: flag(root, "json_include_output_fields_property", true),
            append_output: append_outputs(root),
            static_fields: root
                .get("static_fields")
                .map(pairs)
                .unwrap_or_default()
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
            stdout: flag(root, "stdout_output.enabled", false),
            web,
            metrics,
            rule_counters: flag(root, "metrics.rules_counters_enabled", true),
            snapshot_every: (metrics && output_rule).then_some(interval),
            log_stderr: flag(root, "log_stderr", false),
            iso_time: flag(root, "time_format_iso_8601", false),
        })
    }
}

fn lookup<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(root, |node, key| node.get(key))
}

fn text(root: &Node, path: &str) -> Option<String> {
    lookup(root, path).and_then(Node::scalar).map(str::to_owned)
}

fn flag(root: &Node, path: &str, default: bool) -> bool {
    lookup(root, path).and_then(Node::scalar).and_then(boolean).unwrap_or(default)
}

fn texts(node: &Node) -> Vec<String> {
    match (node.seq(), node.scalar()) {
        (Some(items), _) => items.iter().filter_map(Node::scalar).map(str::to_owned).collect(),
        (_, Some(one)) => vec![one.to_owned()],
        _ => Vec::new(),
    }
}

fn pairs(node: &Node) -> Vec<(String, String)> {
    node.entries()
        .iter()
        .filter_map(|(key, value)| Some((key.scalar()?.to_owned(), value.scalar().unwrap_or_default().to_owned())))
        .collect()
}

fn web_server(root: &Node) -> Result<WebServer, ConfigError> {
    let address = text(root, "webserver.listen_address").unwrap_or_else(|| "0.0.0.0".into());
    let Ok(ip) = address.parse() else {
        return fatal(format!("webserver.listen_address is not a valid IP address: {address}"));
    };
    Ok(WebServer {
        enabled: flag(root, "webserver.enabled", false),
        address: ip,
        port: text(root, "webserver.listen_port").and_then(|port| port.parse().ok()).unwrap_or(8765),
        healthz: text(root, "webserver.k8s_healthz_endpoint").unwrap_or_else(|| "/healthz".into()),
        prometheus: flag(root, "webserver.prometheus_metrics_enabled", false),
    })
}

fn selections(root: &Node) -> Result<Vec<Selection>, ConfigError> {
    let mut all = Vec::new();
    for node in root.get("rules").and_then(Node::seq).unwrap_or_default() {
        let (enable, what) = match (node.get("enable"), node.get("disable")) {
            (Some(what), None) => (true, what),
            (None, Some(what)) => (false, what),
            _ => return fatal("rules: each entry must have exactly one of 'enable' and 'disable'"),
        };
        let part = |key| what.get(key).and_then(Node::scalar).map(str::to_owned);
        let (rule, tag) = (part("rule"), part("tag"));
        if rule.is_none() && tag.is_none() {
            return fatal("rules: a selection must have a 'rule' or a 'tag'");
        }
        all.push(Selection { enable, rule, tag });
    }
    Ok(all)
}

fn plugins(root: &Node) -> Result<Vec<String>, ConfigError> {
    let known: Vec<String> = root
        .get("plugins")
        .and_then(Node::seq)
        .unwrap_or_default()
        .iter()
        .filter_map(|plugin| plugin.get("name").and_then(Node::scalar).map(str::to_owned))
        .collect();
    let Some(wanted) = root.get("load_plugins") else { return Ok(known) };
    let wanted = texts(wanted);
    match wanted.iter().find(|name| !known.contains(name)) {
        Some(name) => fatal(format!("Cannot load plugin '{name}': plugin config not found for given name")),
        None => Ok(wanted),
    }
}

fn append_outputs(root: &Node) -> Vec<AppendOutput> {
    let one = |node: &Node| {
        let matched = |key| node.get("match").and_then(|found| found.get(key));
        AppendOutput {
            rule: matched("rule").and_then(Node::scalar).map(str::to_owned),
            source: matched("source").and_then(Node::scalar).map(str::to_owned),
            tags: matched("tags").map(texts).unwrap_or_default(),
            extra_output: node.get("extra_output").and_then(Node::scalar).map(str::to_owned),
            extra_fields: node
                .get("extra_fields")
                .and_then(Node::seq)
                .unwrap_or_default()
                .iter()
                .flat_map(|field| match field.scalar() {
                    Some(name) => vec![(name.to_owned(), None)],
                    None => pairs(field).into_iter().map(|(key, value)| (key, Some(value))).collect(),
                })
                .collect(),
            suggested: node.get("suggested_output").and_then(Node::scalar).and_then(boolean).unwrap_or(false),
        }
    };
    root.get("append_output").and_then(Node::seq).unwrap_or_default().iter().map(one).collect()
}

/// A Prometheus duration; `None` without a unit.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let (unit, length) = match rest {
            r if r.starts_with("ms") => (1, 2),
            r if r.starts_with('s') => (1_000, 1),
            r if r.starts_with('m') => (60_000, 1),
            r if r.starts_with('h') => (3_600_000, 1),
            r if r.starts_with('d') => (86_400_000, 1),
            r if r.starts_with('w') => (7 * 86_400_000, 1),
            r if r.starts_with('y') => (365 * 86_400_000, 1),
            _ => return None,
        };
        total = total.saturating_add(count.saturating_mul(unit));
        rest = rest.get(length..)?;
    }
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("1h"), Some(Duration::from_hours(1)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("5000"), None);
    }

    #[test]
    fn booleans_are_those_of_yaml_cpp() {
        assert_eq!(boolean("YES"), Some(true));
        assert_eq!(boolean("Off"), Some(false));
        assert_eq!(boolean("tRue"), None);
        assert_eq!(boolean("1"), None);
        assert_eq!(boolean(""), None);
    }
}
