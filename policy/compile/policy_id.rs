//! Identity of policies, of their rules in one direction, and of tiers.

use std::fmt;
use std::sync::Arc;

use portcullis_cluster::{Kind, NamespacedName, ObjectKey};

use super::identifier::{Digest, comment, identifier};

/// Direction of a connection, as seen from the pod that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// Returns `ingress` or `egress`, as the API's fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// Returns `in` or `out`, for short names.
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

/// Tiers of policies, in the order of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyTier {
    /// ClusterNetworkPolicies that are evaluated before all other policies.
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

/// Identity of a policy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyId {
    /// The NetworkPolicy of this namespace and name.
    Network(NamespacedName),
    /// The ClusterNetworkPolicy of this name.
    Cluster(Arc<str>),
}

impl PolicyId {
    /// Returns the key of the object.
    pub fn object_key(&self) -> ObjectKey {
        match self {
            PolicyId::Network(name) => ObjectKey { kind: Kind::NetworkPolicy, name: name.clone() },
            PolicyId::Cluster(name) => {
                ObjectKey { kind: Kind::ClusterNetworkPolicy, name: NamespacedName::new("", name) }
            }
        }
    }

    /// Returns `namespace/name`, or the name of a ClusterNetworkPolicy.
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

/// Identity of the rules of a policy in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RulesId {
    /// The policy.
    pub policy: PolicyId,
    /// The direction.
    pub direction: Direction,
}

impl RulesId {
    /// Returns the name of the nf_tables chain. It depends on the policy and direction, not on the rules.
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

    /// Returns a description for a comment, of at most 128 bytes.
    pub fn describe(&self) -> String {
        comment(self.to_string())
    }
}

impl fmt::Display for RulesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.direction)
    }
}
