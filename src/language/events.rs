//! Which types of events a condition can hold for.

use std::sync::LazyLock;

use super::fields::KNOWN;
use super::tree::{Check, Expr, Op, Operand, Rhs, Value};

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
        static ALL: LazyLock<EventTypes> = LazyLock::new(|| {
            let mut all = EventTypes::NONE;
            (0..KNOWN.event_types.len()).for_each(|number| all.insert(number));
            all
        });
        *ALL
    }

    /// Whether there is an event type of the name.
    #[must_use]
    pub fn is_known(name: &str) -> bool {
        Self::number(name).is_some()
    }

    /// The number of the event type of the name.
    pub(crate) fn number(name: &str) -> Option<usize> {
        KNOWN.event_numbers.get(name).copied()
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
        if let Some(number) = Self::number(name) {
            self.insert(number);
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

/// The types for which a condition can hold, and those for which its negation can; `None` stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Possible {
    holds: Option<EventTypes>,
    fails: Option<EventTypes>,
}

/// The types for which a condition can hold.
pub(crate) fn types(possible: Option<Possible>) -> EventTypes {
    possible.and_then(|possible| possible.holds).unwrap_or_else(EventTypes::all)
}

impl Possible {
    const fn negated(self) -> Self {
        Self { holds: self.fails, fails: self.holds }
    }

    fn and(self, other: Self) -> Self {
        Self { holds: both(self.holds, other.holds), fails: either(self.fails, other.fails) }
    }

    fn or(self, other: Self) -> Self {
        Self { holds: either(self.holds, other.holds), fails: both(self.fails, other.fails) }
    }
}

fn both(one: Option<EventTypes>, other: Option<EventTypes>) -> Option<EventTypes> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(other)),
        (one, other) => one.or(other),
    }
}

fn either(one: Option<EventTypes>, other: Option<EventTypes>) -> Option<EventTypes> {
    Some(one?.or(other?))
}

/// Falco's analysis: negation is pushed to the checks, and only those of the event's type tell types apart; `None` where
/// none of them does. `resolve` says what is possible for a macro, `expand` puts the names of a list in the place of the
/// list's.
pub(crate) fn possible(
    expr: &Expr<'_>,
    resolve: &impl Fn(&str) -> Option<Possible>,
    expand: &impl Fn(&Value<'_>, &mut dyn FnMut(&str)),
) -> Option<Possible> {
    let each = |parts: &[Expr<'_>], join: fn(Possible, Possible) -> Possible| {
        let (mut whole, mut others) = (None, false);
        for part in parts {
            match (possible(part, resolve, expand), whole) {
                (None, _) => others = true,
                (told, None) => whole = told,
                (Some(told), Some(before)) => whole = Some(join(before, told)),
            }
        }
        // Those that don't tell types apart are joined at once: they all say the same.
        if others { whole.map(|whole| join(whole, Possible::default())) } else { whole }
    };
    match expr {
        Expr::And(parts) => each(parts, Possible::and),
        Expr::Or(parts) => each(parts, Possible::or),
        Expr::Not(inner) => possible(inner, resolve, expand).map(Possible::negated),
        Expr::Macro(word) => resolve(&word.text),
        Expr::Check(check) => of_check(check, expand),
    }
}

fn of_check(check: &Check<'_>, expand: &impl Fn(&Value<'_>, &mut dyn FnMut(&str))) -> Option<Possible> {
    let by_type = matches!(&check.operand, Operand::Field(field)
        if matches!(&*field.name, "evt.type" | "syscall.type") && field.argument.is_none());
    if !by_type || check.modifier.is_some() {
        return None;
    }
    let mut named = EventTypes::NONE;
    match (&check.rhs, check.op) {
        (Rhs::Value(value), Op::Eq | Op::EqEq | Op::Ne) => named.insert_name(&value.text),
        (Rhs::List(list), Op::In) => {
            for value in &list.values {
                expand(value, &mut |name| named.insert_name(name));
            }
        }
        _ => return None,
    }
    let equal = Possible { holds: Some(named), fails: Some(EventTypes::all().without(named)) };
    Some(if check.op == Op::Ne { equal.negated() } else { equal })
}
