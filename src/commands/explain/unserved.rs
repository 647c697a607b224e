//! Diagnosis of addresses and ports that look like those of a Service but that no Service has.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use portcullis_cluster::desired::{Desired, FrontendKind, ServicePort};
use portcullis_cluster::service::Service;
use portcullis_cluster::{Family, Name, Protocol};
use portcullis_modes::NodePortAddresses;

use super::frontend_text::{kind_name, port_names};
use super::routing::{NoRoute, NoRouteKind};
use crate::commands::cluster_lookup::{ClusterLookup, listed};
use crate::node;
use crate::service_report::SPLIT_SERVICE;

/// The API server's default for `--service-node-port-range`.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The prefix lengths by family within which an address is assumed to be a ClusterIP like a known one, if there is no
/// ServiceCIDR: a part of the usual `/12`, and the usual length of IPv6.
const CLUSTER_IP_PREFIXES: [u8; 2] = [16, 112];

/// The usual prefix lengths of node subnets by family: an address in the subnet of a node may belong to that node.
const NODE_PREFIXES: [u8; 2] = [24, 64];

/// An address and port that no Service has.
pub(super) struct Unserved<'a> {
    pub(super) cluster: &'a ClusterLookup<'a>,
    pub(super) desired: &'a Desired,
    pub(super) address: IpAddr,
    pub(super) number: u16,
    pub(super) protocol: Protocol,
}

