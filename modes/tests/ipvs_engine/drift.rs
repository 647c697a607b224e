//! Drift: changes of our objects by another process are detected, restored and counted.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_modes::Mode;
use portcullis_modes::iptables::{Fingerprint, Flavour, IptablesKernel, Table};
use portcullis_modes::ipvs::ServerChange;
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::ip_vs::VirtualServerConfig;
use portcullis_netlink::ipset::SetEntry;
use proptest::prelude::*;

use crate::change_cost::{real, server, socket_address};
use crate::cluster::{SERVICES, TestService, any_service};
use crate::node::{Node, restored};

const TCP: u8 = 6;

/// Returns a node with three Services, one of which uses most features.
fn node() -> Node {
    let rich = TestService {
        families: &[4, 6],
        ports: "tu",
        node_port: Some(30_000),
        balancer: Some(0),
        external: 1,
        ranges: &["198.51.100.0/24", "2001:db8:5::/48"],
        ..TestService::plain(2, "rrr")
    };
    Node::serving(&[(0, TestService::plain(0, "rr")), (1, TestService::plain(1, "rrr")), (2, rich)])
}

fn rules(node: &Node, meddle: impl FnOnce(&mut crate::fake_iptables::Chains), table: Table) {
    node.rules[0].1.change_externally(|tables| meddle(tables.get_mut(&table).expect("it is always there")));
}

/// A change by another process.
type ExternalChange = fn(&Node);

#[rustfmt::skip]
const EXTERNAL_CHANGES: [(&str, usize, ExternalChange); 21] = [
    // name; number of restored objects; change
    ("a virtual server is deleted", 3, |n| {
        n.kernel.state().servers.remove(&server(TCP, 0));
    }),
    ("a scheduler is changed", 1, |n| {
        n.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").config.scheduler = "lc".into();
    }),
    ("a real server is deleted", 1, |n| {
        n.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&socket_address(1));
    }),
    ("a weight is changed", 1, |n| {
        let mut state = n.kernel.state();
        let server = state.servers.get_mut(&server(TCP, 0)).expect("there");
        server.real.get_mut(&socket_address(1)).expect("there").server.weight = 7;
    }),
    ("a real server is drained", 1, |n| {
        let mut state = n.kernel.state();
        let server = state.servers.get_mut(&server(TCP, 0)).expect("there");
        server.real.get_mut(&socket_address(1)).expect("there").server.weight = 0;
    }),
    ("a real server is forwarded to in another way", 1, |n| {
        let mut state = n.kernel.state();
        let server = state.servers.get_mut(&server(TCP, 0)).expect("there");
        server.real.get_mut(&socket_address(1)).expect("there").forwarding = 3;
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

/// Removes all objects, as `kube-proxy --cleanup` does.
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
fn external_changes_are_restored_and_counted() {
    let repair = |(what, _, meddle): (&'static str, usize, ExternalChange)| {
        let mut node = node();
        meddle(&node);
        let counted = node.run_audits();
        // An unknown real server is deleted when it has no connections.
        node.wait(Duration::from_secs(10));
        node.assert_in_sync();
        assert_eq!(node.run_audits(), 0, "{what}: again");
        (what, counted)
    };
    assert_eq!(EXTERNAL_CHANGES.map(repair), EXTERNAL_CHANGES.map(|(what, restored, _)| (what, restored)));
}

/// A change of a Service before the next audit does not hide an external change.
#[test]
fn a_change_of_a_service_does_not_hide_an_external_change() {
    let rich = TestService { node_port: Some(30_001), ports: "u", ..TestService::plain(0, "rr") };
    for change in [None, Some(&TestService::plain(0, "rrr")), Some(&rich)] {
        for (what, _, meddle) in EXTERNAL_CHANGES {
            let mut node = node();
            meddle(&node);
            let changes = node.set([(0, change)]);
            // The external change may make this sync fail.
            node.sync(&changes);
            node.run_audits();
            node.wait(Duration::from_secs(10));
            node.assert_in_sync();
            assert_eq!(node.run_audits(), 0, "{what}");
        }
    }
}

/// New options and node facts change rules, sets and virtual servers. These changes do not count as restored, also if the
/// first write fails halfway.
#[test]
fn new_node_facts_are_no_drift() {
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
            assert!(reports[0].error.is_some() && restored(&reports) == 0, "{reports:?}");
        }
        assert_eq!(node.run_audits(), 0, "after a write that failed: {fails}");
        node.assert_in_sync();
    }
}

