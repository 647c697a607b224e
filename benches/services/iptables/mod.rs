//! iptables mode beside the bare tool.
//!
//! Its limit is the tool itself: `iptables-restore` takes most of the time, whoever writes the text. So each
//! figure stands beside the bare tool that restores the very same text. A first run of the daemon, which is not
//! measured, records the text.
//!
//! ```text
//! namespace A: API server (HTTP, this process) ─► the real daemon ─► iptables-restore ─► kernel
//! namespace B:                     recorded text ─────────────────► iptables-restore ─► kernel
//! ```

mod bare;
mod flavour;
mod scenario;

pub(crate) use flavour::Flavour;
pub(crate) use scenario::Scenario;
