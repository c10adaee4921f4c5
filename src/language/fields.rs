//! Fields, their types, and which operators they take.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::FastMap;
use super::catalog::SYSCALL;
use super::tree::Op;

/// What a field's values are, as far as operators and constants go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A whole number, a time included.
    Number,
    /// A port, by number or by the name of a service.
    Port,
    /// `true` or `false`.
    Bool,
    /// An IP address.
    Address,
    /// An IP network.
    Network,
    /// Numbers that no constant is accepted for.
    Opaque,
    /// Nothing but `exists`.
    Other,
}

impl Kind {
    /// The kind of a type of libsinsp's, such as `CHARBUF`.
    #[must_use]
    pub fn of(type_name: &str) -> Self {
        match type_name {
            "CHARBUF" | "FSPATH" | "FSRELPATH" | "string" => Self::Text,
            "BYTEBUF" => Self::Bytes,
            "PORT" => Self::Port,
            "BOOL" => Self::Bool,
            "IPADDR" | "IPV4ADDR" | "IPV6ADDR" => Self::Address,
            "IPNET" | "IPV4NET" | "IPV6NET" => Self::Network,
            "SIGTYPE" | "SYSCALLID" => Self::Opaque,
            "RELTIME" | "ABSTIME" | "DOUBLE" | "FD" | "FD32" | "PID" | "PID32" | "UID" | "GID" | "ERRNO" | "MODE" => {
                Self::Number
            }
            _ if ["INT", "UINT", "FLAGS", "ENUMFLAGS"].iter().any(|prefix| {
                type_name.strip_prefix(prefix).is_some_and(|bits| bits.bytes().all(|byte| byte.is_ascii_digit()))
            }) =>
            {
                Self::Number
            }
            _ => Self::Other,
        }
    }

    /// What Falco calls filters of the kind.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Number => "a number",
            Self::Port => "a port",
            Self::Bool => "true or false",
            Self::Address => "an IP address",
            Self::Network => "an IP network",
            Self::Opaque | Self::Other => "of a type that can only be tested with `exists`",
        }
    }

    /// Whether Falco accepts the operator for the kind. `list`: the field has several values.
    #[must_use]
    pub const fn takes(self, op: Op, list: bool) -> bool {
        if matches!(op, Op::Exists) {
            return true;
        }
        if list {
            return matches!(op, Op::In | Op::Intersects);
        }
        match self {
            Self::Text => !matches!(op, Op::Bcontains | Op::Bstartswith),
            Self::Bytes => {
                matches!(op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects)
                    || matches!(op, Op::Contains | Op::Startswith | Op::Endswith | Op::Bcontains | Op::Bstartswith)
            }
            Self::Number | Self::Port | Self::Opaque => {
                matches!(op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects) || op.is_numeric()
            }
            Self::Bool | Self::Address | Self::Network => {
                matches!(op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects)
            }
            Self::Other => false,
        }
    }
}

/// Whether a field takes an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// It takes none.
    #[default]
    None,
    /// It may have one.
    Optional,
    /// It must have one.
    Required,
}

/// What a field may be given in brackets, or after a dot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArgumentInfo {
    /// Whether there is one.
    pub need: Need,
    /// A number is one.
    pub index: bool,
    /// A name is one.
    pub key: bool,
    /// A key follows a dot and is no argument in brackets.
    pub dotted: bool,
}

impl ArgumentInfo {
    /// From words such as `required index key`, with whatever stands between them.
    #[must_use]
    pub fn of(words: &str) -> Self {
        let has = |word: &str| words.split(|c: char| !c.is_ascii_alphabetic()).any(|other| other == word);
        let need = match () {
            () if has("required") => Need::Required,
            () if has("optional") => Need::Optional,
            () => Need::None,
        };
        Self { need, index: has("index"), key: has("key"), dotted: has("dot") || has("both") }
    }
}

/// A filter field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts that don't depend on each other")]
pub struct FieldInfo {
    /// Its name, such as `proc.name`.
    pub name: Arc<str>,
    /// Its type, in Falco's words: `CHARBUF`.
    pub type_name: Arc<str>,
    /// What its values are.
    pub kind: Kind,
    /// Whether it has several.
    pub list: bool,
    /// Its argument.
    pub argument: ArgumentInfo,
    /// Whether it can be compared with another field.
    pub right_hand: bool,
    /// Whether transformers can be applied to it.
    pub transformer: bool,
    /// Whether Falco will remove it, or no longer fills it.
    pub deprecated: bool,
    /// Whether `falco --list` leaves it out.
    pub unlisted: bool,
    /// The sources of the rules that can use it; `*` is all.
    pub sources: Arc<[Arc<str>]>,
    /// Whether [`SYSCALL`] is among them, which is asked for each field of nearly each rule.
    pub(crate) serves_syscall: bool,
    /// What provides it: `libs`, or `plugin:` and its name.
    pub origin: Arc<str>,
    /// What it says of an event; may be empty.
    pub description: Arc<str>,
}

