//! One port of a Service in one address family, resolved.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::endpoints::{Endpoints, gather};
use super::frontend::{Frontend, FrontendKind};
use super::topology::{Place, choose};
use crate::address::Family;
use crate::endpoint_slice::EndpointSlice;
use crate::ipvs_scheduler::IpvsScheduler;
use crate::name::{Name, NamespacedName};
use crate::protocol::Protocol;
use crate::service::{Service, ServicePortSpec};

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
    /// The ClusterIP; `None` where another Service is served there.
    pub cluster_ip: Option<IpAddr>,
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
    pub scheduler: Option<IpvsScheduler>,
    /// What serves it.
    pub endpoints: Endpoints,
}

impl ServicePort {
    /// All virtual addresses at which it is reached, some maybe twice.
    pub fn virtual_ips(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        let external = self.external_ips.iter().chain(&self.load_balancer_vips);
        self.cluster_ip.into_iter().chain(external.copied())
    }

    /// Returns the addresses of all its frontends, some maybe twice.
    pub fn frontends(&self) -> impl Iterator<Item = Frontend> + '_ {
        let (protocol, port) = (self.name.protocol, self.port.get());
        let node_port = self.node_port.map(|node_port| Frontend::NodePort {
            protocol,
            family: self.family,
            port: node_port.get(),
        });
        self.virtual_ips().map(move |ip| Frontend::address(protocol, ip, port)).chain(node_port)
    }

    /// Returns true if it is served anywhere.
    fn has_frontend(&self) -> bool {
        self.cluster_ip.is_some() || self.externally_accessible()
    }

    /// Removes the frontends that are not served, and lists them.
    pub(super) fn retain_frontends(
        &mut self,
        is_served: impl Fn(&Frontend, FrontendKind) -> bool,
        unserved: &mut Vec<Claim>,
    ) {
        let (protocol, family, port) = (self.name.protocol, self.family, self.port.get());
        let mut keep = |frontend: Frontend, kind: FrontendKind| {
            let keep = is_served(&frontend, kind);
            if !keep {
                unserved.push((frontend, kind));
            }
            keep
        };
        let mut keep_ip = |ip: &IpAddr, kind| keep(Frontend::address(protocol, *ip, port), kind);
        self.cluster_ip = self.cluster_ip.filter(|ip| keep_ip(ip, FrontendKind::ClusterIp));
        let vips = std::mem::take(&mut self.load_balancer_vips);
        self.load_balancer_vips =
            vips.into_iter().filter(|ip| keep_ip(ip, FrontendKind::LoadBalancer)).collect();
        let external_ips = std::mem::take(&mut self.external_ips);
        self.external_ips =
            external_ips.into_iter().filter(|ip| keep_ip(ip, FrontendKind::ExternalIp)).collect();
        self.node_port = self.node_port.filter(|node_port| {
            let frontend = Frontend::NodePort { protocol, family, port: node_port.get() };
            keep(frontend, FrontendKind::NodePort)
        });
        // A mode may tell the entries of session affinity apart by the ClusterIP.
        self.affinity = self.affinity.filter(|_| self.cluster_ip.is_some());
    }

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

/// A frontend that a Service asks for, and by which field.
pub(super) type Claim = (Frontend, FrontendKind);

/// The blocks to which external IPs and load balancer addresses are restricted; none for no restriction.
#[derive(Default)]
pub(super) struct Allowed(pub(super) Box<[IpNet]>);

impl Allowed {
    /// Whether a frontend of this kind may be served.
    pub(super) fn allows(&self, frontend: &Frontend, kind: FrontendKind) -> bool {
        let is_restricted = matches!(kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp);
        match frontend {
            Frontend::Address { ip, .. } if is_restricted && !self.0.is_empty() => {
                self.0.iter().any(|net| net.contains(ip))
            }
            _ => true,
        }
    }

    /// The frontends that a Service asks for and may be served at.
    pub(super) fn claims<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = Claim> + 'a {
        served_ports(service)
            .flat_map(|(cluster_ip, port)| claims_of_port(service, cluster_ip, port))
            .filter(|(frontend, kind)| self.allows(frontend, *kind))
    }
}

