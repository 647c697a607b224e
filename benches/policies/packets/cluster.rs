//! Cluster of the packet benchmark: three real pods, and many that exist only as peers of policies.

use portcullis_lab::{ClusterObjects, LabObject};
use serde_json::{Value, json};

/// The server pod, on the first node.
pub(super) const SERVER: &str = "default/server";

/// Client pod on the same node.
pub(super) const NEAR: &str = "default/near";

/// Client pod on the other node.
pub(super) const FAR: &str = "default/far";

/// Number of pods on other nodes, which are selected as peers of policies.
const OTHERS: usize = 1_000;
const APPS: usize = 20;

/// Returns the objects of the lab.
pub(super) fn pods() -> ClusterObjects {
    let pod = |name: &str, node: &str| {
        let app = if name == "server" { "server" } else { "client" };
        let value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": []},
        });
        LabObject::from_value(value).expect("a pod")
    };
    [pod("server", "node-1"), pod("near", "node-1"), pod("far", "node-2")].into_iter().collect()
}

/// Returns the address of a pod on another node.
pub(super) fn other_address(n: usize) -> String {
    format!("10.99.{}.{}", n / 250, n % 250 + 1)
}

/// Returns the pods on other nodes that the first rule of a policy allows.
pub(super) fn others_of_policy(n: usize) -> impl Iterator<Item = usize> {
    (n % APPS..OTHERS).step_by(APPS)
}

/// Returns the exception of the address block in a policy.
pub(super) fn except(n: usize) -> String {
    format!("192.0.2.{}/32", n % 256)
}

/// Returns the pods on other nodes.
pub(super) fn others() -> impl Iterator<Item = Value> {
    (0..OTHERS).map(|n| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("other-{n}"), "namespace": "default", "labels": {"app": format!("other-{}", n % APPS)}},
            "spec": {"nodeName": "node-9", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": other_address(n)}]},
        })
    })
}

/// Returns this number of policies for the server, in the order of evaluation. Only the last rule of the last
/// policy allows the clients.
pub(super) fn policies(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(move |n| {
        let mut rules = vec![
            json!({"from": [{"podSelector": {"matchLabels": {"app": format!("other-{}", n % APPS)}}}]}),
            json!({
                "from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": [except(n)]}}],
                "ports": [{"port": 80}],
            }),
            json!({
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"port": 9000, "endPort": 9100}, {"port": 443}],
            }),
            json!({"from": [{"namespaceSelector": {"matchLabels": {"team": "none"}}}]}),
        ];
        if n + 1 == count {
            rules.push(json!({"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}));
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{n:03}"), "namespace": "default"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": rules,
            },
        })
    })
}
