//! The `metrics!` macro: one table of metric families, from which come the struct that the code holds, the registration,
//! the label values that show before the first event, and the reference page of the docs.

use std::collections::{BTreeMap, HashMap};

use prometheus::core::Collector as _;
use prometheus::{IntGaugeVec, Opts, Registry};

/// Buckets for what takes from a moment to minutes: reloads, rollouts.
pub const LATENCIES: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// A metric family as its table declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// How it counts.
    pub kind: FamilyKind,
    /// Its labels, in their order.
    pub labels: Vec<Label>,
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// How a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only ever more.
    Counter,
    /// Up and down.
    Gauge,
    /// How often in which range.
    Histogram,
}

/// A label of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// The values that it can have; `None` where they come from the cluster, which the code that sets them bounds.
    pub values: Option<Vec<&'static str>>,
}

impl FamilyKind {
    /// Prometheus' word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Every combination of the values of labels that are all closed; none where one is open.
#[must_use]
pub fn combinations(labels: &[Label]) -> Vec<Vec<&'static str>> {
    labels.iter().fold(vec![Vec::new()], |done, label| {
        let values = label.values.as_deref().unwrap_or_default();
        done.iter()
            .flat_map(|begun| {
                values.iter().map(move |value| {
                    let mut next = begun.clone();
                    next.push(*value);
                    next
                })
            })
            .collect()
    })
}

/// Makes a gauge, whose label values come from the cluster, show these series and no others, by the values of its labels
/// in their order. At no moment is one missing that stays.
pub fn show(gauge: &IntGaugeVec, series: &BTreeMap<Vec<String>, i64>) {
    for (values, value) in series {
        gauge.with_label_values(values).set(*value);
    }
    let names: Vec<String> = gauge.desc().first().map(|desc| desc.variable_labels.clone()).unwrap_or_default();
    for metric in gauge.collect().iter().flat_map(prometheus::proto::MetricFamily::get_metric) {
        let labels: HashMap<&str, &str> = metric.get_label().iter().map(|it| (it.name(), it.value())).collect();
        let values: Vec<String> =
            names.iter().filter_map(|name| labels.get(name.as_str()).map(ToString::to_string)).collect();
        if !series.contains_key(&values) {
            // It was there a moment ago; if somebody else took it away, it is away.
            let _ = gauge.remove_label_values(&values);
        }
    }
}

