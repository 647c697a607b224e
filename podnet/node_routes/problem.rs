//! Why pods of a node cannot be reached.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::{Family, Name};

/// Addresses that no pod CIDR may contain, as a route to it would take their traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reserved {
    /// A Service CIDR of the cluster.
    #[default]
    ServiceCidr,
    /// An address of the API server.
    ApiServer,
    /// A gateway of this node.
    Gateway,
    /// An address of a node.
    Node(Name),
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserved::ServiceCidr => f.write_str("a Service CIDR"),
            Reserved::ApiServer => f.write_str("an address of the API server"),
            Reserved::Gateway => f.write_str("a gateway of this node"),
            Reserved::Node(node) => write!(f, "an address of node {node}"),
        }
    }
}

/// Why pods of a node cannot be reached, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeProblem {
    /// The Node has no pod CIDRs (yet).
    NoPodCidrs,
    /// Another node, which is older, has an overlapping pod CIDR.
    Conflict {
        /// The pod CIDR.
        cidr: IpNet,
        /// The other node.
        other: Name,
        /// The pod CIDR of the other node.
        other_cidr: IpNet,
    },
    /// The pod CIDR contains addresses that are no pods'.
    Reserved {
        /// The pod CIDR.
        cidr: IpNet,
        /// The addresses.
        reserved: IpNet,
        /// Whose they are.
        owner: Reserved,
    },
    /// The Node has no internal IP of a family.
    NoAddress {
        /// The pod CIDR.
        cidr: IpNet,
        /// The family; `None` if it has none of any family that this node has.
        family: Option<Family>,
    },
    /// The node is not on the same link (`host-gw`).
    NotOnLink {
        /// The pod CIDR.
        cidr: IpNet,
        /// The node's address.
        address: IpAddr,
    },
    /// The overlay's link of this family does not exist.
    NoOverlay {
        /// The pod CIDR.
        cidr: IpNet,
        /// The family of the underlay.
        family: Family,
    },
}

impl NodeProblem {
    /// Returns the value of the label `reason` in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            NodeProblem::NoPodCidrs => "no_pod_cidrs",
            NodeProblem::Conflict { .. } => "conflict",
            NodeProblem::Reserved { .. } => "reserved",
            NodeProblem::NoAddress { .. } => "no_address",
            NodeProblem::NotOnLink { .. } => "not_on_link",
            NodeProblem::NoOverlay { .. } => "no_overlay",
        }
    }

    /// All values of [`NodeProblem::reason`].
    pub const REASONS: [&'static str; 6] =
        ["conflict", "no_address", "no_overlay", "no_pod_cidrs", "not_on_link", "reserved"];
}

impl fmt::Display for NodeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeProblem::NoPodCidrs => f.write_str("the Node has no pod CIDRs (spec.podCIDRs)"),
            NodeProblem::Conflict { cidr, other, other_cidr } => {
                write!(
                    f,
                    "pod CIDR {cidr} overlaps with {other_cidr} of node {other}, which is older and keeps it"
                )
            }
            NodeProblem::Reserved { cidr, reserved, owner } => {
                write!(f, "pod CIDR {cidr} contains {}, {owner}", short(reserved))
            }
            NodeProblem::NoAddress { cidr, family: Some(family) } => {
                write!(f, "no way to pod CIDR {cidr}: the Node has no {family} address of type InternalIP")
            }
            NodeProblem::NoAddress { cidr, family: None } => write!(
                f,
                "no way to pod CIDR {cidr}: the Node and that of this node have no addresses of type InternalIP of the same family"
            ),
            NodeProblem::NotOnLink { cidr, address } => write!(
                f,
                "no way to pod CIDR {cidr}: the node's address {address} is not on a link of this node, which --pod-network=host-gw \
                 requires"
            ),
            NodeProblem::NoOverlay { cidr, family } => {
                write!(f, "no way to pod CIDR {cidr}: the VXLAN link over {family} does not exist")
            }
        }
    }
}

/// Formats a block of one address as the address.
fn short(net: &IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}
