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
const WIDTH: usize = 100;

/// One finding over several lines: the sentence, the line with carets under what is meant, what to do.
#[must_use]
pub fn excerpt(finding: &Diagnostic, text: &str) -> String {
    let mut out = format!("{}: {}\n", finding.part, finding.message);
    let (line, column) = finding.span.position(text);
    let chars: Vec<char> = text.lines().nth(line - 1).unwrap_or_default().chars().collect();
    if finding.part != Part::Whole && !chars.is_empty() {
        let start = (column - 1).min(chars.len());
        let meant = finding.span.of(text).lines().next().unwrap_or_default().trim_end().chars().count().max(1);
        let from = start.saturating_sub(WIDTH / 2);
        let shown: String =
            chars.iter().skip(from).take(WIDTH).map(|c| if c.is_control() { ' ' } else { *c }).collect();
        let dots = if from > 0 { "..." } else { "" };
        let carets = "^".repeat(meant.min((from + WIDTH).saturating_sub(start).max(1)));
        out.push_str(&format!("  {dots}{}\n  {}{carets}\n", shown.trim_end(), " ".repeat(dots.len() + start - from)));
    }
    if let Some(help) = &finding.help {
        out.push_str(&format!("  help: {help}\n"));
    }
    out
}

/// Whether the finding is about something else that the item uses, and not about the item itself.
pub(super) fn is_of_dependency(code: Code) -> bool {
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
            excerpt(&finding(16, 24), "evt.num > 0 and proc.nam = x\n"),
            "condition: there is no field `proc.nam`\n  evt.num > 0 and proc.nam = x\n                  ^^^^^^^^\n  \
             help: did you mean `proc.name`?\n"
        );
        let long = format!("{}BAD{}", "x".repeat(300), "y".repeat(300));
        let shown = excerpt(&finding(300, 303), &long);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].find("BAD"), lines[2].find("^^^"), "{shown}");
        for (start, end) in [(0, 0), (603, 603), (0, 603), (900, 999)] {
            assert!(excerpt(&finding(start, end), &long).lines().all(|line| line.len() < 120));
        }
        assert!(!excerpt(&finding(0, 0), "").contains('^'));
    }
}
