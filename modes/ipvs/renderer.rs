//! Renders a Service to its virtual servers, addresses, set entries and rules.

use std::net::IpAddr;
use std::num::NonZeroU16;

use portcullis_cluster::desired::{
    Endpoint, Frontend, FrontendKind, RoutingContext, ServicePort, SourceClass,
};
use portcullis_cluster::{Family, IpvsScheduler};
use portcullis_netlink::ip_vs::{self, RealServer, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;
use super::rules;
use super::service_objects::{ServerSpec, ServiceObjects};
use crate::iptables::in_netlink;
use crate::node_facts::NodeFacts;
use crate::node_port_addresses::NodePortScope;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;

/// The weight of every real server that gets new connections, as in kube-proxy.
const WEIGHT: u32 = 1;

/// Renders the Services of one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Renderer {
    pub(super) family: Family,
    scheduler: IpvsScheduler,
    routing: RoutingContext,
    /// The node's addresses, sorted. They are not added to the dummy interface.
    node_addresses: Box<[IpAddr]>,
    /// The node's addresses with node ports.
    node_port_addresses: Box<[IpAddr]>,
}

impl Renderer {
    pub(super) fn new(
        family: Family,
        scheduler: IpvsScheduler,
        options: &Options,
        facts: &NodeFacts,
    ) -> Self {
        let mut node_addresses: Vec<IpAddr> = facts
            .addresses
            .iter()
            .copied()
            .filter(|ip| Family::from_address(*ip) == family && can_serve(*ip))
            .collect();
        node_addresses.sort_unstable();
        node_addresses.dedup();
        let node_port_addresses = match options.node_port_scope(family, facts) {
            NodePortScope::All => node_addresses.clone(),
            NodePortScope::Addresses(addresses) => {
                addresses.into_iter().filter(|ip| can_serve(*ip)).collect()
            }
        };
        Renderer {
            family,
            scheduler,
            routing: ProxyMode::Ipvs.routing_context(family, options, facts),
            node_addresses: node_addresses.into(),
            node_port_addresses: node_port_addresses.into(),
        }
    }

    /// Returns a renderer for other options and node facts.
    pub(super) fn with_facts(&self, options: &Options, facts: &NodeFacts) -> Self {
        Renderer::new(self.family, self.scheduler, options, facts)
    }

    /// Renders the ports of a Service that are in this family.
    pub(super) fn service(&self, ports: &[ServicePort]) -> ServiceObjects {
        let mut objects = ServiceObjects::default();
        for port in ports.iter().filter(|p| p.family == self.family) {
            PortRenderer { renderer: self, port, objects: &mut objects }.render();
        }
        objects
    }
}

/// Returns true if a virtual server can have this address of the node. Packets do not leave the node from a loopback
/// address, and a link-local address is not unique.
fn can_serve(address: IpAddr) -> bool {
    !address.is_loopback() && !is_link_local(address)
}

/// Returns true for the addresses that the kernel assigns to IPv6 interfaces itself.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

