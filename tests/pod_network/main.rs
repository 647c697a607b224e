//! The pod network between nodes: nodes in network namespaces, each with a daemon and a pod that is wired by hand.
//!
//! ```text
//!         pod ─ veth ─ node-1 ─┐
//!         pod ─ veth ─ node-2 ─┼─ switch ─ router ─ node-3 ─ veth ─ pod
//! ```

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod cluster;
mod damage;
mod differences;
mod network_managers;
mod traffic;

use std::sync::atomic::Ordering::Relaxed;

use cluster::{Addresses, Cluster, Families};
use damage::DAMAGE;
use traffic::{Flow, PATIENCE};

/// The families of a cluster.
const FAMILIES: [Families; 3] = [Families::Dual, Families::V4, Families::V6];

/// Checks that all pods of these nodes reach one another, with small and large packets.
fn assert_connected(cluster: &Cluster, nodes: &[usize]) {
    for &from in nodes {
        for &to in nodes.iter().filter(|to| **to != from) {
            for address in cluster.pod_addresses(to) {
                let (client, server) = (cluster.pod(from), cluster.pod(to));
                traffic::exchange_tcp(&client, &server, address);
                for bytes in [20, 1300, 8000] {
                    traffic::exchange_udp(&client, &server, address, bytes);
                }
            }
        }
    }
}

fn modes_connect_all_pods(mode: &str, nodes: &[usize]) {
    for families in FAMILIES {
        let cluster = Cluster::new(mode, families, nodes.len());
        cluster.wait_ready();
        assert_connected(&cluster, nodes);
        for &node in nodes {
            assert_eq!(
                cluster.metric(node, "portcullis_pod_network_drift_repairs_total"),
                0.0,
                "own changes are no drift"
            );
            let remote = cluster.node(node).ip("route show proto 80")
                + &cluster.node(node).ip("-6 route show proto 80");
            assert_eq!(
                remote.contains("pc-vxlan"),
                mode == "vxlan" || mode == "cross-subnet" && nodes.len() == 3,
                "{mode}: {remote}"
            );
        }
    }
}

#[test]
fn host_gw_connects_all_pods() {
    modes_connect_all_pods("host-gw", &[0, 1]);
}

#[test]
fn vxlan_connects_all_pods_also_behind_a_router() {
    modes_connect_all_pods("vxlan", &[0, 1, 2]);
}

#[test]
fn cross_subnet_connects_all_pods_also_behind_a_router() {
    modes_connect_all_pods("cross-subnet", &[0, 1, 2]);
}

#[test]
fn host_gw_reports_a_node_behind_a_router() {
    let cluster = Cluster::new("host-gw", Families::Dual, 3);
    cluster.wait_ready();
    assert_connected(&cluster, &[0, 1]);
    assert_eq!(cluster.metric(0, "portcullis_pod_network_unreachable_nodes{reason=\"not_on_link\"}"), 1.0);
    assert!(cluster.log(0).contains("is not on a link of this node"), "{}", cluster.log(0));
    assert!(cluster.get(0, "/healthz?verbose").contains("node-3") || cluster.log(0).contains("node-3"));
}

#[test]
fn damage_is_repaired_and_counted() {
    for mode in ["vxlan", "host-gw"] {
        let cluster = Cluster::new(mode, Families::Dual, 2);
        cluster.wait_ready();
        assert_connected(&cluster, &[0, 1]);
        let before = cluster.forwarding_state(0);
        for damage in DAMAGE.iter().filter(|damage| damage.modes.contains(&mode)) {
            let repairs = cluster.metric(0, "portcullis_pod_network_drift_repairs_total");
            damage.commands.iter().for_each(|command| drop(cluster.node(0).run(command)));
            traffic::wait_until(
                damage.name,
                || cluster.forwarding_state(0) == before,
                || format!("{}\n---\n{}\n---\n{}", before, cluster.forwarding_state(0), cluster.log(0)),
            );
            traffic::wait_until(
                "it is counted",
                || cluster.metric(0, "portcullis_pod_network_drift_repairs_total") > repairs,
                || format!("{}: {}", damage.name, cluster.log(0)),
            );
            traffic::exchange_udp(&cluster.pod(0), &cluster.pod(1), cluster.pod_addresses(1)[0], 1300);
        }
        assert_connected(&cluster, &[0, 1]);
    }
}

