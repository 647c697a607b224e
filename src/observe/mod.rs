//! What operators and other programs see of the daemon: metrics, health, Events, and the HTTP servers for them.
//!
//! ```text
//! controllers ─ Status ─┐
//! source ─ SourceHealth ┼─► Health ──► 10256 /healthz /livez, healthCheckNodePorts
//! loop ─ progress ──────┘   Metrics ─► 10249 /metrics
//!                           EventRecorder ─► Events of the API server; the log
//! ```

pub(crate) mod api_server_silence;
pub(crate) mod dropped_lines;
pub mod health;
pub mod health_check_node_port;
pub mod http;
pub mod metrics;
pub(crate) mod own_node_reporter;
pub(crate) mod source_problems;
pub(crate) mod unserved;
