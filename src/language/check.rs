//! The checker: whether Falco takes a condition, and whether it should be given to it.

use super::catalog::{Catalog, SYSCALL};
use super::definitions::Definitions;
use super::diagnostic::{Code, Diagnostic, Span, nearest};
use super::events::EventTypes;
use super::fields::{KNOWN, Kind};
use super::limits;
use super::parse::Parser;
use super::regex;
use super::resolve::{Resolver, Type};
use super::tree::{Check, Expr, Op, Operand, Rhs, Value, ValueKind, ValueList, Word};
use super::values::{self, ValueError};

/// Checks a condition of a rule of a source.
pub(crate) fn condition(
    tree: &Expr<'_>,
    source: &str,
    definitions: &Definitions<'_>,
    catalog: &Catalog,
    report: &mut Vec<Diagnostic>,
) {
    let checker = Checker { resolver: Resolver { catalog, source }, definitions: Some(definitions) };
    checker.walk(tree, report);
}

/// Checks a condition of a rule of a source, its macros aside.
pub(crate) fn alone(tree: &Expr<'_>, source: &str, catalog: &Catalog, report: &mut Vec<Diagnostic>) {
    Checker { resolver: Resolver { catalog, source }, definitions: None }.walk(tree, report);
}

/// The first thing for which Falco would not take a tree, macros aside.
pub(crate) fn first_error(tree: &Expr<'_>, source: &str, catalog: &Catalog) -> Option<String> {
    let mut report = vec![];
    alone(tree, source, catalog, &mut report);
    report
        .into_iter()
        .find(|diagnostic| diagnostic.class == super::diagnostic::Class::Invalid && diagnostic.is_error())
        .map(|diagnostic| diagnostic.message)
}

struct Checker<'a> {
    resolver: Resolver<'a>,
    /// `None` where macros are looked after by somebody else.
    definitions: Option<&'a Definitions<'a>>,
}

/// Fields that compare for themselves, and know nothing of modifiers.
fn ignores_modifiers(field: &str, has_argument: bool, kind: Kind) -> bool {
    match field {
        "fd.ip" | "fd.port" | "fd.net" | "fd.cnet" | "fd.snet" | "fd.lnet" | "fd.rnet" | "fd.cip.name"
        | "fd.sip.name" | "fd.lip.name" | "fd.rip.name" => true,
        "proc.apid" | "proc.aname" | "proc.aexe" | "proc.aexepath" | "proc.acmdline" | "proc.aenv" => !has_argument,
        _ => field.starts_with("evt.rawarg.") && matches!(kind, Kind::Number | Kind::Port),
    }
}

/// Whether so many errors were found that nobody reads more. Of warnings only the first ones are kept: they keep no error
/// from being found.
// Inlined: nearly all reports are short.
#[inline]
fn is_enough(report: &mut Vec<Diagnostic>) -> bool {
    report.len() >= 2 * limits::FINDINGS && has_enough_errors(report)
}

fn has_enough_errors(report: &mut Vec<Diagnostic>) -> bool {
    let errors = report.iter().filter(|finding| finding.is_error()).count();
    let mut warnings = 0;
    report.retain(|finding| {
        warnings += usize::from(!finding.is_error());
        finding.is_error() || warnings <= limits::FINDINGS
    });
    errors >= limits::FINDINGS
}

