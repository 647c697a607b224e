//! Proxy modes: the programming of Services into the kernel, one folder per mode.
//!
//! A mode renders [`Desired`](portcullis_cluster::desired::Desired) to rules (pure), writes only the changes, and reads
//! back the kernel's state.

mod capabilities;
pub mod cleanup;
mod detect_local;
mod error;
pub mod external_program;
pub mod forward_accept;
pub mod iptables;
pub mod ipvs;
mod isolation;
pub mod mode;
pub mod nftables;
mod node_facts;
mod node_port_addresses;
mod options;
mod progress;
mod proxy_mode;
pub mod route_localnet;
pub mod service_engine;
pub mod source_range_log;
pub mod stale_flows;
mod sync_state;
mod traffic;

pub use detect_local::{DetectLocal, InterfaceName};
pub use error::{SyncError, SyncErrorKind};
pub use mode::{IsolatedService, IsolationCause, Mode, SyncResult, TableRuleCounts};
pub use node_facts::NodeFacts;
pub use node_port_addresses::NodePortAddresses;
pub use options::Options;
pub use progress::{ProgressSnapshot, SyncProgress};
pub use proxy_mode::ProxyMode;
pub use service_engine::{EngineRequest, EngineResult, ServiceEngine};
pub use traffic::{ServicePortTraffic, TrafficCounts, TrafficVolume};
