//! Addresses and ports that look like a Service's, but that no Service has.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use portcullis_cluster::desired::{Desired, ServicePort};
use portcullis_cluster::{Family, Name, Protocol};
use portcullis_modes::NodePortAddresses;

use super::entry::{Entry, entry_at, ports_of};
use super::routing::{NoRoute, NoRouteKind};
use crate::commands::cluster_lookup::{ClusterLookup, listed};
use crate::config::ProxyMode;
use crate::node;

/// The API server's default for `--service-node-port-range`.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The shortest prefixes by which an address counts as a neighbour of a known cluster IP, where no ServiceCIDR tells:
/// an eighth of the usual `/12`, and what most clusters have of IPv6.
const NEIGHBOURS: [u8; 2] = [16, 112];

/// NoRouteKind much an address has in common with a node's if it may be that node's, too: the usual subnets.
const VIPS: [u8; 2] = [24, 64];

/// An address and port that no Service has.
pub(super) struct Unserved<'a> {
    pub(super) cluster: &'a ClusterLookup<'a>,
    pub(super) anywhere: &'a Desired,
    pub(super) address: IpAddr,
    pub(super) number: u16,
    pub(super) protocol: Protocol,
}

impl Unserved<'_> {
    /// Why nothing serves a port of the node-port range on a node. `None` where a process may listen there: outside of
    /// the range, or where a pod on the host network names the port, or a load balancer asks there for health.
    pub(super) fn node_port(&self, node: Name) -> Option<NoRoute> {
        let is_health = self.anywhere.ports().any(|port| {
            self.protocol == Protocol::Tcp
                && port.health_check_node_port.is_some_and(|health| health.get() == self.number)
        });
        let is_named = self.cluster.index.pods().any(|pod| {
            let same = |port: &portcullis_cluster::pod::NamedPort| {
                (port.port.get(), port.protocol) == (self.number, self.protocol)
            };
            pod.host_network && pod.node == Some(node) && pod.named_ports.iter().any(same)
        });
        if !NODE_PORTS.contains(&self.number) || is_health || is_named {
            return None;
        }
        let others = self.holders();
        let hint = match others.is_empty() {
            true => "node ports are in spec.ports[].nodePort of Services of type NodePort and LoadBalancer"
                .to_owned(),
            false => format!("Services with node port {} are {}", self.number, others.join(", ")),
        };
        let family = Family::from_address(self.address).as_str();
        Some(NoRoute {
            kind: NoRouteKind::NotServed,
            reason: format!("no Service has node port {}/{} for {family}", self.number, self.protocol),
            hint,
        })
    }

    /// Services that have the number as node port for another protocol or family: `shop/web:http (tcp, IPv4)`.
    fn holders(&self) -> Vec<String> {
        let having =
            self.anywhere.ports().filter(|port| port.node_port.is_some_and(|n| n.get() == self.number));
        having
            .map(|port| format!("{} ({}, {})", port.name, port.name.protocol, port.family.as_str()))
            .collect()
    }

    /// Why nothing serves an address that belongs to a Service, or that lies among cluster IPs. `None` for any other
    /// address.
    pub(super) fn service_address(&self) -> Option<NoRoute> {
        let here = |port: &&ServicePort| entry_at(port, self.address).is_some();
        match self.anywhere.ports().find(here) {
            Some(port) => Some(self.other_port(port)),
            None if self.cluster.pod_at(self.address).is_none() => {
                self.vip_of_node().or_else(|| self.unassigned())
            }
            None => None,
        }
    }

    /// A node port on an address beside those of nodes, such as the virtual IP of a keepalived: nodes that serve node
    /// ports on their primary addresses only do not serve it there.
    fn vip_of_node(&self) -> Option<NoRoute> {
        let length = VIPS[usize::from(self.address.is_ipv6())];
        let subnet = IpNet::new(self.address, length).ok()?;
        let primary: Vec<IpAddr> =
            self.cluster.node_names().iter().flat_map(|node| self.cluster.primary_ips(*node)).collect();
        let mut near = primary.iter().filter(|ip| subnet.contains(*ip)).map(ToString::to_string).peekable();
        let family = Family::from_address(self.address);
        let holder = self.anywhere.ports().find(|port| {
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
                "{} is no primary address of a node, and only those serve node port {} of {}",
                self.address, self.number, holder.name
            ),
            hint: format!(
                "use {}, or set --nodeport-addresses to blocks with {}",
                listed(near.iter().map(String::as_str)),
                self.address
            ),
        })
    }

    /// The address is a Service's, which does not have the port.
    fn other_port(&self, port: &ServicePort) -> NoRoute {
        let entry = entry_at(port, self.address).unwrap_or(Entry::ClusterIp);
        let here = self.anywhere.ports().filter(|port| entry_at(port, self.address).is_some());
        let reason = format!(
            "{} is the {} of Service {}, which has no port {}/{} but {}",
            self.address,
            entry.as_str(),
            port.name.service,
            self.number,
            self.protocol,
            ports_of(here)
        );
        let kind = match (self.cluster.config.mode, entry) {
            // All Services' addresses are the node's own in IPVS mode; in nftables mode cluster IPs have a rule.
            (ProxyMode::Ipvs, _) | (ProxyMode::Nftables, Entry::ClusterIp) => NoRouteKind::Rejected,
            _ => NoRouteKind::NotServed,
        };
        let hint = match self.holders() {
            holders if holders.is_empty() => "use one of its ports".to_owned(),
            holders => format!(
                "{} is the node port of {}, and node ports are served on addresses of nodes",
                self.number,
                holders.join(", ")
            ),
        };
        NoRoute { kind, reason, hint }
    }

    /// No Service has the address, and it lies in a block of cluster IPs.
    fn unassigned(&self) -> Option<NoRoute> {
        let (block, kind) = match self.service_cidr() {
            Some(cidr) => {
                let kind = match self.cluster.config.mode {
                    ProxyMode::Nftables => NoRouteKind::Dropped,
                    _ => NoRouteKind::NotServed,
                };
                (format!("ServiceCIDR {cidr}"), kind)
            }
            None => (self.neighbours()?, NoRouteKind::NotServed),
        };
        Some(NoRoute {
            kind,
            reason: format!("{} is in {block}, and no Service has it", self.address),
            hint: "was its Service deleted and made again? name the Service, as in NAMESPACE/NAME".to_owned(),
        })
    }

    fn service_cidr(&self) -> Option<IpNet> {
        let all = self.cluster.index.service_cidrs().flat_map(|object| object.cidrs.iter().copied());
        all.filter(|cidr| cidr.contains(&self.address)).min()
    }

    /// The cluster IPs that are so near to the address that it must be one, too: a guess, as no object tells.
    fn neighbours(&self) -> Option<String> {
        if self.cluster.index.service_cidrs().any(|object| {
            object.cidrs.iter().any(|cidr| Family::from_net(cidr) == Family::from_address(self.address))
        }) {
            return None;
        }
        let length = NEIGHBOURS[usize::from(self.address.is_ipv6())];
        let block = IpNet::new(self.address, length).ok()?.trunc();
        let is_of_nodes = self.cluster.index.nodes().any(|node| {
            let overlaps = |cidr: &IpNet| cidr.contains(&block) || block.contains(cidr);
            node.ips().any(|ip| block.contains(&ip)) || node.pod_cidrs.iter().any(overlaps)
        });
        let mut near: Vec<IpAddr> = self
            .anywhere
            .ports()
            .filter_map(|port| port.cluster_ip)
            .filter(|ip| block.contains(ip))
            .collect();
        near.sort_unstable();
        near.dedup();
        if is_of_nodes || near.is_empty() {
            return None;
        }
        let near: Vec<String> = near.iter().map(ToString::to_string).collect();
        Some(format!("{block} with the cluster IPs {}", listed(near.iter().map(String::as_str))))
    }
}
