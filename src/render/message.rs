//! Findings in words.

use crate::language::{Code, Diagnostic, Part};

/// How many findings a status repeats.
const MOST: usize = 5;

/// The findings in one paragraph, each with its place: `condition, column 14: there is no field …`. `text_of` gives the
/// text of a part.
pub(super) fn paragraph<'t>(findings: &[&Diagnostic], text_of: impl Fn(Part) -> &'t str) -> String {
    let mut sentences: Vec<String> =
        findings.iter().take(MOST).map(|finding| sentence(finding, text_of(finding.part))).collect();
    if findings.len() > MOST {
        sentences.push(format!("and {} more", findings.len() - MOST));
    }
    sentences.join(". ")
}

/// One finding with its place in the text of its part, and what to do about it.
#[must_use]
pub fn sentence(finding: &Diagnostic, text: &str) -> String {
    let (line, column) = finding.span.position(text);
    let whole = finding.span.start == 0 && finding.span.end as usize >= text.trim_end().len();
    let place = match finding.part {
        Part::Whole => String::new(),
        part if whole => format!("{part}: "),
        part if text.trim_end().contains('\n') => format!("{part}, line {line}, column {column}: "),
        part => format!("{part}, column {column}: "),
    };
    let help = finding.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{place}{}{help}", finding.message)
}

/// How many columns of a line are shown: a condition may be one line of thousands.
const WIDTH: usize = 120;

/// A line by its number, with carets under what is meant in it from a column on (from 1, in characters), cut to a
/// readable width.
#[must_use]
pub fn caret(number: usize, line: &str, column: usize, meant: &str) -> String {
    let number = number.to_string();
    let margin = " ".repeat(number.len());
    let chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = column.saturating_sub(1);
    let meant = meant.lines().next().unwrap_or_default().trim_end();
    let length = meant.chars().count().max(1).min(chars.len().saturating_sub(start).max(1));
    let from = if start + length.min(WIDTH / 2) > WIDTH { start.saturating_sub(WIDTH / 2) } else { 0 };
    let shown: String = chars.iter().skip(from).take(WIDTH).collect();
    let (before, after) = (if from > 0 { "..." } else { "" }, if from + WIDTH < chars.len() { "..." } else { "" });
    let length = length.min((from + WIDTH).saturating_sub(start).max(1));
    format!(
        "{margin} |\n{number} | {before}{}{after}\n{margin} | {}{}\n",
        shown.trim_end(),
        " ".repeat(before.len() + start - from),
        "^".repeat(length)
    )
}

/// Where a finding is in the text of its part, over several lines: its place, the line with carets under what is meant,
/// what to do. The place begins with `part`, which is what the reader knows the text by.
#[must_use]
pub fn excerpt(finding: &Diagnostic, part: &str, text: &str) -> String {
    let (number, column) = finding.span.position(text);
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let margin = " ".repeat(number.to_string().len());
    let mut out = String::new();
    if !line.trim().is_empty() {
        out.push_str(&format!("{margin}--> {part}:{number}:{column}\n"));
        out.push_str(&caret(number, line, column, finding.span.of(text)));
    }
    if let Some(help) = &finding.help {
        out.push_str(&format!("{margin} = help: {help}\n"));
    }
    out
}

/// Whether the finding is about something else that the item uses, and not about the item itself.
#[must_use]
pub fn is_of_dependency(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownMacro
            | Code::BrokenMacro
            | Code::MacroOfOtherSource
            | Code::MacroLoop
            | Code::ListLoop
            | Code::BrokenList
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Span;

    fn finding(start: usize, end: usize) -> Diagnostic {
        Diagnostic::invalid(Code::UnknownField, Span::new(start, end), "there is no field `proc.nam`")
            .suggest(Some("proc.name"))
    }

    #[test]
    fn places_are_told_as_far_as_they_help() {
        let text = "evt.num > 0 and proc.nam = x\n";
        assert_eq!(
            sentence(&finding(16, 24), text),
            "condition, column 17: there is no field `proc.nam` (did you mean `proc.name`?)"
        );
        assert!(sentence(&finding(2, 3), "a\nb = c\nd").starts_with("condition, line 2, column 1: "));
        assert!(sentence(&finding(0, 28), text).starts_with("condition: there is"));
        assert!(sentence(&finding(0, 0).within(Part::Whole), "").starts_with("there is no field"));
        let many = vec![finding(0, 1); 7];
        let all = paragraph(&many.iter().collect::<Vec<_>>(), |_| text);
        assert_eq!(all.matches("there is no field").count(), 5);
        assert!(all.ends_with(". and 2 more"));
    }

    #[test]
    fn excerpts_point_at_what_is_meant() {
        assert_eq!(
            excerpt(&finding(16, 24), "spec.condition", "evt.num > 0 and proc.nam = x\n"),
            " --> spec.condition:1:17\n  |\n1 | evt.num > 0 and proc.nam = x\n  |                 ^^^^^^^^\n  \
             = help: did you mean `proc.name`?\n"
        );
        let long = format!("{}BAD{}", "x".repeat(300), "y".repeat(300));
        let shown = excerpt(&finding(300, 303), "x", &long);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find("BAD"), lines[3].find("^^^"), "{shown}");
        for (start, end) in [(0, 0), (603, 603), (0, 603), (900, 999)] {
            let shown = excerpt(&finding(start, end), "x", &long);
            assert!(shown.contains('^') && shown.lines().all(|line| line.len() < 140), "{shown}");
        }
        assert!(!excerpt(&finding(0, 0), "x", "").contains('^'));
    }
}
