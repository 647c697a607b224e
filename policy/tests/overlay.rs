//! Addresses of nodes in an overlay: the network addresses of their pod CIDRs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_cluster::{Event, Index, Kind, Object, Protocol};
use portcullis_policy::evaluation::PolicyVerdict;
use portcullis_policy::{Compiler, Connection, Scope};
use serde_json::{Value, json};

fn index(objects: &[Value]) -> Index {
    let mut index = Index::new();
    for value in objects {
        let text = |field: &str| value[field].as_str().unwrap();
        let kind = Kind::from_api(text("apiVersion"), text("kind")).unwrap();
        index.handle(Event::Applied(Object::parse(kind, value.clone()).unwrap().object));
    }
    index
}

#[test]
fn nodes_are_peers_by_their_addresses_in_the_overlay() {
    let node = |number: u8| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{number}")},
            "spec": {"podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:{number}::/64")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{number}")}]}})
    };
    let pod = |name: &str, node: &str, ips: [&str; 2]| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "x", "name": name},
            "spec": {"nodeName": node}, "status": {"podIPs": [{"ip": ips[0]}, {"ip": ips[1]}]}})
    };
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "nodes"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "egress": [{"action": "Deny", "to": [{"nodes": {}}]}]},
    });
    let index = index(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}),
        node(1),
        node(2),
        pod("a", "n1", ["10.244.1.5", "fd00:1::5"]),
        pod("b", "n2", ["10.244.2.5", "fd00:2::5"]),
        policy,
    ]);
    for has_overlay in [false, true] {
        let compiler = Compiler::new(Scope::Cluster).with_overlay(has_overlay).with_index(&index);
        for (from, to, is_denied) in [
            ("10.244.1.5", "192.168.0.2", true),
            ("10.244.1.5", "10.244.2.0", has_overlay),
            ("fd00:1::5", "fd00:2::", has_overlay),
            ("10.244.1.5", "10.244.2.5", false),
        ] {
            let [from, to] = [from, to].map(|text| text.parse().unwrap());
            let connection = Connection { from, to, port: 22, protocol: Protocol::Tcp };
            let egress = compiler.compiled().evaluate(connection).egress.unwrap();
            assert_eq!(egress.verdict == PolicyVerdict::Deny, is_denied, "{has_overlay}: {from} → {to}");
        }
    }
}
