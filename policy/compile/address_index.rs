//! Who has which address: pods and nodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use portcullis_cluster::labels::Labels;
use portcullis_cluster::namespace::NAMESPACE_NAME_LABEL;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Index, Name, NamespacedName};

use super::pods_by_labels::PodsByLabels;

/// The labels of a namespace. One that is not known has the one that every namespace has, so that pods in a
/// folder of manifests need no Namespace.
pub(super) fn namespace_labels(index: &Index, name: Name) -> Cow<'_, Labels> {
    match index.namespace(name) {
        Some(namespace) => Cow::Borrowed(&namespace.labels),
        None => {
            let label = (NAMESPACE_NAME_LABEL.to_owned(), name.as_str().to_owned());
            Cow::Owned(Labels::from(BTreeMap::from([label])))
        }
    }
}

/// Whether a pod has addresses that are its own.
pub(super) fn is_live(pod: &Pod) -> bool {
    !pod.host_network && !pod.is_finished && !pod.ips.is_empty()
}

/// AddressIndex whose owner may be another than before, or may have other labels, each with the namespaces of
/// the pods that had and have it.
#[derive(Default)]
pub(super) struct DirtyAddresses(BTreeMap<IpAddr, Vec<Name>>);

impl DirtyAddresses {
    fn add(&mut self, address: IpAddr, namespaces: impl IntoIterator<Item = Name>) {
        let known = self.0.entry(address).or_default();
        for namespace in namespaces {
            if !known.contains(&namespace) {
                known.push(namespace);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &[Name])> {
        self.0.iter().map(|(address, namespaces)| (*address, namespaces.as_slice()))
    }
}

/// The addresses of all pods and nodes.
#[derive(Default)]
pub(super) struct AddressIndex {
    pods: AddressMap<NamespacedName>,
    of_namespace: HashMap<Name, PodsByLabels>,
    nodes: AddressMap<Name>,
}

impl AddressIndex {
    /// Takes over what the index says of a pod.
    pub(super) fn follow_pod(&mut self, index: &Index, key: &NamespacedName, dirty: &mut DirtyAddresses) {
        let addresses = match index.pod(key).filter(|pod| is_live(pod)) {
            Some(pod) => {
                self.of_namespace.entry(key.namespace).or_default().insert(key, &pod.labels);
                &*pod.ips
            }
            None => {
                if let Some(pods) = self.of_namespace.get_mut(&key.namespace) {
                    pods.remove(key);
                    if pods.is_empty() {
                        self.of_namespace.remove(&key.namespace);
                    }
                }
                &[]
            }
        };
        for address in self.pods.replace(key, addresses) {
            let others = self.pods.at(address).iter().map(|pod| pod.namespace);
            dirty.add(address, others.chain([key.namespace]));
        }
    }

    /// Takes over that a namespace has other labels.
    pub(super) fn follow_namespace(&mut self, namespace: Name, dirty: &mut DirtyAddresses) {
        for pod in self.pods_of(namespace) {
            self.pods.of(pod).iter().for_each(|address| dirty.add(*address, [namespace]));
        }
    }

    /// Takes over what the index says of a node.
    pub(super) fn follow_node(&mut self, index: &Index, node: Name, dirty: &mut DirtyAddresses) {
        let addresses: Vec<IpAddr> = index.node(node).into_iter().flat_map(|node| node.ips()).collect();
        for address in self.nodes.replace(&node, &addresses) {
            dirty.add(address, self.pods.at(address).iter().map(|pod| pod.namespace));
        }
    }

    /// All namespaces with live pods.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = Name> + '_ {
        self.of_namespace.keys().copied()
    }

    /// The live pods of a namespace.
    pub(super) fn pods_of(&self, namespace: Name) -> impl Iterator<Item = &NamespacedName> {
        self.of_namespace.get(&namespace).into_iter().flat_map(PodsByLabels::pods)
    }

    /// The live pods of a namespace, those with equal labels together.
    pub(super) fn by_labels(
        &self,
        namespace: Name,
    ) -> impl Iterator<Item = (&Labels, &HashSet<NamespacedName>)> {
        self.of_namespace.get(&namespace).into_iter().flat_map(PodsByLabels::by_labels)
    }

    /// The pod that has an address, among those that a condition lets through: one that is not being
    /// terminated; else the one created last; else the last by name.
    pub(super) fn owner<'a>(
        &'a self,
        index: &'a Index,
        address: IpAddr,
        counts: impl Fn(&Pod) -> bool,
    ) -> Option<&'a Pod> {
        let pods = self.pods.at(address).iter().filter_map(|key| index.pod(key)).filter(|pod| counts(pod));
        pods.max_by(|a, b| {
            let rank = |pod: &'a Pod| (!pod.is_terminating, pod.created, &pod.key);
            rank(a).cmp(&rank(b))
        })
    }

    /// The addresses that a live pod has and no other.
    pub(super) fn owned_by<'a>(
        &'a self,
        index: &'a Index,
        pod: &'a Pod,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        self.pods.of(&pod.key).iter().copied().filter(move |address| {
            self.pods.at(*address).len() == 1
                || self.owner(index, *address, |_| true).is_some_and(|owner| owner.key == pod.key)
        })
    }

    /// The nodes that have an address.
    pub(super) fn nodes_at(&self, address: IpAddr) -> &[Name] {
        self.nodes.at(address)
    }

    /// The addresses of a node, sorted.
    pub(super) fn of_node(&self, node: Name) -> &[IpAddr] {
        self.nodes.of(&node)
    }

    /// All nodes that have an address.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Name> + '_ {
        self.nodes.of.keys().copied()
    }
}

/// AddressIndex, and who claims them.
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

    /// Replaces the addresses of one; those it had and those it has now.
    fn replace(&mut self, key: &K, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut after = addresses.to_vec();
        after.sort_unstable();
        after.dedup();
        let before = self.of.remove(key).unwrap_or_default();
        for address in before.iter().filter(|address| !after.contains(address)) {
            if let Some(keys) = self.at.get_mut(address) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.at.remove(address);
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
