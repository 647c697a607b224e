//! The table of nftables mode, as it follows Services of which some claim the same address or node port.

#![allow(unreachable_pub, reason = "modules of a test binary")]

mod cluster;
mod follows;
mod moments;
