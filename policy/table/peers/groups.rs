//! Groups of peers: each is a set of the identities that belong to it.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::memberships::GroupIndex;
use crate::compile::{BlocksId, PeerSetId};

/// Peers that rules match together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::table) enum PeerGroup {
    /// The pods and nodes of a peer set.
    Set(PeerSetId),
    /// The addresses in a rule's ranges.
    Blocks(BlocksId),
}

impl PeerGroup {
    /// Returns the name of the nf_tables set of its identities.
    pub(in crate::table) fn set_name(&self) -> String {
        match self {
            PeerGroup::Set(id) => id.name(),
            PeerGroup::Blocks(id) => id.name(),
        }
    }
}

/// A group in the list.
#[derive(Debug)]
struct Group {
    of: PeerGroup,
    digest: [u8; 8],
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    list: Vec<Option<Group>>,
    free: Vec<GroupIndex>,
    by_group: BTreeMap<PeerGroup, GroupIndex>,
    unused: BTreeSet<GroupIndex>,
}

impl Groups {
    /// Returns the index of a group.
    pub(super) fn index(&self, group: &PeerGroup) -> Option<GroupIndex> {
        self.by_group.get(group).copied()
    }

    /// Adds a group.
    pub(super) fn create(&mut self, group: PeerGroup) -> GroupIndex {
        let mut digest = [0; 8];
        digest.copy_from_slice(&Sha256::digest(group.set_name())[..8]);
        let index = self.free.pop().unwrap_or_else(|| {
            self.list.push(None);
            GroupIndex::try_from(self.list.len() - 1).expect("fewer groups than addresses of memory")
        });
        self.by_group.insert(group.clone(), index);
        self.list[index as usize] = Some(Group { of: group, digest });
        index
    }

    /// Returns a group.
    pub(super) fn group(&self, index: GroupIndex) -> Option<&PeerGroup> {
        self.list.get(index as usize)?.as_ref().map(|group| &group.of)
    }

    /// Returns true for the group of a peer set, also if no rule uses it any longer.
    pub(super) fn is_by_selectors(&self, index: GroupIndex) -> bool {
        matches!(self.get(index).of, PeerGroup::Set(_))
    }

    /// Returns a hash of these groups that does not depend on their order.
    pub(super) fn digest(&self, groups: &[GroupIndex]) -> [u8; 16] {
        let mut digests: Vec<[u8; 8]> = groups.iter().map(|group| self.get(*group).digest).collect();
        digests.sort_unstable();
        let hash = Sha256::digest(digests.concat());
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        half
    }

    fn get(&self, index: GroupIndex) -> &Group {
        self.list[index as usize].as_ref().expect("memberships have existing groups")
    }

    /// Marks a group that no rule uses any longer. Another rule may use the same peers under a new index from now on.
    pub(super) fn set_unused(&mut self, index: GroupIndex) {
        let of = self.get(index).of.clone();
        self.by_group.remove(&of);
        self.unused.insert(index);
    }

    /// Makes the indexes of marked groups available again. No membership may contain them.
    pub(super) fn remove_unused(&mut self) {
        for index in std::mem::take(&mut self.unused) {
            self.list[index as usize] = None;
            self.free.push(index);
        }
    }
}
