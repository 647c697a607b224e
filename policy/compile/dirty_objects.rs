//! Changes that affect policies, collected until the next update of the compiler.

use std::collections::BTreeSet;

use portcullis_cluster::{Change, Kind, Name, ObjectKey};

/// The objects of changes that affect policies, since the last update of the compiler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirtyPolicyObjects {
    /// Pods, namespaces and policies that changed.
    pub objects: BTreeSet<ObjectKey>,
    /// Nodes that changed.
    pub nodes: BTreeSet<Name>,
}

impl DirtyPolicyObjects {
    /// The kinds of objects that affect policies. All have to be listed before policies can be enforced, as unknown peers
    /// would be denied.
    pub const KINDS: [Kind; 5] =
        [Kind::Node, Kind::Namespace, Kind::Pod, Kind::NetworkPolicy, Kind::ClusterNetworkPolicy];

    /// Adds a change. Changes of other kinds are ignored.
    pub fn add(&mut self, change: &Change) {
        match change.key.kind {
            Kind::Node => _ = self.nodes.insert(change.cluster_scoped_name()),
            kind if Self::KINDS.contains(&kind) => _ = self.objects.insert(change.key.clone()),
            _ => {}
        }
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        *self == DirtyPolicyObjects::default()
    }
}

impl Extend<Change> for DirtyPolicyObjects {
    fn extend<I: IntoIterator<Item = Change>>(&mut self, changes: I) {
        changes.into_iter().for_each(|change| self.add(&change));
    }
}
