//! nftables mode beside the bare netlink batch.
//!
//! Everybody who writes nf_tables pays for the kernel's part: one transaction with these objects in it. So each figure
//! stands beside one that has the very same objects at hand, read back from the kernel after a first run of the daemon,
//! and only serialises and sends them.
//!
//! ```text
//! namespace A: API server (HTTP, this process) ─► the real daemon ─► nf_tables
//! namespace B:                   recorded tables ──────────────────► nf_tables
//! namespace C: events in the index ─► Desired ─► the mode, in this process ─► nf_tables        (the line of sizes)
//! ```

mod bare;
mod line;
mod scenario;

pub(crate) use line::measure as measure_line;
pub(crate) use scenario::Scenario;
