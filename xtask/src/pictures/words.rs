//! Values as people read them.

/// A value in a unit of Grafana's.
pub fn value(value: f64, unit: &str) -> String {
    match unit {
        "percentunit" => format!("{} %", trimmed(value * 100.0)),
        "s" => seconds(value),
        "bytes" => format!("{} MiB", trimmed(value / 1_048_576.0)),
        "wps" | "eps" => format!("{}/s", trimmed(value)),
        "bool_yes_no" => if value == 0.0 { "No" } else { "Yes" }.to_owned(),
        _ => trimmed(value),
    }
}

fn seconds(value: f64) -> String {
    match value {
        value if value <= 0.0 => "0 s".to_owned(),
        value if value < 1.0 => format!("{} ms", trimmed(value * 1000.0)),
        value if value < 120.0 => format!("{} s", trimmed(value)),
        value if value < 7200.0 => format!("{} min", trimmed(value / 60.0)),
        value if value < 172_800.0 => format!("{} h", trimmed(value / 3600.0)),
        value => format!("{} days", trimmed(value / 86_400.0)),
    }
}

/// With as many digits as matter.
fn trimmed(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A text of at most so many characters.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let short: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{short}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_unit_and_no_digits_too_many() {
        for (number, unit, text) in [
            (1.0, "percentunit", "100 %"),
            (0.333, "percentunit", "33.3 %"),
            (0.0421, "s", "42.1 ms"),
            (90.0, "s", "90 s"),
            (600.0, "s", "10 min"),
            (2_592_000.0, "s", "30 days"),
            (52_428_800.0, "bytes", "50 MiB"),
            (1234.5, "eps", "1234/s"),
            (1.0, "bool_yes_no", "Yes"),
            (3.0, "short", "3"),
            (0.25, "short", "0.25"),
        ] {
            assert_eq!(value(number, unit), text);
        }
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
