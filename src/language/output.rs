//! The formats of outputs: text with `%field` in it.
//!
//! Falco takes behind a `%` as much as compiles, so that a typo after a valid beginning passes as text. Here the whole
//! word must be a field.

use super::catalog::Catalog;
use super::diagnostic::{Code, Diagnostic, Part, Span};
use super::fields::Need;
use super::limits;
use super::parse::Parser;
use super::resolve::{NO_LONGER, Resolver};
use super::scan::Scanner;
use super::tree::Operand;

/// A field of an output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputField<'a> {
    /// The field, or what a transformer makes of it.
    pub operand: Operand<'a>,
    /// The columns that it is padded or cut to.
    pub width: Option<u64>,
    /// Where it stands, from the `%` on.
    pub span: Span,
}

/// The fields of an output for rules of a source, as far as it is one.
#[must_use]
pub fn output_fields<'a>(text: &'a str, source: &'a str, catalog: &'a Catalog) -> Vec<OutputField<'a>> {
    let (mut report, mut fields) = (vec![], vec![]);
    let resolver = Resolver { catalog, source };
    Output { text, resolver, report: &mut report, count: 0, fields: Some(&mut fields) }.read();
    fields
}

/// Checks an output for rules of a source.
pub(crate) fn check(text: &str, source: &str, catalog: &Catalog, report: &mut Vec<Diagnostic>) {
    let start = report.len();
    Output { text, resolver: Resolver { catalog, source }, report, count: 0, fields: None }.read();
    for diagnostic in report.iter_mut().skip(start) {
        diagnostic.part = Part::Output;
        if diagnostic.code == Code::Deprecated && diagnostic.help.is_some() {
            diagnostic.help = Some(NO_LONGER.to_owned());
        }
    }
}

/// Whether a text is printable ASCII, as nearly all are. Without a way out in between, many bytes are looked at in one step.
pub(crate) fn is_printable_ascii(text: &str) -> bool {
    text.bytes().fold(true, |all, byte| all & (b' '..=b'~').contains(&byte))
}

/// The first control character of a text.
pub(crate) fn control(text: &str) -> Option<(usize, char)> {
    if is_printable_ascii(text) { None } else { text.char_indices().find(|(_, c)| c.is_control()) }
}

