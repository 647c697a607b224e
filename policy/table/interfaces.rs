//! Matching of pods by interface, for packets whose address at the pod's end is not in the Pod object: link-local,
//! multicast and broadcast addresses, and addresses that the pod has assigned itself.
//!
//! ```text
//! bridge prerouting ── from a port, source is no address of the pod ─► meta priority = index of the port
//!   └► inet prerouting ── interface, or meta priority, is in a map ─► profile-out-…
//! bridge forward ───── to a port, destination is no address of the pod ─► meta priority = index of the port
//!   ├► inet postrouting-ports ── meta priority is in a map ─► profile-in-…   (before the priority holds other numbers)
//!   └► inet postrouting, chain ingress ── interface is in a map ─► profile-in-…
//! ```
//! For bridged packets, rules of the inet family see the bridge as interface and not its port, and rules of the bridge
//! family have no connection tracking. So the bridge table passes the port to the inet table in the packet's priority;
//! marks are shared with all other software on the node. Only packets with foreign addresses get a priority.

use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    DataType, FIB_BROADCAST, FIB_MULTICAST, Field, Meta, Rule, Set, SetSpec, Verdict,
};

use super::names::{
    EGRESS, EGRESS_INTERFACES, EGRESS_PORTS, EGRESS_PROFILES, INGRESS_INTERFACES, INGRESS_PORTS,
    INGRESS_PROFILES, INTERFACE_ADDRESSES, POD_INTERFACES, ROUTER_ADVERTISEMENTS, of_family,
};
use super::observed;
use super::options::PolicyOptions;
use super::priority::{PRIORITY, go_to_profile};

pub(super) const IN: Field = Field::Meta(Meta::IifName);
pub(super) const OUT: Field = Field::Meta(Meta::OifName);

/// ICMP types that pods must not send: router advertisement and redirect (RFC 4861 for IPv6; RFC 1256 and RFC 792 for
/// IPv4).
const ROUTERS_ONLY: [(Family, u8); 4] =
    [(Family::V6, 134), (Family::V6, 137), (Family::V4, 9), (Family::V4, 5)];

/// DHCP and DHCPv6: the address to which clients send, and the servers' port.
const ADDRESS_ASSIGNMENT: [(&str, u16); 2] = [("255.255.255.255", 67), ("ff02::1:2", 547)];

/// Returns the sets and maps of interfaces in the inet table, without elements.
pub(super) fn interface_sets() -> Vec<(Arc<str>, Set)> {
    let (name, priority) = ([DataType::IfName], [DataType::ClassId]);
    let mut sets: Vec<(Arc<str>, Set)> = Vec::new();
    let mut put = |name: &str, spec: SetSpec, comment: &str| {
        sets.push((name.into(), Set::new(spec.with_comment(comment))));
    };
    put(POD_INTERFACES, SetSpec::new(&name), "interfaces of pods");
    let numbers = |key: &[DataType]| SetSpec::new(key).with_data(&[DataType::ClassId]);
    put(EGRESS_INTERFACES, numbers(&name), "of pods whose connections to others are judged");
    put(INGRESS_INTERFACES, numbers(&name), "of pods to which connections are judged");
    put(EGRESS_PORTS, numbers(&priority), "the same by numbers from the bridge table");
    put(INGRESS_PORTS, numbers(&priority), "the same by numbers from the bridge table");
    for family in Family::ALL {
        let spec = SetSpec::new(&[DataType::IfName, DataType::address(family)]);
        put(&of_family(INTERFACE_ADDRESSES, family), spec, "the addresses that the API gives the pods");
    }
    sets
}

/// Returns the rules of the inet prerouting chain, after those that accept established connections and neighbour
/// discovery.
pub(super) fn from_interfaces() -> Vec<Rule> {
    let mut rules: Vec<Rule> = dhcp_clients().collect();
    rules.extend(from_ports());
    rules.extend(Family::ALL.map(|family| {
        let key = [IN, Field::Source(family)];
        Rule::new().family(family).is_in(&key, of_family(INTERFACE_ADDRESSES, family)).then(Verdict::Accept)
    }));
    rules.push(go_to_profile(Rule::new(), &[IN], EGRESS_INTERFACES, EGRESS_PROFILES));
    rules
}

