//! The decision whether a flow is stale.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use portcullis_cluster::Protocol;
use portcullis_cluster::desired::{Desired, Endpoint, FrontendAddress, ServicePort};
use portcullis_netlink::conntrack::{Flow, status};

use super::waiting::DueFrontends;

/// The serving endpoints at some frontends, by which flows to these are judged.
pub(super) struct StaleFlowMatcher {
    frontends: DueFrontends,
    local: LocalAddresses,
    /// The Service ports that serve a frontend, as indices; no entry for a frontend without one.
    ports: HashMap<FrontendAddress, Vec<usize>>,
    /// The serving endpoints of each Service port.
    serving: Vec<HashSet<SocketAddr>>,
}

impl StaleFlowMatcher {
    /// Collects the Service ports that serve the affected frontends now. Visits each port of their protocols, and takes
    /// memory in proportion to the frontends.
    pub(super) fn new(frontends: DueFrontends, desired: &Desired, local: LocalAddresses) -> Self {
        let (node_ports, protocols): (_, Option<HashSet<Protocol>>) = match &frontends {
            DueFrontends::Only(only) => (
                only.iter().filter_map(|frontend| local.node_port_at(*frontend)).collect(),
                Some(only.iter().map(|frontend| frontend.protocol()).collect()),
            ),
            DueFrontends::AllExcept(..) => (HashSet::new(), None),
        };
        let mut matcher = StaleFlowMatcher { frontends, local, ports: HashMap::new(), serving: Vec::new() };
        let is_needed = |port: &&ServicePort| {
            protocols.as_ref().is_none_or(|protocols| protocols.contains(&port.name.protocol))
        };
        for port in desired.ports().filter(is_needed) {
            matcher.add(port, &node_ports);
        }
        matcher
    }

    fn add(&mut self, port: &ServicePort, node_ports: &HashSet<FrontendAddress>) {
        let mut index = None;
        for frontend in port.frontends().map(|frontend| frontend.address) {
            let is_affected = self.frontends.contains(&frontend)
                || node_ports.contains(&frontend)
                || self.local.node_port_at(frontend).is_some_and(|n| self.frontends.contains(&n));
            if is_affected {
                let index = *index.get_or_insert_with(|| {
                    self.serving.push(port.endpoints.serving().iter().map(Endpoint::socket).collect());
                    self.serving.len() - 1
                });
                self.ports.entry(frontend).or_default().push(index);
            }
        }
    }

    /// Returns true if the flow goes to an endpoint that no longer serves its Service.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let Some(protocol) = protocols.into_iter().find(|p| p.number() == flow.protocol) else {
            return false;
        };
        if protocol == Protocol::Tcp && flow.status & status::SEEN_REPLY != 0 {
            return false;
        }
        let address =
            FrontendAddress::virtual_ip(protocol, flow.original.destination, flow.original.destination_port);
        let node_port = self.local.node_port_at(address);
        if !self.frontends.contains(&address) && !node_port.is_some_and(|n| self.frontends.contains(&n)) {
            return false;
        }
        let reached = [Some(address), node_port].into_iter().flatten();
        let ports = reached.filter_map(|frontend| self.ports.get(&frontend)).flatten();
        let mut served = ports.map(|&index| &self.serving[index]).filter(|s| !s.is_empty()).peekable();
        match served.peek() {
            // A flow must reach a serving endpoint; this includes a flow that was never translated.
            Some(_) => !served.any(|endpoints| endpoints.contains(&reply_source(flow))),
            None => is_translated(flow),
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
