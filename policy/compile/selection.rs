//! Selection of the policies that apply to a pod.

use std::collections::{BTreeMap, HashMap};

use portcullis_cluster::cluster_network_policy::{self, ClusterNetworkPolicy, NamespacedPods};
use portcullis_cluster::label_selector::LabelSelector;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Index, Name, NamespacedName, sparse};

use super::address_index::namespace_labels;
use super::policy_id::{Direction, PolicyId};
use super::profile::Profile;
use super::translate;

/// All policies, in the order of evaluation.
#[derive(Default)]
pub(super) struct Selection {
    of_namespace: HashMap<Name, BTreeMap<NamespacedName, NetworkPolicySubject>>,
    /// ClusterNetworkPolicies by tier, priority and name. A cluster has few of them.
    cluster: Vec<ClusterPolicy>,
}

/// The parts of a NetworkPolicy that determine whether it isolates a pod.
#[derive(PartialEq)]
struct NetworkPolicySubject {
    pods: LabelSelector,
    /// True if it applies to ingress.
    ingress: bool,
    /// The same for egress.
    egress: bool,
}

/// The parts of a ClusterNetworkPolicy that determine whether it applies to a pod.
#[derive(PartialEq)]
struct ClusterPolicy {
    key: NamespacedName,
    tier: cluster_network_policy::Tier,
    priority: u16,
    subject: NamespacedPods,
    /// True if it has an ingress rule that can match. Without one it has no effect on ingress.
    ingress: bool,
    /// The same for egress.
    egress: bool,
}

/// The profiles of a pod in both directions.
pub(super) struct Selected {
    pub(super) ingress: Option<Profile>,
    pub(super) egress: Option<Profile>,
}

impl Selection {
    /// Updates a NetworkPolicy. Returns true if it may select other pods than before.
    pub(super) fn update_network_policy(&mut self, index: &Index, key: &NamespacedName) -> bool {
        if let Some(policy) = index.network_policy(key) {
            let subject = NetworkPolicySubject {
                pods: policy.pod_selector.clone(),
                ingress: policy.ingress.is_some(),
                egress: policy.egress.is_some(),
            };
            let policies = self.of_namespace.entry(key.namespace.clone()).or_default();
            if policies.get(key) == Some(&subject) {
                return false;
            }
            policies.insert(key.clone(), subject);
            return true;
        }
        let Some(policies) = self.of_namespace.get_mut(&key.namespace) else { return false };
        let existed = policies.remove(key).is_some();
        if policies.is_empty() {
            sparse::remove(&mut self.of_namespace, &key.namespace);
        }
        existed
    }

    /// Updates ClusterNetworkPolicies. Returns true if any of them may select other pods than before, or has another place in
    /// the order of evaluation.
    pub(super) fn update_cluster_policies(&mut self, index: &Index, keys: &[NamespacedName]) -> bool {
        let mut has_changed = false;
        for key in keys {
            let before = self.cluster.iter().position(|policy| policy.key == *key);
            let after = index.cluster_network_policy(key).map(ClusterPolicy::new);
            if before.map(|at| &self.cluster[at]) == after.as_ref() {
                continue;
            }
            has_changed = true;
            before.into_iter().for_each(|at| _ = self.cluster.remove(at));
            if let Some(policy) = after {
                let at = self.cluster.partition_point(|other| other.rank() < policy.rank());
                self.cluster.insert(at, policy);
            }
        }
        has_changed
    }

    /// Returns true if there is any ClusterNetworkPolicy.
    pub(super) fn has_cluster_policies(&self) -> bool {
        !self.cluster.is_empty()
    }

    /// Returns the profiles of a pod.
    pub(super) fn select(&self, index: &Index, pod: &Pod) -> Selected {
        let (mut ingress, mut egress) = (Tiers::default(), Tiers::default());
        for (key, subject) in self.of_namespace.get(&pod.key.namespace).into_iter().flatten() {
            if !subject.pods.matches(&pod.labels) {
                continue;
            }
            if subject.ingress {
                ingress.network.push(PolicyId::Network(key.clone()));
            }
            if subject.egress {
                egress.network.push(PolicyId::Network(key.clone()));
            }
        }
        if self.has_cluster_policies() {
            let labels = namespace_labels(index, &pod.key.namespace);
            for policy in &self.cluster {
                if !policy.subject.matches(&labels, &pod.labels) {
                    continue;
                }
                let id = || PolicyId::Cluster(policy.key.name.clone());
                if policy.ingress {
                    ingress.of_mut(policy.tier).push(id());
                }
                if policy.egress {
                    egress.of_mut(policy.tier).push(id());
                }
            }
        }
        Selected { ingress: ingress.profile(Direction::Ingress), egress: egress.profile(Direction::Egress) }
    }
}

impl ClusterPolicy {
    fn new(policy: &ClusterNetworkPolicy) -> Self {
        ClusterPolicy {
            key: policy.key.clone(),
            tier: policy.tier,
            priority: policy.priority,
            subject: policy.subject.clone(),
            ingress: translate::has_cluster_policy_rules(policy, Direction::Ingress),
            egress: translate::has_cluster_policy_rules(policy, Direction::Egress),
        }
    }

    /// Returns its place in the order of evaluation.
    fn rank(&self) -> (cluster_network_policy::Tier, u16, &str) {
        (self.tier, self.priority, &self.key.name)
    }
}

#[derive(Default)]
struct Tiers {
    admin: Vec<PolicyId>,
    network: Vec<PolicyId>,
    baseline: Vec<PolicyId>,
}

impl Tiers {
    fn of_mut(&mut self, tier: cluster_network_policy::Tier) -> &mut Vec<PolicyId> {
        match tier {
            cluster_network_policy::Tier::Admin => &mut self.admin,
            cluster_network_policy::Tier::Baseline => &mut self.baseline,
        }
    }

    fn profile(self, direction: Direction) -> Option<Profile> {
        // A NetworkPolicy always decides, so the Baseline tier is never evaluated after one.
        let baseline = if self.network.is_empty() { self.baseline } else { Vec::new() };
        let is_empty = self.admin.is_empty() && self.network.is_empty() && baseline.is_empty();
        (!is_empty).then(|| Profile::new(direction, self.admin.into(), self.network.into(), baseline.into()))
    }
}
