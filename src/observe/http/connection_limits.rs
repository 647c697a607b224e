//! Limits of connections, so that HTTP clients leave file descriptors for everything else.

/// File descriptors that no HTTP server uses: syncs (netlink sockets, pipes to the iptables tools), connections to the API
/// server, watches of files and the log need fewer than half of them.
const RESERVED: u64 = 128;

/// The largest number of connections to the health server.
const HEALTH: u64 = 128;

/// The largest number of connections to the metrics server. Few clients need them, and a response may be large.
const METRICS: u64 = 32;

/// The largest number of connections to the status page. A browser opens up to six.
const STATUS_PAGE: u64 = 32;

/// The largest number of connections to the health check node ports of all Services.
const HEALTH_CHECK_NODE_PORTS: u64 = 256;

/// The largest number of connections to the local API, which an operator and few programs of the node use.
const LOCAL_API: u64 = 16;

/// The limits of connections and listeners of all servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections to the health server.
    pub health: usize,
    /// Connections to the metrics and diagnostics server.
    pub metrics: usize,
    /// Connections to the local API.
    pub local_api: usize,
    /// Connections to the status page.
    pub page: usize,
    /// Connections to the health check node ports of all Services together.
    pub health_check_node_ports: usize,
    /// Listeners of health check node ports: one for each Service and node address.
    pub listeners: usize,
}

impl ConnectionLimits {
    /// Returns the limits of a process that may open this number of file descriptors. Each server has a part of its own, so
    /// that clients of one do not take those of another.
    pub fn for_descriptors(limit: u64) -> Self {
        let available = limit - RESERVED.min(limit / 2);
        let health = HEALTH.min(available / 4);
        let metrics = METRICS.min(available / 8);
        let page = STATUS_PAGE.min(available / 16);
        let local_api = LOCAL_API.min(available / 16);
        let health_check_node_ports = HEALTH_CHECK_NODE_PORTS.min(available / 8);
        // A listener has accepted one connection that is not counted yet.
        let listeners = (available - health - metrics - page - local_api - health_check_node_ports) / 2;
        let count = |number: u64| usize::try_from(number.max(1)).unwrap_or(usize::MAX);
        ConnectionLimits {
            health: count(health),
            metrics: count(metrics),
            local_api: count(local_api),
            page: count(page),
            health_check_node_ports: count(health_check_node_ports),
            listeners: count(listeners),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_reserved_and_each_server_has_its_own() {
        let rows = [
            (32, [4, 2, 1, 1, 2, 3]),
            (256, [32, 16, 8, 8, 16, 24]),
            (1_024, [128, 32, 32, 16, 112, 288]),
            (65_536, [128, 32, 32, 16, 256, 32_472]),
            (u64::MAX, [128, 32, 32, 16, 256, 9_223_372_036_854_775_511]),
        ];
        for (descriptors, expected) in rows {
            let limits = ConnectionLimits::for_descriptors(descriptors);
            let ConnectionLimits { health, metrics, page, local_api, health_check_node_ports, listeners } =
                limits;
            assert_eq!(
                [health, metrics, page, local_api, health_check_node_ports, listeners],
                expected,
                "{descriptors}"
            );
            let used = health + metrics + page + local_api + health_check_node_ports + 2 * listeners;
            let reserved = descriptors - u64::try_from(used).expect("a number of descriptors");
            assert!(reserved >= RESERVED.min(descriptors / 2), "{descriptors}: {reserved} are left");
        }
    }
}
