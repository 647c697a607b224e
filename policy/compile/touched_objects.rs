//! Objects that an update must compile again.

use std::collections::BTreeSet;

use portcullis_cluster::{Index, Kind, Name, NamespacedName, ObjectKey};

use super::dirty_objects::DirtyPolicyObjects;

/// Objects that may have changed.
#[derive(Default)]
pub(super) struct TouchedObjects {
    pub(super) pods: Vec<NamespacedName>,
    pub(super) namespaces: Vec<Name>,
    pub(super) network_policies: Vec<NamespacedName>,
    pub(super) cluster_policies: Vec<NamespacedName>,
    pub(super) nodes: BTreeSet<Name>,
}

impl TouchedObjects {
    /// Returns the objects that were touched in an index.
    pub(super) fn from_index_changes(touched: &DirtyPolicyObjects) -> Self {
        let mut work = TouchedObjects { nodes: touched.nodes.clone(), ..TouchedObjects::default() };
        for ObjectKey { kind, name } in &touched.objects {
            match kind {
                Kind::Pod => work.pods.push(name.clone()),
                Kind::Namespace => work.namespaces.push(Name::new(&name.name)),
                Kind::NetworkPolicy => work.network_policies.push(name.clone()),
                Kind::ClusterNetworkPolicy => work.cluster_policies.push(name.clone()),
                _ => {}
            }
        }
        work
    }

    /// Returns all objects of an index.
    pub(super) fn all(index: &Index) -> Self {
        TouchedObjects {
            pods: index.pods().map(|pod| pod.key.clone()).collect(),
            // Namespaces only affect their pods, all of which are included.
            namespaces: Vec::new(),
            network_policies: index.network_policies().map(|policy| policy.key.clone()).collect(),
            cluster_policies: index.cluster_network_policies().map(|policy| policy.key.clone()).collect(),
            nodes: index.nodes().map(|node| node.name.clone()).collect(),
        }
    }

    /// Returns true if nothing was touched.
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.namespaces.is_empty()
            && self.network_policies.is_empty()
            && self.cluster_policies.is_empty()
            && self.nodes.is_empty()
    }
}
