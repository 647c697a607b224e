//! What operators and other programs see of the daemon: metrics, health, Events, and the HTTP servers for them.
//!
//! ```text
//! controllers ─ Status ─┐
//! source ─ SourceHealth ┼─► Health ──► 10256 /healthz /livez, healthCheckNodePorts
//! loop ─ progress ──────┘   Metrics ─► 10249 /metrics
//!                           EventRecorder ─► Events of the API server; the log
//!                           LocalApi ─┬─► Unix socket ─► portcullis status and other commands
//!                                     └─► page ─► 10262, HTML for browsers
//! ```

mod api_server_silence;
mod controller_statuses;
mod dropped_lines;
pub mod health;
pub mod health_check_node_port;
pub mod http;
mod isolation_health;
pub(crate) mod local_api;
pub mod metrics;
mod own_node_reporter;
pub(crate) mod page;
mod policy_drops;
mod reported_statuses;
mod source_problems;
pub(crate) mod telemetry;
pub(crate) mod traffic_events;
mod unreadable_reporter;
pub(crate) mod unserved;
