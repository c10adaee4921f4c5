//! The arrows between the modules, as `docs/architecture.md` draws them, read from the paths that the code names; and
//! the purity of the modules that decide.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module of the crate may name of the others.
const ARROWS: &[(&str, &[&str])] = &[
    ("macros", &[]),
    ("api", &["macros"]),
    ("language", &["macros"]),
    ("render", &["language", "api", "macros"]),
    ("machine", &["render", "api", "macros"]),
    ("telemetry", &["macros"]),
    ("controller", &["machine", "render", "language", "api", "telemetry", "macros"]),
    ("agent", &["machine", "render", "language", "api", "telemetry", "macros"]),
    ("webhook", &["machine", "render", "language", "api", "telemetry", "macros"]),
    ("cli", &["controller", "agent", "webhook", "machine", "render", "language", "api", "telemetry", "macros"]),
];

/// The modules that neither wait, nor read a clock, nor know that there is a world.
const PURE: &[&str] = &["api", "language", "render", "machine"];

/// What a pure module may not name. Types without a world behind them, such as `std::net::IpAddr`, are fine.
const WORLD: &[&str] = &[
    "kube::Client",
    "kube::Config",
    "kube::Api",
    "kube::api::Api",
    "kube::client",
    "kube::config",
    "kube::runtime",
    "tokio",
    "tokio_util",
    "hyper",
    "hyper_util",
    "futures",
    "std::fs",
    "std::env",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::process",
    "std::thread",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::path::Path",
    "std::path::PathBuf",
];

/// What reads a clock, whatever the type was imported as.
const CLOCKS: &[&str] = &["Timestamp::now", "Zoned::now", "SystemTime::now", "Instant::now", "Utc::now"];

/// A path that the code names, with its first segments resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    /// `crate::api::FalcoRule`, `kube::Client`.
    path: String,
    line: usize,
    /// Whether it stands in code that only tests see.
    test: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Words, `::` and single characters; neither comments nor literals.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let (mut found, mut index, mut line) = (Vec::new(), 0, 1);
    while index < chars.len() {
        let begun = index;
        let mut text = None;
        if at(index) == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if at(index) == '/' && at(index + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(index), at(index + 1)) {
                    ('/', '*') => (depth, index) = (depth + 1, index + 2),
                    ('*', '/') => (depth, index) = (depth - 1, index + 2),
                    _ => index += 1,
                }
                if depth == 0 || index >= chars.len() {
                    break;
                }
            }
        } else if at(index) == '"' {
            index += 1;
            while index < chars.len() && at(index) != '"' {
                index += if at(index) == '\\' { 2 } else { 1 };
            }
            index += 1;
        } else if at(index) == '\'' {
            // A character, or a lifetime, which has no second quote.
            if at(index + 1) == '\\' {
                index += 2;
                while index < chars.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            } else if at(index + 2) == '\'' {
                index += 3;
            } else {
                index += 1;
            }
        } else if at(index).is_alphanumeric() || at(index) == '_' {
            while at(index).is_alphanumeric() || at(index) == '_' {
                index += 1;
            }
            let word: String = chars[begun..index].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br" | "cr") && matches!(at(index), '"' | '#');
            let hashes = chars[index..].iter().take_while(|it| **it == '#').count();
            if raw && at(index + hashes) == '"' {
                index += hashes + 1;
                let ends = |from: usize| at(from) == '"' && (1..=hashes).all(|next| at(from + next) == '#');
                while index < chars.len() && !ends(index) {
                    index += 1;
                }
                index += hashes + 1;
            } else {
                text = Some(word);
            }
        } else if at(index) == ':' && at(index + 1) == ':' {
            index += 2;
            text = Some("::".to_owned());
        } else {
            if !at(index).is_whitespace() {
                text = Some(at(index).to_string());
            }
            index += 1;
        }
        if let Some(text) = text {
            found.push(Token { text, line });
        }
        line += chars[begun..index.min(chars.len())].iter().filter(|it| **it == '\n').count();
    }
    found
}

