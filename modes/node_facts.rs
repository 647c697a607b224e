//! Facts about this node that the rules depend on.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::Family;

use crate::iptables::IptablesFeatures;

/// This node's addresses, and features of its kernel and tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// All addresses of its interfaces, in the kernel's order.
    pub addresses: Box<[IpAddr]>,
    /// The node's primary addresses, at most one per family.
    pub node_ips: Box<[IpAddr]>,
    /// Features of iptables; not used by nftables mode.
    pub iptables: IptablesFeatures,
    /// The cluster IP ranges (`ServiceCIDR` objects), if the cluster has such objects; used by nftables mode alone.
    pub service_cidrs: Box<[IpNet]>,
    /// `route_localnet` is set on an interface: every mode then drops packets to 127.0.0.0/8 from other hosts.
    pub route_localnet: bool,
}

impl NodeFacts {
    /// Returns the node's primary address of a family.
    pub fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|ip| Family::from_address(*ip) == family)
    }
}
