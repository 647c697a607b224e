//! The pods for which policies are compiled.

use portcullis_cluster::Name;
use portcullis_cluster::pod::Pod;

use super::address_index::is_live;

/// The pods for which policies are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Pods of one node, for enforcement on that node.
    Node(Name),
    /// Pods of all nodes, for commands about the whole cluster.
    Cluster,
}

impl Scope {
    /// Returns true if pods of this node are in scope.
    pub(super) fn includes_node(&self, node: Option<&Name>) -> bool {
        match self {
            Scope::Node(own) => node == Some(own),
            Scope::Cluster => true,
        }
    }

    /// Returns true if a pod is in scope.
    pub(super) fn includes_pod(&self, pod: &Pod) -> bool {
        is_live(pod) && self.includes_node(pod.node.as_ref())
    }
}
