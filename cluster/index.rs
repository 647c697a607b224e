//! The index: slim copies of the cluster's objects, and what each event touched.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use jiff::Timestamp;

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

/// The cluster as last heard of.
#[derive(Default)]
pub struct Index {
    /// For the index of a daemon: the node that it serves.
    own_node: Option<OwnNode>,
    nodes: HashMap<Name, Node>,
    services: HashMap<NamespacedName, Service>,
    /// By Service, each slice by its name: a Service has few.
    slices: HashMap<NamespacedName, Vec<EndpointSlice>>,
    /// The Service that each slice was last filed under.
    slice_service: HashMap<NamespacedName, NamespacedName>,
    service_cidrs: HashMap<NamespacedName, ServiceCidr>,
    namespaces: HashMap<Name, Namespace>,
    pods: HashMap<NamespacedName, Pod>,
    policies: HashMap<NamespacedName, NetworkPolicy>,
    cluster_policies: HashMap<NamespacedName, ClusterNetworkPolicy>,
    /// For each kind being listed: what was applied since the list began.
    listing: HashMap<Kind, HashSet<NamespacedName>>,
    listed: HashSet<Kind>,
    dirty_services: DirtyServices,
    dirty_policy_objects: DirtyPolicyObjects,
    unreadable: UnreadableObjects,
}

/// What concerns policies and has changed since it was last taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirtyPolicyObjects {
    /// Pods, namespaces and policies that changed.
    pub objects: BTreeSet<ObjectKey>,
    /// Nodes that changed.
    pub nodes: BTreeSet<Name>,
}

impl DirtyPolicyObjects {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == DirtyPolicyObjects::default()
    }
}

/// What concerns Services and has changed since it was last taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirtyServices {
    /// Services of which the object or a slice changed.
    pub services: BTreeSet<NamespacedName>,
    /// Nodes that changed.
    pub nodes: BTreeSet<Name>,
    /// How many changes of Services there were.
    pub service_changes: usize,
    /// How many changes of EndpointSlices there were.
    pub slice_changes: usize,
    /// ServiceCIDRs changed.
    pub service_cidrs: bool,
    /// When the changes happened that slices reported.
    pub trigger_times: Vec<Timestamp>,
}

impl DirtyServices {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == DirtyServices::default()
    }

    /// Whether nothing has changed that concerns the Services served on a node: of the nodes only itself counts.
    pub fn is_empty_for(&self, node: Name) -> bool {
        let nothing = DirtyServices::default();
        !self.nodes.contains(&node) && DirtyServices { nodes: BTreeSet::new(), ..self.clone() } == nothing
    }
}

impl Index {
    /// An index of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// An index of nothing, for the daemon of a node. What was last known of that node's Node object is kept when the object
    /// is deleted.
    pub fn for_node(name: Name) -> Self {
        Index { own_node: Some(OwnNode::new(name)), ..Self::default() }
    }

    /// What this node's Node object lacks, and is kept as it was last known. `None` while the object is complete, and for
    /// one that was never known.
    pub fn own_node_missing(&self) -> Option<MissingNodeFacts> {
        self.own_node.map(|own| own.missing).filter(|missing| *missing != MissingNodeFacts::default())
    }