/// A registry with what every process has: the process' own metrics and the build's version.
pub fn registry() -> prometheus::Result<Registry> {
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let build = IntGaugeVec::new(Opts::new(BUILD.0, BUILD.1), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

const BUILD: (&str, &str) = ("falco_operator_build_info", "Always 1; the label says which version runs.");

/// The reference of some tables as Markdown: one section a process, one row a family.
#[must_use]
pub fn reference(sections: &[(&str, Vec<Family>)]) -> String {
    let mut text = String::new();
    for (title, families) in sections {
        text.push_str(&format!("## {title}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|\n"));
        for family in families {
            let labels: Vec<String> = family
                .labels
                .iter()
                .map(|label| match &label.values {
                    None => format!("`{}`", label.name),
                    Some(values) => {
                        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                        format!("`{}`: {}", label.name, values.join(", "))
                    }
                })
                .collect();
            let row = [&format!("`{}`", family.name), family.kind.name(), &labels.join("; "), family.help];
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text.push('\n');
    }
    text.push_str("## Both\n\n");
    text.push_str(&format!(
        "| metric | kind | labels | what it says |\n|---|---|---|---|\n| `{}` | gauge | `version` | {} |\n",
        BUILD.0, BUILD.1
    ));
    text.push_str("\nAnd the usual metrics of the process itself: `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds`, `process_start_time_seconds`, `process_threads`.\n");
    text
}

/// Declares a process' metrics as a table.
///
/// ```ignore
/// metrics! {
///     /// What the agent tells about itself.
///     pub struct AgentMetrics = "falco_operator_agent_";
///     /// Reloads of Falco, by outcome.
///     counter reloads_total { outcome in ["confirmed", "unconfirmed"] }
///     /// Matches of rules.
///     counter rule_matches_total { namespace, rule }
///     /// How long a reload took, from the swap to the proof.
///     histogram reload_seconds {} LATENCIES
///     /// Whether Falco runs.
///     gauge falco_up {}
/// }
/// ```
///
/// makes a struct with a public field of that name for each family (`counter` and `gauge` count in integers, `seconds`
/// and `ratio` are a counter and a gauge of fractions, `histogram` takes its buckets), `register(&Registry)`, and
/// `table()`. A label is followed by `in` and the values it can have (an expression that iterates over `&'static str`),
/// which are then shown from the start, or by nothing where the values come from the cluster.
macro_rules! metrics {
    (
        $(#[doc = $sdoc:literal])+ pub struct $Metrics:ident = $prefix:literal;
        $( $(#[doc = $doc:literal])+ $kind:ident $field:ident { $( $label:ident $(in $values:expr)? ),* $(,)? } $($buckets:path)? )+
    ) => {
        $(#[doc = $sdoc])+
        #[derive(Clone, Debug)]
        pub struct $Metrics {
            $( $(#[doc = $doc])+ pub $field: $crate::telemetry::metrics::metrics!(@type $kind [$($label)*]), )+
        }

        impl $Metrics {
            /// The table: every family, in its order.
            #[must_use]
            pub fn table() -> Vec<$crate::telemetry::metrics::Family> {
                vec![ $( $crate::telemetry::metrics::Family {
                    name: concat!($prefix, stringify!($field)),
                    kind: $crate::telemetry::metrics::metrics!(@kind $kind),
                    labels: vec![ $( $crate::telemetry::metrics::Label {
                        name: stringify!($label),
                        values: $crate::telemetry::metrics::metrics!(@values $($values)?),
                    } ),* ],
                    help: concat!($($doc),+).trim_ascii(),
                } ),+ ]
            }

            /// Registers every family. Fails only where the registry has one of that name already.
            pub fn register(registry: &prometheus::Registry) -> prometheus::Result<Self> {
                let mut table = Self::table().into_iter();
                $(
                    let family = table.next().ok_or_else(|| prometheus::Error::Msg("the table is too short".to_owned()))?;
                    let $field = $crate::telemetry::metrics::metrics!(@new $kind [$($label)*] family $($buckets)?);
                    registry.register(Box::new($field.clone()))?;
                )+
                Ok(Self { $($field),+ })
            }
        }
    };

    (@type counter []) => { prometheus::IntCounter };
    (@type counter [$($label:ident)+]) => { prometheus::IntCounterVec };
    (@type seconds []) => { prometheus::Counter };
    (@type seconds [$($label:ident)+]) => { prometheus::CounterVec };
    (@type gauge []) => { prometheus::IntGauge };
    (@type gauge [$($label:ident)+]) => { prometheus::IntGaugeVec };
    (@type ratio []) => { prometheus::Gauge };
    (@type ratio [$($label:ident)+]) => { prometheus::GaugeVec };
    (@type histogram []) => { prometheus::Histogram };
    (@type histogram [$($label:ident)+]) => { prometheus::HistogramVec };

    (@kind counter) => { $crate::telemetry::metrics::FamilyKind::Counter };
    (@kind seconds) => { $crate::telemetry::metrics::FamilyKind::Counter };
    (@kind gauge) => { $crate::telemetry::metrics::FamilyKind::Gauge };
    (@kind ratio) => { $crate::telemetry::metrics::FamilyKind::Gauge };
    (@kind histogram) => { $crate::telemetry::metrics::FamilyKind::Histogram };

    (@values) => { None };
    (@values $values:expr) => { Some($values.into_iter().collect()) };

    (@new histogram [] $family:ident $buckets:path) => {
        prometheus::Histogram::with_opts(prometheus::HistogramOpts::new($family.name, $family.help).buckets($buckets.to_vec()))?
    };
    (@new histogram [$($label:ident)+] $family:ident $buckets:path) => {
        $crate::telemetry::metrics::metrics!(@touch $family prometheus::HistogramVec::new(
            prometheus::HistogramOpts::new($family.name, $family.help).buckets($buckets.to_vec()), &[$(stringify!($label)),+])?)
    };
    (@new $kind:ident [] $family:ident) => {
        <$crate::telemetry::metrics::metrics!(@type $kind [])>::new($family.name, $family.help)?
    };
    (@new $kind:ident [$($label:ident)+] $family:ident) => {
        $crate::telemetry::metrics::metrics!(@touch $family <$crate::telemetry::metrics::metrics!(@type $kind [$($label)+])>::new(
            prometheus::Opts::new($family.name, $family.help), &[$(stringify!($label)),+])?)
    };
    (@touch $family:ident $new:expr) => {{
        let vec = $new;
        for values in $crate::telemetry::metrics::combinations(&$family.labels) {
            vec.with_label_values(&values);
        }
        vec
    }};
}
pub(crate) use metrics;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use prometheus::TextEncoder;

    metrics! {
        /// A table for the tests.
        pub struct Sample = "sample_";
        /// Things that happened,
        /// by outcome.
        counter things_total { outcome in ["good", "bad"], how in ["fast", "slow"] }
        /// Things of the cluster.
        counter matches_total { namespace }
        /// How long.
        histogram took_seconds { step in ["one"] } LATENCIES
        /// How much at once.
        gauge depth {}
        /// How long in all.
        seconds blind_seconds_total {}
    }

    /// What `promtool check metrics` finds wrong in a table; used by the tests of each process' own.
    pub(crate) fn lint(families: &[Family]) -> Vec<String> {
        let mut found = Vec::new();
        for (index, family) in families.iter().enumerate() {
            let mut complain = |what: &str| found.push(format!("{}: {what}", family.name));
            if family.name.ends_with("_total") != (family.kind == FamilyKind::Counter) {
                complain("counters and only counters end in _total");
            }
            if family.help.is_empty() || !family.help.ends_with('.') {
                complain("the help is not a sentence");
            }
            let words =
                ["_milliseconds", "_ms", "_minutes", "_hours", "_percent", "_kilobytes", "_count", "_sum", "_bucket"];
            if words.iter().any(|word| family.name.trim_end_matches("_total").ends_with(word)) {
                complain("the unit is not a base unit, or the suffix is reserved");
            }
            if family.name.bytes().any(|byte| !byte.is_ascii_lowercase() && !byte.is_ascii_digit() && byte != b'_') {
                complain("the name is not in snake case");
            }
            if families[..index].iter().any(|other| other.name == family.name) {
                complain("declared twice");
            }
        }
        found
    }

    #[test]
    fn a_table_becomes_families_with_every_closed_value_from_the_start() {
        let registry = Registry::new();
        let sample = Sample::register(&registry).unwrap();
        sample.matches_total.with_label_values(&["team-a"]).inc_by(3);
        sample.things_total.with_label_values(&["bad", "slow"]).inc_by(0);
        sample.took_seconds.with_label_values(&["two"]).observe(0.2);
        sample.blind_seconds_total.inc_by(0.5);
        sample.depth.set(0);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "sample_blind_seconds_total 0.5",
            "# HELP sample_things_total Things that happened, by outcome.",
            r#"sample_things_total{how="fast",outcome="good"} 0"#,
            r#"sample_things_total{how="slow",outcome="bad"} 0"#,
            r#"sample_took_seconds_count{step="one"} 0"#,
            r#"sample_matches_total{namespace="team-a"} 3"#,
            "sample_depth 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(Sample::register(&registry).is_err(), "a family can't be registered twice");
        assert_eq!(lint(&Sample::table()), Vec::<String>::new());
    }

    #[test]
    fn series_of_what_is_gone_go() {
        let gauge = IntGaugeVec::new(Opts::new("x", "X."), &["zone", "app"]).unwrap();
        let series = |all: &[(&str, &str, i64)]| {
            show(&gauge, &all.iter().map(|(zone, app, value)| (vec![(*zone).into(), (*app).into()], *value)).collect());
            let metrics = gauge.collect().remove(0).take_metric();
            let mut found: Vec<_> =
                metrics.iter().map(|it| (it.get_label()[0].value().to_owned(), it.get_gauge().get_value())).collect();
            found.sort_by(|a, b| a.partial_cmp(b).unwrap());
            found
        };
        assert_eq!(series(&[("z", "a", 1), ("z", "b", 2)]), [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        assert_eq!(series(&[("z", "b", 3), ("z", "c", 4)]), [("b".to_owned(), 3.0), ("c".to_owned(), 4.0)]);
        assert_eq!(series(&[]), []);
    }

    #[test]
    fn every_process_tells_its_version_and_its_memory() {
        let text = TextEncoder::new().encode_to_string(&registry().unwrap().gather()).unwrap();
        assert!(text.contains("falco_operator_build_info{version="), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn the_reference_has_a_row_for_each_family() {
        let text = reference(&[("Sample", Sample::table())]);
        assert!(text.contains("| `sample_things_total` | counter | `outcome`: `good`, `bad`; `how`: `fast`, `slow` | Things that happened, by outcome. |"), "{text}");
        assert!(text.contains("| `sample_matches_total` | counter | `namespace` | Things of the cluster. |"), "{text}");
    }
}
