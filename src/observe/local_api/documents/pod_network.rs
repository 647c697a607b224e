//! The part of the status document about the pod network.

use serde::{Deserialize, Serialize};

use super::LimitedList;

/// The pod network of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodNetworkStatus {
    /// The way to pods of other nodes, as `--pod-network` spells it.
    pub(crate) mode: String,
    /// The wiring of pods, as `--pod-network-wiring` spells it.
    pub(crate) wiring: String,
    /// Traffic of pods to addresses outside of the pod network is masqueraded.
    pub(crate) masquerade: bool,
    /// Pods can be started on this node; `null` before the first sync.
    pub(crate) ready: Option<bool>,
    /// Why the node is not ready.
    pub(crate) reason: Option<String>,
    /// The MTU of pods' interfaces; `null` before the first sync, and if it cannot be determined.
    pub(crate) mtu: Option<u32>,
    /// The pod CIDRs of this node.
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Vec<String>,
    /// The use of their addresses; `null` before the first sync, and if the records of the CNI plugin cannot be read.
    pub(crate) addresses: Option<Vec<PodAddressesStatus>>,
    /// The number of nodes of the pod network, with this one; `null` before the first sync.
    pub(crate) nodes: Option<usize>,
    /// The nodes to whose pods this node has no route, at least of one IP family.
    pub(crate) unreachable_nodes: LimitedList<UnreachableNodeStatus>,
}

/// The use of the addresses of a pod CIDR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodAddressesStatus {
    /// The pod CIDR.
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: String,
    /// The number of addresses that pods hold.
    pub(crate) held: usize,
    /// The number of addresses that pods of another network plugin hold.
    pub(crate) other_plugin: usize,
    /// The number of free addresses; the largest number of 64 bits if there are more.
    pub(crate) free: u64,
}

/// A node to whose pods there is no route, at least of one IP family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnreachableNodeStatus {
    /// The name of the Node object.
    pub(crate) node: String,
    /// Why, as the label `reason` of the metric `portcullis_pod_network_unreachable_nodes`.
    pub(crate) reasons: Vec<String>,
    /// The same in one line of text.
    pub(crate) text: String,
}
