//! What a Service's port is in the maps: elements, and the chains that they lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{Chain, Element, Key, Verdict};

use super::affinity::Affinity;
use super::label::{Front, Label, MOST_ENDPOINTS, Task, View, first_number};
use super::names::{
    CLUSTER_IPS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, INSIDE_IPS, INSIDE_NODE_PORTS,
    NO_ENDPOINT_NODE_PORTS, NO_ENDPOINTS, REJECT, SERVICE_IPS, SERVICE_NODE_PORTS,
};
use super::settings::Settings;

/// An element's place: the set, and the key.
pub(super) type Place = (&'static str, Key);

/// A map that holds labels, and one of them.
pub(super) type Labeled = (&'static str, Label);

/// All that a Service is in one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entries {
    pub(super) elements: BTreeMap<Place, Element>,
    /// The labels of elements, and how often.
    pub(super) labels: BTreeMap<Labeled, usize>,
    /// Chains of its own, by name.
    pub(super) own_chains: BTreeMap<Arc<str>, Chain>,
    /// Endpoints that clients may stay with, as they stand behind the client where that is remembered.
    pub(super) affinities: BTreeSet<Key>,
}

impl Entries {
    /// Those of a Service's ports in the family.
    pub(super) fn of(ports: &[ServicePort], settings: &Settings) -> Self {
        let mut entries = Entries::default();
        for port in ports.iter().filter(|port| port.family == settings.family) {
            let affinity = Affinity::of(port, settings);
            PortEntries { port, settings, affinity, entries: &mut entries }.add();
        }
        entries
    }
}

/// What becomes of traffic that no endpoint takes.
#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    /// There is none anywhere: say so.
    Reject,
    /// There are some elsewhere: be silent.
    Drop,
}

struct PortEntries<'a> {
    port: &'a ServicePort,
    settings: &'a Settings,
    affinity: Option<Affinity<'a>>,
    entries: &'a mut Entries,
}

