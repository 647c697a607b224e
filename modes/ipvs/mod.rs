//! IPVS mode: virtual servers of the kernel's load balancer, with the names and rules of kube-proxy v1.36.
//!
//! ```text
//! Desired ─► renderer ─► Objects ─► ledger ─► difference ─┬─► kernel: ip_vs, ipset, kube-ipvs0 (netlink)
//!                                      └────► rules ──────┴─► kernel: iptables-restore
//!                          audit (a thread) ◄──────────────── what the kernel holds
//! ```

mod audit;
mod diff;
mod difference;
mod entries;
mod family_sync;
mod ip_set;
mod kernel;
mod ledger;
mod netlink_kernel;
mod objects;
mod options;
mod proxier;
mod refusal;
mod renderer;
mod requirements;
mod rule_sync;
mod rules;
mod state;
mod termination;
mod write;

pub use diff::{StateDifference, state_differences};
pub use ip_set::IpSet;
pub use kernel::{Change, Kernel, LINK, Observer};
pub use netlink_kernel::NetlinkKernel;
pub use options::IpvsOptions;
pub use proxier::Proxier;
pub(crate) use renderer::is_link_local;
pub use requirements::{RequirementError, check as check_requirements, open};
pub(crate) use rules::{jumps, names as chain_names};
pub use state::{Owners, Served, State, address_line, server_lines};
