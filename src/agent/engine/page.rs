//! Falco's own word for what it has loaded: its page of metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::sets::Set;

/// How long Falco may take for an answer, and how long that may be.
const ANSWER: Duration = Duration::from_secs(3);
const LARGEST: usize = 16 << 20;

const RULES: &str = "falcosecurity_falco_sha256_rules_files_info";
const CONFIGS: &str = "falcosecurity_falco_sha256_config_files_info";
const RELOADED: &str = "falcosecurity_falco_reload_timestamp_nanoseconds";
const VERSION: &str = "falcosecurity_falco_version_info";
const MATCHES: &str = "falcosecurity_falco_rules_matches_total";
const EVENTS: &str = "falcosecurity_scap_n_evts_total";
const DROPPED: &str = "falcosecurity_scap_n_drops_total";
const OUTPUTS_DROPPED: &str = "falcosecurity_falco_outputs_queue_num_drops_total";

/// Why a page can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Nobody answers, or not in time, or not as HTTP.
    #[error("Falco's web server does not answer: {0}")]
    Unreachable(String),
    /// There is a web server, but no such page.
    #[error("Falco's web server has no page of metrics (HTTP status {0})")]
    NoMetrics(u16),
    /// The page is not one of Falco's.
    #[error("Falco's page of metrics can't be read: {0}")]
    Malformed(String),
}

/// What matters of Falco's page of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// When it last loaded, in nanoseconds since 1970 by its own clock.
    pub reloaded: u64,
    /// Its version.
    pub version: Option<String>,
    /// Base name and SHA-256 of each rules file.
    pub rules: Vec<(String, String)>,
    /// The same of each configuration file.
    pub configs: Vec<(String, String)>,
    /// What it has counted since then.
    pub counts: Counts,
}

/// What Falco counts anew after each load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Matches of each rule that matched, by its name.
    pub matches: BTreeMap<String, u64>,
    /// System calls and other events that the kernel gave it.
    pub events: u64,
    /// Those that were lost before it saw them.
    pub events_dropped: u64,
    /// Alerts that were lost because an output was too slow.
    pub outputs_dropped: u64,
}

/// Reads the page.
pub async fn read(address: SocketAddr) -> Result<Page, PageError> {
    let text = get(address, "/metrics").await?;
    Page::parse(&text)
}

/// The versions of Falco and of its rules engine.
pub async fn versions(address: SocketAddr) -> Result<(Option<String>, Option<String>), PageError> {
    let text = get(address, "/versions").await?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| PageError::Malformed(error.to_string()))?;
    let field = |name| json.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    Ok((field("falco_version"), field("engine_version_semver")))
}

