//! Renders a Service to virtual servers, addresses, entries of sets and rules.

use std::net::IpAddr;
use std::num::NonZeroU16;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_cluster::{Family, IpvsScheduler};
use portcullis_netlink::ip_vs::{self, RealServer, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;
use super::rules;
use super::service_objects::{Server, ServiceObjects};
use crate::iptables::in_netlink;
use crate::node_facts::NodeFacts;
use crate::node_port_addresses::NodePortScope;
use crate::options::Options;

/// The weight of every real server that takes new connections, as in kube-proxy.
const WEIGHT: u32 = 1;

/// What the objects of all Services of a family have in common.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Renderer {
    pub(super) family: Family,
    scheduler: IpvsScheduler,
    node_ip: Option<IpAddr>,
    /// The node's own addresses, which need no place on the link. Sorted.
    own: Box<[IpAddr]>,
    /// Those of them that serve node ports.
    node_port_addresses: Box<[IpAddr]>,
}

impl Renderer {
    pub(super) fn new(family: Family, scheduler: IpvsScheduler, options: &Options, on: &NodeFacts) -> Self {
        let mut own: Vec<IpAddr> = on
            .addresses
            .iter()
            .copied()
            .filter(|ip| Family::from_address(*ip) == family && serves(*ip))
            .collect();
        own.sort_unstable();
        own.dedup();
        let node_port_addresses = match options.node_port_scope(family, on) {
            NodePortScope::All => own.clone(),
            NodePortScope::Addresses(served) => served.into_iter().filter(|ip| serves(*ip)).collect(),
        };
        Renderer {
            family,
            scheduler,
            node_ip: on.node_ip(family),
            own: own.into(),
            node_port_addresses: node_port_addresses.into(),
        }
    }

    /// All that a Service needs: what its ports need in this family.
    pub(super) fn service(&self, ports: &[ServicePort]) -> ServiceObjects {
        let mut objects = ServiceObjects::default();
        for port in ports.iter().filter(|p| p.family == self.family) {
            PortRenderer { all: self, port, objects: &mut objects }.render();
        }
        objects
    }
}

/// Whether IPVS can serve at an address of the node: no packet leaves a loopback address, and a link-local one
/// is not the node's alone.
fn serves(address: IpAddr) -> bool {
    !address.is_loopback() && !is_link_local(address)
}

/// Whether it is an address that IPv6 gives each link by itself.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

struct PortRenderer<'a> {
    all: &'a Renderer,
    port: &'a ServicePort,
    objects: &'a mut ServiceObjects,
}

