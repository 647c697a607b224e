//! The kernel families Portcullis speaks, over raw netlink sockets.
//!
//! ```text
//! conntrack   ipset  nfacct   nf_tables    route    ip_vs         xtables
//!      \        |      |       /              |       |   (getsockopt, no netlink)
//!       netfilter (nfgenmsg, subsystems)      |    generic
//!             \                               |     /
//!              socket ── message ── attribute          the codec, family-neutral
//! ```
//!
//! Everything blocks and belongs on a worker thread. A netlink family answers inside the `sendmsg` that
//! asks, so "blocks" means the time that the kernel needs for the work itself. A [`socket::Socket`] stays
//! in the network namespace of the thread that opened it.
//!
//! Nothing here knows Kubernetes.

pub mod attribute;
pub mod batches;
pub mod conntrack;
mod error;
mod family;
pub mod generic;
pub mod ip_vs;
pub mod ipset;
pub mod message;
pub mod netfilter;
pub mod nf_tables;
pub mod nfacct;
pub mod route;
pub mod socket;
pub mod xtables;

pub use error::{Error, Result};
pub use family::Family;
