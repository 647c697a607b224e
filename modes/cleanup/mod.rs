//! Removal of the objects that a proxy mode, ours or kube-proxy's, left in the kernel.
//!
//! ```text
//! jumps, chains (both flavours, both families) ─► virtual servers ─► sets ─► kube-ipvs0 ─► nf_tables tables
//! ```
//!
//! Only objects with known names are removed. The kubelet's chains and the rules of other programs stay, and so do
//! objects that these still use.

mod active_rules;
mod chain_names;
mod connection_drain;
mod detection;
mod iptables;
mod ipvs;
mod loopback_guard;
mod nftables;
mod removal;
mod result;
mod takeover;
mod tools;

pub use connection_drain::DrainStatus;
pub use detection::{DetectedMode, Implementation, detect_modes, ipvs_connections};
pub use loopback_guard::{
    LoopbackGuardError, guard_loopback, has_iptables_loopback_guard, reset_unneeded_route_localnet,
};
pub use removal::{find_all_modes, find_other_modes, remove_all_modes, remove_other_modes};
pub use result::{CleanupResult, IptablesLocation, KeptObject, RemovedObject};
pub use takeover::Takeover;
