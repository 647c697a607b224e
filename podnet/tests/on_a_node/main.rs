//! Host ports and egress with real packets, on a node in network namespaces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cni_host_ports;
mod egress;
mod host_port_changes;
mod host_port_reachability;
mod node;
mod sctp;
mod traffic;