async fn get(address: SocketAddr, path: &str) -> Result<String, PageError> {
    let unreachable = |error: &dyn std::fmt::Display| PageError::Unreachable(error.to_string());
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        let request = Request::get(path)
            .header(header::HOST, address.to_string())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| unreachable(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
            if response.status() != StatusCode::OK {
                return Err(PageError::NoMetrics(response.status().as_u16()));
            }
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            Ok(body.map_err(|error| PageError::Malformed(error.to_string()))?.to_bytes())
        };
        tokio::pin!(connection);
        tokio::pin!(answer);
        // The connection has to be driven; its end may come before the answer was taken out.
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    };
    let bytes = timeout(ANSWER, exchange).await.map_err(|_| PageError::Unreachable("no answer in time".into()))??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Page {
    /// Reads the families that matter, strictly; Falco escapes no label, so that other lines may hold anything.
    pub fn parse(text: &str) -> Result<Self, PageError> {
        let mut page = Self::default();
        let mut reloaded = None;
        for line in text.lines() {
            let malformed = || PageError::Malformed(format!("`{}`", super::cut(line, 200)));
            if let Some(rest) = line.strip_prefix(RULES) {
                page.rules.push(file(rest).ok_or_else(malformed)?);
            } else if let Some(rest) = line.strip_prefix(CONFIGS) {
                page.configs.push(file(rest).ok_or_else(malformed)?);
            } else if let Some(rest) = line.strip_prefix(RELOADED) {
                let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok()).ok_or_else(malformed)?;
                if reloaded.replace(value).is_some() {
                    return Err(malformed());
                }
            } else if let Some(rest) = line.strip_prefix(MATCHES) {
                // Nothing is proved by a count, so that one which can't be read spoils no page.
                if let Some((name, count)) = matches(rest) {
                    *page.counts.matches.entry(name.to_owned()).or_default() += count;
                }
            } else if let Some(rest) = line.strip_prefix(EVENTS) {
                page.counts.events += count(rest);
            } else if let Some(rest) = line.strip_prefix(DROPPED) {
                page.counts.events_dropped += count(rest);
            } else if let Some(rest) = line.strip_prefix(OUTPUTS_DROPPED) {
                page.counts.outputs_dropped += count(rest);
            } else if let Some(rest) = line.strip_prefix(VERSION) {
                page.version =
                    rest.strip_prefix("{version=\"").and_then(|rest| rest.split('"').next()).map(str::to_owned);
            }
        }
        page.reloaded = reloaded.ok_or_else(|| PageError::Malformed(format!("there is no {RELOADED}")))?;
        Ok(page)
    }

    /// Whether exactly this set, over rules files of the base with these base names, is what was loaded.
    pub fn shows(&self, set: &Set, base: &[(String, String)]) -> bool {
        let names: Vec<&str> = base.iter().map(|(name, _)| name.as_str()).collect();
        // Of a file that is listed twice Falco may show one line or two.
        surplus(&self.rules, &set.rules_hashes)
            .is_some_and(|surplus| surplus.iter().all(|(name, _)| names.contains(&name.as_str())))
            && surplus(&self.configs, &set.config_hashes).is_some()
    }

    /// Whether the base's rules files, too, are those that are on disk.
    pub fn shows_base(&self, base: &[(String, String)]) -> bool {
        base.iter().all(|file| self.rules.contains(file))
    }
}

/// What `found` holds beyond `expected`, as multisets; `None` if anything is missing.
fn surplus(found: &[(String, String)], expected: &[(String, String)]) -> Option<Vec<(String, String)>> {
    let mut counts: BTreeMap<&(String, String), usize> = BTreeMap::new();
    for file in found {
        *counts.entry(file).or_default() += 1;
    }
    for file in expected {
        let count = counts.get_mut(file)?;
        *count = count.checked_sub(1)?;
    }
    Some(counts.into_iter().flat_map(|(file, count)| std::iter::repeat_n(file.clone(), count)).collect())
}

/// `{rule_name="…",priority="…",…} 5`: the name and the count. A name with a quote can't be told from what follows it;
/// no `FalcoRule` has one.
fn matches(labels: &str) -> Option<(&str, u64)> {
    let (name, rest) = labels.strip_prefix("{rule_name=\"")?.split_once("\",priority=\"")?;
    Some((name, rest.rsplit_once("} ")?.1.parse().ok()?))
}

/// The number behind the name of a family, with labels or without; nothing where the name goes on.
fn count(rest: &str) -> u64 {
    let value = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('{')?.rsplit_once("} ").map(|(_, value)| value));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// `{file_name="…",sha256="…"} 1`, where the name may hold anything.
