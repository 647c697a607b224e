//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`), as written; who may talk to whom is computed
//! elsewhere.
//!
//! A field that cannot be understood matches nothing, so that it neither allows nor denies, and is reported with
//! its consequence (`this Deny rule has no effect`). That goes for rules of each action. The API's own words for a peer of which no known field is set are to
//! fail closed: a Deny or Pass rule with one should deny everything. That is not done, on purpose: one such
//! peer would cut all pods of the subject off, their node's DNS and API server included, in a cluster that
//! was only upgraded. The rule is reported instead.

mod raw;

use std::sync::Arc;

use ipnet::IpNet;

use crate::label_selector::LabelSelector;
use crate::labels::Labels;
use crate::name::{Name, NamespacedName};
use crate::protocol::Protocol;

pub(crate) use raw::RawClusterNetworkPolicy;

/// A ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterNetworkPolicy {
    /// Its name (the namespace is empty).
    pub key: NamespacedName,
    /// When it is asked.
    pub tier: Tier,
    /// Its place in the tier, from 0 to 1000; the lowest comes first.
    pub priority: u16,
    /// The pods that it is about. Nobody, where this, the tier or the priority could not be understood.
    pub subject: NamespacedPods,
    /// What becomes of what comes in; the first rule that matches decides.
    pub ingress: Box<[ClusterNetworkPolicyRule]>,
    /// What becomes of what goes out; the first rule that matches decides.
    pub egress: Box<[ClusterNetworkPolicyRule]>,
}

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Before the NetworkPolicies.
    Admin,
    /// After them, for pods that none of them selects.
    Baseline,
}

/// Pods by their labels and those of their namespaces. Pods on the host network are never among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacedPods {
    /// Of which namespaces.
    pub namespaces: LabelSelector,
    /// Which of them.
    pub pods: LabelSelector,
}

impl NamespacedPods {
    /// None at all.
    pub fn none() -> Self {
        NamespacedPods { namespaces: LabelSelector::nothing(), pods: LabelSelector::nothing() }
    }

    /// Whether a pod with these labels, in a namespace with these, is among them.
    pub fn matches(&self, namespace: &Labels, pod: &Labels) -> bool {
        self.namespaces.matches(namespace) && self.pods.matches(pod)
    }
}

/// One rule: any of the peers on any of the ports.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterNetworkPolicyRule {
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// What becomes of a connection that it matches.
    pub action: ClusterNetworkPolicyAction,
    /// The peers that could be understood; none: the rule matches nothing.
    pub peers: Box<[ClusterNetworkPolicyPeer]>,
    /// The ports that could be understood; `None` is every port of every protocol.
    pub ports: Option<Box<[ClusterNetworkPolicyPort]>>,
}

/// What becomes of a connection that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterNetworkPolicyAction {
    /// It may pass, as far as this direction is concerned.
    Accept,
    /// It may not.
    Deny,
    /// The rest of the tier is skipped.
    Pass,
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterNetworkPolicyPeer {
    /// Pods.
    Pods(NamespacedPods),
    /// Nodes by their labels; only in egress rules.
    Nodes(LabelSelector),
    /// Address blocks; only in egress rules.
    Networks(Box<[IpNet]>),
}

/// Ports that a rule matches.
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
    /// By name, in each destination pod, whatever the protocol it has there.
    Named(Name),
}
