//! Which flows are deleted when Services change: decisions over a table in memory, the same in a real kernel,
//! and the states that kube-proxy was recorded with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;

mod cluster;
mod decisions;
mod flows;
mod kernel;
mod recordings;
mod retries;
