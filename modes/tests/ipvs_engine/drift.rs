//! What others do to what we wrote is noticed, repaired and counted; what they leave alone is not.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_modes::iptables::Table;
use portcullis_modes::ipvs::ServerChange;
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::ip_vs::VirtualServerConfig;
use portcullis_netlink::ipset::SetEntry;
use proptest::prelude::*;

use crate::cluster::{Drawn, SERVICES, drawn};
use crate::hot_path::{place, real, server};
use crate::node::{Node, repairs};

const TCP: u8 = 6;

/// Three Services, one of which uses most there is.
fn node() -> Node {
    let rich = Drawn {
        families: &[4, 6],
        ports: "tu",
        node_port: Some(30_000),
        balancer: Some(0),
        external: 1,
        ranges: &["198.51.100.0/24", "2001:db8:5::/48"],
        ..Drawn::plain(2, "rrr")
    };
    Node::serving(&[(0, Drawn::plain(0, "rr")), (1, Drawn::plain(1, "rrr")), (2, rich)])
}

fn rules(node: &Node, meddle: impl FnOnce(&mut crate::fake_iptables::Chains), table: Table) {
    node.rules[0].1.change_externally(|tables| meddle(tables.get_mut(&table).expect("it is always there")));
}

/// Runs as somebody else, who may be careless.
type Meddle = fn(&Node);

#[rustfmt::skip]
const MEDDLING: [(&str, usize, Meddle); 21] = [
    // What; how many repairs that takes; how it is done.
    ("a virtual server is deleted", 3, |n| {
        n.kernel.state().servers.remove(&server(TCP, 0));
    }),
    ("a scheduler is changed", 1, |n| {
        n.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").config.scheduler = "lc".into();
    }),
    ("a real server is deleted", 1, |n| {
        n.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&place(1));
    }),
    ("a weight is changed", 1, |n| {
        let mut state = n.kernel.state();
        let server = state.servers.get_mut(&server(TCP, 0)).expect("there");
        server.real.get_mut(&place(1)).expect("there").server.weight = 7;
    }),
    ("a real server is drained", 1, |n| {
        let mut state = n.kernel.state();
        let server = state.servers.get_mut(&server(TCP, 0)).expect("there");
        server.real.get_mut(&place(1)).expect("there").server.weight = 0;
    }),
    ("a real server is forwarded to in another way", 1, |n| {
        let mut state = n.kernel.state();
        let server = state.servers.get_mut(&server(TCP, 0)).expect("there");
        server.real.get_mut(&place(1)).expect("there").forwarding = 3;
    }),
    ("a real server is added", 1, |n| {
        let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
        n.kernel.state().put(server(TCP, 0), config, &[real(1, 1), real(2, 1), real(9, 1)]);
    }),
    ("a virtual server is added", 1, |n| {
        let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
        n.kernel.state().put(server(TCP, 99), config, &[real(9, 1)]);
    }),
    ("all virtual servers are deleted", 87, |n| n.kernel.state().servers.clear()),
    ("an address is deleted", 1, |n| {
        n.kernel.state().link.as_mut().expect("there").remove(&IpAddr::from([10, 96, 0, 1]));
    }),
    ("an address is added", 1, |n| {
        n.kernel.state().link.as_mut().expect("there").insert(IpAddr::from([10, 96, 0, 77]));
    }),
    ("the link is deleted", 8, |n| n.kernel.state().link = None),
    ("an entry is deleted", 1, |n| {
        let mut state = n.kernel.state();
        state.sets.get_mut("KUBE-CLUSTER-IP").expect("there").entries.pop_first();
    }),
    ("an entry is added", 1, |n| {
        let mut state = n.kernel.state();
        state.sets.get_mut("KUBE-NODE-PORT-TCP").expect("there").entries.insert(SetEntry::Port(7));
    }),
    ("an address is added to those of the filter", 1, |n| {
        let mut state = n.kernel.state();
        let entry = SetEntry::Ip(IpAddr::from([10, 96, 0, 77]));
        state.sets.get_mut("KUBE-IPVS-IPS").expect("there").entries.insert(entry);
    }),
    ("a set is flushed", 4, |n| {
        n.kernel.state().sets.get_mut("KUBE-CLUSTER-IP").expect("there").entries.clear();
    }),
    ("a chain is flushed", 1, |n| rules(n, |chains| {
        chains.get_mut("KUBE-SERVICES").expect("there").clear();
    }, Table::Nat)),
    ("a chain is deleted with its jumps", 3, |n| rules(n, |chains| {
        chains.remove("KUBE-SERVICES");
        chains.values_mut().for_each(|rules| rules.retain(|rule| !rule.ends_with("KUBE-SERVICES")));
    }, Table::Nat)),
    ("a jump is deleted", 1, |n| rules(n, |chains| chains.get_mut("INPUT").expect("there").truncate(2), Table::Filter)),
    ("a rule is added", 1, |n| rules(n, |chains| {
        chains.get_mut("KUBE-FORWARD").expect("there").insert(0, "-j DROP".into());
    }, Table::Filter)),
    ("everything is cleaned up", 177, clean_up),
];

