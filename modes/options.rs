//! The operator's options for rules of Services, common to all modes.

use std::net::IpAddr;

use portcullis_cluster::Family;

use crate::detect_local::DetectLocal;
use crate::node_facts::NodeFacts;
use crate::node_port_addresses::{NodePortAddresses, NodePortScope};

/// Options from flags and the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// The bit of the packet mark that requests masquerading, 0 to 31.
    pub masquerade_bit: u8,
    /// How traffic of this node's pods is recognised.
    pub detect_local: DetectLocal,
    /// The node addresses on which node ports are served.
    pub node_port_addresses: NodePortAddresses,
    /// Serve node ports on IPv4 loopback addresses too.
    pub localhost_node_ports: bool,
    /// Connection tracking is liberal about TCP windows, so packets in state INVALID are accepted.
    pub conntrack_tcp_liberal: bool,
    /// Count the traffic of each Service in nftables mode. The other modes have counters in any case.
    pub service_counters: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            masquerade_all: false,
            masquerade_bit: 14,
            detect_local: DetectLocal::default(),
            node_port_addresses: NodePortAddresses::default(),
            localhost_node_ports: true,
            conntrack_tcp_liberal: false,
            service_counters: false,
        }
    }
}

impl Options {
    /// Returns the packet mark that requests masquerading.
    pub(crate) fn masquerade_mark(&self) -> u32 {
        1 << u32::from(self.masquerade_bit)
    }

    /// Returns the addresses of a family on which node ports are served.
    pub(crate) fn node_port_scope(&self, family: Family, facts: &NodeFacts) -> NodePortScope {
        self.node_port_addresses.scope(family, facts)
    }

    /// Returns those of the node's addresses on which node ports are served.
    pub fn node_port_addresses_among(&self, addresses: &[IpAddr], facts: &NodeFacts) -> Vec<IpAddr> {
        addresses.iter().filter(|ip| self.serves_node_ports_at(**ip, facts)).copied().collect()
    }

    /// Returns true if node ports are served on an address of the node.
    pub fn serves_node_ports_at(&self, ip: IpAddr, facts: &NodeFacts) -> bool {
        match self.node_port_scope(Family::from_address(ip), facts) {
            NodePortScope::All => !ip.is_loopback() || (ip.is_ipv4() && self.serves_localhost_node_ports()),
            NodePortScope::Addresses(served) => served.contains(&ip),
        }
    }

    /// Returns true if nftables mode serves node ports on loopback addresses: only if these are listed explicitly.
    pub(crate) fn serves_localhost_in_nftables(&self) -> bool {
        self.localhost_node_ports && self.node_port_addresses.names_localhost()
    }

    /// Returns true if node ports are served on IPv4 loopback addresses: the option is set, and the node port
    /// addresses do not exclude them.
    pub fn serves_localhost_node_ports(&self) -> bool {
        self.localhost_node_ports && self.node_port_addresses.includes_localhost()
    }
}
