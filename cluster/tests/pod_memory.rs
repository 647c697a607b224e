//! Memory of the pods of a large cluster, counted by the allocator.
//!
//! A single test, as all allocations of the process are counted.

use portcullis_allocations::Allocations;
use portcullis_cluster::object::parse_text;
use portcullis_cluster::{Event, Index, Kind, NamespacedName, ObjectKey};

const PODS: usize = 30_000;

/// The pods of a workload, which have the same labels and ports.
const REPLICAS: usize = 10;

const NODES: usize = 1_000;

/// The most bytes of a pod, its name and its part of the shared values and of the hash table included.
const PER_POD: usize = 225;

/// The most bytes that stay after all pods are deleted.
const LEFT: usize = 10_000;

fn name(n: usize) -> String {
    format!("checkout-{:02}-{:010x}-{n:05x}", n / REPLICAS % 30, n / REPLICAS)
}

fn pod(n: usize) -> String {
    let (name, workload, node) = (name(n), n / REPLICAS, n % NODES);
    let [_, a, b, c] = u32::try_from(n).expect("pods are few").to_be_bytes();
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"team-{}","creationTimestamp":"2026-11-02T08:14:31Z",
        "labels":{{"app.kubernetes.io/name":"checkout-{}","app.kubernetes.io/instance":"checkout","tier":"web","pod-template-hash":"{workload:x}"}},
        "managedFields":[{{"fieldsV1":{{"f:status":{{}}}}}}]}},
        "spec":{{"nodeName":"node-{node}","containers":[{{"name":"main","ports":[
            {{"name":"http","containerPort":8080,"protocol":"TCP"}},{{"name":"metrics","containerPort":9090,"protocol":"TCP"}}]}}]}},
        "status":{{"phase":"Running","podIP":"10.{a}.{b}.{c}","podIPs":[{{"ip":"10.{a}.{b}.{c}"}}]}}}}"#,
        workload % 500,
        workload % 30,
    )
}

#[test]
fn memory_of_pods_follows_what_differs_between_them() {
    let allocations = Allocations::start();
    let mut index = Index::new();
    index.handle(Event::ListStarted(Kind::Pod));
    for n in 0..PODS {
        let parsed = parse_text(Kind::Pod, pod(n).as_bytes()).expect("a valid pod");
        index.handle(Event::Applied(parsed.object));
    }
    index.handle(Event::Listed(Kind::Pod));
    assert_eq!(index.count(Kind::Pod), PODS);
    let per_pod = allocations.kept() / PODS;
    println!("{per_pod} bytes per pod");
    assert!(per_pod <= PER_POD, "{per_pod} bytes per pod");
    for n in 0..PODS {
        let name = NamespacedName::new(&format!("team-{}", n / REPLICAS % 500), &name(n));
        index.handle(Event::Deleted(ObjectKey { kind: Kind::Pod, name }));
    }
    let left = allocations.kept();
    assert!(index.count(Kind::Pod) == 0 && left <= LEFT, "{left} bytes are left");
}