impl PortRenderer<'_> {
    fn render(&mut self) {
        let port = self.port;
        for endpoint in port.endpoints.local() {
            let entry = SetEntry::IpPortIp {
                ip: endpoint.ip(),
                protocol: port.name.protocol.number(),
                port: endpoint.port(),
                ip2: endpoint.ip(),
            };
            self.entry(IpSet::LoopBack, entry);
        }
        self.cluster_ip();
        for address in &port.external_ips {
            let set = if port.external_local { IpSet::ExternalIpLocal } else { IpSet::ExternalIp };
            self.external(*address, set);
        }
        for address in &port.load_balancer_vips {
            self.load_balancer(*address);
        }
        if let Some(node_port) = port.node_port {
            self.node_port(node_port);
        }
        if let Some(health_check) = port.health_check_node_port {
            self.entry(IpSet::HealthCheckNodePort, SetEntry::Port(health_check.get()));
        }
    }

    fn cluster_ip(&mut self) {
        let Some(address) = self.port.cluster_ip else { return };
        self.entry(IpSet::ClusterIp, self.at(address));
        self.bind(address);
        self.serve(address, self.port.port, self.real_servers(self.port.internal_local));
    }

    fn external(&mut self, address: IpAddr, set: IpSet) {
        self.entry(set, self.at(address));
        self.bind(address);
        self.serve(address, self.port.port, self.real_servers(self.port.external_local));
    }

    fn load_balancer(&mut self, address: IpAddr) {
        let port = self.port;
        self.external(address, IpSet::LoadBalancer);
        let at = self.at(address);
        if port.external_local {
            self.entry(IpSet::LoadBalancerLocal, at);
        }
        let Some(ranges) = &port.source_ranges else { return };
        self.entry(IpSet::LoadBalancerFirewall, at);
        let (protocol, number) = (port.name.protocol, port.port.get());
        for range in ranges {
            let entry =
                SetEntry::IpPortNet { ip: address, protocol: protocol.number(), port: number, net: *range };
            self.entry(IpSet::LoadBalancerSourceCidr, entry);
        }
        // What the node itself sends to the address bears that address as its source.
        if ranges.iter().any(|range| self.all.node_ip.is_some_and(|ip| range.contains(&ip))) {
            let entry =
                SetEntry::IpPortIp { ip: address, protocol: protocol.number(), port: number, ip2: address };
            self.entry(IpSet::LoadBalancerSourceIp, entry);
        } else {
            self.objects.out_filter.push(rules::drop_own(address, protocol, number));
        }
    }

    fn node_port(&mut self, node_port: NonZeroU16) {
        let protocol = self.port.name.protocol;
        let mut sets = vec![IpSet::node_ports(protocol)];
        if self.port.external_local {
            sets.push(IpSet::local_node_ports(protocol));
        }
        let all = self.all;
        if all.node_port_addresses.is_empty() {
            return;
        }
        for set in sets {
            match set {
                IpSet::NodePortSctp | IpSet::NodePortLocalSctp => {
                    for &ip in &all.node_port_addresses {
                        let entry =
                            SetEntry::IpPort { ip, protocol: protocol.number(), port: node_port.get() };
                        self.entry(set, entry);
                    }
                }
                _ => self.entry(set, SetEntry::Port(node_port.get())),
            }
        }
        for &address in &all.node_port_addresses {
            self.serve(address, node_port, self.real_servers(self.port.external_local));
        }
    }

    /// What serves by policy Local, or by policy Cluster. Without an endpoint on this node, policy Local leads to
    /// those elsewhere, where the Service has traffic by policy Cluster at all. That is for this node's own pods, which
    /// IPVS cannot tell from others; answers to anyone outside would bear another address than was asked. (A Service
    /// with both policies is not kept to its internal one then; so it is in kube-proxy.)
    fn real_servers(&self, local: bool) -> Vec<RealServer> {
        let endpoints = &self.port.endpoints;
        match local && endpoints.for_local().next().is_some() {
            true => sorted(endpoints.for_local()),
            false => sorted(endpoints.for_cluster()),
        }
    }

    fn serve(&mut self, address: IpAddr, port: NonZeroU16, real: Vec<RealServer>) {
        let protocol = self.port.name.protocol.number();
        let key = VirtualServer { protocol, address, port: port.get() };
        let config = self.config();
        self.objects.serve(Server { key, config, real });
    }

    fn config(&self) -> VirtualServerConfig {
        let scheduler = self.port.scheduler.unwrap_or(self.all.scheduler);
        let mut config = VirtualServerConfig::new(scheduler.name(), in_netlink(self.all.family));
        if scheduler == IpvsScheduler::MaglevHash {
            // The port counts too, or all clients behind one address would meet one endpoint.
            config.flags |= ip_vs::SCHED_2;
        }
        if let Some(seconds) = self.port.affinity {
            config.flags |= ip_vs::PERSISTENT;
            config.timeout = seconds;
        }
        config
    }

    fn at(&self, ip: IpAddr) -> SetEntry {
        SetEntry::IpPort { ip, protocol: self.port.name.protocol.number(), port: self.port.port.get() }
    }

    fn entry(&mut self, set: IpSet, entry: SetEntry) {
        self.objects.entries.push((set, entry));
    }

    /// Has the node take an address for its own, if it is not already and any link may bear it.
    fn bind(&mut self, address: IpAddr) {
        let loopback = address.is_ipv6() && address.is_loopback();
        if loopback || address.is_multicast() || address.is_unspecified() {
            return;
        }
        if self.all.own.binary_search(&address).is_err() {
            self.objects.addresses.push(address);
            self.entry(IpSet::IpvsIps, SetEntry::Ip(address));
        }
    }
}

fn sorted<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<RealServer> {
    let real = |e: &Endpoint| RealServer { address: e.ip, port: e.port.get(), weight: WEIGHT };
    let mut real: Vec<RealServer> = endpoints.map(real).collect();
    real.sort_unstable();
    real
}
