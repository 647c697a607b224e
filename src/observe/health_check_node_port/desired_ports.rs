//! Desired health check ports and their endpoint counts, computed from the desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use portcullis_cluster::desired::{Desired, FrontendAddress};
use portcullis_cluster::{Family, NamespacedName, Protocol};

/// All health check ports to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredPorts {
    /// Node addresses that serve NodePorts; the unspecified addresses (`0.0.0.0`, `::`) mean
    /// all addresses of their family.
    pub addresses: Vec<IpAddr>,
    /// Health checks by Service.
    pub services: BTreeMap<NamespacedName, ServiceHealthCheck>,
}

/// Health check of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHealthCheck {
    /// TCP port.
    pub port: NonZeroU16,
    /// Number of ready endpoints on this node, in each IP family of the Service.
    pub local_endpoints: BTreeMap<Family, usize>,
    /// Service with the same TCP node port in one of these families, whose rules translate connections to
    /// the port before a listener receives them.
    pub node_port_of: Option<NamespacedName>,
}

impl DesiredPorts {
    /// Returns the health check ports of the desired state on these addresses.
    pub fn new(desired: &Desired, addresses: Vec<IpAddr>) -> Self {
        let services = desired.services().iter().filter_map(|(service, ports)| {
            let port = ports.iter().find_map(|port| port.health_check_node_port)?;
            // A pod counts once, however many ports of the Service it has.
            let mut endpoints: BTreeMap<Family, BTreeSet<IpAddr>> = BTreeMap::new();
            for port in ports.iter() {
                let local = port.endpoints.local_ready().map(|endpoint| endpoint.ip);
                endpoints.entry(port.family).or_default().extend(local);
            }
            let node_port_of = endpoints.keys().find_map(|&family| {
                let address = FrontendAddress::NodePort { protocol: Protocol::Tcp, family, port: port.get() };
                desired.served_at(&address)
            });
            let node_port_of = node_port_of.cloned();
            let local_endpoints = endpoints.into_iter().map(|(family, ips)| (family, ips.len())).collect();
            Some((service.clone(), ServiceHealthCheck { port, local_endpoints, node_port_of }))
        });
        DesiredPorts { services: services.collect(), addresses }
    }
}
