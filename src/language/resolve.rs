//! Fields and transformers of a condition or output: do they exist, and what comes of them.

use super::catalog::Catalog;
use super::diagnostic::{Code, Diagnostic, nearest};
use super::events::EventTypes;
use super::fields::{FieldInfo, KNOWN, Kind, Need};
use super::tree::{Argument, Field, Operand, Transform, Transformer, Word};

/// What an operand's values are.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts that don't depend on each other")]
pub(crate) struct Type<'a> {
    pub(crate) kind: Kind,
    /// In Falco's words; two are comparable where they are the same.
    pub(crate) name: &'a str,
    pub(crate) list: bool,
    /// Whether it can be compared with another field.
    pub(crate) right_hand: bool,
    pub(crate) transformer: bool,
    /// Where events disagree about the kind.
    pub(crate) ambiguous: bool,
}

impl<'a> Type<'a> {
    fn of(kind: Kind, name: &'a str) -> Self {
        Self { kind, name, list: false, right_hand: true, transformer: true, ambiguous: false }
    }
}

/// Where fields come from, and who asks.
#[derive(Clone, Copy)]
pub(crate) struct Resolver<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) source: &'a str,
}

/// Fields that are followed by a dot and a name of their own.
const DOTTED: [&str; 5] = ["evt.arg", "evt.rawarg", "evt.abspath", "evt.type.is", "thread.cgroup"];

/// The field of a dotted name, and what follows it.
fn dotted(name: &str) -> Option<(&'static str, &str)> {
    DOTTED.iter().find_map(|field| Some((*field, name.strip_prefix(field)?.strip_prefix('.')?)))
}

/// The name of the field as the catalogue has it: without what follows its dot.
pub(crate) fn catalogued<'a>(catalog: &Catalog, name: &'a str) -> &'a str {
    if catalog.field(name).is_some() { name } else { dotted(name).map_or(name, |(field, _)| field) }
}

impl<'a> Resolver<'a> {
    /// What a field's values are, or why there is no such field.
    pub(crate) fn field(&self, field: &Field<'_>) -> Result<Type<'a>, Diagnostic> {
        self.info(field).map(|(_, found)| found)
    }

    /// What is known of a field, and what its values are.
    fn info(&self, field: &Field<'_>) -> Result<(&'a FieldInfo, Type<'a>), Diagnostic> {
        let (info, suffix) = match self.catalog.field(&field.name) {
            Some(info) => (info, None),
            None => match dotted(&field.name).and_then(|(name, suffix)| Some((self.catalog.field(name)?, suffix))) {
                Some((info, suffix)) => (info, Some(suffix)),
                None => return Err(self.unknown_field(field)),
            },
        };
        if !info.serves(self.source) {
            let sources = info.sources.join(", ");
            let message = format!("field `{}` is for rules of source {sources}, not of {}", field.name, self.source);
            return Err(Diagnostic::invalid(Code::FieldOfOtherSource, field.span, message));
        }
        let mut found = Type {
            kind: info.kind,
            name: &info.type_name,
            list: info.list,
            right_hand: info.right_hand,
            transformer: info.transformer,
            ambiguous: false,
        };
        if let Some(suffix) = suffix {
            Self::suffix(field, info, suffix, &mut found)?;
        } else if info.argument.need == Need::Required && field.argument.is_none() {
            let example = match &*info.name {
                "evt.arg" | "evt.rawarg" => format!("{}.flags", info.name),
                "evt.type.is" => "evt.type.is.open".to_owned(),
                "thread.cgroup" => "thread.cgroup.cpu".to_owned(),
                name if info.argument.key => format!("{name}[key]"),
                name => format!("{name}[0]"),
            };
            let message = format!("field `{}` needs an argument", field.name);
            return Err(
                Diagnostic::invalid(Code::FieldArgument, field.span, message).help(format!("such as `{example}`"))
            );
        }
        if let Some(argument) = &field.argument {
            argument_of(field, info, suffix, argument)?;
        }
        Ok((info, found))
    }

    fn unknown_field(&self, field: &Field<'_>) -> Diagnostic {
        let name = if field.name.len() > 80 { "of this name" } else { &*field.name };
        let diagnostic = Diagnostic::invalid(Code::UnknownField, field.span, format!("there is no field `{name}`"));
        // The labels of a pod are shown with dots in places where they are not accepted so.
        if let Some((parent, key)) = name.rsplit_once('.')
            && self.catalog.field(parent).is_some_and(|info| info.argument.key && !info.argument.dotted)
        {
            return diagnostic.suggest(Some(format!("{parent}[{key}]")));
        }
        let nearest = self.catalog.nearest_field(name, self.source);
        let known = || KNOWN.fields.iter().find(|info| &*info.name == name);
        match (nearest, known().and_then(|info| info.origin.strip_prefix("plugin:"))) {
            (_, Some(plugin)) => diagnostic.help(format!("it comes with the plugin {plugin}, which is not loaded")),
            (Some(nearest), None) => diagnostic.suggest(Some(nearest)),
            (None, None) => diagnostic,
        }
    }

    /// What follows the dot of a field.
    fn suffix(field: &Field<'_>, info: &FieldInfo, suffix: &str, found: &mut Type<'_>) -> Result<(), Diagnostic> {
        let unknown = |what: &str, suggestion: Option<&str>| {
            let message = format!("there is no {what} `{suffix}`");
            Diagnostic::invalid(Code::UnknownField, field.span, message)
                .suggest(suggestion.map(|suggestion| format!("{}.{suggestion}", info.name)))
        };
        match &*info.name {
            "evt.arg" | "evt.rawarg" => {
                let Some(parameter) = KNOWN.parameters.get(suffix) else {
                    let nearest = nearest(suffix, KNOWN.parameters.keys().copied());
                    return Err(unknown("event parameter", nearest));
                };
                if &*info.name == "evt.rawarg" {
                    let first = parameter.kinds.first().copied().unwrap_or(Kind::Other);
                    let usable = parameter.kinds.iter().copied().find(|kind| *kind != Kind::Other);
                    found.kind = usable.unwrap_or(first);
                    found.ambiguous = parameter.kinds.contains(&Kind::Text)
                        && parameter.kinds.iter().any(|kind| matches!(kind, Kind::Number | Kind::Port));
                }
            }
            "evt.abspath" if !matches!(suffix, "src" | "dst") => return Err(unknown("path of an event", None)),
            "evt.type.is" if !EventTypes::is_known(suffix) => {
                return Err(unknown("event type", nearest(suffix, EventTypes::names_of_all())));
            }
            "thread.cgroup" if !suffix.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') => {
                return Err(unknown("control group", None));
            }
            _ => {}
        }
        Ok(())
    }

