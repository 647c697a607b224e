//! The elements, dispatch steps and chains of one Service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::TrafficPolicy;
use portcullis_cluster::desired::{Endpoint, Frontend, Rejection, ServicePort, SourceClass};
use portcullis_netlink::nf_tables::{Element, Key, Verdict};

use super::affinity::{Affinity, endpoint_number};
use super::dispatch::DispatchStep;
use super::dispatch_by_count::CountMaps;
use super::endpoint_map::{EndpointMap, FrontendKey, MapKind, numbered_endpoints};
use super::names::{
    AFFINITY_ENDPOINTS, CLUSTER_IPS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, NO_ENDPOINT_NODE_PORTS,
    NO_ENDPOINTS, REJECT,
};
use super::settings::Settings;

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SetId {
    /// One that exists with or without Services.
    Fixed(&'static str),
    EndpointMap(EndpointMap),
    /// The numbers of endpoints of frontends that have many.
    Counts(CountMaps),
}

impl SetId {
    pub(super) fn name(self) -> Arc<str> {
        match self {
            SetId::Fixed(name) => name.into(),
            SetId::EndpointMap(map) => map.name(),
            SetId::Counts(maps) => maps.frontends(),
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
}

impl ServiceElements {
    /// Returns the objects of the Service with these ports in the family of `settings`.
    pub(super) fn new(ports: &[ServicePort], settings: &Settings) -> Self {
        let mut service = ServiceElements::default();
        for port in ports.iter().filter(|port| port.family == settings.family) {
            let affinity = Affinity::new(port);
            PortElements { port, settings, affinity, service: &mut service }.add();
        }
        service
    }
}

/// Adds the objects of one port to those of its Service.
struct PortElements<'a> {
    port: &'a ServicePort,
    settings: &'a Settings,
    affinity: Option<Affinity>,
    service: &'a mut ServiceElements,
}

impl PortElements<'_> {
    fn add(mut self) {
        if let Some(cluster_ip) = self.port.cluster_ip {
            self.put(CLUSTER_IPS, Key::from(cluster_ip), Element::new());
        }
        if self.has_endpoints() {
            self.hairpin();
        }
        for frontend in self.port.frontends() {
            match frontend.is_external() {
                false => self.cluster_ip(&frontend),
                true => self.external(&frontend),
            }
            self.firewall(&frontend);
        }
    }

    fn put(&mut self, set: &'static str, key: Key, element: Element) {
        self.service.elements.insert((SetId::Fixed(set), key), element);
    }

    fn needs(&mut self, step: DispatchStep) {
        *self.service.steps.entry(step).or_default() += 1;
    }

    /// Adds a frontend that has endpoints.
    fn serve(&mut self, frontend: FrontendKey, key: &Key) {
        self.put(frontend.frontends(), key.clone(), Element::new());
        if self.settings.counts_services {
            frontend.traffic_sets().iter().for_each(|set| self.put(set, key.clone(), Element::new()));
        }
    }

    /// Forwards a frontend to the endpoints that a traffic policy selects.
    fn forward_to_endpoints(
        &mut self,
        frontend: FrontendKey,
        key: &Key,
        policy: TrafficPolicy,
        kind: MapKind,
    ) {
        self.serve(frontend, key);
        let endpoints = numbered_endpoints(self.port, policy);
        let map = EndpointMap { key: frontend, kind, count: endpoints.len() as u16 };
        if !endpoints.is_empty() {
            self.needs(DispatchStep::EndpointMap(map));
            self.session_affinity(frontend, key, kind, &endpoints);
        }
        if let Some(maps) = map.count_maps() {
            let id = (SetId::Counts(maps), key.clone());
            self.service.elements.insert(id, Element::value(map.count_key()));
        }
        for (number, endpoint) in (0..).zip(&endpoints) {
            let target = Key::from(endpoint.ip).port(endpoint.port.get());
            let id = (SetId::EndpointMap(map), key.clone().number(number));
            self.service.elements.insert(id, Element::value(target));
        }
    }

    /// Adds what finds and updates the session-affinity entries of a frontend's clients.
    fn session_affinity(&mut self, frontend: FrontendKey, key: &Key, kind: MapKind, endpoints: &[Endpoint]) {
        let Some(Affinity { service, timeout_seconds }) = self.affinity else { return };
        let number = |number| Element::value(Key::new().number(number));
        self.put(frontend.affinity_map(), key.clone(), number(service));
        self.put(frontend.affinity_timeouts(), key.clone(), number(timeout_seconds));
        self.needs(DispatchStep::Affinity { key: frontend, is_internal: kind == MapKind::Internal });
        self.needs(DispatchStep::AffinityUpdate(frontend, timeout_seconds));
        for endpoint in endpoints {
            let target = Key::from(endpoint.ip).port(endpoint.port.get());
            let own = endpoint_number(endpoint);
            self.put(AFFINITY_ENDPOINTS, target.clone(), number(own));
            let map = frontend.affinity_endpoints(kind);
            self.put(map, key.clone().number(own), Element::value(target));
        }
    }

    /// Adds the verdict for a frontend without endpoints.
    fn reject(&mut self, frontend: &Frontend<'_>, rejection: Rejection) {
        let verdict = match rejection {
            Rejection::Reject => Verdict::goto(REJECT),
            Rejection::Drop => Verdict::Drop,
        };
        let map = match lookup_key(frontend) {
            FrontendKey::Address => NO_ENDPOINTS,
            FrontendKey::NodePort => NO_ENDPOINT_NODE_PORTS,
        };
        self.put(map, self.key_of(frontend), Element::verdict(verdict));
    }

    fn has_endpoints(&self) -> bool {
        self.port.endpoints.has_usable()
    }

    fn protocol(&self) -> u8 {
        self.port.name.protocol.number()
    }

    /// Returns the key of a frontend in sets and maps.
    fn key_of(&self, frontend: &Frontend<'_>) -> Key {
        frontend_key(self.port, frontend).1
    }

    /// Adds the endpoints that may reach themselves through the Service. Only endpoints on this node can.
    fn hairpin(&mut self) {
        let local: Vec<Endpoint> = self.port.endpoints.reachable().filter(Endpoint::is_local).collect();
        for endpoint in local {
            let ip = endpoint.ip;
            let key = Key::from(ip).address(ip).protocol(self.protocol()).port(endpoint.port.get());
            self.put(HAIRPIN, key, Element::new());
        }
    }

    fn cluster_ip(&mut self, frontend: &Frontend<'_>) {
        let (key, policy) = (self.key_of(frontend), frontend.traffic_policy());
        match frontend.rejection() {
            Some(rejection) => self.reject(frontend, rejection),
            None => self.forward_to_endpoints(FrontendKey::Address, &key, policy, MapKind::Direct),
        }
    }

    /// Adds a frontend of the external traffic policy.
    fn external(&mut self, frontend: &Frontend<'_>) {
        let (lookup, key) = (lookup_key(frontend), self.key_of(frontend));
        let [pods, other] = [SourceClass::Pod, SourceClass::External]
            .map(|source| frontend.route(source, &self.settings.routing));
        if self.has_endpoints() {
            if pods.policy == other.policy {
                self.forward_to_endpoints(lookup, &key, other.policy, MapKind::Masqueraded);
            } else {
                self.forward_to_endpoints(lookup, &key, other.policy, MapKind::Direct);
                self.forward_to_endpoints(lookup, &key, pods.policy, MapKind::Internal);
                self.put(lookup.local_policy_set(), key.clone(), Element::new());
                self.needs(DispatchStep::LocalPolicy(lookup));
            }
        }
        if let Some(rejection) = other.rejection {
            self.reject(frontend, rejection);
        }
    }

    /// Adds the allowed source ranges of a load balancer IP. They apply to Services without endpoints too: excluded clients
    /// are dropped, not rejected.
    fn firewall(&mut self, frontend: &Frontend<'_>) {
        let Some(allowed) = frontend.allowed_sources(&self.settings.routing) else { return };
        let ranges = allowed.ranges.iter().map(|net| (net.network(), net.broadcast()));
        let addresses = allowed.load_balancer_vips.iter().map(|ip| (*ip, *ip));
        let key = self.key_of(frontend);
        self.put(FIREWALL_IPS, key.clone(), Element::new());
        for (first, last) in merge_ranges(ranges.chain(addresses).collect()) {
            let [first, last] = [first, last].map(|end| key.clone().address(end));
            self.put(FIREWALL_SOURCES, first, Element::range_to(last));
        }
    }
}

/// Returns the fields by which a frontend of a Service port is looked up, and their values.
pub(super) fn frontend_key(port: &ServicePort, frontend: &Frontend<'_>) -> (FrontendKey, Key) {
    let key = frontend.address.ip().map_or_else(Key::new, Key::from);
    (lookup_key(frontend), key.protocol(port.name.protocol.number()).port(frontend.address.port()))
}

/// Returns the fields by which a frontend is looked up.
fn lookup_key(frontend: &Frontend<'_>) -> FrontendKey {
    match frontend.address.ip() {
        Some(_) => FrontendKey::Address,
        None => FrontendKey::NodePort,
    }
}

/// Sorts ranges and merges overlapping ones, which the kernel rejects.
pub(crate) fn merge_ranges(mut ranges: Vec<(IpAddr, IpAddr)>) -> Vec<(IpAddr, IpAddr)> {
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
