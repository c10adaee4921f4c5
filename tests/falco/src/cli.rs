//! The command line.

use crate::config::Config;
use crate::control::{Control, Phase};
use crate::fields::{Catalogue, Field};
use crate::load::{self, Failure, Invocation};
use crate::rules::issue::Report;
use crate::rules::items::Rule;
use crate::rules::{Loader, Uncaught};
use crate::{log, run, web};
use serde_json::json;
use std::path::PathBuf;

#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // Each is an option of Falco's.
struct Arguments {
    invocation: Invocation,
    validate: Vec<String>,
    dry_run: bool,
    list: Option<String>,
    format: String,
    names_only: bool,
    version: bool,
    help: bool,
}

/// Runs a command line; the exit code.
pub fn main(words: &[String]) -> u8 {
    let arguments = match parse(words) {
        Ok(arguments) => arguments,
        Err(message) => return fail(&format!("Error: {message}")),
    };
    let control = Control::from_environment();
    if arguments.help {
        log::stdout(HELP);
        return 0;
    }
    if arguments.version {
        return version(&arguments);
    }
    if !arguments.invocation.config.is_file() {
        return fail("Error: You must create a config file at /etc/falco/falco.yaml or by passing -c");
    }
    if !arguments.validate.is_empty() {
        return validate(&arguments, &control).unwrap_or_else(|failure| fail(&failure.message));
    }
    if let Some(source) = &arguments.list {
        return list(&arguments, source).unwrap_or_else(|failure| fail(&failure.message));
    }
    if arguments.dry_run {
        return match load::load(&arguments.invocation, &control, Phase::Check) {
            Ok(_) => 0,
            Err(failure) => fail(&failure.message),
        };
    }
    run::run(&arguments.invocation, &control)
}

const HELP: &str = "Stands in for Falco in tests.\n
  -c FILE            configuration (default /etc/falco/falco.yaml)
  -o KEY=VALUE       override a key of the configuration, repeatable
  -r FILE            load these rules files only, repeatable
  -V, --validate F   check rules files, repeatable
  --dry-run          load everything, run nothing
  --list[=SOURCE]    fields; with --format json|text, -N for names only
  --version          versions
";

fn fail(message: &str) -> u8 {
    log::raw(&format!("{}\n", message.trim_end()));
    1
}

fn parse(words: &[String]) -> Result<Arguments, String> {
    let mut arguments = Arguments { format: "text".to_owned(), ..Arguments::default() };
    arguments.invocation.config = PathBuf::from("/etc/falco/falco.yaml");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, attached) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ if word.starts_with('-') && !word.starts_with("--") && word.len() > 2 && word.is_char_boundary(2) => {
                let (option, value) = word.split_at(2);
                (option, Some(value.to_owned()))
            }
            _ => (word.as_str(), None),
        };
        let mut value = |attached: Option<String>| {
            attached.or_else(|| words.next().cloned()).ok_or(format!("Option '{option}' is missing an argument"))
        };
        match option {
            "-c" => arguments.invocation.config = PathBuf::from(value(attached)?),
            "-o" | "--option" => arguments.invocation.overrides.push(value(attached)?),
            "-r" => arguments.invocation.rules.push(PathBuf::from(value(attached)?)),
            "-V" | "--validate" => arguments.validate.push(value(attached)?),
            "--dry-run" => arguments.dry_run = true,
            "--list" => arguments.list = Some(attached.unwrap_or_default()),
            "--format" => arguments.format = value(attached)?,
            "-N" => arguments.names_only = true,
            "--version" => arguments.version = true,
            "-h" | "--help" => arguments.help = true,
            // Without meaning for a program that opens no event source.
            "-A" | "-U" | "-v" | "-L" | "--unbuffered" | "--disable-cri-async" => {}
            "-p" | "--print" | "-P" | "--pidfile" | "-M" | "-s" | "--snaplen" => {
                value(attached)?;
            }
            other => return Err(format!("Option '{other}' does not exist")),
        }
    }
    Ok(arguments)
}

fn wants_json(arguments: &Arguments) -> bool {
    arguments.invocation.overrides.iter().any(|option| option == "json_output=true")
}

fn version(arguments: &Arguments) -> u8 {
    if wants_json(arguments) {
        log::stdout(&format!("{}\n", web::versions(None)));
    } else {
        log::stdout(
            "Falco version: 0.44.1 (x86_64)\nLibs version:  0.0.0-local\nPlugin API:    3.12.0\nEngine:        0.62.0\n\
             Driver:\n  API version:    10.0.0\n  Schema version: 4.3.0\n  Default driver: 0.0.0-local\n\
             This is the stand-in for Falco.\n",
        );
    }
    0
}

