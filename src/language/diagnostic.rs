//! What there is to say about a rule: errors and warnings as values.

use std::fmt;

/// A range of bytes of the text that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// From the first byte to the one after the last.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The part of the text, or nothing where the span is another text's.
    #[must_use]
    pub fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// From the start of this one to the end of the other.
    #[must_use]
    pub const fn to(self, end: Self) -> Self {
        Self { start: self.start, end: end.end }
    }

    /// Line and column of its start, both from 1; columns count characters.
    #[must_use]
    pub fn position(self, text: &str) -> (usize, usize) {
        let start = (0..=(self.start as usize).min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let before = text.get(..start.unwrap_or(0)).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The item works, though perhaps not as meant.
    Warning,
    /// The item is not taken.
    Error,
}

/// Whose objection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Falco refuses it.
    Invalid,
    /// Falco takes it, and then crashes, hangs, or does something else than what is written.
    Unsafe,
    /// Falco takes it, the administrator does not.
    Policy,
    /// It could be better.
    Style,
}

impl Class {
    /// The word for it in reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unsafe => "unsafe",
            Self::Policy => "policy",
            Self::Style => "style",
        }
    }
}

/// Which part of an item a span is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Its name.
    Name,
    /// Its condition.
    #[default]
    Condition,
    /// What it is for.
    Desc,
    /// Its output.
    Output,
    /// Its source.
    Source,
    /// Its priority.
    Priority,
    /// Its tags, or the one of this index.
    Tag(u32),
    /// The value of this index of a list.
    Entry(u32),
    /// The exception of this index.
    Exception(u32),
    /// The item as a whole.
    Whole,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("name"),
            Self::Condition => f.write_str("condition"),
            Self::Desc => f.write_str("desc"),
            Self::Output => f.write_str("output"),
            Self::Source => f.write_str("source"),
            Self::Priority => f.write_str("priority"),
            Self::Tag(index) => write!(f, "tags[{index}]"),
            Self::Entry(index) => write!(f, "items[{index}]"),
            Self::Exception(index) => write!(f, "exceptions[{index}]"),
            Self::Whole => f.write_str("item"),
        }
    }
}

/// Declares the codes: the name in the program and the stable word in reports.
macro_rules! codes {
    ($( $(#[$meta:meta])* $name:ident = $word:literal, )*) => {
        /// What kind of finding it is. The words are stable; Falco's own warnings have Falco's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $( $(#[$meta])* $name, )* }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The stable word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $( Self::$name => $word, )* }
            }
        }
    };
}

codes! {
    /// The text is not in the language.
    Syntax = "syntax",
    /// No such field.
    UnknownField = "unknown-field",
    /// The field exists, but not for rules of this source.
    FieldOfOtherSource = "field-of-other-source",
    /// The field lacks its argument, takes none, or takes another.
    FieldArgument = "field-argument",
    /// The field's type does not take the operator.
    OperatorType = "operator-type",
    /// The value is not one of the field's type.
    ValueType = "value-type",
    /// The value is longer than an engine compares.
    ValueTooLong = "value-too-long",
    /// No such event type.
    UnknownEventType = "unknown-event-type",
    /// No such transformer, or not with these arguments.
    Transformer = "transformer",
    /// The field on the right can't be compared with what is on the left.
    RightHandField = "right-hand-field",
    /// Not a regular expression as the engine reads them.
    Regex = "regex",
    /// No such macro.
    UnknownMacro = "unknown-macro",
    /// The macro was found to be in error.
    BrokenMacro = "broken-macro",
    /// The macro can't be used by rules of this source.
    MacroOfOtherSource = "macro-of-other-source",
    /// The macro stands for itself.
    MacroLoop = "macro-loop",
    /// A list stands for itself.
    ListLoop = "list-loop",
    /// A list without parentheses around its name.
    ListWithoutParentheses = "list-without-parentheses",
    /// The list was found to be in error.
    BrokenList = "broken-list",
    /// An item of a list that Falco does not read as itself.
    ListItem = "list-item",
    /// Two items of one name.
    DuplicateName = "duplicate-name",
    /// The name can't be used.
    InvalidName = "invalid-name",
    /// An exception is not put together as it must be.
    Exception = "exception",
    /// The output's format is wrong.
    OutputFormat = "output-format",
    /// A field of the output is almost one, and would be printed as another.
    OutputField = "output-field",
    /// The output pads to more columns than the limit.
    OutputWidth = "output-width",
    /// The rules file is not put together as it must be.
    Structure = "structure",
    /// Nested deeper than the limit.
    Nesting = "nesting",
    /// Larger than the limit once expanded.
    Expansion = "expansion",
    /// Longer than the limit.
    TooLong = "too-long",
    /// A character that must not be there.
    ControlCharacter = "control-character",
    /// The engine ends when an event reaches the check.
    CrashesEngine = "crashes-engine",
    /// The check never holds, or tests something else than is written.
    NeverMatches = "never-matches",
    /// A port by the name of a service.
    PortName = "port-name",
    /// A port that is none.
    PortRange = "port-range",
    /// A word that Falco would paste a base list over.
    PastedOver = "pasted-over",
    /// Something that only a whole installation may decide.
    NotForItems = "not-for-items",

    /// Falco: the source is not known, and the rule never runs.
    UnknownSource = "LOAD_UNKNOWN_SOURCE",
    /// Falco: the rule looks at every event.
    NoEventType = "LOAD_NO_EVTTYPE",
    /// Falco: a constant that looks like something else.
    Suspicious = "LOAD_COMPILE_CONDITION",
    /// Falco: an item that will be removed.
    Deprecated = "LOAD_DEPRECATED_ITEM",
    /// Falco: compared with `<NA>`.
    UnsafeNaCheck = "LOAD_UNSAFE_NA_CHECK",
    /// Falco: a rule was left out for a field that does not exist.
    UnknownFilter = "LOAD_UNKNOWN_FILTER",
    /// Falco: no rule uses the macro.
    UnusedMacro = "LOAD_UNUSED_MACRO",
    /// Falco: no condition uses the list.
    UnusedList = "LOAD_UNUSED_LIST",
    /// Falco: an item of no known kind.
    UnknownItem = "LOAD_UNKNOWN_ITEM",
    /// Falco: a key of no known meaning.
    UnknownKey = "LOAD_UNKNOWN_KEY",
    /// Falco: an append without values.
    AppendNoValues = "LOAD_APPEND_NO_VALUES",
    /// Falco: two exceptions of one name.
    ExceptionNameNotUnique = "LOAD_EXCEPTION_NAME_NOT_UNIQUE",
    /// Falco: the name of a macro that can't be referred to.
    InvalidMacroName = "LOAD_INVALID_MACRO_NAME",
    /// Falco: the name of a list that can't be referred to.
    InvalidListName = "LOAD_INVALID_LIST_NAME",
    /// An event that Falco does not produce unless it is configured to.
    IgnoredEvent = "ignored-event",
    /// The check costs much for each event.
    Costly = "costly",
    /// The name of a list, used where it is only a text.
    ListAsText = "list-as-text",

    /// Policy: rules of the namespace may not look at this source.
    DeniedSource = "denied-source",
    /// Policy: rules of the namespace may not have this priority.
    DeniedPriority = "denied-priority",
    /// Policy: rules of the namespace may not use this field.
    DeniedField = "denied-field",
    /// Policy: rules must say which types of events they look at.
    NeedsEventType = "needs-event-type",
    /// Policy: rules of this source can't be confined to their namespace.
    NotConfinable = "not-confinable",
    /// Policy: the namespace has used up what it may have.
    Quota = "quota",
    /// Another rule has the name.
    NameTaken = "name-taken",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which text the span is in.
    pub part: Part,
    /// Where in that text.
    pub span: Span,
    /// Whether the item is taken all the same.
    pub severity: Severity,
    /// Whose objection it is.
    pub class: Class,
    /// What kind of finding it is.
    pub code: Code,
    /// What is wrong, in a sentence without a period.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// What was probably meant, to be put in the place of the span.
    pub suggestion: Option<String>,
}

