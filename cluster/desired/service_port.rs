//! A port of a Service in one IP family, resolved.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::endpoints::{Endpoints, SlicePorts};
use super::frontend_address::{FrontendAddress, FrontendKind};
use super::topology::{NodeTopology, select};
use crate::address::Family;
use crate::endpoint_slice::EndpointSlice;
use crate::ipvs_scheduler::IpvsScheduler;
use crate::name::{Name, NamespacedName};
use crate::protocol::Protocol;
use crate::service::{Service, ServicePortSpec};
use crate::traffic_policy::TrafficPolicy;

/// The name of a Service port, as in the comments of rules and the hashes of chain names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortName {
    /// The Service.
    pub service: NamespacedName,
    /// The port's name; may be empty.
    pub port: Name,
    /// The protocol, which distinguishes ports of the same name.
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

/// A port of a Service in one IP family: its frontends and endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name.
    pub name: ServicePortName,
    /// The family of all its addresses.
    pub family: Family,
    /// The ClusterIP; `None` if another Service is served there.
    pub cluster_ip: Option<IpAddr>,
    /// The port on all virtual addresses.
    pub port: NonZeroU16,
    /// The port on the node's addresses.
    pub node_port: Option<NonZeroU16>,
    /// `externalIPs`.
    pub external_ips: Box<[IpAddr]>,
    /// Addresses of the load balancer that its packets keep as destination.
    pub load_balancer_vips: Box<[IpAddr]>,
    /// The only sources that may use the load balancer's addresses; `None` if every source may. Never a block of all addresses.
    /// Without any block, no source may.
    pub source_ranges: Option<Box<[IpNet]>>,
    /// Session affinity by client address: its timeout in seconds.
    pub affinity: Option<u32>,
    /// The traffic policy of the ClusterIP.
    pub internal_policy: TrafficPolicy,
    /// The traffic policy of all other frontends.
    pub external_policy: TrafficPolicy,
    /// The port on which the load balancer checks for local endpoints.
    pub health_check_node_port: Option<NonZeroU16>,
    /// The IPVS scheduler that the Service selects.
    pub scheduler: Option<IpvsScheduler>,
    /// Its endpoints.
    pub endpoints: Endpoints,
}

impl ServicePort {
    /// Returns true if it is served anywhere.
    pub(super) fn has_frontend(&self) -> bool {
        self.cluster_ip.is_some() || self.externally_accessible()
    }

    /// Removes the frontends that are not served, and adds them to `unserved`.
    pub(super) fn retain_frontends(
        &mut self,
        is_served: impl Fn(&FrontendAddress, FrontendKind) -> bool,
        unserved: &mut Vec<Claim>,
    ) {
        let (protocol, family, port) = (self.name.protocol, self.family, self.port.get());
        let mut keep = |frontend: FrontendAddress, kind: FrontendKind| {
            let keep = is_served(&frontend, kind);
            if !keep {
                unserved.push((frontend, kind));
            }
            keep
        };
        let mut keep_ip = |ip: &IpAddr, kind| keep(FrontendAddress::virtual_ip(protocol, *ip, port), kind);
        self.cluster_ip = self.cluster_ip.filter(|ip| keep_ip(ip, FrontendKind::ClusterIp));
        let vips = std::mem::take(&mut self.load_balancer_vips);
        self.load_balancer_vips =
            vips.into_iter().filter(|ip| keep_ip(ip, FrontendKind::LoadBalancer)).collect();
        let external_ips = std::mem::take(&mut self.external_ips);
        self.external_ips =
            external_ips.into_iter().filter(|ip| keep_ip(ip, FrontendKind::ExternalIp)).collect();
        self.node_port = self.node_port.filter(|node_port| {
            let frontend = FrontendAddress::NodePort { protocol, family, port: node_port.get() };
            keep(frontend, FrontendKind::NodePort)
        });
        // nftables mode identifies session-affinity entries by the ClusterIP.
        self.affinity = self.affinity.filter(|_| self.cluster_ip.is_some());
    }

    /// Returns true if it has a frontend other than the ClusterIP.
    pub fn externally_accessible(&self) -> bool {
        self.node_port.is_some() || !self.load_balancer_vips.is_empty() || !self.external_ips.is_empty()
    }

    /// Returns the traffic policies that it uses. With an external frontend, policy Cluster is used even if the external policy
    /// is Local: pods of this cluster use the frontend as if it were the ClusterIP.
    fn policies_in_use(&self) -> Vec<TrafficPolicy> {
        let is_external = self.externally_accessible();
        let uses_cluster = !self.internal_policy.is_local() || is_external;
        let uses_local = self.internal_policy.is_local() || (self.external_policy.is_local() && is_external);
        let all = [(TrafficPolicy::Cluster, uses_cluster), (TrafficPolicy::Local, uses_local)];
        all.into_iter().filter_map(|(policy, is_used)| is_used.then_some(policy)).collect()
    }
}

/// A frontend that a Service claims, and the field that claims it.
pub(super) type Claim = (FrontendAddress, FrontendKind);

