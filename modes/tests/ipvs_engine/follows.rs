//! Whatever the cluster and the node become: after each sync the kernel holds what is rendered, nothing else.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};
use portcullis_netlink::ip_vs::{RealServer, VirtualServer, VirtualServerConfig};
use proptest::prelude::*;

use crate::cluster::{Drawn, SERVICES, drawn};
use crate::node::{Node, all_well, host, repairs};
use crate::order;

/// What happens in a test.
#[derive(Clone, Debug)]
enum Step {
    /// Services are set or deleted, and a sync follows.
    Change(Vec<(usize, Option<Drawn>)>),
    /// The node's addresses or options become others.
    Facts(u8),
    /// Both at once.
    FactsAndChange(u8, Vec<(usize, Option<Drawn>)>),
    /// Some real servers have connections from now on, or none.
    Connections(bool),
    /// Time passes.
    Wait(u64),
    /// The process starts anew.
    Restart,
    /// Others make virtual servers while no process runs.
    RestartAmongOthers,
}

fn changes() -> impl Strategy<Value = Vec<(usize, Option<Drawn>)>> {
    proptest::collection::vec((0..SERVICES, proptest::option::weighted(0.8, drawn())), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => changes().prop_map(Step::Change),
        2 => any::<u8>().prop_map(Step::Facts),
        1 => (any::<u8>(), changes()).prop_map(|(facts, changes)| Step::FactsAndChange(facts, changes)),
        1 => any::<bool>().prop_map(Step::Connections),
        2 => (0..100u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => Just(Step::RestartAmongOthers),
    ]
}

/// Options and facts made from bits.
fn facts(bits: u8) -> (Options, NodeFacts) {
    let bit = |n: u8| bits & (1 << n) != 0;
    let mut host = host();
    let mut addresses = host.addresses.to_vec();
    if bit(0) {
        // The node gets what is an external address of Services.
        addresses.extend(["192.0.2.12", "2001:db8::12"].map(|ip| ip.parse::<IpAddr>().expect("an address")));
    }
    if bit(1) {
        addresses.retain(|ip| *ip != host.node_ips[0]);
        host.node_ips = ["192.0.2.2", "2001:db8::1"].map(|ip| ip.parse().expect("an address")).into();
    }
    host.addresses = addresses.into();
    let nets = |text: &[&str]| text.iter().map(|net| net.parse().expect("a block")).collect();
    let node_port_addresses = match bits >> 2 & 3 {
        0 => NodePortAddresses::Primary { localhost: bit(4) },
        1 => NodePortAddresses::Cidrs(nets(&["192.0.2.2/32", "127.0.0.0/8"])),
        _ => NodePortAddresses::All,
    };
    let detect_local = DetectLocal::Cidrs(if bit(5) { nets(&["10.244.0.0/16"]) } else { nets(&[]) });
    let masquerade_all = bit(6);
    (Options { node_port_addresses, detect_local, masquerade_all, ..Options::default() }, host)
}

/// Virtual servers of others: two that may stay, two that may not, and one in the place of a Service's.
fn put_others(node: &Node) {
    let at = |address: &str, port| VirtualServer {
        protocol: 6,
        address: address.parse().expect("an address"),
        port,
    };
    let real = |address: &str| RealServer { address: address.parse().expect("one"), port: 1, weight: 3 };
    let mut state = node.kernel.state();
    for (v4, v6) in [("10.99.0.1", "fd00:99::1"), ("10.98.0.1", "fd00:98::1"), ("10.96.0.1", "fd00:96::1")] {
        let family = portcullis_netlink::Family::V4;
        state.put(
            at(v4, 80),
            VirtualServerConfig::new("wrr", family),
            &[real("10.9.9.9"), real("10.244.0.1")],
        );
        let family = portcullis_netlink::Family::V6;
        state.put(at(v6, 80), VirtualServerConfig::new("wrr", family), &[real("fd00:9::9")]);
    }
    state.link.get_or_insert_default().insert(IpAddr::from([10, 98, 0, 1]));
}

fn others_left(node: &Node) -> usize {
    let state = node.kernel.state();
    let excluded = |ip: &IpAddr| node.ipvs.exclude_cidrs.iter().any(|net| net.contains(ip));
    state.servers.keys().filter(|key| excluded(&key.address)).count()
}

fn connect_some(node: &Node, some: bool) {
    let mut state = node.kernel.state();
    let all: Vec<_> =
        state.servers.iter().flat_map(|(key, server)| server.real.keys().map(|real| (*key, *real))).collect();
    for (i, (key, real)) in all.into_iter().enumerate() {
        let active = u32::from(some && i % 2 == 0);
        state.connect(&key, real, active, active);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_follows(others in any::<bool>(), steps in proptest::collection::vec(step(), 1..15)) {
        let mut node = Node::new();
        let mut excluded = 0;
        if others {
            put_others(&node);
            excluded = others_left(&node);
        }
        node.settle(&[]);
        for step in steps {
            let before = order::Held::of(&node);
            node.forget_log();
            match &step {
                Step::Change(services) => {
                    let changes = node.set(services.iter().map(|(n, drawn)| (*n, drawn.as_ref())));
                    let reports = node.settle(&changes);
                    prop_assert_eq!(repairs(&reports), 0);
                    prop_assert!(reports.iter().all(|report| !report.is_full));
                }
                Step::Facts(bits) => {
                    let (options, host) = facts(*bits);
                    node.reconfigure(options, host);
                    prop_assert_eq!(repairs(&node.settle(&[])), 0);
                }
                Step::FactsAndChange(bits, services) => {
                    let (options, host) = facts(*bits);
                    node.reconfigure(options, host);
                    let changes = node.set(services.iter().map(|(n, drawn)| (*n, drawn.as_ref())));
                    prop_assert_eq!(repairs(&node.settle(&changes)), 0);
                }
                Step::Connections(some) => connect_some(&node, *some),
                Step::Wait(seconds) => node.wait(Duration::from_secs(*seconds)),
                Step::Restart => {
                    node.restart();
                    let reports = node.settle(&[]);
                    prop_assert_eq!(repairs(&reports), 0);
                    prop_assert_eq!(&node.kernel.state().log[..], &[], "nothing changed");
                }
                Step::RestartAmongOthers => {
                    put_others(&node);
                    excluded = others_left(&node);
                    node.restart();
                    let reports = node.settle(&[]);
                    prop_assert_eq!(repairs(&reports), 0, "what was there before is nobody's damage");
                }
            }
            order::check(before, &node);
            node.is_right();
            prop_assert_eq!(others_left(&node), excluded);
        }
        prop_assert_eq!(node.look_after(), 0, "nobody touched anything");
    }
}

/// Every Service that there is is written at the first sync, whoever was told of it.
#[test]
fn the_first_sync_needs_no_changes() {
    let mut node = Node::new();
    for n in 0..SERVICES {
        node.cluster.set(n, Some(&Drawn::plain(n, "rr")));
    }
    all_well(&node.sync(&[]));
    node.is_right();
    assert_eq!(node.kernel.state().servers.len(), SERVICES);
}

/// More than are taken in at a time.
#[test]
fn many_services_at_once_come_to_the_same() {
    let mut node = Node::new();
    for endpoints in ["r", "rr", "", "r-r"] {
        let services: Vec<_> = (0..1200).map(|n| (n, Drawn::many(n, endpoints))).collect();
        let changes = node.set(services.iter().map(|(n, drawn)| (*n, Some(drawn))));
        all_well(&node.sync(&changes));
        node.is_right();
        node.restart();
        node.forget_log();
        all_well(&node.sync(&changes));
        assert_eq!(node.kernel.state().log, []);
    }
    let changes = node.set((0..1200).map(|n| (n, None)));
    all_well(&node.sync(&changes));
    node.is_right();
    assert!(node.kernel.state().servers.is_empty());
}

/// One family is all that some nodes have.
#[test]
fn the_other_family_is_left_alone() {
    let mut node = Node::new();
    node.only(Family::V4);
    put_others(&node);
    let both = Drawn { families: &[4, 6], ..Drawn::plain(0, "rr") };
    node.change(0, Some(&both));
    let state = node.kernel.state();
    let v6: Vec<_> = state.servers.keys().filter(|key| key.address.is_ipv6()).collect();
    assert_eq!(v6.len(), 3, "they are none of ours");
    assert!(state.sets.keys().all(|name| !name.starts_with("KUBE-6-")));
}
