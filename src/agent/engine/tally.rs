//! What Falco counts, carried on across its loads, each of which begins its counters anew: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::page::{self, Counts, Page};
use crate::agent::RulesText;

/// A `FalcoRule`: its namespace and its name.
pub type Owner = (String, String);

/// Counters that only ever grow, over all the loads of Falco that pages were seen of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Matches by `FalcoRule`: of those that are loaded, as many as there is room for. One that matched comes before one
    /// that did not.
    pub rules: BTreeMap<Owner, u64>,
    /// Matches of `FalcoRule`s without room.
    pub others: u64,
    /// Matches of rules that no `FalcoRule` makes: Falco's own and the administrator's.
    pub base: u64,
    /// Events that the kernel gave to Falco.
    pub events: u64,
    /// Events that were lost before Falco saw them.
    pub events_dropped: u64,
    /// Alerts that were lost because an output was too slow.
    pub outputs_dropped: u64,
    /// For how many rules there is room.
    most: usize,
    /// Whose each loaded rule is, by the name that Falco knows it by.
    owners: BTreeMap<String, Owner>,
    /// Matches of `FalcoRule`s that are not loaded now, as many as there is room for: a rule that was left out for a while,
    /// as on the way back from a death, goes on from where it was.
    away: BTreeMap<Owner, u64>,
    /// Of which load the last page was, and what it showed.
    last: (u64, Counts),
}

impl Tally {
    /// Nothing counted yet, with room for so many rules.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// With the rules that may be counted from now on. During a swap these are those of both sets.
    #[must_use]
    pub fn owned_by(mut self, owners: BTreeMap<String, Owner>) -> Self {
        let loaded: BTreeSet<&Owner> = owners.values().collect();
        let (rules, away) = std::mem::take(&mut self.rules).into_iter().partition(|(rule, _)| loaded.contains(rule));
        self.rules = rules;
        self.away.extend(BTreeMap::into_iter(away).filter(|(_, count)| *count > 0));
        while self.away.len() > self.most {
            self.away.pop_first();
        }
        self.owners = owners;
        let (matched, silent): (Vec<&Owner>, Vec<&Owner>) =
            self.owners.values().partition(|owner| self.away.contains_key(*owner));
        for owner in matched.into_iter().chain(silent) {
            if self.rules.len() < self.most {
                let before = self.away.remove(owner).unwrap_or_default();
                *self.rules.entry(owner.clone()).or_default() += before;
            }
        }
        self
    }

    /// With further rules that may be counted, as long as it is not known which of them are loaded.
    #[must_use]
    pub fn also_owned_by(mut self, more: BTreeMap<String, Owner>) -> Self {
        let mut owners = std::mem::take(&mut self.owners);
        owners.extend(more);
        self.owned_by(owners)
    }

    /// How many rules of `FalcoRule`s are loaded.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.owners.len()
    }

    /// With what a page says. Pages may come out of order: one of an earlier load than the last counts for nothing,
    /// unless it is known to be `current`, as after a step of the clock.
    #[must_use]
    pub fn with(mut self, page: &Page, current: bool) -> Self {
        let (load, last) = std::mem::take(&mut self.last);
        if page.reloaded != load && page.reloaded < load && !current {
            self.last = (load, last);
            return self;
        }
        let same = page.reloaded == load;
        let last = if same { last } else { Counts::default() };
        let counts = &page.counts;
        for (name, count) in &counts.matches {
            let more = count.saturating_sub(last.matches.get(name).copied().unwrap_or(0));
            if more == 0 {
                continue;
            }
            match self.owners.get(name).cloned() {
                None => self.base += more,
                Some(owner) => match self.place(&owner) {
                    Some(place) => *place += more,
                    None => self.others += more,
                },
            }
        }
        self.events += counts.events.saturating_sub(last.events);
        self.events_dropped += counts.events_dropped.saturating_sub(last.events_dropped);
        self.outputs_dropped += counts.outputs_dropped.saturating_sub(last.outputs_dropped);
        // An older page of the same load must not make what the newer one showed count twice.
        let most = |new: u64, old: u64| new.max(old);
        let mut matches = last.matches;
        for (name, count) in &counts.matches {
            let known = matches.entry(name.clone()).or_default();
            *known = most(*known, *count);
        }
        let shown = Counts {
            matches,
            events: most(counts.events, last.events),
            events_dropped: most(counts.events_dropped, last.events_dropped),
            outputs_dropped: most(counts.outputs_dropped, last.outputs_dropped),
        };
        self.last = (page.reloaded, shown);
        self
    }

    /// The counter of a rule, for which one that never matched makes room.
    fn place(&mut self, owner: &Owner) -> Option<&mut u64> {
        if !self.rules.contains_key(owner) && self.rules.len() >= self.most {
            let silent = self.rules.iter().find(|(_, count)| **count == 0).map(|(rule, _)| rule.clone())?;
            self.rules.remove(&silent);
        }
        let before = self.away.remove(owner).unwrap_or_default();
        let count = self.rules.entry(owner.clone()).or_default();
        *count += before;
        Some(count)
    }
}

/// Whose each rule of these files is, as far as that is known.
pub(super) fn owners(files: &BTreeMap<String, RulesText>) -> BTreeMap<String, Owner> {
    let rules = files.iter().flat_map(|(namespace, file)| file.rules.iter().map(move |rule| (namespace, rule)));
    let known = rules.filter(|(_, (_, object))| !object.is_empty());
    known.map(|(namespace, (rule, object))| (rule.clone(), (namespace.clone(), object.clone()))).collect()
}

/// The tally of a node, which the engine and who scrapes keep together. Clones share it.
#[derive(Clone, Debug)]
pub struct Counters(Arc<Mutex<Tally>>);

