//! Rules that log drops while an observer is connected, beside the rules that drop.
//!
//! ```text
//! observer connects ─► PolicyOptions::observed = group ─► one more rule before each rule that drops
//! observer leaves ───► None ─► the table as it was before
//! ```
//! The prefix of a logged packet names the counter of the rule that drops, from which [`super::PolicyTable::labels`] has
//! direction and policies.

use portcullis_netlink::nf_tables::{Rule, Table};

use super::options::PolicyOptions;
use super::rules::LOGGED_BYTES;
use crate::compile::Direction;

/// The comment of the rules. [`super::differences`] leaves rules with it out.
pub(super) const COMMENT: &str = "while drops are observed";

/// The greatest number of packets a second that each rule logs, and its burst.
const RATE: u32 = 10_000;
const BURST: u32 = 5_000;

/// The counter that a logged packet increments, from the prefix of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedDrop<'a> {
    /// The packet was not dropped: [`PolicyOptions::audit`] is set.
    pub is_audit: bool,
    /// The direction that is denied; `None` for packets that no policy can allow.
    pub direction: Option<Direction>,
    /// The name of the counter.
    pub counter: &'a str,
}

impl<'a> ObservedDrop<'a> {
    /// Parses the prefix of a logged packet; `None` if another rule logged it.
    pub fn parse(prefix: &'a str) -> Option<Self> {
        let (action, rest) = prefix.split_once(' ')?;
        let (direction, counter) = rest.split_once(' ')?;
        Some(ObservedDrop {
            is_audit: match action {
                "drop" => false,
                "audit" => true,
                _ => return None,
            },
            direction: match direction {
                "in" => Some(Direction::Ingress),
                "out" => Some(Direction::Egress),
                "-" => None,
                _ => return None,
            },
            counter,
        })
    }
}

/// Returns the rule that logs the packets which `start` matches, if drops are observed. `counter` is that of the rule that
/// drops them.
pub(super) fn log(
    start: &Rule,
    direction: Option<Direction>,
    counter: &str,
    options: &PolicyOptions,
) -> Option<Rule> {
    let group = options.observed?;
    let action = if options.audit { "audit" } else { "drop" };
    let direction = match direction {
        Some(Direction::Ingress) => "in",
        Some(Direction::Egress) => "out",
        None => "-",
    };
    // At most 126 bytes, of 127: the longest counters are those of ClusterNetworkPolicies.
    let prefix = format!("{action} {direction} {counter}");
    let rule = start.clone().limit_per_second(RATE, BURST).log(group, &prefix, LOGGED_BYTES);
    Some(rule.with_comment(COMMENT))
}

/// Removes the rules from a table, for comparisons.
pub(super) fn remove_from(table: &mut Table) {
    for chain in table.chains.values_mut() {
        chain.rules.retain(|rule| rule.comment() != Some(COMMENT));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_cluster::NamespacedName;

    use super::*;
    use crate::compile::{PolicyId, Profile, RulesId};

    #[test]
    fn prefixes_are_parsed_back_and_not_truncated() {
        let long = "x".repeat(253);
        let network = PolicyId::Network(NamespacedName::new(&"n".repeat(63), &long));
        let cluster = PolicyId::Cluster(Arc::from(&*long));
        let options = PolicyOptions { audit: true, observed: Some(5), ..PolicyOptions::default() };
        for direction in Direction::BOTH {
            let admin = Box::new([cluster.clone(), cluster.clone()]);
            let profile = Profile::new(direction, admin, Box::new([network.clone()]), Box::default());
            let names = [profile.name(), RulesId { policy: cluster.clone(), direction }.name()];
            for counter in names {
                let rule = log(&Rule::new(), Some(direction), &counter, &options).expect("it is observed");
                let text = rule.to_string();
                let prefix = text.split('"').nth(1).expect("a prefix in quotation marks");
                let expected = ObservedDrop { is_audit: true, direction: Some(direction), counter: &counter };
                assert_eq!(ObservedDrop::parse(prefix), Some(expected), "{text}");
            }
        }
    }

    #[test]
    fn other_prefixes_are_not_parsed() {
        for prefix in ["", "drop", "drop ingress NetworkPolicy a/b", "would drop in x", "x in y"] {
            assert_eq!(ObservedDrop::parse(prefix), None, "{prefix}");
        }
    }
}
