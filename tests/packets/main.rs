//! Real packets through real daemons: each test builds a cluster of network namespaces from `fixtures/lab/`, lets a
//! `portcullis` a node serve it, and probes it row by row.
//!
//! ```text
//! fixtures/lab/*.yaml ─ Bed (lab + daemons) ─ rows: from · to · expectation ─ what the pods saw
//! ```
//! IPVS mode is probed in user-mode Linux, whose kernel has IPVS, by the same rows, and a few of them in QEMU, where
//! nf_tables is, too.
//!
//! nftables mode is probed by the same rows where the tests run, with daemons that find no tool at all.
//!
//! SCTP has its rows in QEMU alone: the kernel here may have no SCTP sockets. `sctp.rs` holds its rules for it, too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;
mod expectation;
mod mode;
mod row;
mod tools;

mod address_conflicts;
mod changes;
mod cluster_ips;
mod drift;
mod drift_of_ipvs;
mod drift_of_nftables;
mod explained;
mod external_addresses;
mod graceful_termination;
mod host_daemons;
mod ipvs_in_qemu;
mod isolation;
mod lab_commands;
mod lab_policies;
mod lab_table;
mod live_traffic;
mod localhost_node_ports;
mod loopback_guard;
mod manifests;
mod migrations;
mod mode_changes;
mod options;
mod restart;
mod same_port;
mod sctp;
mod service_traffic;
mod session_affinity;
mod single_stack;
mod topology_hints;
mod xtables_lock;
