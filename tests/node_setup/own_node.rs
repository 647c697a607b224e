//! Tests of the deletion of this node's Node object, and of its recreation field by field.

use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{server, slice};
use crate::daemon::{HEALTH, Node, program};
use crate::http::get;
use crate::namespace;

fn node(more: Value) -> Value {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}});
    node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node
}

fn full(pod_cidr: &str, address: &str) -> Value {
    node(json!({
        "metadata": {"name": "node-a", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDRs": [pod_cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }))
}

/// Returns a slice with endpoints in both zones, so that topology hints apply.
fn slices(here: &str) -> Value {
    let mut slice = slice(here);
    slice["endpoints"] = json!([
        {"addresses": [here], "conditions": {"ready": true}, "hints": {"forZones": [{"name": "a"}]}},
        {"addresses": ["10.244.9.9"], "conditions": {"ready": true}, "hints": {"forZones": [{"name": "b"}]}},
    ]);
    slice
}

/// Returns all rules of the node.
fn rules() -> String {
    let lists: [&[&str]; 2] = [&["iptables-save"], &["nft", "list", "ruleset"]];
    let outputs = lists.map(|list| Command::new(list[0]).args(&list[1..]).output().unwrap().stdout);
    outputs.map(|output| String::from_utf8(output).unwrap()).concat()
}

/// Returns true if the table of policies contains a text.
fn policy_table_has(text: &str) -> bool {
    let rules = rules();
    rules.split("table inet portcullis-policy").nth(1).is_some_and(|table| table.contains(text))
}

fn health() -> String {
    get(HEALTH, "/healthz").unwrap_or_default()
}

#[test]
fn facts_of_a_deleted_node_object_are_kept() {
    let policy: &[&str] = &["--network-policy", "--network-policy-unknown-pods=deny"];
    for (mode, policy) in [("--mode=iptables", policy), ("--mode=nftables", &[]), ("--mode=nftables", policy)]
    {
        namespace::inside(move || {
            namespace::run("ip addr add 10.0.0.1/24 dev lo");
            let home = Node::new();
            let server = server("10.244.1.9");
            server.apply(full("10.244.1.0/24", "10.0.0.1"));
            server.apply(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
                "spec": {
                    "type": "NodePort", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
                    "ports": [{"port": 80, "nodePort": 30080}],
                },
            }));
            server.apply(slices("10.244.1.9"));
            let mut command = program();
            command.args([mode, "--master", &server.url(), "--iptables-min-sync-period=0s"]);
            command.args(["--detect-local-mode=NodeCIDR", "--nodeport-addresses=primary"]).args(policy);
            let mut daemon = home.spawn(command);
            // Node ports, local traffic, the zone's endpoints and, with policies, the pod CIDRs of unknown pods.
            let follows = |cidr: &str, address: &str, endpoint: &str| {
                let rules = rules();
                let own = [cidr, address, endpoint].iter().all(|text| rules.contains(text));
                own && !rules.contains("10.244.9.9")
            };
            daemon.wait_until("it serves", || follows("10.244.1.0/24", "10.0.0.1", "10.244.1.9"));
            // Policies are programmed beside Services, so their table may appear later.
            daemon.wait_until("policies are enforced", || {
                policy.is_empty() || policy_table_has("10.244.1.0/24")
            });
            let ranges = rules().matches("10.244.1.0/24").count();

            server.delete("nodes", "node-a");
            daemon.wait_until("health lists it", || health().contains("Node: node-a was deleted"));
            assert!(health().contains(" 200 ") && health().contains("\"nodeEligible\":true"), "{}", health());
            server.apply(slices("10.244.1.10"));
            daemon.wait_until("a change is followed", || follows("10.244.1.0/24", "10.0.0.1", "10.244.1.10"));

            server.apply(node(json!({})));
            daemon.wait_until("health says what is missing", || {
                health().contains("Node: node-a no longer has pod CIDRs and addresses and zone label")
            });
            server.apply(slices("10.244.1.11"));
            daemon.wait_until("a change is followed", || follows("10.244.1.0/24", "10.0.0.1", "10.244.1.11"));
            assert_eq!(rules().matches("10.244.1.0/24").count(), ranges);

            server.apply(full("10.244.7.0/24", "10.0.0.1"));
            daemon.wait_until("new facts are followed", || {
                follows("10.244.7.0/24", "10.0.0.1", "10.244.1.11") && !rules().contains("10.244.1.0/24")
            });
            assert!(!health().contains("Node: "), "{}", health());
            assert!(daemon.log().contains("Node node-a was deleted"), "{}", daemon.log());
        });
    }
}
