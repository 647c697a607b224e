//! Connections that policies forbid though they are there already: found among what the kernel tracks, and cut.

use std::collections::HashSet;
use std::net::IpAddr;

use portcullis_cluster::Protocol;
use portcullis_netlink::Family;
use portcullis_netlink::conntrack::{Conntrack, Deleted, Flow};

use crate::compile::Compiled;
use crate::judge::Connection;

/// Deletes what the kernel knows of connections that the policies forbid now. Their next packet counts as the first of
/// a new connection, which is dropped. `own` are the addresses of this machine: its own connections with its pods
/// always live on.
///
/// # Errors
/// The kernel cannot be asked; the call can be repeated.
pub fn cut(
    conntrack: &mut Conntrack,
    compiled: &Compiled,
    own: &HashSet<IpAddr>,
) -> portcullis_netlink::Result<Deleted> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number);
    conntrack.delete_where(&Family::ALL, &protocols, |flow| {
        connection_of(flow, own).is_some_and(|connection| !compiled.judge(connection).is_allowed())
    })
}

/// The connection as policies see it: from the client, to the endpoint that a Service's address was replaced by.
/// `None` for what is this machine's own.
fn connection_of(flow: &Flow, own: &HashSet<IpAddr>) -> Option<Connection> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols.into_iter().find(|protocol| protocol.number() == flow.protocol)?;
    let (from, to) = (flow.original.source, flow.reply.source);
    let concerns_pods = !own.contains(&from) && !own.contains(&to);
    concerns_pods.then_some(Connection { from, to, port: flow.reply.source_port, protocol })
}

#[cfg(test)]
mod tests {
    use portcullis_netlink::conntrack::Tuple;

    use super::*;

    #[test]
    fn a_connection_is_from_the_client_to_the_endpoint() {
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
            // The answer goes to the node, which masqueraded the client.
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
        };
        let own = HashSet::from([address("172.18.0.11"), address("10.244.1.1")]);
        let of = |client, endpoint, protocol| {
            let found = connection_of(&flow(client, "10.96.0.1", endpoint, protocol), &own)?;
            Some((found.from.to_string(), found.to.to_string(), found.port, found.protocol))
        };
        let expected = ("10.244.1.5".to_owned(), "10.244.2.6".to_owned(), 8080, Protocol::Tcp);
        assert_eq!(of("10.244.1.5", "10.244.2.6", 6), Some(expected));
        assert_eq!(of("10.244.1.1", "10.244.1.6", 6), None, "a probe of the kubelet's");
        assert_eq!(of("10.244.1.5", "172.18.0.11", 17), None, "to the node itself");
        assert_eq!(of("10.244.1.5", "10.244.2.6", 1), None, "policies do not cut pings");
    }
}
