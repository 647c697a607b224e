//! nftables mode is laid out otherwise than kube-proxy's, so what it does is compared, not what it says: packets are
//! traced through our table, and through what kube-proxy v1.36.2 programs, for every recorded state.
//!
//! ```text
//! fixtures ─┬─ state-N.yaml ───────────────► our table ──┐
//!           └─ nftables/N/ruleset.nft ─► kube-proxy's ───┴─ every packet that may matter ─► the same outcomes
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
mod outcome;
mod probes;
mod recorded;
mod states;
