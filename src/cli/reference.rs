//! Pages of the docs that are made from the program itself, so that they can't be out of date.

use clap::CommandFactory;

use crate::agent::metrics::AgentMetrics;
use crate::api::{Event, Phase};
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
    page.push_str(&format!("\n## {}\n\n{about}.\n\n```\n{usage}\n```\n", command.get_name()));
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
    fn the_metrics_page_is_current() {
        current("docs/metrics.md", &super::metrics_page());
    }

    #[test]
    fn the_page_of_the_state_machine_is_current() {
        current("docs/state-machine.md", &super::state_machine_page());
    }
}
