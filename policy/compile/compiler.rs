//! Incremental compiler of policies.
//!
//! An update evaluates everything that was touched once, against the current index, and compares it with the previous
//! values. So changes are net, whatever happened in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::{Index, Name, NamespacedName};

use super::address_index::{AddressIndex, DirtyAddresses};
use super::changes::{
    AddressChange, NodeChange, PodProfiles, PolicyChanges, RulesChange, SetChange, SetUpdate,
};
use super::compiled_policies::{CompiledPolicies, LocalPod};
use super::dirty_objects::DirtyPolicyObjects;
use super::held_rules::{HeldRules, RulesVersion, Subject};
use super::named_port::NamedPortId;
use super::peer_set::PeerSetId;
use super::policy_id::{Direction, PolicyId, RulesId};
use super::ports::RulePorts;
use super::profile::Profile;
use super::reference_counts::ReferenceCounts;
use super::rule::PolicyRule;
use super::scope::Scope;
use super::selection::Selection;
use super::set_members::{self, MemberChanges, PeerSetIndex};
use super::touched_objects::TouchedObjects;
use super::translate;

/// Pods that may be selected by other policies than before.
enum DirtySelections<'a> {
    /// All pods in scope.
    All,
    /// The pods of these namespaces.
    Namespaces(BTreeSet<&'a Name>),
}

/// Compiles the policies of an index, and updates the result after changes of the index.
pub struct Compiler {
    scope: Scope,
    compiled: CompiledPolicies,
    addresses: AddressIndex,
    selection: Selection,
    peer_set_index: PeerSetIndex,
    /// Counts the pods that have a profile.
    profiles: ReferenceCounts<Arc<Profile>>,
    /// Counts the profiles with a policy's rules.
    rules: ReferenceCounts<RulesId>,
    /// Counts the rules with a peer set.
    sets: ReferenceCounts<PeerSetId>,
    /// Counts the rules with a named port.
    named_ports: ReferenceCounts<NamedPortId>,
    /// Rules that the kernel rejects.
    held_rules: HeldRules,
    started: bool,
}

impl Compiler {
    /// Returns a compiler whose first update compiles the whole index.
    pub fn new(scope: Scope) -> Self {
        Compiler {
            scope,
            compiled: CompiledPolicies::default(),
            addresses: AddressIndex::default(),
            selection: Selection::default(),
            peer_set_index: PeerSetIndex::default(),
            profiles: ReferenceCounts::new(),
            rules: ReferenceCounts::new(),
            sets: ReferenceCounts::new(),
            named_ports: ReferenceCounts::new(),
            held_rules: HeldRules::default(),
            started: false,
        }
    }

    /// Compiles all policies of an index.
    pub fn from_index(scope: Scope, index: &Index) -> Self {
        Compiler::new(scope).with_index(index)
    }

    /// Compiles all policies of an index.
    pub fn with_index(mut self, index: &Index) -> Self {
        self.update(index, &DirtyPolicyObjects::default());
        self
    }

    /// Sets whether nodes reach pods of other nodes by an overlay, in which the network address of each pod CIDR is an address of the
    /// node: its own packets come from there. No pod has such an address then.
    pub fn with_overlay(mut self, has_overlay: bool) -> Self {
        self.addresses.set_has_overlay(has_overlay);
        self
    }

    /// Returns the pods for which policies are compiled.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the compiled policies.
    pub fn compiled(&self) -> &CompiledPolicies {
        &self.compiled
    }

