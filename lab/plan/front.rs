//! The addresses under which a Service can be reached.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::addresses::Family;
use super::service_defaults::{has_type, is_headless};
use super::{Plan, owner_of};

/// What kind of address it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontKind {
    /// A cluster IP.
    ClusterIp,
    /// A node port, at the address of this node.
    NodePort(String),
    /// A load balancer's address.
    LoadBalancer,
    /// One of `externalIPs`.
    ExternalIp,
}

impl fmt::Display for FrontKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort(_) => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
        })
    }
}

/// One port of a Service at one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// What kind of address it is.
    pub kind: FrontKind,
    /// The address.
    pub address: SocketAddr,
    /// The protocol as the Service writes it; it may be SCTP.
    pub protocol: String,
    /// The name of the port, empty when it has none.
    pub port_name: String,
    /// The Service's `port`, which is not the node port's number.
    pub port: u16,
}

impl Plan {
    /// All the fronts of a Service, port by port; none for one that is headless or an ExternalName.
    pub fn fronts(&self, service: &Service) -> Vec<Front> {
        let Some(spec) = &service.spec else { return Vec::new() };
        if is_headless(spec) || has_type(spec, "ExternalName") {
            return Vec::new();
        }
        let mut fronts = Vec::new();
        let ips = |ips: Vec<String>| ips.into_iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        let families: Vec<Family> =
            spec.ip_families.iter().flatten().filter_map(|name| Family::named(name)).collect();
        for port in spec.ports.iter().flatten() {
            let mut add =
                |kind: FrontKind, ip: IpAddr, number: i32| fronts.extend(front(kind, ip, number, port));
            for ip in ips(spec.cluster_ips.clone().unwrap_or_default()) {
                add(FrontKind::ClusterIp, ip, port.port);
            }
            for node in self.nodes.iter().filter(|_| port.node_port.is_some()) {
                for ip in node.addresses.iter().filter(|ip| families.contains(&Family::of(**ip))) {
                    add(FrontKind::NodePort(node.name.clone()), *ip, port.node_port.unwrap_or_default());
                }
            }
            for ip in proxied_ingress_ips(service) {
                add(FrontKind::LoadBalancer, ip, port.port);
            }
            for ip in ips(spec.external_ips.clone().unwrap_or_default()) {
                add(FrontKind::ExternalIp, ip, port.port);
            }
        }
        fronts
    }

    /// The address of the first front of a Service ([`Plan::service`] says how it is named) that is of a kind and a
    /// family and has this `port`.
    pub fn front(&self, service: &str, kind: &FrontKind, family: Family, port: u16) -> Option<SocketAddr> {
        let fronts = self.fronts(self.service(service)?);
        let mut fitting = fronts.into_iter().filter(|front| {
            front.kind == *kind && front.port == port && Family::of(front.address.ip()) == family
        });
        fitting.next().map(|front| front.address)
    }
}

/// The load balancer's addresses that the nodes serve: those of `ipMode: Proxy` are the balancer's own (KEP-1860).
fn proxied_ingress_ips(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let served = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    served.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn front(kind: FrontKind, ip: IpAddr, number: i32, port: &ServicePort) -> Option<Front> {
    Some(Front {
        kind,
        address: SocketAddr::new(ip, u16::try_from(number).ok()?),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        port_name: port.name.clone().unwrap_or_default(),
        port: u16::try_from(port.port).ok()?,
    })
}

impl Plan {
    /// The node that outside traffic for a Service's load balancer enters by: the first, or under
    /// `externalTrafficPolicy: Local` the first that has a ready endpoint, as a balancer's health checks find it.
    pub fn entry_node(&self, service: &Service) -> &str {
        let first = self.nodes.first().map_or("", |node| node.name.as_str());
        let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
        if policy != Some("Local") {
            return first;
        }
        let has_endpoint = |node: &str| {
            let mut endpoints = self.slices_of(service).flat_map(|slice| slice.endpoints.iter().flatten());
            endpoints.any(|endpoint| {
                let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
                endpoint.node_name.as_deref() == Some(node) && ready != Some(false)
            })
        };
        self.nodes.iter().map(|node| node.name.as_str()).find(|node| has_endpoint(node)).unwrap_or(first)
    }

    /// The EndpointSlices of a Service.
    pub fn slices_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a EndpointSlice> {
        let name = (
            service.metadata.namespace.clone().unwrap_or_default(),
            service.metadata.name.clone().unwrap_or_default(),
        );
        self.slices.iter().filter(move |slice| owner_of(slice).as_ref() == Some(&name))
    }
}
