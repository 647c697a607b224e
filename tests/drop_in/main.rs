//! The binary as a replacement for kube-proxy: with kube-proxy's configuration file, an API server over HTTP, and a node's
//! interfaces. Kernel objects and health check responses are compared with the recordings of kube-proxy.
//!
//! ```text
//! case ─ node (interfaces) ─ API server ─ state 1, 2, … ─ daemon ─ the kernel has the recorded objects
//! ```
//! Each case has its own network namespace. A few parallel tests share the cases of a mode. IPVS mode runs in user-mode Linux,
//! as the kernel of the machine may lack it. `PORTCULLIS_CASE=etp-local` selects one case.

#[path = "../api_server/mod.rs"]
mod api_server;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "../services/mod.rs"]
mod services;

mod daemon;
mod follow;
mod health_checks;
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
mod recorded_objects;
mod schedulers;
