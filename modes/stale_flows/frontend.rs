//! Where a Service is reached, as connection tracking sees it, and what of that a change makes suspect.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::desired::{Endpoint, ServiceChange, ServicePort};
use portcullis_cluster::{Family, Protocol};

/// A destination that rules translate to endpoints: what stands in a flow's original direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Frontend {
    /// A virtual address: ClusterIP, external IP or address of a load balancer.
    Address { protocol: Protocol, socket: SocketAddr },
    /// A port on the node's own addresses.
    NodePort { protocol: Protocol, family: Family, port: u16 },
}

impl Frontend {
    /// A virtual address.
    pub(super) fn address(protocol: Protocol, address: IpAddr, port: u16) -> Self {
        Frontend::Address { protocol, socket: SocketAddr::new(address, port) }
    }

    /// All frontends of a port, some maybe twice.
    pub(super) fn of(port: &ServicePort) -> impl Iterator<Item = Frontend> + '_ {
        let protocol = port.name.protocol;
        let virtual_addresses =
            std::iter::once(&port.cluster_ip).chain(&port.external_ips).chain(&port.load_balancer_vips);
        let node_port = port.node_port.map(|node_port| Frontend::NodePort {
            protocol,
            family: port.family,
            port: node_port.get(),
        });
        virtual_addresses
            .map(move |address| Frontend::address(protocol, *address, port.port.get()))
            .chain(node_port)
    }

    pub(super) fn family(self) -> Family {
        match self {
            Frontend::Address { socket, .. } => Family::of(socket.ip()),
            Frontend::NodePort { family, .. } => family,
        }
    }

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Frontend::Address { protocol, .. } | Frontend::NodePort { protocol, .. } => protocol,
        }
    }
}

/// The ports whose flows can go stale.
pub(super) fn tracked(ports: &[ServicePort]) -> impl Iterator<Item = &ServicePort> {
    ports.iter().filter(|port| port.name.protocol.keeps_stale_flows())
}

/// The frontends of which a change may have left stale flows. An endpoint that is merely added leaves none.
pub(super) fn suspects(change: &ServiceChange) -> HashSet<Frontend> {
    let (before, after) = (by_frontend(&change.before), by_frontend(&change.after));
    let gone = before.keys().filter(|frontend| !after.contains_key(frontend));
    let suspect = after.iter().filter(|(frontend, serving)| match before.get(frontend) {
        None => true,
        Some(served) => lost_an_endpoint(served, serving) || (served.is_empty() && !serving.is_empty()),
    });
    gone.chain(suspect.map(|(frontend, _)| frontend)).copied().collect()
}

fn by_frontend(ports: &[ServicePort]) -> HashMap<Frontend, &[Endpoint]> {
    tracked(ports)
        .flat_map(|port| Frontend::of(port).map(|frontend| (frontend, port.endpoints.serving())))
        .collect()
}

fn lost_an_endpoint(before: &[Endpoint], after: &[Endpoint]) -> bool {
    let after: HashSet<SocketAddr> = after.iter().map(Endpoint::socket).collect();
    before.iter().any(|endpoint| !after.contains(&endpoint.socket()))
}
