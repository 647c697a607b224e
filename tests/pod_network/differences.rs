//! `portcullis diff` on a node whose pod network another process has changed while the daemon is stopped.

use std::fs;

use super::cluster::{Cluster, Families};
use super::damage::DAMAGE;
use super::traffic;

/// Changes of what does not depend on links and routes, and lines of the differences.
const OTHER_DAMAGE: [(&str, &[&str]); 3] = [
    (
        "nft flush set inet portcullis-pod-network pods-4",
        &["+++ wanted/pod network/table inet portcullis-pod-network", "+10.244.1.0/24"],
    ),
    ("nft delete table inet portcullis-pod-network", &["chain nat-postrouting (is missing)"]),
    ("sysctl -qw net.ipv4.ip_forward=0", &["-net.ipv4.ip_forward = 0", "+net.ipv4.ip_forward = 1"]),
];

#[test]
fn differences_of_the_pod_network_are_printed() {
    for mode in ["vxlan", "host-gw"] {
        let cluster = Cluster::new(mode, Families::Dual, 2);
        cluster.wait_ready();
        let (status, printed, log) = cluster.portcullis(0, &["diff"]);
        assert_eq!((status, &*printed), (0, ""), "{mode}: {log}");
        cluster.stop(0);
        let before = cluster.forwarding_state(0);
        let relevant = DAMAGE.iter().filter(|damage| damage.modes.contains(&mode));
        for damage in relevant.filter(|damage| !damage.differences.is_empty()) {
            damage.commands.iter().for_each(|command| drop(cluster.node(0).run(command)));
            assert_differs(&cluster, damage.name, damage.differences);
            // A route of another program, which a daemon that starts leaves.
            cluster.node(0).run("ip route flush to exact 10.244.2.0/24 proto boot");
            // The start of the daemon resolves exactly these.
            cluster.start(0);
            let is_restored = || cluster.forwarding_state(0) == before;
            traffic::wait_until(damage.name, is_restored, || cluster.log(0));
            cluster.wait_ready();
            cluster.stop(0);
            assert_eq!(cluster.portcullis(0, &["diff"]).0, 0, "{mode}: {}", damage.name);
        }
        for (command, lines) in OTHER_DAMAGE {
            cluster.node(0).run(command);
            assert_differs(&cluster, command, lines);
        }
        let loopback = cluster.loopback(0);
        fs::remove_file(&loopback).unwrap();
        let missing = format!("{} (is missing)", loopback.display());
        assert_differs(&cluster, "the CNI plugin loopback is removed", &[&missing]);
        let configuration = cluster.configuration(0);
        fs::remove_file(&configuration).unwrap();
        let missing = format!("{} (is missing)", configuration.display());
        assert_differs(
            &cluster,
            "the CNI configuration is removed",
            &[&missing, "+  \"name\": \"portcullis\","],
        );
        let (status, document, log) = cluster.portcullis(0, &["diff", "-o", "json"]);
        assert_eq!(status, 1, "{log}");
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let subjects: Vec<&str> = document["differences"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["subject"].as_str().unwrap())
            .collect();
        assert!(subjects.contains(&"pod network/CNI"), "{subjects:?}");
    }
}

#[test]
fn an_unknown_pod_network_is_an_error_and_no_empty_difference() {
    let cluster = Cluster::new("vxlan", Families::Dual, 2);
    cluster.wait_ready();
    cluster.remove_node_object(0);
    let (status, printed, log) = cluster.portcullis(0, &["diff"]);
    assert_eq!(status, 2, "{printed}{log}");
    assert!(log.contains("the Node object of this node (node-1) does not exist"), "{log}");
}

fn assert_differs(cluster: &Cluster, damage: &str, lines: &[&str]) {
    let (status, printed, log) = cluster.portcullis(0, &["diff"]);
    assert_eq!(status, 1, "{damage}: {printed}{log}");
    for line in lines {
        assert!(printed.contains(line), "{damage}: {line} is not in\n{printed}");
    }
}
