//! Index of pod and node addresses.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use portcullis_cluster::labels::Labels;
use portcullis_cluster::namespace::NAMESPACE_NAME_LABEL;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Index, Name, NamespacedName, sparse};

use super::few::Few;
use super::live_pods::LivePods;

/// Returns the labels of a namespace. An unknown namespace has the label that every namespace has, so that pods in a
/// folder of manifests need no Namespace object.
pub(super) fn namespace_labels<'a>(index: &'a Index, name: &Name) -> Cow<'a, Labels> {
    match index.namespace(name) {
        Some(namespace) => Cow::Borrowed(&namespace.labels),
        None => {
            let label = (NAMESPACE_NAME_LABEL.to_owned(), name.as_str().to_owned());
            Cow::Owned(Labels::from(BTreeMap::from([label])))
        }
    }
}

/// Returns true if a pod has addresses of its own: it has not finished and is not on the host network.
pub(super) fn is_live(pod: &Pod) -> bool {
    !pod.host_network && !pod.is_finished && !pod.ips.is_empty()
}

/// Addresses whose owner or whose owner's labels may have changed, with the namespaces of the pods that have or had
/// them.
#[derive(Default)]
pub(super) struct DirtyAddresses(BTreeMap<IpAddr, Option<Few<Name>>>);

impl DirtyAddresses {
    fn add<'a>(&mut self, address: IpAddr, namespaces: impl IntoIterator<Item = &'a Name>) {
        let known = self.0.entry(address).or_default();
        for namespace in namespaces {
            match known {
                Some(known) if known.as_slice().contains(namespace) => {}
                Some(known) => known.push(namespace.clone()),
                None => *known = Some(Few::One(namespace.clone())),
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &[Name])> {
        self.0
            .iter()
            .map(|(address, namespaces)| (*address, namespaces.as_ref().map_or(&[][..], Few::as_slice)))
    }
}

/// Addresses of all pods and nodes.
#[derive(Default)]
pub(super) struct AddressIndex {
    pods: LivePods,
    nodes: AddressMap<Name>,
    /// The network addresses of pod CIDRs are addresses of their nodes.
    has_overlay: bool,
}

impl AddressIndex {
    /// Updates the addresses of a pod from the index.
    pub(super) fn update_pod(&mut self, index: &Index, key: &NamespacedName, dirty: &mut DirtyAddresses) {
        let addresses = match index.shared_pod(key).filter(|pod| is_live(pod)) {
            Some(pod) => self.pods.insert(pod),
            None => self.pods.remove(key),
        };
        for address in addresses {
            let owners = self.pods.at(address).iter().map(|pod| &pod.key.namespace);
            dirty.add(address, owners.chain([&key.namespace]));
        }
    }

    /// Marks the addresses of a namespace's pods dirty, as its labels have changed.
    pub(super) fn update_namespace(&mut self, namespace: &Name, dirty: &mut DirtyAddresses) {
        for pod in self.pods_of(namespace) {
            pod.ips.iter().for_each(|address| dirty.add(*address, [namespace]));
        }
    }

    /// Sets whether nodes have addresses in an overlay. To be called before the first update.
    pub(super) fn set_has_overlay(&mut self, has_overlay: bool) {
        self.has_overlay = has_overlay;
    }

    /// Updates the addresses of a node from the index.
    pub(super) fn update_node(&mut self, index: &Index, node: &Name, dirty: &mut DirtyAddresses) {
        let object = index.node(node);
        let mut addresses: Vec<IpAddr> = object.into_iter().flat_map(|node| node.ips()).collect();
        if self.has_overlay {
            let cidrs = object.into_iter().flat_map(|node| node.pod_cidrs.iter());
            addresses.extend(cidrs.map(|cidr| cidr.network()));
        }
        for address in self.nodes.replace(node, &addresses) {
            dirty.add(address, self.pods.at(address).iter().map(|pod| &pod.key.namespace));
        }
    }

    /// Returns all namespaces with live pods.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Name> {
        self.pods.namespaces()
    }

    /// Returns the live pods of a namespace.
    pub(super) fn pods_of(&self, namespace: &Name) -> impl Iterator<Item = &Pod> {
        self.pods.of_namespace(namespace)
    }

    /// Returns the live pods of a namespace, grouped by labels.
    pub(super) fn by_labels(&self, namespace: &Name) -> HashMap<&Labels, Vec<&Pod>> {
        self.pods.by_labels(namespace)
    }

    /// Returns the pod that owns an address, among those that satisfy `counts`: one that is not terminating, then the
    /// youngest, then the last by name.
    pub(super) fn owner(&self, address: IpAddr, counts: impl Fn(&Pod) -> bool) -> Option<&Pod> {
        let pods = self.pods.at(address).iter().map(|pod| &**pod).filter(|pod| counts(pod));
        pods.max_by_key(|pod| (!pod.is_terminating, pod.created, &pod.key))
    }

    /// Returns the addresses that a live pod owns.
    pub(super) fn owned_by<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
        pod.ips.iter().copied().filter(move |address| {
            self.pods.at(*address).len() == 1
                || self.owner(*address, |_| true).is_some_and(|owner| owner.key == pod.key)
        })
    }

    /// Returns the nodes that have an address.
    pub(super) fn nodes_at(&self, address: IpAddr) -> &[Name] {
        self.nodes.at(address)
    }

    /// Returns the addresses of a node, sorted.
    pub(super) fn of_node(&self, node: &Name) -> &[IpAddr] {
        self.nodes.of(node)
    }

    /// Returns all nodes with addresses.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.nodes.of.keys()
    }
}

/// Map between objects and their addresses. Several objects may have one address.
struct AddressMap<K> {
    of: HashMap<K, Box<[IpAddr]>>,
    at: HashMap<IpAddr, Vec<K>>,
}

impl<K> Default for AddressMap<K> {
    fn default() -> Self {
        AddressMap { of: HashMap::new(), at: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> AddressMap<K> {
    fn of(&self, key: &K) -> &[IpAddr] {
        self.of.get(key).map_or(&[], |addresses| addresses)
    }

    fn at(&self, address: IpAddr) -> &[K] {
        self.at.get(&address).map_or(&[], |keys| keys)
    }

    /// Replaces the addresses of an object. Returns its old and new addresses.
    fn replace(&mut self, key: &K, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut after = addresses.to_vec();
        after.sort_unstable();
        after.dedup();
        let before = sparse::remove(&mut self.of, key).unwrap_or_default();
        for address in before.iter().filter(|address| !after.contains(address)) {
            if let Some(keys) = self.at.get_mut(address) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    sparse::remove(&mut self.at, address);
                }
            }
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            match self.at.get_mut(address) {
                Some(keys) => keys.push(key.clone()),
                None => {
                    self.at.insert(*address, vec![key.clone()]);
                }
            }
        }
        let mut all = before.into_vec();
        all.retain(|address| !after.contains(address));
        all.extend(&after);
        if !after.is_empty() {
            self.of.insert(key.clone(), after.into());
        }
        all
    }
}