/// The blocks to which external IPs and load balancer addresses are restricted; without any block, they are not.
#[derive(Default)]
pub(super) struct AllowedExternalCidrs(pub(super) Box<[IpNet]>);

impl AllowedExternalCidrs {
    /// Returns true if a frontend of this kind may be served.
    pub(super) fn allows(&self, frontend: &FrontendAddress, kind: FrontendKind) -> bool {
        let is_restricted = matches!(kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp);
        match frontend {
            FrontendAddress::VirtualIp { ip, .. } if is_restricted && !self.0.is_empty() => {
                self.0.iter().any(|net| net.contains(ip))
            }
            _ => true,
        }
    }

    /// Returns the frontends that a Service claims and at which it may be served.
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
    let addresses =
        addresses.map(move |(ip, kind)| (FrontendAddress::virtual_ip(protocol, ip, port.port.get()), kind));
    let node_port = port.node_port.map(|node_port| {
        (FrontendAddress::NodePort { protocol, family, port: node_port.get() }, FrontendKind::NodePort)
    });
    addresses.chain(node_port)
}

/// Returns the ports of a Service in each family in which it has a ClusterIP, with that ClusterIP.
pub(super) fn served_ports(service: &Service) -> impl Iterator<Item = (IpAddr, &ServicePortSpec)> {
    let families = Family::BOTH.into_iter().filter(|_| service.not_proxied.is_none());
    let cluster_ips = families.filter_map(|family| of_family(&service.cluster_ips, family).next());
    // Of several ports with the same name and protocol, the last one is used, as in kube-proxy.
    let numbered = service.ports.iter().enumerate();
    let last: HashMap<_, usize> =
        numbered.clone().map(|(i, port)| ((&port.name, port.protocol), i)).collect();
    let ports = numbered.filter(|(i, port)| last[&(&port.name, port.protocol)] == *i).map(|(_, port)| port);
    let ports: Vec<&ServicePortSpec> = ports.collect();
    cluster_ips.flat_map(move |cluster_ip| ports.clone().into_iter().map(move |port| (cluster_ip, port)))
}

/// Returns the field of the highest precedence with which a Service claims a frontend.
pub(super) fn kind_of_claim(service: &Service, frontend: &FrontendAddress) -> FrontendKind {
    let FrontendAddress::VirtualIp { ip, .. } = frontend else { return FrontendKind::NodePort };
    if of_family(&service.cluster_ips, Family::from_address(*ip)).next() == Some(*ip) {
        FrontendKind::ClusterIp
    } else if service.load_balancer_vips.contains(ip) {
        FrontendKind::LoadBalancer
    } else {
        FrontendKind::ExternalIp
    }
}

/// Resolves a Service: each of its ports in each family in which it has a ClusterIP. Only the frontends of a port that
/// `retain` keeps are served; a port without frontends is omitted.
pub(super) fn resolve(
    service: &Service,
    slices: &[EndpointSlice],
    node: NodeTopology<'_>,
    mut retain: impl FnMut(&mut ServicePort),
) -> Vec<ServicePort> {
    let slices = SlicePorts::new(slices);
    let ports = served_ports(service).filter_map(|(cluster_ip, port)| {
        let mut resolved = port_without_endpoints(service, port, cluster_ip);
        retain(&mut resolved);
        if !resolved.has_frontend() {
            return None;
        }
        let candidates = slices.candidates(resolved.family, (&port.name, port.protocol), node.name);
        resolved.endpoints = select(candidates, &resolved.policies_in_use(), node);
        Some(resolved)
    });
    ports.collect()
}

fn port_without_endpoints(service: &Service, port: &ServicePortSpec, cluster_ip: IpAddr) -> ServicePort {
    let family = Family::from_address(cluster_ip);
    // An address in several fields has the kind of the highest precedence: ClusterIP, load balancer, external IP. All modes
    // then agree on its source ranges and traffic policy.
    let load_balancer_vips: Box<[IpAddr]> =
        of_family(&service.load_balancer_vips, family).filter(|ip| *ip != cluster_ip).collect();
    let external_ips = of_family(&service.external_ips, family);
    let external_ips = external_ips.filter(|ip| *ip != cluster_ip && !load_balancer_vips.contains(ip));
    let external_ips = external_ips.collect();
    ServicePort {
        name: ServicePortName {
            service: service.key.clone(),
            port: port.name.clone(),
            protocol: port.protocol,
        },
        family,
        cluster_ip: Some(cluster_ip),
        port: port.port,
        node_port: port.node_port,
        external_ips,
        load_balancer_vips,
        source_ranges: service.source_ranges.in_family(family),
        affinity: service.affinity,
        internal_policy: service.internal_policy,
        external_policy: service.external_policy,
        health_check_node_port: service.health_check_node_port,
        scheduler: service.scheduler,
        endpoints: Endpoints::default(),
    }
}

fn of_family(addresses: &[IpAddr], family: Family) -> impl Iterator<Item = IpAddr> + '_ {
    addresses.iter().copied().filter(move |a| Family::from_address(*a) == family)
}
