//! The desired state of this node: the Services that it must serve, resolved once for all modes.
//!
//! For each Service its ports in each IP family, with their frontends and the endpoints for each traffic policy. No mode reads
//! a Kubernetes object.

mod conflicts;
mod dirty_services;
mod endpoints;
mod frontend;
mod frontend_address;
mod listed_endpoint;
mod mode_capabilities;
mod service_port;
mod service_size;
mod serving_endpoints;
mod topology;

pub use conflicts::{UnservedFrontend, UnservedReason};
pub use dirty_services::{DirtyServices, MAX_TRIGGER_TIMES};
pub use endpoints::{Endpoint, Endpoints};
pub use frontend::{
    AllowedSources, ClusterIpMasquerade, Frontend, MasqueradeReason, Rejection, Route, RoutingContext,
    SourceClass,
};
pub use frontend_address::{FrontendAddress, FrontendKind};
pub use listed_endpoint::{ListedEndpoint, list_endpoints};
pub use mode_capabilities::ModeCapabilities;
pub use service_port::{ServicePort, ServicePortName};
pub use service_size::{MAX_ENTRIES, MAX_FRONTENDS, ServiceSize, entries};
pub use serving_endpoints::ServingEndpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::index::Index;
use crate::name::{Name, NamespacedName};
use conflicts::{AffectedFrontends, Claims, Rank};
use service_port::{AllowedExternalCidrs, Claim};

/// The Services that this node must serve.
pub struct Desired {
    node: Name,
    zone: Option<Name>,
    /// The addresses of this node in its Node object.
    node_addresses: Box<[IpAddr]>,
    allowed: AllowedExternalCidrs,
    services: BTreeMap<NamespacedName, Arc<[ServicePort]>>,
    claims: Claims,
    /// The frontends of each Service at which it is not served; without Services that are served at all their frontends.
    unserved: BTreeMap<NamespacedName, Box<[Claim]>>,
    /// The Services whose `unserved` frontends changed since the changes were last taken.
    unserved_changed: BTreeSet<NamespacedName>,
    /// The Services above a limit, with their size. `services` has their last version within the limits, if any.
    oversized: BTreeMap<NamespacedName, ServiceSize>,
}

/// A Service whose desired state changed.
#[derive(Clone, Debug)]
pub struct ServiceChange {
    /// Its name.
    pub name: NamespacedName,
    /// Its ports before; empty if it was not served.
    pub before: Arc<[ServicePort]>,
    /// Its ports now; empty if it is not served.
    pub after: Arc<[ServicePort]>,
}

impl Desired {
    /// Returns the desired state of a node, without Services.
    pub fn new(node: Name) -> Self {
        Desired {
            node,
            zone: None,
            node_addresses: Box::default(),
            allowed: AllowedExternalCidrs::default(),
            services: BTreeMap::new(),
            claims: Claims::default(),
            unserved: BTreeMap::new(),
            unserved_changed: BTreeSet::new(),
            oversized: BTreeMap::new(),
        }
    }

    /// Restricts external IPs and load balancer addresses to these blocks; without any block, all addresses are allowed.
    #[must_use]
    pub fn with_external_cidrs(self, cidrs: &[IpNet]) -> Self {
        Desired { allowed: AllowedExternalCidrs(cidrs.into()), ..self }
    }

    /// Returns the desired state of a node for an index.
    pub fn from_index(index: &Index, node: Name) -> Self {
        Desired::new(node).with_index(index)
    }

    /// Adds all Services of an index.
    #[must_use]
    pub fn with_index(mut self, index: &Index) -> Self {
        self.update_node(index);
        self.resolve_all(index, index.services().map(|service| service.key.clone()).collect());
        self
    }

    /// Returns the name of the node.
    pub fn node(&self) -> &Name {
        &self.node
    }

