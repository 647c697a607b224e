//! Packets through real daemons: each test builds a lab from `fixtures/lab/`, with a `portcullis` daemon per node, and
//! probes it row by row.
//!
//! ```text
//! fixtures/lab/*.yaml ─ Testbed (lab + daemons) ─ rows: source · target · expectation ─ outcomes of probes
//! ```
//! Scenarios that run in several modes are listed in `scenarios.rs`.
//!
//! IPVS mode runs the same rows in user-mode Linux, whose kernel has IPVS, and a few of them in QEMU, with nf_tables.
//!
//! nftables mode runs the same rows on the host's kernel, with daemons that find no tool in their path.
//!
//! SCTP rows run only in QEMU, because other kernels may have no SCTP sockets. `sctp.rs` also checks its rules on the
//! host.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod expectation;
mod mode;
mod row;
mod testbed;
mod tools;

mod address_conflicts;
mod changes;
mod cluster_ips;
mod drift;
mod drift_of_ipvs;
mod drift_of_nftables;
mod explain;
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
mod non_root;
mod observe;
mod observer;
mod options;
mod probe_in_qemu;
mod restart;
mod same_port;
mod scenarios;
mod sctp;
mod service_traffic;
mod session_affinity;
mod single_stack;
mod topology_hints;
mod xtables_lock;
