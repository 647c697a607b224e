//! Host ports with real packets, in network namespaces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod changes;
mod node;
mod reachability;
mod sctp;
mod traffic;