fn configuration(arguments: &Arguments) -> Result<Config, Failure> {
    let Invocation { config, overrides, rules } = &arguments.invocation;
    let config = Config::load(config, overrides, rules)
        .map_err(|error| Failure { message: error.message.clone(), alert: error.message })?;
    log::configure(config.log_stderr, config.iso_time);
    Ok(config)
}

fn validate(arguments: &Arguments, control: &Control) -> Result<u8, Failure> {
    let config = configuration(arguments)?;
    log::line("Falco version: 0.44.1 (x86_64)");
    let refuse = |rule: &Rule| {
        let faults = control.faults_of_rule(rule);
        load::carry_out(&faults, Phase::Check);
        load::refusal(&faults, Phase::Check)
    };
    let mut loader = Loader::new(&config, Box::new(refuse));
    let mut reports: Vec<Report> = Vec::new();
    log::line("Validating rules file(s):");
    for name in &arguments.validate {
        let content = load::read(std::path::Path::new(name))?;
        log::line(&format!("   {name}"));
        reports.push(loader.load(name, &content).map_err(|Uncaught(what)| Failure::uncaught(&what))?);
        let faults = control.faults_of_file(&content);
        load::carry_out(&faults, Phase::Check);
        if let Some(message) = load::refusal(&faults, Phase::Check)
            && let Some(report) = reports.last_mut()
            && report.ok()
        {
            report.refuse(&message);
        }
    }
    if let Some(message) = loader.unmet_plugins() {
        return Err(Failure { message: format!("Error: {message}"), alert: message });
    }
    let failed = reports.iter().any(|report| !report.ok());
    if config.json {
        let results: Vec<_> = reports.iter().map(Report::json).collect();
        log::stdout(&format!("{}\n", json!({"falco_load_results": results})));
    } else {
        for report in &reports {
            log::stdout(&report.text());
            log::raw(&report.warning_text());
        }
    }
    if failed {
        let texts: String = reports.iter().filter(|report| !report.ok()).map(Report::text).collect();
        return Ok(fail(&format!("Error: {texts}")));
    }
    Ok(0)
}

fn list(arguments: &Arguments, source: &str) -> Result<u8, Failure> {
    let config = configuration(arguments)?;
    let catalogue = Catalogue::of(&config);
    if !source.is_empty() && !catalogue.has_source(source) {
        return Ok(fail(&format!("Error: Unknown event source '{source}'")));
    }
    let shown: Vec<&Field> = catalogue
        .fields()
        .filter(|field| !field.unlisted() && (source.is_empty() || field.in_source(source)))
        .collect();
    if arguments.format == "json" && arguments.names_only {
        let names: Vec<&str> = shown.iter().map(|field| field.name).collect();
        log::stdout(&format!("{}\n", json!({"fieldnames": names})));
    } else if arguments.format == "json" {
        log::stdout(&format!("{}\n", json!({"fieldclasses": classes(&shown, &catalogue)})));
    } else if arguments.names_only {
        for field in &shown {
            log::stdout(&format!("{}\n", field.name));
        }
    } else {
        for class in classes(&shown, &catalogue) {
            log::stdout(&format!(
                "-------------------------------\nField Class: {}\n\n",
                class["name"].as_str().unwrap_or_default()
            ));
            for field in class["fields"].as_array().into_iter().flatten() {
                log::stdout(&format!("{}\n", field["name"].as_str().unwrap_or_default()));
            }
        }
    }
    Ok(0)
}

fn classes(fields: &[&Field], catalogue: &Catalogue) -> Vec<serde_json::Value> {
    // What any source has is a class of its own, even under the same name.
    let mut keys: Vec<(&str, Vec<&str>)> = Vec::new();
    for field in fields {
        let key = (field.class, field.sources().collect());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let one = |(name, sources): &(&str, Vec<&str>)| {
        let members: Vec<_> = fields
            .iter()
            .filter(|field| field.class == *name && field.sources().eq(sources.iter().copied()))
            .map(|field| described(field))
            .collect();
        let sources: Vec<&str> = match sources.as_slice() {
            ["*"] => ["syscall", "k8s_audit"].into_iter().filter(|source| catalogue.has_source(source)).collect(),
            named => named.to_vec(),
        };
        json!({"name": name, "desc": "", "event_sources": sources, "fields": members})
    };
    keys.iter().map(one).collect()
}

fn described(field: &Field) -> serde_json::Value {
    // Libs say only whether an argument is needed, plugins also of which kind.
    let kinds: Vec<String> = match field.origin {
        "libs" => Vec::new(),
        _ => field.argument_kind.split('|').map(str::to_uppercase).collect(),
    };
    let argument = match field.argument {
        "none" => serde_json::Value::Null,
        argument => json!({"required": argument == "required", "type": kinds}),
    };
    json!({"name": field.name, "type": field.kind, "desc": "", "is_list": field.list(), "argument": argument})
}