/// As `kube-proxy --cleanup` does.
fn clean_up(node: &Node) {
    for (_, rules) in &node.rules {
        rules.change_externally(|tables| {
            for chains in tables.values_mut() {
                chains.retain(|name, _| !name.starts_with("KUBE-"));
                chains.values_mut().for_each(|rules| rules.retain(|rule| !rule.contains("-j KUBE-")));
            }
        });
    }
    let mut state = node.kernel.state();
    state.servers.clear();
    state.sets.clear();
    state.link = None;
}

#[test]
fn what_others_do_is_repaired_and_counted() {
    let repair = |(what, _, meddle): (&'static str, usize, Meddle)| {
        let mut node = node();
        meddle(&node);
        let counted = node.look_after();
        // A real server that is one too many goes when it has no connections.
        node.wait(Duration::from_secs(10));
        node.is_right();
        assert_eq!(node.look_after(), 0, "{what}: again");
        (what, counted)
    };
    assert_eq!(MEDDLING.map(repair), MEDDLING.map(|(what, repairs, _)| (what, repairs)));
}

/// What somebody did to the rules is not forgotten because a Service changes before the next check.
#[test]
fn a_change_does_not_hide_what_others_did() {
    let rich = Drawn { node_port: Some(30_001), ports: "u", ..Drawn::plain(0, "rr") };
    for change in [None, Some(&Drawn::plain(0, "rrr")), Some(&rich)] {
        for (what, _, meddle) in MEDDLING {
            let mut node = node();
            meddle(&node);
            let changes = node.set([(0, change)]);
            // What others did may make it fail; that is another story.
            node.sync(&changes);
            node.look_after();
            node.wait(Duration::from_secs(10));
            node.is_right();
            assert_eq!(node.look_after(), 0, "{what}");
        }
    }
}

/// New options and node facts change rules, sets and virtual servers. That is no repair, also where the first write fails
/// half-way.
#[test]
fn new_node_facts_are_no_repair() {
    for fails in [false, true] {
        let mut node = node();
        let moved: Vec<IpAddr> =
            ["127.0.0.1", "192.0.2.9", "::1", "2001:db8::9"].map(|ip| ip.parse().expect("an address")).into();
        let node_ips = [moved[1], moved[3]];
        let host = NodeFacts { addresses: moved.into(), node_ips: node_ips.into(), ..node.host.clone() };
        let options = Options { masquerade_bit: 15, ..node.options.clone() };
        node.reconfigure(options, host);
        if fails {
            node.rules[0].1.state().locked_at = Some(Table::Nat);
            let reports = node.sync(&[]);
            assert!(reports[0].error.is_some() && repairs(&reports) == 0, "{reports:?}");
        }
        assert_eq!(node.look_after(), 0, "after a write that failed: {fails}");
        node.is_right();
    }
}

/// Somebody else's chains are none of ours.
#[test]
fn what_others_do_to_their_own_is_no_drift() {
    let mut node = node();
    rules(
        &node,
        |chains| {
            chains.insert("CNI-HOSTPORT".into(), vec!["-j RETURN".into()]);
            chains.get_mut("PREROUTING").expect("it is built in").push("-j CNI-HOSTPORT".into());
        },
        Table::Nat,
    );
    let mut theirs = server(TCP, 0);
    theirs.address = IpAddr::from([10, 99, 0, 1]);
    let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
    node.kernel.state().put(theirs, config, &[real(9, 0)]);
    assert_eq!(node.look_after(), 0);
    assert!(node.kernel.state().log.is_empty());
    assert!(node.kernel.state().servers.contains_key(&theirs));
}

/// What somebody does while a Service changes too is told apart.
#[test]
fn only_what_others_did_is_counted() {
    let mut node = node();
    {
        let mut state = node.kernel.state();
        state.sets.get_mut("KUBE-CLUSTER-IP").expect("there").entries.pop_last();
        state.link.as_mut().expect("there").remove(&IpAddr::from([10, 96, 0, 3]));
        let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
        state.put(server(TCP, 99), config, &[]);
    }
    node.kernel.state().audit_stops_after = Some(0);
    node.proxier.check_drift_at(node.now);
    node.settle(&[]);
    node.kernel.let_audit_go_on();
    node.kernel.wait_for_audit();
    let changes = node.set([(0, None), (1, Some(&Drawn::plain(1, "r"))), (3, Some(&Drawn::plain(3, "r")))]);
    assert_eq!(repairs(&node.settle(&changes)), 3);
    node.is_right();
}

