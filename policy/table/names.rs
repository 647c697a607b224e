//! Names and priorities of the chains, sets and counters that are always in the table.

use portcullis_netlink::Family;

/// Name of the tables in the families inet and bridge.
pub const TABLE: &str = "portcullis-policy";

/// Just before SNAT (`srcnat`, 100), and therefore after all DNAT.
pub const POSTROUTING_PRIORITY: i32 = 99;

/// After the hooks with which IPVS takes packets to virtual servers (98 and 99), so that only packets to this node
/// itself are left.
pub const INPUT_PRIORITY: i32 = 110;

/// After DNAT (`dstnat`, -100).
pub(super) const PREROUTING_PRIORITY: i32 = -90;

pub(super) const PREROUTING: &str = "prerouting";
pub(super) const FORWARD: &str = "forward";
pub(super) const POSTROUTING: &str = "postrouting";
pub(super) const INPUT: &str = "input";
pub(super) const EGRESS: &str = "egress";
pub(super) const INGRESS: &str = "ingress";

/// Counter of connections of unknown pods.
pub(super) const UNKNOWN_PODS: &str = "unknown-pods";

/// Counter of packets that would pick up terminated connections.
pub(super) const CUT: &str = "cut-connections";

/// Counter of frames of isolated pods that are neither IP nor ARP, which no policy can allow.
pub(super) const OTHER_PROTOCOLS: &str = "other-protocols";

/// Counter of router advertisements and redirects of pods.
pub(super) const ROUTER_ADVERTISEMENTS: &str = "router-advertisements";

/// Set of protocols whose connections are picked up in their middle, for a while after the start.
pub(super) const PICKED_UP: &str = "picked-up-protocols";

/// Returns the name of a family's set or map.
pub(super) fn of_family(name: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("{name}-ipv4"),
        Family::V6 => format!("{name}-ipv6"),
    }
}