    /// What an operand's values are. All that is wrong with it is reported.
    pub(crate) fn operand(&self, operand: &Operand<'_>, report: &mut Vec<Diagnostic>) -> Option<Type<'a>> {
        match operand {
            Operand::Field(field) => match self.info(field) {
                Ok((info, found)) => {
                    if info.deprecated {
                        report.push(deprecated(field, info));
                    }
                    Some(found)
                }
                Err(diagnostic) => {
                    report.push(diagnostic);
                    None
                }
            },
            Operand::Transform(transform) => self.transform(transform, report),
        }
    }

    fn transform(&self, transform: &Transform<'_>, report: &mut Vec<Diagnostic>) -> Option<Type<'a>> {
        let name = transform.transformer.word();
        let before = report.len();
        let types: Vec<Option<Type<'a>>> =
            transform.arguments.iter().map(|argument| self.argument(argument, transform, report)).collect();
        if transform.index.is_some() && transform.transformer != Transformer::Getopt {
            let message = format!("`{name}` takes no argument in brackets");
            report.push(Diagnostic::invalid(Code::Transformer, transform.span, message));
        }
        let mut wrong = |message: String, help: &str| {
            let diagnostic = Diagnostic::invalid(Code::Transformer, transform.span, message);
            report.push(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
        };
        let count = types.len();
        let expected = match transform.transformer {
            Transformer::Join => (count == 2, "a separator and a list", "`join(\",\", (proc.name, proc.pname))`"),
            Transformer::Getopt => (count == 2, "a list and the options", "`getopt(list, \"ab:\")`"),
            Transformer::Concat => (count >= 2, "two texts or more", "`concat(proc.name, \"-\", proc.pname)`"),
            _ => (count == 1, "one field", "such as `tolower(proc.name)`"),
        };
        if !expected.0 {
            wrong(format!("`{name}` is applied to {}, not to {count} arguments", expected.1), expected.2);
            return None;
        }
        // What is unknown has been reported; there is nothing to say of its type.
        let types: Vec<Type<'a>> = types.into_iter().collect::<Option<_>>()?;
        let mut text = Type::of(Kind::Text, "CHARBUF");
        text.right_hand = types.iter().all(|argument| argument.right_hand);
        let is_text = |argument: &Type<'_>| argument.kind == Kind::Text && !argument.list;
        let result = match (transform.transformer, types.as_slice()) {
            (Transformer::Val, [one]) => *one,
            (Transformer::Len, [one]) if one.list || matches!(one.kind, Kind::Text | Kind::Bytes) => {
                Type { kind: Kind::Number, name: "UINT64", ..text }
            }
            (Transformer::Tolower | Transformer::Toupper | Transformer::Basename, [one]) if one.kind == Kind::Text => {
                *one
            }
            (Transformer::B64, [one]) if matches!(one.kind, Kind::Text | Kind::Bytes) => *one,
            (Transformer::Join, [separator, list]) => {
                if !is_text(separator) {
                    wrong("the first argument of `join` is a separator".into(), "such as `\",\"`");
                }
                if !list.list {
                    wrong("the second argument of `join` is a list".into(), expected.2);
                }
                text
            }
            (Transformer::Concat, parts) => {
                if !parts.iter().all(is_text) {
                    wrong("`concat` puts texts together, and one of these is none".into(), "");
                }
                text
            }
            (Transformer::Getopt, [list, options]) => {
                if !list.list {
                    wrong("the first argument of `getopt` is a list".into(), "");
                }
                if !is_text(options) {
                    wrong("the second argument of `getopt` is a text of option letters".into(), "such as `\"ab:\"`");
                }
                if transform.index.as_ref().is_some_and(|index| index.text.chars().count() != 1) {
                    wrong("the option in brackets is one character".into(), "");
                }
                Type { list: transform.index.is_none(), ..text }
            }
            (_, [one]) => {
                let what = if one.list { "a list" } else { one.kind.word() };
                wrong(format!("`{name}` can't be applied to what is {what}"), "");
                text
            }
            _ => text,
        };
        (!report.iter().skip(before).any(Diagnostic::is_error)).then_some(result)
    }

    fn argument(&self, argument: &Argument<'_>, of: &Transform<'_>, report: &mut Vec<Diagnostic>) -> Option<Type<'a>> {
        match argument {
            Argument::Text(_) | Argument::Number(_) => Some(Type::of(Kind::Text, "CHARBUF")),
            Argument::List(items, span) => {
                let mut good = true;
                for item in items {
                    let found = self.argument(item, of, report);
                    good &= found.is_some();
                    if found.is_some_and(|found| found.list || found.kind != Kind::Text) {
                        good = false;
                        let message = "a list of a transformer is of texts";
                        report.push(Diagnostic::invalid(Code::Transformer, *span, message));
                    }
                }
                good.then(|| Type { list: true, ..Type::of(Kind::Text, "CHARBUF") })
            }
            Argument::Operand(operand) => {
                let found = self.operand(operand, report)?;
                if of.transformer == Transformer::Val || found.transformer {
                    return Some(found);
                }
                let Operand::Field(field) = operand else { return Some(found) };
                let message = format!("field `{}` can't be given to a transformer", field.name);
                report.push(if matches!(&*field.name, "evt.type" | "syscall.type") {
                    Diagnostic::unsafe_(Code::CrashesEngine, field.span, message).help("Falco ends when it reads this")
                } else {
                    Diagnostic::invalid(Code::Transformer, field.span, message)
                });
                None
            }
        }
    }
}

fn deprecated(field: &Field<'_>, info: &FieldInfo) -> Diagnostic {
    let help = match &*info.name {
        "evt.dir" => "`evt.dir = <` always holds and `evt.dir = >` never does: leave it out",
        _ => NO_LONGER,
    };
    Diagnostic::warning(Code::Deprecated, field.span, format!("field `{}` is deprecated", info.name)).help(help)
}

/// What is said of a deprecated field that is only printed.
pub(crate) const NO_LONGER: &str = "it will be removed, or is no longer filled";

/// Checks what stands in brackets behind a field.
fn argument_of(
    field: &Field<'_>,
    info: &FieldInfo,
    suffix: Option<&str>,
    argument: &Word<'_>,
) -> Result<(), Diagnostic> {
    let wrong = |message: String| Diagnostic::invalid(Code::FieldArgument, argument.span, message);
    let text = &*argument.text;
    let own = &info.argument;
    if own.need == Need::None || suffix.is_some() || (own.dotted && !own.index) {
        return Err(wrong(format!("field `{}` takes no argument in brackets", field.name))
            .help(format!("write `{}`", field.name)));
    }
    let signed = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = !signed.is_empty() && signed.bytes().all(|byte| byte.is_ascii_digit());
    let is_plugin = &*info.origin != "libs";
    // Brackets can only hold an index where the key follows a dot.
    let takes_key = own.key && !own.dotted;
    if is_plugin {
        let index = digits && signed == text && (text == "0" || !text.starts_with('0'));
        if own.index && !takes_key && !index {
            return Err(wrong(format!("the argument of `{}` is a number, not `{text}`", field.name)));
        }
        if text.bytes().any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b']')) {
            return Err(wrong(format!("the argument of `{}` can hold no blanks and no `]`", field.name)));
        }
        return Ok(());
    }
    if !digits && !takes_key {
        let diagnostic = wrong(format!("the argument of `{}` is a number, not `{text}`", field.name));
        return Err(if own.dotted {
            diagnostic.suggest(Some(format!("{}.{text}", field.name)).filter(|_| super::scan::is_bare_argument(text)))
        } else {
            diagnostic.help(format!("such as `{}[2]`", field.name))
        });
    }
    Ok(())
}
