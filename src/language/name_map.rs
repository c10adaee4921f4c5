//! What is known by names, for words most of which are none.

use std::borrow::Borrow;
use std::hash::Hash;

use super::FastMap;

/// A map from names. Of the words of conditions few are names: their first bytes and lengths tell most of them apart from
/// all names, which takes far less than a look into the map.
#[derive(Clone, Debug)]
pub(crate) struct NameMap<K, V> {
    /// A bit for each kind of name that there is.
    sieve: [u64; 8],
    map: FastMap<K, V>,
}

impl<K, V> Default for NameMap<K, V> {
    fn default() -> Self {
        Self { sieve: [0; 8], map: FastMap::default() }
    }
}

/// The place of a word's bit: the row of the sieve, by the length, and the bit in it, by the first byte.
fn bit(word: &str) -> (usize, u64) {
    let first = word.as_bytes().first().map_or(0, |byte| *byte);
    (word.len() % 8, 1 << (first % 64))
}

impl<K: Borrow<str> + Eq + Hash, V> NameMap<K, V> {
    /// Adds what is known by a name; what was known by it before is forgotten.
    pub(crate) fn insert(&mut self, name: K, value: V) {
        let (row, bit) = bit(name.borrow());
        self.sieve[row] |= bit;
        self.map.insert(name, value);
    }

    /// What is known by the name.
    // In place, what most words come to takes no call.
    #[inline]
    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        let (row, bit) = bit(name);
        if self.sieve[row] & bit == 0 { None } else { self.look_up(name) }
    }

    #[inline(never)]
    fn look_up(&self, name: &str) -> Option<&V> {
        self.map.get(name)
    }

    /// Whether something is known by the name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The names, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(Borrow::borrow)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(names in proptest::collection::vec("[a-cé]{0,3}", 0..12), words in proptest::collection::vec("[a-cé]{0,3}", 0..12)) {
            let (mut map, mut model) = (NameMap::default(), BTreeMap::new());
            for (number, name) in names.iter().enumerate() {
                map.insert(name.clone(), number);
                model.insert(name.clone(), number);
            }
            for word in names.iter().chain(&words) {
                prop_assert_eq!(map.get(word), model.get(word));
                prop_assert_eq!(map.contains(word), model.contains_key(word));
            }
            let mut found: Vec<_> = map.names().collect();
            found.sort_unstable();
            prop_assert_eq!(found, model.keys().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(map.is_empty(), model.is_empty());
        }
    }
}