/// The paths of a file, whose own module is `module` (`["machine", "decide"]`).
struct Reader<'a> {
    tokens: &'a [Token],
    module: Vec<String>,
    found: Vec<Named>,
    /// Modules declared here that only tests see: `#[cfg(test)] mod simulation;`.
    test_files: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| token.text.as_str())
    }

    fn is_word(&self, index: usize) -> bool {
        self.text(index).starts_with(|first: char| first.is_alphabetic() || first == '_')
    }

    fn matches(&self, index: usize, wanted: &[&str]) -> bool {
        wanted.iter().enumerate().all(|(offset, wanted)| self.text(index + offset) == *wanted)
    }

    fn read(&mut self, test_file: bool) {
        // The inline modules around the current token: the depth of their braces, and whether only tests see them.
        let mut inside: Vec<(usize, bool)> = Vec::new();
        let own_depth = self.module.len();
        let (mut index, mut depth, mut only_tests) = (0, 0, false);
        while index < self.tokens.len() {
            let test = test_file || inside.iter().any(|(_, test)| *test);
            if self.matches(index, &["#", "[", "cfg", "(", "test", ")", "]"]) {
                only_tests = true;
                index += 7;
                continue;
            }
            match self.text(index) {
                "mod" if self.is_word(index + 1) && self.text(index + 2) == "{" => {
                    inside.push((depth, only_tests));
                    let name = self.text(index + 1).to_owned();
                    self.module.push(name);
                    (depth, only_tests) = (depth + 1, false);
                    index += 3;
                }
                "mod" if self.is_word(index + 1) && self.text(index + 2) == ";" => {
                    if only_tests {
                        let name = self.text(index + 1).to_owned();
                        self.test_files.push(name);
                    }
                    only_tests = false;
                    index += 3;
                }
                "{" => (depth, index) = (depth + 1, index + 1),
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inside.last().is_some_and(|(at, _)| *at == depth) {
                        inside.pop();
                        self.module.truncate(own_depth + inside.len());
                    }
                    index += 1;
                }
                "use" => {
                    index = self.tree(index + 1, &[], test || only_tests);
                    only_tests = false;
                }
                _ if self.is_word(index) && self.text(index + 1) == "::" => {
                    index = self.tree(index, &[], test);
                }
                _ => index += 1,
            }
        }
    }

    /// Reads a path, or the tree of a `use`, and returns the index behind it.
    fn tree(&mut self, mut index: usize, before: &[String], test: bool) -> usize {
        let line = self.tokens.get(index).map_or(0, |token| token.line);
        let mut path = before.to_vec();
        if self.text(index) == "::" {
            index += 1;
        }
        while self.is_word(index) || self.text(index) == "*" {
            path.push(self.text(index).to_owned());
            index += 1;
            if self.text(index) != "::" {
                break;
            }
            index += 1;
            match self.text(index) {
                "{" => {
                    index += 1;
                    while index < self.tokens.len() && self.text(index) != "}" {
                        let next = self.tree(index, &path, test);
                        // `as name`, commas, and whatever can't be read.
                        index = next.max(index + 1);
                        while index < self.tokens.len() && !matches!(self.text(index), "," | "}") {
                            index += 1;
                        }
                        if self.text(index) == "," {
                            index += 1;
                        }
                    }
                    return index + 1;
                }
                // `Vec::<u8>::new`: what is in the brackets is read on its own.
                "<" => break,
                _ => {}
            }
        }
        if !path.is_empty() {
            self.found.push(Named { path: self.resolve(&path).join("::"), line, test });
        }
        index
    }

    fn resolve(&self, path: &[String]) -> Vec<String> {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let own = path.first().is_some_and(|first| first == "self");
        let rest = path.iter().skip(supers.max(usize::from(own))).cloned();
        if supers == 0 && !own {
            return path.to_vec();
        }
        let kept = self.module.len().saturating_sub(supers);
        std::iter::once("crate".to_owned()).chain(self.module[..kept].iter().cloned()).chain(rest).collect()
    }
}

/// Everything that a file does which it may not.
fn violations(module: &[&str], source: &str, test_file: bool) -> Vec<String> {
    let (named, _) = named(module, source, test_file);
    let Some((top, allowed)) = module.first().and_then(|top| ARROWS.iter().find(|(name, _)| name == top)) else {
        return vec![format!("the module {module:?} is in no layer: give it one in {}", file!())];
    };
    let mut wrong = Vec::new();
    for Named { path, line, test } in named {
        if let Some(other) = path.strip_prefix("crate::").and_then(|rest| rest.split("::").next())
            && other != *top
            && ARROWS.iter().any(|(name, _)| *name == other)
            && !allowed.contains(&other)
        {
            wrong.push(format!("line {line}: {path}: `{top}` may not know `{other}`"));
        }
        if PURE.contains(top) && !test {
            let world = WORLD.iter().find(|world| path == **world || path.starts_with(&format!("{world}::")));
            let clock = CLOCKS.iter().find(|clock| path == **clock || path.ends_with(&format!("::{clock}")));
            if let Some(what) = world.or(clock) {
                wrong.push(format!("line {line}: {path}: `{top}` is pure and may not use {what}"));
            }
        }
    }
    wrong
}

fn named(module: &[&str], source: &str, test_file: bool) -> (Vec<Named>, Vec<String>) {
    let tokens = tokens(source);
    let module = module.iter().map(|part| (*part).to_owned()).collect();
    let mut reader = Reader { tokens: &tokens, module, found: vec![], test_files: vec![] };
    reader.read(test_file);
    (reader.found, reader.test_files)
}

