//! Masquerading of pods' traffic.

use std::path::Path;

use portcullis_netlink::Family;
use portcullis_podnet::egress::{Egress, EgressPolicy, TABLE, enable_forwarding};

use crate::node::{NODE, NODE_IPS, Node, OUTSIDE, OUTSIDE_IPS, POD_1, POD_1_IPS, POD_2, POD_2_IPS};
use crate::traffic::{serve, tcp, udp};

/// Addresses of a pod of another node: of the host outside, to which the node has routes.
const REMOTE_POD: [&str; 2] = ["10.244.2.5", "fd00:10:244:2::5"];

fn policy(excluded: &[&str]) -> EgressPolicy {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let pods = ["10.244.1.0/24", "fd00:10:244:1::/64"];
    EgressPolicy { pod_cidrs: nets(&pods), excluded: nets(&[&pods, excluded].concat()) }
}

const REMOTE_CIDRS: [&str; 2] = ["10.244.2.0/24", "fd00:10:244:2::/64"];

/// Returns a node with a remote pod, and servers everywhere.
fn node() -> Node {
    let node = Node::new();
    for (ip, node_ip) in REMOTE_POD.into_iter().zip(OUTSIDE_IPS) {
        node.ip(OUTSIDE, &format!("addr add {ip} dev lo"));
        node.ip(NODE, &format!("route add {ip} via {node_ip}"));
    }
    [OUTSIDE, NODE, POD_2].into_iter().for_each(|name| serve(&node, name, 80));
    node
}

/// Returns the source address that a server sees.
fn source(node: &Node, from: &str, to: &str) -> String {
    let reply = tcp(node, from, to, 80);
    // A server for UDP replies from the first address of its interface.
    if !REMOTE_POD.contains(&to) {
        assert_eq!(udp(node, from, to, 80), reply, "from {from} to {to}");
    }
    reply.split(' ').nth(1).unwrap_or_else(|| panic!("from {from} to {to}: {reply:?}")).to_owned()
}

#[test]
fn traffic_that_leaves_the_pod_network_is_masqueraded() {
    let node = node();
    node.inside(NODE, || {
        let mut egress = Egress::open().unwrap();
        egress.set_policy(Some(&policy(&REMOTE_CIDRS)));
        assert!(egress.needs_sync());
        assert!(egress.sync().unwrap().full);
        assert!(!egress.needs_sync());
    });
    for family in 0..2 {
        let rows = [
            (POD_1, OUTSIDE_IPS[family], NODE_IPS[family]),
            (POD_1, POD_2_IPS[family], POD_1_IPS[family]),
            (POD_1, NODE_IPS[family], POD_1_IPS[family]),
            (POD_1, REMOTE_POD[family], POD_1_IPS[family]),
            (OUTSIDE, POD_2_IPS[family], OUTSIDE_IPS[family]),
            (NODE, OUTSIDE_IPS[family], NODE_IPS[family]),
        ];
        for (from, to, expected) in rows {
            assert_eq!(source(&node, from, to), expected, "from {from} to {to}");
        }
    }
}

