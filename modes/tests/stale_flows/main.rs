//! Tests of the deletion of stale flows: decisions with a table in memory and with a real kernel, and the states
//! recorded from kube-proxy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;

mod cluster;
mod decision_rows;
mod decisions;
mod flows;
mod kernel;
mod recordings;
mod retries;
