//! Established connections through Services, which a migration affects.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::Protocol;
use portcullis_cluster::desired::{Desired, FrontendAddress};
use portcullis_modes::cleanup;
use portcullis_netlink::conntrack::{Conntrack, Flow};
use portcullis_netlink::{Family, Result};
use serde::Serialize;

use crate::host;

/// Numbers of connections by protocol.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// Established connections through Services.
#[derive(Debug, Default, Serialize)]
pub(super) struct AffectedConnections {
    /// Connections that connection tracking translates: they continue without the rules.
    pub(super) translated: Counts,
    /// Connections that IPVS translates: they need their virtual server.
    pub(super) balanced: Counts,
    /// The connections through IPVS by virtual server, those with most connections first.
    #[serde(rename = "virtualServers")]
    pub(super) virtual_servers: Vec<VirtualServer>,
}

/// A virtual server with connections.
#[derive(Debug, Serialize)]
pub(super) struct VirtualServer {
    /// The address and port.
    pub(super) address: SocketAddr,
    /// The protocol.
    pub(super) protocol: &'static str,
    /// The number of connections.
    pub(super) connections: u64,
}

impl AffectedConnections {
    /// Counts the connections; of TCP, only established ones.
    ///
    /// # Errors
    /// The kernel's tables cannot be read.
    pub(super) fn count(desired: &Desired) -> Result<AffectedConnections> {
        let mut affected = AffectedConnections::default();
        let frontends = FrontendAddresses::new(desired, host::addresses());
        let mut conntrack = Conntrack::open()?;
        for family in Family::ALL {
            conntrack.established(family, |flow| {
                if let Some(protocol) = protocol_of(flow.protocol)
                    && flow.has_destination_nat()
                    && frontends.has(flow, protocol)
                {
                    *affected.translated.entry(protocol.as_str()).or_default() += 1;
                }
            })?;
        }
        for (server, connections) in cleanup::ipvs_connections()? {
            let Some(protocol) = protocol_of(server.protocol) else { continue };
            let (address, protocol) = (SocketAddr::new(server.address, server.port), protocol.as_str());
            *affected.balanced.entry(protocol).or_default() += connections;
            affected.virtual_servers.push(VirtualServer { address, protocol, connections });
        }
        affected.virtual_servers.sort_by_key(|s| (std::cmp::Reverse(s.connections), s.address, s.protocol));
        Ok(affected)
    }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.number() == number)
}

/// The frontends of all Services on this node.
struct FrontendAddresses {
    frontends: HashSet<FrontendAddress>,
    /// The addresses of the node, which have the node ports.
    node: HashSet<IpAddr>,
}

impl FrontendAddresses {
    fn new(desired: &Desired, node: Vec<IpAddr>) -> FrontendAddresses {
        let frontends = desired.ports().flat_map(|port| port.frontends()).map(|frontend| frontend.address);
        FrontendAddresses { frontends: frontends.collect(), node: node.into_iter().collect() }
    }

    /// Returns true if the original destination of a flow is a frontend.
    fn has(&self, flow: &Flow, protocol: Protocol) -> bool {
        let (ip, port) = (flow.original.destination, flow.original.destination_port);
        let virtual_ip = FrontendAddress::virtual_ip(protocol, ip, port);
        let node_port = virtual_ip.same_node_port().filter(|_| self.node.contains(&ip));
        [Some(virtual_ip), node_port].into_iter().flatten().any(|address| self.frontends.contains(&address))
    }
}
