//! Selection of the policies that apply to a pod.

use std::collections::{BTreeSet, HashMap};

use portcullis_cluster::cluster_network_policy::{self, ClusterNetworkPolicy};
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Index, Name, NamespacedName, sparse};

use super::address_index::namespace_labels;
use super::policy_id::{Direction, PolicyId};
use super::profile::Profile;
use super::translate;

/// All policies, in the order of evaluation.
#[derive(Default)]
pub(super) struct Selection {
    of_namespace: HashMap<Name, BTreeSet<NamespacedName>>,
    /// ClusterNetworkPolicies by tier, priority and name. A cluster has few of them.
    cluster: Vec<ClusterPolicy>,
}

struct ClusterPolicy {
    key: NamespacedName,
    tier: cluster_network_policy::Tier,
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
    /// Updates whether a NetworkPolicy exists.
    pub(super) fn update_network_policy(&mut self, index: &Index, key: &NamespacedName) {
        if index.network_policy(key).is_some() {
            self.of_namespace.entry(key.namespace.clone()).or_default().insert(key.clone());
        } else if let Some(policies) = self.of_namespace.get_mut(&key.namespace) {
            policies.remove(key);
            if policies.is_empty() {
                sparse::remove(&mut self.of_namespace, &key.namespace);
            }
        }
    }

    /// Updates all ClusterNetworkPolicies.
    pub(super) fn update_cluster_policies(&mut self, index: &Index) {
        let mut policies: Vec<&ClusterNetworkPolicy> = index.cluster_network_policies().collect();
        policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.key.name));
        let has_rules = |policy: &ClusterNetworkPolicy, direction| {
            !translate::cluster_policy_rules(policy, direction).is_empty()
        };
        self.cluster = policies
            .into_iter()
            .map(|policy| ClusterPolicy {
                key: policy.key.clone(),
                tier: policy.tier,
                ingress: has_rules(policy, Direction::Ingress),
                egress: has_rules(policy, Direction::Egress),
            })
            .collect();
    }

    /// Returns true if there is any ClusterNetworkPolicy.
    pub(super) fn has_cluster_policies(&self) -> bool {
        !self.cluster.is_empty()
    }

    /// Returns the profiles of a pod.
    pub(super) fn select(&self, index: &Index, pod: &Pod) -> Selected {
        let (mut ingress, mut egress) = (Tiers::default(), Tiers::default());
        for key in self.of_namespace.get(&pod.key.namespace).into_iter().flatten() {
            let Some(policy) = index.network_policy(key) else { continue };
            if !policy.pod_selector.matches(&pod.labels) {
                continue;
            }
            if policy.ingress.is_some() {
                ingress.network.push(PolicyId::Network(key.clone()));
            }
            if policy.egress.is_some() {
                egress.network.push(PolicyId::Network(key.clone()));
            }
        }
        if self.has_cluster_policies() {
            let labels = namespace_labels(index, &pod.key.namespace);
            for ClusterPolicy { key, tier, ingress: has_ingress, egress: has_egress } in &self.cluster {
                let Some(policy) = index.cluster_network_policy(key) else { continue };
                if !policy.subject.matches(&labels, &pod.labels) {
                    continue;
                }
                let id = || PolicyId::Cluster(key.name.clone());
                if *has_ingress {
                    ingress.of_mut(*tier).push(id());
                }
                if *has_egress {
                    egress.of_mut(*tier).push(id());
                }
            }
        }
        Selected { ingress: ingress.profile(Direction::Ingress), egress: egress.profile(Direction::Egress) }
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
        let profile = Profile {
            direction,
            admin: self.admin.into(),
            network: self.network.into(),
            baseline: baseline.into(),
        };
        (!profile.is_empty()).then_some(profile)
    }
}
