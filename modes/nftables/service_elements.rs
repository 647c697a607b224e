//! The elements, dispatch steps and chains of one Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{Chain, Element, Key, Verdict};

use super::affinity::Affinity;
use super::dispatch::DispatchStep;
use super::endpoint_map::{EndpointMap, FrontendKey, MapKind, TrafficPolicy};
use super::names::{
    CLUSTER_IPS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, NO_ENDPOINT_NODE_PORTS, NO_ENDPOINTS, REJECT,
};
use super::settings::Settings;

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SetId {
    /// One that exists with or without Services.
    Fixed(&'static str),
    EndpointMap(EndpointMap),
}

impl SetId {
    pub(super) fn name(self) -> Arc<str> {
        match self {
            SetId::Fixed(name) => name.into(),
            SetId::EndpointMap(map) => map.name(),
        }
    }
}

/// The set of an element, and its key.
pub(super) type ElementId = (SetId, Key);

/// The objects of one Service in the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServiceElements {
    pub(super) elements: BTreeMap<ElementId, Element>,
    /// The dispatch steps of its frontends, with the number of frontends that need each.
    pub(super) steps: BTreeMap<DispatchStep, usize>,
    /// The chains of the Service, by name. Only Services with session affinity have some.
    pub(super) chains: BTreeMap<Arc<str>, Chain>,
    /// The keys of its session-affinity entries without the client: one for each endpoint.
    pub(super) affinity_keys: BTreeSet<Key>,
}

impl ServiceElements {
    /// Returns the objects of the Service with these ports in the family of `settings`.
    pub(super) fn new(ports: &[ServicePort], settings: &Settings) -> Self {
        let mut service = ServiceElements::default();
        for port in ports.iter().filter(|port| port.family == settings.family) {
            let affinity = Affinity::new(port, settings);
            PortElements { port, settings, affinity, service: &mut service }.add();
        }
        service
    }
}

/// The verdict for packets to a frontend that has no endpoint for them.
#[derive(Clone, Copy, PartialEq)]
enum NoEndpoints {
    /// The Service has no endpoints at all.
    Reject,
    /// The traffic policy excludes all its endpoints.
    Drop,
}

/// Adds the objects of one port to those of its Service.
struct PortElements<'a> {
    port: &'a ServicePort,
    settings: &'a Settings,
    affinity: Option<Affinity<'a>>,
    service: &'a mut ServiceElements,
}

