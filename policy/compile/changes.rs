//! What an update changed: net, and all that is needed to follow it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::Name;

use super::compiled::{Compiled, LocalPod};
use super::named_port::NamedPortId;
use super::peer_set::SetId;
use super::policy_id::RulesId;
use super::profile::Profile;
use super::rule::Rule;

/// What changed since the update before. Each list is sorted, names everything once, and holds nothing that
/// is as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Addresses of pods that are judged, by address.
    pub addresses: Vec<AddressChange>,
    /// Profiles that no pod had before.
    pub profiles_came: Vec<Arc<Profile>>,
    /// Profiles that no pod has any more.
    pub profiles_went: Vec<Arc<Profile>>,
    /// Rules, by policy and direction.
    pub rules: Vec<RulesChange>,
    /// Sets of peers.
    pub sets: Vec<SetChange<SetId, IpAddr>>,
    /// Sets of named ports.
    pub named_ports: Vec<SetChange<NamedPortId, (IpAddr, u16)>>,
    /// Addresses of the nodes whose pods are judged, by the node's name.
    pub nodes: Vec<NodeChange>,
}

impl Changes {
    /// The changes from nothing to all that is compiled.
    pub fn all(compiled: &Compiled) -> Self {
        let judged = |(address, pod): (IpAddr, &LocalPod)| AddressChange {
            address,
            before: None,
            after: Some(pod.judged()),
        };
        let rules = |(id, rules): (&RulesId, &Arc<[Rule]>)| RulesChange {
            id: id.clone(),
            before: None,
            after: Some(Arc::clone(rules)),
        };
        fn came<Id: Clone, T: Clone>((id, members): (&Id, &BTreeSet<T>)) -> SetChange<Id, T> {
            SetChange { id: id.clone(), members: MembersChange::Came(members.iter().cloned().collect()) }
        }
        let node = |(node, addresses): (Name, &[IpAddr])| NodeChange {
            node,
            before: Box::default(),
            after: addresses.into(),
        };
        Changes {
            addresses: compiled.addresses().map(judged).collect(),
            profiles_came: compiled.profiles().cloned().collect(),
            profiles_went: Vec::new(),
            rules: compiled.rules().map(rules).collect(),
            sets: compiled.sets().map(came).collect(),
            named_ports: compiled.named_ports().map(came).collect(),
            nodes: compiled.nodes().map(node).collect(),
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// An address is judged differently than before.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressChange {
    /// The address.
    pub address: IpAddr,
    /// How it was judged; `None` if it was not known as a pod's.
    pub before: Option<Judged>,
    /// How it is judged; `None` if it is not known as a pod's any more.
    pub after: Option<Judged>,
}

/// By what an address of a pod is judged. With no profile at all it is known, and free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
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
    pub before: Option<Arc<[Rule]>>,
    /// The rules there are; `None` if no pod is judged by them any more.
    pub after: Option<Arc<[Rule]>>,
}

/// A set is another than before.
#[derive(Clone, Debug, PartialEq)]
pub struct SetChange<Id, Element> {
    /// Which set.
    pub id: Id,
    /// What happened to it.
    pub members: MembersChange<Element>,
}

/// What happened to a set. Elements are sorted.
#[derive(Clone, Debug, PartialEq)]
pub enum MembersChange<Element> {
    /// It was not there, and has these members.
    Came(Vec<Element>),
    /// It is there no more.
    Went,
    /// It has other members.
    Changed {
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
