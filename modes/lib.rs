//! How Services get into the kernel: one folder a mode.
//!
//! A mode renders [`Desired`](portcullis_cluster::desired::Desired) to rules (pure), applies only what
//! changed, and reads back what the kernel holds.

pub mod cleanup;
pub mod iptables;
pub mod ipvs;
mod isolation;
mod knowledge;
pub mod mode;
pub mod nftables;
mod progress;
pub mod route_localnet;
pub mod stale_flows;
mod traffic;

pub use mode::{Isolated, Mode, Report, SyncError, TableRules};
pub use progress::{Progressed, SyncProgress};
pub use traffic::{Counts, Traffic, Volume};
