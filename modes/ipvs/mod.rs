//! IPVS mode: programs Services as virtual servers of IPVS, with the names and rules of kube-proxy v1.36.
//!
//! ```text
//! Desired ─► pending ─► renderer ─► programmed ─► planner ─► executor ─┬─► ip_vs, ipset, kube-ipvs0 (netlink)
//!               ▲                   references    (pure)      │        └─► rule_sync ─► iptables-restore
//!               └─ retries ─────────────── rejections ◄───────┘
//!            audit (a thread) ◄── the kernel's objects
//! ```
//!
//! `programmed` has the Services and objects that the kernel should have. An update of it returns a change set, from
//! which the planner derives the operations in their order. A full sync plans from a snapshot of the kernel instead.
//! The files import each other in one direction, from `kernel` and `ip_set` up to `family_sync` and `proxier`.

mod audit;
mod blame;
mod errors;
mod executor;
mod family_sync;
mod ip_set;
mod kernel;
mod netlink_kernel;
mod object_diff;
mod objects;
mod options;
mod pending;
mod planner;
mod prerequisites;
mod programmed;
mod proxier;
mod references;
mod rejections;
mod renderer;
mod rule_sync;
mod rules;
mod server_diff;
mod service_objects;
mod snapshot;
mod termination;
#[cfg(test)]
mod test_services;
mod unconfirmed;

pub use ip_set::IpSet;
pub use kernel::{DUMMY_INTERFACE, IpvsKernel, IpvsReader, ServerChange};
pub use netlink_kernel::NetlinkKernel;
pub use object_diff::{ObjectDifference, object_differences};
pub use objects::{IpvsObjects, Owners, address_line, server_lines};
pub use options::IpvsOptions;
pub use prerequisites::{IpvsPrerequisiteError, check as check_prerequisites, open};
pub use proxier::IpvsProxier;
pub(crate) use renderer::is_link_local;
pub(crate) use rules::{jumps, names as chain_names};
pub use service_objects::ServerSpec;
