//! Identity of the address ranges of a rule.

use std::net::IpAddr;

use super::address_ranges::AddressRanges;
use super::identifier::{Digest, comment, identifier};
use super::policy_id::RulesId;
use super::rule::PolicyRule;

/// Rules with equal ranges share an identity if these are not more.
const SHARED: usize = 64;

/// Identity of the address ranges of a rule. A short list is identified by its content, since many policies have the same
/// one; a long list by its rule, so that a change of it is a change of its members only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlocksId {
    /// By content.
    Content([u8; 16]),
    /// The ranges of a policy's rule.
    Rule {
        /// The policy and direction.
        rules: RulesId,
        /// The index of the rule.
        index: usize,
    },
}

impl BlocksId {
    /// Returns the identity of a rule's ranges; `None` if it has none. Ranges that are a whole family do not count.
    pub fn from_rule(id: &RulesId, rule: &PolicyRule) -> Option<Self> {
        let ranges = &rule.peers.blocks;
        let count = ranges.partial_v4().len() + ranges.partial_v6().len();
        match count {
            0 => None,
            count if count > SHARED => Some(BlocksId::Rule { rules: id.clone(), index: rule.index }),
            _ => {
                let mut digest = Digest::new("blocks");
                let bounds = |digest: &mut Digest, first: IpAddr, last: IpAddr| {
                    digest.part(&first.to_string()).part(&last.to_string());
                };
                ranges.partial_v4().iter().for_each(|(a, b)| bounds(&mut digest, (*a).into(), (*b).into()));
                ranges.partial_v6().iter().for_each(|(a, b)| bounds(&mut digest, (*a).into(), (*b).into()));
                Some(BlocksId::Content(digest.finish()))
            }
        }
    }

    /// Returns the name of the nf_tables set.
    pub fn name(&self) -> String {
        match self {
            BlocksId::Content(digest) => identifier("blocks", "shared", digest),
            BlocksId::Rule { rules, index } => {
                let mut digest = Digest::new("blocks of a rule");
                digest.part(&rules.name()).part(&index.to_string());
                let readable = format!("{}/{index}", rules.policy.short());
                identifier(&format!("blocks-{}", rules.direction.short()), &readable, &digest.finish())
            }
        }
    }

    /// Returns a description for a comment, of at most 128 bytes. `ranges` are those of a rule with this identity.
    pub fn describe(&self, ranges: &AddressRanges) -> String {
        match self {
            BlocksId::Content(_) => {
                let v4 = ranges.partial_v4().iter().map(|(a, b)| (IpAddr::from(*a), IpAddr::from(*b)));
                let v6 = ranges.partial_v6().iter().map(|(a, b)| (IpAddr::from(*a), IpAddr::from(*b)));
                let bounds: Vec<String> = v4.chain(v6).take(8).map(|(a, b)| format!("{a}-{b}")).collect();
                comment(bounds.join(", "))
            }
            BlocksId::Rule { rules, index } => {
                comment(format!("rule {index} of {}, {}", rules.policy, rules.direction))
            }
        }
    }
}