impl PortElements<'_> {
    fn add(mut self) {
        if let Some(cluster_ip) = self.port.cluster_ip {
            self.put(CLUSTER_IPS, Key::from(cluster_ip), Element::new());
        }
        if self.has_endpoints() {
            self.hairpin();
            self.affinity_chains();
        }
        self.cluster_ip();
        for ip in self.port.external_ips.iter().chain(&self.port.load_balancer_vips) {
            self.external_ip(*ip);
        }
        self.node_port();
        self.firewall();
    }

    fn put(&mut self, set: &'static str, key: Key, element: Element) {
        self.service.elements.insert((SetId::Fixed(set), key), element);
    }

    fn needs(&mut self, step: DispatchStep) {
        *self.service.steps.entry(step).or_default() += 1;
    }

    /// Forwards a frontend to a chain of the Service.
    fn forward_to_chain(&mut self, frontend: FrontendKey, key: Key, chain: Arc<str>) {
        self.put(frontend.frontends(), key.clone(), Element::new());
        self.put(frontend.affinity_map(), key, Element::verdict(Verdict::Goto(chain)));
        self.needs(DispatchStep::Affinity(frontend));
    }

    /// Forwards a frontend to the endpoints that a traffic policy selects.
    fn forward_to_endpoints(
        &mut self,
        frontend: FrontendKey,
        key: &Key,
        policy: TrafficPolicy,
        kind: MapKind,
    ) {
        self.put(frontend.frontends(), key.clone(), Element::new());
        let endpoints = policy.endpoints(self.port);
        let map = EndpointMap { key: frontend, kind, count: endpoints.len() as u16 };
        if !endpoints.is_empty() {
            self.needs(DispatchStep::EndpointMap(map));
        }
        for (number, endpoint) in (0..).zip(&endpoints) {
            let target = Key::from(endpoint.ip).port(endpoint.port.get());
            let id = (SetId::EndpointMap(map), key.clone().number(number));
            self.service.elements.insert(id, Element::value(target));
        }
    }

    fn no_endpoints(&mut self, map: &'static str, key: Key, verdict: NoEndpoints) {
        let verdict = match verdict {
            NoEndpoints::Reject => Verdict::goto(REJECT),
            NoEndpoints::Drop => Verdict::Drop,
        };
        self.put(map, key, Element::verdict(verdict));
    }

    fn has_endpoints(&self) -> bool {
        self.port.endpoints.has_usable()
    }

    fn protocol(&self) -> u8 {
        self.port.name.protocol.number()
    }

    /// Returns the key of an address with the protocol and port of the Service.
    fn key_of(&self, ip: IpAddr) -> Key {
        Key::from(ip).protocol(self.protocol()).port(self.port.port.get())
    }

    /// Adds the chains of a port with session affinity. They contain the endpoints, so all frontends share them.
    fn affinity_chains(&mut self) {
        let Some(affinity) = &self.affinity else { return };
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            let endpoints = affinity.endpoints(policy);
            if !endpoints.is_empty() {
                self.service
                    .affinity_keys
                    .extend(endpoints.iter().map(|endpoint| affinity.entry_key(endpoint)));
                self.service.chains.insert(affinity.chain_name(policy), affinity.endpoint_chain(policy));
            }
        }
        if self.port.externally_accessible() {
            self.service.chains.insert(affinity.external_chain_name(), affinity.external_chain());
        }
    }

    /// Adds the endpoints that may reach themselves through the Service. Only endpoints on this node can.
    fn hairpin(&mut self) {
        let local: Vec<Endpoint> =
            self.port.endpoints.reachable().filter(|e| e.is_local()).copied().collect();
        for endpoint in local {
            let ip = endpoint.ip;
            let key = Key::from(ip).address(ip).protocol(self.protocol()).port(endpoint.port.get());
            self.put(HAIRPIN, key, Element::new());
        }
    }

    fn no_endpoint_verdict(&self, is_local_policy: bool) -> Option<NoEndpoints> {
        if !self.has_endpoints() {
            Some(NoEndpoints::Reject)
        } else if is_local_policy && !TrafficPolicy::Local.has_endpoints(self.port) {
            Some(NoEndpoints::Drop)
        } else {
            None
        }
    }

    fn cluster_ip(&mut self) {
        let policy = if self.port.internal_local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let Some(cluster_ip) = self.port.cluster_ip else { return };
        let key = self.key_of(cluster_ip);
        match self.no_endpoint_verdict(self.port.internal_local) {
            Some(verdict) => self.no_endpoints(NO_ENDPOINTS, key, verdict),
            None if !policy.has_endpoints(self.port) => {
                self.no_endpoints(NO_ENDPOINTS, key, NoEndpoints::Drop);
            }
            None => match &self.affinity {
                Some(affinity) => {
                    let chain = affinity.chain_name(policy);
                    self.forward_to_chain(FrontendKey::Address, key, chain);
                }
                None => self.forward_to_endpoints(FrontendKey::Address, &key, policy, MapKind::Direct),
            },
        }
    }

    fn external_ip(&mut self, ip: IpAddr) {
        self.external(FrontendKey::Address, self.key_of(ip), NO_ENDPOINTS);
    }

    fn node_port(&mut self) {
        let Some(node_port) = self.port.node_port else { return };
        let key = Key::new().protocol(self.protocol()).port(node_port.get());
        self.external(FrontendKey::NodePort, key, NO_ENDPOINT_NODE_PORTS);
    }

    /// Adds a frontend of the external traffic policy. `no_endpoint_map` is the map of frontends without endpoints.
    fn external(&mut self, frontend: FrontendKey, key: Key, no_endpoint_map: &'static str) {
        let has_cluster_endpoints = TrafficPolicy::Cluster.has_endpoints(self.port);
        let affinity = self.affinity.as_ref().map(Affinity::external_chain_name);
        if let Some(chain) = affinity.filter(|_| self.has_endpoints()) {
            if self.port.external_local || has_cluster_endpoints {
                self.forward_to_chain(frontend, key.clone(), chain);
            }
        } else if self.has_endpoints() {
            if self.port.external_local {
                self.forward_to_endpoints(frontend, &key, TrafficPolicy::Local, MapKind::Direct);
                self.forward_to_endpoints(frontend, &key, TrafficPolicy::Cluster, MapKind::Internal);
                self.put(frontend.local_policy_set(), key.clone(), Element::new());
                self.needs(DispatchStep::LocalPolicy(frontend));
            } else if has_cluster_endpoints {
                self.forward_to_endpoints(frontend, &key, TrafficPolicy::Cluster, MapKind::Masqueraded);
            }
        }
        let verdict = self.no_endpoint_verdict(self.port.external_local);
        let none_usable = (!self.port.external_local && !has_cluster_endpoints).then_some(NoEndpoints::Drop);
        if let Some(verdict) = verdict.or(none_usable) {
            self.no_endpoints(no_endpoint_map, key, verdict);
        }
    }

    /// Adds the allowed source ranges of load balancer IPs. They apply to Services without endpoints too: excluded
    /// clients are dropped, not rejected.
    fn firewall(&mut self) {
        let port = self.port;
        let Some(allowed) = &port.source_ranges else { return };
        let mut ranges: Vec<(IpAddr, IpAddr)> =
            allowed.iter().map(|net| (net.network(), net.broadcast())).collect();
        // If the node has the load balancer's address, it uses this address as the source of packets to itself.
        let is_allowed = |ip: IpAddr| allowed.iter().any(|range| range.contains(&ip));
        if self.settings.node_ip.is_some_and(is_allowed) {
            ranges.extend(port.load_balancer_vips.iter().map(|ip| (*ip, *ip)));
        }
        let ranges = merge_ranges(ranges);
        for ip in &port.load_balancer_vips {
            let key = self.key_of(*ip);
            self.put(FIREWALL_IPS, key.clone(), Element::new());
            for (first, last) in &ranges {
                let [first, last] = [first, last].map(|end| key.clone().address(*end));
                self.put(FIREWALL_SOURCES, first, Element::range_to(last));
            }
        }
    }
}

/// Sorts ranges and merges overlapping ones, which the kernel rejects.
fn merge_ranges(mut ranges: Vec<(IpAddr, IpAddr)>) -> Vec<(IpAddr, IpAddr)> {
    ranges.sort_unstable();
    let mut merged: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}