/// Returns the rules that drop router advertisements and redirects from pod interfaces.
pub(super) fn router_advertisements_of_pods(options: &PolicyOptions) -> impl Iterator<Item = Rule> {
    // For nft, a match of ICMPv6 implies the family; one of ICMP does not.
    let packet = |family| match family {
        Family::V4 => Rule::new().family(family),
        Family::V6 => Rule::new(),
    };
    router_advertisements(packet, POD_INTERFACES, options)
}

/// Returns the rule for packets from a port that the bridge table has set as priority.
pub(super) fn from_ports() -> [Rule; 1] {
    [go_to_profile(Rule::new(), &[PRIORITY], EGRESS_PORTS, EGRESS_PROFILES)]
}

/// Returns the rule for packets to a port that the bridge table has set as priority.
pub(super) fn to_ports() -> Rule {
    go_to_profile(Rule::new(), &[PRIORITY], INGRESS_PORTS, INGRESS_PROFILES)
}

/// Returns the rules for packets to an interface of a pod with an address that is not the pod's.
pub(super) fn to_interfaces() -> [Rule; 2] {
    Family::ALL.map(|family| {
        let key = [OUT, Field::Destination(family)];
        let foreign = Rule::new().family(family).is_not_in(&key, of_family(INTERFACE_ADDRESSES, family));
        go_to_profile(foreign, &[OUT], INGRESS_INTERFACES, INGRESS_PROFILES)
    })
}

/// Returns the rules of the input chain for multicast and broadcast packets of pods. The node is only one of their
/// receivers, so the rules for all other destinations apply.
pub(super) fn to_groups() -> Vec<Rule> {
    let mut rules: Vec<Rule> = dhcp_clients().collect();
    let kinds = [(Family::V4, FIB_BROADCAST), (Family::V4, FIB_MULTICAST), (Family::V6, FIB_MULTICAST)];
    rules.extend(kinds.map(|(family, kind)| {
        let rule = Rule::new().family(family).to_address_type(kind);
        go_to_profile(rule, &[Field::Source(family)], &of_family(EGRESS, family), EGRESS_PROFILES)
    }));
    rules
}

/// Returns the rules that accept packets of DHCP and DHCPv6 clients.
fn dhcp_clients() -> impl Iterator<Item = Rule> {
    ADDRESS_ASSIGNMENT.into_iter().map(|(group, port)| {
        let rule =
            Rule::new().destination(group.parse().expect("an address")).protocol(libc::IPPROTO_UDP as u8);
        rule.is(Field::DestinationPort, port).then(Verdict::Accept)
    })
}

/// Returns the rules that drop router advertisements and redirects of pods.
pub(super) fn router_advertisements(
    of_family: impl Fn(Family) -> Rule,
    interfaces: &str,
    options: &PolicyOptions,
) -> impl Iterator<Item = Rule> {
    ROUTERS_ONLY.into_iter().flat_map(move |(family, kind)| {
        let protocol = match family {
            Family::V4 => libc::IPPROTO_ICMP,
            Family::V6 => libc::IPPROTO_ICMPV6,
        };
        let rule = of_family(family).protocol(protocol as u8);
        let rule = rule.is(Field::IcmpType, kind).is_in(&[IN], interfaces);
        count_and_drop(&rule, ROUTER_ADVERTISEMENTS, options)
    })
}

/// Returns the rules that count and, unless in audit mode, drop packets that no policy can allow. Each starts with the matches
/// of `start`.
pub(super) fn count_and_drop(start: &Rule, counter: &str, options: &PolicyOptions) -> Vec<Rule> {
    let mut rules = Vec::from_iter(observed::log(start, None, counter, options));
    let rule = start.clone().counter(counter);
    rules.push(if options.audit { rule } else { rule.then(Verdict::Drop) });
    rules
}
