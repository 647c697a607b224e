//! Adding, removing and restoring host ports.

use std::net::UdpSocket;

use portcullis_podnet::host_ports::{HostPortError, HostPortRecords, HostPorts, PodHostPorts, TABLE};

use crate::host_port_reachability::{add, mapping, pod, records};
use crate::node::{NODE, NODE_IPS, Node, OUTSIDE, OUTSIDE_IPS, POD_1, POD_1_IPS, POD_2, POD_2_IPS};
use crate::traffic::{datagram, serve, tcp};

fn remove(node: &Node, pod: &PodHostPorts) {
    node.inside(NODE, || {
        HostPorts::open(node.state.path()).unwrap().remove(pod).unwrap().unwrap();
    });
}

fn table(node: &Node) -> String {
    node.run(NODE, &format!("nft list table inet {TABLE}"))
}

#[test]
fn adding_and_removing_again_changes_nothing() {
    let node = Node::new();
    let first = pod(POD_1_IPS, &[mapping(80, 8080, "tcp", ""), mapping(53, 53, "udp", "192.0.2.1")]);
    let second = pod(POD_2_IPS, &[mapping(81, 80, "tcp", "")]);
    remove(&node, &first);
    add(&node, &second, "pcp2");
    let before = table(&node);
    add(&node, &first, "pcp1");
    let with_both = table(&node);
    add(&node, &first, "pcp1");
    assert_eq!(table(&node), with_both);
    assert!(with_both.contains("192.0.2.1 . udp . 53 : 10.244.1.5 . 53"), "{with_both}");
    remove(&node, &first);
    assert_eq!(table(&node), before);
    remove(&node, &first);
    assert_eq!(table(&node), before);
    assert!(node.inside(NODE, || HostPorts::delete_table().unwrap()));
    assert!(!node.inside(NODE, || HostPorts::delete_table().unwrap()));
    remove(&node, &first);
}

#[test]
fn a_port_of_another_pod_is_rejected_and_one_of_a_deleted_pod_is_replaced() {
    let node = Node::new();
    add(&node, &pod(POD_1_IPS, &[mapping(80, 8080, "tcp", ""), mapping(80, 1, "udp", "")]), "pcp1");
    let before = table(&node);
    let try_add = |mappings: &[_], is_attached: bool| {
        node.inside(NODE, || {
            let mut host_ports = HostPorts::open(node.state.path()).unwrap();
            host_ports.add(&pod(POD_2_IPS, mappings), "pcp2", |_| is_attached).map(drop)
        })
    };
    let error = try_add(&[mapping(79, 80, "tcp", ""), mapping(80, 80, "tcp", "")], true).unwrap_err();
    assert!(matches!(&error, HostPortError::Conflict { .. }), "{error}");
    assert_eq!(error.to_string(), "host port 80/tcp is in use by the pod at 10.244.1.5:8080");
    assert_eq!(table(&node), before, "the port that is free is not added either");
    let error = try_add(&[mapping(1, 80, "tcp", ""), mapping(1, 81, "tcp", "0.0.0.0")], true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "host port 0.0.0.0:1/tcp is mapped twice, to ports 80 and 81 of the container"
    );
    try_add(&[mapping(80, 80, "sctp", ""), mapping(80, 80, "tcp", "192.0.2.1")], true).unwrap();
    try_add(&[mapping(80, 80, "tcp", "")], false).unwrap();
    let after = table(&node);
    assert!(
        after.contains("tcp . 80 : 10.244.1.6 . 80") && after.contains("udp . 80 : 10.244.1.5 . 1"),
        "{after}"
    );
    // The deleted pod's DEL comes late, and must not remove the port of its successor.
    remove(&node, &pod(POD_1_IPS, &[mapping(80, 8080, "tcp", "")]));
    assert!(table(&node).contains("tcp . 80 : 10.244.1.6 . 80"));
}

