//! Frontends of Services: the addresses and ports at which clients reach them.
//!
//! This is independent of the implementation in `portcullis-cluster` on purpose: the lab tests that implementation.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::addresses::Family;
use super::service_defaults::{has_type, is_headless};
use super::{ClusterPlan, service_of};

/// Kind of a frontend's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontendKind {
    /// A cluster IP.
    ClusterIp,
    /// A node port, at an address of the named node.
    NodePort(String),
    /// A load balancer address.
    LoadBalancer,
    /// One of `externalIPs`.
    ExternalIp,
}

impl fmt::Display for FrontendKind {
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
pub struct Frontend {
    /// The kind of address.
    pub kind: FrontendKind,
    /// The address.
    pub address: SocketAddr,
    /// The protocol as the Service spells it.
    pub protocol: String,
    /// The name of the port, empty if it has none.
    pub port_name: String,
    /// The Service's `port`; for a node port this differs from the port of `address`.
    pub port: u16,
}

impl ClusterPlan {
    /// Returns the frontends of a Service, ordered by port; none for a headless Service or an ExternalName.
    pub fn frontends(&self, service: &Service) -> Vec<Frontend> {
        let Some(spec) = &service.spec else { return Vec::new() };
        if is_headless(spec) || has_type(spec, "ExternalName") {
            return Vec::new();
        }
        let mut frontends = Vec::new();
        let ips = |ips: Vec<String>| ips.into_iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        let families: Vec<Family> =
            spec.ip_families.iter().flatten().filter_map(|name| Family::parse(name)).collect();
        for port in spec.ports.iter().flatten() {
            let mut add = |kind: FrontendKind, ip: IpAddr, number: i32| {
                frontends.extend(frontend(kind, ip, number, port))
            };
            for ip in ips(spec.cluster_ips.clone().unwrap_or_default()) {
                add(FrontendKind::ClusterIp, ip, port.port);
            }
            for node in self.nodes.iter().filter(|_| port.node_port.is_some()) {
                for ip in node.addresses.iter().filter(|ip| families.contains(&Family::from_ip(**ip))) {
                    add(FrontendKind::NodePort(node.name.clone()), *ip, port.node_port.unwrap_or_default());
                }
            }
            for ip in proxied_ingress_ips(service) {
                add(FrontendKind::LoadBalancer, ip, port.port);
            }
            for ip in ips(spec.external_ips.clone().unwrap_or_default()) {
                add(FrontendKind::ExternalIp, ip, port.port);
            }
        }
        frontends
    }

    /// Returns the address of the first frontend of a Service, named as for [`ClusterPlan::service`], with a kind, a
    /// family and the Service's `port`.
    pub fn frontend_address(
        &self,
        service: &str,
        kind: &FrontendKind,
        family: Family,
        port: u16,
    ) -> Option<SocketAddr> {
        let frontends = self.frontends(self.service(service)?);
        let mut matching = frontends.into_iter().filter(|frontend| {
            frontend.kind == *kind
                && frontend.port == port
                && Family::from_ip(frontend.address.ip()) == family
        });
        matching.next().map(|frontend| frontend.address)
    }
}

/// Returns the load balancer addresses that nodes serve. Those with `ipMode: Proxy` are served by the load balancer
/// (KEP-1860).
fn proxied_ingress_ips(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let served = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    served.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn frontend(kind: FrontendKind, ip: IpAddr, number: i32, port: &ServicePort) -> Option<Frontend> {
    Some(Frontend {
        kind,
        address: SocketAddr::new(ip, u16::try_from(number).ok()?),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        port_name: port.name.clone().unwrap_or_default(),
        port: u16::try_from(port.port).ok()?,
    })
}

impl ClusterPlan {
    /// Returns the node to which a load balancer sends traffic for a Service: the first node, or with
    /// `externalTrafficPolicy: Local` the first node with a ready endpoint, as the load balancer's health checks find it.
    pub fn load_balancer_node(&self, service: &Service) -> &str {
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

    /// Returns the EndpointSlices of a Service.
    pub fn slices_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a EndpointSlice> {
        let name = (
            service.metadata.namespace.clone().unwrap_or_default(),
            service.metadata.name.clone().unwrap_or_default(),
        );
        self.slices.iter().filter(move |slice| service_of(slice).as_ref() == Some(&name))
    }
}
