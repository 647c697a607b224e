//! Unreadable objects: objects that exist and could never be read.

use std::collections::{BTreeSet, HashSet};

use crate::kind::Kind;
use crate::name::{Name, NamespacedName};
use crate::object::ObjectKey;

/// Objects of which no version could be read since the start. Does not include objects that could be read once: their last
/// readable version is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadableObjects {
    objects: BTreeSet<ObjectKey>,
}

impl UnreadableObjects {
    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Returns true if an unreadable object may affect the Services on `node`.
    pub fn may_concern_services(&self, node: &Name) -> bool {
        self.objects.iter().any(|key| match key.kind {
            Kind::Service | Kind::EndpointSlice | Kind::ServiceCidr => true,
            Kind::Node => key.is_unnamed() || *key.name.name == *node.as_str(),
            Kind::Namespace | Kind::Pod | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => false,
        })
    }

    /// Returns true if an unreadable object may affect the decisions of policies.
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

    /// Removes the objects of a kind that a full list did not contain.
    pub(crate) fn sweep(&mut self, kind: Kind, seen: &HashSet<NamespacedName>) {
        self.objects.retain(|key| key.kind != kind || seen.contains(&key.name));
    }
}