struct PortRenderer<'a> {
    renderer: &'a Renderer,
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
            self.add_entry(IpSet::LoopBack, entry);
        }
        for frontend in port.frontends() {
            match frontend.address.ip() {
                Some(ip) => self.virtual_ip(&frontend, ip),
                None => self.node_port(&frontend),
            }
        }
        if let Some(health_check) = port.health_check_node_port {
            self.add_entry(IpSet::HealthCheckNodePort, SetEntry::Port(health_check.get()));
        }
    }

    fn virtual_ip(&mut self, frontend: &Frontend<'_>, ip: IpAddr) {
        let is_local = frontend.traffic_policy().is_local();
        self.add_entry(
            match frontend.kind {
                FrontendKind::LoadBalancer => IpSet::LoadBalancer,
                FrontendKind::ExternalIp if is_local => IpSet::ExternalIpLocal,
                FrontendKind::ExternalIp => IpSet::ExternalIp,
                FrontendKind::ClusterIp | FrontendKind::NodePort => IpSet::ClusterIp,
            },
            self.ip_port(ip),
        );
        self.add_address(ip);
        self.add_server(ip, self.port.port, self.real_servers(frontend));
        if frontend.kind == FrontendKind::LoadBalancer {
            if is_local {
                self.add_entry(IpSet::LoadBalancerLocal, self.ip_port(ip));
            }
            self.source_ranges(frontend, ip);
        }
    }

    fn source_ranges(&mut self, frontend: &Frontend<'_>, ip: IpAddr) {
        let Some(allowed) = frontend.allowed_sources(&self.renderer.routing) else { return };
        self.add_entry(IpSet::LoadBalancerFirewall, self.ip_port(ip));
        let (protocol, port) = (self.port.name.protocol, self.port.port.get());
        for range in allowed.ranges {
            let entry = SetEntry::IpPortNet { ip, protocol: protocol.number(), port, net: *range };
            self.add_entry(IpSet::LoadBalancerSourceCidr, entry);
        }
        // The node's own connections to the address have the same address as their source.
        if allowed.load_balancer_vips.contains(&ip) {
            let entry = SetEntry::IpPortIp { ip, protocol: protocol.number(), port, ip2: ip };
            self.add_entry(IpSet::LoadBalancerSourceIp, entry);
        } else {
            self.objects.out_filter.push(rules::drop_own(ip, protocol, port));
        }
    }

    fn node_port(&mut self, frontend: &Frontend<'_>) {
        let Some(node_port) = self.port.node_port else { return };
        let protocol = self.port.name.protocol;
        let mut sets = vec![IpSet::node_ports(protocol)];
        if frontend.traffic_policy().is_local() {
            sets.push(IpSet::local_node_ports(protocol));
        }
        let renderer = self.renderer;
        if renderer.node_port_addresses.is_empty() {
            return;
        }
        for set in sets {
            match set {
                IpSet::NodePortSctp | IpSet::NodePortLocalSctp => {
                    for &ip in &renderer.node_port_addresses {
                        let entry =
                            SetEntry::IpPort { ip, protocol: protocol.number(), port: node_port.get() };
                        self.add_entry(set, entry);
                    }
                }
                _ => self.add_entry(set, SetEntry::Port(node_port.get())),
            }
        }
        for &address in &renderer.node_port_addresses {
            self.add_server(address, node_port, self.real_servers(frontend));
        }
    }

    /// Returns the endpoints of a frontend. Traffic policy Local without an endpoint on this node falls back to remote endpoints
    /// if the Service also has traffic with policy Cluster. This is for the node's own pods, which IPVS cannot distinguish from
    /// other clients; those would get replies from another address. So, as in kube-proxy, internal traffic policy Local does
    /// not restrict a Service that also serves clients outside of the cluster.
    fn real_servers(&self, frontend: &Frontend<'_>) -> Vec<RealServer> {
        let route = frontend.route(SourceClass::External, &self.renderer.routing);
        sorted(self.port.endpoints.for_policy(route.endpoint_policy()))
    }

    fn add_server(&mut self, address: IpAddr, port: NonZeroU16, real_servers: Vec<RealServer>) {
        let protocol = self.port.name.protocol.number();
        let server = VirtualServer { protocol, address, port: port.get() };
        let config = self.config();
        self.objects.add_server(server, ServerSpec { config, real_servers });
    }

    fn config(&self) -> VirtualServerConfig {
        let scheduler = self.port.scheduler.unwrap_or(self.renderer.scheduler);
        let mut config = VirtualServerConfig::new(scheduler.name(), in_netlink(self.renderer.family));
        if scheduler == IpvsScheduler::MaglevHash {
            // Hashes the source port too, or all clients with one address would get the same endpoint.
            config.flags |= ip_vs::SCHED_2;
        }
        if let Some(seconds) = self.port.affinity {
            config.flags |= ip_vs::PERSISTENT;
            config.timeout = seconds;
        }
        config
    }

    fn ip_port(&self, ip: IpAddr) -> SetEntry {
        SetEntry::IpPort { ip, protocol: self.port.name.protocol.number(), port: self.port.port.get() }
    }

    fn add_entry(&mut self, set: IpSet, entry: SetEntry) {
        self.objects.entries.push((set, entry));
    }

    /// Adds an address to the dummy interface, unless the node has it or no interface can have it.
    fn add_address(&mut self, address: IpAddr) {
        let loopback = address.is_ipv6() && address.is_loopback();
        if loopback || address.is_multicast() || address.is_unspecified() {
            return;
        }
        if self.renderer.node_addresses.binary_search(&address).is_err() {
            self.objects.addresses.push(address);
            self.add_entry(IpSet::IpvsIps, SetEntry::Ip(address));
        }
    }
}

fn sorted(endpoints: impl Iterator<Item = Endpoint>) -> Vec<RealServer> {
    let real = |e: Endpoint| RealServer { address: e.ip, port: e.port.get(), weight: WEIGHT };
    let mut real: Vec<RealServer> = endpoints.map(real).collect();
    real.sort_unstable();
    real
}
