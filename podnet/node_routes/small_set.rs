//! Sets that usually have one element.

use std::ops::Deref;

/// A set as a sorted list. One element takes the space of one: a `BTreeSet` allocates that of eleven.
#[derive(Clone, Debug)]
pub(super) struct SmallSet<T>(Vec<T>);

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        SmallSet(Vec::new())
    }
}

impl<T> Deref for SmallSet<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Ord> SmallSet<T> {
    /// Adds an element.
    pub(super) fn insert(&mut self, element: T) {
        if let Err(position) = self.0.binary_search(&element) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(position, element);
        }
    }

    /// Removes an element.
    pub(super) fn remove(&mut self, element: &T) {
        if let Ok(position) = self.0.binary_search(element) {
            self.0.remove(position);
        }
        // Of many owners of one block there may be one again.
        if self.0.len() == 1 {
            self.0.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_sorted_and_one_takes_the_space_of_one() {
        let mut set = SmallSet::default();
        assert_eq!((set.len(), set.0.capacity()), (0, 0));
        set.insert(5_u64);
        set.insert(5);
        assert_eq!((&*set, set.0.capacity()), (&[5][..], 1));
        for element in [9, 1, 7, 1] {
            set.insert(element);
        }
        assert_eq!(*set, [1, 5, 7, 9]);
        set.remove(&6);
        for element in [5, 9, 1] {
            set.remove(&element);
        }
        assert_eq!((&*set, set.0.capacity()), (&[7][..], 1));
        set.remove(&7);
        assert!(set.is_empty());
    }
}
