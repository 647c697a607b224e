//! Numbers of profiles, peers and classes, which rules hold in the packet's priority.
//!
//! nf_tables has no variables: a rule can keep a value for a later rule in the packet only, and of its fields, the mark is
//! shared with all other software on the node. The priority of a forwarded packet has no use before the packet is queued on an
//! interface. Its original value is restored when the connection is allowed.
//!
//! ```text
//! bit 31  output port of a bridge, from the bridge table     bit 30  a number of this table
//! bits 28 and 29  what is numbered                           bits 0 to 27  hash of the content
//! ```
//! So numbers do not depend on the order of events or on restarts, except if two contents have the same hash.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

/// The bit that all numbers of this table have, and no other priority: interfaces are numbered from 1, and the classes of
/// traffic control that the kernel derives from the type of service end at 15.
pub(super) const NUMBERED: u32 = 1 << 30;

/// The bits of the hash.
const HASH: u32 = (1 << 28) - 1;

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbered {
    /// A profile of this node's pods.
    Profile = 0,
    /// An identity of peers.
    Identity = 1,
    /// A class of peers of a profile.
    Class = 2,
}

/// The used numbers of a kind.
#[derive(Debug)]
pub(super) struct Numbers {
    kind: Numbered,
    used: HashSet<u32>,
}

impl Numbers {
    pub(super) fn new(kind: Numbered) -> Self {
        Numbers { kind, used: HashSet::new() }
    }

    /// Returns an unused number for an object with this name.
    pub(super) fn take_for(&mut self, name: &str) -> u32 {
        let hash = Sha256::digest(name);
        self.take([hash[0], hash[1], hash[2], hash[3]])
    }

    /// Returns an unused number for a content with this digest.
    pub(super) fn take(&mut self, digest: [u8; 4]) -> u32 {
        let base = NUMBERED | (self.kind as u32) << 28;
        let mut hash = u32::from_be_bytes(digest) & HASH;
        while !self.used.insert(base | hash) {
            hash = hash.wrapping_add(1) & HASH;
        }
        base | hash
    }

    /// Makes a number available again.
    pub(super) fn release(&mut self, number: u32) {
        self.used.remove(&number);
        if self.used.capacity() > 64 && self.used.len() < self.used.capacity() / 4 {
            self.used.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hashes_get_different_numbers() {
        let mut numbers = Numbers::new(Numbered::Identity);
        let digest = [0xff; 4];
        assert_eq!(numbers.take(digest), 0x5fff_ffff);
        assert_eq!(numbers.take(digest), 0x5000_0000);
        numbers.release(0x5fff_ffff);
        assert_eq!(numbers.take(digest), 0x5fff_ffff);
    }
}
