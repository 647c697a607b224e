//! Objects that exist, but could not be read even once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::name::{Name, NamespacedName};
use crate::object::{Kind, ObjectKey};

/// Objects of which no version could be read since the start, so that nothing is known of them. An object that could be
/// read once is not among them: its last good version counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    objects: BTreeSet<ObjectKey>,
    /// Documents without a known name, by kind where that is known.
    unidentified: BTreeMap<Option<Kind>, usize>,
}

impl Unread {
    /// Whether every object could be read.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.unidentified.is_empty()
    }

    /// Whether an object that could not be read may be one that decides which Services `node` serves.
    pub fn may_concern_services(&self, node: Name) -> bool {
        self.may_concern(|kind, name| match kind {
            Kind::Service | Kind::EndpointSlice | Kind::ServiceCidr => true,
            Kind::Node => name.is_none_or(|name| *name.name == *node.as_str()),
            Kind::Namespace | Kind::Pod | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => false,
        })
    }

    /// Whether an object that could not be read may be one that decides what policies allow.
    pub fn may_concern_policies(&self) -> bool {
        self.may_concern(|kind, _| match kind {
            Kind::Node | Kind::Namespace | Kind::Pod | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
                true
            }
            Kind::Service | Kind::EndpointSlice | Kind::ServiceCidr => false,
        })
    }

    fn may_concern(&self, concerns: impl Fn(Kind, Option<&NamespacedName>) -> bool) -> bool {
        self.objects.iter().any(|key| concerns(key.kind, Some(&key.name)))
            || self.unidentified.keys().any(|kind| kind.is_none_or(|kind| concerns(kind, None)))
    }

    pub(crate) fn add(&mut self, key: ObjectKey) {
        self.objects.insert(key);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    pub(crate) fn set_unidentified(&mut self, kind: Option<Kind>, count: usize) {
        if count == 0 {
            self.unidentified.remove(&kind);
        } else {
            self.unidentified.insert(kind, count);
        }
    }

    /// Removes what a full list of a kind did not name.
    pub(crate) fn sweep(&mut self, kind: Kind, seen: &HashSet<NamespacedName>) {
        self.objects.retain(|key| key.kind != kind || seen.contains(&key.name));
    }
}