    /// Takes in one event. An object that is applied as it already stands touches nothing.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Applied(object) => {
                let key = object.key();
                if let Some(seen) = self.listing.get_mut(&key.kind) {
                    seen.insert(key.name.clone());
                }
                self.unreadable.remove(&key);
                self.apply(key, object);
            }
            Event::Unreadable(key) => {
                if let Some(seen) = self.listing.get_mut(&key.kind) {
                    seen.insert(key.name.clone());
                }
                if !self.has(&key) {
                    self.unreadable.add(key);
                }
            }
            Event::Deleted(key) => {
                if let Some(seen) = self.listing.get_mut(&key.kind) {
                    seen.remove(&key.name);
                }
                self.unreadable.remove(&key);
                self.delete(key);
            }
            Event::ListStarted(kind) => {
                self.listing.insert(kind, HashSet::new());
            }
            Event::Listed(kind) => {
                if let Some(seen) = self.listing.remove(&kind) {
                    self.sweep(kind, &seen);
                    self.unreadable.sweep(kind, &seen);
                }
                self.listed.insert(kind);
            }
        }
    }

    /// Whether a kind has been fully listed at least once.
    pub fn is_listed(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    /// Objects that exist, but could not be read even once.
    pub fn unreadable(&self) -> &UnreadableObjects {
        &self.unreadable
    }

    /// Whether some version of an object is known.
    fn has(&self, key: &ObjectKey) -> bool {
        let ObjectKey { kind, name } = key;
        match kind {
            Kind::Node => self.nodes.contains_key(&Name::new(&name.name)),
            Kind::Service => self.services.contains_key(name),
            // A slice that concerns no proxy is not kept, so the kind of its unreadable version is not known either.
            Kind::EndpointSlice => self.slice_service.contains_key(name),
            Kind::ServiceCidr => self.service_cidrs.contains_key(name),
            Kind::Namespace => self.namespaces.contains_key(&Name::new(&name.name)),
            Kind::Pod => self.pods.contains_key(name),
            Kind::NetworkPolicy => self.policies.contains_key(name),
            Kind::ClusterNetworkPolicy => self.cluster_policies.contains_key(name),
        }
    }

    /// Takes what concerns policies and has changed since the last call.
    pub fn take_dirty_policy_objects(&mut self) -> DirtyPolicyObjects {
        std::mem::take(&mut self.dirty_policy_objects)
    }

    /// What concerns policies and has changed since it was last taken.
    pub fn dirty_policy_objects(&self) -> &DirtyPolicyObjects {
        &self.dirty_policy_objects
    }

    /// Takes what concerns Services and has changed since the last call.
    pub fn take_dirty_services(&mut self) -> DirtyServices {
        std::mem::take(&mut self.dirty_services)
    }

    /// What concerns Services and has changed since it was last taken.
    pub fn dirty_services(&self) -> &DirtyServices {
        &self.dirty_services
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

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Node => self.nodes.len(),
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slice_service.len(),
            Kind::ServiceCidr => self.service_cidrs.len(),
            Kind::Namespace => self.namespaces.len(),
            Kind::Pod => self.pods.len(),
            Kind::NetworkPolicy => self.policies.len(),
            Kind::ClusterNetworkPolicy => self.cluster_policies.len(),
        }
    }

    fn apply(&mut self, key: ObjectKey, object: Object) {
        match object {
            Object::Node(node) => {
                let name = node.name;
                let own = self.own_node.as_mut().filter(|own| own.name == name);
                let node = match own.zip(self.nodes.get(&name)) {
                    Some((own, before)) => own.complete(node, before),
                    None => node,
                };
                if replace(&mut self.nodes, name, node) {
                    self.dirty_services.nodes.insert(name);
                    self.dirty_policy_objects.nodes.insert(name);
                }
            }
            Object::Service(service) => {
                if replace(&mut self.services, key.name.clone(), service) {
                    self.dirty_services.services.insert(key.name);
                    self.dirty_services.service_changes += 1;
                }
            }
            Object::EndpointSlice(slice) => self.apply_slice(slice),
            Object::ServiceCidr(cidr) => {
                self.dirty_services.service_cidrs |= replace(&mut self.service_cidrs, key.name, cidr);
            }
            Object::Namespace(namespace) => {
                if replace(&mut self.namespaces, namespace.name, namespace) {
                    self.dirty_policy_objects.objects.insert(key);
                }
            }
            Object::Pod(pod) => {
                if replace(&mut self.pods, key.name.clone(), pod) {
                    self.dirty_policy_objects.objects.insert(key);
                }
            }
            Object::NetworkPolicy(policy) => {
                if replace(&mut self.policies, key.name.clone(), policy) {
                    self.dirty_policy_objects.objects.insert(key);
                }
            }
            Object::ClusterNetworkPolicy(policy) => {
                if replace(&mut self.cluster_policies, key.name.clone(), policy) {
                    self.dirty_policy_objects.objects.insert(key);
                }
            }
        }
    }

    fn apply_slice(&mut self, slice: EndpointSlice) {
        let Some(service) = slice.service.clone() else {
            self.remove_slice(&slice.key);
            return;
        };
        if self.slice_service.get(&slice.key).is_some_and(|old| *old != service) {
            self.remove_slice(&slice.key);
        }
        self.slice_service.insert(slice.key.clone(), service.clone());
        let slices = self.slices.entry(service.clone()).or_default();
        match slices.binary_search_by(|s| s.key.cmp(&slice.key)) {
            Ok(at) if slices[at] == slice => return,
            Ok(at) => {
                if slices[at].trigger_time != slice.trigger_time {
                    self.dirty_services.trigger_times.extend(slice.trigger_time);
                }
                slices[at] = slice;
            }
            Err(at) => {
                self.dirty_services.trigger_times.extend(slice.trigger_time);
                slices.insert(at, slice);
            }
        }
        self.dirty_services.services.insert(service);
        self.dirty_services.slice_changes += 1;
    }

    fn remove_slice(&mut self, key: &NamespacedName) {
        let Some(service) = self.slice_service.remove(key) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.retain(|s| s.key != *key);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.dirty_services.services.insert(service);
        self.dirty_services.slice_changes += 1;
    }

    fn delete(&mut self, key: ObjectKey) {
        let word = Name::new(&key.name.name);
        let policy = match key.kind {
            Kind::Node if self.own_node.is_some_and(|own| own.name == word) => {
                // It stays as it was last known, so nothing changes.
                if let Some(own) = self.own_node.as_mut().filter(|_| self.nodes.contains_key(&word)) {
                    own.deleted();
                }
                false
            }
            Kind::Node => {
                if self.nodes.remove(&word).is_some() {
                    self.dirty_services.nodes.insert(word);
                    self.dirty_policy_objects.nodes.insert(word);
                }
                false
            }
            Kind::Service => {
                if self.services.remove(&key.name).is_some() {
                    self.dirty_services.services.insert(key.name.clone());
                    self.dirty_services.service_changes += 1;
                }
                false
            }
            Kind::EndpointSlice => {
                self.remove_slice(&key.name);
                false
            }
            Kind::ServiceCidr => {
                self.dirty_services.service_cidrs |= self.service_cidrs.remove(&key.name).is_some();
                false
            }
            Kind::Namespace => self.namespaces.remove(&word).is_some(),
            Kind::Pod => self.pods.remove(&key.name).is_some(),
            Kind::NetworkPolicy => self.policies.remove(&key.name).is_some(),
            Kind::ClusterNetworkPolicy => self.cluster_policies.remove(&key.name).is_some(),
        };
        if policy {
            self.dirty_policy_objects.objects.insert(key);
        }
    }

    /// Deletes what a full list did not name.
    fn sweep(&mut self, kind: Kind, seen: &HashSet<NamespacedName>) {
        let word = |name: Name| NamespacedName { namespace: Name::new(""), name: Arc::from(name.as_str()) };
        let all: Vec<NamespacedName> = match kind {
            Kind::Node => self.nodes.keys().copied().map(word).collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slice_service.keys().cloned().collect(),
            Kind::ServiceCidr => self.service_cidrs.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.keys().copied().map(word).collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::NetworkPolicy => self.policies.keys().cloned().collect(),
            Kind::ClusterNetworkPolicy => self.cluster_policies.keys().cloned().collect(),
        };
        for name in all.into_iter().filter(|name| !seen.contains(name)) {
            self.delete(ObjectKey { kind, name });
        }
    }
}

/// Files a value; says whether that changed anything.
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
            events.into_iter().for_each(|event| index.handle(event));
            let unread = index.unreadable();
            let found = [unread.may_concern_services(Name::new("n")), unread.may_concern_policies()];
            assert_eq!(found, expected, "{about}");
            assert_eq!(unread.is_empty(), expected == [false, false], "{about}");
        }
    }
}
