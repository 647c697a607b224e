//! Members of peer sets and of sets of named ports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use portcullis_cluster::label_selector::LabelSelector;
use portcullis_cluster::labels::Labels;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Index, Name, sparse};

use super::address_index::{AddressIndex, DirtyAddresses, namespace_labels};
use super::named_port::NamedPortId;
use super::peer_set::{NamespaceScope, PeerSelector, PeerSetId};
use super::selectors_by_label::SelectorsByLabel;

/// Index of peer sets by the objects that can change their members.
#[derive(Default)]
pub(super) struct PeerSetIndex {
    /// Sets with pods of one namespace, whatever its labels.
    of_namespace: HashMap<Name, BTreeSet<PeerSetId>>,
    /// Sets with pods of namespaces that a selector matches.
    of_any_namespace: BTreeSet<PeerSetId>,
    /// Sets with nodes.
    of_nodes: BTreeSet<PeerSetId>,
}

impl PeerSetIndex {
    pub(super) fn insert(&mut self, id: &PeerSetId) {
        for selector in id.selectors() {
            match selector {
                PeerSelector::Pods { namespaces: NamespaceScope::One(name), .. } => {
                    self.of_namespace.entry(name.clone()).or_default().insert(id.clone())
                }
                PeerSelector::Pods { .. } => self.of_any_namespace.insert(id.clone()),
                PeerSelector::Nodes(_) => self.of_nodes.insert(id.clone()),
            };
        }
    }

    pub(super) fn remove(&mut self, id: &PeerSetId) {
        for selector in id.selectors() {
            match selector {
                PeerSelector::Pods { namespaces: NamespaceScope::One(name), .. } => {
                    if let Some(sets) = self.of_namespace.get_mut(name) {
                        sets.remove(id);
                        if sets.is_empty() {
                            sparse::remove(&mut self.of_namespace, name);
                        }
                    }
                }
                PeerSelector::Pods { .. } => {
                    self.of_any_namespace.remove(id);
                }
                PeerSelector::Nodes(_) => {
                    self.of_nodes.remove(id);
                }
            }
        }
    }

    /// Returns the sets that can contain pods of a namespace.
    fn by_namespace(&self, namespace: &Name) -> impl Iterator<Item = &PeerSetId> {
        self.of_namespace.get(namespace).into_iter().flatten().chain(&self.of_any_namespace)
    }

    /// Returns the sets that can contain an address, given the namespaces of the pods that have or had it. A set may be
    /// returned more than once.
    fn by_address<'a>(&'a self, namespaces: &'a [Name]) -> impl Iterator<Item = &'a PeerSetId> {
        let own = namespaces.iter().filter_map(|name| self.of_namespace.get(name)).flatten();
        own.chain(&self.of_any_namespace).chain(&self.of_nodes)
    }
}

/// Added and removed elements of each set.
pub(super) type MemberChanges<Id, Element> = BTreeMap<Id, (Vec<Element>, Vec<Element>)>;

/// Updates existing peer sets for dirty addresses.
pub(super) fn update_peer_sets(
    index: &Index,
    addresses: &AddressIndex,
    peer_set_index: &PeerSetIndex,
    dirty: &DirtyAddresses,
    sets: &mut BTreeMap<PeerSetId, BTreeSet<IpAddr>>,
) -> MemberChanges<PeerSetId, IpAddr> {
    let mut moves = MemberChanges::new();
    if sets.is_empty() {
        return moves;
    }
    for (address, namespaces) in dirty.iter() {
        let owner = addresses.owner(address, |_| true);
        let labels = owner.map(|pod| namespace_labels(index, &pod.key.namespace));
        let pod = owner.zip(labels.as_deref());
        let nodes = addresses.nodes_at(address);
        for id in peer_set_index.by_address(namespaces) {
            let Some(members) = sets.get_mut(id) else { continue };
            let found = id.selectors().iter().any(|selector| match selector {
                PeerSelector::Nodes(selector) => nodes.iter().any(|node| is_node(index, node, selector)),
                PeerSelector::Pods { namespaces, pods } => {
                    pod.is_some_and(|(pod, labels)| is_pod(pod, labels, namespaces, pods))
                }
            });
            let (added, removed) = match found {
                true if members.insert(address) => (Some(address), None),
                false if members.remove(&address) => (None, Some(address)),
                _ => continue,
            };
            let (all_added, all_removed) = moves.entry(id.clone()).or_default();
            all_added.extend(added);
            all_removed.extend(removed);
        }
    }
    moves
}

fn is_node(index: &Index, node: &Name, selector: &LabelSelector) -> bool {
    index.node(node).is_some_and(|node| selector.matches(&node.labels))
}

