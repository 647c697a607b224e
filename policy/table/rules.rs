//! Rendering of policy rules as nf_tables rules.

use std::sync::Arc;

use portcullis_cluster::Protocol;
use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Chain, Field, Rule, Verdict};

use super::edit::ChainWithSets;
use super::group_sets::UsedGroups;
use super::names::{ALLOW, of_family};
use super::observed;
use super::options::{DropLog, PolicyOptions};
use super::peers::PeerGroup;
use super::priority::PRIORITY;
use super::shared_sets::{self, UsedSets};
use crate::compile::{BlocksId, Direction, PolicyRule, ProtocolPorts, RuleAction, RulePorts, RulesId};

/// Length of the logged part of a packet: the headers.
pub(super) const LOGGED_BYTES: u32 = 128;

/// Returns the verdict that allows a connection in one direction.
pub(super) fn allowed() -> Verdict {
    Verdict::goto(ALLOW)
}

/// Returns the rules that deny packets: log, count and drop. Each starts with the matches of `start`. `reason` is part of
/// the log prefix.
pub(super) fn denied(
    start: &Rule,
    direction: Direction,
    counter: &str,
    reason: &str,
    options: &PolicyOptions,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    if let Some(DropLog { group, rate }) = options.log {
        let action = if options.audit { "would drop" } else { "drop" };
        let prefix = format!("{action} {direction} {reason}");
        rules.push(start.clone().limit_per_second(rate, rate.max(5)).log(group, &prefix, LOGGED_BYTES));
    }
    rules.extend(observed::log(start, Some(direction), counter, options));
    let verdict = if options.audit { allowed() } else { Verdict::Drop };
    rules.push(start.clone().counter(counter).then(verdict));
    rules
}

/// Returns the chain of a NetworkPolicy's rules in one direction.
pub(super) fn policy_chain(id: &RulesId, rules: &[PolicyRule], options: &PolicyOptions) -> ChainWithSets {
    chain_of_rules(id.name().into(), &id.describe(), [(id, rules)], options)
}

/// Returns a chain with the rules of policies in this order.
pub(super) fn chain_of_rules<'a>(
    name: Arc<str>,
    comment: &str,
    policies: impl IntoIterator<Item = (&'a RulesId, &'a [PolicyRule])>,
    options: &PolicyOptions,
) -> ChainWithSets {
    let (sets, groups) = (UsedSets::new(), UsedGroups::new());
    let mut renderer = RuleRenderer { options, sets, groups, rules: Vec::new() };
    policies.into_iter().for_each(|(id, rules)| renderer.add(id, rules));
    let RuleRenderer { sets, groups, rules, .. } = renderer;
    ChainWithSets { name, chain: Chain::new(rules).with_comment(comment), sets, groups }
}

/// Renders policy rules. Each becomes one nf_tables rule for each combination of family, kind of peers and protocol.
struct RuleRenderer<'a> {
    options: &'a PolicyOptions,
    sets: UsedSets,
    groups: UsedGroups,
    rules: Vec<Rule>,
}

impl RuleRenderer<'_> {
    /// Adds a policy's rules.
    fn add(&mut self, id: &RulesId, rules: &[PolicyRule]) {
        for rule in rules {
            for matched in self.matches(id, rule) {
                match rule.action {
                    RuleAction::Accept => self.rules.push(matched.then(allowed())),
                    // Returns from the chain of the whole tier.
                    RuleAction::Pass => self.rules.push(matched.then(Verdict::Return)),
                    RuleAction::Deny => {
                        let policy = id.policy.to_string();
                        self.rules.extend(denied(&matched, id.direction, &id.name(), &policy, self.options));
                    }
                }
            }
        }
    }

    /// Returns all matches of a policy rule, without a verdict.
    fn matches(&mut self, id: &RulesId, rule: &PolicyRule) -> Vec<Rule> {
        let mut matches = Vec::new();
        for (family, matched) in self.peers(id, rule) {
            match &rule.ports {
                RulePorts::Any => matches.push(matched),
                RulePorts::Listed { numeric, named } => {
                    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                        matches.extend(self.ports(&matched, protocol, numeric.by_protocol(protocol)));
                    }
                    for port in named {
                        let families: &[Family] = match &family {
                            Some(family) => std::slice::from_ref(family),
                            None => &Family::ALL,
                        };
                        for set_family in families {
                            // The peers may have matched the family already.
                            let matched = match family {
                                Some(_) => matched.clone(),
                                None => matched.clone().family(*set_family),
                            };
                            let key = [Field::Destination(*set_family), Field::DestinationPort];
                            let set = of_family(&port.name(), *set_family);
                            matches.push(matched.protocol(port.protocol.number()).is_in(&key, set));
                        }
                    }
                }
            }
        }
        matches
    }

    /// Returns the matches of a policy rule's peers, each with its family if it has one. The priority is the identity of the
    /// peer.
    fn peers(&mut self, id: &RulesId, rule: &PolicyRule) -> Vec<(Option<Family>, Rule)> {
        if rule.peers.any {
            return vec![(None, Rule::new())];
        }
        let whole =
            [(Family::V4, rule.peers.blocks.is_whole_v4()), (Family::V6, rule.peers.blocks.is_whole_v6())];
        let whole = whole.into_iter().filter(|(_, is_whole)| *is_whole);
        let mut matches: Vec<_> =
            whole.map(|(family, _)| (Some(family), Rule::new().family(family))).collect();
        let pods = rule.peers.pods.clone().map(|id| (PeerGroup::Set(id.clone()), id.describe()));
        let blocks = BlocksId::from_rule(id, rule).map(|id| {
            let comment = id.describe(&rule.peers.blocks);
            (PeerGroup::Blocks(id), comment)
        });
        for (group, comment) in pods.into_iter().chain(blocks) {
            matches.push((None, Rule::new().is_in(&[PRIORITY], group.set_name())));
            self.groups.insert(group, comment);
        }
        matches
    }

    fn ports(&mut self, peers: &Rule, protocol: Protocol, ports: &ProtocolPorts) -> Option<Rule> {
        let rule = peers.clone().protocol(protocol.number());
        match ports {
            ProtocolPorts::All => Some(rule),
            ProtocolPorts::Ranges(ranges) => match &**ranges {
                [] => None,
                [(first, last)] => Some(rule.between(Field::DestinationPort, *first, *last)),
                several => {
                    Some(rule.is_in(&[Field::DestinationPort], shared_sets::ports(several, &mut self.sets)))
                }
            },
        }
    }
}