#[test]
fn traffic_continues_while_nodes_join_leave_and_change() {
    for mode in ["vxlan", "cross-subnet"] {
        let cluster = Cluster::new(mode, Families::Dual, 3);
        cluster.wait_ready();
        let flow = Flow::start(&cluster.pod(0), &cluster.pod(1), cluster.pod_addresses(1)[0]);
        // A node leaves, and joins again.
        cluster.remove_node_object(2);
        cluster.wait_without_routes(0, 2);
        cluster.write_node_object(2, None);
        cluster.wait_routes(0, 2);
        assert_connected(&cluster, &[0, 2]);
        // It returns with another address.
        let moved = cluster.readdress(2);
        cluster.write_node_object(2, Some(moved));
        traffic::wait_until(
            "the way to the new address",
            || traffic::try_udp(&cluster.pod(0), &cluster.pod(2), cluster.pod_addresses(2)[0]),
            || cluster.log(0),
        );
        assert_connected(&cluster, &[0, 2]);
        // A thousand nodes join together, and leave.
        cluster.write_other_nodes(1000);
        traffic::wait_until(
            "all nodes are known",
            || cluster.metric(0, "portcullis_pod_network_nodes") == 1003.0,
            || cluster.log(0),
        );
        cluster.write_other_nodes(0);
        traffic::wait_until(
            "the nodes are gone",
            || cluster.metric(0, "portcullis_pod_network_nodes") == 3.0,
            || cluster.log(0),
        );
        // A daemon restarts.
        cluster.restart(0);
        cluster.wait_ready();
        let (sent, lost) = flow.stop();
        assert!(sent.load(Relaxed) > 50, "{mode}: {sent:?}");
        assert_eq!(lost.load(Relaxed), 0, "{mode}: requests without a response, of {sent:?}");
        assert_connected(&cluster, &[0, 1, 2]);
    }
}

#[test]
fn conflicting_pod_cidr_does_not_take_traffic() {
    let cluster = Cluster::new("vxlan", Families::Dual, 2);
    cluster.wait_ready();
    let before = cluster.forwarding_state(0);
    cluster.write_conflicting_node();
    traffic::wait_until(
        "the conflict is reported",
        || cluster.metric(0, "portcullis_pod_network_unreachable_nodes{reason=\"conflict\"}") == 1.0,
        || cluster.log(0),
    );
    assert_eq!(cluster.forwarding_state(0), before);
    assert!(cluster.log(0).contains("which is older and keeps it"), "{}", cluster.log(0));
    assert_connected(&cluster, &[0, 1]);
}

#[test]
fn services_and_policies_apply_between_nodes() {
    let cluster = Cluster::new("vxlan", Families::Dual, 2);
    cluster.wait_ready();
    cluster.write_service_and_policy();
    let service = "10.96.0.10".parse().unwrap();
    let serves = traffic::Server::tcp(&cluster.pod(1), 7000);
    traffic::wait_until(
        "the Service answers",
        || traffic::try_tcp(&cluster.pod(0), service, 80),
        || cluster.log(0),
    );
    drop(serves);
    let _denied = traffic::Server::tcp(&cluster.pod(1), 7001);
    let pod: Addresses = cluster.pod_addresses(1);
    traffic::wait_until(
        "the policy denies other ports",
        || !traffic::try_tcp(&cluster.pod(0), pod[0], 7001),
        || cluster.log(1),
    );
}

#[test]
fn cleanup_removes_what_the_daemon_added_and_nothing_else() {
    let cluster = Cluster::new("vxlan", Families::Dual, 2);
    let node = cluster.node(0);
    node.run("ip route add 10.77.0.0/16 via 192.168.50.2 proto 70");
    node.run("ip link add flannel.1 type vxlan id 1 local 192.168.50.1 dstport 8472 nolearning");
    cluster.wait_ready();
    cluster.stop(0);
    let listed = node.run(&format!("{} cleanup --dry-run", cluster::PROGRAM));
    assert!(listed.contains("would remove 1 link of the overlay"), "{listed}");
    assert!(node.run("ip link show").contains("pc-vxlan"));
    let removed = node.run(&format!("{} cleanup", cluster::PROGRAM));
    assert!(removed.contains("removed 1 link of the overlay"), "{removed}");
    assert!(!node.run("ip link show").contains("pc-vxlan"));
    assert!(node.run("ip route show proto 80").is_empty());
    assert!(node.run("ip -6 route show proto 80").is_empty());
    assert!(node.run("ip route show proto 70").contains("10.77.0.0/16"));
    assert!(node.run("ip link show").contains("flannel.1"));
}

#[test]
fn daemon_waits_for_what_the_node_lacks_and_says_so() {
    let cluster = Cluster::new("vxlan", Families::Dual, 2);
    cluster.wait_ready();
    let state = cluster.forwarding_state(0);
    // The Node object of this node disappears: everything is kept.
    cluster.remove_node_object(0);
    traffic::wait_until("the object is missed", || cluster.log(0).contains("was deleted"), || cluster.log(0));
    assert_eq!(cluster.forwarding_state(0), state);
    cluster.restart(0);
    traffic::wait_until(
        "it is not ready",
        || cluster.log(0).contains("the Node object of this node (node-1) does not exist"),
        || cluster.log(0),
    );
    assert_eq!(cluster.forwarding_state(0), state, "nothing that serves is taken away");
    assert_eq!(cluster.metric(0, "portcullis_pod_network_ready"), 0.0);
    cluster.write_node_object(0, None);
    cluster.wait_ready();
    assert!(PATIENCE.as_secs() > 1);
    assert_eq!(cluster.forwarding_state(0), state);
}
