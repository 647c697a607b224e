//! What a Service's port is in the sets and maps: elements, and by what trials a packet finds them.

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

/// A set or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SetId {
    /// One that is always there.
    Fixed(&'static str),
    /// The endpoints of some Services.
    EndpointMap(EndpointMap),
}

impl SetId {
    pub(super) fn name(self) -> Arc<str> {
        match self {
            SetId::Fixed(name) => name.into(),
            SetId::EndpointMap(picking) => picking.name(),
        }
    }
}

/// An element's place: the set, and the key.
pub(super) type ElementId = (SetId, Key);

/// All that a Service is in one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServiceElements {
    pub(super) elements: BTreeMap<ElementId, Element>,
    /// By what trials it is found, and how often.
    pub(super) trials: BTreeMap<DispatchStep, usize>,
    /// Chains of its own, by name.
    pub(super) own_chains: BTreeMap<Arc<str>, Chain>,
    /// Endpoints that clients may stay with, as they stand behind the client where that is remembered.
    pub(super) affinities: BTreeSet<Key>,
}

impl ServiceElements {
    /// Those of a Service's ports in the family.
    pub(super) fn of(ports: &[ServicePort], settings: &Settings) -> Self {
        let mut entries = ServiceElements::default();
        for port in ports.iter().filter(|port| port.family == settings.family) {
            let affinity = Affinity::of(port, settings);
            PortElements { port, settings, affinity, entries: &mut entries }.add();
        }
        entries
    }
}

/// What becomes of traffic that no endpoint takes.
#[derive(Clone, Copy, PartialEq)]
enum NoEndpoints {
    /// There is none anywhere: say so.
    Reject,
    /// There are some elsewhere: be silent.
    Drop,
}

struct PortElements<'a> {
    port: &'a ServicePort,
    settings: &'a Settings,
    affinity: Option<Affinity<'a>>,
    entries: &'a mut ServiceElements,
}

