//! The nftables table during changes of Services of which some claim the same address or node port.

#![allow(unreachable_pub, reason = "modules of a test binary")]

mod cluster;
mod concurrent_packets;
mod incremental;
mod session_affinity;