impl Unserved<'_> {
    /// Returns the reason why a port of the node port range is not served on a node. `None` if a process may listen there: outside
    /// of the range, or on a named port of a pod on the host network or a health check node port.
    pub(super) fn node_port(&self, node: &Name) -> Option<NoRoute> {
        let is_health = self.desired.ports().any(|port| {
            self.protocol == Protocol::Tcp
                && port.health_check_node_port.is_some_and(|health| health.get() == self.number)
        });
        let is_named = self.cluster.index.pods().any(|pod| {
            let same = |port: &portcullis_cluster::pod::NamedPort| {
                (port.port.get(), port.protocol) == (self.number, self.protocol)
            };
            pod.host_network && pod.node.as_ref() == Some(node) && pod.named_ports.iter().any(same)
        });
        if !NODE_PORTS.contains(&self.number) || is_health || is_named {
            return None;
        }
        let services = self.services_with_node_port();
        let hint = match services.is_empty() {
            true => "node ports are in spec.ports[].nodePort of Services of type NodePort and LoadBalancer"
                .to_owned(),
            false => format!("Services with node port {} are {}", self.number, services.join(", ")),
        };
        let family = Family::from_address(self.address).as_str();
        Some(NoRoute {
            kind: NoRouteKind::NotServed,
            reason: format!("no Service has node port {}/{} for {family}", self.number, self.protocol),
            hint,
        })
    }

    /// Returns the Services that have the number as node port of another protocol or family: `shop/web:http (tcp, IPv4)`.
    fn services_with_node_port(&self) -> Vec<String> {
        let having =
            self.desired.ports().filter(|port| port.node_port.is_some_and(|n| n.get() == self.number));
        having
            .map(|port| format!("{} ({}, {})", port.name, port.name.protocol, port.family.as_str()))
            .collect()
    }

    /// Returns the reason why an address of a Service, or an address in a block of ClusterIPs, is not served. `None` for other
    /// addresses.
    pub(super) fn service_address(&self) -> Option<NoRoute> {
        let here = |port: &&ServicePort| port.frontend_at(self.address).is_some();
        match self.desired.ports().find(here) {
            Some(port) => Some(self.other_port(port)),
            None if self.cluster.pod_at(self.address).is_none() => self
                .too_large()
                .or_else(|| self.node_port_of_secondary_address())
                .or_else(|| self.unallocated()),
            None => None,
        }
    }

    /// Diagnoses an address of a Service that is not served because it is too large.
    fn too_large(&self) -> Option<NoRoute> {
        let has_address = |service: &Service| {
            let external = service.load_balancer_vips.iter().chain(&service.external_ips);
            service.cluster_ips.iter().chain(external).any(|ip| *ip == self.address)
        };
        let mut oversized = self.desired.oversized().iter();
        let (name, size) =
            oversized.find(|(name, _)| self.cluster.index.service(name).is_some_and(has_address))?;
        Some(NoRoute {
            kind: NoRouteKind::NotServed,
            reason: format!("{} is an address of Service {name}, which is not served: {size}", self.address),
            hint: SPLIT_SERVICE.to_owned(),
        })
    }

    /// Diagnoses a node port on an address in the subnet of a node, such as a virtual IP of keepalived: nodes that serve node
    /// ports on their primary addresses only do not serve it.
    fn node_port_of_secondary_address(&self) -> Option<NoRoute> {
        let length = NODE_PREFIXES[usize::from(self.address.is_ipv6())];
        let subnet = IpNet::new(self.address, length).ok()?;
        let primary: Vec<IpAddr> =
            self.cluster.node_names().iter().flat_map(|node| self.cluster.primary_ips(node)).collect();
        let mut near = primary.iter().filter(|ip| subnet.contains(*ip)).map(ToString::to_string).peekable();
        let family = Family::from_address(self.address);
        let holder = self.desired.ports().find(|port| {
            let same = port.node_port.is_some_and(|node_port| node_port.get() == self.number);
            same && port.name.protocol == self.protocol && port.family == family
        })?;
        let addresses = node::options(self.cluster.config, None).node_port_addresses;
        if near.peek().is_none() || !matches!(addresses, NodePortAddresses::Primary { .. }) {
            return None;
        }
        let near: Vec<String> = near.collect();
        Some(NoRoute {
            kind: NoRouteKind::NotServed,
            reason: format!(
                "{} is not a primary address of a node, and only primary addresses serve node port {} of {}",
                self.address, self.number, holder.name
            ),
            hint: format!(
                "use {}, or add a block with {} to --nodeport-addresses",
                listed(near.iter().map(String::as_str)),
                self.address
            ),
        })
    }

    /// Diagnoses an address of a Service that does not have the port.
    fn other_port(&self, port: &ServicePort) -> NoRoute {
        let kind = port.frontend_at(self.address).map_or(FrontendKind::ClusterIp, |frontend| frontend.kind);
        let here = self.desired.ports().filter(|port| port.frontend_at(self.address).is_some());
        let reason = format!(
            "{} is the {} of Service {}, which has no port {}/{}; its ports are {}",
            self.address,
            kind_name(kind),
            port.name.service,
            self.number,
            self.protocol,
            port_names(here)
        );
        let capabilities = self.cluster.config.mode.capabilities();
        let is_rejected = match kind {
            FrontendKind::ClusterIp => capabilities.rejects_unused_cluster_ip_ports,
            _ => capabilities.rejects_unused_external_ports,
        };
        let kind = if is_rejected { NoRouteKind::Rejected } else { NoRouteKind::NotServed };
        let hint = match self.services_with_node_port() {
            services if services.is_empty() => "use one of its ports".to_owned(),
            services => format!(
                "{} is the node port of {}, and node ports are served on addresses of nodes",
                self.number,
                services.join(", ")
            ),
        };
        NoRoute { kind, reason, hint }
    }

    /// Diagnoses an address in a block of ClusterIPs that no Service has.
    fn unallocated(&self) -> Option<NoRoute> {
        let (block, kind) = match self.service_cidr() {
            Some(cidr) => {
                let is_dropped = self.cluster.config.mode.capabilities().drops_unallocated_cluster_ips;
                let kind = if is_dropped { NoRouteKind::Dropped } else { NoRouteKind::NotServed };
                (format!("ServiceCIDR {cidr}"), kind)
            }
            None => (self.similar_cluster_ips()?, NoRouteKind::NotServed),
        };
        Some(NoRoute {
            kind,
            reason: format!("{} is in {block}, and no Service has it", self.address),
            hint: "check whether its Service was deleted and created again; use the name of the Service, as in NAMESPACE/NAME".to_owned(),
        })
    }

    fn service_cidr(&self) -> Option<IpNet> {
        let all = self.cluster.index.service_cidrs().flat_map(|object| object.cidrs.iter().copied());
        all.filter(|cidr| cidr.contains(&self.address)).min()
    }

    /// Returns the known ClusterIPs in the block of the address, if it is probably a ClusterIP. This is a guess in clusters without
    /// a ServiceCIDR.
    fn similar_cluster_ips(&self) -> Option<String> {
        if self.cluster.index.service_cidrs().any(|object| {
            object.cidrs.iter().any(|cidr| Family::from_net(cidr) == Family::from_address(self.address))
        }) {
            return None;
        }
        let length = CLUSTER_IP_PREFIXES[usize::from(self.address.is_ipv6())];
        let block = IpNet::new(self.address, length).ok()?.trunc();
        let is_of_nodes = self.cluster.index.nodes().any(|node| {
            let overlaps = |cidr: &IpNet| cidr.contains(&block) || block.contains(cidr);
            node.ips().any(|ip| block.contains(&ip)) || node.pod_cidrs.iter().any(overlaps)
        });
        let mut near: Vec<IpAddr> =
            self.desired.ports().filter_map(|port| port.cluster_ip).filter(|ip| block.contains(ip)).collect();
        near.sort_unstable();
        near.dedup();
        if is_of_nodes || near.is_empty() {
            return None;
        }
        let near: Vec<String> = near.iter().map(ToString::to_string).collect();
        Some(format!("{block} with the ClusterIPs {}", listed(near.iter().map(String::as_str))))
    }
}
