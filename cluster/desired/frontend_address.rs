//! Addresses of frontends, and the Service fields that they come from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::address::Family;
use crate::protocol::Protocol;

/// The destination of connections to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendAddress {
    /// A port of a virtual IP: of a ClusterIP, an external IP or an address of a load balancer.
    VirtualIp {
        /// The protocol.
        protocol: Protocol,
        /// The address.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// A port of the node's own addresses.
    NodePort {
        /// The protocol.
        protocol: Protocol,
        /// The family of the node's addresses.
        family: Family,
        /// The port.
        port: u16,
    },
}

/// The Service field that a frontend comes from, in order of precedence: if two Services claim the same frontend, the
/// Service whose field comes first is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendKind {
    /// `spec.clusterIPs`, which the API server allocates.
    ClusterIp,
    /// `spec.ports[].nodePort`, which the API server allocates.
    NodePort,
    /// `status.loadBalancer.ingress`, which a controller writes.
    LoadBalancer,
    /// `spec.externalIPs`, which every user may write who may write the Service.
    ExternalIp,
}

impl FrontendAddress {
    /// Returns the frontend address of a virtual IP.
    pub fn virtual_ip(protocol: Protocol, ip: IpAddr, port: u16) -> Self {
        FrontendAddress::VirtualIp { protocol, ip, port }
    }

    /// Returns the node port with the protocol and port of a virtual IP. Where the address is local, packets to it may be
    /// for either. `None` for a node port.
    pub fn same_node_port(self) -> Option<FrontendAddress> {
        match self {
            FrontendAddress::VirtualIp { protocol, ip, port } => {
                Some(FrontendAddress::NodePort { protocol, family: Family::from_address(ip), port })
            }
            FrontendAddress::NodePort { .. } => None,
        }
    }

    /// Returns the address of a virtual IP.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            FrontendAddress::VirtualIp { ip, .. } => Some(ip),
            FrontendAddress::NodePort { .. } => None,
        }
    }

    /// Returns the family.
    pub fn family(self) -> Family {
        match self {
            FrontendAddress::VirtualIp { ip, .. } => Family::from_address(ip),
            FrontendAddress::NodePort { family, .. } => family,
        }
    }

    /// Returns the protocol.
    pub fn protocol(self) -> Protocol {
        match self {
            FrontendAddress::VirtualIp { protocol, .. } | FrontendAddress::NodePort { protocol, .. } => {
                protocol
            }
        }
    }

    /// Returns the port.
    pub fn port(self) -> u16 {
        match self {
            FrontendAddress::VirtualIp { port, .. } | FrontendAddress::NodePort { port, .. } => port,
        }
    }
}

/// `10.96.0.1:80/tcp`, or `30080/tcp`.
impl fmt::Display for FrontendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontendAddress::VirtualIp { protocol, ip, port } => {
                write!(f, "{}/{protocol}", SocketAddr::new(*ip, *port))
            }
            FrontendAddress::NodePort { protocol, port, .. } => write!(f, "{port}/{protocol}"),
        }
    }
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::NodePort => "node port",
            FrontendKind::LoadBalancer => "load balancer address",
            FrontendKind::ExternalIp => "external IP",
        })
    }
}
