//! `falco-operator render`: the rules files that nodes would get.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::manifest::{self, Document};
use super::namespace::Namespace;
use super::{input, setting};
use crate::api::BundleFile;
use crate::render::{ItemVerdict, Names, Rendered};

/// Arguments of `falco-operator render`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Files or folders with manifests of FalcoRules, FalcoMacros and FalcoLists; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Write one file per namespace, DIR/NAMESPACE.yaml, instead of printing them
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,

    #[command(flatten)]
    setting: setting::Args,
}

/// Renders every namespace of the manifests. What is refused is told on standard error; the rest is rendered all the
/// same, as it would be in a cluster.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let setting = match args.setting.load() {
        Ok(setting) => setting,
        Err(err) => return Ok(setting::unreadable(&err)),
    };
    let (files, unreadable) = input::read(&args.paths);
    let mut errors = unreadable;
    let mut refused = false;
    let mut namespaces: BTreeMap<String, Namespace> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        match manifest::documents(index, &file.text, &setting.namespace) {
            Err(err) => {
                let (line, column, _) = input::place(&file.text, err.offset);
                errors.push(format!("{}:{line}:{column}: {}", file.name, err.message));
            }
            Ok(documents) => {
                for document in documents {
                    match document {
                        Document::Foreign(_) => {}
                        Document::Plain(_) => errors.push(format!(
                            "{} is a plain rules file; make manifests of it with `falco-operator convert`",
                            file.name
                        )),
                        Document::Manifest(manifest) => {
                            let manifest::Manifest { item, object, .. } = *manifest;
                            let object = object.and_then(|object| match item.name.as_str() {
                                "" => Err("there is no metadata.name".to_owned()),
                                _ => Ok(object),
                            });
                            match object {
                                Ok(object) => namespaces.entry(item.namespace).or_default().take(item.name, object),
                                Err(why) => {
                                    eprintln!("error: {}: {} {}: {why}", file.name, item.kind, item.name);
                                    refused = true;
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    let mut names = Names::default();
    if let Some(dir) = &args.output {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
    }
    let several = namespaces.len() > 1;
    for (name, namespace) in &namespaces {
        let rendered = namespace.render(name, &names, &setting);
        refused |= complain(name, &rendered);
        let Ok(file) = rendered.file else { continue };
        names.hold(name, file.items.iter().map(|item| item.rule_name.clone()).collect());
        write(args.output.as_deref(), name, &file, several)?;
    }
    for error in &errors {
        eprintln!("{error}");
    }
    Ok(ExitCode::from(if errors.is_empty() { u8::from(refused) } else { 2 }))
}

fn write(dir: Option<&Path>, namespace: &str, file: &BundleFile, several: bool) -> anyhow::Result<()> {
    let text = file.text();
    let Some(dir) = dir else {
        let header = if several { format!("# {namespace}.yaml\n") } else { String::new() };
        return write!(std::io::stdout().lock(), "{header}{text}").context("cannot write to standard output");
    };
    // The name becomes part of a path, and manifests may come from anywhere.
    anyhow::ensure!(
        namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
        "{namespace:?} is not the name of a namespace"
    );
    let path = dir.join(format!("{namespace}.yaml"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Tells what was refused and what is worth a warning; says whether something was refused.
fn complain(namespace: &str, rendered: &Rendered) -> bool {
    let mut refused = false;
    let kinds = [("FalcoRule", &rendered.rules), ("FalcoMacro", &rendered.macros), ("FalcoList", &rendered.lists)];
    for (kind, verdicts) in kinds {
        for (name, verdict) in verdicts {
            let ItemVerdict { rejected, message, not_running, .. } = verdict;
            if let Some(message) = message {
                let word = if rejected.is_some() { "error" } else { "warning" };
                let message = message.strip_prefix("warning: ").unwrap_or(message);
                eprintln!("{word}: {kind} {namespace}/{name}: {message}");
            }
            if let Some(why) = not_running {
                eprintln!("warning: {kind} {namespace}/{name} would not run: {why}");
            }
            refused |= rejected.is_some();
        }
    }
    if let Err(too_large) = &rendered.file {
        eprintln!(
            "error: the rules file of namespace {namespace} has {} bytes; at most {} are allowed",
            too_large.bytes, too_large.limit
        );
        refused = true;
    }
    refused
}
