//! The limits on the size of a Service: one that exceeds them keeps its last version, and all others are served.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_cluster::desired::{
    Desired, DirtyServices, MAX_ENTRIES, MAX_FRONTENDS, ServiceChange, entries,
};
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use serde_json::{Value, json};

struct Cluster {
    index: Index,
    desired: Desired,
    dirty: DirtyServices,
}

/// The numbers of a Service's objects.
#[derive(Clone, Copy)]
struct Size {
    ports: usize,
    node_ports: bool,
    external_ips: usize,
    source_ranges: usize,
    endpoints: usize,
}

const SMALL: Size = Size { ports: 1, node_ports: false, external_ips: 0, source_ranges: 0, endpoints: 1 };

impl Cluster {
    fn new() -> Self {
        let (index, desired) = (Index::new(), Desired::new(Name::new("node-a")));
        Cluster { index, desired, dirty: DirtyServices::default() }
    }

    fn handle(&mut self, kind: Kind, object: Value) {
        let object = Object::parse(kind, object).unwrap().object;
        self.dirty.extend(self.index.handle(Event::Applied(object)));
    }

    fn update(&mut self) -> Vec<ServiceChange> {
        self.desired.update(&self.index, std::mem::take(&mut self.dirty))
    }

    fn apply(&mut self, name: &str, size: Size) -> Vec<ServiceChange> {
        self.handle(Kind::Service, service(name, size));
        let ports =
            (0..size.ports).map(|n| json!({"name": format!("p{n}"), "port": 8000 + n})).collect::<Vec<_>>();
        let all: Vec<Value> = (0..size.endpoints)
            .map(|n| json!({"addresses": [format!("10.{}.{}.{}", 200 + n / 62_500, n / 250 % 250, n % 250)]}))
            .collect();
        for (number, part) in all.chunks(1000).enumerate() {
            let slice = json!({"metadata": {"name": format!("{name}-{number}"), "namespace": "ns",
                    "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "ports": ports, "endpoints": part});
            self.handle(Kind::EndpointSlice, slice);
        }
        self.update()
    }

    /// Returns the number of frontends at which a Service is served.
    fn frontends(&self, name: &str) -> usize {
        let ports = self.desired.services().get(&key(name)).into_iter().flat_map(|ports| ports.iter());
        ports.map(|port| port.frontends().count()).sum()
    }

    fn oversized(&self) -> Vec<String> {
        self.desired.oversized().iter().map(|(name, size)| format!("{name}: {size}")).collect()
    }
}

fn key(name: &str) -> NamespacedName {
    NamespacedName::new("ns", name)
}

/// Returns a Service with the last part of its ClusterIP from its name, as in `s7`.
fn service(name: &str, size: Size) -> Value {
    let ports = (0..size.ports).map(|n| {
        let mut port = json!({"name": format!("p{n}"), "port": 1 + n});
        if size.node_ports {
            port["nodePort"] = json!(30_000 + n);
        }
        port
    });
    let number: usize = name[1..].parse().unwrap();
    let external_ips: Vec<String> =
        (0..size.external_ips).map(|n| format!("198.18.{}.{}", n / 250, n % 250)).collect();
    let ranges: Vec<String> =
        (0..size.source_ranges).map(|n| format!("198.51.{}.{}/32", n / 250, n % 250)).collect();
    let mut service = json!({"metadata": {"name": name, "namespace": "ns"},
        "spec": {"type": "LoadBalancer", "clusterIP": format!("10.96.0.{number}"), "externalIPs": external_ips,
            "ports": ports.collect::<Vec<_>>()}});
    if size.node_ports || size.source_ranges > 0 {
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": format!("203.0.113.{number}")}]}});
    }
    if size.source_ranges > 0 {
        service["spec"]["loadBalancerSourceRanges"] = json!(ranges);
    }
    service
}

#[test]
fn limits_exclude_no_useful_service() {
    let rows = [
        (
            "all node ports with a ClusterIP and a load balancer address",
            Size { ports: 2768, node_ports: true, endpoints: 10, ..SMALL },
            None,
        ),
        ("many endpoints", Size { endpoints: 20_000, external_ips: 3, ..SMALL }, None),
        ("many source ranges", Size { source_ranges: 20_000, ..SMALL }, None),
        (
            "a million entries",
            Size { ports: 50, external_ips: 1000, endpoints: 20, ..SMALL },
            Some("the Service has 50050 frontends (addresses × ports), more than the limit of 10000"),
        ),
        (
            "many endpoints at many frontends",
            Size { ports: 50, external_ips: 100, endpoints: 20, ..SMALL },
            Some(
                "needs 106050 entries (frontends × endpoints and source ranges), more than the limit of 100000",
            ),
        ),
        (
            "source ranges for each of many ports",
            Size { ports: 101, source_ranges: 1000, ..SMALL },
            Some("needs 101404 entries"),
        ),
    ];
    for (what, size, expected) in rows {
        let mut cluster = Cluster::new();
        cluster.apply("s1", SMALL);
        cluster.apply("s2", size);
        let oversized = cluster.oversized();
        match expected {
            None => {
                assert_eq!(oversized, Vec::<String>::new(), "{what}");
                let ports = &cluster.desired.services()[&key("s2")];
                assert!(cluster.frontends("s2") <= MAX_FRONTENDS && entries(ports) <= MAX_ENTRIES, "{what}");
            }
            Some(expected) => {
                assert!(oversized.len() == 1 && oversized[0].contains(expected), "{what}: {oversized:?}");
                assert_eq!(cluster.frontends("s2"), 0, "{what}");
                assert_eq!(cluster.desired.service_count(), 2, "{what}: also the one that was never served");
            }
        }
        assert_eq!(cluster.frontends("s1"), 1, "{what}: other Services are served");
    }
}

#[test]
fn oversized_service_keeps_its_last_version_until_it_is_within_the_limits() {
    let (mut cluster, large) = (Cluster::new(), Size { ports: 50, external_ips: 1000, ..SMALL });
    let two = Size { external_ips: 1, ..SMALL };
    cluster.apply("s1", two);
    assert_eq!(cluster.frontends("s1"), 2);
    assert!(cluster.apply("s1", large).is_empty(), "its rules do not change");
    assert_eq!((cluster.frontends("s1"), cluster.oversized().len()), (2, 1));
    assert_eq!(cluster.desired.service_count(), 1);
    assert!(cluster.apply("s1", Size { endpoints: 3, ..large }).is_empty(), "nor with other endpoints");

    // A Service of a higher rank gets an external IP that the last version has.
    let mut other = service("s2", SMALL);
    other["spec"]["clusterIP"] = json!("198.18.0.0");
    cluster.handle(Kind::Service, other);
    cluster.update();
    assert_eq!((cluster.frontends("s1"), cluster.frontends("s2")), (1, 1));
    let unserved = cluster.desired.unserved(&key("s1"));
    assert!(unserved.len() == 1 && unserved[0].to_string().contains("198.18.0.0"), "{unserved:?}");

    let changes = cluster.apply("s1", Size { endpoints: 2, ..SMALL });
    assert_eq!((changes.len(), cluster.frontends("s1"), cluster.oversized().len()), (1, 1, 0));
    assert!(cluster.desired.unserved(&key("s1")).is_empty());

    cluster.apply("s1", large);
    let deleted = ObjectKey { kind: Kind::Service, name: key("s1") };
    cluster.dirty.extend(cluster.index.handle(Event::Deleted(deleted)));
    cluster.update();
    assert_eq!((cluster.frontends("s1"), cluster.oversized().len()), (0, 0));
}
