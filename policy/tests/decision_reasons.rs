//! Reasons of decisions, as `explain` reports them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use portcullis_cluster::{Name, Protocol};
use portcullis_policy::evaluation::{Decision, DecisionReason, RuleRef};
use portcullis_policy::{Connection, Scope};
use serde_json::{Value, json};
use support::CompiledCluster;

fn pod(name: &str, node: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "x", "name": name, "labels": {"pod": name}},
        "spec": {"nodeName": node}, "status": {"podIPs": [{"ip": ip}]},
    })
}

fn cluster_policy(name: &str, tier: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": 1, "subject": {"namespaces": {}}, "ingress": rules, "egress": rules},
    })
}

fn network_policy(name: &str, selector: &Value, ingress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": name},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress,
                 "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}]},
    })
}

fn describe(decision: Option<&Decision>) -> String {
    let rule = |rule: &RuleRef| {
        let name = rule.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("{} {} {}[{}]{name}", rule.action, rule.tier, rule.rules, rule.index)
    };
    let Some(decision) = decision else { return "-".into() };
    let reason = match &decision.reason {
        DecisionReason::Rule(matched) => rule(matched),
        DecisionReason::NoRuleMatches { policies } => format!("no rule of {policies:?}"),
        other => format!("{other:?}"),
    };
    let passed: String = decision.passed.iter().map(|passed| format!("{}, ", rule(passed))).collect();
    format!("{:?}: {passed}{reason}", decision.verdict)
}

