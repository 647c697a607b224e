//! What an update changed: net, and all that is needed to follow it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::Name;

use super::compiled_policies::{CompiledPolicies, LocalPod};
use super::named_port::NamedPortId;
use super::peer_set::PeerSetId;
use super::policy_id::RulesId;
use super::profile::Profile;
use super::rule::PolicyRule;

/// What changed since the update before. Each list is sorted, names everything once, and holds nothing that
/// is as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyChanges {
    /// AddressIndex of pods that are judged, by address.
    pub addresses: Vec<AddressChange>,
    /// Profiles that no pod had before.
    pub profiles_added: Vec<Arc<Profile>>,
    /// Profiles that no pod has any more.
    pub profiles_removed: Vec<Arc<Profile>>,
    /// Rules, by policy and direction.
    pub rules: Vec<RulesChange>,
    /// Sets of peers.
    pub sets: Vec<SetChange<PeerSetId, IpAddr>>,
    /// Sets of named ports.
    pub named_ports: Vec<SetChange<NamedPortId, (IpAddr, u16)>>,
    /// AddressIndex of the nodes whose pods are judged, by the node's name.
    pub nodes: Vec<NodeChange>,
}

impl PolicyChanges {
    /// Whether something may be denied now that was allowed before: all but peers that were only added.
    pub fn may_forbid(&self) -> bool {
        fn takes_away<Id, Element>(change: &SetChange<Id, Element>) -> bool {
            !matches!(&change.members, SetUpdate::Updated { removed, .. } if removed.is_empty())
        }
        !self.addresses.is_empty()
            || !self.rules.is_empty()
            || self.sets.iter().any(takes_away)
            || self.named_ports.iter().any(takes_away)
    }

    /// The changes from nothing to all that is compiled.
    pub fn all(compiled: &CompiledPolicies) -> Self {
        let judged = |(address, pod): (IpAddr, &LocalPod)| AddressChange {
            address,
            before: None,
            after: Some(pod.profiles()),
        };
        let rules = |(id, rules): (&RulesId, &Arc<[PolicyRule]>)| RulesChange {
            id: id.clone(),
            before: None,
            after: Some(Arc::clone(rules)),
        };
        fn came<Id: Clone, T: Clone>((id, members): (&Id, &BTreeSet<T>)) -> SetChange<Id, T> {
            SetChange { id: id.clone(), members: SetUpdate::Created(members.iter().cloned().collect()) }
        }
        let node = |(node, addresses): (Name, &[IpAddr])| NodeChange {
            node,
            before: Box::default(),
            after: addresses.into(),
        };
        PolicyChanges {
            addresses: compiled.addresses().map(judged).collect(),
            profiles_added: compiled.profiles().cloned().collect(),
            profiles_removed: Vec::new(),
            rules: compiled.rules().map(rules).collect(),
            sets: compiled.sets().map(came).collect(),
            named_ports: compiled.named_ports().map(came).collect(),
            nodes: compiled.nodes().map(node).collect(),
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == PolicyChanges::default()
    }
}

/// An address is judged differently than before.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressChange {
    /// The address.
    pub address: IpAddr,
    /// How it was judged; `None` if it was not known as a pod's.
    pub before: Option<PodProfiles>,
    /// How it is judged; `None` if it is not known as a pod's any more.
    pub after: Option<PodProfiles>,
}

/// By what an address of a pod is judged. With no profile at all it is known, and free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodProfiles {
    /// What comes in.
    pub ingress: Option<Arc<Profile>>,
    /// What goes out.
    pub egress: Option<Arc<Profile>>,
}

/// The rules of a policy in a direction are others than before.
#[derive(Clone, Debug, PartialEq)]
pub struct RulesChange {
    /// Whose rules.
    pub id: RulesId,
    /// The rules there were; `None` if no pod was judged by them.
    pub before: Option<Arc<[PolicyRule]>>,
    /// The rules there are; `None` if no pod is judged by them any more.
    pub after: Option<Arc<[PolicyRule]>>,
}

/// A set is another than before.
#[derive(Clone, Debug, PartialEq)]
pub struct SetChange<Id, Element> {
    /// Which set.
    pub id: Id,
    /// What happened to it.
    pub members: SetUpdate<Element>,
}

/// What happened to a set. Elements are sorted.
#[derive(Clone, Debug, PartialEq)]
pub enum SetUpdate<Element> {
    /// It was not there, and has these members.
    Created(Vec<Element>),
    /// It is there no more.
    Deleted,
    /// It has other members.
    Updated {
        /// Those that were not in it.
        added: Vec<Element>,
        /// Those that are not in it any more.
        removed: Vec<Element>,
    },
}

/// A node has other addresses than before.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeChange {
    /// Its name.
    pub node: Name,
    /// The addresses it had, sorted; none if it was not there.
    pub before: Box<[IpAddr]>,
    /// The addresses it has, sorted; none if it is not there any more.
    pub after: Box<[IpAddr]>,
}
