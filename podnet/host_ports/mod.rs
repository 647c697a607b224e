//! Host ports: ports of the node that are forwarded to pods (`hostPort` of a container, `portMappings` of CNI).
//!
//! ```text
//! prerouting, output ── to an address of the node ─► host-ports: two maps per family
//!                          host IP . protocol . port ─► pod address . port     mappings with a host IP
//!                                    protocol . port ─► pod address . port     all others
//! postrouting ── from the pod to itself, or from a loopback address ─► masquerade
//! ```
//! The table `inet portcullis-host-ports` has the same rules for any number of mappings; a pod adds elements. The CNI plugin writes
//! it, so host ports work while the daemon is down. The daemon restores it from the records of the plugin after another
//! process changed it. Without host ports on a node there is no table.
//!
//! # Precedence
//! The chains come after those of Services (priority -90, Services have -100), and the kernel uses the first translation: a node
//! port, external IP or load balancer IP with the same port wins, in all proxy modes, as with portmap and kube-proxy since
//! CVE-2019-9946. In IPVS mode the addresses of all Services are local addresses, on the interface `kube-ipvs0`, and IPVS comes
//! after these chains. The set `service-ips` excludes them.
//!
//! # Sources
//! Connections keep their source address, with two exceptions. A pod that connects to its own host port is masqueraded, or
//! the reply would not pass the node. So are connections of the node to 127.0.0.1 and ::1, as with portmap's `snat`. For 127.0.0.1
//! the interface to the pod needs `route_localnet`, which [`HostPorts::add`] sets, and with which the pod could send packets to
//! the node's 127.0.0.1. So the table drops packets to loopback addresses that another host or a pod sends.

mod elements;
mod error;
mod kernel;
mod loopback;
mod mapping;
mod stale_flows;
mod table;

pub use elements::{HostPortConflict, HostPortRecords, PodHostPorts};
pub use error::HostPortError;
pub use kernel::{HostPortComparison, HostPortRestore, HostPorts};
pub use mapping::{PortMapping, TransportProtocol};
pub use table::TABLE;
