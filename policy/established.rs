//! Termination of established connections that policies no longer allow.

use std::collections::HashSet;
use std::net::IpAddr;

use portcullis_cluster::Protocol;
use portcullis_netlink::Family;
use portcullis_netlink::conntrack::{Conntrack, DeleteCounts, Flow};

use crate::compile::CompiledPolicies;
use crate::evaluation::Connection;

/// Deletes the conntrack entries of connections that policies deny. Their next packet is then evaluated as the first
/// of a new connection, and dropped. `own` are the addresses of this node, whose own connections with its pods are
/// always kept.
///
/// # Errors
/// The conntrack table cannot be read or changed; the call can be repeated.
pub fn terminate_denied(
    conntrack: &mut Conntrack,
    compiled: &CompiledPolicies,
    own: &HashSet<IpAddr>,
) -> portcullis_netlink::Result<DeleteCounts> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number);
    conntrack.delete_where(&Family::ALL, &protocols, |flow| is_denied(flow, compiled, own))
}

/// As [`terminate_denied`], for TCP connections that conntrack picked up only.
///
/// # Errors
/// As [`terminate_denied`].
pub fn terminate_denied_picked_up(
    conntrack: &mut Conntrack,
    compiled: &CompiledPolicies,
    own: &HashSet<IpAddr>,
) -> portcullis_netlink::Result<DeleteCounts> {
    conntrack.delete_where(&Family::ALL, &[Protocol::Tcp.number()], |flow| {
        flow.is_picked_up && is_denied(flow, compiled, own)
    })
}

/// Returns true if policies deny a connection. One that was picked up may have been opened by either end, so it is
/// denied only if neither end may open it.
fn is_denied(flow: &Flow, compiled: &CompiledPolicies, own: &HashSet<IpAddr>) -> bool {
    let Some(connection) = connection_of(flow, own) else { return false };
    let is_allowed = |connection| compiled.evaluate(connection).is_allowed();
    let by_other_end = || flow.is_picked_up && is_allowed(reversed(connection, flow));
    !(is_allowed(connection) || by_other_end())
}

/// Returns the same connection as opened by its other end.
fn reversed(connection: Connection, flow: &Flow) -> Connection {
    Connection { from: connection.to, to: connection.from, port: flow.original.source_port, ..connection }
}

/// Returns the connection as policies see it: from the client to the endpoint, after DNAT. `None` for connections of
/// this node, and for protocols other than TCP, UDP and SCTP.
fn connection_of(flow: &Flow, own: &HashSet<IpAddr>) -> Option<Connection> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols.into_iter().find(|protocol| protocol.number() == flow.protocol)?;
    let (from, to) = (flow.original.source, flow.reply.source);
    let concerns_pods = !own.contains(&from) && !own.contains(&to);
    concerns_pods.then_some(Connection { from, to, port: flow.reply.source_port, protocol })
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Event, Index, Kind, Name, Object};
    use portcullis_netlink::conntrack::Tuple;

    use super::*;
    use crate::compile::{Compiler, Scope};

    #[test]
    fn connection_has_the_client_as_source_and_the_endpoint_as_destination() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let flow = |client: &str, service: &str, endpoint: &str, protocol: u8| Flow {
            family: Family::V4,
            protocol,
            original: Tuple {
                source: address(client),
                destination: address(service),
                source_port: 4000,
                destination_port: 80,
            },
            // Replies go to the node, which masqueraded the client.
            reply: Tuple {
                source: address(endpoint),
                destination: address("172.18.0.11"),
                source_port: 8080,
                destination_port: 5000,
            },
            id: None,
            status: 0,
            zone: 0,
            mark: 0,
            is_picked_up: false,
        };
        let own = HashSet::from([address("172.18.0.11"), address("10.244.1.1")]);
        let connection = |client, endpoint, protocol| {
            let found = connection_of(&flow(client, "10.96.0.1", endpoint, protocol), &own)?;
            Some((found.from.to_string(), found.to.to_string(), found.port, found.protocol))
        };
        let expected = ("10.244.1.5".to_owned(), "10.244.2.6".to_owned(), 8080, Protocol::Tcp);
        assert_eq!(connection("10.244.1.5", "10.244.2.6", 6), Some(expected));
        assert_eq!(connection("10.244.1.1", "10.244.1.6", 6), None, "a probe of the kubelet");
        assert_eq!(connection("10.244.1.5", "172.18.0.11", 17), None, "to the node itself");
        assert_eq!(connection("10.244.1.5", "10.244.2.6", 1), None, "ICMP is not terminated");
    }

    #[test]
    fn picked_up_connection_is_denied_if_neither_end_may_open_it() {
        let policy = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "x", "name": "web"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"ports": [{"port": 80}]}]},
        });
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "x", "name": "a"}, "spec": {"nodeName": "n"},
            "status": {"podIPs": [{"ip": "10.244.1.5"}]},
        });
        let mut index = Index::new();
        for (kind, object) in [(Kind::NetworkPolicy, policy), (Kind::Pod, pod)] {
            index.handle(Event::Applied(Object::parse(kind, object).expect("an object").object));
        }
        let compiler = Compiler::from_index(Scope::Node(Name::new("n")), &index);
        // Case, source, source port, destination, destination port, picked up, denied
        let rows = [
            ("opened by the client", "10.244.2.6", 4000, "10.244.1.5", 80, false, false),
            ("opened by the server", "10.244.1.5", 80, "10.244.2.6", 4000, false, true),
            ("picked up by a packet of the server", "10.244.1.5", 80, "10.244.2.6", 4000, true, false),
            ("from another port, picked up", "10.244.1.5", 81, "10.244.2.6", 4000, true, true),
            ("to another port, picked up", "10.244.2.6", 4000, "10.244.1.5", 81, true, true),
        ];
        for (what, from, source_port, to, destination_port, is_picked_up, expected) in rows {
            let [source, destination] = [from, to].map(|text| text.parse().expect("an address"));
            let original = Tuple { source, destination, source_port, destination_port };
            let reply = Tuple {
                source: destination,
                destination: source,
                source_port: destination_port,
                destination_port: source_port,
            };
            let (family, protocol) = (Family::V4, Protocol::Tcp.number());
            let flow = Flow {
                family,
                protocol,
                original,
                reply,
                id: None,
                status: 0,
                zone: 0,
                mark: 0,
                is_picked_up,
            };
            assert_eq!(is_denied(&flow, compiler.compiled(), &HashSet::new()), expected, "{what}");
        }
    }
}
