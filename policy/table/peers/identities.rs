//! Numbers of memberships.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::IdentityChanges;
use super::groups::Groups;
use super::memberships::{GroupIndex, Membership};
use crate::table::numbers::{Numbered, Numbers};

/// The identities of all addresses and ranges. The groups of a number never change while it is used.
#[derive(Debug)]
pub(super) struct Identities {
    numbers: Numbers,
    by_groups: HashMap<Membership, u32>,
    by_number: HashMap<u32, Used>,
    /// Identities that were used or have become unused since the last call of [`Self::take_changes`], and whether they
    /// existed then.
    changed: BTreeMap<u32, (Membership, bool)>,
}

#[derive(Debug)]
struct Used {
    groups: Membership,
    count: usize,
}

impl Default for Identities {
    fn default() -> Self {
        Identities {
            numbers: Numbers::new(Numbered::Identity),
            by_groups: HashMap::new(),
            by_number: HashMap::new(),
            changed: BTreeMap::new(),
        }
    }
}

impl Identities {
    /// Returns the number of a membership, which is used once more.
    pub(super) fn take(&mut self, groups: &Membership, known: &Groups) -> u32 {
        if let Some(number) = self.by_groups.get(groups) {
            if let Some(used) = self.by_number.get_mut(number) {
                used.count += 1;
            }
            return *number;
        }
        let [a, b, c, d, ..] = known.digest(groups);
        let number = self.numbers.take([a, b, c, d]);
        self.by_groups.insert(Arc::clone(groups), number);
        self.by_number.insert(number, Used { groups: Arc::clone(groups), count: 1 });
        self.changed.entry(number).or_insert_with(|| (Arc::clone(groups), false));
        number
    }

    /// Returns all identities with their groups.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[GroupIndex])> {
        self.by_number.iter().map(|(number, used)| (*number, &*used.groups))
    }

    /// Returns the number of identities.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Returns the groups of an identity; empty if there is no such identity.
    pub(super) fn groups_of(&self, number: u32) -> &[GroupIndex] {
        self.by_number.get(&number).map_or(&[], |used| &*used.groups)
    }

    /// Releases one use of a membership.
    pub(super) fn release(&mut self, groups: &Membership) {
        if let Some(number) = self.by_groups.get(groups) {
            self.release_number(*number);
        }
    }

    /// Releases one use of a number.
    pub(super) fn release_number(&mut self, number: u32) {
        let Some(used) = self.by_number.get_mut(&number) else { return };
        used.count -= 1;
        if used.count == 0 {
            self.changed.entry(number).or_insert_with(|| (Arc::clone(&used.groups), true));
        }
    }

    /// Returns the identities that have become used since the last call, and those that have become unused.
    pub(super) fn take_changes(&mut self) -> IdentityChanges {
        let mut changes = IdentityChanges::default();
        for (number, (groups, existed)) in std::mem::take(&mut self.changed) {
            let is_used = self.by_number.get(&number).is_some_and(|used| used.count > 0);
            if !is_used {
                self.by_number.remove(&number);
                self.by_groups.remove(&groups);
                self.numbers.release(number);
            }
            match (existed, is_used) {
                (false, true) => changes.created.push((number, groups)),
                (true, false) => changes.deleted.push((number, groups)),
                _ => {}
            }
        }
        changes
    }
}
