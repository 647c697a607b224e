//! Decisions of a tier's rules by protocol and port, for peers that the same rules match.
//!
//! Rules are merged into disjoint ranges of ports, so that each packet needs one lookup, however many rules there are. Ports
//! with names are in sets of pod addresses and ports, which differ from pod to pod, so each name is a step of its own.

use portcullis_cluster::Protocol;

use crate::compile::{NamedPortId, PolicyRule, ProtocolPorts, RuleAction, RulePorts, RulesId};

/// The protocols with ports.
pub(super) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What a rule decides, and the policy that denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    Accept,
    Deny(&'a RulesId),
    Pass,
}

/// Ports with the same decision, from the first to the last inclusive.
pub(super) type DecidedRange<'a> = (u16, u16, Decision<'a>);

/// A step of the evaluation. What it decides, later steps do not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Ports by number, of each protocol in the order of [`PROTOCOLS`]; sorted and disjoint.
    Numeric([Vec<DecidedRange<'a>>; 3]),
    /// Ports with a name.
    Named(&'a NamedPortId, Decision<'a>),
    /// Everything else, also of other protocols.
    Rest(Decision<'a>),
}

/// Returns the steps of rules in the order of their evaluation.
pub(super) fn steps<'a>(rules: impl IntoIterator<Item = (&'a RulesId, &'a PolicyRule)>) -> Vec<Step<'a>> {
    let mut tier = TierSteps::default();
    for (id, rule) in rules {
        let decision = match rule.action {
            RuleAction::Accept => Decision::Accept,
            RuleAction::Deny => Decision::Deny(id),
            RuleAction::Pass => Decision::Pass,
        };
        match &rule.ports {
            RulePorts::Any => {
                tier.end_numeric();
                tier.steps.push(Step::Rest(decision));
                return tier.steps;
            }
            RulePorts::Listed { numeric, named } => {
                for (at, protocol) in PROTOCOLS.into_iter().enumerate() {
                    tier.add_ports(at, numeric.by_protocol(protocol), &decision);
                }
                named.iter().for_each(|port| tier.add_named(port, &decision));
            }
        }
    }
    tier.end_numeric();
    tier.steps
}

/// The steps of a tier so far.
#[derive(Default)]
struct TierSteps<'a> {
    steps: Vec<Step<'a>>,
    numeric: [Vec<DecidedRange<'a>>; 3],
    /// Decided ports of each protocol, sorted and disjoint.
    decided: [Vec<(u16, u16)>; 3],
    named: Vec<&'a NamedPortId>,
}

impl<'a> TierSteps<'a> {
    fn add_ports(&mut self, at: usize, ports: &ProtocolPorts, decision: &Decision<'a>) {
        const ALL: &[(u16, u16)] = &[(0, u16::MAX)];
        let ranges = match ports {
            ProtocolPorts::All => ALL,
            ProtocolPorts::Ranges(ranges) => ranges,
        };
        for range in ranges {
            let undecided = without(*range, &self.decided[at]);
            self.numeric[at].extend(undecided.iter().map(|(first, last)| (*first, *last, decision.clone())));
            self.decided[at].extend(undecided);
            self.decided[at].sort_unstable();
        }
    }

    fn add_named(&mut self, port: &'a NamedPortId, decision: &Decision<'a>) {
        // An earlier rule with this name has decided all its ports.
        if !self.named.contains(&port) {
            self.end_numeric();
            self.named.push(port);
            self.steps.push(Step::Named(port, decision.clone()));
        }
    }

    fn end_numeric(&mut self) {
        let numeric = std::mem::take(&mut self.numeric);
        if numeric.iter().any(|ranges| !ranges.is_empty()) {
            self.steps.push(Step::Numeric(numeric.map(joined)));
        }
    }
}

/// Returns the parts of a range that are not in sorted, disjoint ranges.
fn without((first, last): (u16, u16), decided: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut parts = Vec::new();
    let mut at = u32::from(first);
    for &(start, end) in decided {
        let (start, end) = (u32::from(start), u32::from(end));
        if end < at {
            continue;
        }
        if start > u32::from(last) {
            break;
        }
        if start > at {
            parts.push((at, start - 1));
        }
        at = end + 1;
    }
    if at <= u32::from(last) {
        parts.push((at, last.into()));
    }
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    parts.into_iter().map(|(first, last)| (port(first), port(last))).collect()
}

/// Sorts disjoint ranges, and joins neighbours with the same decision.
fn joined(mut ranges: Vec<DecidedRange<'_>>) -> Vec<DecidedRange<'_>> {
    ranges.sort_unstable_by_key(|(first, _, _)| *first);
    let mut joined: Vec<DecidedRange<'_>> = Vec::with_capacity(ranges.len());
    for (first, last, decision) in ranges {
        match joined.last_mut() {
            Some(before) if before.1.checked_add(1) == Some(first) && before.2 == decision => before.1 = last,
            _ => joined.push((first, last, decision)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::Name;

    use super::*;
    use crate::compile::{Direction, NumericPorts, PolicyId, RulePeers};

    fn rule(action: RuleAction, tcp: &[(u16, u16)], named: &[NamedPortId]) -> PolicyRule {
        let tcp = ProtocolPorts::Ranges(tcp.into());
        let numeric = NumericPorts { tcp, ..NumericPorts::default() };
        let ports = RulePorts::Listed { numeric, named: named.into() };
        PolicyRule {
            index: 0,
            name: None,
            action,
            peers: RulePeers { any: true, ..RulePeers::default() },
            ports,
        }
    }

    #[test]
    fn the_first_rule_decides_each_port() {
        use RuleAction::{Accept, Deny, Pass};
        let id = RulesId { policy: PolicyId::Cluster("a".into()), direction: Direction::Ingress };
        let web =
            NamedPortId { direction: Direction::Ingress, name: Name::new("web"), protocol: Protocol::Tcp };
        let rest = PolicyRule { ports: RulePorts::Any, ..rule(Deny, &[], &[]) };
        let rules = [
            rule(Accept, &[(80, 89)], &[]),
            rule(Deny, &[(85, 99), (70, 70)], &[]),
            rule(Accept, &[(79, 79), (100, 100)], &[]),
            rule(Pass, &[(0, u16::MAX)], std::slice::from_ref(&web)),
            rule(Accept, &[], std::slice::from_ref(&web)),
            rest,
            rule(Accept, &[(1, 1)], &[]),
        ];
        let deny = || Decision::Deny(&id);
        let tcp = vec![
            (0, 69, Decision::Pass),
            (70, 70, deny()),
            (71, 78, Decision::Pass),
            (79, 89, Decision::Accept),
            (90, 99, deny()),
            (100, 100, Decision::Accept),
            (101, u16::MAX, Decision::Pass),
        ];
        let expected = [
            Step::Numeric([tcp, Vec::new(), Vec::new()]),
            Step::Named(&web, Decision::Pass),
            Step::Rest(deny()),
        ];
        assert_eq!(steps(rules.iter().map(|rule| (&id, rule))), expected);
    }
}
