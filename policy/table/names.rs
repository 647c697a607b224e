//! Names and priorities of the chains, sets and counters that are always in the table.

use portcullis_netlink::Family;

/// Name of the tables in the families inet and bridge.
pub const TABLE: &str = "portcullis-policy";

/// Just before SNAT (`srcnat`, 100), and therefore after all DNAT.
pub const POSTROUTING_PRIORITY: i32 = 99;

/// Egress comes before ingress, in a base chain of its own: the kernel follows each path through the chains when it validates
/// a table, and each allowed egress would be followed by all ingress.
pub(super) const EGRESS_PRIORITY: i32 = POSTROUTING_PRIORITY - 1;

/// Ports of bridges come before egress, which sets the priority to other numbers.
pub(super) const PORTS_PRIORITY: i32 = EGRESS_PRIORITY - 1;

/// After the hooks with which IPVS takes packets to virtual servers (98 and 99), so that only packets to this node
/// itself are left.
pub const INPUT_PRIORITY: i32 = 110;

/// After DNAT (`dstnat`, -100).
pub(super) const PREROUTING_PRIORITY: i32 = -90;

pub(super) const PREROUTING: &str = "prerouting";
pub(super) const FORWARD: &str = "forward";
pub(super) const POSTROUTING: &str = "postrouting";
/// Base chain for packets to ports of bridges, before the base chain of all packets.
pub(super) const POSTROUTING_PORTS: &str = "postrouting-ports";
pub(super) const INPUT: &str = "input";
/// Chain for egress, and map of pod addresses to the numbers of egress profiles.
pub(super) const EGRESS: &str = "egress";
/// Chain for ingress, and map of pod addresses to the numbers of ingress profiles.
pub(super) const INGRESS: &str = "ingress";

/// Map of numbers to egress profiles, and chain that looks a number up in it.
pub(super) const EGRESS_PROFILES: &str = "egress-profiles";
/// Map of numbers to ingress profiles, and chain that looks a number up in it.
pub(super) const INGRESS_PROFILES: &str = "ingress-profiles";
/// Map of numbers to the chains for connections to this node, and chain that looks a number up in it.
pub(super) const NODE_PROFILES: &str = "node-profiles";

/// Chain that looks up the identity of the source.
pub(super) const IDENTIFY_SOURCE: &str = "identify-source";
/// Chain that looks up the identity of the destination.
pub(super) const IDENTIFY_DESTINATION: &str = "identify-destination";
/// Map of addresses of pods and nodes to identities of peers.
pub(super) const PEERS: &str = "peers";
/// Map of ranges of addresses to identities of peers.
pub(super) const PEER_RANGES: &str = "peer-ranges";
/// Chain that accepts a connection whose priority the rules have changed.
pub(super) const ALLOW: &str = "allow";

/// Map of pod addresses to the numbers of profiles for connections to this node.
pub(super) const TO_THIS_NODE: &str = "to-this-node";
/// Set of pairs of equal addresses, for a pod that reaches itself through a Service.
pub(super) const ITSELF: &str = "itself";
/// Set of pod addresses with an ingress profile.
pub(super) const SERVERS: &str = "isolated-servers";
/// Set of pod addresses with an egress profile.
pub(super) const CLIENTS: &str = "isolated-clients";
/// Set of all known pod addresses.
pub(super) const KNOWN_PODS: &str = "known-pods";
/// Set of this node's pod CIDRs.
pub(super) const POD_RANGES: &str = "pod-ranges";

/// Set of the interfaces of all pods, in the inet table.
pub(super) const POD_INTERFACES: &str = "pod-interfaces";
/// Set of (interface, address of its pod), in the inet table.
pub(super) const INTERFACE_ADDRESSES: &str = "interface-addresses";
/// Map of interfaces to the numbers of egress profiles.
pub(super) const EGRESS_INTERFACES: &str = "egress-interfaces";
/// Map of interfaces to the numbers of ingress profiles.
pub(super) const INGRESS_INTERFACES: &str = "ingress-interfaces";
/// Set of the interfaces of all pods, in the bridge table.
pub(super) const POD_PORTS: &str = "pod-ports";
/// Set of (interface, address of its pod), in the bridge table.
pub(super) const PORT_ADDRESSES: &str = "port-addresses";
/// Map of bridge ports to priorities in the bridge table, and of priorities to the numbers of egress
/// profiles in the inet table.
pub(super) const EGRESS_PORTS: &str = "egress-ports";
/// Map of bridge ports to priorities in the bridge table, and of priorities to the numbers of ingress
/// profiles in the inet table.
pub(super) const INGRESS_PORTS: &str = "ingress-ports";

/// Counter of connections of unknown pods.
pub const UNKNOWN_PODS: &str = "unknown-pods";

/// Counter of packets that would pick up terminated connections.
pub const CUT: &str = "cut-connections";

/// Counter of frames of isolated pods that are neither IP nor ARP, which no policy can allow.
pub const OTHER_PROTOCOLS: &str = "other-protocols";

/// Counter of router advertisements and redirects of pods.
pub const ROUTER_ADVERTISEMENTS: &str = "router-advertisements";

/// Set of protocols whose connections are picked up in their middle, for a while after the start.
pub(super) const PICKED_UP: &str = "picked-up-protocols";

/// Returns the name of a family's set or map.
pub(super) fn of_family(name: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("{name}-ipv4"),
        Family::V6 => format!("{name}-ipv6"),
    }
}
