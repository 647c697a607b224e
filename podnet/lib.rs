//! The pod network of a node.
//!
//! ```text
//! runtime ─ CNI ─► plugin: an address for the pod, a veth pair, routes, host ports
//! Nodes ─► wanted routes (pure) ─► host-gw or VXLAN: routes, neighbours, FDB entries
//! ```
//!
//! All calls block, and nothing here is asynchronous: the CNI plugin runs without a runtime, and works while the daemon is down.
