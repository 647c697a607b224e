//! Objects of the bridge table, which passes the ports of bridges to the inet table.

use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, DataType, Field, Hook, Rule, Set, SetSpec, Verdict,
};

use super::interfaces::{IN, OUT, count_and_drop, router_advertisements};
use super::names::{
    EGRESS_PORTS, FORWARD, INGRESS_PORTS, OTHER_PROTOCOLS, POD_PORTS, PORT_ADDRESSES, PREROUTING,
    ROUTER_ADVERTISEMENTS, of_family,
};
use super::options::PolicyOptions;

/// Before br_netfilter passes a frame to the inet hooks (`NF_BR_PRI_BRNF`, 0).
const PRIORITY: i32 = -300;

/// The counters, with their comments.
pub(super) const COUNTERS: [(&str, &str); 2] = [
    (OTHER_PROTOCOLS, "frames of isolated pods that are neither IP nor ARP"),
    (ROUTER_ADVERTISEMENTS, "router advertisements and redirects of pods"),
];

/// Returns the sets and maps, without elements.
pub(super) fn sets() -> Vec<(Arc<str>, Set)> {
    let mut sets: Vec<(Arc<str>, Set)> = Vec::new();
    let mut put = |name: &str, spec: SetSpec, comment: &str| {
        sets.push((name.into(), Set::new(spec.with_comment(comment))));
    };
    put(POD_PORTS, SetSpec::new(&[DataType::IfName]), "interfaces of pods");
    let priorities = || SetSpec::new(&[DataType::IfName]).with_data(&[DataType::ClassId]);
    put(EGRESS_PORTS, priorities(), "of pods whose connections to others are judged");
    put(INGRESS_PORTS, priorities(), "of pods to which connections are judged");
    for family in Family::ALL {
        let spec = SetSpec::new(&[DataType::IfName, DataType::address(family)]);
        put(&of_family(PORT_ADDRESSES, family), spec, "the addresses that the API gives the pods");
    }
    sets
}

/// Returns the chains by name.
pub(super) fn chains(options: &PolicyOptions) -> [(&'static str, Chain); 2] {
    let frame = |family| Rule::new().ether_family(family);
    let mut prerouting: Vec<Rule> = router_advertisements(frame, POD_PORTS, options).collect();
    prerouting.extend(set_priority(IN, Field::Source, EGRESS_PORTS, options));
    let forward = set_priority(OUT, Field::Destination, INGRESS_PORTS, options).collect();
    [(PREROUTING, base_chain(Hook::Prerouting, prerouting)), (FORWARD, base_chain(Hook::Forward, forward))]
}

fn base_chain(hook: Hook, rules: Vec<Rule>) -> Chain {
    let base = BaseChain { kind: ChainKind::Filter, hook, priority: PRIORITY };
    Chain { base: Some(base), ..Chain::new(rules) }
}

/// Returns the rules that set the priority of a port's packets to the index of the port, unless their address is one of
/// the pod's. Frames that are neither IP nor ARP never reach rules of the inet family, so they are dropped.
fn set_priority(
    interface: Field,
    address: fn(Family) -> Field,
    map: &'static str,
    options: &PolicyOptions,
) -> impl Iterator<Item = Rule> {
    let known = Family::ALL.map(|family| {
        let key = [interface, address(family)];
        Rule::new().ether_family(family).is_in(&key, of_family(PORT_ADDRESSES, family)).then(Verdict::Accept)
    });
    let foreign = Family::ALL.map(|family| {
        Rule::new().ether_family(family).set_priority_from_map(&[interface], map).then(Verdict::Accept)
    });
    let known_protocols = [libc::ETH_P_IP, libc::ETH_P_IPV6, libc::ETH_P_ARP];
    let other = known_protocols.iter().fold(Rule::new(), |rule, kind| rule.ether_type_is_not(*kind as u16));
    let other = count_and_drop(&other.set_priority_from_map(&[interface], map), OTHER_PROTOCOLS, options);
    known.into_iter().chain(foreign).chain(other)
}
