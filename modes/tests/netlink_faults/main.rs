//! Faults of netlink calls on a real kernel: for each fault of each call of a sync, Services that are served stay served, the
//! failure is reported, and the next sync completes the change without help.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod ipvs;
mod nftables;
mod outcomes;

#[path = "../engine/fake_kernel.rs"]
#[allow(dead_code, reason = "the rules are not the subject of this test")]
mod fake_iptables;
#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;
