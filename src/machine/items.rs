//! What becomes of a rule, a macro or a list, for the one who wrote it.

use k8s_openapi::jiff::Timestamp;

use super::{Decision, Facts, Refresh};
use crate::api::AuthoredStatus;
use crate::render::ItemVerdict;

/// An item, as its status needs to know it.
#[derive(Clone, Debug)]
pub struct ItemFacts<'a> {
    /// What kind of item.
    pub kind: ItemKind,
    /// The name of the object.
    pub name: &'a str,
    /// The generation of the object.
    pub generation: Option<i64>,
    /// The status that was written last.
    pub status: Option<&'a AuthoredStatus>,
    /// What rendering made of it.
    pub verdict: ItemVerdict,
}

/// The kinds of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A rule, which nodes load.
    Rule,
    /// A macro or a list, which rules use.
    Part,
}

/// The status that an item should have, and how soon it is to be written: not at all where it has it already.
#[must_use]
pub fn item_status(
    item: &ItemFacts<'_>,
    facts: &Facts<'_>,
    decision: &Decision,
    now: Timestamp,
) -> (AuthoredStatus, Refresh) {
    let _ = (item, facts, decision, now);
    (AuthoredStatus::default(), Refresh::None)
}
