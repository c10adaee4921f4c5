//! Whether the fields, operators and values of a condition go together.

use super::condition::{Argument, Check, Expr, Operand, Position, Value};
use crate::fields::Catalogue;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a condition does not compile.
#[derive(Clone, Debug)]
pub enum Problem {
    /// A message of the rules loader.
    Error(String, Position),
    /// An exception that nobody in Falco catches before `main`.
    Uncaught(String),
}

/// What a field or a transformer yields.
#[derive(Clone, Debug)]
struct Typed {
    name: String,
    kind: String,
    list: bool,
    right_hand: bool,
    transformers: bool,
}

type Checked<T> = Result<T, String>;

/// Checks a condition whose macros have been put in already; what it finds reads like Falco's messages.
pub fn expr(expr: &Expr, source: &str, catalogue: &Catalogue) -> Result<(), Problem> {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().try_for_each(|part| self::expr(part, source, catalogue)),
        Expr::Not(inner) => self::expr(inner, source, catalogue),
        Expr::Macro(..) => Ok(()),
        Expr::Check(check) => {
            comparison(check, source, catalogue).map_err(|message| match message.strip_prefix(UNCAUGHT) {
                Some(uncaught) => Problem::Uncaught(uncaught.to_owned()),
                None => Problem::Error(message, check.position),
            })
        }
    }
}

const UNCAUGHT: &str = "\u{0}";

fn nonexistent<T>(name: &str, argument: Option<&str>) -> Checked<T> {
    let argument = argument.map(|argument| format!("[{argument}]")).unwrap_or_default();
    Err(format!("filter_check called with nonexistent field {name}{argument}"))
}

/// The type of a field, or why there is no such field.
fn field(name: &str, argument: Option<&str>, source: &str, catalogue: &Catalogue) -> Checked<Typed> {
    let Some(found) = catalogue.field(name, source) else {
        if argument.is_none() && catalogue.is_static(name) {
            return Ok(Typed { name: name.to_owned(), list: false, ..constant_text() });
        }
        return dotted(name, argument, source, catalogue);
    };
    let typed = Typed {
        name: name.to_owned(),
        kind: found.kind.to_owned(),
        list: found.list(),
        right_hand: found.right_hand(),
        transformers: found.transformers(),
    };
    let Some(text) = argument else {
        return match found.argument {
            "required" if name == "evt.arg" || name == "evt.rawarg" => {
                Err("evt.arg fields must be expressed explicitly".to_owned())
            }
            "required" if found.origin == "libs" => Err(format!("filter syntax error: {name}")),
            "required" => Err(format!("filter '{name}': {name} requires an argument but none provided")),
            _ => Ok(typed),
        };
    };
    if name == "evt.rawarg" {
        return Err("evt.arg fields must be expressed explicitly".to_owned());
    }
    if found.argument == "none" || !found.syntax.contains("bracket") {
        return nonexistent(name, argument);
    }
    let libs = found.origin == "libs";
    let index = if libs {
        number(text)
    } else {
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
    };
    match found.argument_kind {
        _ if name == "evt.arg" && !index => Err(format!("{text} is not a valid number")),
        "index" if !index => nonexistent(name, argument),
        _ => Ok(typed),
    }
}

/// `evt.arg.flags` and the like, whose last part is an argument.
fn dotted(name: &str, argument: Option<&str>, source: &str, catalogue: &Catalogue) -> Checked<Typed> {
    for prefix in ["evt.arg", "evt.rawarg", "evt.type.is", "evt.abspath", "thread.cgroup"] {
        let Some(suffix) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let Some(found) = catalogue.field(prefix, source) else { break };
        if argument.is_some() {
            break;
        }
        let mut kind = found.kind.to_owned();
        match prefix {
            "evt.arg" | "evt.rawarg" => match Catalogue::event_argument(suffix) {
                Some(types) if prefix == "evt.rawarg" => {
                    let types: Vec<&str> = types.split(',').collect();
                    (*types.last().unwrap_or(&"CHARBUF")).clone_into(&mut kind);
                }
                Some(_) => {}
                None if Catalogue::event_argument_prefix(suffix) => return nonexistent(name, argument),
                None => return Err(format!("unknown event argument {suffix}")),
            },
            "evt.type.is" if !catalogue.event_type(suffix) => return Err(format!("unknown event type {suffix}")),
            "evt.abspath" if !["src", "dst"].contains(&suffix) => break,
            _ => {}
        }
        return Ok(Typed {
            name: name.to_owned(),
            kind,
            list: found.list(),
            right_hand: found.right_hand(),
            transformers: found.transformers(),
        });
    }
    nonexistent(name, argument)
}

