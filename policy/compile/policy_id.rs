//! What names a policy, and its rules of one direction.

use std::fmt;
use std::sync::Arc;

use portcullis_cluster::NamespacedName;

use super::identifier::{Digest, comment, identifier};

/// Which way a connection goes, as seen from the pod that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// `ingress` or `egress`, as fields of the API spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// `in` or `out`, for names that must be short.
    pub(super) fn short(self) -> &'static str {
        match self {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The tiers, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyTier {
    /// ClusterNetworkPolicies before all others.
    Admin,
    /// NetworkPolicies.
    Network,
    /// ClusterNetworkPolicies for pods that no NetworkPolicy selects.
    Baseline,
}

impl fmt::Display for PolicyTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PolicyTier::Admin => "Admin",
            PolicyTier::Network => "NetworkPolicy",
            PolicyTier::Baseline => "Baseline",
        })
    }
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyId {
    /// The NetworkPolicy of this namespace and name.
    Network(NamespacedName),
    /// The ClusterNetworkPolicy of this name.
    Cluster(Arc<str>),
}

impl PolicyId {
    /// `namespace/name`, or the name alone of a ClusterNetworkPolicy.
    pub(super) fn short(&self) -> String {
        match self {
            PolicyId::Network(name) => name.to_string(),
            PolicyId::Cluster(name) => name.to_string(),
        }
    }

    pub(super) fn feed(&self, digest: &mut Digest) {
        match self {
            PolicyId::Network(name) => {
                digest.part("NetworkPolicy").part(name.namespace.as_str()).part(&name.name)
            }
            PolicyId::Cluster(name) => digest.part("ClusterNetworkPolicy").part("").part(name),
        };
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyId::Network(name) => write!(f, "NetworkPolicy {name}"),
            PolicyId::Cluster(name) => write!(f, "ClusterNetworkPolicy {name}"),
        }
    }
}

impl fmt::Debug for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The rules of a policy in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RulesId {
    /// Whose rules.
    pub policy: PolicyId,
    /// Which of them.
    pub direction: Direction,
}

impl RulesId {
    /// An identifier for nf_tables; says which policy and direction, not what the rules are.
    pub fn name(&self) -> String {
        let mut digest = Digest::new("rules");
        self.policy.feed(&mut digest);
        digest.part(self.direction.as_str());
        let prefix = match self.policy {
            PolicyId::Network(_) => "policy",
            PolicyId::Cluster(_) => "cluster-policy",
        };
        identifier(&format!("{prefix}-{}", self.direction.short()), &self.policy.short(), &digest.finish())
    }

    /// What it is, in words for a comment: at most 128 bytes.
    pub fn describe(&self) -> String {
        comment(self.to_string())
    }
}

impl fmt::Display for RulesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.direction)
    }
}
