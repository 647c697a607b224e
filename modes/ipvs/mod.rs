//! IPVS mode: virtual servers of the kernel's load balancer, with the names and rules of kube-proxy v1.36.
//!
//! ```text
//! Desired ─► renderer ─► ServiceObjects ─► ledger ─► difference ─┬─► kernel: ip_vs, ipset, kube-ipvs0 (netlink)
//!                                      └────► rules ──────┴─► kernel: iptables-restore
//!                          audit (a thread) ◄──────────────── what the kernel holds
//! ```

mod audit;
mod entries;
mod family_sync;
mod ip_set;
mod kernel;
mod ledger;
mod netlink_kernel;
mod object_diff;
mod objects;
mod options;
mod prerequisites;
mod proxier;
mod refusal;
mod renderer;
mod rule_sync;
mod rules;
mod server_diff;
mod service_objects;
mod termination;
mod write;

pub use ip_set::IpSet;
pub use kernel::{DUMMY_INTERFACE, IpvsKernel, IpvsReader, ServerChange};
pub use netlink_kernel::NetlinkKernel;
pub use object_diff::{ObjectDifference, object_differences};
pub use objects::{IpvsObjects, Owners, ServerSpec, address_line, server_lines};
pub use options::IpvsOptions;
pub use prerequisites::{IpvsPrerequisiteError, check as check_requirements, open};
pub use proxier::IpvsProxier;
pub(crate) use renderer::is_link_local;
pub(crate) use rules::{jumps, names as chain_names};
