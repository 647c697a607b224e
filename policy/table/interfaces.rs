//! Pods matched by their interfaces, for packets whose address at the pod's end is none that the API gives the pod:
//! link-local addresses, multicast, broadcast, and addresses that the pod has given itself.
//!
//! ```text
//! bridge prerouting ── from a port, source is none of the pod's ─► priority becomes the number of the port
//!   └► inet prerouting ── interface, or that number, is in a map ─► profile-out-…
//! bridge forward ───── to a port, destination is none of the pod's ─► priority becomes the number of the port
//!   └► inet postrouting, chain ingress ── interface, or that number, is in a map ─► profile-in-…
//! ```
//! Rules of the family `inet` see the bridge as the interface of packets that it passes on, not the port, and rules of
//! the family `bridge` have no connection tracking; so the latter tell the former the port. They do so by the packet's
//! priority, as marks are shared with everything else on the node. Only packets with foreign addresses get one.

use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, DataType, DesiredTable, Element, FIB_BROADCAST, FIB_MULTICAST, Field, Hook,
    Key, Meta, Rule, Set, SetSpec, TableFamily, Verdict,
};

use super::names::{EGRESS, FORWARD, OTHER_PROTOCOLS, PREROUTING, ROUTER_ADVERTISEMENTS, TABLE, of_family};
use super::options::PolicyOptions;
use crate::compile::{CompiledPolicies, LocalPod, Profile};
use crate::interfaces::PodInterface;

const POD_PORTS: &str = "pod-ports";
const PORT_ADDRESSES: &str = "port-addresses";
const EGRESS_PORTS: &str = "egress-ports";
const INGRESS_PORTS: &str = "ingress-ports";
const POD_INTERFACES: &str = "pod-interfaces";
const INTERFACE_ADDRESSES: &str = "interface-addresses";
const EGRESS_INTERFACES: &str = "egress-interfaces";
const INGRESS_INTERFACES: &str = "ingress-interfaces";

/// Before br_netfilter has the rules of the family `inet` look at a frame (`NF_BR_PRI_BRNF`, 0).
const BRIDGE_PRIORITY: i32 = -300;

/// What tells the number of a port towards which a packet goes from that of one it comes from. Numbers of interfaces
/// have 31 bits.
const TOWARDS: u32 = 1 << 31;

/// Length of an interface's name with its padding (`IFNAMSIZ`).
const NAME_BYTES: usize = 16;

const IN: Field = Field::Meta(Meta::IifName);
const OUT: Field = Field::Meta(Meta::OifName);
const PORT: Field = Field::Meta(Meta::Priority);

/// ICMP types that no pod has to send: router advertisement and redirect (RFC 4861 for IPv6; RFC 1256 and RFC 792 for
/// IPv4).
const ROUTERS_ONLY: [(Family, u8); 4] =
    [(Family::V6, 134), (Family::V6, 137), (Family::V4, 9), (Family::V4, 5)];

/// DHCP and DHCPv6: the group that clients ask, and the port of servers.
const ADDRESS_ASSIGNMENT: [(&str, u16); 2] = [("255.255.255.255", 67), ("ff02::1:2", 547)];

/// The table of the family `bridge`, without any port.
pub(super) fn bridge_table(options: &PolicyOptions) -> DesiredTable {
    let mut table = DesiredTable::new(TableFamily::Bridge, TABLE);
    table.set_comment("NetworkPolicy for ports of bridges, by portcullis");
    let mut put = |name: &str, spec: SetSpec| table.put_set(&name.into(), Set::new(spec));
    put(POD_PORTS, SetSpec::new(&[DataType::IfName]).with_comment("interfaces of pods"));
    let numbers = || SetSpec::new(&[DataType::IfName]).with_data(&[DataType::ClassId]);
    put(EGRESS_PORTS, numbers().with_comment("of pods whose connections to others are judged"));
    put(INGRESS_PORTS, numbers().with_comment("of pods to which connections are judged"));
    for family in Family::ALL {
        let spec = SetSpec::new(&[DataType::IfName, DataType::address(family)]);
        put(
            &of_family(PORT_ADDRESSES, family),
            spec.with_comment("the addresses that the API gives the pods"),
        );
    }
    table.put_counter(&OTHER_PROTOCOLS.into(), Some("frames of isolated pods that are neither IP nor ARP"));
    table.put_counter(&ROUTER_ADVERTISEMENTS.into(), Some("router advertisements and redirects of pods"));
    let base = |hook, rules| Chain {
        base: Some(BaseChain { kind: ChainKind::Filter, hook, priority: BRIDGE_PRIORITY }),
        ..Chain::new(rules)
    };
    let frame = |family| Rule::new().ether_family(family);
    let mut rules: Vec<Rule> = router_advertisements(frame, POD_PORTS, options).collect();
    rules.extend(number_of_port(IN, Field::Source, EGRESS_PORTS, options));
    table.put_chain(&PREROUTING.into(), base(Hook::Prerouting, rules));
    let rules = number_of_port(OUT, Field::Destination, INGRESS_PORTS, options);
    table.put_chain(&FORWARD.into(), base(Hook::Forward, rules.collect()));
    table
}

