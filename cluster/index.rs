//! The index: slim copies of the cluster's objects.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use jiff::Timestamp;

use crate::change::{Change, SliceChange};
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

/// The objects of the cluster, updated by [`Event`]s.
#[derive(Default)]
pub struct Index {
    /// The node that a daemon serves; `None` for other uses of an index.
    own_node: Option<OwnNode>,
    nodes: HashMap<Name, Node>,
    services: HashMap<NamespacedName, Service>,
    /// The slices of each Service, ordered by name.
    slices: HashMap<NamespacedName, Vec<EndpointSlice>>,
    /// The Service of each slice.
    slice_service: HashMap<NamespacedName, NamespacedName>,
    service_cidrs: HashMap<NamespacedName, ServiceCidr>,
    namespaces: HashMap<Name, Namespace>,
    pods: HashMap<NamespacedName, Pod>,
    policies: HashMap<NamespacedName, NetworkPolicy>,
    cluster_policies: HashMap<NamespacedName, ClusterNetworkPolicy>,
    /// For each kind that is being listed: the objects of the list so far.
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
        self.own_node.map(|own| own.missing).filter(|missing| *missing != MissingNodeFacts::default())
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
                self.listing.insert(kind, HashSet::new());
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
        self.services.get(name)
    }

    /// All Services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The slices of a Service, by name.
    pub fn slices_of(&self, service: &NamespacedName) -> &[EndpointSlice] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
    }

    /// A node.
    pub fn node(&self, name: Name) -> Option<&Node> {
        self.nodes.get(&name)
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
    pub fn namespace(&self, name: Name) -> Option<&Namespace> {
        self.namespaces.get(&name)
    }

    /// All namespaces, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// A pod.
    pub fn pod(&self, name: &NamespacedName) -> Option<&Pod> {
        self.pods.get(name)
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
            Kind::EndpointSlice => &self.slice_service,
            Kind::ServiceCidr => &self.service_cidrs,
            Kind::Namespace => &self.namespaces,
            Kind::Pod => &self.pods,
            Kind::NetworkPolicy => &self.policies,
            Kind::ClusterNetworkPolicy => &self.cluster_policies,
        }
    }

    fn store_mut(&mut self, kind: Kind) -> &mut dyn Store {
        match kind {
            Kind::Node => &mut self.nodes,
            Kind::Service => &mut self.services,
            Kind::EndpointSlice => &mut self.slice_service,
            Kind::ServiceCidr => &mut self.service_cidrs,
            Kind::Namespace => &mut self.namespaces,
            Kind::Pod => &mut self.pods,
            Kind::NetworkPolicy => &mut self.policies,
            Kind::ClusterNetworkPolicy => &mut self.cluster_policies,
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
                replace(&mut self.nodes, node.name, node)
            }
            Object::Service(service) => replace(&mut self.services, name, service),
            Object::EndpointSlice(slice) => return self.apply_slice(slice),
            Object::ServiceCidr(cidr) => replace(&mut self.service_cidrs, name, cidr),
            Object::Namespace(namespace) => replace(&mut self.namespaces, namespace.name, namespace),
            Object::Pod(pod) => replace(&mut self.pods, name, pod),
            Object::NetworkPolicy(policy) => replace(&mut self.policies, name, policy),
            Object::ClusterNetworkPolicy(policy) => replace(&mut self.cluster_policies, name, policy),
        };
        has_changed.then(|| Change::new(key)).into_iter().collect()
    }

    fn apply_slice(&mut self, slice: EndpointSlice) -> Vec<Change> {
        let Some(service) = slice.service.clone() else {
            return self.remove_slice(slice.key).into_iter().collect();
        };
        let key = slice.key.clone();
        let has_moved = self.slice_service.get(&key).is_some_and(|old| *old != service);
        let removed = if has_moved { self.remove_slice(key.clone()) } else { None };
        self.slice_service.insert(key.clone(), service.clone());
        let slices = self.slices.entry(service.clone()).or_default();
        let mut trigger_time = slice.trigger_time;
        match slices.binary_search_by(|s| s.key.cmp(&key)) {
            Ok(at) if slices[at] == slice => return Vec::new(),
            Ok(at) => {
                trigger_time = trigger_time.filter(|_| slices[at].trigger_time != slice.trigger_time);
                slices[at] = slice;
            }
            Err(at) => slices.insert(at, slice),
        }
        let added = slice_change(key, service, trigger_time);
        removed.into_iter().chain([added]).collect()
    }

    fn remove_slice(&mut self, key: NamespacedName) -> Option<Change> {
        let service = self.slice_service.remove(&key)?;
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.retain(|s| s.key != key);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        Some(slice_change(key, service, None))
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
        if key.kind == Kind::EndpointSlice {
            return self.remove_slice(key.name);
        }
        self.store_mut(key.kind).remove(&key.name).then(|| Change::new(key))
    }

    /// Deletes the objects that a full list did not have.
    fn sweep(&mut self, kind: Kind, seen: &HashSet<NamespacedName>) -> Vec<Change> {
        let mut names = self.store(kind).names();
        names.retain(|name| !seen.contains(name));
        names.into_iter().filter_map(|name| self.delete(ObjectKey { kind, name })).collect()
    }
}

