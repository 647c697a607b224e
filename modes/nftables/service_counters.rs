//! Traffic counters of Services, if [`Options::service_counters`](crate::Options) is set: elements of sets that count the packets
//! whose lookups find them.
//!
//! ```text
//! @service-ips, @service-nodeports       looked up before destination NAT, so they count the first packet of each connection
//! filter-…-pre-dnat    daddr . protocol . dport   @traffic-in     packets from clients: the destination is still the Service
//! count-postrouting    saddr . protocol . sport   @traffic-out    packets to clients: the source is the Service again
//! count-input          the same, for clients on this node
//! ```
//! The lookups have no verdict; a packet of no Service fails two of them.

use std::collections::{HashMap, HashSet};

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServicePortName};
use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{
    self, BaseChain, Chain, ChainKind, DataType, DesiredTable, Field, Hook, Key, Rule, Set, SetSpec,
    TableFamily,
};
use portcullis_netlink::socket::Socket;

use super::endpoint_map::FrontendKey;
use super::names::{NODE_PORT_IPS, TABLE};
use super::prerequisites::PROBE;
use super::service_elements::frontend_key;
use super::settings::{Settings, match_block};
use crate::node_port_addresses::NodePortScope;
use crate::traffic::{TrafficCounts, TrafficVolume};

/// The priority of the chains that count packets to clients: after source NAT, which also restores the source of replies.
const AFTER_SOURCE_NAT: i32 = 110;

/// A frontend of a family, as the sets have it.
pub(super) type CounterKey = (Family, FrontendKey, Key);

/// The direction of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    FromClient,
    ToClient,
}

impl FrontendKey {
    /// Returns the sets that count packets from clients and packets to clients.
    pub(super) fn traffic_sets(self) -> [&'static str; 2] {
        [Direction::FromClient, Direction::ToClient].map(|direction| self.traffic_set(direction))
    }

    fn traffic_set(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (FrontendKey::Address, Direction::FromClient) => "traffic-in",
            (FrontendKey::Address, Direction::ToClient) => "traffic-out",
            (FrontendKey::NodePort, Direction::FromClient) => "nodeport-traffic-in",
            (FrontendKey::NodePort, Direction::ToClient) => "nodeport-traffic-out",
        }
    }

    /// Returns the frontends whose packets a set counts; `None` for other sets.
    pub(super) fn of_traffic_set(set: &str) -> Option<FrontendKey> {
        FrontendKey::ALL.into_iter().find(|key| key.traffic_sets().contains(&set))
    }

    /// Returns the specification of a set that counts.
    fn counter_spec(self, settings: &Settings) -> SetSpec {
        SetSpec::new(&self.types(settings)).with_counters()
    }
}

/// Adds the sets.
pub(super) fn put_sets(table: &mut DesiredTable, settings: &Settings) {
    for key in FrontendKey::ALL {
        let about = ["packets from clients", "packets to clients"];
        for (name, about) in key.traffic_sets().into_iter().zip(about) {
            let spec = key.counter_spec(settings).with_comment(about);
            table.put_set(&name.into(), Set::new(spec));
        }
    }
}

/// Returns the rules that count packets from clients, for a hook before destination NAT. `is_output`: of this node's own packets.
pub(super) fn rules_from_clients(settings: &Settings, is_output: bool) -> Vec<Rule> {
    rules(settings, Direction::FromClient, is_output)
}

/// Adds the chains that count packets to clients.
pub(super) fn put_chains(table: &mut DesiredTable, settings: &Settings) {
    for (name, hook) in [("count-input", Hook::Input), ("count-postrouting", Hook::Postrouting)] {
        let base = BaseChain { kind: ChainKind::Filter, hook, priority: AFTER_SOURCE_NAT };
        let rules = rules(settings, Direction::ToClient, hook == Hook::Input);
        table.put_chain(&name.into(), Chain { base: Some(base), ..Chain::new(rules) });
    }
}

