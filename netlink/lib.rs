//! Netlink families of the Linux kernel, over raw sockets.
//!
//! ```text
//! conntrack   ipset  log  nfacct  nf_tables   route    ip_vs         xtables
//!      \        |     |      |      /            |       |   (getsockopt, no netlink)
//!       netfilter (nfgenmsg, subsystems)      |    generic
//!             \                               |     /
//!              socket ── message ── attribute          the codec, independent of the family
//! ```
//!
//! All calls block, so they belong on a worker thread. The kernel processes a request inside of `sendmsg`, so a call
//! takes as long as the kernel needs for the work itself. A [`socket::Socket`] belongs to the network namespace of the
//! thread that opened it. `route` uses the message types of the crate `netlink-packet-route`; all other families
//! have codecs of their own.
//!
//! This crate is independent of Kubernetes.

pub mod attribute;
pub mod batches;
pub mod conntrack;
mod error;
mod family;
pub mod generic;
pub mod ip_vs;
pub mod ipset;
pub mod log;
pub mod message;
pub mod netfilter;
pub mod nf_tables;
pub mod nfacct;
pub mod route;
pub mod socket;
pub mod xtables;

pub use error::{Error, Result};
pub use family::Family;
