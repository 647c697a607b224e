//! Memory of names that change: a million names, which objects have one after the other, through the index and everything that is
//! computed from it. The allocator counts what stays.
//!
//! A single test, as all allocations of the process are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use portcullis_allocations::Allocations;
use portcullis_cluster::desired::{Desired, DirtyServices};
use portcullis_cluster::endpoint_topology::EndpointTopology;
use portcullis_cluster::labels::Labels;
use portcullis_cluster::service::ServicePortSpec;
use portcullis_cluster::slice_endpoints::SliceEndpoints;
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object, ObjectKey};
use portcullis_modes::nftables::ServiceTable;
use portcullis_modes::{NodeFacts, Options};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};

/// The number of names that one version of an object has.
const NAMES: usize = 500;

/// The number of versions of most objects: together they have 200,000 names.
const VERSIONS: usize = 400;

/// The number of versions of the Service: together they have a million port names.
const SERVICE_VERSIONS: usize = 2_000;

/// After how many versions everything that is computed from the index is updated.
const UPDATE_PERIOD: usize = 50;

/// What may stay allocated, in bytes.
const TOLERANCE: usize = 2_000_000;

/// The index, and everything that a daemon computes from it.
struct Node {
    index: Index,
    dirty: DirtyServices,
    dirty_policies: DirtyPolicyObjects,
    desired: Desired,
    services: ServiceTable,
    compiler: Compiler,
    now: Instant,
}

impl Node {
    fn new() -> Node {
        let name = Name::new("node-a");
        Node {
            index: Index::for_node(name.clone()),
            dirty: DirtyServices::default(),
            dirty_policies: DirtyPolicyObjects::default(),
            desired: Desired::new(name.clone()),
            services: ServiceTable::new(Family::V4, &Options::default(), &NodeFacts::default()),
            compiler: Compiler::new(Scope::Node(name)),
            now: Instant::now(),
        }
    }

    fn handle(&mut self, event: Event) {
        let changes = self.index.handle(event);
        self.dirty_policies.extend(changes.clone());
        self.dirty.extend(changes);
    }

    fn apply(&mut self, object: Object) -> ObjectKey {
        let key = object.key();
        self.handle(Event::Applied(object));
        key
    }

    fn update(&mut self) {
        let changes = self.desired.update(&self.index, std::mem::take(&mut self.dirty));
        // Late enough for all pending removals.
        self.now += Duration::from_hours(1);
        self.services.apply(&self.desired, &changes, self.now);
        self.compiler.update(&self.index, &std::mem::take(&mut self.dirty_policies));
    }
}

/// Returns `NAMES` names that no other version has.
fn names(prefix: &str, version: usize) -> impl Iterator<Item = String> {
    let prefix = prefix.to_owned();
    (0..NAMES).map(move |n| format!("{prefix}{version:x}-{n:x}"))
}

/// Parses an object, the base of all versions.
fn parse(kind: Kind, value: Value) -> Object {
    let parsed = Object::parse(kind, value).unwrap();
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.object
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "ns"})
}

fn service(version: usize) -> Object {
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"name": "p", "port": 80}]});
    let mut object = parse(Kind::Service, json!({"metadata": metadata("web"), "spec": spec}));
    let Object::Service(service) = &mut object else { unreachable!() };
    let port = service.ports[0].clone();
    let ports = names("p", version).zip(1..).map(|(name, number)| ServicePortSpec {
        name: Name::new(&name),
        port: NonZeroU16::new(number).unwrap(),
        ..port.clone()
    });
    service.ports = ports.collect();
    object
}

/// Returns a slice whose endpoints are on nodes, and have hints for zones, that exist in this version only.
fn slice(version: usize) -> Object {
    let mut object = parse(
        Kind::EndpointSlice,
        json!({
            "metadata": {"name": "web-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"]}],
            "ports": [{"name": format!("p{version:x}"), "port": 8080}],
        }),
    );
    let Object::EndpointSlice(slice) = &mut object else { unreachable!() };
    let first = slice.endpoints.iter().next().unwrap();
    let endpoints = names("node-", version).take(NAMES / 2).map(|node| {
        let topology = EndpointTopology::new(Some(&node), [&*format!("zone-{node}")], []);
        (first.address, first.conditions, topology)
    });
    slice.endpoints = SliceEndpoints::new(Family::V4, endpoints);
    object
}

fn labels(version: usize) -> Labels {
    let labels = names("l", version).take(NAMES / 2);
    labels.map(|key| (key.clone(), format!("v{key}"))).collect::<BTreeMap<_, _>>().into()
}