    /// Updates the compiled policies from an index, given the objects that were touched since the previous update. The
    /// first update compiles everything. The cost depends on the touched objects, not on the size of the cluster.
    pub fn update(&mut self, index: &Index, touched: &DirtyPolicyObjects) -> PolicyChanges {
        let work = if self.started {
            TouchedObjects::from_index_changes(touched)
        } else {
            TouchedObjects::all(index)
        };
        self.started = true;
        if work.is_empty() && !self.held_rules.has_dirty() {
            return PolicyChanges::default();
        }

        let dirty = self.update_addresses(index, &work);
        let selections = self.update_selection(index, &work);
        let pods = self.pods_to_select(index, &work, &selections);
        let mut before = self.profiles_before(&dirty, &pods);
        pods.iter().for_each(|key| self.select(index, key));
        self.update_owners(&dirty, &mut before);
        let (profiles_added, profiles_removed) = self.profiles.take_changes();
        for profile in &profiles_added {
            profile.rules().for_each(|id| self.rules.add(&id));
            self.compiled.profiles.insert(Arc::clone(profile));
        }
        for profile in &profiles_removed {
            profile.rules().for_each(|id| self.rules.remove(&id));
            self.compiled.profiles.remove(profile);
        }
        let addresses = self.address_changes(before);
        let rules = self.compile_rules(index, &work);
        let sets = self.update_sets(index, &dirty);
        let named_ports = self.update_named_ports(index, &dirty);
        let nodes = self.update_nodes(&work);
        PolicyChanges { addresses, profiles_added, profiles_removed, rules, sets, named_ports, nodes }
    }

    /// Records that the kernel accepted the compiled policies.
    pub fn accept_changes(&mut self) {
        self.held_rules.accept_changes();
    }

    /// Holds back all rules that changed since the kernel accepted the compiled policies: from the next update, the accepted
    /// version applies until the policy changes, or if there is none, the pods are isolated. Returns the rules.
    pub fn hold_back_changes(&mut self) -> Vec<RulesId> {
        self.held_rules.hold_back_changes()
    }

    /// Ends the holding back of rules, with effect from the next update.
    pub fn release(&mut self, id: &RulesId) {
        self.held_rules.release(id);
    }

    /// Returns true if rules are held back. A changed policy is not held back any more.
    pub fn is_held_back(&self, id: &RulesId) -> bool {
        self.held_rules.is_held_back(id)
    }

    fn update_addresses(&mut self, index: &Index, work: &TouchedObjects) -> DirtyAddresses {
        let mut dirty = DirtyAddresses::default();
        work.pods.iter().for_each(|key| self.addresses.update_pod(index, key, &mut dirty));
        work.namespaces.iter().for_each(|name| self.addresses.update_namespace(name, &mut dirty));
        work.nodes.iter().for_each(|name| self.addresses.update_node(index, name, &mut dirty));
        dirty
    }

