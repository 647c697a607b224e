//! The node addresses on which node ports are served (`--nodeport-addresses`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portcullis_cluster::Family;

use crate::node_facts::NodeFacts;

/// The node addresses on which node ports are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All addresses.
    #[default]
    All,
    /// The node's primary address of each family.
    Primary {
        /// 127.0.0.1, too.
        localhost: bool,
    },
    /// Addresses in these blocks; all addresses of a family that has no block here.
    Cidrs {
        /// The blocks, in the order given.
        cidrs: Box<[IpNet]>,
        /// 127.0.0.0/8 and ::1, too.
        localhost: bool,
    },
}

/// The addresses of one family on which node ports are served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodePortScope {
    /// Every local address.
    All,
    /// These addresses.
    Addresses(Vec<IpAddr>),
}

impl NodePortAddresses {
    /// Returns true if loopback addresses are requested by the name `localhost`, which kube-proxy v1.36 does not have.
    pub fn has_localhost(&self) -> bool {
        matches!(self, Self::Primary { localhost: true } | Self::Cidrs { localhost: true, .. })
    }

    /// Returns all blocks, with the loopback blocks if `localhost` is set; empty if the addresses are not given by blocks.
    pub fn blocks(&self) -> Vec<IpNet> {
        let NodePortAddresses::Cidrs { cidrs, localhost } = self else { return Vec::new() };
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let loopback = loopback.into_iter().zip([8, 128]).filter(|_| *localhost);
        let loopback = loopback.map(|(ip, length)| IpNet::new_assert(ip, length).trunc());
        cidrs.iter().copied().chain(loopback).collect()
    }

    /// Returns the addresses of a family on which node ports are served.
    pub(crate) fn scope(&self, family: Family, facts: &NodeFacts) -> NodePortScope {
        match self {
            NodePortAddresses::All => NodePortScope::All,
            NodePortAddresses::Primary { localhost } => {
                let loopback =
                    (*localhost && family == Family::V4).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
                NodePortScope::Addresses(facts.node_ip(family).into_iter().chain(loopback).collect())
            }
            NodePortAddresses::Cidrs { .. } => {
                let blocks = self.blocks();
                let of_family = || blocks.iter().filter(|c| Family::from_net(c) == family);
                if of_family().next().is_none() || of_family().any(|c| c.prefix_len() == 0) {
                    return NodePortScope::All;
                }
                let own = facts.addresses.iter().copied();
                NodePortScope::Addresses(own.filter(|ip| of_family().any(|c| c.contains(ip))).collect())
            }
        }
    }

    /// Returns true if an IPv4 loopback address is among the addresses.
    pub(crate) fn includes_localhost(&self) -> bool {
        match self {
            NodePortAddresses::All => true,
            NodePortAddresses::Primary { localhost } => *localhost,
            NodePortAddresses::Cidrs { .. } => {
                let blocks = self.blocks();
                let mut v4 = blocks.iter().filter(|c| Family::from_net(c) == Family::V4).peekable();
                // Without an IPv4 block, node ports are served on all IPv4 addresses.
                v4.peek().is_none() || v4.any(|net| net.prefix_len() == 0 || net.addr().is_loopback())
            }
        }
    }

    /// Returns true if loopback addresses are listed explicitly.
    pub(crate) fn names_localhost(&self) -> bool {
        match self {
            NodePortAddresses::All => false,
            NodePortAddresses::Primary { localhost } => *localhost,
            NodePortAddresses::Cidrs { .. } => self.blocks().iter().any(|block| block.addr().is_loopback()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_adds_the_loopback_blocks() {
        let nets = |texts: &[&str]| -> Box<[IpNet]> {
            texts.iter().map(|text| text.parse().expect("a CIDR")).collect()
        };
        let cidrs = |localhost| NodePortAddresses::Cidrs { cidrs: nets(&["10.0.0.0/8"]), localhost };
        assert_eq!(cidrs(false).blocks(), *nets(&["10.0.0.0/8"]));
        assert_eq!(cidrs(true).blocks(), *nets(&["10.0.0.0/8", "127.0.0.0/8", "::1/128"]));
        assert_eq!(NodePortAddresses::Primary { localhost: true }.blocks(), []);
        assert!(cidrs(true).names_localhost() && cidrs(true).includes_localhost());
        assert!(!cidrs(false).names_localhost() && !cidrs(false).includes_localhost());
    }
}