fn pod(version: usize) -> Object {
    let ports = json!([{"ports": [{"name": format!("p{version:x}"), "containerPort": 80}]}]);
    let mut object = parse(
        Kind::Pod,
        json!({
            "metadata": metadata("web"), "spec": {"nodeName": "node-a", "containers": ports},
            "status": {"podIPs": [{"ip": "10.2.0.1"}]},
        }),
    );
    let Object::Pod(pod) = &mut object else { unreachable!() };
    pod.labels = labels(version);
    object
}

fn namespace(version: usize) -> Object {
    let mut object = parse(Kind::Namespace, json!({"metadata": {"name": "ns"}}));
    let Object::Namespace(namespace) = &mut object else { unreachable!() };
    namespace.labels = labels(version);
    object
}

fn node(version: usize) -> Object {
    let addresses = json!([{"type": "InternalIP", "address": "10.3.0.1"}]);
    let mut object =
        parse(Kind::Node, json!({"metadata": {"name": "node-b"}, "status": {"addresses": addresses}}));
    let Object::Node(node) = &mut object else { unreachable!() };
    node.labels = labels(version);
    object
}

fn policy(version: usize) -> Object {
    let values: Vec<String> = names("v", version).take(NAMES / 2).collect();
    let peers =
        json!([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": values}]}}]);
    let ports: Vec<Value> = names("p", version).take(NAMES / 2).map(|name| json!({"port": name})).collect();
    let spec = json!({"podSelector": {}, "ingress": [{"from": peers, "ports": ports}]});
    parse(Kind::NetworkPolicy, json!({"metadata": metadata("allow"), "spec": spec}))
}

/// Returns objects whose own names, and namespaces, exist in this version only.
fn named(version: usize) -> [Object; 4] {
    let namespace = format!("ns-{version:x}");
    let metadata = |name: &str| json!({"name": format!("{name}-{version:x}"), "namespace": namespace});
    let address = json!({"podIPs": [{"ip": "10.2.0.2"}]});
    let spec = json!({"clusterIP": "10.96.0.2", "ports": [{"port": 80}]});
    [
        (Kind::Pod, json!({"metadata": metadata("pod"), "spec": {"nodeName": "node-a"}, "status": address})),
        (Kind::Node, json!({"metadata": metadata("node")})),
        (Kind::Service, json!({"metadata": metadata("service"), "spec": spec})),
        (Kind::NetworkPolicy, json!({"metadata": metadata("policy"), "spec": {"podSelector": {}}})),
    ]
    .map(|(kind, value)| parse(kind, value))
}

/// What names of an object change, the number of versions, and a version.
type Case = (&'static str, usize, fn(usize) -> Object);

const CASES: [Case; 6] = [
    ("port names of a Service", SERVICE_VERSIONS, service),
    ("nodes and zones of an EndpointSlice", VERSIONS, slice),
    ("labels and port names of a pod", VERSIONS, pod),
    ("labels of a namespace", VERSIONS, namespace),
    ("labels of a node", VERSIONS, node),
    ("label values and port names of a NetworkPolicy", VERSIONS, policy),
];

/// Runs `version` for this number of versions, and returns by how many bytes the allocated memory grew since the first of them.
fn growth(node: &mut Node, versions: usize, mut version: impl FnMut(&mut Node, usize)) -> usize {
    let mut allocations = Allocations::start();
    for number in 0..=versions {
        version(node, number);
        if number % UPDATE_PERIOD == 0 {
            node.update();
        }
        if number == 0 {
            allocations = Allocations::start();
        }
    }
    allocations.kept()
}

#[test]
fn names_are_released_with_the_objects_that_have_them() {
    let mut node = Node::new();
    for (.., content) in CASES {
        node.apply(content(0));
    }
    node.update();
    for (about, versions, content) in CASES {
        let grown = growth(&mut node, versions, |node, version| _ = node.apply(content(version)));
        println!("{about}: {grown} bytes after {} names", NAMES * versions);
        assert!(grown < TOLERANCE, "{about}: {grown} bytes");
    }
    // Objects that are created and deleted: few at a time, and then many at once.
    for at_once in [1, 5_000] {
        let mut keys = Vec::new();
        let grown = growth(&mut node, VERSIONS, |node, version| {
            for number in 0..5 {
                keys.extend(named(version * 5 + number).map(|object| node.apply(object)));
            }
            if keys.len() >= at_once || version == VERSIONS {
                keys.drain(..).for_each(|key| node.handle(Event::Deleted(key)));
                keys.shrink_to_fit();
            }
        });
        println!("objects, {at_once} at once: {grown} bytes after {} objects", VERSIONS * 20);
        assert!(grown < TOLERANCE, "objects, {at_once} at once: {grown} bytes");
    }
}
