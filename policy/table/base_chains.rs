//! Chains and counters that every policy table has: the base chains, and the lookups of profiles by address.

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, Comparison, CtState, Field, Hook, Rule, TCP_SYN, TCP_SYN_ECN, Verdict,
};

use super::interface_elements::OUTPUT_PORT;
use super::interfaces;
use super::names::{
    ALLOW, CLIENTS, CUT, EGRESS, EGRESS_PRIORITY, EGRESS_PROFILES, IDENTIFY_DESTINATION, IDENTIFY_SOURCE,
    INGRESS, INGRESS_PROFILES, INPUT, INPUT_PRIORITY, KNOWN_PODS, NODE_PROFILES, PICKED_UP, POD_RANGES,
    PORTS_PRIORITY, POSTROUTING, POSTROUTING_PRIORITY, PREROUTING, PREROUTING_PRIORITY,
    ROUTER_ADVERTISEMENTS, SERVERS, TO_THIS_NODE, UNKNOWN_PODS, of_family,
};
use super::observed;
use super::options::{PolicyOptions, UnknownPods};
use super::priority;
use super::rules::denied;
use crate::compile::Direction;

/// Returns the chains by name.
pub(super) fn base_chains(options: &PolicyOptions) -> Vec<(&'static str, Chain)> {
    vec![
        (POSTROUTING, base_chain(Hook::Postrouting, EGRESS_PRIORITY, postrouting(options))),
        (PREROUTING, base_chain(Hook::Prerouting, PREROUTING_PRIORITY, prerouting(options))),
        (INPUT, base_chain(Hook::Input, INPUT_PRIORITY, input())),
        (EGRESS, Chain::new(egress(options))),
        (INGRESS, base_chain(Hook::Postrouting, POSTROUTING_PRIORITY, ingress(options))),
        (EGRESS_PROFILES, Chain::new(profile(EGRESS_PROFILES))),
        (NODE_PROFILES, Chain::new(profile(NODE_PROFILES))),
        (INGRESS_PROFILES, Chain::new(ingress_profile())),
        (IDENTIFY_SOURCE, Chain::new(priority::identify(Field::Source))),
        (IDENTIFY_DESTINATION, Chain::new(priority::identify(Field::Destination))),
        (ALLOW, Chain::new(priority::allow())),
    ]
}

/// Returns the base chain for packets to ports of bridges. The base chain of egress, which follows, sets the priority to
/// other numbers.
pub(super) fn ports_chain() -> Chain {
    let other = Rule::new().no_bit(priority::PRIORITY, OUTPUT_PORT).then(Verdict::Accept);
    base_chain(Hook::Postrouting, PORTS_PRIORITY, vec![other, established(), interfaces::to_ports()])
}

/// Returns the counters of the chains, with their comments.
pub(super) fn base_counters(options: &PolicyOptions) -> Vec<(&'static str, &'static str)> {
    let mut counters = vec![(ROUTER_ADVERTISEMENTS, "router advertisements and redirects of pods")];
    if options.terminates_connections {
        counters.push((CUT, "answers in connections that were cut"));
    }
    if options.unknown_pods != UnknownPods::Allow {
        counters.push((UNKNOWN_PODS, "connections of pods that are not known"));
    }
    counters
}

fn base_chain(hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { base: Some(BaseChain { kind: ChainKind::Filter, hook, priority }), ..Chain::new(rules) }
}

fn postrouting(options: &PolicyOptions) -> Vec<Rule> {
    let mut rules = vec![established()];
    rules.extend(always_allowed(Verdict::Accept));
    rules.extend(keep_terminated(options));
    rules.push(Rule::new().then(Verdict::goto(EGRESS)));
    rules
}

fn prerouting(options: &PolicyOptions) -> Vec<Rule> {
    let mut rules: Vec<Rule> = interfaces::router_advertisements_of_pods(options).collect();
    rules.push(established());
    rules.extend(discovery(Verdict::Accept));
    rules.extend(interfaces::from_interfaces());
    rules
}

fn input() -> Vec<Rule> {
    let mut rules = vec![established()];
    rules.extend(discovery(Verdict::Accept));
    rules.push(pick_up(Verdict::Accept));
    rules.extend(interfaces::to_groups());
    rules.extend(lookup(TO_THIS_NODE, Field::Source, NODE_PROFILES));
    rules
}

fn egress(options: &PolicyOptions) -> Vec<Rule> {
    let mut rules = unknown_pods(Direction::Egress, options);
    rules.extend(interfaces::from_ports());
    rules.extend(lookup(EGRESS, Field::Source, EGRESS_PROFILES));
    rules
}

/// Returns the rules for ingress, which packets pass that egress has accepted.
fn ingress(options: &PolicyOptions) -> Vec<Rule> {
    let mut rules = vec![established()];
    let unknown = unknown_pods(Direction::Ingress, options);
    if !unknown.is_empty() {
        rules.extend(always_allowed(Verdict::Accept));
        rules.extend(unknown);
    }
    rules.extend(interfaces::to_interfaces());
    rules.extend(lookup(INGRESS, Field::Destination, INGRESS_PROFILES));
    rules
}

