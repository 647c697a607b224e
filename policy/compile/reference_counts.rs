//! Reference counts that report which keys have become used or unused.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Number of references to each key.
#[derive(Debug)]
pub(crate) struct ReferenceCounts<K> {
    counts: BTreeMap<K, usize>,
    /// Keys that were counted since the last call of [`Self::take_changes`], and whether they were used then.
    before: BTreeMap<K, bool>,
}

impl<K> Default for ReferenceCounts<K> {
    fn default() -> Self {
        ReferenceCounts { counts: BTreeMap::new(), before: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> ReferenceCounts<K> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Returns all used keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.counts.keys()
    }

    /// Adds a reference.
    pub(crate) fn add(&mut self, key: &K) {
        self.note(key);
        *self.counts.entry(key.clone()).or_default() += 1;
    }

    /// Removes a reference.
    pub(crate) fn remove(&mut self, key: &K) {
        self.note(key);
        if let Some(count) = self.counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(key);
            }
        }
    }

    fn note(&mut self, key: &K) {
        if !self.before.contains_key(key) {
            self.before.insert(key.clone(), self.counts.contains_key(key));
        }
    }

    /// Returns true if a key is used.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.counts.contains_key(key)
    }

    /// Returns the used key that equals this content.
    pub(crate) fn key<Q: Ord + ?Sized>(&self, content: &Q) -> Option<&K>
    where
        K: Borrow<Q>,
    {
        self.counts.get_key_value(content).map(|(key, _)| key)
    }

    /// Returns the keys that have become used since the last call, and those that have become unused.
    pub(crate) fn take_changes(&mut self) -> (Vec<K>, Vec<K>) {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (key, before) in std::mem::take(&mut self.before) {
            match (before, self.counts.contains_key(&key)) {
                (false, true) => added.push(key),
                (true, false) => removed.push(key),
                _ => {}
            }
        }
        (added, removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_net_changes_are_reported() {
        let mut tally = ReferenceCounts::new();
        ["a", "b", "b"].iter().for_each(|key| tally.add(key));
        assert_eq!(tally.take_changes(), (vec!["a", "b"], vec![]));
        tally.remove(&"a");
        tally.add(&"a");
        tally.remove(&"b");
        tally.add(&"c");
        tally.remove(&"c");
        assert_eq!(tally.take_changes(), (vec![], vec![]));
        tally.remove(&"b");
        assert_eq!(tally.take_changes(), (vec![], vec!["b"]));
        assert!(tally.contains(&"a") && !tally.contains(&"b"));
    }
}