/// One of two tables is written, then the tool fails. Only the generation of nf_tables tells how many tables were.
#[test]
fn own_writes_that_were_rejected_in_part_are_not_those_of_another_process() {
    let mut node = node();
    node.keep_family(Family::V4);
    node.sync(&[]);
    let generation = |node: &Node| match node.rules[0].1.fingerprint() {
        Some(Fingerprint::Generation(generation)) => generation,
        other => panic!("{other:?}"),
    };
    let before = generation(&node);
    assert!(
        node.proxier.has_synced_since(before) && !node.proxier.may_be_own_write(before),
        "all is written"
    );
    let options = Options { masquerade_bit: 15, ..node.options.clone() };
    let host = node.host.clone();
    node.reconfigure(options, host);
    node.rules[0].1.state().locked_at = Some(Table::Nat);
    assert!(node.sync(&[])[0].error.is_some());
    let after = generation(&node);
    assert!(after != before && !node.proxier.has_synced_since(after), "the rules have to be compared");
    assert!(node.proxier.may_be_own_write(after) && !node.proxier.may_be_own_write(after + 1));
    assert!(node.sync(&[])[0].error.is_none());
    node.assert_in_sync();
    assert!(!node.proxier.may_be_own_write(after), "the rules were compared");
}

/// Chains and excluded virtual servers of other programs are not compared.
#[test]
fn changes_of_foreign_objects_are_no_drift() {
    let mut node = node();
    rules(
        &node,
        |chains| {
            chains.insert("CNI-HOSTPORT".into(), vec!["-j RETURN".into()]);
            chains.get_mut("PREROUTING").expect("it is built in").push("-j CNI-HOSTPORT".into());
        },
        Table::Nat,
    );
    let mut foreign = server(TCP, 0);
    foreign.address = IpAddr::from([10, 99, 0, 1]);
    let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
    node.kernel.state().put(foreign, config, &[real(9, 0)]);
    assert_eq!(node.run_audits(), 0);
    assert!(node.kernel.state().log.is_empty());
    assert!(node.kernel.state().servers.contains_key(&foreign));
}

/// Another process writes rules just before or after a restore.
#[test]
fn changes_during_a_restore_are_restored() {
    for (flavour, is_before) in
        [Flavour::Nft, Flavour::Legacy].into_iter().flat_map(|f| [(f, true), (f, false)])
    {
        for (table, chain) in
            [(Table::Nat, "KUBE-SERVICES"), (Table::Nat, "PREROUTING"), (Table::Filter, "KUBE-FORWARD")]
        {
            let mut node = Node::with_tool(flavour);
            let changes = node.set([(0, Some(&TestService::plain(0, "rr")))]);
            node.sync_without_rejections(&changes);
            node.run_audits();
            {
                let mut state = node.rules[0].1.state();
                let moment = if is_before { &mut state.before_restore } else { &mut state.after_restore };
                *moment = Some(Box::new(move |tables| {
                    tables
                        .get_mut(&table)
                        .expect("it is always there")
                        .get_mut(chain)
                        .expect("it was written")
                        .clear();
                }));
            }
            let options = Options { masquerade_bit: 15, ..node.options.clone() };
            node.reconfigure(options, node.host.clone());
            node.sync_without_rejections(&[]);
            let restored = node.run_audits();
            node.assert_in_sync();
            assert_eq!(
                node.run_audits(),
                0,
                "{flavour:?}, {table}, {chain}, {is_before}: restored {restored} before"
            );
        }
    }
}

