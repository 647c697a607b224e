//! Frontends: the destinations at which Services are reached.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::address::Family;
use crate::protocol::Protocol;

/// A destination whose connections are sent to the endpoints of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    /// A virtual address: ClusterIP, external IP or address of a load balancer.
    Address {
        /// The protocol.
        protocol: Protocol,
        /// The address.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// A port on the node's own addresses.
    NodePort {
        /// The protocol.
        protocol: Protocol,
        /// The family of the node's addresses.
        family: Family,
        /// The port.
        port: u16,
    },
}

/// The field by which a Service has a frontend, in order of precedence: if two Services claim one frontend, the
/// one whose field comes first is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendKind {
    /// `spec.clusterIPs`, which the API server allocates.
    ClusterIp,
    /// `spec.ports[].nodePort`, which the API server allocates.
    NodePort,
    /// `status.loadBalancer.ingress`, which a controller writes.
    LoadBalancer,
    /// `spec.externalIPs`, which anyone may write who may write the Service.
    ExternalIp,
}

impl Frontend {
    /// A virtual address.
    pub fn address(protocol: Protocol, ip: IpAddr, port: u16) -> Self {
        Frontend::Address { protocol, ip, port }
    }

    /// The family of its addresses.
    pub fn family(self) -> Family {
        match self {
            Frontend::Address { ip, .. } => Family::from_address(ip),
            Frontend::NodePort { family, .. } => family,
        }
    }

    /// Its protocol.
    pub fn protocol(self) -> Protocol {
        match self {
            Frontend::Address { protocol, .. } | Frontend::NodePort { protocol, .. } => protocol,
        }
    }
}

/// `10.96.0.1:80/tcp`, or `30080/tcp`.
impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frontend::Address { protocol, ip, port } => {
                write!(f, "{}/{protocol}", SocketAddr::new(*ip, *port))
            }
            Frontend::NodePort { protocol, port, .. } => write!(f, "{port}/{protocol}"),
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
