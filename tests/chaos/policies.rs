//! Random policies. None selects pods of the namespaces `fixed` and `denied`.

use serde_json::{Value, json};

use super::pools::NAMESPACES;
use super::random::Random;

const POD_SELECTORS: [&str; 6] = [
    "{}",
    r#"{"matchLabels": {"app": "web"}}"#,
    r#"{"matchLabels": {"app": "db"}}"#,
    r#"{"matchLabels": {"tier": "x"}}"#,
    r#"{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web", "fixed"]}]}"#,
    r#"{"matchExpressions": [{"key": "tier", "operator": "Exists"}]}"#,
];

const NAMESPACE_SELECTORS: [&str; 4] = [
    r#"{"matchLabels": {"kubernetes.io/metadata.name": "a"}}"#,
    r#"{"matchLabels": {"tier": "x"}}"#,
    r#"{"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}]}"#,
    r#"{"matchExpressions": [{"key": "tier", "operator": "Exists"}]}"#,
];

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("the constants are JSON")
}

fn pod_selector(random: &mut Random) -> Value {
    parse(random.pick(&POD_SELECTORS))
}

fn namespace_selector(random: &mut Random) -> Value {
    parse(random.pick(&NAMESPACE_SELECTORS))
}

pub(crate) fn random_network_policy(random: &mut Random) -> Value {
    let number = random.below(4);
    let types = random.pick(&[&["Ingress"][..], &["Ingress"], &["Egress"], &["Ingress", "Egress"]]);
    let mut spec = json!({"podSelector": pod_selector(random), "policyTypes": types});
    for (kind, field, peers) in [("Ingress", "ingress", "from"), ("Egress", "egress", "to")] {
        if types.contains(&kind) {
            spec[field] = (0..random.below(3)).map(|_| rule(random, peers)).collect();
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("n{number}"), "namespace": random.pick(&NAMESPACES)}, "spec": spec,
    })
}

fn rule(random: &mut Random, field: &str) -> Value {
    let mut rule = json!({});
    if random.chance(75) {
        rule[field] = (0..1 + random.below(2)).map(|_| peer(random)).collect();
    }
    if random.chance(50) {
        rule["ports"] = (0..1 + random.below(2)).map(|_| port(random)).collect();
    }
    rule
}

fn peer(random: &mut Random) -> Value {
    match random.below(8) {
        0 | 1 => json!({"podSelector": pod_selector(random)}),
        2 => json!({"namespaceSelector": namespace_selector(random)}),
        3 => json!({"namespaceSelector": {}, "podSelector": pod_selector(random)}),
        4 => json!({"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.2.0/24"]}}),
        5 => json!({"ipBlock": {"cidr": random.pick(&["198.51.100.0/24", "0.0.0.0/0"])}}),
        6 => json!({"ipBlock": {"cidr": "192.168.77.0/24"}}),
        _ => json!({"ipBlock": {"cidr": random.pick(&["fd00:10:244::/48", "::/0"])}}),
    }
}

fn port(random: &mut Random) -> Value {
    parse(random.pick(&[
        r#"{"port": 8080, "protocol": "TCP"}"#,
        r#"{"port": "http", "protocol": "TCP"}"#,
        r#"{"port": 8080, "endPort": 8085, "protocol": "TCP"}"#,
        r#"{"port": "dns", "protocol": "UDP"}"#,
        r#"{"protocol": "UDP"}"#,
        r#"{"port": "signal", "protocol": "SCTP"}"#,
        r#"{"port": 3868, "protocol": "SCTP"}"#,
        r#"{"port": 81}"#,
    ]))
}

pub(crate) fn random_cluster_network_policy(random: &mut Random) -> Value {
    let number = random.below(3);
    let tier = random.pick(&["Admin", "Admin", "Baseline"]);
    let actions: &[&str] = if tier == "Admin" { &["Accept", "Deny", "Pass"] } else { &["Accept", "Deny"] };
    let subject = match random.below(2) {
        0 => json!({"namespaces": namespace_selector(random)}),
        _ => {
            json!({"pods": {"namespaceSelector": namespace_selector(random), "podSelector": pod_selector(random)}})
        }
    };
    let mut spec = json!({"tier": tier, "priority": 10 + number, "subject": subject});
    for (field, peers) in [("ingress", "from"), ("egress", "to")] {
        if !random.chance(65) {
            continue;
        }
        let rules = (0..1 + random.below(2)).map(|_| {
            let mut rule = json!({"action": random.pick(actions)});
            rule[peers] = json!([cluster_peer(random, field == "egress")]);
            if random.chance(35) {
                rule["protocols"] = json!([cluster_port(random)]);
            }
            rule
        });
        spec[field] = rules.collect();
    }
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("c{number}")}, "spec": spec,
    })
}

fn cluster_peer(random: &mut Random, is_egress: bool) -> Value {
    match random.below(if is_egress { 5 } else { 3 }) {
        0 => json!({"namespaces": {}}),
        1 => json!({"namespaces": namespace_selector(random)}),
        2 => json!({"pods": {"namespaceSelector": {}, "podSelector": pod_selector(random)}}),
        3 => json!({"nodes": {}}),
        _ => json!({"networks": [random.pick(&["10.244.0.0/16", "0.0.0.0/0", "fd00:10:244:2::/64"])]}),
    }
}

fn cluster_port(random: &mut Random) -> Value {
    parse(random.pick(&[
        r#"{"tcp": {"destinationPort": {"number": 8080}}}"#,
        r#"{"tcp": {"destinationPort": {"range": {"start": 8000, "end": 8080}}}}"#,
        r#"{"udp": {"destinationPort": {"number": 5353}}}"#,
        r#"{"sctp": {"destinationPort": {"number": 3868}}}"#,
        r#"{"destinationNamedPort": "http"}"#,
    ]))
}
