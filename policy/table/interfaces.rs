//! Matching of pods by interface, for packets whose address at the pod's end is not in the Pod object: link-local,
//! multicast and broadcast addresses, and addresses that the pod has assigned itself.
//!
//! ```text
//! bridge prerouting ── from a port, source is no address of the pod ─► meta priority = index of the port
//!   └► inet prerouting ── interface, or meta priority, is in a map ─► profile-out-…
//! bridge forward ───── to a port, destination is no address of the pod ─► meta priority = index of the port
//!   └► inet postrouting, chain ingress ── interface, or meta priority, is in a map ─► profile-in-…
//! ```
//! For bridged packets, rules of the inet family see the bridge as interface and not its port, and rules of the bridge
//! family have no connection tracking. So the bridge table passes the port to the inet table in the packet's priority;
//! marks are shared with all other software on the node. Only packets with foreign addresses get a priority.

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

/// Before br_netfilter passes a frame to the inet hooks (`NF_BR_PRI_BRNF`, 0).
const BRIDGE_PRIORITY: i32 = -300;

/// Flag in the priority: the port is the packet's output port, not its input port. Interface indexes have 31 bits.
const OUTPUT_PORT: u32 = 1 << 31;

/// Length of an interface name with padding (`IFNAMSIZ`).
const NAME_BYTES: usize = 16;

const IN: Field = Field::Meta(Meta::IifName);
const OUT: Field = Field::Meta(Meta::OifName);
const PORT: Field = Field::Meta(Meta::Priority);

/// ICMP types that pods must not send: router advertisement and redirect (RFC 4861 for IPv6; RFC 1256 and RFC 792 for
/// IPv4).
const ROUTERS_ONLY: [(Family, u8); 4] =
    [(Family::V6, 134), (Family::V6, 137), (Family::V4, 9), (Family::V4, 5)];

/// DHCP and DHCPv6: the address to which clients send, and the servers' port.
const ADDRESS_ASSIGNMENT: [(&str, u16); 2] = [("255.255.255.255", 67), ("ff02::1:2", 547)];

/// Returns the table of the bridge family, without any port.
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

/// Returns the rules that drop router advertisements and redirects of pods.
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
        let rule = of_family(family).protocol(protocol as u8);
        let rule = rule.is(Field::IcmpType, kind).is_in(&[IN], interfaces);
        count_and_drop(rule, ROUTER_ADVERTISEMENTS, options)
    })
}

/// Returns the rules that set the priority of a port's packets to the index of the port, unless their address is one of
/// the pod's. Frames that are neither IP nor ARP never reach rules of the inet family, so they are dropped.
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
    let known_protocols = [libc::ETH_P_IP, libc::ETH_P_IPV6, libc::ETH_P_ARP];
    let other = known_protocols.iter().fold(Rule::new(), |rule, kind| rule.ether_type_is_not(*kind as u16));
    let other = count_and_drop(other.set_priority_from_map(&[interface], numbers), OTHER_PROTOCOLS, options);
    known.into_iter().chain(foreign).chain([other])
}

/// Adds a counter to a rule, and a drop unless in audit mode.
fn count_and_drop(rule: Rule, counter: &str, options: &PolicyOptions) -> Rule {
    let rule = rule.counter(counter);
    if options.audit { rule } else { rule.then(Verdict::Drop) }
}

/// Adds the sets and maps of interfaces to the inet table, without any interface.
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

/// Returns the rules of the inet prerouting chain, after those that accept established connections and neighbour
/// discovery.
pub(super) fn from_interfaces() -> Vec<Rule> {
    let mut rules: Vec<Rule> = dhcp_clients().collect();
    rules.extend(from_ports());
    rules.extend(Family::ALL.map(|family| {
        let key = [IN, Field::Source(family)];
        Rule::new().family(family).is_in(&key, of_family(INTERFACE_ADDRESSES, family)).then(Verdict::Accept)
    }));
    rules.push(Rule::new().verdict_map(&[IN], EGRESS_INTERFACES));
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
    [Rule::new().verdict_map(&[PORT], EGRESS_PORTS)]
}

/// Returns the rules for packets to an interface or port of a pod with an address that is not the pod's.
pub(super) fn to_interfaces() -> Vec<Rule> {
    let mut rules = vec![Rule::new().verdict_map(&[PORT], INGRESS_PORTS)];
    rules.extend(Family::ALL.map(|family| {
        let key = [OUT, Field::Destination(family)];
        let foreign = Rule::new().family(family).is_not_in(&key, of_family(INTERFACE_ADDRESSES, family));
        foreign.verdict_map(&[OUT], INGRESS_INTERFACES)
    }));
    rules
}

/// Returns the rules of the input chain for multicast and broadcast packets of pods. The node is only one of their
/// receivers, so the rules for all other destinations apply.
pub(super) fn to_groups() -> Vec<Rule> {
    let mut rules: Vec<Rule> = dhcp_clients().collect();
    let kinds = [(Family::V4, FIB_BROADCAST), (Family::V4, FIB_MULTICAST), (Family::V6, FIB_MULTICAST)];
    rules.extend(kinds.map(|(family, kind)| {
        let rule = Rule::new().family(family).to_address_type(kind);
        rule.verdict_map(&[Field::Source(family)], of_family(EGRESS, family))
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

/// Replaces the elements of both tables' sets and maps by those of these interfaces.
pub(super) fn set_interfaces(
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
    for (selected, ports, interfaces) in directions {
        let number =
            |one: &SelectedInterface| (one.name.clone(), Element::value(Key::new().number(one.number)));
        fill(bridge, ports, selected.iter().map(number).collect());
        let goto = |one: &SelectedInterface| Element::verdict(Verdict::goto(one.profile.name()));
        fill(inet, ports, selected.iter().map(|one| (Key::new().number(one.number), goto(one))).collect());
        fill(inet, interfaces, selected.iter().map(|one| (one.name.clone(), goto(one))).collect());
    }
}

fn fill(table: &mut DesiredTable, name: &str, elements: Vec<(Key, Element)>) {
    let name: Arc<str> = name.into();
    if let Some(set) = table.desired().sets.get(&name) {
        let set = Set::with_elements(set.spec.clone(), elements);
        table.put_set(&name, set);
    }
}

/// An interface of a pod with a profile in a direction.
struct SelectedInterface {
    name: Key,
    number: u32,
    profile: Arc<Profile>,
}

#[derive(Default)]
struct Contents {
    names: Vec<Key>,
    /// Names with addresses of Pod objects, by family in the order of [`Family::ALL`].
    addresses: [Vec<Key>; 2],
    egress: Vec<SelectedInterface>,
    ingress: Vec<SelectedInterface>,
}

impl Contents {
    fn add(&mut self, interface: &PodInterface, compiled: &CompiledPolicies) {
        let mut bytes = [0; NAME_BYTES];
        let length = interface.name.len().min(NAME_BYTES - 1);
        bytes[..length].copy_from_slice(&interface.name.as_bytes()[..length]);
        let name = Key::new().part(&bytes);
        let pods: Vec<&LocalPod> = interface.pods.iter().filter_map(|pod| compiled.pod(pod)).collect();
        // If several pods claim an interface, the first one with a profile is used.
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
        self.egress.extend(egress.map(|profile| SelectedInterface {
            name: name.clone(),
            number: index,
            profile,
        }));
        self.ingress.extend(ingress.map(|profile| SelectedInterface {
            name,
            number: index | OUTPUT_PORT,
            profile,
        }));
    }
}