fn is_pod(pod: &Pod, labels: &Labels, namespaces: &NamespaceScope, pods: &LabelSelector) -> bool {
    is_namespace(&pod.key.namespace, labels, namespaces) && pods.matches(&pod.labels)
}

fn is_namespace(name: &Name, labels: &Labels, namespaces: &NamespaceScope) -> bool {
    match namespaces {
        NamespaceScope::One(one) => one == name,
        NamespaceScope::Selected(selector) => selector.matches(labels),
    }
}

/// Returns the members of new peer sets. Each selector is evaluated once for all pods of a namespace with the same
/// labels.
pub(super) fn collect_peer_sets(
    index: &Index,
    addresses: &AddressIndex,
    new: &[PeerSetId],
) -> BTreeMap<PeerSetId, BTreeSet<IpAddr>> {
    let mut peer_set_index = PeerSetIndex::default();
    new.iter().for_each(|id| peer_set_index.insert(id));
    let mut found: BTreeMap<&PeerSetId, Vec<IpAddr>> = new.iter().map(|id| (id, Vec::new())).collect();
    let namespaces: Vec<&Name> = match peer_set_index.of_any_namespace.is_empty() {
        true => peer_set_index.of_namespace.keys().collect(),
        false => addresses.namespaces().collect(),
    };
    for namespace in namespaces {
        let labels = namespace_labels(index, namespace);
        // The selectors that a pod of this namespace must match.
        let labels = &*labels;
        let selectors = peer_set_index.by_namespace(namespace).flat_map(|id| {
            id.selectors().iter().filter_map(move |selector| match selector {
                PeerSelector::Pods { namespaces, pods } => {
                    is_namespace(namespace, labels, namespaces).then_some((pods, id))
                }
                PeerSelector::Nodes(_) => None,
            })
        });
        let selectors = SelectorsByLabel::new(selectors);
        if selectors.is_empty() {
            continue;
        }
        for (labels, pods) in addresses.by_labels(namespace) {
            // Most pods are in few sets or none, and finding the addresses they own is slower than the selectors.
            let mut owned: Option<Vec<IpAddr>> = None;
            for id in selectors.matching(labels) {
                let owned = owned
                    .get_or_insert_with(|| pods.iter().flat_map(|pod| addresses.owned_by(pod)).collect());
                found.entry(id).or_default().extend(&*owned);
            }
        }
    }
    if !peer_set_index.of_nodes.is_empty() {
        for node in addresses.nodes() {
            for id in &peer_set_index.of_nodes {
                let mut selectors = id.selectors().iter();
                let matches_node = |selector: &PeerSelector| match selector {
                    PeerSelector::Nodes(selector) => is_node(index, node, selector),
                    PeerSelector::Pods { .. } => false,
                };
                if selectors.any(matches_node) {
                    found.entry(id).or_default().extend(addresses.of_node(node));
                }
            }
        }
    }
    found.into_iter().map(|(id, members)| (id.clone(), members.into_iter().collect())).collect()
}

/// Updates existing sets of named ports for dirty addresses. `owner` returns the pod in which a name is resolved.
pub(super) fn update_named_ports<'a>(
    dirty: &DirtyAddresses,
    sets: &mut BTreeMap<NamedPortId, BTreeSet<(IpAddr, u16)>>,
    owner: impl Fn(&NamedPortId, IpAddr) -> Option<&'a Pod>,
) -> MemberChanges<NamedPortId, (IpAddr, u16)> {
    let mut moves = MemberChanges::new();
    for (id, members) in sets {
        for (address, _) in dirty.iter() {
            let after: BTreeSet<(IpAddr, u16)> =
                owner(id, address).into_iter().flat_map(|pod| ports_of(pod, id, address)).collect();
            let before: BTreeSet<(IpAddr, u16)> =
                members.range((address, 0)..=(address, u16::MAX)).copied().collect();
            if before == after {
                continue;
            }
            let (added, removed) = moves.entry(id.clone()).or_default();
            for element in before.difference(&after) {
                members.remove(element);
                removed.push(*element);
            }
            for element in after.difference(&before) {
                members.insert(*element);
                added.push(*element);
            }
        }
    }
    moves
}

/// Returns the ports of a pod with this name, as members of the set.
pub(super) fn ports_of(pod: &Pod, id: &NamedPortId, address: IpAddr) -> impl Iterator<Item = (IpAddr, u16)> {
    let ports = pod.named_ports.iter().filter(|port| port.name == id.name && port.protocol == id.protocol);
    ports.map(move |port| (address, port.port.get()))
}