/// Whether a rule of this source may name the operand; used for outputs and exceptions too.
pub fn operand_exists(operand: &Operand, source: &str, catalogue: &Catalogue) -> bool {
    typed(operand, source, catalogue).is_ok()
}

fn typed(operand: &Operand, source: &str, catalogue: &Catalogue) -> Checked<Typed> {
    match operand {
        Operand::Field { name, argument } => field(name, argument.as_deref(), source, catalogue),
        Operand::Transform { name, arguments, index } => {
            transform(name, arguments, index.as_deref(), source, catalogue)
        }
    }
}

fn is_text(kind: &str) -> bool {
    matches!(kind, "CHARBUF" | "FSPATH" | "FSRELPATH")
}

fn transform(
    name: &str,
    arguments: &[Argument],
    index: Option<&str>,
    source: &str,
    catalogue: &Catalogue,
) -> Checked<Typed> {
    let several = matches!(name, "join" | "concat" | "getopt");
    if several && arguments.len() < 2 && index.is_none() {
        return Err(format!("unknown field transfomer '{name}'"));
    }
    if index.is_some() && (name != "getopt" || arguments.len() < 2) {
        return Err(format!("filter error: transformer '{name}' does not support field arguments"));
    }
    if !several && arguments.len() > 1 {
        return Err(format!("{UNCAUGHT}unknown multivalue transformer"));
    }
    let mut parts = Vec::new();
    for argument in arguments {
        parts.push(match argument {
            Argument::Operand(inner) => Some((typed(inner, source, catalogue)?, false)),
            Argument::Text => None,
            Argument::List(items) => {
                for item in items {
                    if let Argument::Operand(inner) = item {
                        typed(inner, source, catalogue)?;
                    }
                }
                Some((constant_text(), true))
            }
        });
    }
    let result = |name: &str, kind: &str, list: bool| {
        Ok(Typed { name: name.to_owned(), kind: kind.to_owned(), list, right_hand: true, transformers: true })
    };
    let is_list = |part: Option<&Option<(Typed, bool)>>| {
        part.is_some_and(|part| part.as_ref().is_some_and(|(typed, literal)| *literal || typed.list))
    };
    match name {
        "join" if parts.len() != 2 => Err("join() requires exactly 2 arguments: separator and list".to_owned()),
        "join" if !is_list(parts.get(1)) => Err("join() second argument must be a list".to_owned()),
        "getopt" if !is_list(parts.first()) => Err("getopt() first argument must be a list".to_owned()),
        "getopt" => result("getopt", "CHARBUF", index.is_none()),
        "join" => result("join", "CHARBUF", false),
        "concat" => {
            let fits = |part: &Option<(Typed, bool)>| {
                part.as_ref().is_none_or(|(typed, literal)| !literal && !typed.list && is_text(&typed.kind))
            };
            if parts.iter().all(fits) {
                result("concat", "CHARBUF", false)
            } else {
                Err("concat() arguments must be strings".to_owned())
            }
        }
        _ => {
            let Some(Some((inner, _))) = parts.first() else { return result(name, "CHARBUF", false) };
            if !inner.transformers {
                return Err(format!("field '{}' does not support transformers", inner.name));
            }
            let fits = match name {
                "len" => inner.list || is_text(&inner.kind) || inner.kind == "BYTEBUF",
                "b64" => !inner.list && (is_text(&inner.kind) || inner.kind == "BYTEBUF"),
                _ => !inner.list && is_text(&inner.kind),
            };
            if !fits {
                return Err(format!(
                    "can't add field transformer: type '{}' is not supported by '{name}' transformer applied on field '{}'",
                    inner.kind, inner.name
                ));
            }
            let kind = if name == "len" { "UINT64" } else { &inner.kind };
            result(&inner.name, kind, false)
        }
    }
}

fn constant_text() -> Typed {
    Typed { name: String::new(), kind: "CHARBUF".to_owned(), list: true, right_hand: true, transformers: true }
}

#[derive(PartialEq)]
enum Class {
    Text,
    Buffer,
    Number,
    Bool,
    Address,
    Other,
}