/// Returns the rules that look up the Service's end of packets. `is_local`: in a hook that packets between this node and its own
/// addresses pass.
fn rules(settings: &Settings, direction: Direction, is_local: bool) -> Vec<Rule> {
    let (address, port) = match direction {
        Direction::FromClient => (settings.destination(), Field::DestinationPort),
        Direction::ToClient => (settings.source(), Field::SourcePort),
    };
    let count = |rule: Rule, key: FrontendKey| {
        let fields: &[Field] = match key {
            FrontendKey::Address => &[address, Field::PROTOCOL, port],
            FrontendKey::NodePort => &[Field::PROTOCOL, port],
        };
        rule.is_in(fields, key.traffic_set(direction))
    };
    let loopback = |negated| move |rule: Rule| match_block(rule, address, settings.loopback(), negated);
    let node_address = match &settings.node_ports {
        NodePortScope::Addresses(_) => Rule::new().is_in(&[address], NODE_PORT_IPS),
        NodePortScope::All => loopback(true)(match direction {
            Direction::FromClient => Rule::new().to_local(),
            Direction::ToClient => Rule::new().from_local(),
        }),
    };
    let mut rules =
        vec![count(Rule::new(), FrontendKey::Address), count(node_address, FrontendKey::NodePort)];
    if settings.localhost && is_local {
        rules.push(count(loopback(false)(Rule::new()), FrontendKey::NodePort).with_comment("on localhost"));
    }
    rules
}

/// Reads the counters of all frontends of a family. A frontend that was not counted yet, or has no endpoint, has zeros.
///
/// # Errors
/// The sets could not be read.
pub(super) fn read(
    socket: &mut Socket,
    settings: &Settings,
    desired: &Desired,
) -> Result<Vec<(CounterKey, ServicePortName, Family, TrafficCounts)>> {
    let mut sets = HashMap::new();
    for key in FrontendKey::ALL {
        let spec = key.counter_spec(settings);
        let [from, to] = key.traffic_sets();
        let mut elements = |set| elements(socket, settings.family, set, &spec);
        sets.insert(key, [elements(key.frontends())?, elements(from)?, elements(to)?]);
    }
    let (mut counters, mut seen) = (Vec::new(), HashSet::new());
    for port in desired.ports().filter(|port| port.family == settings.family) {
        for frontend in port.frontends() {
            let (lookup, key) = frontend_key(port, &frontend);
            // A frontend that several Services claim counts for the first.
            if !seen.insert((lookup, key.clone())) {
                continue;
            }
            let [first, from, to] = &sets[&lookup];
            let counted = |set: &HashMap<Key, (u64, u64)>| set.get(&key).copied().unwrap_or_default();
            let ((connections, _), (packets_in, bytes_in), (packets_out, bytes_out)) =
                (counted(first), counted(from), counted(to));
            let volume = Some(TrafficVolume { packets_in, packets_out, bytes_in, bytes_out });
            let counts = TrafficCounts { connections, volume };
            counters.push(((settings.family, lookup, key), port.name.clone(), settings.family, counts));
        }
    }
    Ok(counters)
}

/// Returns the counters of a set, without elements if it does not exist.
fn elements(
    socket: &mut Socket,
    family: Family,
    set: &str,
    spec: &SetSpec,
) -> Result<HashMap<Key, (u64, u64)>> {
    let family = match family {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    };
    match nf_tables::read_element_counters(socket, family, TABLE, set, spec) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(HashMap::new()),
        read => read,
    }
}

/// Returns true if the kernel keeps counters of elements. Older ones than Linux 5.7 ignore the request.
///
/// # Errors
/// The kernel rejected the table for another reason.
pub fn supports_service_counters(socket: &mut Socket) -> Result<bool> {
    let mut table = DesiredTable::new(TableFamily::Ip, PROBE);
    table.put_set(&"set".into(), Set::new(SetSpec::new(&[DataType::Ipv4Addr]).with_counters()));
    nf_tables::commit(socket, &mut table)?;
    let found = nf_tables::read(socket, TableFamily::Ip, PROBE);
    nf_tables::delete_table(socket, TableFamily::Ip, PROBE)?;
    Ok(found?.is_some_and(|(table, _)| table.sets.get("set").is_some_and(|set| set.spec.counter)))
}
