//! What `lint` finds, and how it is shown.

use std::collections::HashMap;

use serde::Serialize;

use super::input;
use crate::render::caret;

/// Something to say about an item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The path of the file.
    pub file: String,
    /// What it is about.
    pub item: ItemName,
    /// From 1, in the file as it stands.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Whether it fails the run.
    pub severity: Severity,
    /// What kind of mistake it is.
    pub class: Class,
    /// A stable word for it.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do; empty where the message says it.
    pub help: String,
    /// The bytes of the file that are meant.
    #[serde(skip)]
    pub span: std::ops::Range<usize>,
}

/// What a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ItemName {
    /// The kind of the manifest; for plain rules files `rule`, `macro`, `list` or `file`.
    pub kind: String,
    /// The namespace; empty for plain rules files.
    pub namespace: String,
    /// The name of the object; of the rule, macro or list in plain rules files.
    pub name: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The item would be refused.
    Error,
    /// The item would be taken.
    Warning,
}

/// What kind of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Falco, or the API server, would not take it.
    Invalid,
    /// Falco would take it and come to harm.
    Unsafe,
    /// The administrator's policy does not allow it.
    Policy,
    /// It is allowed, and probably not what was meant.
    Style,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// The findings as people read them: the sentence, the line with carets under what is meant, the help.
pub fn text(findings: &[Finding], files: &[input::File]) -> String {
    let by_name: HashMap<&str, &input::File> = files.iter().map(|file| (file.name.as_str(), file)).collect();
    let mut out = String::new();
    for finding in findings {
        out.push_str(&format!("{}[{}]: {}\n", finding.severity.word(), finding.code, finding.message));
        let number = finding.line.to_string();
        let margin = " ".repeat(number.len());
        out.push_str(&format!("{margin}--> {}:{}:{}", finding.file, finding.line, finding.column));
        out.push_str(&match finding.item.name.as_str() {
            "" => "\n".to_owned(),
            name if finding.item.namespace.is_empty() => format!(" ({} {name})\n", finding.item.kind),
            name => format!(" ({} {}/{name})\n", finding.item.kind, finding.item.namespace),
        });
        if let Some(file) = by_name.get(finding.file.as_str()) {
            let (column, line) = input::column(&file.text, finding.span.start);
            let meant = file.text.get(finding.span.clone()).unwrap_or_default();
            out.push_str(&caret(finding.line, line, column, meant));
        }
        if !finding.help.is_empty() {
            out.push_str(&format!("{margin} = help: {}\n", finding.help));
        }
        out.push('\n');
    }
    out
}

/// The findings as one JSON object.
pub fn json(findings: &[Finding], items: usize) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        items: usize,
        findings: &'a [Finding],
    }
    // Texts and numbers always serialize.
    let mut text = serde_json::to_string_pretty(&Report { items, findings }).unwrap_or_default();
    text.push('\n');
    text
}

/// The findings as GitHub's workflow commands, which it shows beside the lines of a pull request.
pub fn github(findings: &[Finding]) -> String {
    let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
    findings
        .iter()
        .map(|finding| {
            let help = if finding.help.is_empty() { String::new() } else { format!("\n{}", finding.help) };
            format!(
                "::{} file={},line={},col={},title={}::{}\n",
                finding.severity.word(),
                property(&finding.file),
                finding.line,
                finding.column,
                property(&finding.code),
                escape(&format!("{}{help}", finding.message)),
            )
        })
        .collect()
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(text: &str, span: std::ops::Range<usize>) -> Finding {
        let (line, column, _) = input::place(text, span.start);
        Finding {
            file: "a,b.yaml".into(),
            item: ItemName { kind: "FalcoRule".into(), namespace: "ns".into(), name: "r".into() },
            line,
            column,
            severity: Severity::Error,
            class: Class::Invalid,
            code: "unknown-field".into(),
            message: "there is no field `proc.nam`".into(),
            help: "did you mean `proc.name`?".into(),
            span,
        }
    }

    #[test]
    fn text_points_at_what_is_meant() {
        let file = "spec:\n  condition: proc.nam = x\n";
        let files = [input::File { name: "a,b.yaml".into(), text: file.into() }];
        let shown = text(&[finding(file, 19..27)], &files);
        assert_eq!(
            shown,
            "error[unknown-field]: there is no field `proc.nam`\n --> a,b.yaml:2:14 (FalcoRule ns/r)\n  |\n\
             2 |   condition: proc.nam = x\n  |              ^^^^^^^^\n  = help: did you mean `proc.name`?\n\n"
        );
    }

    #[test]
    fn long_lines_are_cut_around_what_is_meant() {
        let file = format!("{}BAD{}\n", "x".repeat(400), "y".repeat(400));
        let files = [input::File { name: "a,b.yaml".into(), text: file.clone() }];
        let shown = text(&[finding(&file, 400..403)], &files);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[3].len() < 140, "{shown}");
        assert_eq!(lines[3].find("BAD"), lines[4].find("^^^"), "{shown}");
        for span in [0..1, 118..125, 800..803, 0..900, 803..803] {
            let shown = text(&[finding(&file, span)], &files);
            assert!(shown.lines().all(|line| line.len() < 140) && shown.contains('^'), "{shown}");
        }
    }

    #[test]
    fn github_and_json_say_the_same() {
        let mut found = finding("x", 0..1);
        found.message = "100%\nodd".into();
        assert_eq!(
            github(std::slice::from_ref(&found)),
            "::error file=a%2Cb.yaml,line=1,col=1,title=unknown-field::100%25%0Aodd%0Adid you mean `proc.name`?\n"
        );
        let value: serde_json::Value = serde_json::from_str(&json(&[found], 3)).unwrap();
        assert_eq!(value["items"], 3);
        assert_eq!(value["findings"][0]["item"]["kind"], "FalcoRule");
        assert_eq!(value["findings"][0]["severity"], "error");
        assert_eq!(value["findings"][0]["class"], "invalid");
        assert!(value["findings"][0].get("span").is_none());
    }
}
