//! The index: slim copies of the cluster's objects.

mod object_set;
mod slice_store;
mod store;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::change::Change;
use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::endpoint_slice::EndpointSlice;
use crate::event::Event;
use crate::kind::Kind;
use crate::name::{Name, NamespacedName};
use crate::namespace::Namespace;
use crate::network_policy::NetworkPolicy;
use crate::node::Node;
use crate::object::{Object, ObjectKey};
use crate::own_node::{MissingNodeFacts, OwnNode};
use crate::pod::Pod;
use crate::service::Service;
use crate::service_cidr::ServiceCidr;
use crate::unreadable::UnreadableObjects;
use object_set::ObjectSet;
use slice_store::SliceStore;
use store::{Store, replace};

/// The objects of the cluster, updated by [`Event`]s.
#[derive(Clone, Default)]
pub struct Index {
    /// The node that a daemon serves; `None` for other uses of an index.
    own_node: Option<OwnNode>,
    nodes: HashMap<Name, Node>,
    /// Boxed, as a quarter to half of the places of a hash table are empty.
    services: HashMap<NamespacedName, Box<Service>>,
    slices: SliceStore,
    service_cidrs: HashMap<NamespacedName, ServiceCidr>,
    namespaces: HashMap<Name, Namespace>,
    pods: ObjectSet<Pod>,
    policies: HashMap<NamespacedName, NetworkPolicy>,
    cluster_policies: HashMap<NamespacedName, ClusterNetworkPolicy>,
    /// For each kind that is being listed and had objects before: the objects of the list so far.
    listing: HashMap<Kind, HashSet<NamespacedName>>,
    listed: HashSet<Kind>,
    unreadable: UnreadableObjects,
}

impl Index {
    /// Creates an empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty index for the daemon of a node. The last known Node object of that node is kept when it is deleted.
    pub fn for_node(name: Name) -> Self {
        Index { own_node: Some(OwnNode::new(name)), ..Self::default() }
    }

    /// Returns what this node's Node object lacks, of which the last known values are kept. `None` while the object is
    /// complete, and if it was never known.
    pub fn own_node_missing(&self) -> Option<MissingNodeFacts> {
        self.own_node
            .as_ref()
            .map(|own| own.missing)
            .filter(|missing| *missing != MissingNodeFacts::default())
    }

    /// Updates the index, and returns the objects that changed. Applying an equal object changes nothing.
    pub fn handle(&mut self, event: Event) -> Vec<Change> {
        match event {
            Event::Applied(object) => {
                let key = object.key();
                if let Some(seen) = self.listing.get_mut(&key.kind) {
                    seen.insert(key.name.clone());
                }
                self.unreadable.remove(&key);
                self.apply(key, object)
            }
            Event::Unreadable(key) => {
                if let Some(seen) = self.listing.get_mut(&key.kind) {
                    seen.insert(key.name.clone());
                }
                if !self.store(key.kind).contains(&key.name) {
                    self.unreadable.add(key);
                }
                Vec::new()
            }
            Event::Deleted(key) => {
                if let Some(seen) = self.listing.get_mut(&key.kind) {
                    seen.remove(&key.name);
                }
                self.unreadable.remove(&key);
                self.delete(key).into_iter().collect()
            }
            Event::ListStarted(kind) => {
                // Without older objects, the list can lack none.
                let has_objects =
                    self.store(kind).len() > 0 || self.unreadable.iter().any(|key| key.kind == kind);
                match has_objects {
                    true => self.listing.insert(kind, HashSet::new()),
                    false => self.listing.remove(&kind),
                };
                Vec::new()
            }
            Event::Listed(kind) => {
                self.listed.insert(kind);
                let Some(seen) = self.listing.remove(&kind) else { return Vec::new() };
                self.unreadable.sweep(kind, &seen);
                self.sweep(kind, &seen)
            }
        }
    }

    /// Returns true if a kind has been fully listed at least once.
    pub fn is_listed(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    /// Returns the objects of which no version could be read.
    pub fn unreadable(&self) -> &UnreadableObjects {
        &self.unreadable
    }

    /// A Service.
    pub fn service(&self, name: &NamespacedName) -> Option<&Service> {
        self.services.get(name).map(|service| &**service)
    }

    /// All Services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|service| &**service)
    }

    /// The slices of a Service, by name.
    pub fn slices_of(&self, service: &NamespacedName) -> &[EndpointSlice] {
        self.slices.of_service(service)
    }

    /// A node.
    pub fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All nodes, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All ServiceCIDRs, in no order.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &ServiceCidr> {
        self.service_cidrs.values()
    }