    /// Updates the policies that select pods. Returns the pods that may be selected by others than before.
    fn update_selection<'a>(&mut self, index: &Index, work: &'a TouchedObjects) -> DirtySelections<'a> {
        let policies = work.network_policies.iter();
        let changed = policies.filter(|key| self.selection.update_network_policy(index, key));
        let mut namespaces: BTreeSet<&Name> = changed.map(|key| &key.namespace).collect();
        if self.selection.update_cluster_policies(index, &work.cluster_policies) {
            return DirtySelections::All;
        }
        if self.selection.has_cluster_policies() {
            namespaces.extend(&work.namespaces);
        }
        DirtySelections::Namespaces(namespaces)
    }

    /// Returns the pods whose profiles may have changed.
    fn pods_to_select(
        &self,
        index: &Index,
        work: &TouchedObjects,
        selections: &DirtySelections<'_>,
    ) -> BTreeSet<NamespacedName> {
        let known = &self.compiled.pods;
        let is_in_scope = |key: &&NamespacedName| {
            index.pod(key).is_some_and(|pod| self.scope.includes_pod(pod)) || known.contains_key(key)
        };
        let mut pods: BTreeSet<NamespacedName> = work.pods.iter().filter(is_in_scope).cloned().collect();
        let namespaces = match selections {
            DirtySelections::All => {
                pods.extend(known.keys().cloned());
                return pods;
            }
            DirtySelections::Namespaces(namespaces) => namespaces,
        };
        for namespace in namespaces {
            let first = NamespacedName { namespace: (*namespace).clone(), name: "".into() };
            let from_first = known.range(first..).map(|(key, _)| key);
            pods.extend(from_first.take_while(|key| key.namespace == **namespace).cloned());
        }
        pods
    }

    /// Returns the previous profiles of all addresses of pods in scope whose profiles may have changed.
    fn profiles_before(
        &self,
        dirty: &DirtyAddresses,
        pods: &BTreeSet<NamespacedName>,
    ) -> BTreeMap<IpAddr, Option<PodProfiles>> {
        let known = pods.iter().filter_map(|key| self.compiled.pods.get(key)).flat_map(|pod| &pod.addresses);
        let addresses = dirty.iter().map(|(address, _)| address).chain(known.copied());
        addresses
            .filter_map(|address| Some((address, Some(self.compiled.pod_at(address)?.profiles()))))
            .collect()
    }

    fn address_changes(&self, before: BTreeMap<IpAddr, Option<PodProfiles>>) -> Vec<AddressChange> {
        let changes = before.into_iter().filter_map(|(address, before)| {
            let after = self.compiled.pod_at(address).map(LocalPod::profiles);
            (before != after).then_some(AddressChange { address, before, after })
        });
        changes.collect()
    }

    /// Updates the profiles of a pod.
    fn select(&mut self, index: &Index, key: &NamespacedName) {
        let after = index.pod(key).filter(|pod| self.scope.includes_pod(pod)).map(|pod| {
            let selected = self.selection.select(index, pod);
            LocalPod {
                key: key.clone(),
                node: pod.node.clone(),
                addresses: (*pod.ips).into(),
                ingress: selected.ingress.map(|profile| self.shared(profile)),
                egress: selected.egress.map(|profile| self.shared(profile)),
            }
        });
        let profiles = |pod: &Option<LocalPod>| -> Vec<Arc<Profile>> {
            pod.iter().flat_map(|pod| [&pod.ingress, &pod.egress]).flatten().cloned().collect()
        };
        let used = profiles(&after);
        let before = match after {
            Some(pod) => self.compiled.pods.insert(key.clone(), pod),
            None => self.compiled.pods.remove(key),
        };
        used.iter().for_each(|profile| self.profiles.add(profile));
        profiles(&before).iter().for_each(|profile| self.profiles.remove(profile));
    }

    /// Returns the value of a profile that all pods with it share.
    fn shared(&self, profile: Profile) -> Arc<Profile> {
        self.profiles.key(&profile).cloned().unwrap_or_else(|| Arc::new(profile))
    }

    /// Updates which pod in scope owns each dirty address. A pod out of scope with the same address does not change
    /// the profile of packets that come from here. Adds the addresses to `before` that no pod in scope owned.
    fn update_owners(&mut self, dirty: &DirtyAddresses, before: &mut BTreeMap<IpAddr, Option<PodProfiles>>) {
        for (address, _) in dirty.iter() {
            match self.addresses.owner(address, |pod| self.scope.includes_pod(pod)) {
                Some(pod) => {
                    before.entry(address).or_default();
                    self.compiled.addresses.insert(address, pod.key.clone());
                }
                None => _ = self.compiled.addresses.remove(&address),
            }
        }
    }

    /// Compiles rules that have become used or may have changed, and removes unused ones.
    fn compile_rules(&mut self, index: &Index, work: &TouchedObjects) -> Vec<RulesChange> {
        let (added, removed) = self.rules.take_changes();
        let network = work.network_policies.iter().cloned().map(PolicyId::Network);
        let cluster = work.cluster_policies.iter().map(|key| PolicyId::Cluster(key.name.clone()));
        let touched = network.chain(cluster).flat_map(|policy| {
            Direction::BOTH.map(|direction| RulesId { policy: policy.clone(), direction })
        });
        let again = self.held_rules.take_dirty();
        let ids: BTreeSet<RulesId> = touched.chain(added).chain(removed).chain(again).collect();
        let mut changes = Vec::new();
        for id in ids {
            let compiled = self.rules.contains(&id).then(|| RulesVersion {
                rules: translate::rules(index, &id).into(),
                subject: Subject::new(index, &id.policy),
            });
            let after = self.held_rules.apply(&id, compiled);
            let before = self.compiled.rules.get(&id).cloned();
            if before == after {
                continue;
            }
            for rule in after.iter().flat_map(|rules| rules.iter()) {
                rule.peers.pods.iter().for_each(|set| self.sets.add(set));
                named(rule).iter().for_each(|port| self.named_ports.add(port));
            }
            for rule in before.iter().flat_map(|rules| rules.iter()) {
                rule.peers.pods.iter().for_each(|set| self.sets.remove(set));
                named(rule).iter().for_each(|port| self.named_ports.remove(port));
            }
            match &after {
                Some(rules) => self.compiled.rules.insert(id.clone(), Arc::clone(rules)),
                None => self.compiled.rules.remove(&id),
            };
            changes.push(RulesChange { id, before, after });
        }
        changes
    }

    fn update_sets(&mut self, index: &Index, dirty: &DirtyAddresses) -> Vec<SetChange<PeerSetId, IpAddr>> {
        let (added, removed) = self.sets.take_changes();
        for id in &removed {
            self.compiled.sets.remove(id);
            self.peer_set_index.remove(id);
        }
        let sets = &mut self.compiled.sets;
        let updated =
            set_members::update_peer_sets(index, &self.addresses, &self.peer_set_index, dirty, sets);
        let created = set_members::collect_peer_sets(index, &self.addresses, &added);
        added.iter().for_each(|id| self.peer_set_index.insert(id));
        set_changes(sets, created, removed, updated)
    }

    fn update_named_ports(
        &mut self,
        index: &Index,
        dirty: &DirtyAddresses,
    ) -> Vec<SetChange<NamedPortId, (IpAddr, u16)>> {
        let (added, removed) = self.named_ports.take_changes();
        let CompiledPolicies { named_ports: sets, addresses: in_scope, .. } = &mut self.compiled;
        removed.iter().for_each(|id| {
            sets.remove(id);
        });
        let addresses = &self.addresses;
        let updated = set_members::update_named_ports(dirty, sets, |id, address| match id.direction {
            Direction::Ingress => in_scope.get(&address).and_then(|key| index.pod(key)),
            Direction::Egress => addresses.owner(address, |_| true),
        });
        let all_pods = || addresses.namespaces().flat_map(|name| addresses.pods_of(name));
        let created = added.into_iter().map(|id| {
            let members = match id.direction {
                Direction::Ingress => {
                    let pods = in_scope.iter().filter_map(|(address, key)| Some((*address, index.pod(key)?)));
                    pods.flat_map(|(address, pod)| set_members::ports_of(pod, &id, address)).collect()
                }
                Direction::Egress => {
                    let owned = all_pods()
                        .filter(|pod| !pod.named_ports.is_empty())
                        .flat_map(|pod| addresses.owned_by(pod).map(move |address| (address, pod)));
                    owned.flat_map(|(address, pod)| set_members::ports_of(pod, &id, address)).collect()
                }
            };
            (id, members)
        });
        let created = created.collect();
        set_changes(sets, created, removed, updated)
    }

    fn update_nodes(&mut self, work: &TouchedObjects) -> Vec<NodeChange> {
        let mut changes = Vec::new();
        for node in work.nodes.iter().filter(|node| self.scope.includes_node(Some(node))) {
            let after: Box<[IpAddr]> = self.addresses.of_node(node).into();
            let before = match after.is_empty() {
                true => self.compiled.nodes.remove(node),
                false => self.compiled.nodes.insert(node.clone(), after.clone()),
            };
            let before = before.unwrap_or_default();
            if before != after {
                changes.push(NodeChange { node: node.clone(), before, after });
            }
        }
        changes
    }
}

/// Returns the named ports of a rule.
fn named(rule: &PolicyRule) -> &[NamedPortId] {
    match &rule.ports {
        RulePorts::Any => &[],
        RulePorts::Listed { named, .. } => named,
    }
}

/// Adds new sets, and returns the changes of all sets.
fn set_changes<Id: Ord + Clone, Element: Ord + Copy>(
    sets: &mut BTreeMap<Id, BTreeSet<Element>>,
    created: BTreeMap<Id, BTreeSet<Element>>,
    deleted: Vec<Id>,
    updated: MemberChanges<Id, Element>,
) -> Vec<SetChange<Id, Element>> {
    let mut changes: Vec<SetChange<Id, Element>> = Vec::new();
    changes.extend(deleted.into_iter().map(|id| SetChange { id, update: SetUpdate::Deleted }));
    changes.extend(
        updated
            .into_iter()
            .map(|(id, (added, removed))| SetChange { id, update: SetUpdate::Updated { added, removed } }),
    );
    for (id, members) in created {
        let all = members.iter().copied().collect();
        changes.push(SetChange { id: id.clone(), update: SetUpdate::Created(all) });
        sets.insert(id, members);
    }
    changes.sort_by(|a, b| a.id.cmp(&b.id));
    changes
}
