//! Tables of nf_tables written to a real kernel, read back by us and by `nft`, which knows nothing of us.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod events;
mod managed;
#[path = "../namespace/mod.rs"]
mod namespace;
mod packet_trace;
mod round_trip;
mod route_lookup;
mod sample;
