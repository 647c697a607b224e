//! NetworkPolicy by real packets: the cases of `fixtures/network-policy/`, probed pair by pair.
//!
//! ```text
//! cluster.yaml ─ Town (lab + a daemon a node) ─┬─ a step's objects ─ at rest ─ tables and flows ─┐ case by case,
//!        ▲                                     └─────────────────── complaints ◄─────────────────┘ in one lab
//!        └───────────────── the start again ──────────────────────────┘
//! ```
//! What enforces is the daemon, or, to prove that the runner sees what it must, rules that are made of the expected
//! tables themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../api_server/mod.rs"]
mod api_server;
#[path = "../packets/tools.rs"]
#[allow(dead_code, reason = "another test's, used in part")]
mod tools;

mod case;
mod daemons;
mod enforcer;
mod flows;
mod rest;
mod run;
mod service_of_pod;
mod tables;
mod town;
mod ways;

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
