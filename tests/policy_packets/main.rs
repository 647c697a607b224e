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

mod case;
mod corpora;
mod enforcer;
mod flows;
mod rest;
mod run;
mod service_of_pod;
mod tables;
mod town;

mod self_test;