#[test]
fn changes_are_written_by_difference() {
    let node = node();
    let listed = || node.run(NODE, &format!("nft list table inet {TABLE}"));
    node.inside(NODE, || {
        let mut egress = Egress::open().unwrap();
        egress.set_policy(Some(&policy(&[])));
        egress.sync().unwrap();
        assert_eq!(source(&node, POD_1, REMOTE_POD[0]), NODE_IPS[0], "the node is not known yet");
        // A node joins: one element of each family, also next to existing ones.
        egress.set_policy(Some(&policy(&REMOTE_CIDRS)));
        let joined = egress.sync().unwrap();
        assert_eq!((joined.changes.total(), joined.full), (2, false), "{joined:?}");
        assert_eq!(source(&node, POD_1, REMOTE_POD[0]), POD_1_IPS[0]);
        // The operator excludes the hosts outside.
        egress.set_policy(Some(&policy(&[&REMOTE_CIDRS[..], &["192.0.2.0/24", "2001:db8::/32"]].concat())));
        assert_eq!(egress.sync().unwrap().changes.total(), 2);
        for family in 0..2 {
            assert_eq!(source(&node, POD_1, OUTSIDE_IPS[family]), POD_1_IPS[family]);
        }
        // A block that contains those of pods replaces them, and they return with its removal.
        egress.set_policy(Some(&policy(&["10.0.0.0/8"])));
        egress.sync().unwrap();
        assert!(egress.compare().unwrap().is_empty() && listed().contains("10.0.0.0/8"), "{}", listed());
        egress.set_policy(Some(&policy(&REMOTE_CIDRS)));
        egress.sync().unwrap();
        assert!(egress.compare().unwrap().is_empty() && !listed().contains("10.0.0.0/8"), "{}", listed());
        let wanted = listed();
        for damage in [
            "nft flush ruleset".to_owned(),
            format!("nft flush set inet {TABLE} pods-4"),
            format!("nft flush chain inet {TABLE} nat-postrouting"),
            format!("nft add element inet {TABLE} not-masqueraded-4 {{ 198.51.100.0/24 }}"),
        ] {
            node.run(NODE, &damage);
            assert!(!egress.compare().unwrap().is_empty(), "{damage}");
            egress.request_full_sync();
            assert!(!egress.sync().unwrap().changes.is_empty(), "{damage}");
            assert_eq!(listed(), wanted, "{damage}");
        }
        egress.set_policy(None);
        assert!(egress.needs_sync() && egress.sync().is_ok() && !egress.needs_sync());
        assert!(!Egress::delete_table().unwrap(), "nothing is masqueraded, and there is no table");
        egress.set_policy(Some(&policy(&[])));
        egress.sync().unwrap();
        assert_eq!(source(&node, POD_1, REMOTE_POD[0]), NODE_IPS[0]);
    });
}

/// A proxy mode marks packets of pods to Services that it masquerades, and clears the mark when it does.
#[test]
fn packets_that_a_proxy_masquerades_lose_its_mark() {
    let node = node();
    node.inside(NODE, || {
        let mut egress = Egress::open().unwrap();
        egress.set_policy(Some(&policy(&[])));
        egress.sync().unwrap();
    });
    for line in [
        "add table ip proxy",
        "add chain ip proxy pre { type nat hook prerouting priority -100 ; }",
        "add rule ip proxy pre ip daddr 10.96.0.1 meta mark set mark or 0x4000 dnat to 192.0.2.2",
        "add chain ip proxy post { type nat hook postrouting priority 100 ; }",
        "add rule ip proxy post mark and 0x4000 == 0x4000 meta mark set mark xor 0x4000 masquerade",
        "add chain ip proxy last { type filter hook postrouting priority 300 ; }",
        "add rule ip proxy last mark and 0x4000 == 0x4000 drop",
    ] {
        node.run(NODE, &format!("nft {line}"));
    }
    // The first packet of a connection; later ones are marked by no rule.
    assert_eq!(source(&node, POD_1, "10.96.0.1"), NODE_IPS[0]);
}

#[test]
fn forwarding_is_enabled_in_the_kernel() {
    let node = Node::new();
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        node.sysctl(NODE, setting, "0");
    }
    serve(&node, OUTSIDE, 80);
    assert_eq!(udp_reply(&node), ["no reply", "no reply"]);
    let proc = Path::new("/proc");
    let changed = node.inside(NODE, || enable_forwarding(proc, Family::ALL)).unwrap();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(node.inside(NODE, || enable_forwarding(proc, Family::ALL)).unwrap().is_empty());
    assert_eq!(udp_reply(&node), POD_1_IPS.map(|ip| format!("outside {ip}")));
}

fn udp_reply(node: &Node) -> [String; 2] {
    OUTSIDE_IPS.map(|ip| udp(node, POD_1, ip, 80))
}
