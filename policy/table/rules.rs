//! A policy's rules as rules of nf_tables.

use std::sync::Arc;

use portcullis_cluster::Protocol;
use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Field, Rule, Verdict};

use super::names::{INGRESS, of_family};
use super::options::{DropLog, PolicyOptions};
use super::shared_sets::{self, UsedSets};
use crate::compile::{Direction, PolicyRule, ProtocolPorts, RuleAction, RulePorts, RulesId};

/// How much of a logged packet is handed on: the headers.
const LOGGED_BYTES: u32 = 128;

/// What allows a connection in this direction: what leaves a pod has still to be let into another.
pub(super) fn allowed(direction: Direction) -> Verdict {
    match direction {
        Direction::Egress => Verdict::goto(INGRESS),
        Direction::Ingress => Verdict::Accept,
    }
}

/// The lines that deny: log it, count it, drop it. Each begins with what `start` has; `about` says why.
pub(super) fn denied(
    start: &Rule,
    direction: Direction,
    counter: &str,
    about: &str,
    options: &PolicyOptions,
) -> Vec<Rule> {
    let mut lines = Vec::new();
    if let Some(DropLog { group, rate }) = options.log {
        let what = if options.audit { "would drop" } else { "drop" };
        let prefix = format!("{what} {direction} {about}");
        lines.push(start.clone().limit_per_second(rate, rate.max(5)).log(group, &prefix, LOGGED_BYTES));
    }
    let verdict = if options.audit { allowed(direction) } else { Verdict::Drop };
    lines.push(start.clone().counter(counter).then(verdict));
    lines
}

/// Renders rules; each becomes a line for each family, kind of peers and protocol that it has.
pub(super) struct RuleRenderer<'a> {
    pub(super) options: &'a PolicyOptions,
    pub(super) used: UsedSets,
    pub(super) lines: Vec<Rule>,
}

impl<'a> RuleRenderer<'a> {
    pub(super) fn new(options: &'a PolicyOptions) -> Self {
        RuleRenderer { options, used: UsedSets::new(), lines: Vec::new() }
    }

    /// Adds a policy's rules.
    pub(super) fn add(&mut self, id: &RulesId, rules: &[PolicyRule]) {
        for rule in rules {
            for matched in self.matches(rule, id.direction) {
                match rule.action {
                    RuleAction::Accept => self.lines.push(matched.then(allowed(id.direction))),
                    // Out of the tier's chain, in which all its policies are.
                    RuleAction::Pass => self.lines.push(matched.then(Verdict::Return)),
                    RuleAction::Deny => {
                        let about = id.policy.to_string();
                        let lines = denied(&matched, id.direction, &id.name(), &about, self.options);
                        self.lines.extend(lines);
                    }
                }
            }
        }
    }

    /// The ways in which a rule can match, without a verdict.
    fn matches(&mut self, rule: &PolicyRule, direction: Direction) -> Vec<Rule> {
        let mut matches = Vec::new();
        for (family, line) in self.peers(rule, direction) {
            match &rule.ports {
                RulePorts::Any => matches.push(line),
                RulePorts::Listed { numeric, named } => {
                    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                        matches.extend(self.ports(&line, protocol, numeric.by_protocol(protocol)));
                    }
                    for id in named {
                        let families: &[Family] = match &family {
                            Some(family) => std::slice::from_ref(family),
                            None => &Family::ALL,
                        };
                        for of in families {
                            // The family may stand there already.
                            let line = if family.is_some() { line.clone() } else { line.clone().family(*of) };
                            let key = [Field::Destination(*of), Field::DestinationPort];
                            let set = of_family(&id.name(), *of);
                            matches.push(line.protocol(id.protocol.number()).is_in(&key, set));
                        }
                    }
                }
            }
        }
        matches
    }

    /// The ways in which a rule's peers can match; each with the family that it is for, if it is for one.
    fn peers(&mut self, rule: &PolicyRule, direction: Direction) -> Vec<(Option<Family>, Rule)> {
        if rule.peers.any {
            return vec![(None, Rule::new())];
        }
        let mut lines = Vec::new();
        for family in Family::ALL {
            let peer = match direction {
                Direction::Ingress => Field::Source(family),
                Direction::Egress => Field::Destination(family),
            };
            let mut of_set = |set: Arc<str>| {
                lines.push((Some(family), Rule::new().family(family).is_in(&[peer], set)));
            };
            if let Some(set) = &rule.peers.pods {
                of_set(of_family(&set.name(), family).into());
            }
            if let Some(set) = shared_sets::blocks(&rule.peers.blocks, family, &mut self.used) {
                of_set(set);
            }
        }
        lines
    }

    fn ports(&mut self, line: &Rule, protocol: Protocol, ports: &ProtocolPorts) -> Option<Rule> {
        let line = line.clone().protocol(protocol.number());
        match ports {
            ProtocolPorts::All => Some(line),
            ProtocolPorts::Ranges(ranges) => match &**ranges {
                [] => None,
                [(first, last)] => Some(line.between(Field::DestinationPort, *first, *last)),
                several => {
                    Some(line.is_in(&[Field::DestinationPort], shared_sets::ports(several, &mut self.used)))
                }
            },
        }
    }
}