#[test]
fn udp_flows_follow_the_host_port() {
    let node = Node::new();
    serve(&node, POD_1, 53);
    serve(&node, POD_2, 53);
    for family in 0..2 {
        let socket = node.inside(OUTSIDE, || UdpSocket::bind((OUTSIDE_IPS[family], 0)).unwrap());
        let ask = |expects_reply| datagram(&socket, NODE_IPS[family], 5353, expects_reply);
        let reply = |pod: &str| format!("{pod} {}", OUTSIDE_IPS[family]);
        assert_eq!(ask(false), "no reply", "a flow to the node itself");
        let [first, second] = [POD_1_IPS, POD_2_IPS].map(|ips| pod(ips, &[mapping(5353, 53, "udp", "")]));
        add(&node, &first, "pcp1");
        assert_eq!(ask(true), reply("pod1"), "the flow to the node is gone");
        remove(&node, &first);
        add(&node, &second, "pcp2");
        assert_eq!(ask(true), reply("pod2"), "the flow to the first pod is gone");
        // The flow of another port, and one that the change does not concern, stay.
        let other = node.inside(OUTSIDE, || UdpSocket::bind((OUTSIDE_IPS[family], 0)).unwrap());
        assert_eq!(datagram(&other, POD_1_IPS[family], 53, true), reply("pod1"));
        let flows = |node: &Node| {
            node.run(NODE, "cat /proc/net/nf_conntrack").lines().filter(|l| l.contains("udp")).count()
        };
        let before = flows(&node);
        add(&node, &second, "pcp2");
        assert_eq!(flows(&node), before);
        remove(&node, &second);
        assert_eq!(ask(false), "no reply");
        assert_eq!(flows(&node), before, "one flow was deleted, and one to the node is new");
    }
}

#[test]
fn the_table_is_restored_from_the_records() {
    let node = Node::new();
    serve(&node, POD_1, 80);
    let first = pod(POD_1_IPS, &[mapping(80, 80, "tcp", ""), mapping(53, 53, "udp", "127.0.0.1")]);
    let second = pod(POD_2_IPS, &[mapping(80, 8080, "tcp", ""), mapping(82, 8080, "tcp", "")]);
    let restore = |pods: Vec<PodHostPorts>| {
        node.inside(NODE, || HostPorts::open(node.state.path()).unwrap().restore(|| records(pods)).unwrap())
    };
    assert!(restore(Vec::new()).changes.is_empty());
    assert!(!node.inside(NODE, || HostPorts::delete_table().unwrap()), "no table without host ports");
    add(&node, &first, "pcp1");
    let wanted = table(&node);
    let damages = [
        format!("nft delete table inet {TABLE}"),
        "nft flush ruleset".to_owned(),
        format!("nft flush chain inet {TABLE} host-ports"),
        format!("nft flush map inet {TABLE} all-ip-ports-4"),
        format!("nft add element inet {TABLE} all-ip-ports-6 {{ tcp . 9 : fd00::9 . 9 }}"),
        format!("nft add element inet {TABLE} hairpin-4 {{ 10.0.0.1 . 10.0.0.1 }}"),
        format!("nft add chain inet {TABLE} theirs"),
    ];
    for damage in damages {
        node.run(NODE, &damage);
        let restored = restore(vec![first.clone()]);
        assert!(!restored.changes.is_empty() && restored.conflicts.is_empty(), "{damage}: {restored:?}");
        assert_eq!(table(&node), wanted, "{damage}");
        assert!(restore(vec![first.clone()]).changes.is_empty(), "{damage}");
        assert_eq!(tcp(&node, OUTSIDE, NODE_IPS[0], 80).split(' ').next(), Some("pod1"), "{damage}");
    }
    let restored = restore(vec![first, second]);
    assert_eq!(restored.conflicts.len(), 2, "one of each family: {:?}", restored.conflicts);
    assert!(table(&node).contains("tcp . 82 : 10.244.1.6 . 8080"));
    // Records that cannot be read take nothing away.
    let before = table(&node);
    node.inside(NODE, || {
        let mut host_ports = HostPorts::open(node.state.path()).unwrap();
        let incomplete = || Ok(HostPortRecords { pods: Vec::new(), is_complete: false });
        assert!(host_ports.restore(incomplete).unwrap().changes.is_empty());
        let error = host_ports.restore(|| Err("damaged".to_owned())).unwrap_err();
        assert!(error.to_string().ends_with("damaged"), "{error}");
    });
    assert_eq!(table(&node), before);
    restore(Vec::new());
    assert!(!table(&node).contains("10.244.1.5"));
}

#[test]
fn plugins_that_run_concurrently_lose_nothing() {
    let node = Node::new();
    std::thread::scope(|scope| {
        for n in 1..=16u16 {
            let node = &node;
            scope.spawn(move || {
                let ips = [format!("10.244.1.{}", n + 10), format!("fd00:10:244:1::{n}")];
                let pod = pod([&ips[0], &ips[1]], &[mapping(8000 + n, 80, "tcp", "")]);
                add(node, &pod, "pcp1");
                if n % 4 == 0 {
                    remove(node, &pod);
                }
            });
        }
    });
    let listed = table(&node);
    for n in 1..=16 {
        let element = format!("tcp . {} : 10.244.1.{} . 80", 8000 + n, n + 10);
        assert_eq!(listed.contains(&element), n % 4 != 0, "{element} in {listed}");
    }
    assert_eq!(listed.matches("jump host-ports").count(), 4, "no rule is there twice: {listed}");
}
