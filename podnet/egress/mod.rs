//! Egress: traffic of this node's pods to addresses outside of the pod network, and the forwarding of all their traffic.
//!
//! ```text
//! postrouting ── from a pod of this node ── not to pods, excluded CIDRs, multicast ─► masquerade
//! sysctls ────── net.ipv4.ip_forward, net.ipv6.conf.all.forwarding
//! ```
//! Other hosts have no routes to pods, so connections of pods to them get an address of the node as source. Connections between
//! pods keep their addresses, on which policies depend. Connections of pods to the addresses of other *nodes* are masqueraded,
//! as flannel and kindnet do: with an overlay, replies of a node to a pod's address would take another path than the requests,
//! which reverse path filters and cloud networks drop. `--pod-network-masquerade-exclude-cidrs` can exclude the nodes' network
//! where nodes and hosts have routes to pods.
//!
//! The chain comes after those of the proxy modes (`srcnat`, 100): a packet that they masquerade loses their mark there, and
//! must not keep it, because it passes the rules again when it is encapsulated.
//!
//! An `accept` in this table would not help against a firewall that drops forwarded packets: in nf_tables each base chain
//! decides for itself. `portcullis_modes::forward_accept` adds rules to the firewall's own chain.

mod error;
mod forwarding;
mod rules;
mod table;

pub use error::EgressError;
pub use forwarding::{
    KernelSetting, UnsetSetting, enable_forwarding, forwarding_differences, loosen_rp_filter,
    rp_filter_difference,
};
pub use rules::Egress;
pub use table::{EgressPolicy, TABLE};
