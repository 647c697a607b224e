//! One rule with one lookup in a hash table: the least that any evaluation of a packet's address costs.

use std::net::{IpAddr, Ipv4Addr};

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, CtState, DataType, DesiredTable, Element, Field, Hook, Key, Rule, Set,
    SetSpec, TableFamily, Verdict, commit, delete_table, open,
};
use portcullis_policy::table::POSTROUTING_PRIORITY;

use super::cluster;

const TABLE: &str = "one-lookup";

/// Adds the table, which accepts new connections from the clients and as many other addresses as policies have.
pub(super) fn add(clients: &[Ipv4Addr]) {
    let others =
        cluster::others().map(|pod| pod["status"]["podIPs"][0]["ip"].as_str().map(str::parse::<Ipv4Addr>));
    let others = others.map(|address| address.expect("it has one").expect("an address"));
    let element = |address: Ipv4Addr| (Key::from(IpAddr::from(address)), Element::new());
    let elements: Vec<_> = clients.iter().copied().chain(others).map(element).collect();
    let mut table = DesiredTable::new(TableFamily::Inet, TABLE);
    let spec = SetSpec::new(&[DataType::address(Family::V4)]);
    table.put_set(&"clients".into(), Set::with_elements(spec, elements));
    let rules = vec![
        Rule::new().ct_state(CtState::ESTABLISHED | CtState::RELATED).then(Verdict::Accept),
        Rule::new().family(Family::V4).is_in(&[Field::Source(Family::V4)], "clients").then(Verdict::Accept),
    ];
    let base = BaseChain { kind: ChainKind::Filter, hook: Hook::Postrouting, priority: POSTROUTING_PRIORITY };
    table.put_chain(&"postrouting".into(), Chain { base: Some(base), ..Chain::new(rules) });
    let mut socket = open().expect("runs as root").expect("this kernel has nf_tables");
    commit(&mut socket, &mut table).expect("the kernel accepts the table");
}

/// Removes the table, if it exists.
pub(super) fn remove() {
    let mut socket = open().expect("runs as root").expect("this kernel has nf_tables");
    delete_table(&mut socket, TableFamily::Inet, TABLE).expect("runs as root");
}
