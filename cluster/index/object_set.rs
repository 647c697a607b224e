//! Objects by their own names, without a copy of each name as key.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::store::Store;
use crate::name::NamespacedName;
use crate::pod::Pod;
use crate::sparse;

/// An object that has its name.
pub(super) trait Named {
    /// Returns its namespace and name.
    fn name(&self) -> &NamespacedName;
}

impl Named for Pod {
    fn name(&self) -> &NamespacedName {
        &self.key
    }
}

/// The objects of a kind with many objects. Each has its own allocation, so that the free slots of the hash table are small, and so
/// that they can be shared.
#[derive(Clone)]
pub(super) struct ObjectSet<T>(HashSet<Entry<T>>);

/// An object that is hashed and found by its name.
#[derive(Clone)]
struct Entry<T>(Arc<T>);

impl<T> Default for ObjectSet<T> {
    fn default() -> Self {
        ObjectSet(HashSet::default())
    }
}

impl<T: Named + PartialEq> ObjectSet<T> {
    /// Returns an object.
    pub(super) fn get(&self, name: &NamespacedName) -> Option<&T> {
        self.shared(name).map(|object| &**object)
    }

    /// Returns an object, to share it.
    pub(super) fn shared(&self, name: &NamespacedName) -> Option<&Arc<T>> {
        self.0.get(name).map(|entry| &entry.0)
    }

    /// Returns all objects, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|entry| &*entry.0)
    }

    /// Adds or replaces an object. Returns true if it is new or differs from the old one.
    pub(super) fn replace(&mut self, object: T) -> bool {
        let has_changed = self.get(object.name()) != Some(&object);
        if has_changed {
            self.0.replace(Entry(Arc::new(object)));
        }
        has_changed
    }
}

impl<T: Named> Store for ObjectSet<T> {
    fn contains(&self, name: &NamespacedName) -> bool {
        self.0.contains(name)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn names(&self) -> Vec<NamespacedName> {
        self.0.iter().map(|entry| entry.0.name().clone()).collect()
    }

    fn remove(&mut self, name: &NamespacedName) -> bool {
        sparse::remove_element(&mut self.0, name)
    }
}

impl<T: Named> Borrow<NamespacedName> for Entry<T> {
    fn borrow(&self) -> &NamespacedName {
        self.0.name()
    }
}

impl<T: Named> Hash for Entry<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

impl<T: Named> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl<T: Named> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq)]
    struct Versioned(NamespacedName, u32);

    impl Named for Versioned {
        fn name(&self) -> &NamespacedName {
            &self.0
        }
    }

    #[test]
    fn objects_are_replaced_and_removed_by_name() {
        let name = |n: usize| NamespacedName::new("ns", &format!("o{n}"));
        let mut set = ObjectSet::default();
        for n in 0..10_000 {
            assert!(set.replace(Versioned(name(n), 1)), "it is new");
        }
        assert!(!set.replace(Versioned(name(7), 1)), "it is the same");
        assert!(set.replace(Versioned(name(7), 2)) && set.len() == 10_000);
        assert_eq!(set.get(&name(7)).map(|object| object.1), Some(2));
        assert!(!set.remove(&name(10_000)));
        assert!((1..10_000).all(|n| set.remove(&name(n)) && !set.contains(&name(n))));
        assert_eq!(set.names(), [name(0)]);
        assert_eq!(set.values().count(), 1);
        assert!(set.0.capacity() < 100, "{}", set.0.capacity());
    }
}
