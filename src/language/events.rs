//! Which types of events a condition can hold for.

use super::fields::KNOWN;
use super::tree::{Check, Expr, Op, Operand, Rhs};

const WORDS: usize = 8;

/// A set of event types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTypes([u64; WORDS]);

/// Codes of the events of a set from which on Falco takes the condition to hold for all. One name is of two codes.
const MANY_CODES: usize = 100;

impl EventTypes {
    /// None.
    pub const NONE: Self = Self([0; WORDS]);

    /// All that there are.
    #[must_use]
    pub fn all() -> Self {
        let count = KNOWN.event_types.len();
        let mut set = Self::NONE;
        for (index, word) in set.0.iter_mut().enumerate() {
            let here = count.saturating_sub(index * 64);
            *word = if here >= 64 { u64::MAX } else { (1 << here) - 1 };
        }
        set
    }

    /// Whether there is an event type of the name.
    #[must_use]
    pub fn is_known(name: &str) -> bool {
        KNOWN.event_types.binary_search(&name).is_ok()
    }

    /// The names of all event types, in order.
    pub fn names_of_all() -> impl Iterator<Item = &'static str> {
        KNOWN.event_types.iter().copied()
    }

    /// The names in it, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        KNOWN.event_types.iter().enumerate().filter(|(index, _)| self.contains(*index)).map(|(_, name)| *name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Whether Falco calls a condition for these one for all events: for too many, or for none.
    #[must_use]
    pub fn is_broad(&self) -> bool {
        self.is_empty() || self.len() * 2 > MANY_CODES
    }

    fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    fn insert_name(&mut self, name: &str) {
        if let Ok(index) = KNOWN.event_types.binary_search(&name) {
            self.insert(index);
        }
    }

    fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn zip(mut self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a = f(*a, b));
        self
    }

    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    fn without(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }
}

/// The types for which a condition can hold, and those for which its negation can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Possible {
    pub(crate) holds: EventTypes,
    pub(crate) fails: EventTypes,
}

impl Possible {
    pub(crate) fn any() -> Self {
        let all = EventTypes::all();
        Self { holds: all, fails: all }
    }
}

/// Falco's analysis: negation is pushed to the checks, and only those of the event's type tell types apart. `resolve`
/// says what is possible for a macro, `expand` puts the names of a base list in the place of the list's.
pub(crate) fn possible(
    expr: &Expr,
    resolve: &impl Fn(&str) -> Option<Possible>,
    expand: &impl Fn(&str, &mut dyn FnMut(&str)),
) -> Possible {
    let fold = |parts: &[Expr], all: bool| {
        let mut parts = parts.iter().map(|part| possible(part, resolve, expand));
        let first = parts.next().unwrap_or_else(Possible::any);
        parts.fold(first, |sum, part| {
            if all {
                Possible { holds: sum.holds.and(part.holds), fails: sum.fails.or(part.fails) }
            } else {
                Possible { holds: sum.holds.or(part.holds), fails: sum.fails.and(part.fails) }
            }
        })
    };
    match expr {
        Expr::And(parts) => fold(parts, true),
        Expr::Or(parts) => fold(parts, false),
        Expr::Not(inner) => {
            let inner = possible(inner, resolve, expand);
            Possible { holds: inner.fails, fails: inner.holds }
        }
        Expr::Macro(word) => resolve(&word.text).unwrap_or_else(Possible::any),
        Expr::Check(check) => of_check(check, expand),
    }
}

fn of_check(check: &Check, expand: &impl Fn(&str, &mut dyn FnMut(&str))) -> Possible {
    let by_type = matches!(&check.operand, Operand::Field(field)
        if matches!(&*field.name, "evt.type" | "syscall.type") && field.argument.is_none());
    if !by_type || check.modifier.is_some() {
        return Possible::any();
    }
    let mut named = EventTypes::NONE;
    match (&check.rhs, check.op) {
        (Rhs::Value(value), Op::Eq | Op::EqEq | Op::Ne) => named.insert_name(&value.text),
        (Rhs::List(list), Op::In) => {
            for value in &list.values {
                expand(&value.text, &mut |name| named.insert_name(name));
            }
        }
        _ => return Possible::any(),
    }
    let others = EventTypes::all().without(named);
    if check.op == Op::Ne { Possible { holds: others, fails: named } } else { Possible { holds: named, fails: others } }
}
