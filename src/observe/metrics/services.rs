//! Traffic metrics of each Service. They are too many series for `/metrics`, so they have an endpoint of their own.

use portcullis_modes::{ServicePortTraffic, TrafficVolume};
use prometheus::{Registry, TextEncoder};

use super::register::Registrar;
use crate::fair_limit::limit;

/// The number of Service ports with traffic metrics, each of which has up to five series.
const PORTS: usize = 20_000;

const LABELS: [&str; 5] = ["service_namespace", "service_name", "port_name", "protocol", "ip_family"];
const LABELS_AND_DIRECTION: [&str; 6] =
    ["service_namespace", "service_name", "port_name", "protocol", "ip_family", "direction"];

/// Returns the traffic metrics in Prometheus' text format.
///
/// # Errors
/// Returns an error if a metric has no name or value, which does not happen.
pub fn render(traffic: &[ServicePortTraffic]) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry(traffic, PORTS).gather())
}

/// Returns the traffic metrics of up to `ports` Service ports.
pub(super) fn registry(traffic: &[ServicePortTraffic], ports: usize) -> Registry {
    let registry = Registry::new();
    let to = Registrar(&registry);
    let connections = to.counters(
        "portcullis_service_connections_total",
        "Connections (and flows of protocols other than TCP) of a Service port that were forwarded to an endpoint",
        &LABELS,
    );
    let packets = to.counters(
        "portcullis_service_packets_total",
        "Packets of a Service port, from clients (in) and to clients (out)",
        &LABELS_AND_DIRECTION,
    );
    let bytes = to.counters(
        "portcullis_service_bytes_total",
        "Bytes of a Service port including IP headers, from clients (in) and to clients (out)",
        &LABELS_AND_DIRECTION,
    );
    let omitted = to.gauge(
        "portcullis_service_ports_omitted",
        "Service ports without traffic metrics, as there are more than 20000",
    );
    let namespace = |traffic: &&ServicePortTraffic| traffic.port.service.namespace.to_string();
    let key = |traffic: &&ServicePortTraffic| (traffic.port.clone(), traffic.family);
    let limited = limit(traffic, ports, namespace, key);
    omitted.set(limited.omitted as f64);
    for ServicePortTraffic { port, family, counts } in limited.items {
        // Spelled as in the API.
        let (service, protocol) = (&port.service, port.protocol.as_str().to_ascii_uppercase());
        let labels =
            [service.namespace.as_str(), &*service.name, port.port.as_str(), &*protocol, family.as_str()];
        connections.with_label_values(&labels).inc_by(counts.connections as f64);
        let Some(TrafficVolume { packets_in, packets_out, bytes_in, bytes_out }) = counts.volume else {
            continue;
        };
        for (counters, direction, count) in [
            (&packets, "in", packets_in),
            (&packets, "out", packets_out),
            (&bytes, "in", bytes_in),
            (&bytes, "out", bytes_out),
        ] {
            let [namespace, service, port, protocol, family] = labels;
            let labels = [namespace, service, port, protocol, family, direction];
            counters.with_label_values(&labels).inc_by(count as f64);
        }
    }
    registry
}

/// Returns traffic with a value for each metric, for tests.
#[cfg(test)]
pub(super) fn example() -> ServicePortTraffic {
    use portcullis_cluster::desired::ServicePortName;
    use portcullis_cluster::{Family, Name, NamespacedName, Protocol};
    use portcullis_modes::TrafficCounts;

    ServicePortTraffic {
        port: ServicePortName {
            service: NamespacedName::new("shop", "web"),
            port: Name::new("http"),
            protocol: Protocol::Tcp,
        },
        family: Family::V4,
        counts: TrafficCounts {
            connections: 3,
            volume: Some(TrafficVolume { packets_in: 5, packets_out: 4, bytes_in: 300, bytes_out: 4000 }),
        },
    }
}
