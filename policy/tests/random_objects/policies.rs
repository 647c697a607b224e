//! Random policies, valid and invalid.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{NAMESPACES, PORTS};

/// The number of policies, and the size of their rules.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Number of names of policies in each namespace.
    pub names: u8,
    /// Greatest number of peers of a rule.
    pub peers: usize,
    /// Greatest number of networks of a peer, and of exceptions of a block.
    pub networks: usize,
}

fn selector() -> impl Strategy<Value = Value> {
    let key = || select(vec!["app", "tier"]);
    let expression = (key(), select(vec!["In", "NotIn", "Exists", "DoesNotExist", "Near"]), 0..3usize);
    let expression = expression.prop_map(|(key, operator, values)| {
        // Sometimes the number of values is invalid.
        let values = match operator {
            "Exists" | "DoesNotExist" if values < 2 => vec![],
            _ => ["a", "b"][..values].to_vec(),
        };
        json!({"key": key, "operator": operator, "values": values})
    });
    prop_oneof![
        4 => Just(json!({})),
        4 => (key(), select(vec!["a", "b", ""])).prop_map(|(k, v)| json!({"matchLabels": {k: v}})),
        2 => prop::collection::vec(expression, 1..3).prop_map(|all| json!({"matchExpressions": all})),
    ]
}

/// Returns blocks inside blocks, most of them around addresses of pods and nodes.
fn net() -> impl Strategy<Value = String> {
    let fixed = vec![
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "10.0.0.0/8",
        "10.0.0.0/30",
        "10.0.0.2/31",
        "10.0.0.3/32",
        "172.18.0.0/16",
        "172.18.0.1/32",
        "203.0.113.0/24",
        "fd00::/16",
        "fd00::/64",
        "fd00::1/128",
        "fd00::2/127",
        "fd00:18::/64",
        "::/0",
        "8000::/1",
        "10.0.0.0/33",
    ];
    prop_oneof![
        3 => select(fixed).prop_map(str::to_owned),
        // Most of them have bits behind the prefix.
        2 => (0..16u8, 26..=32u8).prop_map(|(last, length)| format!("10.0.0.{last}/{length}")),
        1 => (0..4u8, 120..=128u8).prop_map(|(last, length)| format!("fd00::{last:x}/{length}")),
    ]
}

fn block(scale: Scale) -> impl Strategy<Value = Value> {
    (net(), prop::collection::vec(net(), 0..=scale.networks))
        .prop_map(|(cidr, except)| json!({"ipBlock": {"cidr": cidr, "except": except}}))
}

fn network_policy_peer(scale: Scale) -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => selector().prop_map(|pods| json!({"podSelector": pods})),
        2 => selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        2 => (selector(), selector())
            .prop_map(|(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces})),
        4 => block(scale),
        1 => Just(json!({})),
        1 => Just(json!({"podSelector": {}, "ipBlock": {"cidr": "0.0.0.0/0"}})),
    ]
}

fn network_policy_port() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        2 => select(PORTS.to_vec()).prop_map(|port| json!({"port": port})),
        2 => (79..82u16, 79..90u16).prop_map(|(port, end)| json!({"port": port, "endPort": end})),
        1 => Just(json!({"port": 1, "endPort": 65535})),
        3 => select(vec!["web", "dns", "none"]).prop_map(|name| json!({"port": name})),
        1 => Just(json!({})),
        1 => Just(json!({"endPort": 90})),
    ];
    (number, prop::option::of(select(vec!["TCP", "UDP", "SCTP", "tcp"]))).prop_map(|(mut port, protocol)| {
        protocol.into_iter().for_each(|protocol| port["protocol"] = protocol.into());
        port
    })
}

pub(super) fn network_policy(scale: Scale) -> impl Strategy<Value = Value> {
    let rule = move || {
        let peers = prop::collection::vec(network_policy_peer(scale), 0..=scale.peers);
        (peers, prop::collection::vec(network_policy_port(), 0..3))
    };
    let rules = || prop::collection::vec(rule(), 0..3);
    let types =
        select(vec![json!(null), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let name = (select(NAMESPACES.to_vec()), 0..scale.names);
    (name, selector(), types, rules(), rules()).prop_map(|((namespace, n), pods, types, ingress, egress)| {
        let rules = |rules: Vec<(Vec<Value>, Vec<Value>)>, field: &str| -> Vec<Value> {
            rules.into_iter().map(|(peers, ports)| json!({field: peers, "ports": ports})).collect()
        };
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace, "name": format!("np{n}")},
            "spec": {
                "podSelector": pods, "policyTypes": types,
                "ingress": rules(ingress, "from"), "egress": rules(egress, "to"),
            },
        })
    })
}

