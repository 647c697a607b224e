//! The names of what is always in the table.

use portcullis_netlink::Family;

/// The table's name, in the family `inet`.
pub const TABLE: &str = "portcullis-policy";

/// Just before source addresses are translated (`srcnat`, 100), and so behind everything that translates destinations.
pub const POSTROUTING_PRIORITY: i32 = 99;

/// Behind the hooks by which IPVS takes packets for virtual servers (98 and 99), so that only what is for this node
/// itself is seen.
pub const INPUT_PRIORITY: i32 = 110;

/// Behind the translation of destinations (`dstnat`, -100).
pub(super) const PREROUTING_PRIORITY: i32 = -90;

pub(super) const PREROUTING: &str = "prerouting";
pub(super) const FORWARD: &str = "forward";
pub(super) const POSTROUTING: &str = "postrouting";
pub(super) const INPUT: &str = "input";
pub(super) const EGRESS: &str = "egress";
pub(super) const INGRESS: &str = "ingress";

/// The counter for connections of unknown pods.
pub(super) const UNKNOWN_PODS: &str = "unknown-pods";

/// The counter for what would take up connections that were cut.
pub(super) const CUT: &str = "cut-connections";

/// The counter for frames of isolated pods that are neither IP nor ARP, which no policy can allow.
pub(super) const OTHER_PROTOCOLS: &str = "other-protocols";

/// The counter for router advertisements and redirects of pods.
pub(super) const ROUTER_ADVERTISEMENTS: &str = "router-advertisements";

/// The set of protocols whose connections are taken up in their middle, for a while after the start.
pub(super) const PICKED_UP: &str = "picked-up-protocols";

/// A name for one family.
pub(super) fn of_family(name: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("{name}-ipv4"),
        Family::V6 => format!("{name}-ipv6"),
    }
}
