//! Compiled policies: profiles, rules and sets by the pods they apply to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::{Name, NamespacedName};

use super::changes::PodProfiles;
use super::named_port::NamedPortId;
use super::peer_set::PeerSetId;
use super::policy_id::{Direction, RulesId};
use super::profile::Profile;
use super::rule::PolicyRule;

/// The policies that apply to the pods in scope, with everything that an evaluation of their connections needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompiledPolicies {
    pub(super) pods: BTreeMap<NamespacedName, LocalPod>,
    pub(super) addresses: BTreeMap<IpAddr, NamespacedName>,
    pub(super) profiles: BTreeSet<Arc<Profile>>,
    pub(super) rules: BTreeMap<RulesId, Arc<[PolicyRule]>>,
    pub(super) sets: BTreeMap<PeerSetId, BTreeSet<IpAddr>>,
    pub(super) named_ports: BTreeMap<NamedPortId, BTreeSet<(IpAddr, u16)>>,
    pub(super) nodes: BTreeMap<Name, Box<[IpAddr]>>,
}

/// A pod in scope. Pods on the host network, finished pods and pods without an address are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// The node it is on.
    pub node: Option<Name>,
    /// Its addresses. Another pod in scope with the same address may own it ([`CompiledPolicies::pod_at`]).
    pub addresses: Box<[IpAddr]>,
    /// The profile for connections to the pod; `None` if no policy selects it.
    pub ingress: Option<Arc<Profile>>,
    /// The profile for connections from the pod; `None` if no policy selects it.
    pub egress: Option<Arc<Profile>>,
}

impl LocalPod {
    /// Returns its profile of a direction.
    pub fn profile(&self, direction: Direction) -> Option<&Arc<Profile>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// Returns its profiles.
    pub fn profiles(&self) -> PodProfiles {
        PodProfiles { ingress: self.ingress.clone(), egress: self.egress.clone() }
    }
}

impl CompiledPolicies {
    /// Returns all pods in scope, by name.
    pub fn pods(&self) -> impl Iterator<Item = &LocalPod> {
        self.pods.values()
    }

    /// Returns a pod in scope.
    pub fn pod(&self, key: &NamespacedName) -> Option<&LocalPod> {
        self.pods.get(key)
    }

    /// Returns the pod in scope that owns an address. Of several pods with it: one that is not terminating, then the
    /// youngest, then the last by name.
    pub fn pod_at(&self, address: IpAddr) -> Option<&LocalPod> {
        self.pods.get(self.addresses.get(&address)?)
    }

    /// Returns all addresses of pods in scope, sorted, with their owners, including pods without a profile.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &LocalPod)> {
        self.addresses.iter().filter_map(|(address, key)| Some((*address, self.pods.get(key)?)))
    }

    /// Returns all profiles of pods in scope.
    pub fn profiles(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.iter()
    }

    /// Returns all rules of policies in profiles. A NetworkPolicy without rules still isolates its pods.
    pub fn rules(&self) -> impl Iterator<Item = (&RulesId, &Arc<[PolicyRule]>)> {
        self.rules.iter()
    }

    /// Returns the rules of a policy in a direction; empty if no profile contains them.
    pub fn rules_of(&self, id: &RulesId) -> &[PolicyRule] {
        self.rules.get(id).map_or(&[], |rules| rules)
    }

    /// Returns all peer sets of rules.
    pub fn sets(&self) -> impl Iterator<Item = (&PeerSetId, &BTreeSet<IpAddr>)> {
        self.sets.iter()
    }

    /// Returns the members of a peer set.
    pub fn set(&self, id: &PeerSetId) -> Option<&BTreeSet<IpAddr>> {
        self.sets.get(id)
    }

    /// Returns all sets of named ports of rules.
    pub fn named_ports(&self) -> impl Iterator<Item = (&NamedPortId, &BTreeSet<(IpAddr, u16)>)> {
        self.named_ports.iter()
    }

    /// Returns the members of a set of named ports.
    pub fn named_port(&self, id: &NamedPortId) -> Option<&BTreeSet<(IpAddr, u16)>> {
        self.named_ports.get(id)
    }

    /// Returns the addresses of a node in scope, sorted; empty for an unknown node.
    pub fn node_addresses(&self, node: &Name) -> &[IpAddr] {
        self.nodes.get(node).map_or(&[], |addresses| addresses)
    }

    /// Returns all known nodes in scope with their addresses, sorted.
    pub fn nodes(&self) -> impl Iterator<Item = (&Name, &[IpAddr])> {
        self.nodes.iter().map(|(name, addresses)| (name, &**addresses))
    }
}