impl Checker<'_> {
    fn walk(&self, expr: &Expr<'_>, report: &mut Vec<Diagnostic>) {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| self.walk(part, report)),
            Expr::Not(inner) => self.walk(inner, report),
            Expr::Check(_) | Expr::Macro(_) if is_enough(report) => {}
            Expr::Check(check) => self.check(check, report),
            Expr::Macro(word) => {
                if let Some(definitions) = self.definitions {
                    self.macro_(word, definitions, report);
                }
            }
        }
    }

    fn macro_(&self, word: &Word<'_>, definitions: &Definitions<'_>, report: &mut Vec<Diagnostic>) {
        let Resolver { catalog, source } = self.resolver;
        let name = &*word.text;
        if let Some(own) = definitions.macro_(name) {
            match own.error(source) {
                None => {}
                Some(error) => report.push(
                    Diagnostic::invalid(Code::BrokenMacro, word.span, format!("macro `{name}` is not valid: {error}"))
                        .help("correct the macro"),
                ),
            }
        } else if let Some(base) = catalog.base_macro(name) {
            if let Some(error) = base.error(source) {
                let message = format!("macro `{name}` can't be used by rules of source {source}: {error}");
                report.push(Diagnostic::invalid(Code::MacroOfOtherSource, word.span, message));
            }
        } else {
            report.push(self.unknown_macro(word, definitions));
        }
    }

    fn unknown_macro(&self, word: &Word<'_>, definitions: &Definitions<'_>) -> Diagnostic {
        let name = &*word.text;
        let diagnostic = Diagnostic::invalid(Code::UnknownMacro, word.span, format!("there is no macro `{name}`"));
        let catalog = self.resolver.catalog;
        if catalog.has_list(name) || definitions.has_list(name) {
            return diagnostic.help(format!("`{name}` is a list: write `field in ({name})`"));
        }
        if matches!(name, "and" | "or" | "not") {
            return diagnostic.help(format!("a check must stand before and behind `{name}`"));
        }
        let names = definitions.macros().chain(catalog.macros());
        match nearest(name, names) {
            Some(near) => diagnostic.suggest(Some(near)),
            None => diagnostic.help(
                "a word alone is the name of a macro; a check is a field, an operator and a value: `proc.name = bash`",
            ),
        }
    }

    fn check(&self, check: &Check<'_>, report: &mut Vec<Diagnostic>) {
        let left = self.resolver.operand(&check.operand, report);
        if let Rhs::Operand(right) = &check.rhs {
            let right_type = self.resolver.operand(right, report);
            if let Some(left) = &left
                && Self::operator(check, left, report)
                && let Some(right_type) = right_type
            {
                Self::right_hand(check, left, right, &right_type, report);
            }
            return;
        }
        let Some(left) = left else { return };
        if !Self::operator(check, &left, report) {
            return;
        }
        Self::hazards(check, &left, report);
        match &check.rhs {
            Rhs::Value(value) => self.value(check, &left, value, value.span, report),
            Rhs::List(list) => self.list(check, &left, list, report),
            Rhs::Nothing | Rhs::Operand(_) => {}
        }
    }

    /// Whether the type takes the operator.
    fn operator(check: &Check<'_>, left: &Type<'_>, report: &mut Vec<Diagnostic>) -> bool {
        if left.kind.takes(check.op, left.list) {
            return true;
        }
        let (what, op) = (check.operand.span(), check.op.word());
        let name = match &check.operand {
            Operand::Field(field) => format!("`{}`", field.name),
            Operand::Transform(transform) => format!("what `{}` makes", transform.transformer.word()),
        };
        let (is, takes) = if left.list {
            ("a list".to_owned(), "`in`, `intersects` and `exists`")
        } else {
            let takes = match left.kind {
                Kind::Number | Kind::Port => "`=`, `!=`, `<`, `<=`, `>`, `>=`, `in` and `exists`",
                Kind::Bytes => {
                    "`=`, `!=`, `contains`, `startswith`, `endswith`, `bcontains`, `bstartswith`, `in`, `exists`"
                }
                Kind::Bool | Kind::Address | Kind::Network => "`=`, `!=`, `in` and `exists`",
                Kind::Text => "all but `bcontains` and `bstartswith`",
                Kind::Opaque | Kind::Other => "only `exists`",
            };
            (left.kind.word().to_owned(), takes)
        };
        let span = if check.op_span == Span::default() { what } else { check.op_span };
        report.push(
            Diagnostic::invalid(Code::OperatorType, span, format!("{name} is {is}, which does not take `{op}`"))
                .help(format!("it takes {takes}")),
        );
        false
    }

    /// Whether both sides can be compared.
    fn right_hand(
        check: &Check<'_>,
        left: &Type<'_>,
        right: &Operand<'_>,
        right_type: &Type<'_>,
        report: &mut Vec<Diagnostic>,
    ) {
        let span = right.span();
        let mut wrong = |message: String| report.push(Diagnostic::invalid(Code::RightHandField, span, message));
        let by_type = |operand: &Operand<'_>| {
            let mut found = false;
            operand.each_field(&mut |field| found |= matches!(&*field.name, "evt.type" | "syscall.type"));
            found
        };
        if by_type(&check.operand) || by_type(right) {
            let message = "the type of an event can't be compared with a field";
            report.push(
                Diagnostic::unsafe_(Code::CrashesEngine, span, message).help("Falco ends when it reads this condition"),
            );
        } else if matches!(check.op, Op::Pmatch | Op::Regex) {
            wrong(format!("`{}` can't compare with another field", check.op.word()));
        } else if left.kind == Kind::Network || right_type.kind == Kind::Network {
            wrong("IP networks can't be compared with other fields".into());
        } else if !left.right_hand || !right_type.right_hand {
            let (side, operand) =
                if left.right_hand { ("on the right", right) } else { ("on the left", &check.operand) };
            let name = match operand {
                Operand::Field(field) => &*field.name,
                Operand::Transform(transform) => transform.transformer.word(),
            };
            wrong(format!("`{name}` {side} can't be compared with another field"));
        } else if left.name != right_type.name || left.list != right_type.list {
            let shown = |of: &Type<'_>| format!("{}{}", if of.list { "list of " } else { "" }, of.name);
            wrong(format!("the left side is of type {}, the right side of type {}", shown(left), shown(right_type)));
        }
    }

    fn list(&self, check: &Check<'_>, left: &Type<'_>, list: &ValueList<'_>, report: &mut Vec<Diagnostic>) {
        let catalog = self.resolver.catalog;
        let mut entries = 0;
        for value in &list.values {
            if is_enough(report) {
                return;
            }
            let named = (value.kind != ValueKind::Quoted).then_some(&*value.text);
            let own = named.and_then(|name| self.definitions.and_then(|definitions| definitions.list(name)));
            let base = named.filter(|_| own.is_none()).and_then(|name| catalog.base_list(name));
            if own.is_none() && base.is_none() {
                entries += 1;
                self.value(check, left, value, value.span, report);
                continue;
            }
            let name = &*value.text;
            if !list.parentheses {
                let op = check.modifier.map_or(check.op.word(), super::tree::Modifier::word);
                let message = format!("the name of list `{name}` needs parentheses");
                report.push(
                    Diagnostic::invalid(Code::ListWithoutParentheses, value.span, message)
                        .help(format!("write `{op} ({name})`"))
                        .suggest(Some(format!("({name})"))),
                );
            }
            let values = match (own, base) {
                (Some(own), _) => own.values.as_deref(),
                (None, Some(base)) => base.values.as_deref(),
                (None, None) => continue,
            };
            let Some(values) = values else {
                let message = format!("list `{name}` is not valid");
                report.push(Diagnostic::invalid(Code::BrokenList, value.span, message).help("correct the list"));
                continue;
            };
            entries += values.len();
            self.values_of(check, left, name, values, value.span, report);
        }
        if entries > limits::LIST_ENTRIES {
            let message = format!("the list comes to {entries} values; the limit is {}", limits::LIST_ENTRIES);
            report.push(Diagnostic::unsafe_(Code::Expansion, list.span, message));
        }
        if let Operand::Field(field) = &check.operand
            && &*field.name == "fd.net"
            && entries > 1
        {
            let message = "`fd.net in` tests only the first network of the list";
            report.push(
                Diagnostic::unsafe_(Code::NeverMatches, list.span, message)
                    .help("use `fd.snet` or `fd.cnet`, or several checks with `or` between them"),
            );
        }
    }

    /// Checks the values of a list for where its name stands; the first that is wrong is reported.
    fn values_of(
        &self,
        check: &Check<'_>,
        left: &Type<'_>,
        name: &str,
        values: &[Value<'_>],
        at: Span,
        report: &mut Vec<Diagnostic>,
    ) {
        let needs_look = left.kind != Kind::Text || check.op == Op::Regex || self.is_event_type(check);
        if !needs_look {
            return;
        }
        let mut found = vec![];
        let base = |value: &Value<'_>| {
            let named = (value.kind == ValueKind::BaseList).then(|| self.resolver.catalog.base_list(&value.text));
            named.flatten().and_then(|list| list.values.as_deref())
        };
        for value in values.iter().flat_map(|value| base(value).unwrap_or(std::slice::from_ref(value))) {
            self.value(check, left, value, at, &mut found);
            if let Some(index) = found.iter().position(Diagnostic::is_error) {
                let mut first = found.swap_remove(index);
                first.message = format!("in list `{name}`: {}", first.message);
                first.suggestion = None;
                report.push(first);
                return;
            }
        }
    }

    fn is_event_type(&self, check: &Check<'_>) -> bool {
        self.resolver.source == SYSCALL
            && matches!(&check.operand, Operand::Field(field) if matches!(&*field.name, "evt.type" | "syscall.type"))
    }

    fn value(&self, check: &Check<'_>, left: &Type<'_>, value: &Value<'_>, at: Span, report: &mut Vec<Diagnostic>) {
        let text = &*value.text;
        let shown = if text.len() > 60 { "the value" } else { text };
        if text.len() > limits::VALUE_BYTES {
            let message = format!("the value is {} bytes long; the limit is {}", text.len(), limits::VALUE_BYTES);
            report.push(Diagnostic::invalid(Code::ValueTooLong, at, message));
            return;
        }
        if self.is_event_type(check) {
            match EventTypes::number(text) {
                None => report.push(
                    Diagnostic::invalid(Code::UnknownEventType, at, format!("there is no event type `{shown}`"))
                        .suggest(nearest(text, EventTypes::names_of_all()))
                        .help_if_none("`evt.type` is compared with whole names, by every operator"),
                ),
                Some(number) if check.op != Op::Ne && KNOWN.ignored.contains(&number) => {
                    let message =
                        format!("Falco produces no `{text}` events unless falco.yaml has `base_syscalls.all`");
                    report.push(Diagnostic::warning(Code::IgnoredEvent, at, message));
                }
                Some(_) => {}
            }
            return;
        }
        match values::check(text, left.kind, check.op) {
            Ok(()) => {}
            Err(ValueError::Invalid(message, help)) => {
                let diagnostic = Diagnostic::invalid(Code::ValueType, at, format!("`{shown}` {message}"));
                report.push(match help {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic,
                });
                return;
            }
            Err(ValueError::PortRange) => {
                report.push(
                    Diagnostic::unsafe_(Code::PortRange, at, format!("`{shown}` is not a port"))
                        .help("ports go from 0 to 65535; Falco would take the remainder"),
                );
                return;
            }
            Err(ValueError::PortName) => {
                let message = format!("port `{shown}` depends on the list of services on the node");
                report.push(Diagnostic::unsafe_(Code::PortName, at, message).help("write its number"));
                return;
            }
        }
        if check.op == Op::Regex {
            if let Err(error) = regex::check(text) {
                let diagnostic = Diagnostic::invalid(Code::Regex, at, format!("invalid regular expression: {error}"));
                report.push(diagnostic.help(
                    "POSIX syntax: `[0-9]` for `\\d`, `[[:space:]]` for `\\s`, no `(?…)`, at most 1000 repetitions",
                ));
                return;
            }
            if regex::is_literal(text) {
                let message = format!("`{shown}` has nothing of a regular expression");
                report
                    .push(Diagnostic::warning(Code::Suspicious, at, message).help("`=` does the same and costs less"));
            }
        }
        self.suspicious(check, value, at, report);
    }

    /// Constants that look as if they were meant to be something else.
    fn suspicious(&self, check: &Check<'_>, value: &Value<'_>, at: Span, report: &mut Vec<Diagnostic>) {
        let text = &*value.text;
        let may_be_one = text.bytes().any(|byte| matches!(byte, b'.' | b'('));
        let operand = may_be_one.then(|| Parser::whole_operand(text)).flatten();
        match operand {
            Some(Operand::Field(field)) if self.resolver.field(&field).is_ok() => {
                let message = format!("`{text}` is compared as a text, though it is the name of a field");
                report.push(
                    Diagnostic::warning(Code::Suspicious, at, message)
                        .help(format!("to compare with the field write `val({text})`")),
                );
            }
            Some(Operand::Transform(_)) => {
                let message = format!("`{text}` is compared as a text, though it looks like a transformer");
                report.push(Diagnostic::warning(Code::Suspicious, at, message).help("leave out the quotes"));
            }
            _ => {}
        }
        if text == "<NA>"
            && let Operand::Field(field) = &check.operand
            && (field.name.starts_with("ka.") || field.name.starts_with("jevt."))
        {
            let message = "comparing with `<NA>` does not tell whether the field is there";
            report.push(Diagnostic::warning(Code::UnsafeNaCheck, at, message).help("use `exists`"));
        }
        if value.kind == ValueKind::Bare
            && matches!(check.rhs, Rhs::Value(_))
            && (self.resolver.catalog.has_list(text) || self.definitions.is_some_and(|own| own.has_list(text)))
        {
            let op = if matches!(check.op, Op::Ne) { "not … in" } else { "in" };
            report.push(
                Diagnostic::warning(
                    Code::ListAsText,
                    at,
                    format!("`{text}` is a text here and not the list of that name"),
                )
                .help(format!("to compare with the list write `{op} ({text})`")),
            );
        }
    }

    /// What Falco accepts and should not.
    fn hazards(check: &Check<'_>, left: &Type<'_>, report: &mut Vec<Diagnostic>) {
        let Operand::Field(field) = &check.operand else { return };
        let name = &*field.name;
        let mut unsafe_ = |code, span, message: String, help: &str| {
            report.push(Diagnostic::unsafe_(code, span, message).help(help));
        };
        let op = check.op;
        match name {
            "fd.ip" | "fd.port" if op == Op::Intersects => unsafe_(
                Code::CrashesEngine,
                check.op_span,
                format!("Falco ends when an event reaches `{name} intersects`"),
                "use `=` with `or`, or the fields of client and server",
            ),
            "fd.ip" if op == Op::In => unsafe_(
                Code::NeverMatches,
                check.op_span,
                "`fd.ip in` never holds".into(),
                "use `fd.sip in` or `fd.cip in`, or `fd.ip =`",
            ),
            "fd.net" if op == Op::Intersects => unsafe_(
                Code::NeverMatches,
                check.op_span,
                "`fd.net intersects` never holds".into(),
                "use `fd.snet in` or `fd.cnet in`",
            ),
            "fd.cip.name" | "fd.sip.name" | "fd.lip.name" | "fd.rip.name"
                if !matches!(op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Exists) =>
            {
                unsafe_(
                    Code::CrashesEngine,
                    check.op_span,
                    format!("Falco ends when an event reaches `{name} {}`", op.word()),
                    "it can be compared with `=`, `!=`, `in` and `exists`",
                );
            }
            _ => {}
        }
        if name.starts_with("evt.rawarg.") {
            if left.ambiguous {
                unsafe_(
                    Code::NeverMatches,
                    field.span,
                    format!("`{name}` is a number in some events and a text in others"),
                    "Falco reads the value as one and compares it as the other; use `evt.arg`",
                );
            } else if matches!(left.kind, Kind::Number | Kind::Port) && matches!(op, Op::In | Op::Intersects) {
                let message = format!("`{name} {}` never holds", op.word());
                unsafe_(Code::NeverMatches, check.op_span, message, "use `=` with `or` between the checks");
            }
        }
        if let Some(modifier) = check.modifier
            && ignores_modifiers(name, field.argument.is_some(), left.kind)
        {
            unsafe_(
                Code::NeverMatches,
                check.op_span,
                format!("`{name}` knows no `{}`: it is compared with the first value alone", modifier.word()),
                "use `in`, or several checks with `or` between them",
            );
        }
        let costly = match name {
            "fd.cip.name" | "fd.sip.name" | "fd.lip.name" | "fd.rip.name" => {
                Some("looks the name up in the DNS while events wait")
            }
            "proc.aname" | "proc.aexe" | "proc.aexepath" | "proc.acmdline" | "proc.apid" | "proc.aenv"
                if field.argument.is_none() =>
            {
                Some("goes through all ancestors of the process")
            }
            "proc.env" => Some("reads the whole environment of the process"),
            _ => None,
        };
        if let Some(costly) = costly {
            report.push(Diagnostic::warning(Code::Costly, field.span, format!("`{name}` {costly}")));
        }
        if op == Op::Regex {
            let message = "`regex` goes through the whole text, each time that Falco comes to it";
            report.push(
                Diagnostic::warning(Code::Costly, check.op_span, message)
                    .help("`glob`, `startswith` or `contains` take less, or put checks before it that rarely hold"),
            );
        }
    }
}
