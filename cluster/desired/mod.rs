//! Desired: what this node must serve, resolved once for all modes.
//!
//! For each Service its ports, and for each port and address family the virtual addresses and the
//! endpoints that take cluster traffic and local traffic from this node. No mode reads a Kubernetes
//! object.

mod endpoints;
mod service_port;
mod topology;

pub use endpoints::{Endpoint, Endpoints};
pub use service_port::{ServicePort, ServicePortName};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::index::{Index, Touched};
use crate::name::{Name, NamespacedName};

/// All that this node must serve.
pub struct Desired {
    node: Name,
    zone: Option<&'static str>,
    services: BTreeMap<NamespacedName, Arc<[ServicePort]>>,
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
        Desired { node, zone: None, services: BTreeMap::new() }
    }

    /// Everything that an index holds.
    pub fn of(index: &Index, node: Name) -> Self {
        let mut desired = Desired::new(node);
        desired.zone = desired.zone_in(index);
        let names: Vec<NamespacedName> = index.services().map(|s| s.key.clone()).collect();
        for name in names {
            desired.resolve(index, name);
        }
        desired
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

    /// Resolves again what was touched, and says which Services are to be served differently.
    pub fn update(&mut self, index: &Index, touched: Touched) -> Vec<ServiceChange> {
        let zone = self.zone_in(index);
        if touched.nodes.contains(&self.node) && zone != self.zone {
            // Hints are judged anew for every Service.
            self.zone = zone;
            let mut names = touched.services;
            names.extend(index.services().map(|s| s.key.clone()));
            return names.into_iter().filter_map(|name| self.resolve(index, name)).collect();
        }
        touched.services.into_iter().filter_map(|name| self.resolve(index, name)).collect()
    }

    fn zone_in(&self, index: &Index) -> Option<&'static str> {
        index.node(self.node).and_then(|n| n.zone())
    }

    fn resolve(&mut self, index: &Index, name: NamespacedName) -> Option<ServiceChange> {
        let place = topology::Place { node: self.node, zone: self.zone };
        let after: Arc<[ServicePort]> = match index.service(&name) {
            Some(service) => service_port::resolve(service, index.slices_of(&name), place).into(),
            None => Arc::default(),
        };
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
}
