//! Objects that exist, but could not be read even once.

use std::collections::{BTreeSet, HashSet};

use crate::kind::Kind;
use crate::name::{Name, NamespacedName};
use crate::object::ObjectKey;

/// Objects of which no version could be read since the start, so that nothing is known of them. An object that could be
/// read once is not among them: its last good version counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadableObjects {
    objects: BTreeSet<ObjectKey>,
}

impl UnreadableObjects {
    /// Whether every object could be read.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether an object that could not be read may be one that decides which Services `node` serves.
    pub fn may_concern_services(&self, node: Name) -> bool {
        self.objects.iter().any(|key| match key.kind {
            Kind::Service | Kind::EndpointSlice | Kind::ServiceCidr => true,
            Kind::Node => key.is_unnamed() || *key.name.name == *node.as_str(),
            Kind::Namespace | Kind::Pod | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => false,
        })
    }

    /// Whether an object that could not be read may be one that decides what policies allow.
    pub fn may_concern_policies(&self) -> bool {
        self.objects.iter().any(|key| match key.kind {
            Kind::Node | Kind::Namespace | Kind::Pod | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
                true
            }
            Kind::Service | Kind::EndpointSlice | Kind::ServiceCidr => false,
        })
    }

    pub(crate) fn add(&mut self, key: ObjectKey) {
        self.objects.insert(key);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    /// Removes what a full list of a kind did not name.
    pub(crate) fn sweep(&mut self, kind: Kind, seen: &HashSet<NamespacedName>) {
        self.objects.retain(|key| key.kind != kind || seen.contains(&key.name));
    }
}