fn claims_of_port<'a>(
    service: &'a Service,
    cluster_ip: IpAddr,
    port: &'a ServicePortSpec,
) -> impl Iterator<Item = Claim> + 'a {
    let (protocol, family) = (port.protocol, Family::from_address(cluster_ip));
    let vips = of_family(&service.load_balancer_vips, family).map(|ip| (ip, FrontendKind::LoadBalancer));
    let external_ips = of_family(&service.external_ips, family).map(|ip| (ip, FrontendKind::ExternalIp));
    let addresses = std::iter::once((cluster_ip, FrontendKind::ClusterIp)).chain(vips).chain(external_ips);
    let addresses = addresses.map(move |(ip, kind)| (Frontend::address(protocol, ip, port.port.get()), kind));
    let node_port = port.node_port.map(|node_port| {
        (Frontend::NodePort { protocol, family, port: node_port.get() }, FrontendKind::NodePort)
    });
    addresses.chain(node_port)
}

/// The ports of a Service in each family in which it has a ClusterIP, with that ClusterIP.
fn served_ports(service: &Service) -> impl Iterator<Item = (IpAddr, &ServicePortSpec)> {
    let families = Family::BOTH.into_iter().filter(|_| service.not_proxied.is_none());
    let cluster_ips = families.filter_map(|family| of_family(&service.cluster_ips, family).next());
    cluster_ips.flat_map(|cluster_ip| {
        let ports = service.ports.iter().enumerate().filter(|(i, port)| {
            // The last of several ports with the same name and protocol counts, as upstream.
            let same = |p: &ServicePortSpec| p.name == port.name && p.protocol == port.protocol;
            !service.ports[i + 1..].iter().any(same)
        });
        ports.map(move |(_, port)| (cluster_ip, port))
    })
}

/// The field of the highest precedence by which a Service has a frontend that it claims.
pub(super) fn kind_of_claim(service: &Service, frontend: &Frontend) -> FrontendKind {
    let Frontend::Address { ip, .. } = frontend else { return FrontendKind::NodePort };
    if of_family(&service.cluster_ips, Family::from_address(*ip)).next() == Some(*ip) {
        FrontendKind::ClusterIp
    } else if service.load_balancer_vips.contains(ip) {
        FrontendKind::LoadBalancer
    } else {
        FrontendKind::ExternalIp
    }
}

/// Resolves a Service: each of its ports in each family in which it has a ClusterIP. Of the frontends of a port, only
/// those that `retain` leaves are served; a port without any is left out.
pub(super) fn resolve(
    service: &Service,
    slices: &[EndpointSlice],
    place: Place,
    mut retain: impl FnMut(&mut ServicePort),
) -> Vec<ServicePort> {
    let ports = served_ports(service).filter_map(|(cluster_ip, port)| {
        let mut resolved = port_without_endpoints(service, port, cluster_ip);
        retain(&mut resolved);
        if !resolved.has_frontend() {
            return None;
        }
        let candidates = gather(slices, resolved.family, port.name, port.protocol, place.node);
        resolved.endpoints = choose(candidates, &resolved, place);
        Some(resolved)
    });
    ports.collect()
}

fn port_without_endpoints(service: &Service, port: &ServicePortSpec, cluster_ip: IpAddr) -> ServicePort {
    let family = Family::from_address(cluster_ip);
    // An address in several fields counts by the one of the highest precedence: ClusterIP, load balancer, external IP. All
    // modes then agree on source ranges and traffic policy.
    let load_balancer_vips: Box<[IpAddr]> =
        of_family(&service.load_balancer_vips, family).filter(|ip| *ip != cluster_ip).collect();
    let external_ips = of_family(&service.external_ips, family);
    let external_ips = external_ips.filter(|ip| *ip != cluster_ip && !load_balancer_vips.contains(ip));
    let external_ips = external_ips.collect();
    ServicePort {
        name: ServicePortName { service: service.key.clone(), port: port.name, protocol: port.protocol },
        family,
        cluster_ip: Some(cluster_ip),
        port: port.port,
        node_port: port.node_port,
        external_ips,
        load_balancer_vips,
        source_ranges: service.source_ranges.of_family(family),
        affinity: service.affinity,
        internal_local: service.internal_local,
        external_local: service.external_local,
        health_check_node_port: service.health_check_node_port,
        scheduler: service.scheduler,
        endpoints: Endpoints::default(),
    }
}

fn of_family(addresses: &[IpAddr], family: Family) -> impl Iterator<Item = IpAddr> + '_ {
    addresses.iter().copied().filter(move |a| Family::from_address(*a) == family)
}
