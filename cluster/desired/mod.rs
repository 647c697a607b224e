//! Desired: what this node must serve, resolved once for all modes.
//!
//! For each Service its ports, and for each port and address family the virtual addresses and the
//! endpoints that take cluster traffic and local traffic from this node. No mode reads a Kubernetes
//! object.

mod conflicts;
mod endpoints;
mod frontend;
mod service_port;
mod topology;

pub use conflicts::{UnservedFrontend, UnservedReason};
pub use endpoints::{Endpoint, Endpoints};
pub use frontend::{Frontend, FrontendKind};
pub use service_port::{ServicePort, ServicePortName};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::index::{DirtyServices, Index};
use crate::name::{Name, NamespacedName};
use conflicts::{Claims, Rank, Reconsidered};
use service_port::{Allowed, Claim};

/// All that this node must serve.
pub struct Desired {
    node: Name,
    zone: Option<&'static str>,
    /// Addresses of this node, by its Node object.
    node_addresses: Box<[IpAddr]>,
    allowed: Allowed,
    services: BTreeMap<NamespacedName, Arc<[ServicePort]>>,
    claims: Claims,
    /// What each Service asks for and is not served at; Services that are served everywhere are not there.
    unserved: BTreeMap<NamespacedName, Box<[Claim]>>,
    /// Services of which `unserved` changed since it was last asked.
    unserved_changed: BTreeSet<NamespacedName>,
}

/// A Service that is to be served differently than before.
#[derive(Clone, Debug)]
pub struct ServiceChange {
    /// Its name.
    pub name: NamespacedName,
    /// How it was to be served; empty if not at all.
    pub before: Arc<[ServicePort]>,
    /// How it is to be served; empty if not at all.
    pub after: Arc<[ServicePort]>,
}

impl Desired {
    /// Nothing to serve, on the node of this name.
    pub fn new(node: Name) -> Self {
        Desired {
            node,
            zone: None,
            node_addresses: Box::default(),
            allowed: Allowed::default(),
            services: BTreeMap::new(),
            claims: Claims::default(),
            unserved: BTreeMap::new(),
            unserved_changed: BTreeSet::new(),
        }
    }

    /// The same, with external IPs and load balancer addresses restricted to these blocks; without any block, all
    /// addresses are allowed.
    #[must_use]
    pub fn with_external_cidrs(self, cidrs: &[IpNet]) -> Self {
        Desired { allowed: Allowed(cidrs.into()), ..self }
    }

    /// Everything that an index holds.
    pub fn from_index(index: &Index, node: Name) -> Self {
        Desired::new(node).with_index(index)
    }

    /// The same, brought up to date with everything that an index holds.
    #[must_use]
    pub fn with_index(mut self, index: &Index) -> Self {
        self.place(index);
        self.resolve_all(index, index.services().map(|service| service.key.clone()).collect());
        self
    }

    /// The node it is for.
    pub fn node(&self) -> Name {
        self.node
    }

