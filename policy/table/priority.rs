//! Rules that keep numbers in the packet's priority, and that restore it.

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Field, Header, Meta, Rule, Verdict};

use super::names::{EGRESS_PROFILES, INGRESS_PROFILES, PEER_RANGES, PEERS, of_family};
use crate::compile::Direction;

/// The packet's priority.
pub(super) const PRIORITY: Field = Field::Meta(Meta::Priority);

/// The type of service, second byte of the IPv4 header.
const TYPE_OF_SERVICE: (Header, u32) = (Header::Network, 1);

/// The bits of the type of service by which the kernel sets the priority of forwarded IPv4 packets.
const THROUGHPUT_AND_DELAY: u8 = 0x18;

/// Priorities of these bits (`rt_tos2priority` in include/net/route.h): bulk, interactive, interactive bulk.
const BY_TYPE_OF_SERVICE: [(u8, u32); 3] = [(0x08, 2), (0x10, 6), (0x18, 4)];

/// Returns the name of the map, and of the chain, of profiles by number.
pub(super) fn profiles(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => INGRESS_PROFILES,
        Direction::Egress => EGRESS_PROFILES,
    }
}

/// Returns the rule that goes to the profile whose number a map has for the key of a packet. `start` are its first matches.
pub(super) fn go_to_profile(start: Rule, key: &[Field], map: &str, profiles: &str) -> Rule {
    start.set_priority_from_map(key, map).then(Verdict::goto(profiles))
}

/// Returns the rules of the chain that sets the priority to the identity of a packet's source or destination, or to 0 if
/// no group of peers contains it.
pub(super) fn identify(address: fn(Family) -> Field) -> Vec<Rule> {
    let mut rules = vec![Rule::new().set_priority(0)];
    for family in Family::ALL {
        for map in [PEER_RANGES, PEERS] {
            let rule = Rule::new().family(family);
            rules.push(rule.set_priority_from_map(&[address(family)], of_family(map, family)));
        }
    }
    rules
}

/// Returns the rules of the chain that accepts connections, and restores the priority that the kernel has derived from the
/// type of service.
pub(super) fn allow() -> Vec<Rule> {
    let (header, offset) = TYPE_OF_SERVICE;
    let marked = |value: u8| {
        let rule = Rule::new().family(Family::V4);
        rule.payload_bits(header, offset, THROUGHPUT_AND_DELAY, value)
    };
    let mut rules = vec![Rule::new().set_priority(0), marked(0).then(Verdict::Accept)];
    rules.extend(BY_TYPE_OF_SERVICE.map(|(bits, priority)| marked(bits).set_priority(priority)));
    rules.push(Rule::new().then(Verdict::Accept));
    rules
}
