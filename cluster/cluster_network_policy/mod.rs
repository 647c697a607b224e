//! ClusterNetworkPolicies (`policy.networking.k8s.io/v1alpha2`), as specified; the policy crate evaluates them.
//!
//! An invalid field matches nothing, so it neither allows nor denies, and is reported with its consequence (`this Deny rule has
//! no effect`), for rules of every action. The API specifies to fail closed for a peer without a known field: a Deny or Pass
//! rule with such a peer should deny everything. This is intentionally not implemented: such a peer would disconnect all pods
//! of the subject, also from DNS and the API server, in a cluster that was only upgraded.

pub(crate) mod raw;
mod raw_port;

use std::sync::Arc;

use ipnet::IpNet;

use crate::label_selector::LabelSelector;
use crate::labels::Labels;
use crate::name::{Name, NamespacedName};
use crate::protocol::Protocol;

/// A ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterNetworkPolicy {
    /// Its name (the namespace is empty).
    pub key: NamespacedName,
    /// The tier in which it is evaluated.
    pub tier: Tier,
    /// Its priority in the tier, from 0 to 1000; the lowest is evaluated first.
    pub priority: u16,
    /// The pods to which it applies; none if the subject, the tier or the priority is invalid.
    pub subject: NamespacedPods,
    /// The ingress rules; the first rule that matches decides.
    pub ingress: Box<[ClusterNetworkPolicyRule]>,
    /// The egress rules; the first rule that matches decides.
    pub egress: Box<[ClusterNetworkPolicyRule]>,
}

/// A tier of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Evaluated before NetworkPolicies.
    Admin,
    /// Evaluated after NetworkPolicies, for pods that no NetworkPolicy selects.
    Baseline,
}

/// Pods selected by their labels and those of their namespaces. Never includes pods on the host network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacedPods {
    /// Selects the namespaces.
    pub namespaces: LabelSelector,
    /// Selects the pods.
    pub pods: LabelSelector,
}

impl NamespacedPods {
    /// Returns a value that selects no pods.
    pub fn none() -> Self {
        NamespacedPods { namespaces: LabelSelector::nothing(), pods: LabelSelector::nothing() }
    }

    /// Returns true if it selects a pod with these labels in a namespace with these labels.
    pub fn matches(&self, namespace: &Labels, pod: &Labels) -> bool {
        self.namespaces.matches(namespace) && self.pods.matches(pod)
    }
}

/// A rule: applies to any of the peers on any of the ports.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterNetworkPolicyRule {
    /// Its name.
    pub name: Option<Arc<str>>,
    /// The action for connections that it matches.
    pub action: ClusterNetworkPolicyAction,
    /// The valid peers; without any, the rule matches nothing.
    pub peers: Box<[ClusterNetworkPolicyPeer]>,
    /// The valid ports; `None` for every port of every protocol.
    pub ports: Option<Box<[ClusterNetworkPolicyPort]>>,
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterNetworkPolicyAction {
    /// The connection is allowed in this direction.
    Accept,
    /// The connection is denied.
    Deny,
    /// The rest of the tier is skipped.
    Pass,
}

/// A peer of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterNetworkPolicyPeer {
    /// Pods.
    Pods(NamespacedPods),
    /// Nodes by their labels; only in egress rules.
    Nodes(LabelSelector),
    /// Address blocks; only in egress rules.
    Networks(Box<[IpNet]>),
}

/// A port, or a range of ports, that a rule matches.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterNetworkPolicyPort {
    /// By number.
    Range {
        /// The protocol.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// A named port of each destination pod, of any protocol.
    Named(Name),
}
