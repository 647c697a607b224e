//! Objects of one kind by name, whatever the type of their names.

use std::collections::HashMap;
use std::hash::Hash;

use crate::name::{Name, NamespacedName};
use crate::sparse;

/// The objects of a kind, by name.
pub(super) trait Store {
    fn contains(&self, name: &NamespacedName) -> bool;
    fn len(&self) -> usize;
    fn names(&self) -> Vec<NamespacedName>;
    /// Removes an object. Returns true if there was one.
    fn remove(&mut self, name: &NamespacedName) -> bool;
}

impl<V> Store for HashMap<NamespacedName, V> {
    fn contains(&self, name: &NamespacedName) -> bool {
        self.contains_key(name)
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn names(&self) -> Vec<NamespacedName> {
        self.keys().cloned().collect()
    }

    fn remove(&mut self, name: &NamespacedName) -> bool {
        sparse::remove(self, name).is_some()
    }
}

/// Of cluster-scoped objects.
impl<V> Store for HashMap<Name, V> {
    fn contains(&self, name: &NamespacedName) -> bool {
        self.contains_key(&Name::new(&name.name))
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn names(&self) -> Vec<NamespacedName> {
        self.keys().map(|name| NamespacedName::new("", name.as_str())).collect()
    }

    fn remove(&mut self, name: &NamespacedName) -> bool {
        sparse::remove(self, &Name::new(&name.name)).is_some()
    }
}

/// Inserts a value. Returns true if it is new or differs from the old one.
pub(super) fn replace<K: Hash + Eq, V: PartialEq>(map: &mut HashMap<K, V>, key: K, value: V) -> bool {
    match map.get_mut(&key) {
        Some(old) if *old == value => false,
        Some(old) => {
            *old = value;
            true
        }
        None => {
            map.insert(key, value);
            true
        }
    }
}