/// The lines that drop what only routers send, where it comes from a pod.
fn router_advertisements(
    of_family: impl Fn(Family) -> Rule,
    interfaces: &str,
    options: &PolicyOptions,
) -> impl Iterator<Item = Rule> {
    ROUTERS_ONLY.into_iter().map(move |(family, kind)| {
        let protocol = match family {
            Family::V4 => libc::IPPROTO_ICMP,
            Family::V6 => libc::IPPROTO_ICMPV6,
        };
        let line = of_family(family).protocol(protocol as u8);
        let line = line.is(Field::IcmpType, kind).is_in(&[IN], interfaces);
        dropped(line, ROUTER_ADVERTISEMENTS, options)
    })
}

/// The lines that give packets of a port the number of the port, unless their address is one of the pod's. Frames that are
/// neither IP nor ARP never reach rules of the family `inet`, so they are dropped.
fn number_of_port(
    interface: Field,
    address: fn(Family) -> Field,
    numbers: &'static str,
    options: &PolicyOptions,
) -> impl Iterator<Item = Rule> {
    let known = Family::ALL.map(|family| {
        let key = [interface, address(family)];
        Rule::new().ether_family(family).is_in(&key, of_family(PORT_ADDRESSES, family)).then(Verdict::Accept)
    });
    let foreign = Family::ALL.map(|family| {
        Rule::new().ether_family(family).set_priority_from_map(&[interface], numbers).then(Verdict::Accept)
    });
    let passed = [libc::ETH_P_IP, libc::ETH_P_IPV6, libc::ETH_P_ARP];
    let other = passed.iter().fold(Rule::new(), |line, kind| line.ether_type_is_not(*kind as u16));
    let other = dropped(other.set_priority_from_map(&[interface], numbers), OTHER_PROTOCOLS, options);
    known.into_iter().chain(foreign).chain([other])
}

/// Counts what a line matches, and drops it unless it is only audited.
fn dropped(line: Rule, counter: &str, options: &PolicyOptions) -> Rule {
    let line = line.counter(counter);
    if options.audit { line } else { line.then(Verdict::Drop) }
}

/// Puts the sets and maps of interfaces into the table of the family `inet`, without any interface.
pub(super) fn put_sets(table: &mut DesiredTable) {
    let mut put = |name: &str, spec: SetSpec| table.put_set(&name.into(), Set::new(spec));
    put(POD_INTERFACES, SetSpec::new(&[DataType::IfName]).with_comment("interfaces of pods"));
    let (name, number) = ([DataType::IfName], [DataType::ClassId]);
    put(
        EGRESS_INTERFACES,
        SetSpec::verdict_map(&name).with_comment("of pods whose connections to others are judged"),
    );
    put(
        INGRESS_INTERFACES,
        SetSpec::verdict_map(&name).with_comment("of pods to which connections are judged"),
    );
    put(
        EGRESS_PORTS,
        SetSpec::verdict_map(&number).with_comment("the same by numbers from the bridge table"),
    );
    put(
        INGRESS_PORTS,
        SetSpec::verdict_map(&number).with_comment("the same by numbers from the bridge table"),
    );
    for family in Family::ALL {
        let spec = SetSpec::new(&[DataType::IfName, DataType::address(family)]);
        put(
            &of_family(INTERFACE_ADDRESSES, family),
            spec.with_comment("the addresses that the API gives the pods"),
        );
    }
}

/// The lines of the inet hook `prerouting`, behind those that accept established connections and neighbour discovery.
pub(super) fn from_interfaces() -> Vec<Rule> {
    let mut lines: Vec<Rule> = address_assignment().collect();
    lines.extend(from_ports());
    lines.extend(Family::ALL.map(|family| {
        let key = [IN, Field::Source(family)];
        Rule::new().family(family).is_in(&key, of_family(INTERFACE_ADDRESSES, family)).then(Verdict::Accept)
    }));
    lines.push(Rule::new().verdict_map(&[IN], EGRESS_INTERFACES));
    lines
}

/// The lines that drop router advertisements and redirects that come in by an interface of a pod.
pub(super) fn of_routers(options: &PolicyOptions) -> impl Iterator<Item = Rule> {
    // The header of ICMP tells nft the family only of IPv6.
    let packet = |family| match family {
        Family::V4 => Rule::new().family(family),
        Family::V6 => Rule::new(),
    };
    router_advertisements(packet, POD_INTERFACES, options)
}

/// The line for packets that come from a port whose number the bridge table has told.
pub(super) fn from_ports() -> [Rule; 1] {
    [Rule::new().verdict_map(&[PORT], EGRESS_PORTS)]
}

/// The lines for packets that go to an interface or a port of a pod with an address that is none of the pod's.
pub(super) fn to_interfaces() -> Vec<Rule> {
    let mut lines = vec![Rule::new().verdict_map(&[PORT], INGRESS_PORTS)];
    lines.extend(Family::ALL.map(|family| {
        let key = [OUT, Field::Destination(family)];
        let foreign = Rule::new().family(family).is_not_in(&key, of_family(INTERFACE_ADDRESSES, family));
        foreign.verdict_map(&[OUT], INGRESS_INTERFACES)
    }));
    lines
}

