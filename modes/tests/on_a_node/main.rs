//! Tests of diff, cleanup and concurrent writers with a real kernel, each in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;

mod blocking_rules;
mod cleanup;
mod concurrent_writer;
mod diff;
mod forward_accept;
mod node;
mod service_engine;
mod unmarked_return;