impl Counters {
    /// With room for so many rules.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Tally::new(most))))
    }

    /// As it is now.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks Falco, if it can be asked where `page` says, and takes in what it has counted.
    pub async fn ask(&self, page: Option<SocketAddr>) {
        if let Some(address) = page
            && let Ok(page) = page::read(address).await
        {
            self.change(|tally| tally.with(&page, false));
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(Tally) -> Tally) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *tally = change(std::mem::take(&mut *tally));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owners(rules: &[&str]) -> BTreeMap<String, Owner> {
        rules.iter().map(|rule| ((*rule).to_owned(), owner(rule))).collect()
    }

    fn owner(rule: &str) -> Owner {
        ("team-a".to_owned(), format!("{rule}-object"))
    }

    fn page(load: u64, matches: &[(&str, u64)]) -> Page {
        let matches = matches.iter().map(|(rule, count)| ((*rule).to_owned(), *count)).collect();
        Page { reloaded: load, counts: Counts { matches, ..Counts::default() }, ..Page::default() }
    }

    fn count(tally: &Tally, rule: &str) -> Option<u64> {
        tally.rules.get(&owner(rule)).copied()
    }

    #[test]
    fn what_falco_forgets_with_a_load_is_carried_on() {
        let tally = Tally::new(9).owned_by(owners(&["a", "b"]));
        assert_eq!((count(&tally, "a"), count(&tally, "b")), (Some(0), Some(0)), "loaded rules show from the start");
        let tally = tally.with(&page(1, &[("a", 3)]), true).with(&page(1, &[("a", 5), ("base", 2)]), false);
        let tally = tally.with(&page(2, &[]), true).with(&page(2, &[("a", 1), ("b", 1)]), false);
        assert_eq!((count(&tally, "a"), count(&tally, "b"), tally.base), (Some(6), Some(1), 2));
    }

    #[test]
    fn rules_that_may_be_loaded_are_nobody_else_s() {
        let tally = Tally::new(9).owned_by(owners(&["a"])).also_owned_by(owners(&["b"]));
        let tally = tally.with(&page(1, &[("a", 3), ("b", 4), ("base", 1)]), true);
        assert_eq!((count(&tally, "a"), count(&tally, "b"), tally.base), (Some(3), Some(4), 1));
        let tally = tally.owned_by(owners(&["b"])).with(&page(1, &[("a", 3), ("b", 4), ("base", 1)]), true);
        assert_eq!((count(&tally, "a"), count(&tally, "b"), tally.base), (None, Some(4), 1));
    }

    #[test]
    fn a_page_that_comes_late_counts_nothing_twice() {
        let tally = Tally::new(9).owned_by(owners(&["a"])).with(&page(1, &[("a", 5)]), true);
        let tally = tally.with(&page(1, &[("a", 3)]), false).with(&page(1, &[("a", 6)]), false);
        assert_eq!(count(&tally, "a"), Some(6));
        let tally = tally.with(&page(2, &[("a", 1)]), true).with(&page(1, &[("a", 6)]), false);
        assert_eq!(count(&tally, "a"), Some(7));
        // The clock was set back: what Falco has loaded now is said to be current.
        let tally = tally.with(&page(1, &[("a", 2)]), true).with(&page(1, &[("a", 3)]), false);
        assert_eq!(count(&tally, "a"), Some(10));
    }

    #[test]
    fn there_is_room_for_so_many_and_a_silent_rule_makes_room_for_one_that_matches() {
        let tally = Tally::new(2).owned_by(owners(&["a", "b", "c", "d"]));
        assert_eq!(tally.rules.len(), 2);
        let tally = tally.with(&page(1, &[("c", 1), ("d", 2)]), true);
        assert_eq!((count(&tally, "c"), count(&tally, "d"), tally.rules.len()), (Some(1), Some(2), 2));
        let tally = tally.with(&page(1, &[("a", 4), ("c", 1), ("d", 2)]), false);
        assert_eq!((count(&tally, "a"), tally.others), (None, 4));
        // What is loaded no more gives its room away.
        let tally = tally.owned_by(owners(&["a", "d"]));
        assert_eq!((count(&tally, "a"), count(&tally, "c"), count(&tally, "d")), (Some(0), None, Some(2)));
        // A rule that comes back goes on.
        let tally = tally.owned_by(owners(&[])).owned_by(owners(&["d"]));
        assert_eq!((count(&tally, "d"), tally.rules.len()), (Some(2), 1));
        let none = Tally::new(0).owned_by(owners(&["a"])).with(&page(1, &[("a", 3)]), true);
        assert_eq!((none.rules.len(), none.others), (0, 3));
    }

    proptest! {
        /// Whatever the order of pages within a load, and however many are missed, what is counted is never more than
        /// what happened; and all of it once the last page of each load was seen.
        #[test]
        fn nothing_is_counted_twice(loads in prop::collection::vec(prop::collection::vec(0_u64..50, 1..6), 1..6)) {
            let mut tally = Tally::new(1).owned_by(owners(&["a"]));
            let mut happened = 0;
            for (load, counts) in loads.iter().enumerate() {
                let load = load as u64 + 1;
                for (at, count) in counts.iter().enumerate() {
                    tally = tally.with(&page(load, &[("a", *count)]), at == 0);
                    prop_assert!(count_of(&tally) <= happened + counts.iter().max().unwrap());
                }
                happened += counts.iter().max().unwrap();
                prop_assert_eq!(count_of(&tally), happened);
            }
        }
    }

    fn count_of(tally: &Tally) -> u64 {
        count(tally, "a").unwrap()
    }
}
