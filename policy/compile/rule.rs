//! Compiled rules of policies.

use std::fmt;
use std::sync::Arc;

use super::address_ranges::AddressRanges;
use super::peer_set::PeerSetId;
use super::ports::RulePorts;

/// A compiled rule. Rules that can never match are omitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Its index among the policy's rules of the direction, as in `spec.ingress[0]`. Omitted rules count too.
    pub index: usize,
    /// Its name, which only rules of ClusterNetworkPolicies may have.
    pub name: Option<Arc<str>>,
    /// Its action.
    pub action: RuleAction,
    /// The peers: sources for ingress, destinations for egress.
    pub peers: RulePeers,
    /// The destination ports.
    pub ports: RulePorts,
}

/// Action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleAction {
    /// Allows the connection in this direction. The only action in NetworkPolicies.
    Accept,
    /// Denies the connection.
    Deny,
    /// Skips the rest of the tier, including its other policies.
    Pass,
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RuleAction::Accept => "Accept",
            RuleAction::Deny => "Deny",
            RuleAction::Pass => "Pass",
        })
    }
}

/// The union of a rule's peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulePeers {
    /// Matches every address; the other fields are then empty.
    pub any: bool,
    /// Pods and nodes that selectors match.
    pub pods: Option<PeerSetId>,
    /// Address ranges.
    pub blocks: AddressRanges,
}

impl RulePeers {
    /// Returns true if there are no peers.
    pub fn is_empty(&self) -> bool {
        !self.any && self.pods.is_none() && self.blocks.is_empty()
    }
}
