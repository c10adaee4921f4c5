//! The base falco.yaml: what it says once merged, and the clone of it that a set holds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};
use sha2::{Digest, Sha256};

use super::yaml::{self, Overlay};
use super::{RuleMatching, edit};

const APPEND_OUTPUT: &str = "append_output";

/// Why nothing can be made of a base configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is no YAML map.
    #[error("{path} is not a YAML map: {error}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: serde_yaml::Error,
    },
    /// Both keys are set, which Falco takes for fatal.
    #[error("{path} and its config_files set both rules_files and rules_file, which Falco refuses: remove rules_file", path = path.display())]
    BothKeys {
        /// The main file.
        path: PathBuf,
    },
    /// An included file includes others, which Falco takes for fatal.
    #[error("{path} is included by config_files and has config_files itself, which Falco refuses", path = path.display())]
    NestedIncludes {
        /// The included file.
        path: PathBuf,
    },
    /// The command line replaces all rules files.
    #[error("Falco's command line has -r, which replaces the rules files of falco.yaml: list them under rules_files")]
    RulesOption,
}

/// The base configuration as it was read.
#[derive(Clone, Debug)]
pub struct Base {
    /// The text of the main file.
    text: String,
    /// What it says with `config_files` and `-o` applied.
    merged: Mapping,
    /// The key that rules files stand under.
    key: &'static str,
    /// Whether a file of `config_files` sets that key, so that only one behind all of them has the last word.
    included: bool,
    /// The same of `append_output`.
    outputs_included: bool,
    /// The rules files and folders of the merged configuration, in order.
    entries: Vec<String>,
    /// The rules files that those stand for, in order of loading.
    pub rules_files: Vec<PathBuf>,
    /// Every file and folder whose change matters.
    pub watched: Vec<PathBuf>,
    /// SHA-256 over the contents of all these files.
    pub fingerprint: String,
    /// Base name and SHA-256 of each of [`Self::rules_files`].
    pub hashes: Vec<(String, String)>,
}

/// What a set adds to the base configuration.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// The set, for the comment.
    pub id: &'a str,
    /// The rules files, in order.
    pub files: &'a [String],
    /// The otherwise empty folder that Falco watches for us.
    pub trigger: &'a str,
    /// Where the file lies that a base with its own included rules files needs.
    pub include: &'a str,
    /// Whose rules they are, for the alerts.
    pub owners: &'a [Owner<'a>],
}

/// Whose a rule is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The name that Falco knows it by.
    pub rule: &'a str,
    /// The namespace that it comes from.
    pub namespace: &'a str,
    /// The `FalcoRule` there.
    pub object: &'a str,
}

impl Owner<'_> {
    /// The entry of `append_output` that puts two constants into `output_fields` of this rule's alerts; `None` for what
    /// Falco would not take as it stands: a `%` in a constant makes it refuse all rules, `${` would be replaced.
    fn entry(&self) -> Option<Value> {
        let constant = |text: &str| !text.is_empty() && !text.contains(['%', '$']);
        if !constant(self.namespace) || !constant(self.object) || self.rule.is_empty() || self.rule.contains("${") {
            return None;
        }
        let pair = |key: &str, value: &str| Value::Mapping(Mapping::from_iter([(key.into(), value.into())]));
        let fields = vec![pair("falcorule.namespace", self.namespace), pair("falcorule.name", self.object)];
        Some(Value::Mapping(Mapping::from_iter([
            ("match".into(), pair("rule", self.rule)),
            ("extra_fields".into(), Value::Sequence(fields)),
        ])))
    }
}

/// A clone of the base configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// falco.yaml.
    pub main: String,
    /// The file to include last, for a base whose `config_files` set rules files themselves.
    pub include: Option<String>,
}

/// Where Falco's page of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAt {
    /// Where the base has it.
    Base(SocketAddr),
    /// On the loopback interface, at a port to be chosen.
    Own,
    /// Nowhere that it could be read.
    Nowhere,
}

