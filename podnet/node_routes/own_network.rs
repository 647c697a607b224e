//! Facts about this node, from which the ways to others follow.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::{Family, Name};

use super::problem::Reserved;
use crate::mode::PodNetworkMode;

/// Facts about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNetwork {
    /// The name of the node.
    pub node: Name,
    /// How pods of different nodes reach each other.
    pub mode: PodNetworkMode,
    /// The blocks of addresses that are on links of this node, with the index of the link.
    pub on_link: Vec<(IpNet, u32)>,
    /// The index of the VXLAN link over IPv4 and over IPv6, if they exist.
    pub vteps: [Option<u32>; 2],
    /// Addresses that no pod CIDR may contain, besides those of nodes.
    pub reserved: BTreeMap<IpNet, Reserved>,
}

impl OwnNetwork {
    /// Facts about a node without links.
    pub fn new(node: Name, mode: PodNetworkMode) -> Self {
        OwnNetwork { node, mode, on_link: Vec::new(), vteps: [None; 2], reserved: BTreeMap::new() }
    }

    /// Returns the link on which an address is: that of the smallest block that contains it.
    pub(super) fn link_of(&self, address: IpAddr) -> Option<u32> {
        let containing = self.on_link.iter().filter(|(net, _)| net.contains(&address));
        containing.max_by_key(|(net, _)| net.prefix_len()).map(|(_, link)| *link)
    }

    /// Returns the index of the VXLAN link over a family.
    pub(super) fn vtep(&self, underlay: Family) -> Option<u32> {
        self.vteps[family_index(underlay)]
    }
}

/// Returns the position of a family in arrays by family.
pub(super) fn family_index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Returns the first address of each family.
pub(super) fn first_of_each_family(addresses: &[IpAddr]) -> [Option<IpAddr>; 2] {
    Family::BOTH.map(|family| addresses.iter().copied().find(|ip| Family::from_address(*ip) == family))
}

/// Returns the family of the packets of the overlay between two nodes with these addresses. Both nodes come to the same result: IPv4 if
/// both have an IPv4 address, otherwise IPv6.
pub fn underlay(own: [Option<IpAddr>; 2], other: [Option<IpAddr>; 2]) -> Option<Family> {
    Family::BOTH.into_iter().find(|family| {
        let at = family_index(*family);
        own[at].is_some() && other[at].is_some()
    })
}
