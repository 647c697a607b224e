//! iptables mode beside the bare tool.
//!
//! `iptables-restore` takes most of the time, whichever program writes its input, and is the lower limit. So each
//! figure is shown beside the tool with the same input, which a first run of the daemon, not measured, records.
//!
//! ```text
//! namespace A: API server (HTTP, this process) ─► the real daemon ─► iptables-restore ─► kernel
//! namespace B:                     recorded text ─────────────────► iptables-restore ─► kernel
//! ```

mod bare;
mod flavour;
mod many_addresses;
mod scenario;

pub(crate) use flavour::Flavour;
pub(crate) use many_addresses::measure as measure_many_addresses;
pub(crate) use scenario::Scenario;