impl FieldInfo {
    /// Whether rules of the source can use it.
    #[must_use]
    #[inline]
    pub fn serves(&self, source: &str) -> bool {
        if source == SYSCALL { self.serves_syscall } else { serves(&self.sources, source) }
    }
}

/// Whether a source is among those of a field.
pub(crate) fn serves(sources: &[Arc<str>], source: &str) -> bool {
    sources.iter().any(|own| &**own == "*" || &**own == source)
}

/// A parameter of events.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// The types that it has, by the event.
    pub(crate) kinds: Vec<Kind>,
}

/// What Falco 0.44.1 and its plugins offer.
pub(crate) struct Known {
    pub(crate) fields: Vec<FieldInfo>,
    pub(crate) parameters: FastMap<&'static str, Parameter>,
    /// In order, so that an event type is a number.
    pub(crate) event_types: Vec<&'static str>,
    /// The numbers of event types.
    pub(crate) event_numbers: FastMap<&'static str, usize>,
    /// The numbers of those that Falco does not produce as it comes.
    pub(crate) ignored: Vec<usize>,
}

/// What was recorded from Falco 0.44.1.
pub(crate) static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut shared: HashMap<&'static str, Arc<str>> = HashMap::new();
    let mut share = |text: &'static str| shared.entry(text).or_insert_with(|| text.into()).clone();
    let lines = |text: &'static str| text.lines().filter(|line| !line.starts_with('#'));
    let descriptions: HashMap<&str, &str> =
        lines(include_str!("data/descriptions.txt")).filter_map(|line| line.split_once(' ')).collect();
    let mut fields = Vec::with_capacity(512);
    for line in lines(include_str!("data/fields.txt")) {
        let mut columns = line.split(' ');
        let mut next = || columns.next().unwrap_or_default();
        let (name, type_name, argument, flags, sources, origin) = (next(), next(), next(), next(), next(), next());
        let has = |flag: &str| flags.split(',').any(|other| other == flag);
        let sources: Arc<[Arc<str>]> = sources.split(',').map(&mut share).collect();
        fields.push(FieldInfo {
            name: name.into(),
            type_name: share(type_name),
            kind: Kind::of(type_name),
            list: has("list"),
            argument: ArgumentInfo::of(argument),
            right_hand: !has("no-rhs"),
            transformer: !has("no-transformer"),
            deprecated: has("deprecated"),
            unlisted: has("hidden") || has("print-only") || has("deprecated"),
            serves_syscall: serves(&sources, SYSCALL),
            sources,
            origin: share(origin),
            description: descriptions.get(name).copied().unwrap_or_default().into(),
        });
    }
    let (mut event_types, mut ignored, mut parameters) = (Vec::with_capacity(512), vec![], FastMap::default());
    for line in lines(include_str!("data/events.txt")) {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("type"), Some(name)) => {
                event_types.push(name);
                ignored.extend((words.next() == Some("ignored")).then_some(name));
            }
            // The name may follow that of the plugin whose events they are.
            (Some("async"), Some(_)) => event_types.extend(words.next()),
            (Some("argument"), Some(name)) => {
                parameters.insert(name, Parameter { kinds: words.map(Kind::of).collect() });
            }
            _ => {}
        }
    }
    event_types.sort_unstable();
    event_types.dedup();
    let event_numbers: FastMap<_, _> = event_types.iter().enumerate().map(|(number, name)| (*name, number)).collect();
    let ignored = ignored.iter().filter_map(|name| event_numbers.get(name).copied()).collect();
    Known { fields, parameters, event_types, event_numbers, ignored }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_recorded_is_read() {
        assert_eq!(KNOWN.fields.len(), 425);
        assert_eq!(KNOWN.parameters.len(), 223);
        assert_eq!(KNOWN.event_types.len(), 490);
        assert_eq!(KNOWN.ignored.len(), 11);
        let field = |name: &str| KNOWN.fields.iter().find(|field| &*field.name == name).expect("known");
        assert_eq!(field("proc.aname").argument.need, Need::Optional);
        assert!(field("evt.arg").argument.dotted && field("evt.arg").argument.index);
        assert!(field("fd.types").list);
        assert!(field("evt.num").serves("anything"));
        assert_eq!(Kind::of("FLAGS16"), Kind::Number);
        assert_eq!(Kind::of("SOCKADDR"), Kind::Other);
    }
}
