//! The decision whether a flow is stale.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use portcullis_cluster::Protocol;
use portcullis_cluster::desired::{Desired, FrontendAddress, ServicePort, ServingEndpoints};
use portcullis_netlink::conntrack::{Flow, status};

use super::affected_frontends::may_have_flows;
use super::waiting::DueFrontends;

/// The number of endpoints from which they are looked up in a set.
const MANY_ENDPOINTS: usize = 64;

/// The serving endpoints at frontends, by which flows to these are judged.
///
/// They are looked up for the flows that there are: a start examines the frontends of all Services, and most have no flow.
pub(super) struct StaleFlowMatcher<'a> {
    due: DueFrontends,
    desired: &'a Desired,
    local: LocalAddresses,
    /// The Service ports at the frontends of the flows so far.
    served: HashMap<FrontendAddress, Served<'a>>,
}

/// The Service ports at a frontend.
#[derive(Default)]
struct Served<'a> {
    /// A Service may have flows there.
    may_have_flows: bool,
    /// The serving endpoints of each port that has any.
    endpoints: Vec<EndpointLookup<'a>>,
}

enum EndpointLookup<'a> {
    Few(&'a ServingEndpoints),
    Many(HashSet<SocketAddr>),
}

impl<'a> StaleFlowMatcher<'a> {
    pub(super) fn new(due: DueFrontends, desired: &'a Desired, local: LocalAddresses) -> Self {
        StaleFlowMatcher { due, desired, local, served: HashMap::new() }
    }

    /// Returns true if the flow goes to an endpoint that no longer serves its Service.
    pub(super) fn is_stale(&mut self, flow: &Flow) -> bool {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let Some(protocol) = protocols.into_iter().find(|p| p.number() == flow.protocol) else {
            return false;
        };
        if protocol == Protocol::Tcp && flow.status & status::SEEN_REPLY != 0 {
            return false;
        }
        let address =
            FrontendAddress::virtual_ip(protocol, flow.original.destination, flow.original.destination_port);
        let reached = [Some(address), self.local.node_port_at(address)];
        let (mut is_examined, mut is_served, mut is_served_by_source) = (false, false, false);
        for frontend in reached.into_iter().flatten() {
            let served = self.served_at(frontend);
            let may_have_flows = served.is_some_and(|served| served.may_have_flows);
            for endpoints in served.into_iter().flat_map(|served| &served.endpoints) {
                is_served = true;
                is_served_by_source |= endpoints.contains(reply_source(flow));
            }
            is_examined |= self.due.contains(&frontend, may_have_flows);
        }
        // A flow must reach a serving endpoint; this includes a flow that was never translated.
        is_examined && if is_served { !is_served_by_source } else { is_translated(flow) }
    }

    /// Returns the Service ports at a frontend. Most flows of a machine go to no Service; nothing is kept of these.
    fn served_at(&mut self, frontend: FrontendAddress) -> Option<&Served<'a>> {
        let ports = self.desired.services().get(self.desired.served_at(&frontend)?)?;
        Some(self.served.entry(frontend).or_insert_with(|| Served::new(&frontend, ports)))
    }
}

impl<'a> Served<'a> {
    fn new(frontend: &FrontendAddress, ports: &'a [ServicePort]) -> Self {
        let mut served = Served::default();
        for port in ports.iter().filter(|port| has_frontend(port, frontend)) {
            served.may_have_flows |= may_have_flows(frontend, port);
            served.endpoints.extend(EndpointLookup::new(port.endpoints.serving()));
        }
        served
    }
}

/// Returns true if a Service port has a frontend. A Service may have thousands of ports, so their numbers are compared first.
fn has_frontend(port: &ServicePort, frontend: &FrontendAddress) -> bool {
    let number = if frontend.ip().is_some() { Some(port.port) } else { port.node_port };
    number.is_some_and(|number| number.get() == frontend.port())
        && port.frontends().any(|of_port| of_port.address == *frontend)
}

impl<'a> EndpointLookup<'a> {
    /// Returns `None` without endpoints.
    fn new(endpoints: &'a ServingEndpoints) -> Option<Self> {
        match endpoints.len() {
            0 => None,
            1..MANY_ENDPOINTS => Some(EndpointLookup::Few(endpoints)),
            _ => Some(EndpointLookup::Many(endpoints.iter().map(|endpoint| endpoint.socket()).collect())),
        }
    }

    fn contains(&self, address: SocketAddr) -> bool {
        match self {
            EndpointLookup::Few(endpoints) => endpoints.iter().any(|e| e.socket() == address),
            EndpointLookup::Many(endpoints) => endpoints.contains(&address),
        }
    }
}

fn reply_source(flow: &Flow) -> SocketAddr {
    SocketAddr::new(flow.reply.source, flow.reply.source_port)
}

/// Returns true if the replies come from another address than the client sends to.
fn is_translated(flow: &Flow) -> bool {
    reply_source(flow) != SocketAddr::new(flow.original.destination, flow.original.destination_port)
}

/// The addresses on which node ports are served.
#[derive(Debug, Default)]
pub(super) struct LocalAddresses {
    addresses: HashSet<IpAddr>,
    loopback: bool,
}

impl LocalAddresses {
    pub(super) fn new(addresses: &[IpAddr]) -> Self {
        LocalAddresses {
            loopback: addresses.iter().any(|address| address.is_ipv4() && address.is_loopback()),
            // Packets from ::1 do not leave the machine, so no mode serves node ports there.
            addresses: addresses.iter().copied().filter(|a| *a != Ipv6Addr::LOCALHOST).collect(),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        // All of 127.0.0.0/8 is local if some of it is.
        (self.loopback && address.is_ipv4() && address.is_loopback()) || self.addresses.contains(&address)
    }

    /// Returns the node port that a packet to this address would also reach.
    fn node_port_at(&self, frontend: FrontendAddress) -> Option<FrontendAddress> {
        frontend.ip().filter(|ip| self.contains(*ip)).and_then(|_| frontend.same_node_port())
    }
}