/// Returns NetworkPolicies that all select the pods of a namespace, each with one rule in each direction that allows little.
pub fn many_policies(scale: Scale) -> impl Strategy<Value = Vec<Value>> {
    let rule = || {
        let peers = prop::collection::vec(network_policy_peer(scale), 1..=scale.peers);
        (peers, prop::collection::vec(network_policy_port(), 1..3))
    };
    let rules =
        prop::collection::vec((rule(), rule()), usize::from(scale.names) / 2..usize::from(scale.names));
    (select(NAMESPACES.to_vec()), rules).prop_map(|(namespace, rules)| {
        let policy = |(n, ((from, to_ports), (to, ports))): (usize, _)| {
            let (from, to_ports, to, ports): (Vec<Value>, Vec<Value>, Vec<Value>, Vec<Value>) =
                (from, to_ports, to, ports);
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": namespace, "name": format!("np{n}")},
                "spec": {
                    "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"from": from, "ports": to_ports}], "egress": [{"to": to, "ports": ports}],
                },
            })
        };
        rules.into_iter().enumerate().map(policy).collect()
    })
}

fn cluster_policy_pods() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|found| json!({"namespaces": found})),
        (selector(), selector())
            .prop_map(|(ns, pods)| json!({"pods": {"namespaceSelector": ns, "podSelector": pods}})),
    ]
}

fn cluster_policy_peer(scale: Scale) -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => cluster_policy_pods(),
        3 => selector().prop_map(|found| json!({"nodes": found})),
        3 => prop::collection::vec(net(), 0..=scale.networks).prop_map(|nets| json!({"networks": nets})),
        1 => select(vec![json!({}), json!({"domainNames": ["example.com"]})]),
        1 => Just(json!({"namespaces": {}, "networks": ["0.0.0.0/0"]})),
    ]
}

fn cluster_policy_protocol() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        select(PORTS.to_vec()).prop_map(|port| json!({"number": port})),
        (79..82u16, 79..90u16).prop_map(|(start, end)| json!({"range": {"start": start, "end": end}})),
        Just(json!({})),
    ];
    prop_oneof![
        4 => (select(vec!["tcp", "udp", "sctp"]), number)
            .prop_map(|(name, port)| json!({name: {"destinationPort": port}})),
        3 => select(vec!["web", "dns"]).prop_map(|name| json!({"destinationNamedPort": name})),
        1 => Just(json!({"icmp": {}})),
    ]
}

pub(super) fn cluster_network_policy(scale: Scale) -> impl Strategy<Value = Value> {
    let rule = move || {
        let action = prop_oneof![9 => select(vec!["Accept", "Deny", "Pass"]), 1 => Just("Allow")];
        let peers = prop::collection::vec(cluster_policy_peer(scale), 0..=scale.peers);
        (action, peers, prop::collection::vec(cluster_policy_protocol(), 0..3))
    };
    let rules = || prop::collection::vec(rule(), 0..3);
    let tier = prop_oneof![9 => select(vec!["Admin", "Baseline"]), 1 => Just("Middle")];
    let priority = prop_oneof![9 => select(vec![0, 10]), 1 => Just(1001)];
    let place = (0..scale.names.min(8), tier, priority);
    (place, prop_oneof![9 => cluster_policy_pods(), 1 => Just(json!({}))], rules(), rules()).prop_map(
        |((n, tier, priority), subject, ingress, egress)| {
            let rules = |rules: Vec<(&str, Vec<Value>, Vec<Value>)>, field: &str| -> Vec<Value> {
                let rule = |(action, peers, protocols)| json!({"action": action, field: peers, "protocols": protocols});
                rules.into_iter().map(rule).collect()
            };
            json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": format!("cnp{n}")},
                "spec": {
                    "tier": tier, "priority": priority, "subject": subject,
                    "ingress": rules(ingress, "from"), "egress": rules(egress, "to"),
                },
            })
        },
    )
}
