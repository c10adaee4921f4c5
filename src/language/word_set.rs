//! Small sets of words.

use std::cmp::Ordering;

use smol_str::SmolStr;

/// A set of words, in order. A rule uses a handful of lists and macros: a sorted row of them takes less than a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordSet(Vec<SmolStr>);

impl WordSet {
    /// Adds a word; says whether it was not there yet.
    pub(crate) fn insert(&mut self, word: &str) -> bool {
        let place = self.0.binary_search_by(|own| own.as_str().cmp(word));
        if let Err(at) = place {
            self.0.insert(at, word.into());
        }
        place.is_err()
    }

    /// Adds all words of another set, in a time linear in both.
    pub(crate) fn add_all(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        let mut joined = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut own, mut others) = (std::mem::take(&mut self.0).into_iter().peekable(), other.0.iter().peekable());
        while let (Some(one), Some(two)) = (own.peek(), others.peek()) {
            match one.cmp(two) {
                Ordering::Less => joined.extend(own.next()),
                Ordering::Equal => drop(others.next()),
                Ordering::Greater => joined.extend(others.next().cloned()),
            }
        }
        joined.extend(own);
        joined.extend(others.cloned());
        self.0 = joined;
    }

    /// Adds words in any order, of which some may be there.
    pub(crate) fn extend<'w>(&mut self, words: impl IntoIterator<Item = &'w str>) {
        self.0.extend(words.into_iter().map(SmolStr::from));
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// Adds all words of another set, and leaves that empty.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.add_all(&std::mem::take(other));
        }
    }

    /// Whether the word is in it.
    #[must_use]
    pub fn contains(&self, word: &str) -> bool {
        self.0.binary_search_by(|own| own.as_str().cmp(word)).is_ok()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(SmolStr::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(one in proptest::collection::vec("[a-d]{0,2}", 0..8), two in proptest::collection::vec("[a-d]{0,2}", 0..8)) {
            let of = |words: &[String]| {
                let mut set = WordSet::default();
                let mut model = BTreeSet::new();
                for word in words {
                    assert_eq!(set.insert(word), model.insert(word.clone()));
                }
                (set, model)
            };
            let ((mut set, mut model), (other, model_of_other)) = (of(&one), of(&two));
            let (mut appended, mut left) = (set.clone(), other.clone());
            let mut extended = set.clone();
            extended.extend(two.iter().rev().map(String::as_str));
            set.add_all(&other);
            appended.append(&mut left);
            prop_assert!(appended == set && extended == set && left.is_empty());
            model.extend(model_of_other);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().collect::<Vec<_>>());
            prop_assert!(one.iter().chain(&two).all(|word| set.contains(word)) && !set.contains("x"));
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }
    }
}
