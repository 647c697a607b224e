//! The table, from the desired Services. Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_cluster::desired::Desired;
use portcullis_netlink as netlink;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, CtState, DataType, Element, Field, Hook, Key, Rule, Set, SetSpec, Table,
    TableFamily,
};

use crate::nftables::merge_ranges;
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;

/// The name of the table.
pub const NAME: &str = "portcullis-observe";

/// The prefix of the logged packets.
pub const PREFIX: &str = "drop by source ranges";

pub(super) const FAMILY: TableFamily = TableFamily::Inet;

/// After conntrack (-200), and before the rules of nftables mode that drop the packets (-110).
const PRIORITY: i32 = -111;

/// The greatest number of packets a second that each rule logs, and its burst.
const RATE: u32 = 10_000;
const BURST: u32 = 5_000;

/// The length of the logged part of a packet: the headers.
const LOGGED_BYTES: u32 = 128;

/// The set of frontends with source ranges, and the set of the sources that each allows.
const FRONTENDS: &str = "frontends";
const SOURCES: &str = "sources";

/// The frontends of one family, each with the ranges of its sources.
type Frontends = BTreeMap<Key, Vec<(IpAddr, IpAddr)>>;

/// Returns the table for the Services of a node; `None` if none has source ranges.
pub(super) fn source_range_table(
    mode: ProxyMode,
    desired: &Desired,
    options: &Options,
    facts: &NodeFacts,
    group: u16,
) -> Option<Table> {
    let mut table = Table::new(FAMILY, NAME);
    table.comment = Some("logs packets that source ranges drop, while an observer is connected".into());
    let mut rules = Vec::new();
    for family in [Family::V4, Family::V6] {
        let frontends = frontends(mode, family, desired, options, facts);
        if !frontends.is_empty() {
            rules.push(rule(kernel_family(family), group));
            put_sets(&mut table, kernel_family(family), frontends);
        }
    }
    if rules.is_empty() {
        return None;
    }
    // In IPVS mode, the filter table sees the node's own packets as received from the loopback interface.
    let hooks: &[Hook] = match mode {
        ProxyMode::Ipvs => &[Hook::Prerouting],
        ProxyMode::Iptables | ProxyMode::Nftables => &[Hook::Prerouting, Hook::Output],
    };
    for hook in hooks {
        let base = BaseChain { kind: ChainKind::Filter, hook: *hook, priority: PRIORITY };
        let chain = Chain { base: Some(base), ..Chain::new(rules.clone()) };
        table.chains.insert(hook.as_str().into(), chain);
    }
    Some(table)
}

fn frontends(
    mode: ProxyMode,
    family: Family,
    desired: &Desired,
    options: &Options,
    facts: &NodeFacts,
) -> Frontends {
    let routing = mode.routing_context(family, options, facts);
    let mut frontends = Frontends::new();
    for port in desired.ports().filter(|port| port.family == family && port.source_ranges.is_some()) {
        for frontend in port.frontends() {
            let (Some(ip), Some(allowed)) = (frontend.address.ip(), frontend.allowed_sources(&routing))
            else {
                continue;
            };
            let key = Key::from(ip).protocol(port.name.protocol.number()).port(frontend.address.port());
            // Of several Services that claim the frontend, the first one is served.
            if let Entry::Vacant(entry) = frontends.entry(key) {
                let ranges = allowed.ranges.iter().map(|net| (net.network(), net.broadcast()));
                let addresses = allowed.load_balancer_vips.iter().map(|ip| (*ip, *ip));
                entry.insert(merge_ranges(ranges.chain(addresses).collect()));
            }
        }
    }
    frontends
}

fn put_sets(table: &mut Table, family: netlink::Family, frontends: Frontends) {
    let address = DataType::address(family);
    let frontend = [address, DataType::InetProto, DataType::InetService];
    let sources = frontends.iter().flat_map(|(key, ranges)| {
        ranges
            .iter()
            .map(|(first, last)| (key.clone().address(*first), Element::range_to(key.clone().address(*last))))
    });
    let source = [&frontend[..], &[address]].concat();
    let sources = Set::with_elements(SetSpec::new(&source).with_intervals(), sources);
    table.sets.insert(name(SOURCES, family).into(), sources);
    let frontends = frontends.into_keys().map(|key| (key, Element::new()));
    let frontends = Set::with_elements(SetSpec::new(&frontend), frontends);
    table.sets.insert(name(FRONTENDS, family).into(), frontends);
}

fn rule(family: netlink::Family, group: u16) -> Rule {
    let frontend = [Field::Destination(family), Field::PROTOCOL, Field::DestinationPort];
    let source = [&frontend[..], &[Field::Source(family)]].concat();
    Rule::new()
        .ct_state(CtState::NEW)
        .family(family)
        .is_in(&frontend, name(FRONTENDS, family))
        .is_not_in(&source, name(SOURCES, family))
        .limit_per_second(RATE, BURST)
        .log(group, PREFIX, LOGGED_BYTES)
}

fn name(set: &str, family: netlink::Family) -> String {
    match family {
        netlink::Family::V4 => format!("{set}-ipv4"),
        netlink::Family::V6 => format!("{set}-ipv6"),
    }
}

fn kernel_family(family: Family) -> netlink::Family {
    match family {
        Family::V4 => netlink::Family::V4,
        Family::V6 => netlink::Family::V6,
    }
}