/// Whether what follows a field makes it another word. A dot may end a sentence.
fn runs_on(behind: &str) -> bool {
    let next = behind.bytes().find(|byte| *byte != b'.');
    next.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

struct Output<'a, 'r> {
    text: &'a str,
    resolver: Resolver<'a>,
    report: &'r mut Vec<Diagnostic>,
    /// How many fields were read.
    count: usize,
    /// Where to put them, if somebody wants them.
    fields: Option<&'r mut Vec<OutputField<'a>>>,
}

impl<'a> Output<'a, '_> {
    fn read(&mut self) {
        let whole = Span::new(0, self.text.len());
        if self.text.trim().is_empty() {
            self.report.push(Diagnostic::invalid(Code::OutputFormat, whole, "the output is empty"));
            return;
        }
        if self.text.len() > limits::OUTPUT_BYTES {
            let message =
                format!("the output is {} bytes long; the limit is {}", self.text.len(), limits::OUTPUT_BYTES);
            self.report.push(Diagnostic::unsafe_(Code::TooLong, whole, message));
            return;
        }
        let body = self.text.trim_end_matches('\n');
        if let Some((at, c)) = control(body) {
            let message = format!("the output holds the control character {}", c.escape_default());
            self.report.push(
                Diagnostic::unsafe_(Code::ControlCharacter, Span::new(at, at + c.len_utf8()), message)
                    .help("Falco prints it as it is, and so one alert can look like two"),
            );
        }
        let mut at = 0;
        // Fields follow each other so closely that a search in larger steps takes longer.
        let text = self.text;
        let next = |at: usize| text.as_bytes().get(at..)?.iter().position(|byte| *byte == b'%');
        while let Some(percent) = next(at) {
            at = self.field(at + percent);
        }
        if self.count > limits::OUTPUT_FIELDS {
            let message = format!("the output has {} fields; the limit is {}", self.count, limits::OUTPUT_FIELDS);
            self.report.push(Diagnostic::unsafe_(Code::TooLong, whole, message));
        }
    }

    /// Reads the field behind a `%`. Says where to go on.
    fn field(&mut self, percent: usize) -> usize {
        if let Some(end) = self.plain(percent + 1) {
            self.count += 1;
            return end;
        }
        let after = self.text.get(percent + 1..).unwrap_or_default();
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let start = percent + 1 + digits;
        let sign = Span::new(percent, start);
        let rest = self.text.get(start..).unwrap_or_default();
        if rest.bytes().all(|byte| byte == b'\n') {
            let message = if digits == 0 { "a field must follow `%`" } else { "a field must follow the width" };
            self.report.push(Diagnostic::invalid(Code::OutputFormat, sign, message).help(PERCENT));
            return self.text.len();
        }
        // Falco puts nothing in its place, with a warning.
        if let Some(behind) = rest.strip_prefix("container.info") {
            let span = Span::new(percent, start + "container.info".len());
            self.report.push(if self.text.trim() == "%container.info" {
                Diagnostic::invalid(
                    Code::OutputFormat,
                    span,
                    "there is nothing but `%container.info`, which is nothing",
                )
            } else {
                Diagnostic::warning(Code::Deprecated, span, "`%container.info` is deprecated and prints nothing")
            });
            return self.text.len() - behind.len();
        }
        let width = (digits > 0).then(|| after.get(..digits).unwrap_or_default().parse().unwrap_or(u64::MAX));
        if let Some(width) = width.filter(|width| *width > limits::OUTPUT_WIDTH) {
            let shown = if width == u64::MAX { "more than can be counted".to_owned() } else { width.to_string() };
            let message = format!("the field is padded to {shown} columns; the limit is {}", limits::OUTPUT_WIDTH);
            self.report.push(Diagnostic::unsafe_(Code::OutputWidth, sign, message));
        }
        match Parser::operand_at(self.text, start) {
            Ok(Some((operand, end))) => self.operand(operand, width, percent, start, end),
            Ok(None) => {
                self.no_field(percent, start, rest);
                start
            }
            Err(mut error) => {
                // What can't be read as an argument is text to Falco if the field goes without.
                if let Some(field) = self.longest(start) {
                    self.passes_as(field, percent, start);
                } else {
                    error.code = Code::OutputFormat;
                    self.report.push(*error);
                }
                start
            }
        }
    }

    fn operand(&mut self, operand: Operand<'a>, width: Option<u64>, percent: usize, start: usize, end: usize) -> usize {
        let mut found = vec![];
        if self.resolver.operand(&operand, &mut found).is_none() {
            match self.longest(start) {
                Some(field) if matches!(operand, Operand::Field(_)) => self.passes_as(field, percent, start),
                _ => self.report.append(&mut found),
            }
            return end;
        }
        self.report.append(&mut found);
        let behind = self.text.get(end..).unwrap_or_default();
        if matches!(operand, Operand::Field(_))
            && runs_on(behind)
            && !self.text.get(..end).is_some_and(|text| text.ends_with(']'))
        {
            self.passes_as(end, percent, start);
            return end;
        }
        self.count += 1;
        if let Some(fields) = &mut self.fields {
            fields.push(OutputField { operand, width, span: Span::new(percent, end) });
        }
        end
    }

    /// Where a field ends of which there is nothing to say, as nearly all are; `None` where it is to be looked at.
    fn plain(&self, start: usize) -> Option<usize> {
        if self.fields.is_some() {
            return None;
        }
        let mut scan = Scanner::starting_at(self.text, start);
        let name = scan.field()?;
        match scan.peek() {
            Some(b'[') => return None,
            Some(b'.') if runs_on(scan.rest()) => return None,
            _ => {}
        }
        let info = self.resolver.catalog.field(name)?;
        let good = info.argument.need != Need::Required && !info.deprecated && info.serves(self.resolver.source);
        (good && !name.starts_with("container.info")).then(|| scan.at())
    }

    /// Where the longest field ends that Falco would find there.
    fn longest(&self, start: usize) -> Option<usize> {
        let mut scan = Scanner::starting_at(self.text, start);
        let mut ends: Vec<usize> = vec![];
        scan.field()?;
        // Names of fields are far shorter.
        let run = scan.at().min(start + 128);
        ends.extend((start + 1..=run).rev().filter(|end| self.text.is_char_boundary(*end)));
        ends.into_iter().find(|end| {
            let word = self.text.get(start..*end).unwrap_or_default();
            matches!(Parser::whole_operand(word), Some(Operand::Field(field)) if self.resolver.field(&field).is_ok())
        })
    }

    /// A typo that Falco does not see.
    fn passes_as(&mut self, end: usize, percent: usize, start: usize) {
        let field = self.text.get(start..end).unwrap_or_default();
        let rest = self.text.get(start..).unwrap_or_default();
        let length = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'[' | b']'))
            .count()
            .max(end - start);
        let word = rest.get(..length).unwrap_or(field).trim_end_matches('.');
        let text = word.strip_prefix(field).unwrap_or_default();
        let span = Span::new(percent, start + word.len());
        let message =
            format!("there is no field `{word}`; Falco would print `{field}` with the text `{text}` behind it");
        let nearest = self.resolver.catalog.nearest_field(word, self.resolver.source).filter(|near| *near != field);
        self.report.push(
            Diagnostic::unsafe_(Code::OutputField, span, message)
                .suggest(nearest.map(|nearest| format!("%{nearest}")))
                .help_if_none("put a blank behind the field, or correct its name"),
        );
    }

    fn no_field(&mut self, percent: usize, start: usize, rest: &'a str) {
        let length =
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')).count();
        let word = rest.get(..length).unwrap_or_default();
        let end = start + length.max(rest.chars().next().map_or(0, char::len_utf8));
        let span = Span::new(percent, end);
        let invalid = |message: String| Diagnostic::invalid(Code::OutputFormat, span, message);
        let diagnostic = match rest.chars().next() {
            Some('(' | '{') => invalid("a field is written without parentheses".into()).help("such as `%proc.name`"),
            _ if rest.starts_with("val(") => {
                invalid("`val` is not for outputs".into()).help("write the field: `%proc.name`")
            }
            _ if !word.is_empty() => invalid(format!("there is no field `{word}`"))
                .suggest(self.resolver.catalog.nearest_field(word, self.resolver.source).map(|near| format!("%{near}")))
                .help_if_none(PERCENT),
            _ => invalid("a field must follow `%`".into()).help(PERCENT),
        };
        self.report.push(diagnostic);
    }
}