    /// Returns the zone of the node.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_ref().map(Name::as_str)
    }

    /// Returns all Services by name, with their ports in both families. Services without ports are omitted.
    pub fn services(&self) -> &BTreeMap<NamespacedName, Arc<[ServicePort]>> {
        &self.services
    }

    /// Returns all ports of all Services.
    pub fn ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.services.values().flat_map(|ports| ports.iter())
    }

    /// Returns the frontends that a Service claims and at which it is not served.
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

    /// Returns the Service that is served at a frontend.
    pub fn served_at(&self, frontend: &FrontendAddress) -> Option<&NamespacedName> {
        self.claims.served(frontend)
    }

    /// Returns the Services that claim a frontend at which they are not served.
    pub fn unserved_services(&self) -> impl Iterator<Item = &NamespacedName> {
        self.unserved.keys()
    }

    /// Returns the Services above [`MAX_FRONTENDS`] or [`MAX_ENTRIES`], with their size. Each keeps its last version within the
    /// limits, and is not served without one.
    pub fn oversized(&self) -> &BTreeMap<NamespacedName, ServiceSize> {
        &self.oversized
    }

    /// Returns the number of Services with ports, also of those that are too large and were never served.
    pub fn service_count(&self) -> usize {
        let never_served = self.oversized.keys().filter(|service| !self.services.contains_key(*service));
        self.services.len() + never_served.count()
    }

    /// Takes the names of the Services whose [`Desired::unserved`] frontends changed since the last call.
    pub fn take_unserved_changes(&mut self) -> BTreeSet<NamespacedName> {
        std::mem::take(&mut self.unserved_changed)
    }

    /// Resolves the dirty Services again, and returns those whose desired state changed.
    pub fn update(&mut self, index: &Index, dirty: DirtyServices) -> Vec<ServiceChange> {
        let mut names = dirty.services;
        if dirty.nodes.contains(&self.node) && self.update_node(index) {
            // Topology hints, and conflicts of external addresses with node ports, depend on the node.
            names.extend(index.services().map(|s| s.key.clone()));
        }
        self.resolve_all(index, names)
    }

    /// Updates the node's zone and addresses. Returns true if they changed.
    fn update_node(&mut self, index: &Index) -> bool {
        let node = index.node(&self.node);
        let zone = node.and_then(|node| node.zone()).cloned();
        let addresses: Box<[IpAddr]> = node.into_iter().flat_map(|node| node.ips()).collect();
        let has_changed = zone != self.zone || addresses != self.node_addresses;
        (self.zone, self.node_addresses) = (zone, addresses);
        has_changed
    }

    fn resolve_all(&mut self, index: &Index, mut names: BTreeSet<NamespacedName>) -> Vec<ServiceChange> {
        names.retain(|name| !self.update_oversized(index, name));
        let mut affected = AffectedFrontends::default();
        for name in &names {
            let after = index.service(name).into_iter().flat_map(|service| self.allowed.claims(service));
            let after = after.map(|(frontend, _)| frontend).collect();
            self.claims.replace(name, &self.claimed(name), &after, &mut affected);
        }
        let rank = |name: &NamespacedName, frontend: &FrontendAddress| {
            let service = index.service(name)?;
            let kind = service_port::kind_of_claim(service, frontend);
            let created = service.created.unwrap_or(i64::MAX);
            Some(Rank { kind, created, uid: service.uid.clone(), name: name.clone() })
        };
        names.extend(self.claims.resolve(affected, &self.node_addresses, rank));
        let mut changes = Vec::with_capacity(names.len());
        changes.extend(names.into_iter().filter_map(|name| self.resolve(index, name)));
        changes
    }

    /// Returns true if a Service exceeds a limit now, and records that.
    fn update_oversized(&mut self, index: &Index, name: &NamespacedName) -> bool {
        let size = index.service(name).map(|service| ServiceSize::new(service, index.slices_of(name)));
        match size.filter(|size| size.exceeds_limits()) {
            Some(size) => _ = self.oversized.insert(name.clone(), size),
            None => _ = self.oversized.remove(name),
        }
        self.oversized.contains_key(name)
    }

    /// Returns the frontends that a Service claimed when it was last resolved.
    fn claimed(&self, name: &NamespacedName) -> BTreeSet<FrontendAddress> {
        let served = self.services.get(name).into_iter().flat_map(|ports| ports.iter());
        let unserved = self.unserved.get(name).into_iter().flatten();
        let unserved = unserved.filter(|(frontend, kind)| self.allowed.allows(frontend, *kind));
        let served = served.flat_map(ServicePort::frontends).map(|frontend| frontend.address);
        served.chain(unserved.map(|(frontend, _)| *frontend)).collect()
    }

    fn resolve(&mut self, index: &Index, name: NamespacedName) -> Option<ServiceChange> {
        let node = topology::NodeTopology { name: &self.node, zone: self.zone.as_ref() };
        let mut unserved = Vec::new();
        let is_served = |frontend: &FrontendAddress, kind: FrontendKind| {
            self.allowed.allows(frontend, kind)
                && self.claims.shadowing(&name, frontend, kind, &self.node_addresses).is_none()
        };
        let mut retain = |port: &mut ServicePort| port.retain_frontends(is_served, &mut unserved);
        let after: Arc<[ServicePort]> = match index.service(&name) {
            // Its last version can only lose frontends to other Services.
            Some(_) if self.oversized.contains_key(&name) => {
                let mut kept = self.services.get(&name).map_or_else(Vec::new, |ports| ports.to_vec());
                kept.iter_mut().for_each(&mut retain);
                kept.retain(ServicePort::has_frontend);
                unserved.extend(self.unserved.get(&name).into_iter().flatten());
                kept.into()
            }
            Some(service) => service_port::resolve(service, index.slices_of(&name), node, retain).into(),
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
