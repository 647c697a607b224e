//! Metrics of the connections of HTTP servers.

use prometheus::{Counter, CounterVec, Gauge, GaugeVec};

use super::register::Registrar;

/// Values of the label `server`.
const SERVERS: [&str; 5] = ["healthz", "metrics", "status_page", "health_check_node_port", "local_api"];

/// Metrics of all HTTP servers.
pub(super) struct AllConnectionMetrics {
    open: GaugeVec,
    rejected: CounterVec,
}

impl AllConnectionMetrics {
    pub(super) fn register(to: Registrar<'_>) -> Self {
        let metrics = AllConnectionMetrics {
            open: to.gauges("portcullis_http_connections", "Open connections to an HTTP server", &["server"]),
            rejected: to.counters(
                "portcullis_http_connections_rejected_total",
                "Connections that an HTTP server closed because it had its maximum (reason=\"limit\"), or because the client \
                 sent no complete request in time or did not read the response (\"timeout\")",
                &["reason", "server"],
            ),
        };
        // Their series exist from the start, so that the first rejection is an increase.
        SERVERS.iter().for_each(|server| drop(metrics.server(server)));
        metrics
    }

    /// Returns the metrics of one server.
    pub(super) fn server(&self, server: &str) -> ConnectionMetrics {
        ConnectionMetrics {
            open: self.open.with_label_values(&[server]),
            over_limit: self.rejected.with_label_values(&["limit", server]),
            timed_out: self.rejected.with_label_values(&["timeout", server]),
        }
    }
}

/// Metrics of the connections of one HTTP server.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: Gauge,
    over_limit: Counter,
    timed_out: Counter,
}

impl ConnectionMetrics {
    /// Sets the number of open connections.
    pub(crate) fn set_open(&self, connections: usize) {
        self.open.set(connections as f64);
    }

    /// Counts a connection that was closed because of the limit of connections.
    pub(crate) fn over_limit(&self) {
        self.over_limit.inc();
    }

    /// Counts a connection that was closed because its client was too slow.
    pub(crate) fn timed_out(&self) {
        self.timed_out.inc();
    }
}
