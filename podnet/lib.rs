//! The pod network of a node.
//!
//! ```text
//! runtime ─ CNI ─► plugin: an address for the pod, a veth pair, routes, host ports
//! Nodes ─► wanted routes (pure) ─► host-gw or VXLAN: routes, neighbours, FDB entries
//! ```
//!
//! All calls block, and nothing here is asynchronous: the CNI plugin runs without a runtime, and works while the daemon is down.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod cni;
pub mod egress;
pub mod host_ports;
pub mod installation;
pub mod links;
mod mode;
pub mod node_routes;
mod plan;
pub mod pod_interface;
pub mod source_check;
mod wiring;

pub use mode::{PodNetworkMode, Vxlan};
pub use plan::{PodNetworkPlan, Uplink};
pub use wiring::Wiring;

/// The protocol number of all routes that this program adds, to pods and to nodes. `ip route` shows it as `proto 80`: neither
/// the kernel (`RTPROT_*` in `linux/rtnetlink.h`) nor iproute2's `rt_protos` has a name for it.
pub const ROUTE_PROTOCOL: u8 = 80;

/// The folder of the plugin's records on a node: on a tmpfs, since no attachment survives a reboot.
pub const STATE_DIR: &str = "/run/portcullis/pod-network";
