//! Random clusters whose Services share few addresses.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange};
use portcullis_cluster::{Event, Family, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_modes::nftables::ServiceTable;
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};
use portcullis_netlink::nf_tables::{Packet, Table};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The maximum number of Services.
pub const SERVICES: usize = 5;
/// A time after which all pending removals are due.
pub const LONG_TIME: Duration = Duration::from_secs(60);

const TARGET_PORT: u16 = 8080;
pub const NODE: &str = "192.168.10.11";
pub const EXTERNAL: [&str; 2] = ["203.0.113.1", "203.0.113.2"];
pub const NODE_PORTS: [u16; 2] = [30_001, 30_002];

/// The random properties of a Service.
#[derive(Clone, Debug, Default)]
pub struct RandomService {
    /// Bit n stands for endpoint n, which is on this node if n is even.
    pub endpoints: u8,
    /// The number of additional endpoints, on another node. Maps of Services with many endpoints are found by their number.
    pub more: u8,
    pub external: Option<usize>,
    pub node_port: Option<usize>,
    pub external_local: bool,
    pub internal_local: bool,
    pub affinity: bool,
    pub ranges: bool,
}

impl Services {
    /// Returns the Services that claim the destination of a packet.
    pub fn claimants(&self, packet: &Packet) -> BTreeSet<usize> {
        let to = packet.destination.to_string();
        let claims = |n: usize, service: &RandomService| {
            let by_address =
                to == cluster_ip(n) || service.external.is_some_and(|index| to == EXTERNAL[index]);
            let port = service.node_port.map(|index| NODE_PORTS[index]);
            by_address || to == NODE && port == Some(packet.destination_port)
        };
        let is_claimant = |n: &usize| self.0[*n].as_ref().is_some_and(|service| claims(*n, service));
        (0..SERVICES).filter(is_claimant).collect()
    }

    /// Returns all endpoints of some Services.
    pub fn endpoints(&self, of: &BTreeSet<usize>) -> BTreeSet<SocketAddr> {
        let all = of.iter().filter_map(|n| Some((*n, self.0[*n].as_ref()?)));
        all.flat_map(|(n, service)| service.bits().map(move |bit| endpoint(n, bit))).collect()
    }
}

impl RandomService {
    fn bits(&self) -> impl Iterator<Item = u8> {
        let endpoints = self.endpoints;
        // On another node, as their numbers are odd.
        let more = (0..self.more).map(|n| 9 + 2 * n);
        (0..8).filter(move |bit| endpoints & (1 << bit) != 0).chain(more)
    }
}

/// Services that are set or deleted together, and the milliseconds until the next step.
pub type Step = (Vec<(usize, Option<RandomService>)>, u64);

fn service() -> impl Strategy<Value = RandomService> {
    let index = || proptest::option::weighted(0.7, 0..2usize);
    let endpoints = (0..16u8, prop_oneof![4 => Just(0), 1 => Just(4), 1 => Just(10)]);
    (endpoints, index(), index(), any::<[bool; 3]>(), proptest::bool::weighted(0.2)).prop_map(
        |((endpoints, more), external, node_port, [external_local, affinity, ranges], internal_local)| {
            let policies = RandomService { external_local, internal_local, ..RandomService::default() };
            RandomService { endpoints, more, external, node_port, affinity, ranges, ..policies }
        },
    )
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..SERVICES, proptest::option::weighted(0.85, service()));
    let step = (proptest::collection::vec(change, 1..4), 0..1500u64);
    proptest::collection::vec(step, 1..10)
}

pub fn options() -> Options {
    Options {
        detect_local: DetectLocal::Cidrs(["10.244.0.0/16".parse().expect("a block")].into()),
        node_port_addresses: NodePortAddresses::Primary { localhost: false },
        ..Options::default()
    }
}

pub fn node() -> NodeFacts {
    NodeFacts { node_ips: [NODE.parse().expect("an address")].into(), ..NodeFacts::default() }
}

/// A cluster and its table.
pub struct Cluster {
    index: Index,
    dirty: DirtyServices,
    pub desired: Desired,
    pub table: ServiceTable,
    pub now: Instant,
    pub services: Services,
}

/// The Services of a cluster.
#[derive(Clone, Default)]
pub struct Services([Option<RandomService>; SERVICES]);

impl Cluster {
    pub fn new() -> Self {
        Cluster {
            index: Index::new(),
            dirty: DirtyServices::default(),
            desired: Desired::new(Name::new("node-a")),
            table: ServiceTable::new(Family::V4, &options(), &node()),
            now: Instant::now(),
            services: Services::default(),
        }
    }

    /// Applies a step. Returns the table after it.
    pub fn apply(&mut self, (changes, pause): &Step) -> Table {
        for (n, service) in changes {
            self.services.0[*n] = service.clone();
            match service {
                Some(service) => {
                    self.handle(Kind::Service, service_object(*n, service));
                    self.handle(Kind::EndpointSlice, slice_object(*n, service));
                }
                None => {
                    let name = NamespacedName::new("ns", &name_of(*n));
                    self.dirty
                        .extend(self.index.handle(Event::Deleted(ObjectKey { kind: Kind::Service, name })));
                }
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        let changes: Vec<ServiceChange> = self.desired.update(&self.index, dirty);
        self.table.apply(&self.desired, &changes, self.now);
        self.now += Duration::from_millis(*pause);
        self.table.desired().clone()
    }

    /// Waits for all pending removals. Returns the table after them.
    pub fn complete_removals(&mut self) -> Table {
        self.now += LONG_TIME;
        self.table.apply(&self.desired, &[], self.now);
        self.table.desired().clone()
    }

    fn handle(&mut self, kind: Kind, value: Value) {
        let parsed = Object::parse(kind, value).expect("a well-formed object");
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        self.dirty.extend(self.index.handle(Event::Applied(parsed.object)));
    }
}

fn name_of(n: usize) -> String {
    format!("svc-{n}")
}

fn endpoint(n: usize, bit: u8) -> SocketAddr {
    SocketAddr::from(([10, 244, bit, n as u8 + 1], TARGET_PORT))
}

pub fn cluster_ip(n: usize) -> String {
    format!("10.96.0.{}", n + 1)
}

fn service_object(n: usize, service: &RandomService) -> Value {
    let policy = |local| if local { "Local" } else { "Cluster" };
    let node_port = service.node_port.map_or(0, |index| NODE_PORTS[index]);
    let ingress: Vec<Value> = service.external.iter().map(|index| json!({"ip": EXTERNAL[*index]})).collect();
    let ranges = if service.ranges { json!(["198.51.100.0/24", "10.0.0.0/8"]) } else { json!([]) };
    json!({
        "metadata": {"name": name_of(n), "namespace": "ns"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": cluster_ip(n),
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": node_port}],
            "externalTrafficPolicy": policy(service.external_local),
            "internalTrafficPolicy": policy(service.internal_local),
            "sessionAffinity": if service.affinity { "ClientIP" } else { "None" },
            "loadBalancerSourceRanges": ranges,
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn slice_object(n: usize, service: &RandomService) -> Value {
    let endpoints = service.bits().map(|bit| {
        let node = if bit % 2 == 0 { "node-a" } else { "node-b" };
        json!({"addresses": [endpoint(n, bit).ip()], "nodeName": node, "conditions": {"ready": true}})
    });
    json!({
        "metadata": {
            "name": format!("{}-x", name_of(n)), "namespace": "ns",
            "labels": {"kubernetes.io/service-name": name_of(n)},
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{"port": TARGET_PORT, "protocol": "TCP"}],
    })
}
