//! What the operator and the host decide about the rules.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use portcullis_cluster::Family;

/// The name of the nfacct object that counts packets dropped for their connection tracking state.
pub const NFACCT_INVALID_DROPPED: &str = "ct_state_invalid_dropped_pkts";

/// The name of the nfacct object that counts connections to node ports on loopback addresses.
pub const NFACCT_LOCALHOST_NODE_PORTS: &str = "localhost_nps_accepted_pkts";

/// Above this many endpoints in all, comments on endpoints are left out (kube-proxy's limit).
pub const LARGE_CLUSTER_ENDPOINTS: usize = 1000;

/// What the operator decides, from flags and configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerading, 0 to 31.
    pub masquerade_bit: u8,
    /// How traffic of this node's pods is told from other traffic.
    pub detect_local: DetectLocal,
    /// On which of the node's addresses node ports are served.
    pub node_port_addresses: NodePortAddresses,
    /// Serve node ports on IPv4 loopback addresses too.
    pub localhost_node_ports: bool,
    /// Connection tracking is liberal about TCP windows, so packets in state INVALID are let through.
    pub conntrack_tcp_liberal: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            masquerade_all: false,
            masquerade_bit: 14,
            detect_local: DetectLocal::Cidrs(Box::default()),
            node_port_addresses: NodePortAddresses::default(),
            localhost_node_ports: true,
            conntrack_tcp_liberal: false,
        }
    }
}

/// How traffic of this node's pods is told from other traffic (`--detect-local-mode`).
#[derive(Clone, Debug, PartialEq)]
pub enum DetectLocal {
    /// By its source: the cluster's or this node's pod blocks. Families without a block are not told apart.
    Cidrs(Box<[IpNet]>),
    /// By the bridge it comes in through.
    Bridge(String),
    /// By the first letters of the name of the interface it comes in through.
    InterfacePrefix(String),
}

/// The same for one family, as a match.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LocalMatch {
    Source(IpNet),
    Interface(String),
}

impl DetectLocal {
    /// The match for one family, where there is one.
    pub(crate) fn of(&self, family: Family) -> Option<LocalMatch> {
        match self {
            DetectLocal::Cidrs(cidrs) => {
                cidrs.iter().find(|c| Family::of_net(c) == family).copied().map(LocalMatch::Source)
            }
            DetectLocal::Bridge(name) => Some(LocalMatch::Interface(name.clone())),
            DetectLocal::InterfacePrefix(prefix) => Some(LocalMatch::Interface(format!("{prefix}+"))),
        }
    }
}

/// On which of the node's addresses node ports are served (`--nodeport-addresses`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum NodePortAddresses {
    /// On all.
    #[default]
    All,
    /// On the node's primary address of each family.
    Primary {
        /// On 127.0.0.1, too.
        localhost: bool,
    },
    /// On addresses in these blocks; a family without a block serves on all.
    Cidrs(Box<[IpNet]>),
}

/// What is so on this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// All addresses of its interfaces, in the kernel's order.
    pub addresses: Box<[IpAddr]>,
    /// Its primary addresses as a node, at most one a family.
    pub node_ips: Box<[IpAddr]>,
    /// The tool can masquerade with `--random-fully`.
    pub random_fully: bool,
    /// The kernel has nfacct.
    pub nfacct: bool,
    /// The blocks of cluster IPs (`ServiceCIDR`), where the cluster tells them; only nftables mode looks.
    pub service_cidrs: Box<[IpNet]>,
    /// `route_localnet` is set on an interface: every mode then drops packets to 127.0.0.0/8 from other hosts.
    pub route_localnet: bool,
}

impl Host {
    /// The node's primary address of a family.
    pub fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}

/// Where node ports are served in one family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodePortScope {
    /// On every local address.
    All,
    /// On these.
    Addresses(Vec<IpAddr>),
}

impl Options {
    /// The mark that asks for masquerading.
    pub(crate) fn mark(&self) -> u32 {
        1 << u32::from(self.masquerade_bit)
    }

    /// Where node ports are served in a family.
    pub(crate) fn node_port_scope(&self, family: Family, host: &Host) -> NodePortScope {
        match &self.node_port_addresses {
            NodePortAddresses::All => NodePortScope::All,
            NodePortAddresses::Primary { localhost } => {
                let loopback =
                    (*localhost && family == Family::V4).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
                NodePortScope::Addresses(host.node_ip(family).into_iter().chain(loopback).collect())
            }
            NodePortAddresses::Cidrs(cidrs) => {
                let of_family = || cidrs.iter().filter(|c| Family::of_net(c) == family);
                if of_family().next().is_none() || of_family().any(|c| c.prefix_len() == 0) {
                    return NodePortScope::All;
                }
                let own = host.addresses.iter().copied();
                NodePortScope::Addresses(own.filter(|ip| of_family().any(|c| c.contains(ip))).collect())
            }
        }
    }

    /// Those of the node's addresses on which node ports are served.
    pub fn node_port_addresses_of(&self, addresses: &[IpAddr], host: &Host) -> Vec<IpAddr> {
        let served = |ip: &&IpAddr| match self.node_port_scope(Family::of(**ip), host) {
            NodePortScope::All => !ip.is_loopback() || (ip.is_ipv4() && self.serves_localhost_node_ports()),
            NodePortScope::Addresses(served) => served.contains(ip),
        };
        addresses.iter().filter(served).copied().collect()
    }

    /// Whether node ports are to be reached on loopback addresses in nftables mode: only if asked for by name.
    pub(crate) fn localhost_in_nftables(&self) -> bool {
        let named = match &self.node_port_addresses {
            NodePortAddresses::All => false,
            NodePortAddresses::Primary { localhost } => *localhost,
            NodePortAddresses::Cidrs(cidrs) => cidrs.iter().any(|c| c.addr().is_loopback()),
        };
        self.localhost_node_ports && named
    }

    /// Whether node ports are to be reached on IPv4 loopback addresses: wished, and not excluded by
    /// the node port addresses.
    pub fn serves_localhost_node_ports(&self) -> bool {
        let loopback = match &self.node_port_addresses {
            NodePortAddresses::All => true,
            NodePortAddresses::Primary { localhost } => *localhost,
            NodePortAddresses::Cidrs(cidrs) => {
                let mut v4 = cidrs.iter().filter(|c| Family::of_net(c) == Family::V4).peekable();
                // Without any IPv4 block all IPv4 addresses serve.
                v4.peek().is_none() || v4.any(is_loopback_block)
            }
        };
        self.localhost_node_ports && loopback
    }
}

/// Whether a block is of loopback addresses, or of all.
fn is_loopback_block(net: &IpNet) -> bool {
    net.prefix_len() == 0 || net.addr().is_loopback()
}
