//! What becomes of a connection, and why: judged by addresses over the compiled values, as the kernel does.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::Protocol;

use crate::compile::{Action, Compiled, PolicyId, RulesId, Tier};

/// A new connection, after the address of a Service was replaced by that of its endpoint, and before the
/// source is masqueraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The source.
    pub from: IpAddr,
    /// The destination.
    pub to: IpAddr,
    /// The destination's port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// What both ends say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// At the source; `None` if it is not a judged pod's address.
    pub egress: Option<Decision>,
    /// At the destination; `None` if it is not a judged pod's address.
    pub ingress: Option<Decision>,
}

impl Judgement {
    /// Whether neither end stops it.
    pub fn is_allowed(&self) -> bool {
        [&self.egress, &self.ingress].into_iter().flatten().all(|d| d.verdict == Verdict::Allow)
    }
}

/// What one end says, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the connection may pass.
    pub verdict: Verdict,
    /// What decided.
    pub reason: Reason,
    /// Rules that passed it on to the next tier before that, at most one of each tier.
    pub passed: Box<[RuleRef]>,
}

/// Whether a connection may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Why a connection may pass or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No policy selects the pod in this direction.
    NotSelected,
    /// The other end is the node the pod is on.
    OwnNode,
    /// The other end is the pod itself, and NetworkPolicies let that pass.
    Itself,
    /// This rule matches.
    Rule(RuleRef),
    /// NetworkPolicies isolate the pod, and none of their rules matches: denied.
    NoRuleMatches {
        /// The policies that isolate it.
        policies: Box<[PolicyId]>,
    },
    /// No rule of a ClusterNetworkPolicy decides, and no NetworkPolicy isolates the pod: allowed.
    Undecided,
}

/// A rule, and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy and direction.
    pub rules: RulesId,
    /// Its tier.
    pub tier: Tier,
    /// Its place in the object, counted from 0, as in `spec.ingress[0]`.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Its action.
    pub action: Action,
}

impl Compiled {
    /// What becomes of a connection, by what is compiled.
    pub fn judge(&self, _connection: Connection) -> Judgement {
        Judgement { egress: None, ingress: None }
    }
}