impl Diagnostic {
    fn new(severity: Severity, class: Class, code: Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            part: Part::Condition,
            span,
            severity,
            class,
            code,
            message: message.into(),
            help: None,
            suggestion: None,
        }
    }

    /// Falco refuses it.
    #[must_use]
    pub fn invalid(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Class::Invalid, code, span, message)
    }

    /// Falco takes it and must not.
    #[must_use]
    pub fn unsafe_(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Class::Unsafe, code, span, message)
    }

    /// The administrator does not take it.
    #[must_use]
    pub fn policy(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Class::Policy, code, span, message)
    }

    /// Worth a word.
    #[must_use]
    pub fn warning(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Class::Style, code, span, message)
    }

    /// With what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With what to do about it, unless that has been said.
    #[must_use]
    pub(crate) fn help_if_none(self, help: &str) -> Self {
        if self.help.is_some() { self } else { self.help(help) }
    }

    /// With what was probably meant, if anything was.
    #[must_use]
    pub fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        if let Some(suggestion) = suggestion.map(Into::into) {
            if self.help.is_none() {
                self.help = Some(format!("did you mean `{suggestion}`?"));
            }
            self.suggestion = Some(suggestion);
        }
        self
    }

    /// In another part than the condition.
    #[must_use]
    pub fn within(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    /// Whether the item is not taken for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The nearest of the words, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are no typos of anything; and the time stays bounded whatever was written.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let allowed = (word.len() / 3).clamp(1, 3);
    words
        .filter(|other| other.len().abs_diff(word.len()) <= allowed)
        .map(|other| (distance(word.as_bytes(), other.as_bytes(), allowed), other))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, other)| (*distance, other.len().abs_diff(word.len())))
        .map(|(_, other)| other)
}

/// Changes, insertions, removals and swaps of neighbours that lead from one to the other, ignoring case; anything above
/// the limit where there are more.
fn distance(a: &[u8], b: &[u8], limit: usize) -> usize {
    let mut before: Vec<usize> = vec![];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let same = x.eq_ignore_ascii_case(y);
            let mut best = (last[j] + usize::from(!same)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x.eq_ignore_ascii_case(&b[j - 1]) && a[i - 1].eq_ignore_ascii_case(y) {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        if row.iter().min().is_some_and(|least| *least > limit) {
            return limit + 1;
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_the_one_meant() {
        let words = ["proc.name", "proc.pname", "proc.pid", "fd.name"];
        assert_eq!(nearest("proc.nmae", words.into_iter()), Some("proc.name"));
        assert_eq!(nearest("PROC.NAME", words.into_iter()), Some("proc.name"));
        assert_eq!(nearest("proc.names", words.into_iter()), Some("proc.name"));
        assert_eq!(nearest("evt.buffer", words.into_iter()), None);
        assert_eq!(nearest("", words.into_iter()), None);
    }

    #[test]
    fn positions_count_lines_and_characters() {
        let text = "a = é\n  ü = b";
        let at = text.find('b').unwrap_or_default();
        assert_eq!(Span::new(at, at + 1).position(text), (2, 7));
        assert_eq!(Span::new(0, 0).position(""), (1, 1));
        assert_eq!(Span::new(99, 100).position("ab"), (1, 3));
    }

    #[test]
    fn codes_are_distinct() {
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
