//! Tests of the decision which flows are stale after a change. Each row runs in both families, for UDP and SCTP.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portcullis_cluster::desired::ServiceChange;
use portcullis_netlink::Family;
use portcullis_netlink::conntrack::Flow;

use crate::cluster::{Cluster, Reading, UDP};
use crate::decision_rows::{GAME, ROWS};
use crate::flows::{MemoryTable, TestFlowTable, flows, words, written};

/// The addresses of the node, as written in the texts.
const NODE: [&str; 2] = ["192.168.10.11", "172.20.5.11"];

/// Runs every row in every reading, and asserts exactly which flows remain.
pub(crate) fn check(table: &dyn TestFlowTable) {
    let state = |text: &str| if text.starts_with("->") { format!("{GAME} {text}") } else { text.to_owned() };
    for row in ROWS {
        for reading in Reading::ALL {
            let mut cluster = Cluster::new();
            let mut stale = table.stale_flows();
            let node = NODE.map(|ip| reading.ip(ip));
            if !row.restart {
                let changes = cluster.become_text(&state(row.before), reading);
                stale.add_changes(&changes);
                stale.delete(&cluster.desired, &written(), &node).unwrap();
            }
            let flows = flows(row.flows, reading);
            table.put(&flows.iter().map(|(flow, _)| *flow).collect::<Vec<Flow>>());
            let changes = cluster.become_text(&state(row.after), reading);
            // A start may have a list of changes from an empty state, or none.
            for changes in if row.restart { vec![changes, vec![]] } else { vec![changes] } {
                stale.add_changes(&changes);
                stale.delete(&cluster.desired, &written(), &node).unwrap();
            }
            let expected: BTreeSet<String> =
                flows.iter().filter(|(_, stays)| *stays).map(|(flow, _)| words(flow)).collect();
            assert_eq!(table.take_all(), expected, "{}, {reading:?}", row.case);
            assert!(!stale.has_pending(), "{}", row.case);
        }
    }
}

#[test]
fn stale_flows_are_deleted_as_in_the_table() {
    check(&MemoryTable::default());
}

#[test]
fn node_ports_on_loopback() {
    let reading = Reading { family: Family::V4, udp_is: UDP };
    let port = "- udp 127.0.0.1:30505 <- 10.244.2.10:7777\n- udp 127.8.8.8:30505 <- 10.244.2.10:7777";
    let served: [(&[&str], bool); 3] =
        [(&["192.168.10.11", "127.0.0.1"], true), (&["192.168.10.11", "::1"], false), (&[], false)];
    for (node, goes) in served {
        let node: Vec<IpAddr> = node.iter().map(|ip| ip.parse().unwrap()).collect();
        let memory = MemoryTable::default();
        let mut cluster = Cluster::new();
        memory.put(&flows(port, reading).iter().map(|(flow, _)| *flow).collect::<Vec<Flow>>());
        cluster.become_text(&format!("{GAME} -> 10.244.1.10:7777"), reading);
        memory.stale_flows().delete(&cluster.desired, &written(), &node).unwrap();
        assert_eq!(memory.take_all().is_empty(), goes, "{node:?}");
    }
}

#[test]
fn no_mode_serves_node_ports_on_the_ipv6_loopback_address() {
    let reading = Reading { family: Family::V6, udp_is: UDP };
    let memory = MemoryTable::default();
    let mut cluster = Cluster::new();
    let at = |text: &str| text.parse().unwrap();
    memory.put(&[crate::flows::translated(UDP.1, at("[::1]:40000"), at("[::1]:30505"), at("[::1]:30505"))]);
    cluster.become_text(&format!("{GAME} -> 10.244.1.10:7777"), reading);
    memory.stale_flows().delete(&cluster.desired, &written(), &["::1".parse().unwrap()]).unwrap();
    assert_eq!(memory.take_all().len(), 1);
}

#[test]
fn flows_of_a_dual_stack_service_are_decided_by_family() {
    let (v4, v6) = (Reading { family: Family::V4, udp_is: UDP }, Reading { family: Family::V6, udp_is: UDP });
    let state = |v4_endpoint: &str, v6_endpoint: &str| {
        use portcullis_cluster::Kind;
        use serde_json::json;
        let slice = |name: &str, kind: &str, ip: IpAddr| {
            let labels = json!({"kubernetes.io/service-name": "dual"});
            let ports = json!([{"name": "p", "port": 7777, "protocol": "UDP"}]);
            let endpoints = json!([{"addresses": [ip.to_string()]}]);
            let metadata = json!({"name": name, "labels": labels});
            (
                Kind::EndpointSlice,
                json!({"metadata": metadata, "addressType": kind, "endpoints": endpoints, "ports": ports}),
            )
        };
        let ips = [v4.ip("10.96.5.4").to_string(), v6.ip("10.96.5.4").to_string()];
        let ports = json!([{"name": "p", "port": 7777, "protocol": "UDP", "nodePort": 30505}]);
        let spec = json!({"type": "NodePort", "clusterIP": ips[0], "clusterIPs": ips, "ports": ports});
        vec![
            (Kind::Service, json!({"metadata": {"name": "dual"}, "spec": spec})),
            slice("dual-4", "IPv4", v4.ip(v4_endpoint)),
            slice("dual-6", "IPv6", v6.ip(v6_endpoint)),
        ]
    };
    let memory = MemoryTable::default();
    let (mut cluster, mut stale) = (Cluster::new(), memory.stale_flows());
    let node = [v4.ip(NODE[0]), v6.ip(NODE[0])];
    let mut go = |changes: Vec<ServiceChange>, cluster: &Cluster| {
        stale.add_changes(&changes);
        stale.delete(&cluster.desired, &written(), &node).unwrap()
    };
    let changes = cluster.become_objects(state("10.244.1.10", "10.244.1.10"));
    go(changes, &cluster);

    let both = "- udp 10.96.5.4:7777 <- 10.244.1.10:7777\n- udp 192.168.10.11:30505 <- 10.244.1.10:7777";
    let (four, six) = (flows(both, v4), flows(both, v6));
    memory.put(&four.iter().chain(&six).map(|(flow, _)| *flow).collect::<Vec<Flow>>());
    memory.0.lock().unwrap().requests.clear();
    let changes = cluster.become_objects(state("10.244.1.11", "10.244.1.10"));
    let sweep = go(changes, &cluster);
    assert_eq!((sweep.frontends, sweep.examined, sweep.deleted), (2, 2, 2));
    assert_eq!(sweep.by_family().collect::<Vec<_>>(), [(portcullis_cluster::Family::V4, 2)]);
    assert_eq!(memory.0.lock().unwrap().requests, [(vec![Family::V4], vec![UDP.1])]);
    assert_eq!(memory.take_all(), six.iter().map(|(flow, _)| words(flow)).collect());
}