/// The lines of the hook `input` for what pods send to all nodes and hosts of a network. It may be for the node as for
/// any other, and so their rules for other destinations count.
pub(super) fn to_groups() -> Vec<Rule> {
    let mut lines: Vec<Rule> = address_assignment().collect();
    let kinds = [(Family::V4, FIB_BROADCAST), (Family::V4, FIB_MULTICAST), (Family::V6, FIB_MULTICAST)];
    lines.extend(kinds.map(|(family, kind)| {
        let line = Rule::new().family(family).to_address_type(kind);
        line.verdict_map(&[Field::Source(family)], of_family(EGRESS, family))
    }));
    lines
}

/// The lines that accept what clients of DHCP and DHCPv6 send.
fn address_assignment() -> impl Iterator<Item = Rule> {
    ADDRESS_ASSIGNMENT.into_iter().map(|(group, port)| {
        let line =
            Rule::new().destination(group.parse().expect("an address")).protocol(libc::IPPROTO_UDP as u8);
        line.is(Field::DestinationPort, port).then(Verdict::Accept)
    })
}

/// Makes both tables' sets and maps those of these interfaces.
pub(super) fn attach(
    interfaces: &[PodInterface],
    compiled: &CompiledPolicies,
    inet: &mut DesiredTable,
    bridge: &mut DesiredTable,
) {
    let mut contents = Contents::default();
    interfaces.iter().for_each(|interface| contents.add(interface, compiled));
    let bare = |keys: &[Key]| -> Vec<(Key, Element)> {
        keys.iter().map(|key| (key.clone(), Element::new())).collect()
    };
    fill(bridge, POD_PORTS, bare(&contents.names));
    fill(inet, POD_INTERFACES, bare(&contents.names));
    for (family, addresses) in Family::ALL.into_iter().zip(&contents.addresses) {
        fill(bridge, &of_family(PORT_ADDRESSES, family), bare(addresses));
        fill(inet, &of_family(INTERFACE_ADDRESSES, family), bare(addresses));
    }
    let directions = [
        (&contents.egress, EGRESS_PORTS, EGRESS_INTERFACES),
        (&contents.ingress, INGRESS_PORTS, INGRESS_INTERFACES),
    ];
    for (judged, ports, interfaces) in directions {
        let number = |one: &Judged| (one.name.clone(), Element::value(Key::new().number(one.number)));
        fill(bridge, ports, judged.iter().map(number).collect());
        let goto = |one: &Judged| Element::verdict(Verdict::goto(one.profile.name()));
        fill(inet, ports, judged.iter().map(|one| (Key::new().number(one.number), goto(one))).collect());
        fill(inet, interfaces, judged.iter().map(|one| (one.name.clone(), goto(one))).collect());
    }
}

fn fill(table: &mut DesiredTable, name: &str, elements: Vec<(Key, Element)>) {
    let name: Arc<str> = name.into();
    if let Some(set) = table.desired().sets.get(&name) {
        let set = Set::with_elements(set.spec.clone(), elements);
        table.put_set(&name, set);
    }
}

/// An interface of a pod that is judged in a direction.
struct Judged {
    name: Key,
    number: u32,
    profile: Arc<Profile>,
}

#[derive(Default)]
struct Contents {
    names: Vec<Key>,
    /// Names with addresses of the API, by family in the order of [`Family::ALL`].
    addresses: [Vec<Key>; 2],
    egress: Vec<Judged>,
    ingress: Vec<Judged>,
}

impl Contents {
    fn add(&mut self, interface: &PodInterface, compiled: &CompiledPolicies) {
        let mut bytes = [0; NAME_BYTES];
        let length = interface.name.len().min(NAME_BYTES - 1);
        bytes[..length].copy_from_slice(&interface.name.as_bytes()[..length]);
        let name = Key::new().part(&bytes);
        let pods: Vec<&LocalPod> = interface.pods.iter().filter_map(|pod| compiled.pod(pod)).collect();
        // Where several pods claim an interface, one that is judged counts.
        let egress = pods.iter().find_map(|pod| pod.egress.clone());
        let ingress = pods.iter().find_map(|pod| pod.ingress.clone());
        self.names.push(name.clone());
        if egress.is_some() || ingress.is_some() {
            for address in pods.iter().flat_map(|pod| &pod.addresses) {
                let owned =
                    compiled.pod_at(*address).is_some_and(|owner| interface.pods.contains(&owner.key));
                let at = Family::ALL.iter().position(|family| *family == Family::from_address(*address));
                if let Some(at) = at.filter(|_| owned) {
                    self.addresses[at].push(name.clone().address(*address));
                }
            }
        }
        let index = interface.index;
        self.egress.extend(egress.map(|profile| Judged { name: name.clone(), number: index, profile }));
        self.ingress.extend(ingress.map(|profile| Judged { name, number: index | TOWARDS, profile }));
    }
}
