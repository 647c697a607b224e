//! Properties of random sequences of events: incremental compilation equals compilation from scratch, the reported
//! changes are complete, and connections are evaluated as by the reference evaluation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod naive;
mod support;

use std::net::IpAddr;

use naive::NaiveCluster;
use portcullis_cluster::{Kind, Name, Protocol};
use portcullis_policy::{Connection, Scope};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use support::CompiledCluster;

const NODES: [&str; 2] = ["n1", "n2"];
const NAMESPACES: [&str; 3] = ["x", "y", "z"];

/// Few addresses, so that several pods and nodes have the same one.
const ADDRESSES: [&str; 10] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.1.1",
    "172.18.0.1",
    "172.18.0.2",
    "203.0.113.7",
    "fd00::1",
    "fd00::2",
];

const PORTS: [u16; 4] = [80, 81, 443, 8080];

#[derive(Clone, Debug)]
enum Event {
    Apply(Value),
    Delete(Kind, String, String),
}

fn labels() -> impl Strategy<Value = Value> {
    let value = || prop::option::of(select(vec!["a", "b", ""]));
    (value(), value()).prop_map(|(app, tier)| {
        let mut labels = json!({});
        app.into_iter().for_each(|value| labels["app"] = value.into());
        tier.into_iter().for_each(|value| labels["tier"] = value.into());
        labels
    })
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

fn net() -> impl Strategy<Value = &'static str> {
    select(vec![
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/30",
        "10.0.0.2/31",
        "10.0.0.3/32",
        "172.18.0.0/16",
        "203.0.113.0/24",
        "fd00::/64",
        "fd00::1/128",
        "::/0",
        "10.0.0.0/33",
    ])
}

fn pod() -> impl Strategy<Value = Value> {
    let port = (select(vec!["web", "dns", "alt"]), select(PORTS.to_vec()), select(vec!["TCP", "UDP"]));
    let port = port.prop_map(
        |(name, number, protocol)| json!({"name": name, "containerPort": number, "protocol": protocol}),
    );
    let place = (select(NAMESPACES.to_vec()), 0..4u8, select(NODES.to_vec()));
    let addresses = prop::collection::btree_set(select(ADDRESSES.to_vec()), 0..3);
    let state = (select(vec!["Running", "Running", "Pending", "Succeeded"]), prop::bool::weighted(0.1));
    let life = (prop::bool::weighted(0.2), select(vec!["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]));
    (place, labels(), addresses, state, life, prop::collection::vec(port, 0..3)).prop_map(
        |((namespace, n, node), labels, addresses, (phase, host_network), (terminating, created), ports)| {
            let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": namespace, "name": format!("p{n}"), "labels": labels,
                    "creationTimestamp": created,
                    "deletionTimestamp": terminating.then_some("2026-01-03T00:00:00Z"),
                },
                "spec": {"nodeName": node, "hostNetwork": host_network, "containers": [{"ports": ports}]},
                "status": {"phase": phase, "podIPs": ips},
            })
        },
    )
}

fn namespace() -> impl Strategy<Value = Value> {
    (select(NAMESPACES.to_vec()), labels()).prop_map(|(name, labels)| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    })
}

fn node() -> impl Strategy<Value = Value> {
    let addresses = prop::collection::btree_set(select(ADDRESSES[5..8].to_vec()), 0..3);
    let kind = select(vec!["InternalIP", "ExternalIP", "Hostname"]);
    (select(NODES.to_vec()), labels(), addresses, kind).prop_map(|(name, labels, addresses, kind)| {
        let addresses: Vec<Value> =
            addresses.iter().map(|address| json!({"type": kind, "address": address})).collect();
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
            "status": {"addresses": addresses},
        })
    })
}