fn borrowed(module: &[String]) -> Vec<&str> {
    module.iter().map(String::as_str).collect()
}

/// The Rust files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `machine/decide.rs` and `machine/decide/mod.rs` are `["machine", "decide"]`.
fn module_of(path: &Path) -> Vec<String> {
    let mut parts: Vec<_> =
        path.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

#[test]
fn the_arrows_go_one_way_and_what_decides_is_pure() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all: Vec<_> = files(&src)
        .into_iter()
        .map(|file| {
            let module = module_of(file.strip_prefix(&src).unwrap());
            (module, fs::read_to_string(&file).unwrap(), file)
        })
        .collect();
    assert!(all.len() > 20, "these are not the sources: {}", src.display());
    let mut tests = BTreeSet::new();
    for (module, source, _) in &all {
        for name in named(&borrowed(module), source, false).1 {
            tests.insert([module.as_slice(), &[name]].concat());
        }
    }
    let mut wrong = Vec::new();
    let mut layers = BTreeSet::new();
    for (module, source, file) in &all {
        if matches!(module.first().map(String::as_str), Some("main" | "lib")) {
            continue;
        }
        layers.insert(module.first().cloned().unwrap_or_default());
        let test = tests.iter().any(|test| module.starts_with(test));
        let found = violations(&borrowed(module), source, test);
        wrong.extend(found.into_iter().map(|what| format!("{}, {what}", file.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(layers, known, "a layer without a module holds nothing");
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    let bad = [
        (&["render"][..], "use crate::machine::Nodes;"),
        (&["render"], "use crate::{api::FalcoRule, machine};"),
        (&["render", "yaml"], "fn f() { let x = crate::controller::run(); }"),
        (&["render", "yaml"], "use super::super::controller::Index;"),
        (&["render"], "mod inner { use super::super::agent; }"),
        (&["machine"], "#[cfg(test)] mod tests { use crate::agent::Wanted; }"),
        (&["api"], "pub(crate) fn f(x: &crate::render::ItemVerdict) {}"),
        (&["agent"], "use crate::cli;"),
        (&["agent", "report"], "use crate::controller::Index;"),
        (&["telemetry", "http"], "use crate::api::*;"),
        (&["api"], "use kube::{CustomResource, Client};"),
        (&["api"], "use kube::runtime::{watcher, WatchStreamExt};"),
        (&["language"], "fn f() { std::fs::read(\"x\"); }"),
        (&["language"], "use std::{fmt, fs::File};"),
        (&["machine"], "fn f() -> Timestamp { Timestamp::now() }"),
        (&["machine"], "fn f() { let now = k8s_openapi::jiff::Timestamp::now(); }"),
        (&["machine"], "use std::time::{Duration, Instant as Clock};"),
        (&["render"], "use tokio::sync::watch;"),
        (&["render"], "use ::tokio as t;"),
        (&["strange"], ""),
    ];
    for (module, source) in bad {
        assert!(!violations(module, source, false).is_empty(), "{module:?}: {source}");
    }
}

#[test]
fn what_is_allowed_or_only_said_is_not_found() {
    let good = [
        (&["render"][..], "use crate::{api::{FalcoRule, Reason}, language::Catalog};"),
        (&["render", "yaml"], "use super::names::Names; // crate::machine is not used here"),
        (&["render"], "/* crate::machine /* nested */ crate::agent */ fn f() {}"),
        (&["render"], "const X: &str = \"crate::machine::Nodes\"; const Y: &str = r#\"tokio::\"spawn\"\"#;"),
        (&["render"], "fn f<'a>(x: &'a str) -> char { ':' }"),
        (&["language"], "use std::net::{IpAddr, Ipv4Addr};"),
        (&["machine"], "#[cfg(test)]\nmod tests { use super::*; fn f() { std::fs::read(\"x\"); Timestamp::now(); } }"),
        (&["machine"], "use std::time::Duration; fn f(now: Timestamp) { x.now(); }"),
        (&["api"], "use kube::{CustomResource, core::DeserializeGuard, api::ObjectMeta};"),
        (&["controller"], "use crate::machine::decide; use kube::Client; use crate::telemetry::http;"),
        (&["cli"], "use crate::agent; use crate::controller;"),
    ];
    for (module, source) in good {
        assert_eq!(violations(module, source, false), Vec::<String>::new(), "{module:?}: {source}");
    }
    // A module for tests in a file of its own.
    let (_, tests) = named(&["machine"], "#[cfg(test)]\nmod simulation;\nmod decide;", false);
    assert_eq!(tests, ["simulation"]);
    assert_eq!(violations(&["machine", "simulation"], "use std::time::Instant;", true), Vec::<String>::new());
}
