//! Pages of the docs that are made from the program itself, so that they can't be out of date.

use crate::api::{Event, Phase};
use crate::controller::metrics::ControllerMetrics;
use crate::telemetry::metrics::reference;

/// `docs/metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    let intro =
        "# Metrics\n\nWhat `/metrics` of each process serves. This page is made from the tables in the code.\n\n";
    format!("{intro}{}", reference(&[("Controller", ControllerMetrics::table())]))
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
    fn the_metrics_page_is_current() {
        current("docs/metrics.md", &super::metrics_page());
    }

    #[test]
    fn the_page_of_the_state_machine_is_current() {
        current("docs/state-machine.md", &super::state_machine_page());
    }
}