    /// The zone of that node.
    pub fn zone(&self) -> Option<&'static str> {
        self.zone
    }

    /// All Services by name, with all their ports in both families. None is without ports.
    pub fn services(&self) -> &BTreeMap<NamespacedName, Arc<[ServicePort]>> {
        &self.services
    }

    /// All ports of all Services.
    pub fn ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.services.values().flat_map(|ports| ports.iter())
    }

    /// The frontends that a Service asks for and is not served at.
    pub fn unserved(&self, service: &NamespacedName) -> Vec<UnservedFrontend> {
        let claims = self.unserved.get(service).into_iter().flatten();
        let found = claims.map(|&(frontend, kind)| {
            let by = self.claims.shadowing(service, &frontend, kind, &self.node_addresses);
            let reason = match by {
                Some(by) if self.allowed.allows(&frontend, kind) => {
                    UnservedReason::Shadowed { by: by.clone() }
                }
                _ => UnservedReason::OutsideAllowedCidrs,
            };
            UnservedFrontend { frontend, kind, reason }
        });
        found.collect()
    }

    /// The Services that ask for a frontend at which they are not served.
    pub fn unserved_services(&self) -> impl Iterator<Item = &NamespacedName> {
        self.unserved.keys()
    }

    /// Takes the names of the Services for which [`Desired::unserved`] changed since the last call.
    pub fn take_unserved_changes(&mut self) -> BTreeSet<NamespacedName> {
        std::mem::take(&mut self.unserved_changed)
    }

    /// Resolves again what was touched, and says which Services are to be served differently.
    pub fn update(&mut self, index: &Index, touched: DirtyServices) -> Vec<ServiceChange> {
        let mut names = touched.services;
        if touched.nodes.contains(&self.node) && self.place(index) {
            // Hints, and external addresses that are addresses of this node, are judged again for every Service.
            names.extend(index.services().map(|s| s.key.clone()));
        }
        self.resolve_all(index, names)
    }

    /// Takes in where this node is. Says whether that changed.
    fn place(&mut self, index: &Index) -> bool {
        let node = index.node(self.node);
        let zone = node.and_then(|node| node.zone());
        let addresses: Box<[IpAddr]> = node.into_iter().flat_map(|node| node.ips()).collect();
        let is_new = zone != self.zone || addresses != self.node_addresses;
        (self.zone, self.node_addresses) = (zone, addresses);
        is_new
    }

    fn resolve_all(&mut self, index: &Index, mut names: BTreeSet<NamespacedName>) -> Vec<ServiceChange> {
        let mut reconsidered = Reconsidered::default();
        for name in &names {
            let after = index.service(name).into_iter().flat_map(|service| self.allowed.claims(service));
            let after = after.map(|(frontend, _)| frontend).collect();
            self.claims.replace(name, &self.claimed(name), &after, &mut reconsidered);
        }
        let rank = |name: &NamespacedName, frontend: &Frontend| {
            let service = index.service(name)?;
            let kind = service_port::kind_of_claim(service, frontend);
            let created = service.created.unwrap_or(i64::MAX);
            Some(Rank { kind, created, uid: service.uid.clone(), name: name.clone() })
        };
        names.extend(self.claims.decide(reconsidered, &self.node_addresses, rank));
        names.into_iter().filter_map(|name| self.resolve(index, name)).collect()
    }

    /// The frontends that a Service claimed when it was last resolved.
    fn claimed(&self, name: &NamespacedName) -> BTreeSet<Frontend> {
        let served = self.services.get(name).into_iter().flat_map(|ports| ports.iter());
        let unserved = self.unserved.get(name).into_iter().flatten();
        let unserved = unserved.filter(|(frontend, kind)| self.allowed.allows(frontend, *kind));
        served.flat_map(ServicePort::frontends).chain(unserved.map(|(frontend, _)| *frontend)).collect()
    }

    fn resolve(&mut self, index: &Index, name: NamespacedName) -> Option<ServiceChange> {
        let place = topology::Place { node: self.node, zone: self.zone };
        let mut unserved = Vec::new();
        let after: Arc<[ServicePort]> = match index.service(&name) {
            Some(service) => {
                let is_served = |frontend: &Frontend, kind: FrontendKind| {
                    self.allowed.allows(frontend, kind)
                        && self.claims.shadowing(&name, frontend, kind, &self.node_addresses).is_none()
                };
                let retain = |port: &mut ServicePort| port.retain_frontends(is_served, &mut unserved);
                service_port::resolve(service, index.slices_of(&name), place, retain).into()
            }
            None => Arc::default(),
        };
        self.set_unserved(&name, unserved);
        let before = self.services.get(&name).cloned().unwrap_or_default();
        if before == after {
            return None;
        }
        if after.is_empty() {
            self.services.remove(&name);
        } else {
            self.services.insert(name.clone(), Arc::clone(&after));
        }
        Some(ServiceChange { name, before, after })
    }

    fn set_unserved(&mut self, name: &NamespacedName, unserved: Vec<Claim>) {
        let before = self.unserved.get(name).map_or(&[][..], |claims| claims);
        if *before == unserved[..] {
            return;
        }
        self.unserved_changed.insert(name.clone());
        match unserved.is_empty() {
            true => self.unserved.remove(name),
            false => self.unserved.insert(name.clone(), unserved.into()),
        };
    }
}
