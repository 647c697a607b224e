//! Measurements of a sync for metrics that only one controller has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_cluster::{Family, Name};
use portcullis_modes::TableRuleCounts;
use portcullis_podnet::node_routes::NodeProblem;
use portcullis_policy::table::{DropLabels, EvaluationCounts};

/// Measurements of a sync.
#[derive(Debug, Default)]
pub(crate) enum Measurements {
    /// None.
    #[default]
    None,
    /// Of a sync of Services.
    Services(ServiceMeasurements),
    /// Of a sync of policies.
    Policies(PolicyMeasurements),
    /// Of a sync of the pod network.
    PodNetwork(PodNetworkMeasurements),
}

/// Measurements of a sync of Services.
#[derive(Debug, Default)]
pub(crate) struct ServiceMeasurements {
    /// The number of rules by table, in modes with iptables rules.
    pub(crate) tables: Vec<(Family, TableRuleCounts)>,
    /// The families of which `iptables-restore` failed.
    pub(crate) failed_restores: Vec<Family>,
    /// The duration of the search for stale flows, and their number in each family that was read.
    pub(crate) stale_flows: Option<(Duration, Vec<(Family, usize)>)>,
    /// The times from the changes of pods or Services to their rules.
    pub(crate) programming_latencies: Vec<Duration>,
    /// The numbers of unserved frontends, if they changed.
    pub(crate) unserved: Option<UnservedCounts>,
    /// The number of ports without local endpoints in each family, if it may have changed.
    pub(crate) without_local_endpoints: Vec<(Family, PortsWithoutLocalEndpoints)>,
}

/// The numbers of frontends that are not served, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnservedCounts {
    /// Another Service claims the same one.
    pub(crate) shadowed: usize,
    /// The address is outside of the allowed ranges.
    pub(crate) not_allowed: usize,
}

/// The numbers of Service ports with traffic policy `Local` that have endpoints, but none on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortsWithoutLocalEndpoints {
    /// By `internalTrafficPolicy`.
    pub(crate) internal: usize,
    /// By `externalTrafficPolicy`.
    pub(crate) external: usize,
}

/// Labels of the drop counters of the policy table, by the counter's name.
pub(crate) type DropCounterLabels = Arc<BTreeMap<Arc<str>, DropLabels>>;

/// Measurements of a sync of policies.
#[derive(Debug)]
pub(crate) struct PolicyMeasurements {
    /// The number of pods on this node.
    pub(crate) pods: usize,
    /// How many of the pods are isolated by a policy.
    pub(crate) isolated_pods: usize,
    /// The number of terminated connections.
    pub(crate) terminated: usize,
    /// How profiles are evaluated.
    pub(crate) evaluation: EvaluationCounts,
    /// The labels of the table's drop counters.
    pub(crate) drop_labels: DropCounterLabels,
}

/// Measurements of a sync of the pod network.
#[derive(Debug)]
pub(crate) struct PodNetworkMeasurements {
    /// The number of nodes.
    pub(crate) nodes: usize,
    /// Why pods of nodes cannot be reached, by node.
    pub(crate) problems: BTreeMap<Name, Vec<NodeProblem>>,
    /// The number of nodes of which the kernel rejects an object.
    pub(crate) rejected: usize,
    /// The pod network of this node is ready.
    pub(crate) is_ready: bool,
    /// The MTU of pods' interfaces, if it is known.
    pub(crate) mtu: Option<u32>,
    /// The number of attachments of ended pods whose addresses were returned.
    pub(crate) leaked_attachments: usize,
    /// Where the use of pod addresses is read.
    pub(crate) addresses: PodAddressSource,
}

/// The reason of nodes of which the kernel rejects an object, beside [`NodeProblem::REASONS`].
pub(crate) const REJECTED_NODE: &str = "rejected";

impl PodNetworkMeasurements {
    /// Returns the number of nodes with each kind of problem.
    pub(crate) fn problem_counts(&self) -> Vec<(&'static str, usize)> {
        let count = |reason: &'static str| {
            let has =
                |problems: &&Vec<NodeProblem>| problems.iter().any(|problem| problem.reason() == reason);
            (reason, self.problems.values().filter(has).count())
        };
        NodeProblem::REASONS.into_iter().map(count).collect()
    }
}

/// Where the use of the addresses of this node's pods is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodAddressSource {
    /// The folder of the plugin's records.
    pub(crate) state_dir: PathBuf,
    /// The pod CIDRs of this node.
    pub(crate) pod_cidrs: Vec<IpNet>,
}
