//! Pages of the docs that are made from the program itself, so that they can't be out of date.

use crate::agent::metrics::AgentMetrics;
use crate::controller::metrics::ControllerMetrics;
use crate::telemetry::metrics::reference;

/// `docs/metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    let intro =
        "# Metrics\n\nWhat `/metrics` of each process serves. This page is made from the tables in the code.\n\n";
    format!("{intro}{}", reference(&[("Controller", ControllerMetrics::table()), ("Agent", AgentMetrics::table())]))
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
}
