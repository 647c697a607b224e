//! Connections through Services that are under way.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::Protocol;
use portcullis_cluster::desired::Desired;
use portcullis_modes::cleanup;
use portcullis_netlink::conntrack::{Conntrack, Flow};
use portcullis_netlink::{Family, Result};
use serde::Serialize;

use crate::host;

/// How many connections, by protocol.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// What is at stake.
#[derive(Debug, Default, Serialize)]
pub(super) struct Stake {
    /// Those that connection tracking translates: they live on without the rules that led them.
    pub(super) translated: Counts,
    /// Those that IPVS translates, which need its virtual servers.
    pub(super) balanced: Counts,
    /// The same by virtual server, those with most first.
    #[serde(rename = "virtualServers")]
    pub(super) virtual_servers: Vec<VirtualServer>,
}

/// A virtual server with connections.
#[derive(Debug, Serialize)]
pub(super) struct VirtualServer {
    /// Its address and port.
    pub(super) address: SocketAddr,
    /// Its protocol.
    pub(super) protocol: &'static str,
    /// Its connections.
    pub(super) connections: u64,
}

impl Stake {
    /// Counts them: of TCP those that are established.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(super) fn count(desired: &Desired) -> Result<Stake> {
        let mut stake = Stake::default();
        let fronts = Fronts::of(desired, host::addresses());
        let mut conntrack = Conntrack::open()?;
        for family in Family::ALL {
            conntrack.established(family, |flow| {
                if let Some(protocol) = protocol_of(flow.protocol)
                    && flow.has_destination_nat()
                    && fronts.has(flow, protocol)
                {
                    *stake.translated.entry(protocol.as_str()).or_default() += 1;
                }
            })?;
        }
        for (server, connections) in cleanup::ipvs_connections()? {
            let Some(protocol) = protocol_of(server.protocol) else { continue };
            let (address, protocol) = (SocketAddr::new(server.address, server.port), protocol.as_str());
            *stake.balanced.entry(protocol).or_default() += connections;
            stake.virtual_servers.push(VirtualServer { address, protocol, connections });
        }
        stake.virtual_servers.sort_by_key(|s| (std::cmp::Reverse(s.connections), s.address, s.protocol));
        Ok(stake)
    }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.number() == number)
}

/// Where Services are reached.
struct Fronts {
    addresses: HashSet<(Protocol, IpAddr, u16)>,
    node_ports: HashSet<(Protocol, u16)>,
    node: HashSet<IpAddr>,
}

impl Fronts {
    fn of(desired: &Desired, node: Vec<IpAddr>) -> Fronts {
        let mut fronts = Fronts {
            addresses: HashSet::new(),
            node_ports: HashSet::new(),
            node: node.into_iter().collect(),
        };
        for port in desired.ports() {
            let protocol = port.name.protocol;
            let all = port.virtual_ips();
            fronts.addresses.extend(all.map(|address| (protocol, address, port.port.get())));
            fronts.node_ports.extend(port.node_port.map(|node_port| (protocol, node_port.get())));
        }
        fronts
    }

    fn has(&self, flow: &Flow, protocol: Protocol) -> bool {
        let (address, port) = (flow.original.destination, flow.original.destination_port);
        self.addresses.contains(&(protocol, address, port))
            || self.node_ports.contains(&(protocol, port)) && self.node.contains(&address)
    }
}
