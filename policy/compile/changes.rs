//! Changes of compiled policies between two updates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::Name;

use super::compiled_policies::{CompiledPolicies, LocalPod};
use super::named_port::NamedPortId;
use super::peer_set::PeerSetId;
use super::policy_id::{PolicyId, RulesId};
use super::ports::RulePorts;
use super::profile::Profile;
use super::rule::{PolicyRule, RuleAction};

/// Net changes since the previous update. Each list is sorted, without duplicates and without unchanged entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyChanges {
    /// Addresses of pods in scope, by address.
    pub addresses: Vec<AddressChange>,
    /// Profiles that have become used.
    pub profiles_added: Vec<Arc<Profile>>,
    /// Profiles that no pod uses any longer.
    pub profiles_removed: Vec<Arc<Profile>>,
    /// Rules, by policy and direction.
    pub rules: Vec<RulesChange>,
    /// Peer sets.
    pub sets: Vec<SetChange<PeerSetId, IpAddr>>,
    /// Sets of named ports.
    pub named_ports: Vec<SetChange<NamedPortId, (IpAddr, u16)>>,
    /// Addresses of the nodes in scope, by the node's name.
    pub nodes: Vec<NodeChange>,
}

impl PolicyChanges {
    /// Returns true if a connection may be denied that was allowed before. `compiled` is the state after the changes. A pod that no
    /// policy selects, and a new member of a set that only rules with action Accept match, deny nothing. A policy that is added or
    /// deleted changes the profiles of the pods that it selects.
    pub fn may_deny(&self, compiled: &CompiledPolicies) -> bool {
        let has_profile = |change: &AddressChange| {
            let profiles = change.after.as_ref();
            profiles.is_some_and(|profiles| profiles.ingress.is_some() || profiles.egress.is_some())
        };
        let is_changed = |change: &RulesChange| change.before.is_some() && change.after.is_some();
        self.addresses.iter().any(has_profile)
            || self.rules.iter().any(is_changed)
            || may_deny(&self.sets, |id| is_excluding(compiled, |rule| rule.peers.pods.as_ref() == Some(id)))
            || may_deny(&self.named_ports, |id| {
                is_excluding(
                    compiled,
                    |rule| matches!(&rule.ports, RulePorts::Listed { named, .. } if named.contains(id)),
                )
            })
    }

    /// Returns the changes from an empty state to these compiled policies.
    pub fn all(compiled: &CompiledPolicies) -> Self {
        let address = |(address, pod): (IpAddr, &LocalPod)| AddressChange {
            address,
            before: None,
            after: Some(pod.profiles()),
        };
        let rules = |(id, rules): (&RulesId, &Arc<[PolicyRule]>)| RulesChange {
            id: id.clone(),
            before: None,
            after: Some(Arc::clone(rules)),
        };
        fn created<Id: Clone, T: Clone>((id, members): (&Id, &BTreeSet<T>)) -> SetChange<Id, T> {
            SetChange { id: id.clone(), update: SetUpdate::Created(members.iter().cloned().collect()) }
        }
        let node = |(node, addresses): (&Name, &[IpAddr])| NodeChange {
            node: node.clone(),
            before: Box::default(),
            after: addresses.into(),
        };
        PolicyChanges {
            addresses: compiled.addresses().map(address).collect(),
            profiles_added: compiled.profiles().cloned().collect(),
            profiles_removed: Vec::new(),
            rules: compiled.rules().map(rules).collect(),
            sets: compiled.sets().map(created).collect(),
            named_ports: compiled.named_ports().map(created).collect(),
            nodes: compiled.nodes().map(node).collect(),
        }
    }

    /// Returns true if nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == PolicyChanges::default()
    }
}

/// Returns true if the members of sets that rules match changed so that a connection may be denied. `is_excluding` returns true for a
/// set whose members rules deny.
fn may_deny<Id, Element>(changes: &[SetChange<Id, Element>], is_excluding: impl Fn(&Id) -> bool) -> bool {
    changes.iter().any(|change| match &change.update {
        SetUpdate::Updated { added, removed } => {
            !removed.is_empty() || (!added.is_empty() && is_excluding(&change.id))
        }
        // Together with rules.
        SetUpdate::Created(_) | SetUpdate::Deleted => false,
    })
}

/// Returns true if a rule that `matches` denies connections or leaves its tier.
fn is_excluding(compiled: &CompiledPolicies, matches: impl Fn(&PolicyRule) -> bool) -> bool {
    let cluster = compiled.rules().filter(|(id, _)| matches!(id.policy, PolicyId::Cluster(_)));
    cluster.flat_map(|(_, rules)| rules.iter()).any(|rule| rule.action != RuleAction::Accept && matches(rule))
}

/// Change of an address and of the profiles of its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressChange {
    /// The address.
    pub address: IpAddr,
    /// The profiles before; `None` if no pod in scope had the address.
    pub before: Option<PodProfiles>,
    /// The profiles now; `None` if no pod in scope has the address.
    pub after: Option<PodProfiles>,
}

/// The profiles of a pod; `None` for a direction in which no policy selects it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodProfiles {
    /// For connections to the pod.
    pub ingress: Option<Arc<Profile>>,
    /// For connections from the pod.
    pub egress: Option<Arc<Profile>>,
}

/// Change of a policy's rules in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct RulesChange {
    /// The policy and direction.
    pub id: RulesId,
    /// The rules before; `None` if no profile contained them.
    pub before: Option<Arc<[PolicyRule]>>,
    /// The rules now; `None` if no profile contains them.
    pub after: Option<Arc<[PolicyRule]>>,
}

/// Change of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct SetChange<Id, Element> {
    /// The set.
    pub id: Id,
    /// The change.
    pub update: SetUpdate<Element>,
}

/// Kind of a set's change, with sorted elements.
#[derive(Clone, Debug, PartialEq)]
pub enum SetUpdate<Element> {
    /// The set is new and has these members.
    Created(Vec<Element>),
    /// The set is no longer used.
    Deleted,
    /// Members of the set have changed.
    Updated {
        /// Added members.
        added: Vec<Element>,
        /// Removed members.
        removed: Vec<Element>,
    },
}

/// Change of a node's addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeChange {
    /// Its name.
    pub node: Name,
    /// The addresses before, sorted; empty for a new node.
    pub before: Box<[IpAddr]>,
    /// The addresses now, sorted; empty for a deleted node.
    pub after: Box<[IpAddr]>,
}