/// External changes and changes of Services in the same sync are distinguished.
#[test]
fn only_external_changes_are_counted() {
    let mut node = node();
    {
        let mut state = node.kernel.state();
        state.sets.get_mut("KUBE-CLUSTER-IP").expect("there").entries.pop_last();
        state.link.as_mut().expect("there").remove(&IpAddr::from([10, 96, 0, 3]));
        let config = VirtualServerConfig::new("rr", portcullis_netlink::Family::V4);
        state.put(server(TCP, 99), config, &[]);
    }
    node.kernel.state().audit_pauses_after = Some(0);
    node.proxier.check_drift_at(node.now);
    node.sync_without_rejections(&[]);
    node.kernel.resume_audit();
    node.kernel.wait_for_audit();
    let changes =
        node.set([(0, None), (1, Some(&TestService::plain(1, "r"))), (3, Some(&TestService::plain(3, "r")))]);
    assert_eq!(restored(&node.sync_without_rejections(&changes)), 3);
    node.assert_in_sync();
}

/// Sets or deletes Services by number, and syncs. Returns the number of restored objects.
fn change(node: &mut Node, services: &[(usize, Option<TestService>)]) -> usize {
    let changes = node.set(services.iter().map(|(n, service)| (*n, service.as_ref())));
    restored(&node.sync_without_rejections(&changes))
}

fn services() -> impl Strategy<Value = Vec<(usize, Option<TestService>)>> {
    proptest::collection::vec((0..SERVICES, proptest::option::weighted(0.8, any_service())), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(100)))]

    /// An audit that reads a part of the kernel before a change and the rest after it finds no drift.
    #[test]
    fn our_changes_during_an_audit_are_no_drift(
        first in services(),
        rounds in proptest::collection::vec((0..60usize, services(), 0..70u64), 1..4),
    ) {
        let mut node = Node::new();
        node.sync_without_rejections(&[]);
        change(&mut node, &first);
        for (reads, during, wait) in rounds {
            node.now += Duration::from_secs(30);
            node.kernel.state().audit_pauses_after = Some(reads);
            node.proxier.check_drift_at(node.now);
            prop_assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
            node.kernel.wait_for_audit();
            prop_assert_eq!(change(&mut node, &during), 0);
            // Some draining endpoints are deleted meanwhile.
            node.now += Duration::from_secs(wait);
            prop_assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
            node.kernel.resume_audit();
            node.kernel.wait_for_audit();
            node.clear_log();
            prop_assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
            prop_assert_eq!(node.log_and_reads(), (vec![], 0), "no comparison was necessary");
            node.assert_in_sync();
        }
    }

    /// Deleted servers, entries and addresses are restored.
    #[test]
    fn deleted_objects_are_restored(first in services(), deleted in any::<[u64; 3]>()) {
        let mut node = Node::new();
        node.sync_without_rejections(&[]);
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
        let has_drift = node.found() != node.expected();
        prop_assert_eq!(node.run_audits() > 0, has_drift);
        node.assert_in_sync();
    }
}

/// Draining real servers are no drift.
#[test]
fn draining_real_servers_are_no_drift() {
    let mut node = node();
    node.kernel.state().connect(&server(TCP, 1), socket_address(2), 1, 0);
    node.change(1, Some(&TestService::plain(1, "r-r")));
    node.proxier.check_drift_at(node.now);
    node.kernel.wait_for_audit();
    node.clear_log();
    node.sync_without_rejections(&[]);
    assert_eq!(node.log_and_reads(), (vec![], 0), "the audit found no difference");
    assert_eq!(node.run_audits(), 0);
    assert_eq!(node.kernel.state().server_changes(), []);
    node.kernel.state().connect(&server(TCP, 1), socket_address(2), 0, 0);
    assert_eq!(node.run_audits(), 0);
    assert_eq!(
        node.kernel.state().server_changes(),
        [ServerChange::DeleteRealServer(server(TCP, 1), socket_address(2))]
    );
}

/// If IPv6 cannot be written, drift of IPv4 is still restored.
#[test]
fn drift_is_restored_while_the_other_family_fails() {
    let mut node = node();
    node.rules[1].1.state().rejected.insert("KUBE-6-NODE-PORT-UDP".into());
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