#[test]
fn decisions_name_the_deciding_rule_or_policy() {
    let mut cluster = CompiledCluster::new(&["n1"]);
    for (name, ip) in [("n1", "172.18.0.1"), ("n2", "172.18.0.2")] {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
        }));
    }
    for object in [pod("a", "n1", "10.0.0.1"), pod("b", "n2", "10.0.0.2"), pod("c", "n1", "10.0.1.3")] {
        cluster.apply(&object);
    }
    cluster.update();
    let check = |cluster: &CompiledCluster, rows: &[(&str, &str, u16, &str, &str)]| {
        for (from, to, port, egress, ingress) in rows {
            let [from, to] = [from, to].map(|text| text.parse().unwrap());
            let connection = Connection { from, to, port: *port, protocol: Protocol::Tcp };
            let evaluation = cluster.compiled(Scope::Cluster).evaluate(connection);
            let found = (describe(evaluation.egress.as_ref()), describe(evaluation.ingress.as_ref()));
            assert_eq!(found, ((*egress).to_owned(), (*ingress).to_owned()), "{from} → {to} {port}");
        }
    };
    check(
        &cluster,
        &[
            ("10.0.0.1", "10.0.0.2", 80, "Allow: NotSelected", "Allow: NotSelected"),
            ("10.0.0.1", "192.0.2.1", 80, "Allow: NotSelected", "-"),
            ("172.18.0.1", "172.18.0.2", 80, "-", "-"),
        ],
    );

    let from_c = json!([{}, {"from": [{}]}, {"from": [{"podSelector": {"matchLabels": {"pod": "c"}}}]}]);
    let from_c = json!([from_c[1], from_c[2]]);
    cluster.apply(&network_policy("one", &json!({"matchLabels": {"pod": "a"}}), &from_c));
    cluster.apply(&network_policy("two", &json!({"matchLabels": {"pod": "a"}}), &json!([])));
    cluster.update();
    let (one, isolated) = ("NetworkPolicy x/one", "no rule of [NetworkPolicy x/one, NetworkPolicy x/two]");
    let allowed_out = format!("Allow: Accept NetworkPolicy {one} egress[0]");
    let allowed_in = format!("Allow: Accept NetworkPolicy {one} ingress[1]");
    let denied = format!("Deny: {isolated}");
    check(
        &cluster,
        &[
            ("10.0.0.1", "10.0.0.2", 80, &allowed_out, "Allow: NotSelected"),
            ("10.0.0.1", "10.0.1.3", 80, &denied, "Allow: NotSelected"),
            ("10.0.1.3", "10.0.0.1", 80, "Allow: NotSelected", &allowed_in),
            ("10.0.0.2", "10.0.0.1", 80, "Allow: NotSelected", &denied),
            ("10.0.0.1", "172.18.0.1", 80, "Allow: OwnNode", "-"),
            ("10.0.0.1", "172.18.0.2", 80, &denied, "-"),
            ("172.18.0.1", "10.0.0.1", 80, "-", "Allow: OwnNode"),
            ("172.18.0.2", "10.0.0.1", 80, "-", &denied),
            ("10.0.0.1", "10.0.0.1", 80, "Allow: SamePod", "Allow: SamePod"),
        ],
    );

    // A link-local address of the node's bridge, which pods reach from their own.
    let link_local = "fe80::1".parse().unwrap();
    let is_node_address = |name: &Name, address| *name == Name::new("n1") && address == link_local;
    let evaluate = |from, to| {
        let connection = Connection { from, to, port: 80, protocol: Protocol::Tcp };
        let evaluation =
            cluster.compiled(Scope::Cluster).evaluate_with_node_addresses(connection, &is_node_address);
        (describe(evaluation.egress.as_ref()), describe(evaluation.ingress.as_ref()))
    };
    let a = "10.0.0.1".parse().unwrap();
    assert_eq!(evaluate(a, link_local), (denied.clone(), "-".to_owned()));
    assert_eq!(evaluate(link_local, a), ("-".to_owned(), "Allow: OwnNode".to_owned()));

    let peers = json!([{"namespaces": {}}]);
    let port = |number: u16| json!([{"tcp": {"destinationPort": {"number": number}}}]);
    let rules = json!([
        {"action": "Accept", "name": "first", "from": peers, "to": peers, "protocols": port(1)},
        {"action": "Pass", "from": peers, "to": peers, "protocols": port(2)},
        {"action": "Deny", "name": "rest", "from": peers, "to": [{"namespaces": {}}, {"networks": ["172.18.0.0/16"]}]},
    ]);
    cluster.apply(&cluster_policy("admin", "Admin", &rules));
    let base = json!([{"action": "Deny", "from": peers, "to": peers, "protocols": port(2)}]);
    cluster.apply(&cluster_policy("base", "Baseline", &base));
    cluster.update();
    let admin = |way: &str| format!("ClusterNetworkPolicy admin {way}");
    let rest = |way: &str| format!("Deny: Deny Admin {}[2] rest", admin(way));
    let passed = |way: &str| format!("Pass Admin {}[1]", admin(way));
    let based = |way: &str| format!("Deny Baseline ClusterNetworkPolicy base {way}[0]");
    check(
        &cluster,
        &[
            (
                "10.0.0.2",
                "10.0.1.3",
                1,
                &format!("Allow: Accept Admin {}[0] first", admin("egress")),
                &format!("Allow: Accept Admin {}[0] first", admin("ingress")),
            ),
            (
                "10.0.0.2",
                "10.0.1.3",
                2,
                &format!("Deny: {}, {}", passed("egress"), based("egress")),
                &format!("Deny: {}, {}", passed("ingress"), based("ingress")),
            ),
            (
                "10.0.1.3",
                "10.0.0.1",
                2,
                &format!("Deny: {}, {}", passed("egress"), based("egress")),
                &format!("Allow: {}, Accept NetworkPolicy {one} ingress[1]", passed("ingress")),
            ),
            (
                "10.0.0.1",
                "10.0.0.1",
                2,
                &format!("Allow: {}, SamePod", passed("egress")),
                &format!("Allow: {}, SamePod", passed("ingress")),
            ),
            // Connections to the pod's own node may be denied, but never those from it.
            ("10.0.0.1", "172.18.0.1", 3, &rest("egress"), "-"),
            ("172.18.0.1", "10.0.0.1", 3, "-", "Allow: OwnNode"),
            ("172.18.0.2", "10.0.0.2", 3, "-", "Allow: OwnNode"),
            ("172.18.0.1", "10.0.0.2", 3, "-", "Allow: DefaultAllow"),
            ("10.0.0.2", "192.0.2.1", 3, "Allow: DefaultAllow", "-"),
        ],
    );
}
