//! The binary in kube-proxy's place: its own configuration file, an API server over HTTP, a node's interfaces.
//! What it programs, and what it answers on health check ports, is held against the recordings of kube-proxy.
//!
//! ```text
//! case ─ node (interfaces) ─ API server ─ state 1, 2, … ─ daemon ─ the kernel holds what was recorded
//! ```
//! Each case has a network namespace of its own; the cases of a mode are dealt out to a few tests, which run side by
//! side. IPVS mode has machines of its own, too, as the kernel here may not know it. `PORTCULLIS_CASE=etp-local` plays that case only.

#[path = "../api_server/mod.rs"]
mod api_server;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "../services/mod.rs"]
mod services;

mod daemon;
mod follow;
mod health_checks;
mod held;
mod http;
mod node;
mod states;

mod iptables;
mod ipvs;
mod killed;
mod killed_by_nftables;
mod migrations;
mod mode_changes;
mod nftables;
mod schedulers;
