//! One port of a Service in one address family, resolved.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::endpoints::{Endpoints, gather};
use super::topology::{Place, choose};
use crate::address::Family;
use crate::endpoint_slice::EndpointSlice;
use crate::name::{Name, NamespacedName};
use crate::protocol::Protocol;
use crate::scheduler::Scheduler;
use crate::service::{Port, Service};

/// The name of a Service's port, as it is written in comments and hashed into chain names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortName {
    /// The Service.
    pub service: NamespacedName,
    /// The port's name; may be empty.
    pub port: Name,
    /// The protocol, which tells ports of one name apart.
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port.as_str() {
            "" => write!(f, "{}", self.service),
            port => write!(f, "{}:{port}", self.service),
        }
    }
}

impl fmt::Debug for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/{}", self.protocol)
    }
}

/// One port of a Service in one family: where it is reached, and what serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name.
    pub name: ServicePortName,
    /// The family of all its addresses.
    pub family: Family,
    /// The ClusterIP.
    pub cluster_ip: IpAddr,
    /// The port on all virtual addresses.
    pub port: NonZeroU16,
    /// The port on the node's addresses.
    pub node_port: Option<NonZeroU16>,
    /// `externalIPs`.
    pub external_ips: Box<[IpAddr]>,
    /// Addresses of the load balancer that arrive as destination.
    pub load_balancer_vips: Box<[IpAddr]>,
    /// The only clients that may use the load balancer's addresses; `None` where every client may. Never a block of
    /// all addresses. Without any block, no client may.
    pub source_ranges: Option<Box<[IpNet]>>,
    /// Session affinity by client address: its timeout in seconds.
    pub affinity: Option<u32>,
    /// Traffic to the ClusterIP goes to local endpoints only.
    pub internal_local: bool,
    /// Traffic from outside goes to local endpoints only.
    pub external_local: bool,
    /// Where the load balancer asks for local endpoints.
    pub health_check_node_port: Option<NonZeroU16>,
    /// The IPVS scheduler that the Service asks for.
    pub scheduler: Option<Scheduler>,
    /// What serves it.
    pub endpoints: Endpoints,
}

impl ServicePort {
    /// It can be reached by something other than its ClusterIP.
    pub fn externally_accessible(&self) -> bool {
        self.node_port.is_some() || !self.load_balancer_vips.is_empty() || !self.external_ips.is_empty()
    }

    /// It ever sends traffic by policy Cluster. With an external address it does even if the external
    /// policy is Local: pods of this cluster are led as if they had used the ClusterIP.
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }

    /// It ever sends traffic by policy Local.
    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || (self.external_local && self.externally_accessible())
    }
}

/// Resolves a Service: each of its ports in each family in which it has a ClusterIP.
pub(super) fn resolve(service: &Service, slices: &[EndpointSlice], place: Place) -> Vec<ServicePort> {
    let mut resolved = Vec::new();
    if service.ignored.is_some() {
        return resolved;
    }
    for family in Family::BOTH {
        let Some(cluster_ip) = of_family(&service.cluster_ips, family).next() else { continue };
        for (i, port) in service.ports.iter().enumerate() {
            // The last of several ports with the same name and protocol counts, as upstream.
            let same = |p: &Port| p.name == port.name && p.protocol == port.protocol;
            if !service.ports[i + 1..].iter().any(same) {
                resolved.push(resolve_port(service, port, cluster_ip, slices, place));
            }
        }
    }
    resolved
}

fn resolve_port(
    service: &Service,
    port: &Port,
    cluster_ip: IpAddr,
    slices: &[EndpointSlice],
    place: Place,
) -> ServicePort {
    let family = Family::of(cluster_ip);
    let mut resolved = ServicePort {
        name: ServicePortName { service: service.key.clone(), port: port.name, protocol: port.protocol },
        family,
        cluster_ip,
        port: port.port,
        node_port: port.node_port,
        external_ips: of_family(&service.external_ips, family).collect(),
        load_balancer_vips: of_family(&service.load_balancer_vips, family).collect(),
        source_ranges: service.source_ranges.of_family(family),
        affinity: service.affinity,
        internal_local: service.internal_local,
        external_local: service.external_local,
        health_check_node_port: service.health_check_node_port,
        scheduler: service.scheduler,
        endpoints: Endpoints::default(),
    };
    let candidates = gather(slices, family, port.name, port.protocol, place.node);
    resolved.endpoints = choose(candidates, &resolved, place);
    resolved
}

fn of_family(addresses: &[IpAddr], family: Family) -> impl Iterator<Item = IpAddr> + '_ {
    addresses.iter().copied().filter(move |a| Family::of(*a) == family)
}