fn class(kind: &str) -> Class {
    match kind {
        kind if is_text(kind) => Class::Text,
        "BYTEBUF" => Class::Buffer,
        "BOOL" => Class::Bool,
        "IPADDR" | "IPV4ADDR" | "IPV6ADDR" | "IPNET" | "IPV4NET" | "IPV6NET" => Class::Address,
        "PORT" | "RELTIME" | "ABSTIME" | "DOUBLE" | "FD" | "PID" | "ERRNO" | "MODE" | "L4PROTO" | "SOCKFAMILY" => {
            Class::Number
        }
        kind if ["INT", "UINT", "FLAGS", "ENUMFLAGS"].iter().any(|prefix| kind.starts_with(prefix)) => Class::Number,
        _ => Class::Other,
    }
}

fn operator_fits(left: &Typed, operator: &str) -> Checked<()> {
    let refused = |what: &str| Err(format!("filter error: '{operator}' operator not supported {what}"));
    if left.list {
        return match operator {
            "exists" | "in" | "intersects" => Ok(()),
            _ => refused("list filters"),
        };
    }
    let common = matches!(operator, "exists" | "=" | "==" | "!=" | "in" | "intersects");
    let ordering = matches!(operator, "<" | "<=" | ">" | ">=");
    let substring = matches!(operator, "contains" | "startswith" | "endswith");
    let bytes = matches!(operator, "bcontains" | "bstartswith");
    match class(&left.kind) {
        Class::Text if bytes => refused("for string filters"),
        Class::Buffer if !(common || substring || bytes) => refused("for buffer filters"),
        Class::Number if !(common || ordering || substring) => refused("for numeric filters"),
        Class::Number if substring => refused("for numeric filters"),
        Class::Bool if !common => refused("for numeric filters"),
        Class::Address if !common => refused("for ip address and network filters"),
        Class::Other if !common => refused(&format!("for type '{}'", left.kind)),
        _ => Ok(()),
    }
}

fn comparison(check: &Check, source: &str, catalogue: &Catalogue) -> Checked<()> {
    let left = typed(&check.left, source, catalogue)?;
    let syscall_types = matches!(left.name.as_str(), "evt.type" | "syscall.type");
    if syscall_types
        && source == "syscall"
        && (matches!(check.left, Operand::Transform { .. }) || matches!(check.right, Value::Operand(..)))
    {
        return Err(format!("{UNCAUGHT}event code search does not support this condition"));
    }
    if let Value::Operand(right) = &check.right {
        let right = typed(right, source, catalogue)?;
        return right_hand(check, &left, &right);
    }
    operator_fits(&left, &check.operator)?;
    let values: &[String] = match &check.right {
        Value::Text(value) => std::slice::from_ref(value),
        Value::List(values) => values,
        Value::None | Value::Operand(..) => &[],
    };
    values.iter().try_for_each(|text| value(&left, &check.operator, text, syscall_types, catalogue))
}

fn right_hand(check: &Check, left: &Typed, right: &Typed) -> Checked<()> {
    operator_fits(left, &check.operator)?;
    if matches!(check.operator.as_str(), "pmatch" | "regex") {
        return Err(format!("operator '{}' doesn't support right-hand side fields", check.operator.to_uppercase()));
    }
    if left.kind == "IPNET" || right.kind == "IPNET" {
        return Err("field type 'IPNET' doesn't support right-hand side fields".to_owned());
    }
    for side in [left, right] {
        if !side.right_hand {
            return Err(format!("field '{}' doesn't support right-hand side fields", side.name));
        }
    }
    if left.kind != right.kind || left.list != right.list {
        return Err(format!(
            "field '{}' has type '{}' while the right-hand side field '{}' has incompatible type '{}'",
            left.name, left.kind, right.name, right.kind
        ));
    }
    Ok(())
}

