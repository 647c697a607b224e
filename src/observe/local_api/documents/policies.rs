//! The document of the policies that apply to the pods of this node.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LimitedList, TypeMeta};

/// The policies that apply to the pods of this node, and the packets that they dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoliciesDocument {
    /// `kind: Policies`
    #[serde(flatten)]
    pub(crate) meta: TypeMeta,
    /// The time of the document.
    pub(crate) time: Timestamp,
    /// Policies are enforced. If not, the lists are empty.
    pub(crate) enforced: bool,
    /// Packets are counted and not dropped.
    pub(crate) audit: bool,
    /// The pods of this node that are not on its network.
    pub(crate) pods: LimitedList<PodPolicies>,
    /// The packets that policies dropped, by the policies; `null` if the counters cannot be read.
    pub(crate) drops: Option<LimitedList<DroppedPackets>>,
}

/// The policies that select a pod, in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodPolicies {
    /// The pod, as `NAMESPACE/NAME`.
    pub(crate) pod: String,
    /// The policies for connections to the pod; empty if none selects it.
    pub(crate) ingress: Vec<String>,
    /// The policies for connections from the pod; empty if none selects it.
    pub(crate) egress: Vec<String>,
}

/// Dropped packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DroppedPackets {
    /// The policy that denies, or those that isolate the pod.
    pub(crate) policies: String,
    /// `ingress`, `egress`, or `null` for drops that belong to no direction.
    pub(crate) direction: Option<String>,
    /// Packets since the policy was written.
    pub(crate) packets: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}