/// Returns the rules of the chain that looks up the profile of a number.
fn profile(map: &str) -> Vec<Rule> {
    let replaced = Rule::new().then(Verdict::Drop).with_comment("the profile has just been replaced");
    vec![Rule::new().verdict_map(&[priority::PRIORITY], map), replaced]
}

/// Returns the rules of the chain that looks up the ingress profile of a number. What is always allowed is matched here and not
/// for packets to pods without a profile.
fn ingress_profile() -> Vec<Rule> {
    let mut rules = always_allowed(Verdict::goto(ALLOW));
    rules.extend(profile(INGRESS_PROFILES));
    rules
}

/// Returns the rules for packets that no policy denies.
fn always_allowed(verdict: Verdict) -> Vec<Rule> {
    let own = Rule::new().sent_locally().then(verdict.clone());
    let mut rules = discovery(verdict.clone()).to_vec();
    rules.push(own.with_comment("this node's own, such as probes of its pods"));
    rules.push(pick_up(verdict));
    rules
}

/// Returns the rules that look up the profile of an address in each family's map.
fn lookup(map: &str, address: fn(Family) -> Field, profiles: &str) -> [Rule; 2] {
    Family::ALL.map(|family| {
        let start = Rule::new().family(family);
        priority::go_to_profile(start, &[address(family)], &of_family(map, family), profiles)
    })
}

fn established() -> Rule {
    Rule::new().ct_state(CtState::ESTABLISHED | CtState::RELATED).then(Verdict::Accept)
}

/// Returns the rules that accept the ICMPv6 messages without which IPv6 does not work (RFC 4890): multicast listener,
/// router and neighbour messages.
fn discovery(verdict: Verdict) -> [Rule; 2] {
    [(130u8, 137u8), (143, 143)].map(|(first, last)| {
        let icmp6 = Rule::new().family(Family::V6).protocol(libc::IPPROTO_ICMPV6 as u8);
        icmp6.between(Field::IcmpType, first, last).then(verdict.clone())
    })
}

/// Returns the rule that picks up TCP connections in their middle while the set of such protocols is not empty.
fn pick_up(verdict: Verdict) -> Rule {
    not_first_segment(Rule::new()).is_in(&[Field::PROTOCOL], PICKED_UP).then(verdict)
}

/// Matches TCP segments that do not open a connection.
fn not_first_segment(rule: Rule) -> Rule {
    rule.protocol(libc::IPPROTO_TCP as u8).compare(Field::TcpFlags, Comparison::NotEqual, TCP_SYN).compare(
        Field::TcpFlags,
        Comparison::NotEqual,
        TCP_SYN_ECN,
    )
}

/// Returns the rules that keep terminated connections terminated. A TCP segment in the middle of an untracked connection
/// counts as the first packet of a connection of its sender. So a packet of a server would restore a connection that its
/// client may no longer have. Only a packet in the restricted direction may pick up a connection.
fn keep_terminated(options: &PolicyOptions) -> Vec<Rule> {
    if !options.terminates_connections {
        return Vec::new();
    }
    let rules = |family: Family| {
        [(Field::Source(family), SERVERS), (Field::Destination(family), CLIENTS)].map(|(field, set)| {
            not_first_segment(Rule::new().family(family)).is_in(&[field], of_family(set, family))
        })
    };
    // Never set in audit mode.
    let drop = |start: &Rule| {
        let logged = observed::log(start, None, CUT, options);
        logged.into_iter().chain([start.clone().counter(CUT).then(Verdict::Drop)])
    };
    let starts: Vec<Rule> = Family::ALL.into_iter().flat_map(rules).collect();
    starts.iter().flat_map(drop).collect()
}

/// Returns the rules that drop packets from or to an address in this node's pod CIDRs that no known pod has. Packets to
/// the node's own addresses in these ranges, such as that of its bridge, are accepted: packets of the input hook pass
/// the ingress chain too, after a ClusterNetworkPolicy has accepted them.
fn unknown_pods(direction: Direction, options: &PolicyOptions) -> Vec<Rule> {
    if options.unknown_pods == UnknownPods::Allow {
        return Vec::new();
    }
    let rules = |family: Family| {
        let field = match direction {
            Direction::Egress => Field::Source(family),
            Direction::Ingress => Field::Destination(family),
        };
        let start = Rule::new()
            .family(family)
            .is_in(&[field], of_family(POD_RANGES, family))
            .is_not_in(&[field], of_family(KNOWN_PODS, family));
        let start = match direction {
            Direction::Egress => start,
            Direction::Ingress => start.not_to_local(),
        };
        denied(&start, direction, UNKNOWN_PODS, "of a pod that is not known", options)
    };
    Family::ALL.into_iter().flat_map(rules).collect()
}