fn number(text: &str) -> bool {
    let text = text.trim_start();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn value(left: &Typed, operator: &str, text: &str, event_type: bool, catalogue: &Catalogue) -> Checked<()> {
    if text.len() > 255 {
        return Err(format!("filter parameter too long (used={}, available=256):{text}", text.len() + 1));
    }
    if event_type {
        return if catalogue.event_type(text) { Ok(()) } else { Err(format!("unknown event type {text}")) };
    }
    match class(&left.kind) {
        Class::Text if operator == "regex" => regex(text),
        Class::Buffer if matches!(operator, "bcontains" | "bstartswith") => {
            let hex = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
            if hex {
                Ok(())
            } else {
                Err("filter error: bcontains and bstartswith operator support hex strings only".to_owned())
            }
        }
        Class::Bool if text != "true" && text != "false" => {
            Err(format!("filter error: unrecognized boolean value {text}"))
        }
        Class::Address if left.kind.ends_with("NET") => network(text),
        Class::Address => address(text),
        Class::Number if left.kind == "PORT" => port(text),
        Class::Number if !number(text) => Err(format!("{text} is not a valid number")),
        _ => Ok(()),
    }
}

fn address(text: &str) -> Checked<()> {
    let (ok, family) = if text.contains('.') {
        (text.parse::<Ipv4Addr>().is_ok(), "IPv4")
    } else {
        (text.parse::<Ipv6Addr>().is_ok(), "IPv6")
    };
    if ok { Ok(()) } else { Err(format!("unrecognized {family} address {text}")) }
}

fn network(text: &str) -> Checked<()> {
    let Some((address, mask)) = text.split_once('/') else {
        let message = if text.contains(':') { "invalid v6 netmask: " } else { "unrecognized IP network " };
        return Err(format!("{message}{text}"));
    };
    let v4 = address.contains('.');
    if v4 && address.parse::<Ipv4Addr>().is_err() {
        return Err(format!("unrecognized IP address {text}"));
    }
    if !v4 && address.parse::<Ipv6Addr>().is_err() {
        return Err(format!("unrecognized IPv6 address {text}"));
    }
    if !number(mask) {
        return Err(format!("{mask} is not a valid number"));
    }
    let length: i64 = mask.parse().unwrap_or(i64::MAX);
    match (v4, length) {
        (true, 0..=32) | (false, 1..=128) => Ok(()),
        (true, _) => Err(format!("invalid netmask {mask}")),
        (false, _) => Err(format!("invalid v6 netmask {mask}")),
    }
}

/// Services that a machine without /etc/services still knows.
const USUAL: [&str; 12] =
    ["http", "https", "ssh", "domain", "ftp", "smtp", "telnet", "ntp", "snmp", "ldap", "imap2", "pop3"];

fn port(text: &str) -> Checked<()> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // What does not fit an int is thrown past everybody who would report it.
        return if text.parse::<i32>().is_ok() { Ok(()) } else { Err(format!("{UNCAUGHT}stoi")) };
    }
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let known = services.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        words.next() == Some(text) || words.skip(1).any(|alias| alias == text)
    });
    if known || USUAL.contains(&text) { Ok(()) } else { Err(format!("unrecognized protocol {text}")) }
}

/// RE2 in POSIX mode: what Perl added is not there.
fn regex(text: &str) -> Checked<()> {
    let invalid = |why: String| Err(format!("invalid regex pattern: {why}"));
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(escaped)) if escaped.is_ascii_alphanumeric() && !"aftnrvx0".contains(*escaped) => {
                return invalid(format!("invalid escape sequence: \\{escaped}"));
            }
            ('\\', Some(_)) => {
                chars.next();
            }
            ('(', Some('?')) => return invalid("no argument for repetition operator: ?".to_owned()),
            _ => {}
        }
    }
    let size = |part: &str| part.split(',').filter_map(|n| n.parse::<u32>().ok()).any(|n| n > 1000);
    let repetition = |start: usize| text.get(start + 1..).and_then(|rest| rest.split_once('}')).map(|(inner, _)| inner);
    if let Some(inner) = text.match_indices('{').filter_map(|(at, _)| repetition(at)).find(|inner| size(inner)) {
        return invalid(format!("invalid repetition size: {{{inner}}}"));
    }
    match regex_syntax::ast::parse::Parser::new().parse(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            use regex_syntax::ast::ErrorKind;
            match error.kind() {
                ErrorKind::ClassUnclosed => invalid(format!("missing ]: {text}")),
                ErrorKind::GroupUnclosed => invalid(format!("missing ): {text}")),
                ErrorKind::GroupUnopened => invalid(format!("unexpected ): {text}")),
                ErrorKind::RepetitionMissing => {
                    let operator = text.get(error.span().start.offset..).and_then(|rest| rest.chars().next());
                    invalid(format!("no argument for repetition operator: {}", operator.unwrap_or('*')))
                }
                // A brace that opens no repetition is a plain character to RE2.
                ErrorKind::RepetitionCountDecimalEmpty | ErrorKind::RepetitionCountUnclosed => Ok(()),
                other => invalid(other.to_string()),
            }
        }
    }
}
