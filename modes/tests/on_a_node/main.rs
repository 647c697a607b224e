//! What stands on a node once a mode has written to it: how it differs from what is wanted, and that all of it
//! goes again. In a real kernel, each test in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;

mod cleanup;
mod diff;
mod node;
