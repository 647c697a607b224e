//! Counts users of things, and tells which things came and went in between.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// How often each thing is used.
pub(super) struct ReferenceCounts<K> {
    counts: BTreeMap<K, usize>,
    /// What was counted since it was last settled, and whether it was used then.
    before: BTreeMap<K, bool>,
}

impl<K: Ord + Clone> ReferenceCounts<K> {
    pub(super) fn new() -> Self {
        ReferenceCounts { counts: BTreeMap::new(), before: BTreeMap::new() }
    }

    /// One user more.
    pub(super) fn add(&mut self, key: &K) {
        self.note(key);
        *self.counts.entry(key.clone()).or_default() += 1;
    }

    /// One user less.
    pub(super) fn remove(&mut self, key: &K) {
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

    /// Whether a thing is used.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.counts.contains_key(key)
    }

    /// The key that is used for this content, if any is.
    pub(super) fn key<Q: Ord + ?Sized>(&self, content: &Q) -> Option<&K>
    where
        K: Borrow<Q>,
    {
        self.counts.get_key_value(content).map(|(key, _)| key)
    }

    /// What is used and was not when this was last called; and what was used and is not any more.
    pub(super) fn take_changes(&mut self) -> (Vec<K>, Vec<K>) {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (key, before) in std::mem::take(&mut self.before) {
            match (before, self.counts.contains_key(&key)) {
                (false, true) => came.push(key),
                (true, false) => went.push(key),
                _ => {}
            }
        }
        (came, went)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_or_went_for_good_is_told() {
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
