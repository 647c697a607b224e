//! A rule, compiled.

use std::fmt;
use std::sync::Arc;

use super::address_ranges::AddressRanges;
use super::peer_set::PeerSetId;
use super::ports::RulePorts;

/// A rule that can match something. Rules that cannot are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Its place among the policy's rules of the direction, counted from 0, as in `spec.ingress[0]`. Those
    /// left out count too.
    pub index: usize,
    /// Its name, which only rules of ClusterNetworkPolicies may have.
    pub name: Option<Arc<str>>,
    /// What becomes of a connection that it matches.
    pub action: RuleAction,
    /// Who is at the other end.
    pub peers: RulePeers,
    /// Which ports at the destination.
    pub ports: RulePorts,
}

/// What becomes of a connection that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleAction {
    /// It may pass, as far as this direction is concerned. The only action in NetworkPolicies.
    Accept,
    /// It may not.
    Deny,
    /// The rest of the tier is skipped, also its other policies.
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

/// Who is at the other end: the union of a rule's peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulePeers {
    /// Every address. Then there is nothing else.
    pub any: bool,
    /// Those found by selectors.
    pub pods: Option<PeerSetId>,
    /// Those in address blocks.
    pub blocks: AddressRanges,
}

impl RulePeers {
    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        !self.any && self.pods.is_none() && self.blocks.is_empty()
    }
}