impl Base {
    /// Reads the main file and what it includes. `options` are the `-o` options that Falco is started with.
    pub fn read(main: &Path, options: &[String]) -> Result<Self, ConfigError> {
        let mut digest = Sha256::new();
        let text = read(main, &mut digest)?;
        let mut merged = parse(main, &text)?;
        let mut watched = vec![main.to_path_buf()];
        let (mut included, mut outputs_included) = (false, false);
        for (path, overlay) in includes(&merged) {
            watched.push(path.clone());
            let files = if path.is_dir() { regular_files(&path) } else { vec![path] };
            for file in files.into_iter().filter(|file| file.is_file()) {
                let map = parse(&file, &read(&file, &mut digest)?)?;
                if map.contains_key("config_files") {
                    return Err(ConfigError::NestedIncludes { path: file });
                }
                included |= map.contains_key("rules_files") || map.contains_key("rules_file");
                outputs_included |= map.contains_key(APPEND_OUTPUT);
                yaml::merge(&mut merged, map, overlay);
            }
        }
        for option in options {
            yaml::apply_option(&mut merged, option);
        }
        let key = match (merged.contains_key("rules_files"), merged.contains_key("rules_file")) {
            (true, true) => return Err(ConfigError::BothKeys { path: main.to_path_buf() }),
            (false, true) => "rules_file",
            // With neither Falco demands one; the folder of ours under the current key satisfies it.
            _ => "rules_files",
        };
        let entries = merged.get(key).map(yaml::texts).unwrap_or_default();
        let mut rules_files = Vec::new();
        for entry in entries.iter().map(PathBuf::from) {
            if entry.is_dir() {
                rules_files.extend(regular_files(&entry).into_iter().filter(|file| is_rules_file(file)));
            } else if is_rules_file(&entry) && entry.is_file() {
                rules_files.push(entry.clone());
            }
            watched.push(entry);
        }
        let mut hashes = Vec::new();
        for file in &rules_files {
            // One that has just gone is one that Falco skips.
            let Ok(bytes) = std::fs::read(file) else { continue };
            let hash = hex::encode(Sha256::digest(&bytes));
            digest.update(file.as_os_str().as_encoded_bytes());
            digest.update(&hash);
            hashes.push((base_name(file), hash));
        }
        let fingerprint = hex::encode(digest.finalize());
        Ok(Self { text, merged, key, included, outputs_included, entries, rules_files, watched, fingerprint, hashes })
    }

    /// What of the base decides how its clone looks.
    pub fn inputs(&self) -> Vec<&str> {
        let own = |included| if included { "included" } else { "listed" };
        let mut inputs = vec![self.text.as_str(), self.key, own(self.included), own(self.outputs_included)];
        if self.replaces() {
            inputs.extend(self.entries.iter().map(String::as_str));
        }
        inputs
    }

    /// Whether the included file has to replace the list: a scalar can't be appended to.
    fn replaces(&self) -> bool {
        self.included && self.merged.get(self.key).is_some_and(|value| !value.is_sequence())
    }

    /// The clone that a set holds: everything is kept, and the rules files of the set come after the base's.
    pub fn clone_with(&self, addition: &Addition<'_>) -> Result<Composed, serde_yaml::Error> {
        let ours = addition.files.iter().map(String::as_str).chain([addition.trigger]);
        let owners = self.outputs(addition.owners);
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        let note = format!(
            "# falco-operator: set {}. Written anew for each set; the file to edit is the base falco.yaml.\n",
            addition.id
        );
        let mut main = text.to_owned();
        let mut include = Mapping::new();
        let replaces = self.replaces();
        if self.included {
            let base = self.entries.iter().map(String::as_str).filter(|_| replaces);
            include.insert(self.key.into(), Value::Sequence(base.chain(ours).map(Value::from).collect()));
        } else {
            main = edit::append(&main, self.key, &ours.map(Value::from).collect::<Vec<_>>())?;
        }
        if !owners.is_empty() {
            if self.outputs_included {
                let base = self.merged.get(APPEND_OUTPUT).and_then(Value::as_sequence).filter(|_| replaces);
                let all = base.into_iter().flatten().cloned().chain(owners).collect();
                include.insert(APPEND_OUTPUT.into(), Value::Sequence(all));
            } else {
                main = edit::append(&main, APPEND_OUTPUT, &owners)?;
            }
        }
        if include.is_empty() {
            return Ok(Composed { main: note + &main, include: None });
        }
        let entry = if replaces {
            let mut entry = Mapping::new();
            entry.insert("path".into(), addition.include.into());
            entry.insert("strategy".into(), "override".into());
            Value::Mapping(entry)
        } else {
            Value::from(addition.include)
        };
        let include = format!("# falco-operator: set {}.\n{}", addition.id, serde_yaml::to_string(&include)?);
        Ok(Composed { main: note + &edit::append(&main, "config_files", &[entry])?, include: Some(include) })
    }

