//! The elements of a set in memory.
//!
//! A table for 10,000 Services has 100,000 elements in a single map, whose keys have the same length, and so have its data. They
//! are records of this length in one allocation, found by a hash table of their numbers: 30 bytes for an element of IPv4, where a
//! `HashMap<Key, Element>` takes 170. Other elements (verdicts, timeouts) are few, and such a map has them.

use std::collections::HashMap;
use std::collections::hash_map;
use std::fmt;

use super::element::{Element, Key};
use super::element_records::{Records, SPARSE};

/// The elements of a set or map, by key.
#[derive(Clone)]
pub struct Elements(Storage);

#[derive(Clone)]
enum Storage {
    Records(Records),
    Any(HashMap<Key, Element>),
}

impl Elements {
    /// Returns no elements.
    pub fn new() -> Self {
        Elements(Storage::Records(Records::default()))
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match &self.0 {
            Storage::Records(records) => records.len(),
            Storage::Any(map) => map.len(),
        }
    }

    /// Returns true if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns true if there is an element with the key.
    pub fn contains_key(&self, key: &Key) -> bool {
        match &self.0 {
            Storage::Records(records) => records.find(key.bytes()).is_some(),
            Storage::Any(map) => map.contains_key(key),
        }
    }

    /// Returns the element with a key.
    pub fn get(&self, key: &Key) -> Option<Element> {
        self.get_bytes(key.bytes())
    }

    /// Returns the element with the key of these bytes.
    pub fn get_bytes(&self, key: &[u8]) -> Option<Element> {
        match &self.0 {
            Storage::Records(records) => records.find(key).map(|at| records.element(at)),
            Storage::Any(map) => map.get(key).cloned(),
        }
    }

    /// Adds an element, or replaces the one with the same key, which is returned.
    pub fn insert(&mut self, key: Key, element: Element) -> Option<Element> {
        if let Storage::Records(records) = &mut self.0 {
            if records.accepts(&key, &element) {
                return records.insert(&key, &element);
            }
            let all = (0..records.len()).map(|at| (records.key(at), records.element(at))).collect();
            self.0 = Storage::Any(all);
        }
        match &mut self.0 {
            Storage::Any(map) => map.insert(key, element),
            Storage::Records(_) => None,
        }
    }

    /// Removes an element, which is returned.
    pub fn remove(&mut self, key: &Key) -> Option<Element> {
        match &mut self.0 {
            Storage::Records(records) => records.remove(key.bytes()),
            Storage::Any(map) => {
                let removed = map.remove(key);
                // A set may have had the addresses of all pods for a moment.
                if map.len() < map.capacity() / SPARSE {
                    map.shrink_to(map.len() * 2);
                }
                removed
            }
        }
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Returns all elements, in no order.
    pub fn iter(&self) -> Iter<'_> {
        match &self.0 {
            Storage::Records(records) => Iter(Source::Records { records, next: 0 }),
            Storage::Any(map) => Iter(Source::Any(map.iter())),
        }
    }

    /// Returns all keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.iter().map(|(key, _)| key)
    }

    /// Returns all elements without their keys, in no order.
    pub fn values(&self) -> impl Iterator<Item = Element> + '_ {
        self.iter().map(|(_, element)| element)
    }
}

impl Default for Elements {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, element)| other.get(&key) == Some(element))
    }
}

impl Eq for Elements {}

impl fmt::Debug for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Extend<(Key, Element)> for Elements {
    fn extend<T: IntoIterator<Item = (Key, Element)>>(&mut self, elements: T) {
        elements.into_iter().for_each(|(key, element)| _ = self.insert(key, element));
    }
}

impl FromIterator<(Key, Element)> for Elements {
    fn from_iter<T: IntoIterator<Item = (Key, Element)>>(elements: T) -> Self {
        let mut all = Elements::new();
        all.extend(elements);
        all
    }
}

impl<'a> IntoIterator for &'a Elements {
    type Item = (Key, Element);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The iterator of [`Elements::iter`].
#[derive(Clone)]
pub struct Iter<'a>(Source<'a>);

#[derive(Clone)]
enum Source<'a> {
    Records { records: &'a Records, next: usize },
    Any(hash_map::Iter<'a, Key, Element>),
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

impl Iterator for Iter<'_> {
    type Item = (Key, Element);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Records { records, next } => {
                let at = *next;
                *next += 1;
                (at < records.len()).then(|| (records.key(at), records.element(at)))
            }
            Source::Any(elements) => elements.next().map(|(key, element)| (key.clone(), element.clone())),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = match &self.0 {
            Source::Records { records, next } => records.len().saturating_sub(*next),
            Source::Any(elements) => elements.len(),
        };
        (length, Some(length))
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nf_tables::Verdict;

    fn key(number: u32) -> Key {
        Key::new().number(number).port(80)
    }

    /// Elements that fit one layout, and with others between them.
    fn element(kind: u8, number: u32) -> Element {
        match kind {
            0..=5 => Element::value(Key::new().number(number)),
            6 => Element::new(),
            7 => Element::range_to(key(number + 1)),
            8 => Element::verdict(Verdict::Drop),
            _ => Element::new().with_timeout(1000),
        }
    }

    proptest! {
        #[test]
        fn elements_are_those_of_a_hash_map(
            steps in proptest::collection::vec((0u32..40, 0u8..10, 0u32..3, any::<bool>()), 0..200),
            kinds in 1u8..10,
        ) {
            let (mut elements, mut map) = (Elements::new(), HashMap::new());
            for (number, kind, data, adds) in steps {
                let (key, element) = (key(number), element(kind % kinds, data));
                if adds {
                    prop_assert_eq!(elements.insert(key.clone(), element.clone()), map.insert(key, element));
                } else {
                    prop_assert_eq!(elements.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(elements.len(), map.len());
                prop_assert!(elements.iter().all(|(key, element)| map.get(&key) == Some(&element)));
                prop_assert!(map.iter().all(|(key, element)| elements.get(key).as_ref() == Some(element)));
                let same: Elements = map.clone().into_iter().collect();
                prop_assert_eq!(&elements, &same);
            }
        }
    }

    #[test]
    fn memory_follows_the_number_of_elements() {
        let mut elements: Elements = (0..100_000).map(|n| (key(n), element(0, n))).collect();
        let memory = |elements: &Elements| match &elements.0 {
            Storage::Records(records) => records.allocated(),
            Storage::Any(_) => panic!("they have one layout"),
        };
        assert!(memory(&elements) < 100_000 * 24, "{}", memory(&elements));
        (10..100_000).for_each(|n| _ = elements.remove(&key(n)));
        assert!(memory(&elements) < 4_000, "{}", memory(&elements));
        assert!((0..10).all(|n| elements.get(&key(n)) == Some(element(0, n))));
    }
}
