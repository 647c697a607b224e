//! Comparison of nftables mode with kube-proxy v1.36.2 by packets: the two tables differ in layout, so packets are traced
//! through both for every recorded state.
//!
//! ```text
//! fixtures ─┬─ state-N.yaml ───────────────► our table ──┐
//!           └─ nftables/N/ruleset.nft ─► kube-proxy's ───┴─ many packets ─► equal outcomes
//! ```

#![allow(unreachable_pub, reason = "modules of a test binary")]

#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "../services/mod.rs"]
mod services;

mod affinity;
mod behaviour;
mod deliberate;
mod golden;
mod kernel;
mod many_endpoints;
mod outcome;
mod probes;
mod recorded;
mod states;