    /// What alerts are to say of these owners; nothing where the base has something else than a list there.
    fn outputs(&self, owners: &[Owner<'_>]) -> Vec<Value> {
        let list = self.merged.get(APPEND_OUTPUT).is_none_or(|value| value.is_sequence() || value.is_null());
        owners.iter().filter(|_| list).filter_map(Owner::entry).collect()
    }

    /// Where the page of metrics will be if Falco is started with [`Self::options`].
    pub fn page(&self, supervised: bool) -> PageAt {
        let web = yaml::flag(&self.merged, "webserver.enabled", false);
        let served = web
            && yaml::flag(&self.merged, "webserver.prometheus_metrics_enabled", false)
            && yaml::flag(&self.merged, "metrics.enabled", false);
        if !web && supervised {
            return PageAt::Own;
        }
        let port = self.value("webserver.listen_port").map_or(Some(8765), |port| port.parse().ok());
        let address =
            self.value("webserver.listen_address").map_or(Some(Ipv4Addr::LOCALHOST.into()), |at| at.parse().ok());
        let tls = yaml::flag(&self.merged, "webserver.ssl_enabled", false);
        match (port, address) {
            (Some(port), Some(address)) if !tls && port != 0 && (served || supervised) => {
                let address: IpAddr = address;
                PageAt::Base(SocketAddr::new(
                    if address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address },
                    port,
                ))
            }
            _ => PageAt::Nowhere,
        }
    }

    /// The `-o` options that a supervised Falco needs: reloads, a page of metrics, and that no rule hides another. Each
    /// key of a map is given, since a file of `config_files` that has the map drops all of it.
    pub fn options(&self, matching: RuleMatching) -> Vec<String> {
        let mut options = vec!["watch_config_files=true".to_owned()];
        match matching {
            RuleMatching::All => options.push("rule_matching=all".to_owned()),
            RuleMatching::First => options.push("rule_matching=first".to_owned()),
            RuleMatching::Keep => {}
        }
        let page = self.page(true);
        if page == PageAt::Nowhere {
            return options;
        }
        if page == PageAt::Own {
            // The port is added at each start.
            options.extend(["webserver.enabled=true", "webserver.listen_address=127.0.0.1"].map(str::to_owned));
            options.push("webserver.ssl_enabled=false".to_owned());
        }
        options.push("webserver.prometheus_metrics_enabled=true".to_owned());
        if !yaml::flag(&self.merged, "metrics.enabled", false) {
            options.push("metrics.enabled=true".to_owned());
            options.push("metrics.output_rule=false".to_owned());
            options.push("metrics.interval=1h".to_owned());
            if self.value("metrics.output_file").is_some_and(|file| !file.is_empty()) {
                options.push("metrics.output_file=".to_owned());
            }
        }
        options
    }

    /// A scalar of the merged configuration.
    pub fn value(&self, path: &str) -> Option<String> {
        yaml::lookup(&self.merged, path).and_then(yaml::text)
    }

    /// Anything of the merged configuration, as JSON; null where it isn't there.
    pub fn json(&self, path: &str) -> serde_json::Value {
        yaml::lookup(&self.merged, path).and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
    }
}

fn read(path: &Path, digest: &mut Sha256) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError::Read { path: path.to_path_buf(), error })?;
    digest.update(path.as_os_str().as_encoded_bytes());
    digest.update(Sha256::digest(&bytes));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(path: &Path, text: &str) -> Result<Mapping, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let map = edit::mapping(text).map_err(|error| ConfigError::Syntax { path: path.to_path_buf(), error })?;
    let mut value = Value::Mapping(map);
    yaml::expand(&mut value, &|name| std::env::var(name).ok());
    Ok(match value {
        Value::Mapping(map) => map,
        _ => Mapping::new(),
    })
}

fn includes(root: &Mapping) -> Vec<(PathBuf, Overlay)> {
    let entry = |value: &Value| match value {
        Value::Mapping(map) => {
            let strategy = map.get("strategy").and_then(Value::as_str).unwrap_or("append");
            Some((PathBuf::from(map.get("path")?.as_str()?), Overlay::named(strategy)))
        }
        other => yaml::text(other).map(|path| (PathBuf::from(path), Overlay::Append)),
    };
    root.get("config_files").and_then(Value::as_sequence).into_iter().flatten().filter_map(entry).collect()
}

/// The regular files of a folder by path, symlinks followed.
fn regular_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn is_rules_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// The last part of a path, which is all that Falco's page shows of it.
pub fn base_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