impl PortElements<'_> {
    fn add(mut self) {
        if let Some(cluster_ip) = self.port.cluster_ip {
            self.put(CLUSTER_IPS, Key::from(cluster_ip), Element::new());
        }
        if self.has_endpoints() {
            self.hairpins();
            self.affinity_chains();
        }
        self.internal();
        for ip in self.port.external_ips.iter().chain(&self.port.load_balancer_vips) {
            self.external(*ip);
        }
        self.node_port();
        self.firewall();
    }

    fn put(&mut self, set: &'static str, key: Key, element: Element) {
        self.entries.elements.insert((SetId::Fixed(set), key), element);
    }

    fn find_by(&mut self, trial: DispatchStep) {
        *self.entries.trials.entry(trial).or_default() += 1;
    }

    /// Serves it by a chain of its own.
    fn lead_to_own(&mut self, front: FrontendKey, key: Key, chain: Arc<str>) {
        self.put(front.served(), key.clone(), Element::new());
        self.put(front.affine(), key, Element::verdict(Verdict::Goto(chain)));
        self.find_by(DispatchStep::Affinity(front));
    }

    /// Serves it by the endpoints of a view.
    fn pick(&mut self, front: FrontendKey, key: &Key, view: TrafficPolicy, purpose: MapKind) {
        self.put(front.served(), key.clone(), Element::new());
        let chosen = view.endpoints(self.port);
        let picking = EndpointMap { front, purpose, count: chosen.len() as u16 };
        if !chosen.is_empty() {
            self.find_by(DispatchStep::EndpointMap(picking));
        }
        for (number, endpoint) in (0..).zip(&chosen) {
            let target = Key::from(endpoint.ip).port(endpoint.port.get());
            let place = (SetId::EndpointMap(picking), key.clone().number(number));
            self.entries.elements.insert(place, Element::value(target));
        }
    }

    fn refuse(&mut self, set: &'static str, key: Key, refusal: NoEndpoints) {
        let verdict = match refusal {
            NoEndpoints::Reject => Verdict::goto(REJECT),
            NoEndpoints::Drop => Verdict::Drop,
        };
        self.put(set, key, Element::verdict(verdict));
    }

    fn has_endpoints(&self) -> bool {
        self.port.endpoints.has_usable()
    }

    fn has_some(&self, view: TrafficPolicy) -> bool {
        let endpoints = &self.port.endpoints;
        match view {
            TrafficPolicy::Cluster => endpoints.for_cluster().next().is_some(),
            TrafficPolicy::Local => endpoints.for_local().next().is_some(),
        }
    }

    fn protocol(&self) -> u8 {
        self.port.name.protocol.number()
    }

    /// An address with the Service's protocol and port.
    fn at(&self, ip: IpAddr) -> Key {
        Key::from(ip).protocol(self.protocol()).port(self.port.port.get())
    }

    /// The chains of a port whose clients stay with their endpoints. They know the endpoints themselves, so that they
    /// serve all fronts.
    fn affinity_chains(&mut self) {
        let Some(affinity) = &self.affinity else { return };
        for view in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            let chosen = affinity.endpoints(view);
            if !chosen.is_empty() {
                self.entries.affinities.extend(chosen.iter().map(|endpoint| affinity.remembered(endpoint)));
                self.entries.own_chains.insert(affinity.picking(view), affinity.picking_chain(view));
            }
        }
        if self.port.externally_accessible() {
            self.entries.own_chains.insert(affinity.external(), affinity.external_chain());
        }
    }

    /// Only endpoints on this node can be led back to themselves.
    fn hairpins(&mut self) {
        let local: Vec<Endpoint> =
            self.port.endpoints.reachable().filter(|e| e.is_local()).copied().collect();
        for endpoint in local {
            let ip = endpoint.ip;
            let key = Key::from(ip).address(ip).protocol(self.protocol()).port(endpoint.port.get());
            self.put(HAIRPIN, key, Element::new());
        }
    }

    fn refusal(&self, local_only: bool) -> Option<NoEndpoints> {
        if !self.has_endpoints() {
            Some(NoEndpoints::Reject)
        } else if local_only && !self.has_some(TrafficPolicy::Local) {
            Some(NoEndpoints::Drop)
        } else {
            None
        }
    }

    fn internal(&mut self) {
        let view = if self.port.internal_local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let Some(cluster_ip) = self.port.cluster_ip else { return };
        let key = self.at(cluster_ip);
        match self.refusal(self.port.internal_local) {
            Some(refusal) => self.refuse(NO_ENDPOINTS, key, refusal),
            None if !self.has_some(view) => self.refuse(NO_ENDPOINTS, key, NoEndpoints::Drop),
            None => match &self.affinity {
                Some(affinity) => {
                    let chain = affinity.picking(view);
                    self.lead_to_own(FrontendKey::Address, key, chain);
                }
                None => self.pick(FrontendKey::Address, &key, view, MapKind::Direct),
            },
        }
    }

    fn external(&mut self, ip: IpAddr) {
        self.reach(FrontendKey::Address, self.at(ip), NO_ENDPOINTS);
    }

    fn node_port(&mut self) {
        let Some(node_port) = self.port.node_port else { return };
        let key = Key::new().protocol(self.protocol()).port(node_port.get());
        self.reach(FrontendKey::NodePort, key, NO_ENDPOINT_NODE_PORTS);
    }

    /// What is reached from outside, by the external policy. `refuses`: the map of what nobody serves.
    fn reach(&mut self, front: FrontendKey, key: Key, refuses: &'static str) {
        let cluster = self.has_some(TrafficPolicy::Cluster);
        let affinity = self.affinity.as_ref().map(Affinity::external);
        if let Some(chain) = affinity.filter(|_| self.has_endpoints()) {
            if self.port.external_local || cluster {
                self.lead_to_own(front, key.clone(), chain);
            }
        } else if self.has_endpoints() {
            if self.port.external_local {
                self.pick(front, &key, TrafficPolicy::Local, MapKind::Direct);
                self.pick(front, &key, TrafficPolicy::Cluster, MapKind::Internal);
                self.put(front.part_outside(), key.clone(), Element::new());
                self.find_by(DispatchStep::LocalPolicy(front));
            } else if cluster {
                self.pick(front, &key, TrafficPolicy::Cluster, MapKind::Masqueraded);
            }
        }
        let refusal = self.refusal(self.port.external_local);
        let none_here = (!self.port.external_local && !cluster).then_some(NoEndpoints::Drop);
        if let Some(refusal) = refusal.or(none_here) {
            self.refuse(refuses, key, refusal);
        }
    }

    /// Without endpoints too: who may not use it gets no answer either way.
    fn firewall(&mut self) {
        let port = self.port;
        let Some(allowed) = &port.source_ranges else { return };
        let mut ranges: Vec<(IpAddr, IpAddr)> =
            allowed.iter().map(|net| (net.network(), net.broadcast())).collect();
        // A load balancer may put its address on the node, which then uses it as source towards itself.
        let is_allowed = |ip: IpAddr| allowed.iter().any(|range| range.contains(&ip));
        if self.settings.node_ip.is_some_and(is_allowed) {
            ranges.extend(port.load_balancer_vips.iter().map(|ip| (*ip, *ip)));
        }
        let ranges = joined(ranges);
        for ip in &port.load_balancer_vips {
            let key = self.at(*ip);
            self.put(FIREWALL_IPS, key.clone(), Element::new());
            for (first, last) in &ranges {
                let [first, last] = [first, last].map(|end| key.clone().address(*end));
                self.put(FIREWALL_SOURCES, first, Element::range_to(last));
            }
        }
    }
}

/// Sorts ranges and joins those that overlap: the kernel takes no others.
fn joined(mut ranges: Vec<(IpAddr, IpAddr)>) -> Vec<(IpAddr, IpAddr)> {
    ranges.sort_unstable();
    let mut joined: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}