    /// A namespace.
    pub fn namespace(&self, name: &Name) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// All namespaces, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// A pod.
    pub fn pod(&self, name: &NamespacedName) -> Option<&Pod> {
        self.pods.get(name)
    }

    /// A pod, to share it. An index never changes an object: it replaces it.
    pub fn shared_pod(&self, name: &NamespacedName) -> Option<&Arc<Pod>> {
        self.pods.shared(name)
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// A NetworkPolicy.
    pub fn network_policy(&self, name: &NamespacedName) -> Option<&NetworkPolicy> {
        self.policies.get(name)
    }

    /// All NetworkPolicies, in no order.
    pub fn network_policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values()
    }

    /// A ClusterNetworkPolicy; its name is without a namespace.
    pub fn cluster_network_policy(&self, name: &NamespacedName) -> Option<&ClusterNetworkPolicy> {
        self.cluster_policies.get(name)
    }

    /// All ClusterNetworkPolicies, in no order.
    pub fn cluster_network_policies(&self) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.cluster_policies.values()
    }

    /// Returns the number of objects of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.store(kind).len()
    }

    /// Returns the objects of a kind. An EndpointSlice without a Service is not stored.
    fn store(&self, kind: Kind) -> &dyn Store {
        match kind {
            Kind::Node => &self.nodes,
            Kind::Service => &self.services,
            Kind::EndpointSlice => self.slices.names(),
            Kind::ServiceCidr => &self.service_cidrs,
            Kind::Namespace => &self.namespaces,
            Kind::Pod => &self.pods,
            Kind::NetworkPolicy => &self.policies,
            Kind::ClusterNetworkPolicy => &self.cluster_policies,
        }
    }

    fn apply(&mut self, key: ObjectKey, object: Object) -> Vec<Change> {
        let name = key.name.clone();
        let has_changed = match object {
            Object::Node(node) => {
                let own = self.own_node.as_mut().filter(|own| own.name == node.name);
                let node = match own.zip(self.nodes.get(&node.name)) {
                    Some((own, before)) => own.complete(node, before),
                    None => node,
                };
                replace(&mut self.nodes, node.name.clone(), node)
            }
            Object::Service(mut service) => {
                // One string for the name of a Service, however many objects have it.
                if let Some(known) = self.slices.service_name(&name) {
                    service.key = known.clone();
                }
                replace(&mut self.services, service.key.clone(), Box::new(service))
            }
            Object::EndpointSlice(mut slice) => {
                let known = slice.service.as_ref().and_then(|name| self.services.get(name));
                if let Some(service) = known {
                    slice.service = Some(service.key.clone());
                }
                return self.slices.apply(slice);
            }
            Object::ServiceCidr(cidr) => replace(&mut self.service_cidrs, name, cidr),
            Object::Namespace(namespace) => replace(&mut self.namespaces, namespace.name.clone(), namespace),
            Object::Pod(pod) => self.pods.replace(pod),
            Object::NetworkPolicy(policy) => replace(&mut self.policies, name, policy),
            Object::ClusterNetworkPolicy(policy) => replace(&mut self.cluster_policies, name, policy),
        };
        has_changed.then(|| Change::new(key)).into_iter().collect()
    }

    fn delete(&mut self, key: ObjectKey) -> Option<Change> {
        let is_own = |own: &&mut OwnNode| key.kind == Kind::Node && *key.name.name == *own.name.as_str();
        if let Some(own) = self.own_node.as_mut().filter(is_own) {
            // The last known object is kept.
            if self.nodes.contains_key(&own.name) {
                own.deleted();
            }
            return None;
        }
        let store: &mut dyn Store = match key.kind {
            Kind::EndpointSlice => return self.slices.remove(key.name),
            Kind::Node => &mut self.nodes,
            Kind::Service => &mut self.services,
            Kind::ServiceCidr => &mut self.service_cidrs,
            Kind::Namespace => &mut self.namespaces,
            Kind::Pod => &mut self.pods,
            Kind::NetworkPolicy => &mut self.policies,
            Kind::ClusterNetworkPolicy => &mut self.cluster_policies,
        };
        store.remove(&key.name).then(|| Change::new(key))
    }

    /// Deletes the objects that a full list did not have.
    fn sweep(&mut self, kind: Kind, seen: &HashSet<NamespacedName>) -> Vec<Change> {
        let mut names = self.store(kind).names();
        names.retain(|name| !seen.contains(name));
        names.into_iter().filter_map(|name| self.delete(ObjectKey { kind, name })).collect()
    }
}

#[cfg(test)]
mod tests;
