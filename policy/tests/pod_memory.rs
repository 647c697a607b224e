//! Memory of the policies of a large cluster for each pod, beside the pods of the index, counted by the allocator.
//!
//! A single test, as all allocations of the process are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_allocations::Allocations;
use portcullis_cluster::object::parse_text;
use portcullis_cluster::{Event, Index, Kind, Name, Object};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{PolicyOptions, PolicyTable};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};

const PODS: usize = 30_000;

const NAMESPACES: usize = 100;

/// The pods of a workload, which have the same labels.
const REPLICAS: usize = 10;

/// The most bytes of a pod in the compiler, whose sets have it once, and in the table, which has one element of it: about 45 in the
/// hash tables of the compiler, 30 in the set of all pods, 17 in the identities and 17 in the element.
const PER_POD: usize = 130;

/// The most bytes of a pod while the first update runs.
const PEAK_PER_POD: usize = 230;

fn apply(index: &mut Index, kind: Kind, value: Value) {
    index.handle(Event::Applied(Object::parse(kind, value).unwrap().object));
}

fn pod(n: usize) -> String {
    let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
    format!(
        r#"{{"metadata":{{"name":"checkout-{n:010x}","namespace":"team-{}","labels":{{"app":"checkout-{}","tier":"web"}}}},
        "spec":{{"nodeName":"node-{}","containers":[{{"name":"main"}}]}},
        "status":{{"phase":"Running","podIPs":[{{"ip":"10.{a}.{b}.{c}"}}]}}}}"#,
        n / REPLICAS % NAMESPACES,
        n / REPLICAS % 30,
        n % 1_000,
    )
}

#[test]
fn memory_of_a_pod_of_another_node_is_small() {
    let mut index = Index::new();
    for n in 0..NAMESPACES {
        apply(&mut index, Kind::Namespace, json!({"metadata": {"name": format!("team-{n}")}}));
    }
    let peers = json!([{"namespaceSelector": {}}]);
    let spec = json!({"podSelector": {}, "ingress": [{"from": peers}]});
    apply(
        &mut index,
        Kind::NetworkPolicy,
        json!({"metadata": {"name": "all", "namespace": "team-1"}, "spec": spec}),
    );
    for n in 0..PODS {
        let parsed = parse_text(Kind::Pod, pod(n).as_bytes()).expect("a valid pod");
        index.handle(Event::Applied(parsed.object));
    }
    let allocations = Allocations::start();
    let mut compiler = Compiler::new(Scope::Node(Name::new("node-10")));
    let mut table = PolicyTable::new(PolicyOptions::default());
    let changes = compiler.update(&index, &DirtyPolicyObjects::default());
    table.apply(&changes, compiler.compiled());
    drop(changes);
    let (kept, peak) = (allocations.kept() / PODS, allocations.peak() / PODS);
    println!("{kept} bytes per pod, {peak} during the first update");
    assert_eq!(compiler.compiled().sets().map(|(_, members)| members.len()).max(), Some(PODS));
    assert!(kept <= PER_POD && peak <= PEAK_PER_POD, "{kept} bytes per pod, {peak} at the peak");
}
