//! What others do to what we wrote is noticed, repaired and counted; what they leave alone is not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_modes::Mode;
use portcullis_modes::iptables::Table;
use portcullis_modes::ipvs::{Change, IpSet};
use portcullis_netlink::ip_vs::{Balancing, RealServer, VirtualServer};
use portcullis_netlink::ipset::SetEntry;
use proptest::prelude::*;

use crate::cluster::{Drawn, SERVICES, drawn};
use crate::hot_path::{place, real, server};
use crate::node::{Node, all_well, repairs};

const TCP: u8 = 6;
const V4: Family = Family::V4;

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
    node.rules[0].1.meddle(|tables| meddle(tables.get_mut(&table).expect("it is always there")));
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
        n.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").balancing.scheduler = "lc".into();
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
        let balancing = Balancing::new("rr", portcullis_netlink::Family::V4);
        n.kernel.state().put(server(TCP, 0), balancing, &[real(1, 1), real(2, 1), real(9, 1)]);
    }),
    ("a virtual server is added", 1, |n| {
        let balancing = Balancing::new("rr", portcullis_netlink::Family::V4);
        n.kernel.state().put(server(TCP, 99), balancing, &[real(9, 1)]);
    }),
    ("all virtual servers are deleted", 58, |n| n.kernel.state().servers.clear()),
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
    ("everything is cleaned up", 0, clean_up),
];

/// As `kube-proxy --cleanup` does.
fn clean_up(node: &Node) {
    for (_, rules) in &node.rules {
        rules.meddle(|tables| {
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
    for (what, repairs, meddle) in MEDDLING {
        let mut node = node();
        meddle(&node);
        let counted = node.look_after();
        // A real server that is one too many goes when it has no connections.
        node.wait(Duration::from_secs(10));
        node.is_right();
        assert!(counted == repairs || (repairs == 0 && counted > 0), "{what}: {counted}");
        assert_eq!(node.look_after(), 0, "{what}: again");
    }
}
