//! A map of address blocks, with lookups of overlaps.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// The longest prefix length.
const MAX_LENGTH: usize = 128;

/// A map whose keys are address blocks without host bits. Two blocks overlap only if one contains the other.
#[derive(Clone, Debug)]
pub(super) struct NetMap<V> {
    blocks: BTreeMap<IpNet, V>,
    /// The number of blocks by family and prefix length: lookups try only the lengths that exist.
    lengths: [[u32; MAX_LENGTH + 1]; 2],
}

impl<V> Default for NetMap<V> {
    fn default() -> Self {
        NetMap { blocks: BTreeMap::new(), lengths: [[0; MAX_LENGTH + 1]; 2] }
    }
}

impl<V: Default> NetMap<V> {
    /// Returns the value of a block, which is created if necessary.
    pub(super) fn entry(&mut self, net: IpNet) -> &mut V {
        let lengths = &mut self.lengths;
        self.blocks.entry(net).or_insert_with(|| {
            lengths[family(&net)][usize::from(net.prefix_len())] += 1;
            V::default()
        })
    }
}

impl<V> NetMap<V> {
    /// Removes a block.
    pub(super) fn remove(&mut self, net: &IpNet) {
        if self.blocks.remove(net).is_some() {
            self.lengths[family(net)][usize::from(net.prefix_len())] -= 1;
        }
    }

    /// Returns the value of a block.
    pub(super) fn get_mut(&mut self, net: &IpNet) -> Option<&mut V> {
        self.blocks.get_mut(net)
    }

    /// Returns the blocks that contain a block, itself included, from the largest.
    pub(super) fn containing(&self, net: IpNet) -> impl Iterator<Item = (&IpNet, &V)> {
        let lengths = &self.lengths[family(&net)];
        let existing = (0..=net.prefix_len()).filter(|length| lengths[usize::from(*length)] > 0);
        existing.filter_map(move |length| {
            let block = IpNet::new(net.addr(), length).expect("a shorter prefix is valid").trunc();
            self.blocks.get_key_value(&block)
        })
    }

    /// Returns the blocks that are part of a block, itself included.
    pub(super) fn within(&self, net: IpNet) -> impl Iterator<Item = (&IpNet, &V)> {
        // The blocks are ordered by address, and those with one address by length.
        let last = IpNet::new(net.broadcast(), net.max_prefix_len()).expect("the longest prefix is valid");
        self.blocks.range(net..=last)
    }

    /// Returns a block that overlaps with a block.
    pub(super) fn overlapping(&self, net: IpNet) -> Option<(&IpNet, &V)> {
        self.containing(net).next().or_else(|| self.within(net).next())
    }
}

fn family(net: &IpNet) -> usize {
    usize::from(matches!(net, IpNet::V6(_)))
}
