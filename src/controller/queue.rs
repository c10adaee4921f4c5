//! The queue of namespaces: the first edit after a rest ripens at once, the following ones by a quiet window with an upper
//! bound; facts (reports, deadlines) ripen at once. Pure: time is a parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// How long edits are waited for after the last one.
const QUIET: Duration = Duration::from_millis(150);
/// How long the first waiting edit waits at most, and how long a rest is.
const AT_MOST: Duration = Duration::from_secs(1);
/// The wait after the first failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why a namespace is to be decided for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Its items changed: what is to be loaded may be something else.
    Edit,
    /// Anything else that a decision rests on.
    Fact,
}

#[derive(Debug, Default)]
struct Slot {
    /// When to decide for what is no edit.
    fact: Option<Instant>,
    /// The first edit that is not rendered, and when to render it.
    edit: Option<(Instant, Instant)>,
    /// When edits were rendered last.
    rendered: Option<Instant>,
    failures: u32,
}

impl Slot {
    fn at(&self) -> Option<Instant> {
        self.fact.into_iter().chain(self.edit.map(|(_, ripe)| ripe)).min()
    }
}

/// Which namespace is to be decided for, and when.
#[derive(Debug, Default)]
pub struct Queue {
    slots: BTreeMap<String, Slot>,
    times: BTreeSet<(Instant, String)>,
}

/// A namespace that is to be decided for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ripe {
    /// The namespace.
    pub namespace: String,
    /// Whether its items are to be rendered anew; otherwise what was rendered last stands a little longer.
    pub render: bool,
    /// Since when the first of its edits has waited.
    pub since: Option<Instant>,
}

impl Queue {
    /// Changes a namespace's slot, and its place in the order of times with it.
    fn change<T>(&mut self, namespace: &str, change: impl FnOnce(&mut Slot) -> T) -> T {
        let slot = self.slots.entry(namespace.to_owned()).or_default();
        let old = slot.at();
        let result = change(slot);
        let new = slot.at();
        if old != new {
            if let Some(old) = old {
                self.times.remove(&(old, namespace.to_owned()));
            }
            if let Some(new) = new {
                self.times.insert((new, namespace.to_owned()));
            }
        }
        result
    }

    /// Takes in that a namespace changed.
    pub fn touch(&mut self, namespace: &str, touch: Touch, now: Instant) {
        match touch {
            Touch::Fact => self.look_again(namespace, now),
            Touch::Edit => self.change(namespace, |slot| {
                let rested = slot.rendered.is_none_or(|last| now.saturating_duration_since(last) >= AT_MOST);
                slot.edit = Some(match slot.edit {
                    // Its time has come already, it has only not been taken yet.
                    Some((first, ripe)) if ripe <= now => (first, ripe),
                    Some((first, _)) => (first, (now + QUIET).min(first + AT_MOST)),
                    None if rested => (now, now),
                    None => (now, now + QUIET),
                });
            }),
        }
    }

    /// Takes in that a namespace is to be looked at again at a time, if nothing happens sooner.
    pub fn look_again(&mut self, namespace: &str, at: Instant) {
        self.change(namespace, |slot| slot.fact = Some(slot.fact.map_or(at, |old| old.min(at))));
    }

    /// Takes in that what was decided for a namespace could not be done: it is tried again, later each time.
    pub fn failed(&mut self, namespace: &str, now: Instant) {
        let wait = self.change(namespace, |slot| {
            slot.failures = slot.failures.saturating_add(1);
            FIRST_RETRY.saturating_mul(1 << (slot.failures - 1).min(16)).min(LAST_RETRY)
        });
        self.look_again(namespace, now + wait);
    }

    /// Takes in that what was decided for a namespace was done.
    pub fn done(&mut self, namespace: &str) {
        if let Some(slot) = self.slots.get_mut(namespace) {
            slot.failures = 0;
        }
    }

