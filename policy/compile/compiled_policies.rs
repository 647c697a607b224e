//! The compiled values.

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

/// All that is needed to judge connections of the pods in scope.
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

/// A pod that is judged. Pods on the host network, pods that have ended and pods without an address are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// The node it is on.
    pub node: Option<Name>,
    /// Its addresses. One that another pod of the scope has as well may be that one's
    /// ([`CompiledPolicies::pod_at`]).
    pub addresses: Box<[IpAddr]>,
    /// By what connections to it are judged; `None`: none is ever denied.
    pub ingress: Option<Arc<Profile>>,
    /// By what connections from it are judged; `None`: none is ever denied.
    pub egress: Option<Arc<Profile>>,
}

impl LocalPod {
    /// By what it is judged in a direction.
    pub fn profile(&self, direction: Direction) -> Option<&Arc<Profile>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// By what its addresses are judged.
    pub fn profiles(&self) -> PodProfiles {
        PodProfiles { ingress: self.ingress.clone(), egress: self.egress.clone() }
    }
}

impl CompiledPolicies {
    /// All judged pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &LocalPod> {
        self.pods.values()
    }

    /// A judged pod.
    pub fn pod(&self, key: &NamespacedName) -> Option<&LocalPod> {
        self.pods.get(key)
    }

    /// The judged pod that has an address. Of several that claim it: one that is not being terminated; else
    /// the one created last; else the last by name.
    pub fn pod_at(&self, address: IpAddr) -> Option<&LocalPod> {
        self.pods.get(self.addresses.get(&address)?)
    }

    /// All addresses of judged pods, sorted, each with the pod that has it. Also of those without a profile.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &LocalPod)> {
        self.addresses.iter().filter_map(|(address, key)| Some((*address, self.pods.get(key)?)))
    }

    /// All profiles that some judged pod has.
    pub fn profiles(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.iter()
    }

    /// All rules of policies that are in some profile. Those of a NetworkPolicy may be none: it isolates all
    /// the same.
    pub fn rules(&self) -> impl Iterator<Item = (&RulesId, &Arc<[PolicyRule]>)> {
        self.rules.iter()
    }

    /// The rules of a policy in a direction; none where no judged pod needs them.
    pub fn rules_of(&self, id: &RulesId) -> &[PolicyRule] {
        self.rules.get(id).map_or(&[], |rules| rules)
    }

    /// All sets of peers that some rule names.
    pub fn sets(&self) -> impl Iterator<Item = (&PeerSetId, &BTreeSet<IpAddr>)> {
        self.sets.iter()
    }

    /// The members of a set of peers that some rule names.
    pub fn set(&self, id: &PeerSetId) -> Option<&BTreeSet<IpAddr>> {
        self.sets.get(id)
    }

    /// All sets of named ports that some rule names.
    pub fn named_ports(&self) -> impl Iterator<Item = (&NamedPortId, &BTreeSet<(IpAddr, u16)>)> {
        self.named_ports.iter()
    }

    /// The members of a set of named ports that some rule names.
    pub fn named_port(&self, id: &NamedPortId) -> Option<&BTreeSet<(IpAddr, u16)>> {
        self.named_ports.get(id)
    }

    /// The addresses of a node whose pods are judged, sorted; none where it is not known.
    pub fn node_addresses(&self, node: Name) -> &[IpAddr] {
        self.nodes.get(&node).map_or(&[], |addresses| addresses)
    }

    /// All nodes whose pods are judged and that are known, with their addresses, sorted.
    pub fn nodes(&self) -> impl Iterator<Item = (Name, &[IpAddr])> {
        self.nodes.iter().map(|(name, addresses)| (*name, &**addresses))
    }
}