fn file(labels: &str) -> Option<(String, String)> {
    let labels = labels.strip_prefix("{file_name=\"")?.strip_suffix("\"} 1")?;
    let (name, hash) = labels.rsplit_once("\",sha256=\"")?;
    let hexadecimal = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    hexadecimal.then(|| (name.to_owned(), hash.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "7e380a5163e9f6cfab3dd399b627371016159ec3c78d6a1dd712d3a3b59a5592";

    fn page(lines: &str) -> Result<Page, PageError> {
        Page::parse(&format!("{VERSION}{{version=\"0.44.1\"}} 1\n{RELOADED} 1795449819807580011\n{lines}"))
    }

    fn set(rules: &[(&str, &str)]) -> Set {
        let owned = |files: &[(&str, &str)]| files.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Set {
            id: "x".into(),
            files: BTreeMap::new(),
            rules_hashes: owned(rules),
            config_hashes: owned(&[("falco.yaml", HASH)]),
        }
    }

    #[test]
    fn a_page_of_falco_is_read() {
        let found = page(&format!(
            "# HELP {RULES} x\n# TYPE {RULES} gauge\n{RULES}{{file_name=\"we ird\"q.yaml\",sha256=\"{HASH}\"}} 1\n\
             {CONFIGS}{{file_name=\"falco.yaml\",sha256=\"{HASH}\"}} 1\nfalcosecurity_falco_rules_matches_total{{\"}} 1\n"
        ))
        .unwrap();
        assert_eq!(found.version.as_deref(), Some("0.44.1"));
        assert_eq!(found.reloaded, 1_795_449_819_807_580_011);
        assert_eq!(found.rules, [("we ird\"q.yaml".to_owned(), HASH.to_owned())]);
        assert!(found.shows(&set(&[("we ird\"q.yaml", HASH)]), &[]));
    }

    #[test]
    fn counts_are_read_and_one_that_cannot_be_spoils_nothing() {
        let found = page(&format!(
            "{MATCHES}{{rule_name=\"team-a/shell, in {{container}}\",priority=\"4\",source=\"syscall\",tag_x=\"true\"}} 5\n\
             {MATCHES}{{rule_name=\"odd\"name\",priority=\"4\",source=\"syscall\"}} 2\n{MATCHES}{{\"}} x\n{MATCHES} 3\n\
             {EVENTS} 1000\n{DROPPED}{{cpu=\"0\"}} 3\n{DROPPED}{{cpu=\"1\"}} 4\n{DROPPED}_of_sorts 9\n{OUTPUTS_DROPPED} 1\n"
        ));
        let counts = found.unwrap().counts;
        let matches: Vec<_> = counts.matches.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(matches, [("odd\"name", 2), ("team-a/shell, in {container}", 5)]);
        assert_eq!((counts.events, counts.events_dropped, counts.outputs_dropped), (1000, 7, 1));
    }

    #[test]
    fn a_line_of_a_family_that_matters_and_does_not_parse_spoils_the_page() {
        for line in [
            format!("{RULES}{{file_name=\"a\",sha256=\"{HASH}\"}} 2\n"),
            format!("{RULES}{{file_name=\"a\",sha256=\"{}\"}} 1\n", HASH.to_uppercase()),
            format!("{RELOADED} 1\n"),
            format!("{RULES} 1\n"),
        ] {
            assert!(matches!(page(&line), Err(PageError::Malformed(_))), "{line}");
        }
        assert!(Page::parse("x 1\n").is_err());
    }

    #[test]
    fn a_file_too_many_or_too_few_or_another_one_is_no_proof() {
        let other = HASH.replace('7', "8");
        let found = page(&format!(
            "{RULES}{{file_name=\"a.yaml\",sha256=\"{HASH}\"}} 1\n{RULES}{{file_name=\"base.yaml\",sha256=\"{other}\"}} 1\n\
             {CONFIGS}{{file_name=\"falco.yaml\",sha256=\"{HASH}\"}} 1\n"
        ))
        .unwrap();
        let base = [("base.yaml".to_owned(), HASH.to_owned())];
        assert!(found.shows(&set(&[("a.yaml", HASH)]), &base));
        assert!(!found.shows_base(&base));
        assert!(!found.shows(&set(&[("a.yaml", HASH)]), &[]), "base.yaml is nobody's");
        assert!(!found.shows(&set(&[]), &base), "a.yaml is too many");
        assert!(!found.shows(&set(&[("a.yaml", &other)]), &base));
        assert!(!found.shows(&set(&[("a.yaml", HASH), ("a.yaml", HASH)]), &base));
        let mut other_config = set(&[("a.yaml", HASH)]);
        other_config.config_hashes = vec![("falco.yaml".into(), other)];
        assert!(!found.shows(&other_config, &base));
    }
}