    /// The next namespace whose time has come and which is not `busy`.
    pub fn next(&mut self, now: Instant, busy: impl Fn(&str) -> bool) -> Option<Ripe> {
        let mut ripe = self.times.iter().take_while(|(at, _)| *at <= now);
        let namespace = ripe.find(|(_, namespace)| !busy(namespace))?.1.clone();
        Some(self.change(&namespace, |slot| {
            slot.fact = None;
            let mut ripe = Ripe { namespace: namespace.clone(), render: false, since: None };
            if let Some((first, at)) = slot.edit
                && at <= now
            {
                slot.edit = None;
                slot.rendered = Some(now);
                ripe.render = true;
                ripe.since = Some(first);
            }
            ripe
        }))
    }

    /// When the next namespace ripens that is not `busy`.
    pub fn next_at(&self, busy: impl Fn(&str) -> bool) -> Option<Instant> {
        self.times.iter().find(|(_, namespace)| !busy(namespace)).map(|(at, _)| *at)
    }

    /// Whether an edit of the namespace waits to be rendered.
    pub fn edit_waits(&self, namespace: &str) -> bool {
        self.slots.get(namespace).is_some_and(|slot| slot.edit.is_some())
    }

    /// Forgets a namespace of which nothing is left.
    pub fn forget(&mut self, namespace: &str) {
        self.change(namespace, |slot| *slot = Slot::default());
        self.slots.remove(namespace);
    }

    /// Forgets everything that waits; the failures too.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.times.clear();
    }

    /// How many namespaces wait whose time has come, and since when the first of them.
    pub fn backlog(&self, now: Instant) -> (usize, Duration) {
        let mut ripe = self.times.iter().take_while(|(at, _)| *at <= now);
        let first = ripe.next();
        let age = first.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at));
        (usize::from(first.is_some()) + ripe.count(), age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_first_edit_after_a_rest_is_rendered_at_once_and_a_burst_in_few_steps() {
        let begin = Instant::now();
        let mut queue = Queue::default();
        let mut renders = vec![];
        for step in 0..4000 {
            let now = begin + ms(step);
            if step < 1000 && step % 5 == 0 {
                queue.touch("a", Touch::Edit, now);
            }
            while let Some(ripe) = queue.next(now, |_| false) {
                assert!(ripe.render);
                renders.push(step);
            }
        }
        assert_eq!(renders[0], 0);
        assert!(renders.len() <= 3, "{renders:?}");
        assert!(renders.last().is_some_and(|last| (995..2000).contains(last)), "{renders:?}");
    }

    #[test]
    fn facts_ripen_at_once_and_leave_edits_waiting() {
        let begin = Instant::now();
        let mut queue = Queue::default();
        queue.touch("a", Touch::Edit, begin);
        assert!(queue.next(begin, |_| false).unwrap().render);
        queue.touch("a", Touch::Edit, begin + ms(10));
        queue.touch("a", Touch::Fact, begin + ms(20));
        assert_eq!(queue.next(begin + ms(20), |_| false).map(|ripe| ripe.render), Some(false));
        assert!(queue.edit_waits("a"));
        assert_eq!(queue.next(begin + ms(21), |_| false), None);
        assert_eq!(queue.next_at(|_| false), Some(begin + ms(10) + QUIET));
        let ripe = queue.next(begin + ms(10) + QUIET, |_| false).unwrap();
        assert_eq!((ripe.render, ripe.since), (true, Some(begin + ms(10))));
    }

    #[test]
    fn busy_ones_wait_and_failures_wait_longer_each_time() {
        let begin = Instant::now();
        let mut queue = Queue::default();
        queue.touch("a", Touch::Fact, begin);
        queue.touch("b", Touch::Fact, begin);
        assert_eq!(queue.next(begin, |namespace| namespace == "a").unwrap().namespace, "b");
        assert_eq!(queue.next_at(|namespace| namespace == "a"), None);
        assert_eq!(queue.backlog(begin + ms(7)), (1, ms(7)));
        assert_eq!(queue.next(begin, |_| false).unwrap().namespace, "a");
        queue.failed("a", begin);
        assert_eq!(queue.next_at(|_| false), Some(begin + FIRST_RETRY));
        queue.next(begin + FIRST_RETRY, |_| false).unwrap();
        queue.failed("a", begin);
        assert_eq!(queue.next_at(|_| false), Some(begin + FIRST_RETRY * 2));
        queue.forget("a");
        assert_eq!(queue.next_at(|_| false), None);
    }
}
