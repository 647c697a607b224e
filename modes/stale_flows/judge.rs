//! Says of each flow whether it is stale.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use portcullis_cluster::desired::{Desired, Endpoint, Frontend, ServicePort};
use portcullis_cluster::{Family, Protocol};
use portcullis_netlink::conntrack::{Flow, status};

/// What must be known to judge the flows to some frontends.
pub(super) struct Judge {
    suspects: HashSet<Frontend>,
    local: LocalAddresses,
    /// Who is reached at a frontend, by index; no entry where nobody is.
    owners: HashMap<Frontend, Vec<usize>>,
    /// What serves each owner.
    serving: Vec<HashSet<SocketAddr>>,
}

impl Judge {
    /// Looks up who is reached at the suspect frontends now. Costs one look at each port that `desired` has
    /// of their protocols, and memory in proportion to the suspects.
    pub(super) fn new(suspects: HashSet<Frontend>, desired: &Desired, local: LocalAddresses) -> Self {
        let beside = suspects.iter().filter_map(|frontend| local.node_port_beside(*frontend)).collect();
        let mut judge = Judge { suspects, local, owners: HashMap::new(), serving: Vec::new() };
        let protocols: HashSet<Protocol> =
            judge.suspects.iter().map(|frontend| frontend.protocol()).collect();
        for port in desired.ports().filter(|port| protocols.contains(&port.name.protocol)) {
            judge.add(port, &beside);
        }
        judge
    }

    fn add(&mut self, port: &ServicePort, beside: &HashSet<Frontend>) {
        let mut owner = None;
        for frontend in port.frontends() {
            let wanted = self.suspects.contains(&frontend)
                || beside.contains(&frontend)
                || self.local.node_port_beside(frontend).is_some_and(|n| self.suspects.contains(&n));
            if wanted {
                let owner = *owner.get_or_insert_with(|| {
                    self.serving.push(port.endpoints.serving().iter().map(Endpoint::socket).collect());
                    self.serving.len() - 1
                });
                self.owners.entry(frontend).or_default().push(owner);
            }
        }
    }

    /// Whether the flow leads to where its Service no longer is.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let Some(protocol) = protocols.into_iter().find(|p| p.number() == flow.protocol) else {
            return false;
        };
        if protocol == Protocol::Tcp && flow.status & status::SEEN_REPLY != 0 {
            return false;
        }
        let address = Frontend::address(protocol, flow.original.destination, flow.original.destination_port);
        let node_port = self.local.node_port_beside(address);
        if !self.suspects.contains(&address) && !node_port.is_some_and(|n| self.suspects.contains(&n)) {
            return false;
        }
        let at = [Some(address), node_port].into_iter().flatten();
        let owners = at.filter_map(|frontend| self.owners.get(&frontend)).flatten();
        let mut served = owners.map(|&owner| &self.serving[owner]).filter(|s| !s.is_empty()).peekable();
        match served.peek() {
            // Whoever serves now is to be reached; that includes a flow which was never translated.
            Some(_) => !served.any(|endpoints| endpoints.contains(&reply_source(flow))),
            None => is_translated(flow),
        }
    }
}

fn reply_source(flow: &Flow) -> SocketAddr {
    SocketAddr::new(flow.reply.source, flow.reply.source_port)
}

/// Whether the answers come from elsewhere than where the client sends to.
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
            // No packet leaves ::1 for anywhere else, so no mode serves node ports there.
            addresses: addresses.iter().copied().filter(|a| *a != Ipv6Addr::LOCALHOST).collect(),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        // All of 127.0.0.0/8 is local where some of it is.
        (self.loopback && address.is_ipv4() && address.is_loopback()) || self.addresses.contains(&address)
    }

    /// The node port that a packet to this address would reach too.
    fn node_port_beside(&self, frontend: Frontend) -> Option<Frontend> {
        match frontend {
            Frontend::Address { protocol, ip, port } => self.contains(ip).then(|| Frontend::NodePort {
                protocol,
                family: Family::from_address(ip),
                port,
            }),
            Frontend::NodePort { .. } => None,
        }
    }
}
