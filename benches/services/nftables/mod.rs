//! nftables mode beside a bare netlink batch.
//!
//! Every program that writes nf_tables pays for the kernel's work: one transaction with these objects. So each figure
//! is shown beside a loop that only serialises and sends the same objects, read back from the kernel after a first run
//! of the daemon that is not measured.
//!
//! ```text
//! namespace A: API server (HTTP, this process) ─► the real daemon ─► nf_tables
//! namespace B:                   recorded tables ──────────────────► nf_tables
//! namespace C: events in the index ─► Desired ─► the mode, in this process ─► nf_tables        (the line of sizes)
//! ```

mod bare;
mod first_packet;
mod line;
mod scenario;

pub(crate) use first_packet::measure as measure_first_packets;
pub(crate) use line::measure as measure_line;
pub(crate) use scenario::Scenario;
