//! Pages of the docs that are made from the program itself, so that they can't be out of date.

use clap::CommandFactory;
use serde_json::Value;

use crate::agent::metrics::AgentMetrics;
use crate::api::{Event, Phase, Reason};
use crate::controller::metrics::ControllerMetrics;
use crate::telemetry::metrics::reference;
use crate::webhook::metrics::WebhookMetrics;

/// `docs/metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    let intro =
        "# Metrics\n\nWhat `/metrics` of each process serves. This page is made from the tables in the code.\n\n";
    let tables = [
        ("Controller", ControllerMetrics::table()),
        ("Webhook, in each controller", WebhookMetrics::table()),
        ("Agent", AgentMetrics::table()),
    ];
    format!("{intro}{}", reference(&tables))
}

/// `docs/state-machine.md`.
#[must_use]
pub fn state_machine_page() -> String {
    let mut page = String::from(
        "# The state machine of a namespace\n\nWhere the rules file of a namespace is on its way to the nodes, as \
         `kubectl get falcorulesfiles` shows it. This page is made from the table in the code (`src/api/phase.rs`), as are \
         the phases of the CRD and the labels of the metrics.\n\nA phase that passes in an instant is not written: after \
         an edit the next phase to be seen is `RollingOut`; `Rendering` shows while a file can't be made, \
         `Distributing` while `spec.paused` holds one back.\n\n```mermaid\n",
    );
    page.push_str(&Phase::diagram());
    page.push_str("```\n\n## Phases\n\n| phase | meaning | leaves by |\n|---|---|---|\n");
    for phase in Phase::ALL {
        let leaves: Vec<String> = Phase::TRANSITIONS
            .iter()
            .filter(|(from, ..)| from == phase)
            .map(|(_, event, to)| format!("`{}` → {}", event.name(), to.name()))
            .collect();
        page.push_str(&format!("| `{}` | {} | {} |\n", phase.name(), phase.meaning().trim(), leaves.join(" · ")));
    }
    page.push_str("\n## Events\n\n| event | meaning |\n|---|---|\n");
    for event in Event::ALL {
        page.push_str(&format!("| `{}` | {} |\n", event.name(), event.meaning().trim()));
    }
    page
}

/// `docs/api.md`.
#[must_use]
pub fn api_page() -> String {
    let mut page = String::from(
        "# API\n\nThe kinds of `mumoshu.github.io/v1alpha1`, as `kubectl explain` tells about them too. This page is made \
         from the custom resource definitions. Of a field that is required only its parent may be left out.\n",
    );
    for crd in crate::api::crds() {
        // A definition is plain data; one that can't be written would not pass any other test either.
        let crd = serde_json::to_value(&crd).unwrap_or_default();
        let names = &crd["spec"]["names"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| {
            let words =
                value.as_array().into_iter().flatten().map(|word| format!("`{}`", word.as_str().unwrap_or_default()));
            words.collect::<Vec<_>>().join(", ")
        };
        for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
            let schema = &version["schema"]["openAPIV3Schema"];
            page.push_str(&format!("\n## {}\n\n{}\n\n", word(&names["kind"]), word(&schema["description"])));
            let mut facts = vec![word(&crd["spec"]["scope"]), format!("plural `{}`", word(&names["plural"]))];
            for (what, of) in [("short", "shortNames"), ("in the category", "categories")] {
                if names[of].is_array() {
                    facts.push(format!("{what} {}", list(&names[of])));
                }
            }
            let selectable: Vec<String> = version["selectableFields"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|field| format!("`{}`", word(&field["jsonPath"]).trim_start_matches('.')))
                .collect();
            if !selectable.is_empty() {
                facts.push(format!("field selectors {}", selectable.join(", ")));
            }
            page.push_str(&format!("{}.\n\n| field | type | meaning |\n|---|---|---|\n", facts.join(", ")));
            for part in ["spec", "status"] {
                push_fields(&mut page, &schema["properties"][part], part);
            }
        }
    }
    page.push_str(
        "\n## Reasons of conditions\n\n`Ready`, `Reconciling` and `Stalled` have one of these as their `reason`. The set is \
         closed.\n\n| reason | meaning |\n|---|---|\n",
    );
    for reason in Reason::ALL {
        page.push_str(&format!("| `{}` | {} |\n", reason.name(), reason.meaning().trim()));
    }
    page
}

