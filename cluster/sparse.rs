//! Removal from hash tables that may have become sparse.
//!
//! Tenants may create objects by the hundred thousand for a moment. A hash table keeps the memory of its largest size, so that of a sparse
//! one is released.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

/// A table with fewer elements than this part of its capacity is sparse: an eighth.
const SPARSE: usize = 8;

/// Removes a value.
pub fn remove<K, V, S, Q>(map: &mut HashMap<K, V, S>, key: &Q) -> Option<V>
where
    K: Borrow<Q> + Hash + Eq,
    Q: Hash + Eq + ?Sized,
    S: BuildHasher,
{
    let removed = map.remove(key);
    if map.len() < map.capacity() / SPARSE {
        map.shrink_to(map.len() * 2);
    }
    removed
}

/// Removes an element of a set. Returns true if there was one.
pub fn remove_element<K, S, Q>(set: &mut HashSet<K, S>, key: &Q) -> bool
where
    K: Borrow<Q> + Hash + Eq,
    Q: Hash + Eq + ?Sized,
    S: BuildHasher,
{
    let removed = set.remove(key);
    if set.len() < set.capacity() / SPARSE {
        set.shrink_to(set.len() * 2);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_shrink_with_their_elements() {
        let mut map: HashMap<usize, usize> = (0..100_000).map(|n| (n, n)).collect();
        let mut set: HashSet<usize> = (0..100_000).collect();
        for n in 10..100_000 {
            assert_eq!((remove(&mut map, &n), remove_element(&mut set, &n)), (Some(n), true));
            assert!(map.capacity() <= SPARSE * (map.len() + 1) * 2, "{} for {}", map.capacity(), map.len());
            assert!(set.capacity() <= SPARSE * (set.len() + 1) * 2, "{} for {}", set.capacity(), set.len());
        }
        assert!(map.len() == 10 && set.len() == 10);
    }
}
