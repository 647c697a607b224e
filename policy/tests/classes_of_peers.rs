//! Identities and classes of peers: what changes cost, and the limit of classes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeSet;

use portcullis_cluster::{Kind, Name};
use portcullis_netlink::nf_tables::{Fate, Hook, Packet};
use portcullis_policy::table::{EvaluationCounts, PolicyOptions, PolicyTable};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};
use support::CompiledCluster;

/// More classes than a profile may have.
const TOO_MANY: u32 = 1100;

struct Node {
    cluster: CompiledCluster,
    compiler: Compiler,
    table: PolicyTable,
}

impl Node {
    /// Returns a node with a pod that policies isolate.
    fn new() -> Self {
        let mut node = Node {
            cluster: CompiledCluster::new(&[]),
            compiler: Compiler::new(Scope::Node(Name::new("n1"))),
            table: PolicyTable::new(PolicyOptions::default()),
        };
        node.cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}));
        node.pod("server", "n1", "10.1.0.1", json!({"app": "server"}));
        node
    }

    fn pod(&mut self, name: &str, node: &str, address: &str, labels: Value) {
        self.cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": name, "labels": labels}, "spec": {"nodeName": node},
            "status": {"podIPs": [{"ip": address}]}}));
    }

    /// Adds a policy that allows these peers to a port of the server.
    fn policy(&mut self, name: &str, peer: Value, port: u16) {
        self.cluster.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": name}, "spec": {"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [peer], "ports": [{"port": port}]}]}}));
    }

    /// Updates the table and returns the number of new elements.
    fn update(&mut self) -> usize {
        let before = elements(&self.table);
        let dirty = self.cluster.take_dirty();
        let changes = self.compiler.update(&self.cluster.index, &dirty);
        self.table.apply(&changes, self.compiler.compiled());
        let scratch = PolicyTable::from_compiled(PolicyOptions::default(), self.compiler.compiled());
        assert!(self.table.table().desired() == scratch.table().desired(), "the same as from scratch");
        elements(&self.table).difference(&before).count()
    }

    fn counts(&self) -> EvaluationCounts {
        self.table.evaluation_counts()
    }
}

/// Returns the elements of all sets, as they are printed.
fn elements(table: &PolicyTable) -> BTreeSet<String> {
    let sets = table.table().desired().sets.iter();
    sets.flat_map(|(name, set)| set.element_lines().map(move |line| format!("{name}: {line}"))).collect()
}

/// Returns labels that say which bits of a number are set.
fn bits(n: u32) -> Value {
    let set = (0..11).filter(|bit| n & (1 << bit) != 0);
    Value::Object(set.map(|bit| (format!("bit-{bit}"), json!("yes"))).collect())
}

fn address(n: u32) -> String {
    let [_, _, a, b] = n.to_be_bytes();
    format!("10.2.{a}.{b}")
}

#[test]
fn profile_with_too_many_classes_is_evaluated_rule_by_rule() {
    let mut node = Node::new();
    for bit in 0..11 {
        let peer = json!({"podSelector": {"matchLabels": {format!("bit-{bit}"): "yes"}}});
        node.policy(&format!("p{bit}"), peer, 80 + 2 * bit);
    }
    (1..1000).for_each(|n| node.pod(&format!("c{n}"), "n2", &address(n), bits(n)));
    node.update();
    let counts = node.counts();
    assert_eq!((counts.by_classes, counts.over_limit, counts.identities), (1, 0, 999));
    assert_eq!(counts.classes, 1000, "one of each identity, and one of all other peers");
    (1000..TOO_MANY).for_each(|n| node.pod(&format!("c{n}"), "n2", &address(n), bits(n)));
    node.update();
    let counts = node.counts();
    assert_eq!((counts.by_classes, counts.over_limit, counts.classes), (0, 1, 0));
    (1000..TOO_MANY).for_each(|n| node.cluster.delete(Kind::Pod, "x", &format!("c{n}")));
    node.update();
    let counts = node.counts();
    assert_eq!((counts.by_classes, counts.over_limit, counts.classes), (1, 0, 1000));
}

#[test]
fn pod_in_known_groups_is_one_element() {
    for policies in [2, 200] {
        let mut node = Node::new();
        for n in 0..policies {
            let labels = json!({"app": "client", format!("of-{n}"): "all"});
            node.policy(&format!("p{n}"), json!({"podSelector": {"matchLabels": labels}}), 80);
        }
        let labels: Vec<(String, Value)> = (0..policies).map(|n| (format!("of-{n}"), json!("all"))).collect();
        let mut labels = Value::Object(labels.into_iter().collect());
        labels["app"] = json!("client");
        node.pod("c1", "n2", "10.2.0.1", labels.clone());
        node.update();
        node.pod("c2", "n2", "10.2.0.2", labels);
        assert_eq!(node.update(), 1, "{policies} policies");
    }
}

#[test]
fn one_more_block_is_the_difference() {
    let mut node = Node::new();
    let blocks = |count: u32| -> Value {
        let blocks = (0..count).map(|n| {
            let [_, a, b, c] = (n * 4).to_be_bytes();
            json!({"ipBlock": {"cidr": format!("172.{a}.{b}.{c}/32")}})
        });
        Value::Array(blocks.collect())
    };
    for (count, expected) in [(2000, None), (2001, Some(1)), (2002, Some(1)), (2000, Some(0))] {
        node.cluster.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "blocks"}, "spec": {"podSelector": {}, "ingress": [{"from": blocks(count)}]}}));
        let changed = node.update();
        if let Some(expected) = expected {
            assert_eq!(changed, expected, "{count} blocks");
        }
    }
}

#[test]
fn number_of_lookups_does_not_depend_on_the_number_of_policies() {
    let lookups = |policies: u32| {
        let mut node = Node::new();
        for n in 0..policies {
            let peer = json!({"podSelector": {"matchLabels": {"client": format!("c{n}")}}});
            node.policy(&format!("p{n}"), peer, 80);
            node.pod(&format!("c{n}"), "n2", &address(n + 1), json!({"client": format!("c{n}")}));
        }
        node.update();
        let trace = |from: &str| {
            let packet = Packet::new(from.parse().unwrap(), "10.1.0.1".parse().unwrap(), 6, 80);
            let trace = node.table.table().desired().trace(Hook::Postrouting, &packet, &mut |_| 0);
            (trace.fate, trace.lookups)
        };
        [trace(&address(policies)), trace("10.9.0.1")]
    };
    let few = lookups(20);
    assert_eq!(few, lookups(300));
    assert_eq!([&few[0].0, &few[1].0], [&Fate::Accepted, &Fate::Dropped]);
    assert!(few.iter().all(|(_, lookups)| *lookups <= 12), "{few:?}");
}

#[test]
fn changed_rule_keeps_the_classes_of_identities() {
    let mut node = Node::new();
    for n in 0..50 {
        node.policy(
            &format!("p{n}"),
            json!({"podSelector": {"matchLabels": {"client": format!("c{n}")}}}),
            80,
        );
        node.pod(&format!("c{n}"), "n2", &address(n + 1), json!({"client": format!("c{n}")}));
    }
    node.policy("all", json!({"podSelector": {}}), 443);
    node.update();
    let policy = json!({"podSelector": {}});
    node.policy("all", policy, 8443);
    assert_eq!(node.update(), 0, "no element");
}