/// The objects of a kind, by name.
trait Store {
    fn contains(&self, name: &NamespacedName) -> bool;
    fn len(&self) -> usize;
    fn names(&self) -> Vec<NamespacedName>;
    /// Removes an object. Returns true if there was one.
    fn remove(&mut self, name: &NamespacedName) -> bool;
}

impl<V> Store for HashMap<NamespacedName, V> {
    fn contains(&self, name: &NamespacedName) -> bool {
        self.contains_key(name)
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn names(&self) -> Vec<NamespacedName> {
        self.keys().cloned().collect()
    }

    fn remove(&mut self, name: &NamespacedName) -> bool {
        self.remove(name).is_some()
    }
}

/// Of cluster-scoped objects.
impl<V> Store for HashMap<Name, V> {
    fn contains(&self, name: &NamespacedName) -> bool {
        self.contains_key(&Name::new(&name.name))
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn names(&self) -> Vec<NamespacedName> {
        self.keys().map(|name| NamespacedName::new("", name.as_str())).collect()
    }

    fn remove(&mut self, name: &NamespacedName) -> bool {
        self.remove(&Name::new(&name.name)).is_some()
    }
}

fn slice_change(name: NamespacedName, service: NamespacedName, trigger_time: Option<Timestamp>) -> Change {
    let key = ObjectKey { kind: Kind::EndpointSlice, name };
    Change { key, slice: Some(SliceChange { service, trigger_time }) }
}

/// Inserts a value. Returns true if it is new or differs from the old one.
fn replace<K: Hash + Eq, V: PartialEq>(map: &mut HashMap<K, V>, key: K, value: V) -> bool {
    match map.get_mut(&key) {
        Some(old) if *old == value => false,
        Some(old) => {
            *old = value;
            true
        }
        None => {
            map.insert(key, value);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_cannot_be_read_any_more_survives_a_full_list() {
        let mut index = Index::new();
        let parse = |name: &str| {
            let value =
                json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"clusterIP": "10.0.0.1"}});
            Object::parse(Kind::Service, value).expect("a Service").object
        };
        for name in ["kept", "gone"] {
            index.handle(Event::Applied(parse(name)));
        }
        let key = ObjectKey { kind: Kind::Service, name: NamespacedName::new("ns", "kept") };
        for event in
            [Event::ListStarted(Kind::Service), Event::Unreadable(key.clone()), Event::Listed(Kind::Service)]
        {
            index.handle(event);
        }
        assert!(index.service(&key.name).is_some());
        assert_eq!(index.count(Kind::Service), 1);
        assert!(index.unreadable().is_empty(), "its last good version counts");
    }

    #[test]
    fn an_object_is_unread_until_it_is_read_deleted_or_no_longer_listed() {
        let key = |kind, name: &str| ObjectKey { kind, name: NamespacedName::new("ns", name) };
        let service = || key(Kind::Service, "a");
        let readable = json!({"metadata": {"name": "a", "namespace": "ns"}});
        let applied = || Object::parse(Kind::Service, readable.clone()).expect("a Service").object;
        // What happens, and whether Services, and policies, may depend on what could not be read.
        let rows: [(&str, Vec<Event>, [bool; 2]); 9] = [
            ("nothing", vec![], [false, false]),
            ("unreadable", vec![Event::Unreadable(service())], [true, false]),
            ("then readable", vec![Event::Unreadable(service()), Event::Applied(applied())], [false, false]),
            ("then deleted", vec![Event::Unreadable(service()), Event::Deleted(service())], [false, false]),
            (
                "then not listed",
                vec![
                    Event::Unreadable(service()),
                    Event::ListStarted(Kind::Service),
                    Event::Listed(Kind::Service),
                ],
                [false, false],
            ),
            (
                "readable before",
                vec![Event::Applied(applied()), Event::Unreadable(service())],
                [false, false],
            ),
            ("a policy", vec![Event::Unreadable(key(Kind::NetworkPolicy, "p"))], [false, true]),
            ("a node of any name", vec![Event::Unreadable(ObjectKey::unnamed(Kind::Node))], [true, true]),
            (
                "which is repaired",
                vec![
                    Event::Unreadable(ObjectKey::unnamed(Kind::Node)),
                    Event::Deleted(ObjectKey::unnamed(Kind::Node)),
                ],
                [false, false],
            ),
        ];
        for (about, events, expected) in rows {
            let mut index = Index::new();
            events.into_iter().for_each(|event| _ = index.handle(event));
            let unread = index.unreadable();
            let found = [unread.may_concern_services(Name::new("n")), unread.may_concern_policies()];
            assert_eq!(found, expected, "{about}");
            assert_eq!(unread.is_empty(), expected == [false, false], "{about}");
        }
    }
}