impl PortEntries<'_> {
    fn add(mut self) {
        self.put(CLUSTER_IPS, Key::from(self.port.cluster_ip), Element::bare());
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
        self.entries.elements.insert((set, key), element);
    }

    fn label(&mut self, map: &'static str, key: Key, task: Task) {
        let view = Label { task, endpoints: 0 }.view();
        let endpoints = if task == Task::Affinity { 0 } else { self.count(view) };
        let label = Label { task, endpoints };
        *self.entries.labels.entry((map, label)).or_default() += 1;
        self.put(map, key, Element::value(label.key()));
    }

    fn lead_to_own(&mut self, map: &'static str, front: Front, key: Key, chain: Arc<str>) {
        self.put(front.affine(), key.clone(), Element::verdict(Verdict::Goto(chain)));
        self.label(map, key, Task::Affinity);
    }

    fn refuse(&mut self, set: &'static str, key: Key, refusal: Refusal) {
        let verdict = match refusal {
            Refusal::Reject => Verdict::goto(REJECT),
            Refusal::Drop => Verdict::Drop,
        };
        self.put(set, key, Element::verdict(verdict));
    }

    fn has_endpoints(&self) -> bool {
        self.port.endpoints.exist()
    }

    fn count(&self, view: View) -> u16 {
        let endpoints = &self.port.endpoints;
        let count = match view {
            View::Cluster => endpoints.for_cluster().count(),
            View::Local => endpoints.for_local().count(),
        };
        count.min(MOST_ENDPOINTS) as u16
    }

    fn protocol(&self) -> u8 {
        self.port.name.protocol.number()
    }

    /// An address with the Service's protocol and port.
    fn at(&self, ip: IpAddr) -> Key {
        Key::from(ip).protocol(self.protocol()).port(self.port.port.get())
    }

    /// The endpoints of a view, as a front finds them.
    fn endpoints(&mut self, front: Front, key: &Key, view: View) {
        let chosen = view.endpoints(self.port);
        let first = first_number(view, chosen.len() as u16);
        for (number, endpoint) in (first..).zip(&chosen) {
            let target = Key::from(endpoint.ip).port(endpoint.port.get());
            self.put(front.endpoints(), key.clone().number(number), Element::value(target));
        }
    }

    /// The chains of a port whose clients stay with their endpoints. They know the endpoints themselves, so that they
    /// serve all fronts.
    fn affinity_chains(&mut self) {
        let Some(affinity) = &self.affinity else { return };
        for view in [View::Cluster, View::Local] {
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
            self.put(HAIRPIN, key, Element::bare());
        }
    }

    fn refusal(&self, local_only: bool) -> Option<Refusal> {
        if !self.has_endpoints() {
            Some(Refusal::Reject)
        } else if local_only && self.count(View::Local) == 0 {
            Some(Refusal::Drop)
        } else {
            None
        }
    }

    fn internal(&mut self) {
        let view = if self.port.internal_local { View::Local } else { View::Cluster };
        let key = self.at(self.port.cluster_ip);
        match self.refusal(self.port.internal_local) {
            Some(refusal) => self.refuse(NO_ENDPOINTS, key, refusal),
            None if self.count(view) == 0 => self.refuse(NO_ENDPOINTS, key, Refusal::Drop),
            None => {
                if let Some(affinity) = &self.affinity {
                    let chain = affinity.picking(view);
                    return self.lead_to_own(SERVICE_IPS, Front::Address, key, chain);
                }
                self.endpoints(Front::Address, &key, view);
                let task = if view == View::Local { Task::PickLocal } else { Task::Pick };
                self.label(SERVICE_IPS, key, task);
            }
        }
    }

    fn external(&mut self, ip: IpAddr) {
        self.reach(Front::Address, self.at(ip), [SERVICE_IPS, INSIDE_IPS, NO_ENDPOINTS]);
    }

    fn node_port(&mut self) {
        let Some(node_port) = self.port.node_port else { return };
        let key = Key::new().protocol(self.protocol()).port(node_port.get());
        self.reach(Front::NodePort, key, [SERVICE_NODE_PORTS, INSIDE_NODE_PORTS, NO_ENDPOINT_NODE_PORTS]);
    }

    /// What is reached from outside, by the external policy. `maps`: who serves it; who serves it inside of the
    /// cluster; who refuses it.
    fn reach(&mut self, front: Front, key: Key, maps: [&'static str; 3]) {
        let [serves, inside, refuses] = maps;
        let cluster = self.count(View::Cluster);
        let affinity = self.affinity.as_ref().map(Affinity::external);
        if let Some(chain) = affinity.filter(|_| self.has_endpoints()) {
            if self.port.external_local || cluster > 0 {
                self.lead_to_own(serves, front, key.clone(), chain);
            }
        } else if self.has_endpoints() {
            if cluster > 0 {
                self.endpoints(front, &key, View::Cluster);
            }
            if self.port.external_local {
                self.endpoints(front, &key, View::Local);
                self.label(serves, key.clone(), Task::PartOutside);
                if cluster > 0 {
                    self.label(inside, key.clone(), Task::Pick);
                }
            } else if cluster > 0 {
                self.label(serves, key.clone(), Task::Masquerade);
            }
        }
        let refusal = self.refusal(self.port.external_local);
        let none_here = (!self.port.external_local && cluster == 0).then_some(Refusal::Drop);
        if let Some(refusal) = refusal.or(none_here) {
            self.refuse(refuses, key, refusal);
        }
    }

    /// Without endpoints too: who may not use it gets no answer either way.
    fn firewall(&mut self) {
        let port = self.port;
        let open = port.source_ranges.iter().any(|net| net.prefix_len() == 0);
        if port.source_ranges.is_empty() || open {
            return;
        }
        let mut ranges: Vec<(IpAddr, IpAddr)> =
            port.source_ranges.iter().map(|net| (net.network(), net.broadcast())).collect();
        // A load balancer may put its address on the node, which then uses it as source towards itself.
        let is_allowed = |ip: IpAddr| port.source_ranges.iter().any(|range| range.contains(&ip));
        if self.settings.node_ip.is_some_and(is_allowed) {
            ranges.extend(port.load_balancer_vips.iter().map(|ip| (*ip, *ip)));
        }
        let ranges = joined(ranges);
        for ip in &port.load_balancer_vips {
            let key = self.at(*ip);
            self.put(FIREWALL_IPS, key.clone(), Element::bare());
            for (first, last) in &ranges {
                let [first, last] = [first, last].map(|end| key.clone().address(*end));
                self.put(FIREWALL_SOURCES, first, Element::up_to(last));
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
