//! Memory of compiled policies after many objects are gone, counted by the allocator.
//!
//! A single test, as all allocations of the process are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_allocations::Allocations;
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{PolicyOptions, PolicyTable};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};

const PODS: usize = 60_000;
const NAMESPACES: usize = 3_000;
const NODES: usize = 3_000;
/// The most memory that may stay after the objects are deleted. A hash map that keeps the capacity for all pods takes several times
/// as much.
const LEFT: usize = 300_000;

/// Returns the namespace of a pod: half of the pods are in one that stays.
fn namespace_of(n: usize, wave: usize) -> String {
    if n.is_multiple_of(2) { "shop".to_owned() } else { format!("ns-{}-{wave}", n % NAMESPACES) }
}

/// A node with policies.
struct Node {
    index: Index,
    dirty: DirtyPolicyObjects,
    compiler: Compiler,
    table: PolicyTable,
}

impl Node {
    fn new() -> Self {
        Node {
            index: Index::new(),
            dirty: DirtyPolicyObjects::default(),
            compiler: Compiler::new(Scope::Node(Name::new("node-0"))),
            table: PolicyTable::new(PolicyOptions::default()),
        }
    }

    fn handle(&mut self, event: Event) {
        self.dirty.extend(self.index.handle(event));
    }

    fn apply(&mut self, kind: Kind, value: Value) {
        self.handle(Event::Applied(Object::parse(kind, value).unwrap().object));
    }

    fn delete(&mut self, kind: Kind, namespace: &str, name: String) {
        self.handle(Event::Deleted(ObjectKey { kind, name: NamespacedName::new(namespace, &name) }));
    }

    fn update(&mut self) {
        let changes = self.compiler.update(&self.index, &std::mem::take(&mut self.dirty));
        self.table.apply(&changes, self.compiler.compiled());
    }

    fn apply_all(&mut self, wave: usize) {
        for n in 0..NAMESPACES {
            let labels = json!({"team": format!("t{n}-{wave}")});
            self.apply(
                Kind::Namespace,
                json!({"metadata": {"name": format!("ns-{n}-{wave}"), "labels": labels}}),
            );
        }
        for n in 0..NODES {
            let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
            let addresses = json!([{"type": "InternalIP", "address": format!("172.16.{a}.{b}")}]);
            self.apply(
                Kind::Node,
                json!({"metadata": {"name": format!("node-{n}-{wave}")}, "status": {"addresses": addresses}}),
            );
        }
        for n in 0..PODS {
            let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
            self.apply(
                Kind::Pod,
                json!({
                    "metadata": {"name": format!("pod-{n}-{wave}"), "namespace": namespace_of(n, wave),
                        "labels": {"app": format!("app-{}", n % 50), "job": format!("job-{n}-{wave}")}},
                    "spec": {"nodeName": format!("node-{}", n % 3)},
                    "status": {"phase": "Running", "podIPs": [{"ip": format!("10.{a}.{b}.{c}")}]},
                }),
            );
        }
        self.update();
    }

    fn delete_all(&mut self, wave: usize) {
        (0..PODS).for_each(|n| {
            self.delete(Kind::Pod, &namespace_of(n, wave), format!("pod-{n}-{wave}"));
        });
        (0..NAMESPACES).for_each(|n| self.delete(Kind::Namespace, "", format!("ns-{n}-{wave}")));
        (0..NODES).for_each(|n| self.delete(Kind::Node, "", format!("node-{n}-{wave}")));
        self.update();
    }
}

fn policies(node: &mut Node) {
    let everyone = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "app-1"}}});
    let teams = json!({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}});
    for (name, peer) in [("a", everyone), ("b", teams)] {
        let spec = json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
        node.apply(
            Kind::NetworkPolicy,
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
        );
    }
    node.apply(Kind::Namespace, json!({"metadata": {"name": "shop"}}));
    node.apply(
        Kind::Pod,
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"nodeName": "node-0"},
            "status": {"phase": "Running", "podIPs": [{"ip": "192.168.1.1"}]}}),
    );
    node.update();
}

#[test]
fn memory_is_released_with_the_pods_namespaces_and_nodes() {
    let mut node = Node::new();
    policies(&mut node);
    let allocations = Allocations::start();
    for wave in 0..2 {
        node.apply_all(wave);
        let full = allocations.kept();
        node.delete_all(wave);
        let left = allocations.kept();
        println!("wave {wave}, {PODS} pods: {full} bytes, {left} after they are deleted");
        assert!(full > 20 * LEFT, "{full} bytes: the objects were not used");
        assert!(left <= LEFT, "{left} of {full} bytes are left");
    }
}
