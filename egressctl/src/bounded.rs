//! Tables that never grow beyond a bound, however many keys there are, and whose content depends on nothing but what was
//! put in: not on the order, and not on how many threads did it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// At most so many keys and their values.
#[derive(Debug)]
pub struct Bounded<K, V> {
    /// Each with a number that is as good as random and the same in every run; the greatest goes when there is no room.
    rows: BTreeMap<(u64, K), V>,
    most: usize,
}

/// How many there are usually: some 300 bytes each.
pub const MOST: usize = 100_000;

impl<K: Hash + Ord, V> Bounded<K, V> {
    /// An empty table for so many keys.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Bounded { rows: BTreeMap::new(), most }
    }

    /// Adds a value, or merges it with the one that the key has; returns what has no room any more. A key that had no room
    /// once never gets in again.
    pub fn add(&mut self, key: K, value: V, merge: impl FnOnce(&mut V, V)) -> Option<(K, V)> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        match self.rows.entry((hasher.finish(), key)) {
            std::collections::btree_map::Entry::Occupied(mut known) => merge(known.get_mut(), value),
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(value);
            }
        }
        if self.rows.len() <= self.most {
            return None;
        }
        self.rows.pop_last().map(|((_, key), value)| (key, value))
    }

    /// What is in it, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().map(|((_, key), value)| (key, value))
    }
}

impl<K, V> IntoIterator for Bounded<K, V> {
    type Item = (K, V);
    type IntoIter = std::iter::Map<std::collections::btree_map::IntoIter<(u64, K), V>, fn(((u64, K), V)) -> (K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter().map(|((_, key), value)| (key, value))
    }
}
