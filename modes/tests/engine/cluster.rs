//! Small clusters of generated Services.
#![allow(unreachable_pub, reason = "a module of a test binary")]

use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange};
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A Service as a property test generates it.
#[derive(Clone, Debug)]
pub struct Drawn {
    pub ports: u16,
    /// A bit set of endpoints: endpoint n is on the own node if n is even.
    pub endpoints: u8,
    pub node_port: bool,
    pub load_balancer: bool,
    pub ranges: bool,
    pub local: bool,
    pub affinity: bool,
}

pub fn drawn() -> impl Strategy<Value = Drawn> {
    (1..3u16, 0..32u8, any::<[bool; 5]>()).prop_map(|(ports, endpoints, flags)| {
        let [node_port, load_balancer, ranges, local, affinity] = flags;
        Drawn { ports, endpoints, node_port, load_balancer, ranges, local, affinity }
    })
}

/// A cluster with generated Services.
pub struct Cluster {
    index: Index,
    dirty: DirtyServices,
    pub desired: Desired,
}

impl Cluster {
    pub fn new() -> Self {
        Cluster {
            index: Index::new(),
            dirty: DirtyServices::default(),
            desired: Desired::new(Name::new("node-a")),
        }
    }

    /// Sets or deletes Service number `n`, and returns the changes.
    pub fn set(&mut self, n: usize, service: Option<&Drawn>) -> Vec<ServiceChange> {
        match service {
            Some(drawn) => {
                self.apply(Kind::Service, service_object(n, drawn));
                self.apply(Kind::EndpointSlice, slice_object(n, drawn));
            }
            None => {
                let name = NamespacedName::new("ns", &name_of(n));
                self.dirty.extend(self.index.handle(Event::Deleted(ObjectKey { kind: Kind::Service, name })));
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.desired.update(&self.index, dirty)
    }

    fn apply(&mut self, kind: Kind, value: Value) {
        let parsed = Object::parse(kind, value).expect("a well-formed object");
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        self.dirty.extend(self.index.handle(Event::Applied(parsed.object)));
    }
}

pub fn name_of(n: usize) -> String {
    format!("svc-{n}")
}

fn service_object(n: usize, drawn: &Drawn) -> Value {
    let ports = (0..drawn.ports).map(|p| {
        let node_port = if drawn.node_port { 30_000 + (n as u16) * 4 + p } else { 0 };
        json!({"name": format!("p{p}"), "port": 80 + p, "protocol": "TCP", "nodePort": node_port})
    });
    let local = if drawn.local { "Local" } else { "Cluster" };
    let kind = match (drawn.load_balancer, drawn.node_port) {
        (true, _) => "LoadBalancer",
        (_, true) => "NodePort",
        _ => "ClusterIP",
    };
    let ingress = if drawn.load_balancer {
        json!([{"ip": format!("203.0.{}.{}", n / 250, n % 250)}])
    } else {
        json!([])
    };
    let ranges = if drawn.ranges && drawn.load_balancer { json!(["198.51.100.0/24"]) } else { json!([]) };
    json!({
        "metadata": {"name": name_of(n), "namespace": "ns"},
        "spec": {
            "type": kind, "clusterIP": format!("10.96.{}.{}", n / 250, n % 250 + 1),
            "ports": ports.collect::<Vec<_>>(),
            "externalTrafficPolicy": local, "internalTrafficPolicy": local,
            "sessionAffinity": if drawn.affinity { "ClientIP" } else { "None" },
            "loadBalancerSourceRanges": ranges,
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn slice_object(n: usize, drawn: &Drawn) -> Value {
    let endpoints = (0..8).filter(|bit| drawn.endpoints & (1 << bit) != 0).map(|bit| {
        let node = if bit % 2 == 0 { "node-a" } else { "node-b" };
        json!({"addresses": [format!("10.{}.{}.{}", 200 + bit, n / 250, n % 250 + 1)], "nodeName": node, "conditions": {"ready": true}})
    });
    let ports =
        (0..drawn.ports).map(|p| json!({"name": format!("p{p}"), "port": 8080 + p, "protocol": "TCP"}));
    json!({
        "metadata": {
            "name": format!("{}-x", name_of(n)), "namespace": "ns",
            "labels": {"kubernetes.io/service-name": name_of(n)},
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}
