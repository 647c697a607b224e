//! Random objects of a small cluster, whose pods, nodes and policies often meet: few names, labels and addresses, and blocks
//! inside blocks around these addresses.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod policies;

use std::net::IpAddr;

use portcullis_cluster::{Kind, Protocol};
use portcullis_policy::Connection;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use policies::Scale;

pub const NODES: [&str; 2] = ["n1", "n2"];
pub const NAMESPACES: [&str; 3] = ["x", "y", "z"];

/// Few addresses, so that several pods and nodes have the same one.
pub const V4: [&str; 9] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.1.1",
    "172.18.0.1",
    "172.18.0.2",
    "203.0.113.7",
    "10.0.0.9",
];
const V6: [&str; 4] = ["fd00::1", "fd00::2", "fd00::3", "fd00:18::1"];

/// Addresses of nodes, some of which pods have, too.
const NODE_ADDRESSES: [&str; 4] = ["172.18.0.1", "172.18.0.2", "203.0.113.7", "fd00:18::1"];

/// Addresses of no pod: the first and last ones of blocks, and their neighbours.
const V4_EDGES: [&str; 10] = [
    "0.0.0.0",
    "9.255.255.255",
    "10.0.0.0",
    "10.0.0.5",
    "10.0.0.7",
    "10.0.0.8",
    "10.0.0.15",
    "10.255.255.255",
    "11.0.0.0",
    "203.0.113.255",
];
const V6_EDGES: [&str; 3] = ["fd00::", "fd00::ffff", "fe00::1"];

pub const PORTS: [u16; 4] = [80, 81, 443, 8080];

/// The first and last ports of ranges, and their neighbours.
const PORT_EDGES: [u16; 6] = [1, 79, 82, 89, 90, 65535];

#[derive(Clone, Debug)]
pub enum Event {
    Apply(Value),
    Delete(Kind, String, String),
}

pub fn labels() -> impl Strategy<Value = Value> {
    let value = || prop::option::of(select(vec!["a", "b", ""]));
    (value(), value()).prop_map(|(app, tier)| {
        let mut labels = json!({});
        app.into_iter().for_each(|value| labels["app"] = value.into());
        tier.into_iter().for_each(|value| labels["tier"] = value.into());
        labels
    })
}

fn addresses() -> impl Strategy<Value = Vec<&'static str>> {
    let one = prop_oneof![4 => select(V4.to_vec()), 1 => select(V6.to_vec())];
    prop::collection::btree_set(one, 0..3).prop_map(|found| found.into_iter().collect())
}

fn pod() -> impl Strategy<Value = Value> {
    let protocol = select(vec!["TCP", "UDP", "SCTP"]);
    let port = (select(vec!["web", "dns", "alt"]), select(PORTS.to_vec()), protocol);
    let port = port.prop_map(
        |(name, number, protocol)| json!({"name": name, "containerPort": number, "protocol": protocol}),
    );
    let place = (select(NAMESPACES.to_vec()), 0..4u8, select(NODES.to_vec()));
    let state = (select(vec!["Running", "Running", "Pending", "Succeeded"]), prop::bool::weighted(0.1));
    let life = (prop::bool::weighted(0.2), select(vec!["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]));
    (place, labels(), addresses(), state, life, prop::collection::vec(port, 0..3)).prop_map(
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
    let addresses = prop::collection::btree_set(select(NODE_ADDRESSES.to_vec()), 0..3);
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

/// Returns objects with policies of this scale.
pub fn object(scale: Scale) -> impl Strategy<Value = Value> {
    prop_oneof![
        5 => pod(),
        1 => namespace(),
        2 => node(),
        3 => policies::network_policy(scale),
        3 => policies::cluster_network_policy(scale),
    ]
}

/// Returns changes of such objects.
pub fn event(scale: Scale) -> impl Strategy<Value = Event> {
    (object(scale), prop::bool::weighted(0.2)).prop_map(|(object, gone)| {
        if !gone {
            return Event::Apply(object);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = Kind::from_api(&text(&object["apiVersion"]), &text(&object["kind"])).unwrap();
        let metadata = &object["metadata"];
        Event::Delete(kind, text(&metadata["namespace"]), text(&metadata["name"]))
    })
}

pub fn connection() -> impl Strategy<Value = Connection> {
    fn ends(known: &[&'static str], edges: &[&'static str]) -> BoxedStrategy<(&'static str, &'static str)> {
        let end = || prop_oneof![4 => select(known.to_vec()), 1 => select(edges.to_vec())];
        (end(), end()).boxed()
    }
    let port = prop_oneof![4 => select(PORTS.to_vec()), 1 => select(PORT_EDGES.to_vec())];
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    (prop_oneof![3 => ends(&V4, &V4_EDGES), 1 => ends(&V6, &V6_EDGES)], port, protocol).prop_map(
        |((from, to), port, protocol)| {
            let [from, to] = [from, to].map(|text| text.parse::<IpAddr>().unwrap());
            Connection { from, to, port, protocol }
        },
    )
}
