//! Interned values: equal values share one allocation, which is freed with the last of them.
//!
//! A million endpoints refer to a few thousand nodes and zones, so each refers to one shared value in 8 bytes. Owners of objects
//! choose many of these values (port names, labels, node names of EndpointSlices), so values that no object has must not stay.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::sparse;

/// A type of which values are interned.
pub trait Internable: Eq + Hash + Send + Sync + 'static {
    /// Returns the table of all values of the type in use.
    fn table() -> &'static InternTable<Self>;
}

/// All values of a type in use.
pub struct InternTable<T: Internable + ?Sized>(RwLock<HashSet<Slot<T>>>);

/// A shared reference to an interned value. Equal values are one value, so they are compared by address.
pub struct Interned<T: Internable + ?Sized>(Arc<Entry<T>>);

struct Entry<T: ?Sized> {
    /// The number of [`Interned`] references. Unlike the count of the [`Arc`], it does not include the table, and it can be
    /// tested after a reference was dropped.
    references: AtomicUsize,
    value: Box<T>,
}

/// An entry of the table, which is found by its value.
struct Slot<T: ?Sized>(Arc<Entry<T>>);

impl<T: Internable + ?Sized> InternTable<T> {
    /// Returns an empty table.
    pub(crate) fn new() -> Self {
        InternTable(RwLock::default())
    }

    /// Returns the shared value that equals `value`, which is copied if there is none.
    pub(crate) fn intern<'a>(&self, value: &'a T) -> Interned<T>
    where
        Box<T>: From<&'a T>,
    {
        self.find(value).unwrap_or_else(|| self.insert(value.into()))
    }

    fn find(&self, value: &T) -> Option<Interned<T>> {
        // A panic while the lock is held leaves a valid table: each change is one call.
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(value).map(Slot::reference)
    }

    fn insert(&self, value: Box<T>) -> Interned<T> {
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&*value) {
            return slot.reference();
        }
        let slot = Slot(Arc::new(Entry { references: AtomicUsize::new(0), value }));
        let interned = slot.reference();
        slots.insert(slot);
        interned
    }

    /// Removes an entry from the table, unless it was referred to again in the meantime.
    fn remove_unused(&self, entry: &Arc<Entry<T>>) {
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // References are only created with the lock held, or from another reference.
        let is_unused = entry.references.load(Ordering::Acquire) == 0;
        if is_unused && slots.get(&*entry.value).is_some_and(|slot| Arc::ptr_eq(&slot.0, entry)) {
            sparse::remove_element(&mut slots, &*entry.value);
        }
    }

    /// Returns the number of values.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<T: Internable> InternTable<T> {
    /// Returns the shared value that equals `value`.
    pub(crate) fn intern_owned(&self, value: T) -> Interned<T> {
        self.find(&value).unwrap_or_else(|| self.insert(Box::new(value)))
    }
}

impl<T: Internable + ?Sized> Slot<T> {
    fn reference(&self) -> Interned<T> {
        self.0.references.fetch_add(1, Ordering::Relaxed);
        Interned(Arc::clone(&self.0))
    }
}

impl<T: Internable + ?Sized> Clone for Interned<T> {
    fn clone(&self) -> Self {
        self.0.references.fetch_add(1, Ordering::Relaxed);
        Interned(Arc::clone(&self.0))
    }
}

impl<T: Internable + ?Sized> Drop for Interned<T> {
    fn drop(&mut self) {
        if self.0.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            T::table().remove_unused(&self.0);
        }
    }
}

impl<T: Internable + ?Sized> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Internable + fmt::Debug + ?Sized> fmt::Debug for Interned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Internable + ?Sized> PartialEq for Interned<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Internable + ?Sized> Eq for Interned<T> {}

impl<T: Internable + ?Sized> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl<T: ?Sized> Borrow<T> for Slot<T> {
    fn borrow(&self) -> &T {
        &self.0.value
    }
}

impl<T: Hash + ?Sized> Hash for Slot<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.value.hash(state);
    }
}

impl<T: Eq + ?Sized> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}

impl<T: Eq + ?Sized> Eq for Slot<T> {}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// A type of its own, as the tables are global and tests run in parallel.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Number(u32);

    impl Internable for Number {
        fn table() -> &'static InternTable<Self> {
            static TABLE: LazyLock<InternTable<Number>> = LazyLock::new(InternTable::new);
            &TABLE
        }
    }

    fn intern(number: u32) -> Interned<Number> {
        Number::table().intern_owned(Number(number))
    }

    #[test]
    fn values_are_shared_and_freed_with_the_last_reference() {
        let one = intern(1);
        assert!(one == intern(1) && one == one.clone() && one != intern(2));
        assert_eq!((Number::table().len(), (*one).0), (1, 1), "2 was freed");
        drop(one);
        assert_eq!(Number::table().len(), 0);
        // Threads that drop the last reference while others intern the same value.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..20_000 {
                        let (a, b) = (intern(i % 3), intern(i % 3));
                        assert!(a == b && (*a).0 == i % 3);
                    }
                });
            }
        });
        assert_eq!(Number::table().len(), 0);
        let many: Vec<_> = (0..100_000).map(intern).collect();
        assert_eq!(Number::table().len(), many.len());
        drop(many);
        let slots = Number::table().0.read().expect("no panic");
        assert!(slots.is_empty() && slots.capacity() < 100, "{}", slots.capacity());
    }
}