fn network_policy() -> impl Strategy<Value = Value> {
    let peer = prop_oneof![
        2 => selector().prop_map(|pods| json!({"podSelector": pods})),
        2 => selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        2 => (selector(), selector())
            .prop_map(|(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces})),
        2 => (net(), prop::collection::vec(net(), 0..3))
            .prop_map(|(cidr, except)| json!({"ipBlock": {"cidr": cidr, "except": except}})),
        1 => Just(json!({})),
        1 => Just(json!({"podSelector": {}, "ipBlock": {"cidr": "0.0.0.0/0"}})),
    ];
    let number = prop_oneof![
        2 => select(PORTS.to_vec()).prop_map(|port| json!({"port": port})),
        2 => (79..82u16, 79..90u16).prop_map(|(port, end)| json!({"port": port, "endPort": end})),
        3 => select(vec!["web", "dns", "none"]).prop_map(|name| json!({"port": name})),
        1 => Just(json!({})),
        1 => Just(json!({"endPort": 90})),
    ];
    let port = (number, prop::option::of(select(vec!["TCP", "UDP", "SCTP", "tcp"]))).prop_map(
        |(mut port, protocol)| {
            protocol.into_iter().for_each(|protocol| port["protocol"] = protocol.into());
            port
        },
    );
    let rule = (prop::collection::vec(peer, 0..3), prop::collection::vec(port, 0..3));
    let rules = || prop::collection::vec(rule.clone(), 0..3);
    let types =
        select(vec![json!(null), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let name = (select(NAMESPACES.to_vec()), 0..2u8);
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

fn cluster_network_policy() -> impl Strategy<Value = Value> {
    let pods = || {
        prop_oneof![
            selector().prop_map(|found| json!({"namespaces": found})),
            (selector(), selector())
                .prop_map(|(ns, pods)| json!({"pods": {"namespaceSelector": ns, "podSelector": pods}})),
        ]
    };
    let peer = || {
        prop_oneof![
            4 => pods(),
            3 => selector().prop_map(|found| json!({"nodes": found})),
            1 => prop::collection::vec(net(), 0..3).prop_map(|nets| json!({"networks": nets})),
            1 => select(vec![json!({}), json!({"domainNames": ["example.com"]})]),
            1 => Just(json!({"namespaces": {}, "networks": ["0.0.0.0/0"]})),
        ]
    };
    let number = prop_oneof![
        select(PORTS.to_vec()).prop_map(|port| json!({"number": port})),
        (79..82u16, 79..90u16).prop_map(|(start, end)| json!({"range": {"start": start, "end": end}})),
        Just(json!({})),
    ];
    let protocol = prop_oneof![
        4 => (select(vec!["tcp", "udp", "sctp"]), number)
            .prop_map(|(name, port)| json!({name: {"destinationPort": port}})),
        3 => select(vec!["web", "dns"]).prop_map(|name| json!({"destinationNamedPort": name})),
        1 => Just(json!({"icmp": {}})),
    ];
    let action = prop_oneof![9 => select(vec!["Accept", "Deny", "Pass"]), 1 => Just("Allow")];
    let rule = (action, prop::collection::vec(peer(), 0..3), prop::collection::vec(protocol, 0..3));
    let rules = || prop::collection::vec(rule.clone(), 0..3);
    let tier = prop_oneof![9 => select(vec!["Admin", "Baseline"]), 1 => Just("Middle")];
    let place = (0..3u8, tier, prop_oneof![9 => select(vec![0, 10]), 1 => Just(1001)]);
    (place, prop_oneof![9 => pods(), 1 => Just(json!({}))], rules(), rules()).prop_map(
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

fn object() -> impl Strategy<Value = Value> {
    prop_oneof![
        5 => pod(),
        1 => namespace(),
        2 => node(),
        3 => network_policy(),
        3 => cluster_network_policy(),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    (object(), prop::bool::weighted(0.2)).prop_map(|(object, gone)| {
        if !gone {
            return Event::Apply(object);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = Kind::from_api(&text(&object["apiVersion"]), &text(&object["kind"])).unwrap();
        let metadata = &object["metadata"];
        Event::Delete(kind, text(&metadata["namespace"]), text(&metadata["name"]))
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    let ends = |addresses: &[&'static str]| (select(addresses.to_vec()), select(addresses.to_vec()));
    let (v4, v6) = ADDRESSES.split_at(8);
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    (prop_oneof![4 => ends(v4), 1 => ends(v6)], select(PORTS.to_vec()), protocol).prop_map(
        |((from, to), port, protocol)| {
            let [from, to] = [from, to].map(|text| text.parse::<IpAddr>().unwrap());
            Connection { from, to, port, protocol }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2 * ProptestConfig::default().cases))]

    #[test]
    fn incremental_compilation_equals_compilation_from_scratch_and_the_reference_evaluation(
        start in prop::collection::vec(object(), 0..25),
        batches in prop::collection::vec(prop::collection::vec(event(), 0..5), 1..8),
        connections in prop::collection::vec(connection(), 40),
    ) {
        let mut cluster = CompiledCluster::new(&NODES);
        let mut naive_cluster = NaiveCluster::default();
        let start = start.into_iter().map(Event::Apply).collect();
        for batch in std::iter::once(start).chain(batches) {
            for event in batch {
                match event {
                    Event::Apply(object) => {
                        cluster.apply(&object);
                        naive_cluster.apply(&object);
                    }
                    Event::Delete(kind, namespace, name) => {
                        cluster.delete(kind, &namespace, &name);
                        naive_cluster.delete(kind.as_str(), &namespace, &name);
                    }
                }
            }
            cluster.update();
            for connection in &connections {
                for node in [None, Some(NODES[0]), Some(NODES[1])] {
                    let scope = node.map_or(Scope::Cluster, |node| Scope::Node(Name::new(node)));
                    let evaluation = cluster.compiled(scope).evaluate(*connection);
                    let naive = naive_cluster.evaluate(node, *connection);
                    prop_assert_eq!(naive::verdicts(&evaluation), naive, "{:?} {:?} {:?}", node, connection, evaluation);
                }
            }
        }
    }
}
