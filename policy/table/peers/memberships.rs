//! Memberships: the groups of peers that an address belongs to.

use std::collections::HashSet;
use std::sync::Arc;

/// Index of a group of peers in the list of all groups.
pub(in crate::table) type GroupIndex = u32;

/// The groups of an address, sorted. Equal memberships share one allocation.
pub(super) type Membership = Arc<[GroupIndex]>;

/// All memberships that are used.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    known: HashSet<Membership>,
}

impl Memberships {
    /// Returns the shared membership with these groups, which are sorted.
    pub(super) fn shared(&mut self, groups: &[GroupIndex]) -> Membership {
        if let Some(known) = self.known.get(groups) {
            return Arc::clone(known);
        }
        let new: Membership = groups.into();
        self.known.insert(Arc::clone(&new));
        new
    }

    /// Drops memberships that nothing uses any longer.
    pub(super) fn remove_unused(&mut self) {
        self.known.retain(|membership| Arc::strong_count(membership) > 1);
        if self.known.capacity() > 64 && self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to_fit();
        }
    }
}

/// Returns the sorted groups of a membership after some were added and some removed.
pub(super) fn changed(
    before: &[GroupIndex],
    added: &[GroupIndex],
    removed: &[GroupIndex],
) -> Vec<GroupIndex> {
    let mut after: Vec<GroupIndex> =
        before.iter().copied().filter(|group| !removed.contains(group)).collect();
    after.extend(added);
    after.sort_unstable();
    after.dedup();
    after
}

/// Returns the sorted groups of two memberships.
pub(super) fn union(a: &[GroupIndex], b: &[GroupIndex]) -> Vec<GroupIndex> {
    changed(a, b, &[])
}