/// The fields of a schema, each with those below it, as rows of a table.
fn push_fields(page: &mut String, schema: &Value, path: &str) {
    let required = |name: &str| {
        let names = schema["required"].as_array();
        names.into_iter().flatten().any(|it| it.as_str() == Some(name))
    };
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let items = &field["items"];
        let type_ = match (field["type"].as_str(), items["type"].as_str()) {
            (Some("array"), Some(of)) => format!("list of {of}s"),
            (Some("array"), None) => "list".to_owned(),
            (Some(type_), _) => type_.to_owned(),
            (None, _) => "any".to_owned(),
        };
        let type_ = if required(name) { format!("{type_}, required") } else { type_ };
        let text = field["description"].as_str().unwrap_or_default();
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let values: Vec<String> = field["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| Some(format!("`{}`", it.as_str()?)))
            .collect();
        if !values.is_empty() {
            text.push_str(&format!(" One of {}.", values.join(", ")));
        }
        let at = format!("{path}.{name}");
        page.push_str(&format!("| `{at}` | {type_} | {} |\n", text.trim().replace('|', "\\|")));
        // Kubernetes' own type, which is described everywhere.
        if name != "conditions" {
            push_fields(page, field, &at);
            push_fields(page, items, &format!("{at}[]"));
        }
    }
}

/// `docs/commands.md`.
#[must_use]
pub fn commands_page() -> String {
    let mut root = super::Cli::command();
    root.build();
    let mut page = String::from(
        "# Commands\n\nWhat `falco-operator` can do. This page is made from the definitions that the program itself parses \
         its command line by.\n\nExit codes: 0 for success, 1 for a finding or a failure, 2 for what could not be read or \
         was asked for wrongly.\n",
    );
    let visible = |command: &&clap::Command| !command.is_hide_set();
    for command in root.get_subcommands().filter(visible) {
        push_command(&mut page, command);
    }
    page
}

fn push_command(page: &mut String, command: &clap::Command) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    page.push_str(&format!("\n## {}\n\n{about}.\n\n```text (what it takes)\n{usage}\n```\n", command.get_name()));
    let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        page.push_str(&format!("\nAlso called {}.\n", aliases.join(", ")));
    }
    let arguments: Vec<_> =
        command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help").collect();
    if arguments.is_empty() {
        return;
    }
    page.push_str("\n| argument | default | environment | meaning |\n|---|---|---|---|\n");
    for argument in arguments {
        let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut defaults: Vec<_> = argument.get_default_values().iter().map(|v| format!("`{}`", v.display())).collect();
        if !argument.get_action().takes_values() || argument.is_hide_default_value_set() {
            defaults.clear();
        }
        let env = argument.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
        let cells = [argument_name(argument), defaults.join(", "), env, help];
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        page.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// `-o, --output DIR`, or `PATH` for an argument that has no flag.
fn argument_name(argument: &clap::Arg) -> String {
    let values: Vec<_> = argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let values = if argument.get_action().takes_values() { values.join(" ") } else { String::new() };
    let flags = argument.get_short().map(|short| format!("-{short}")).into_iter();
    let flags = flags.chain(argument.get_long().map(|long| format!("--{long}"))).collect::<Vec<_>>().join(", ");
    format!("`{}`", format!("{flags} {values}").trim())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Compares a page with the file in the repository; with `UPDATE_REFERENCE=1` writes it instead.
    fn current(path: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} is out of date; run UPDATE_REFERENCE=1 cargo test --lib cli::reference",
            path.display()
        );
    }

    #[test]
    fn the_commands_page_is_current() {
        current("docs/commands.md", &super::commands_page());
    }

    #[test]
    fn the_api_page_is_current() {
        let page = super::api_page();
        // A field without a word about it would be a hole in `kubectl explain`, too.
        let bare: Vec<&str> = page.lines().filter(|line| line.ends_with("|  |")).collect();
        assert!(bare.is_empty(), "{bare:?}");
        current("docs/api.md", &page);
    }

    #[test]
    fn the_metrics_page_is_current() {
        current("docs/metrics.md", &super::metrics_page());
    }

    #[test]
    fn the_page_of_the_state_machine_is_current() {
        current("docs/state-machine.md", &super::state_machine_page());
    }
}
