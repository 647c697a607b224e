//! Rendering of policy rules as nf_tables rules.

use std::sync::Arc;

use portcullis_cluster::Protocol;
use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Chain, Field, Rule, Verdict};

use super::edit::ChainWithSets;
use super::names::{INGRESS, of_family};
use super::observed;
use super::options::{DropLog, PolicyOptions};
use super::shared_sets::{self, UsedSets};
use crate::compile::{Direction, PolicyRule, ProtocolPorts, RuleAction, RulePorts, RulesId};

/// Length of the logged part of a packet: the headers.
pub(super) const LOGGED_BYTES: u32 = 128;

/// Returns the verdict that allows a connection in this direction. After egress, ingress must be evaluated.
pub(super) fn allowed(direction: Direction) -> Verdict {
    match direction {
        Direction::Egress => Verdict::goto(INGRESS),
        Direction::Ingress => Verdict::Accept,
    }
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
    let verdict = if options.audit { allowed(direction) } else { Verdict::Drop };
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
    let mut renderer = RuleRenderer { options, sets: UsedSets::new(), rules: Vec::new() };
    policies.into_iter().for_each(|(id, rules)| renderer.add(id, rules));
    ChainWithSets { name, chain: Chain::new(renderer.rules).with_comment(comment), sets: renderer.sets }
}

/// Renders policy rules. Each becomes one nf_tables rule for each combination of family, kind of peers and protocol.
struct RuleRenderer<'a> {
    options: &'a PolicyOptions,
    sets: UsedSets,
    rules: Vec<Rule>,
}

impl RuleRenderer<'_> {
    /// Adds a policy's rules.
    fn add(&mut self, id: &RulesId, rules: &[PolicyRule]) {
        for rule in rules {
            for matched in self.matches(rule, id.direction) {
                match rule.action {
                    RuleAction::Accept => self.rules.push(matched.then(allowed(id.direction))),
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
    fn matches(&mut self, rule: &PolicyRule, direction: Direction) -> Vec<Rule> {
        let mut matches = Vec::new();
        for (family, matched) in self.peers(rule, direction) {
            match &rule.ports {
                RulePorts::Any => matches.push(matched),
                RulePorts::Listed { numeric, named } => {
                    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                        matches.extend(self.ports(&matched, protocol, numeric.by_protocol(protocol)));
                    }
                    for id in named {
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
                            let set = of_family(&id.name(), *set_family);
                            matches.push(matched.protocol(id.protocol.number()).is_in(&key, set));
                        }
                    }
                }
            }
        }
        matches
    }

    /// Returns the matches of a policy rule's peers, each with its family if it has one.
    fn peers(&mut self, rule: &PolicyRule, direction: Direction) -> Vec<(Option<Family>, Rule)> {
        if rule.peers.any {
            return vec![(None, Rule::new())];
        }
        let mut matches = Vec::new();
        for family in Family::ALL {
            let peer = match direction {
                Direction::Ingress => Field::Source(family),
                Direction::Egress => Field::Destination(family),
            };
            let mut match_set = |set: Arc<str>| {
                matches.push((Some(family), Rule::new().family(family).is_in(&[peer], set)));
            };
            if let Some(set) = &rule.peers.pods {
                match_set(of_family(&set.name(), family).into());
            }
            if let Some(set) = shared_sets::blocks(&rule.peers.blocks, family, &mut self.sets) {
                match_set(set);
            }
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
