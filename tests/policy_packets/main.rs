//! NetworkPolicy with real packets: the cases of the policy fixtures, probed pair by pair in the lab.
//!
//! ```text
//! cluster.yaml ─ TestCluster (lab and daemons) ─┬─ objects of a step ─ settle ─ tables and flows ─┐ case by case,
//!        ▲                                      └───────────────── failures ◄─────────────────────┘ in one lab
//!        └───────────────────── reset ────────────────────┘
//! ```
//! Policies are enforced by the daemons or, in tests of the runner itself, by rules from the expected tables.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../api_server/mod.rs"]
mod api_server;
#[path = "../packets/observer.rs"]
#[allow(dead_code, reason = "another test's, used in part")]
mod observer;
#[path = "../packets/tools.rs"]
#[allow(dead_code, reason = "another test's, used in part")]
mod tools;

mod case;
mod connection_lines;
mod daemons;
mod enforcement;
mod flows;
mod runner;
mod service_of_pod;
mod settle;
mod test_cluster;
mod truth_tables;

mod api_source;
mod audit_and_log;
mod bridge;
mod corpora;
mod drift;
mod established;
mod ipvs_in_qemu;
mod link_local;
mod malformed;
mod nflog;
mod restart;
mod self_test;
mod unknown_pods;
mod updates;
