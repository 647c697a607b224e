//! Small clusters of Services with few addresses for all of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_cluster::{Event, Family, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_modes::nftables::ServiceTable;
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};
use portcullis_netlink::nf_tables::{Packet, Table};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Services at most.
pub const SERVICES: usize = 5;
/// Longer than anything stays that nothing leads to.
pub const LONG: Duration = Duration::from_secs(60);

const TARGET_PORT: u16 = 8080;
pub const NODE: &str = "192.168.10.11";
pub const EXTERNAL: [&str; 2] = ["203.0.113.1", "203.0.113.2"];
pub const NODE_PORTS: [u16; 2] = [30_001, 30_002];

/// A Service as a test draws it.
#[derive(Clone, Debug, Default)]
pub struct RandomService {
    /// By bits: bit n is endpoint n, on the own node if n is even.
    pub endpoints: u8,
    pub external: Option<usize>,
    pub node_port: Option<usize>,
    pub external_local: bool,
    pub internal_local: bool,
    pub affinity: bool,
    pub ranges: bool,
}

impl Services {
    /// Those that claim a packet's destination.
    pub fn claimants(&self, packet: &Packet) -> BTreeSet<usize> {
        let to = packet.destination.to_string();
        let claims = |n: usize, drawn: &RandomService| {
            let by_address = to == cluster_ip(n) || drawn.external.is_some_and(|place| to == EXTERNAL[place]);
            let port = drawn.node_port.map(|place| NODE_PORTS[place]);
            by_address || to == NODE && port == Some(packet.destination_port)
        };
        let is_claimant = |n: &usize| self.0[*n].as_ref().is_some_and(|drawn| claims(*n, drawn));
        (0..SERVICES).filter(is_claimant).collect()
    }

    /// All endpoints of some of them.
    pub fn endpoints(&self, of: &BTreeSet<usize>) -> BTreeSet<SocketAddr> {
        let all = of.iter().filter_map(|n| Some((*n, self.0[*n].as_ref()?)));
        all.flat_map(|(n, drawn)| drawn.bits().map(move |bit| endpoint(n, bit))).collect()
    }
}

impl RandomService {
    fn bits(&self) -> impl Iterator<Item = u8> {
        let endpoints = self.endpoints;
        (0..8).filter(move |bit| endpoints & (1 << bit) != 0)
    }
}

/// Some Services are set or deleted at once, and the next thing happens so many milliseconds later.
pub type ServiceUpdate = (Vec<(usize, Option<RandomService>)>, u64);

fn drawn() -> impl Strategy<Value = RandomService> {
    let place = || proptest::option::weighted(0.7, 0..2usize);
    (0..16u8, place(), place(), any::<[bool; 3]>(), proptest::bool::weighted(0.2)).prop_map(
        |(endpoints, external, node_port, [external_local, affinity, ranges], internal_local)| {
            RandomService { endpoints, external, node_port, external_local, internal_local, affinity, ranges }
        },
    )
}

pub fn steps() -> impl Strategy<Value = Vec<ServiceUpdate>> {
    let change = (0..SERVICES, proptest::option::weighted(0.85, drawn()));
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

pub fn host() -> NodeFacts {
    NodeFacts { node_ips: [NODE.parse().expect("an address")].into(), ..NodeFacts::default() }
}

/// A cluster, and the table that follows it.
pub struct Cluster {
    index: Index,
    pub desired: Desired,
    pub table: ServiceTable,
    pub now: Instant,
    pub services: Services,
}

/// All Services as they were drawn.
#[derive(Clone, Default)]
pub struct Services([Option<RandomService>; SERVICES]);

impl Cluster {
    pub fn new() -> Self {
        Cluster {
            index: Index::new(),
            desired: Desired::new(Name::new("node-a")),
            table: ServiceTable::new(Family::V4, &options(), &host()),
            now: Instant::now(),
            services: Services::default(),
        }
    }

    /// Takes a step; gives the table after it.
    pub fn take(&mut self, (changes, pause): &ServiceUpdate) -> Table {
        for (n, service) in changes {
            self.services.0[*n] = service.clone();
            match service {
                Some(drawn) => {
                    self.apply(Kind::Service, service_object(*n, drawn));
                    self.apply(Kind::EndpointSlice, slice_object(*n, drawn));
                }
                None => {
                    let name = NamespacedName::new("ns", &name_of(*n));
                    self.index.handle(Event::Deleted(ObjectKey { kind: Kind::Service, name }));
                }
            }
        }
        let touched = self.index.take_dirty_services();
        let changes: Vec<ServiceChange> = self.desired.update(&self.index, touched);
        self.table.apply(&self.desired, &changes, self.now);
        self.now += Duration::from_millis(*pause);
        self.table.desired().clone()
    }

    /// Waits until everything that was to go is gone.
    pub fn settle(&mut self) -> Table {
        self.now += LONG;
        self.table.apply(&self.desired, &[], self.now);
        self.table.desired().clone()
    }

    fn apply(&mut self, kind: Kind, value: Value) {
        let parsed = Object::parse(kind, value).expect("a well-formed object");
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        self.index.handle(Event::Applied(parsed.object));
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

fn service_object(n: usize, drawn: &RandomService) -> Value {
    let policy = |local| if local { "Local" } else { "Cluster" };
    let node_port = drawn.node_port.map_or(0, |place| NODE_PORTS[place]);
    let ingress: Vec<Value> = drawn.external.iter().map(|place| json!({"ip": EXTERNAL[*place]})).collect();
    let ranges = if drawn.ranges { json!(["198.51.100.0/24", "10.0.0.0/8"]) } else { json!([]) };
    json!({
        "metadata": {"name": name_of(n), "namespace": "ns"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": cluster_ip(n),
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": node_port}],
            "externalTrafficPolicy": policy(drawn.external_local),
            "internalTrafficPolicy": policy(drawn.internal_local),
            "sessionAffinity": if drawn.affinity { "ClientIP" } else { "None" },
            "loadBalancerSourceRanges": ranges,
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn slice_object(n: usize, drawn: &RandomService) -> Value {
    let endpoints = drawn.bits().map(|bit| {
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