const PERCENT: &str = "a percent sign always begins a field and can't be printed itself: write `percent`";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is found by looking at each field, and by passing over those of which there is nothing to say.
    fn both(text: &str) -> [(usize, Vec<Diagnostic>); 2] {
        let catalog = Catalog::falco();
        let resolver = Resolver { catalog, source: "syscall" };
        [true, false].map(|collect| {
            let (mut report, mut found) = (vec![], vec![]);
            let fields = collect.then_some(&mut found);
            let mut output = Output { text, resolver, report: &mut report, count: 0, fields };
            output.read();
            (output.count, report)
        })
    }

    #[test]
    fn fields_of_which_there_is_nothing_to_say_are_counted_all_the_same() {
        let [looked, passed] = both("%proc.name. %20user.name(%proc.aname[2]) %evt.arg.flags %evt.dir %proc.name.x");
        assert_eq!((looked.0, &looked), (5, &passed));
        assert_eq!(looked.1.len(), 2, "{:?}", looked.1);
    }

    proptest! {
        #[test]
        fn nothing_is_passed_over_of_which_there_is_something_to_say(
            words in proptest::collection::vec(
                prop_oneof![
                    Just("%"), Just("%proc.name"), Just("proc.aname"), Just("%proc.aname"), Just("%evt.arg"), Just("%evt.dir"),
                    Just("%ka.verb"), Just("%container.info"), Just("["), Just("2]"), Just("."), Just(".."), Just("x"),
                    Just("_"), Just(" "), Just("("), Just("é"), Just("12"), Just("tolower("), Just("\n"), Just("%proc.env"),
                ],
                0..12,
            ),
        ) {
            let [looked, passed] = both(&words.concat());
            prop_assert_eq!(looked, passed);
        }
    }
}