/// A change of everything that one may draw, by number.
fn change(node: &mut Node, services: &[(usize, Option<Drawn>)]) -> usize {
    let changes = node.set(services.iter().map(|(n, drawn)| (*n, drawn.as_ref())));
    repairs(&node.settle(&changes))
}

fn services() -> impl Strategy<Value = Vec<(usize, Option<Drawn>)>> {
    proptest::collection::vec((0..SERVICES, proptest::option::weighted(0.8, drawn())), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// An audit that has read some of the kernel when a change is written, and reads the rest after it, finds nothing.
    #[test]
    fn what_we_write_during_an_audit_is_no_drift(
        first in services(),
        rounds in proptest::collection::vec((0..60usize, services(), 0..70u64), 1..4),
    ) {
        let mut node = Node::new();
        node.settle(&[]);
        change(&mut node, &first);
        for (reads, during, wait) in rounds {
            node.now += Duration::from_secs(30);
            node.kernel.state().audit_stops_after = Some(reads);
            node.proxier.check_drift_at(node.now);
            prop_assert_eq!(repairs(&node.settle(&[])), 0);
            node.kernel.wait_for_audit();
            prop_assert_eq!(change(&mut node, &during), 0);
            // The connections of some end meanwhile.
            node.now += Duration::from_secs(wait);
            prop_assert_eq!(repairs(&node.settle(&[])), 0);
            node.kernel.let_audit_go_on();
            node.kernel.wait_for_audit();
            node.forget_log();
            prop_assert_eq!(repairs(&node.settle(&[])), 0);
            prop_assert_eq!(node.asked(), (vec![], 0), "nothing made it look again");
            node.is_right();
        }
    }

    /// Whatever of our servers, entries and addresses others delete, it comes back.
    #[test]
    fn what_others_delete_comes_back(first in services(), deleted in any::<[u64; 3]>()) {
        let mut node = Node::new();
        node.settle(&[]);
        change(&mut node, &first);
        {
            let mut state = node.kernel.state();
            let goes = |i: usize, bits: u64| bits & (1 << (i % 64)) != 0;
            let keep = |all: usize, bits: u64| (0..all).map(|i| !goes(i, bits)).collect::<Vec<_>>().into_iter();
            let mut kept = keep(state.servers.len(), deleted[0]);
            state.servers.retain(|_, _| kept.next() == Some(true));
            let entries: usize = state.sets.values().map(|set| set.entries.len()).sum();
            let mut kept = keep(entries, deleted[1]);
            state.sets.values_mut().for_each(|set| set.entries.retain(|_| kept.next() == Some(true)));
            let addresses = state.link.get_or_insert_default();
            let mut kept = keep(addresses.len(), deleted[2]);
            addresses.retain(|_| kept.next() == Some(true));
        }
        let damaged = node.held() != node.wanted();
        prop_assert_eq!(node.look_after() > 0, damaged);
        node.is_right();
    }
}

/// Real servers that wait for their connections to end are as we left them.
#[test]
fn terminations_are_no_drift() {
    let mut node = node();
    node.kernel.state().connect(&server(TCP, 1), place(2), 1, 0);
    node.change(1, Some(&Drawn::plain(1, "r-r")));
    node.proxier.check_drift_at(node.now);
    node.kernel.wait_for_audit();
    node.forget_log();
    node.settle(&[]);
    assert_eq!(node.asked(), (vec![], 0), "not even worth a look");
    assert_eq!(node.look_after(), 0);
    assert_eq!(node.kernel.state().server_changes(), []);
    node.kernel.state().connect(&server(TCP, 1), place(2), 0, 0);
    assert_eq!(node.look_after(), 0);
    assert_eq!(
        node.kernel.state().server_changes(),
        [ServerChange::DeleteRealServer(server(TCP, 1), place(2))]
    );
}

/// A node whose IPv6 cannot be written is looked after in IPv4.
#[test]
fn a_family_that_fails_does_not_keep_the_other_from_being_looked_after() {
    let mut node = node();
    node.rules[1].1.state().refused.insert("KUBE-6-NODE-PORT-UDP".into());
    node.rules[1].1.change_externally(|tables| {
        tables.values_mut().for_each(|chains| chains.retain(|n, _| !n.starts_with("KUBE-")))
    });
    node.proxier.check_drift_at(node.now);
    node.sync(&[]);
    node.kernel.wait_for_audit();
    node.sync(&[]);
    node.kernel.state().servers.remove(&server(TCP, 0));
    for _ in 0..6 {
        node.now += Duration::from_secs(30);
        node.proxier.check_drift_at(node.now);
        node.sync(&[]);
        node.kernel.wait_for_audit();
        node.now += Duration::from_secs(1);
        let reports = node.sync(&[]);
        assert!(reports[1].error.is_some());
    }
    assert!(node.kernel.state().servers.contains_key(&server(TCP, 0)));
}
