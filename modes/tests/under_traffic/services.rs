//! Random Services: some that always have endpoints, whose clients must never notice a change, and others that come and go.

use std::net::Ipv4Addr;

use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange};
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The number of Services that always have endpoints.
pub(crate) const SERVED: usize = 6;
/// The number of all Services.
const SERVICES: usize = SERVED + 5;
/// The endpoints that all Services share. Those with even numbers are on this node.
const ENDPOINTS: u8 = 96;
/// The port of all endpoints.
pub(crate) const TARGET_PORT: u16 = 8080;
/// The port of all Services.
pub(crate) const PORT: u16 = 80;
/// This node's address for clients.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A set of endpoints: bit n stands for endpoint n.
pub(crate) type EndpointSet = u128;

/// The endpoints on this node.
pub(crate) const LOCAL: EndpointSet = u128::MAX / 3;

/// Returns the address of an endpoint.
pub(crate) fn endpoint(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, number)
}

/// Returns the endpoint with an address.
pub(crate) fn endpoint_at(address: Ipv4Addr) -> Option<u8> {
    let [.., number] = address.octets();
    (number < ENDPOINTS && endpoint(number) == address).then_some(number)
}

/// A kind of clients, for which traffic policies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Pod,
    Outside,
    Node,
}

/// A frontend of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    ClusterIp,
    LoadBalancerIp,
    NodePort,
}

/// The random properties of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RandomService {
    endpoints: EndpointSet,
    external_local: bool,
    internal_local: bool,
    affinity_seconds: Option<u32>,
    /// `loadBalancerSourceRanges`, which contain all clients of Services that always have endpoints.
    ranges: Vec<String>,
}

impl RandomService {
    /// Returns the endpoints, and whether clients of a frontend may reach only those on this node.
    pub(crate) fn endpoints_of(&self, frontend: Frontend, client: Client) -> (EndpointSet, bool) {
        let is_local = match frontend {
            Frontend::ClusterIp => self.internal_local,
            Frontend::LoadBalancerIp | Frontend::NodePort => self.external_local && client == Client::Outside,
        };
        (self.endpoints, is_local)
    }
}

/// Returns true if a Service has load balancer IP and node port.
pub(crate) fn is_external(service: usize) -> bool {
    !service.is_multiple_of(3)
}

/// Returns the address and port of a frontend.
pub(crate) fn address(service: usize, frontend: Frontend) -> (Ipv4Addr, u16) {
    let number = service as u8 + 1;
    match frontend {
        Frontend::ClusterIp => (Ipv4Addr::new(10, 96, 0, number), PORT),
        Frontend::LoadBalancerIp => (Ipv4Addr::new(203, 0, 113, number), PORT),
        Frontend::NodePort => (NODE, node_port(service)),
    }
}

fn node_port(service: usize) -> u16 {
    30_000 + service as u16
}

/// The Services of a cluster.
pub(crate) type State = [Option<RandomService>; SERVICES];

/// A new version of one Service; `None` deletes it.
pub(crate) type Change = (usize, Option<RandomService>);

/// The number of lists of source ranges with all clients.
const WIDE_RANGES: u8 = 8;

/// Returns a list of source ranges with all clients. No range is in two lists.
fn wide_ranges(list: u8) -> Vec<String> {
    let (narrow, wide) = (24 - list % WIDE_RANGES, 16 - list % WIDE_RANGES);
    vec![format!("198.51.100.0/{narrow}"), format!("192.0.2.0/{narrow}"), format!("10.245.0.0/{wide}")]
}

/// Source ranges with few clients.
const NARROW_RANGES: [&str; 2] = ["172.16.0.0/12", "198.51.100.128/25"];

fn endpoint_set(min: usize) -> impl Strategy<Value = EndpointSet> {
    // Maps of few endpoints are tried one after another, the others are found by their number.
    let count = prop_oneof![4 => min..5usize, 3 => 5..14usize, 2 => 10..60usize];
    count
        .prop_flat_map(|count| prop::collection::vec(0..ENDPOINTS, count))
        .prop_map(|numbers| numbers.into_iter().fold(0, |endpoints, number| endpoints | 1 << number))
}

fn random_service(is_served: bool) -> impl Strategy<Value = RandomService> {
    let some = match is_served {
        true => (0..WIDE_RANGES).prop_map(wide_ranges).boxed(),
        false => prop::sample::select(&NARROW_RANGES[..]).prop_map(|range| vec![range.to_owned()]).boxed(),
    };
    let ranges = prop_oneof![2 => Just(Vec::new()), 1 => some];
    let affinity = prop_oneof![3 => Just(None), 1 => Just(Some(600)), 1 => Just(Some(10_800))];
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    let local = (0..ENDPOINTS / 2).prop_map(move |half| if is_served { 1 << (2 * half) } else { 0 });
    (endpoint_set(usize::from(is_served)), local, flags, affinity, ranges).prop_map(
        |(endpoints, local, (external_local, internal_local), affinity_seconds, ranges)| {
            // Traffic policy Local serves clients only with an endpoint on this node.
            let endpoints = if endpoints & LOCAL == 0 { endpoints | local } else { endpoints };
            RandomService { endpoints, external_local, internal_local, affinity_seconds, ranges }
        },
    )
}

/// Returns the initial versions of the Services that always have endpoints.
pub(crate) fn initial() -> impl Strategy<Value = Vec<RandomService>> {
    prop::collection::vec(random_service(true), SERVED)
}

/// A kind of change of one Service.
#[derive(Clone, Debug)]
enum Edit {
    Replace(RandomService),
    /// Adds and removes an endpoint.
    Endpoints {
        added: u8,
        removed: u8,
    },
    Ranges(Vec<String>, EndpointSet),
    Delete,
}

fn edit(service: usize) -> BoxedStrategy<Edit> {
    let is_served = service < SERVED;
    let replace = random_service(is_served).prop_map(Edit::Replace);
    let endpoints =
        (0..ENDPOINTS, 0..ENDPOINTS).prop_map(|(added, removed)| Edit::Endpoints { added, removed });
    if is_served {
        prop_oneof![1 => replace, 1 => endpoints].boxed()
    } else {
        prop_oneof![2 => replace, 1 => endpoints, 1 => Just(Edit::Delete)].boxed()
    }
}

/// Changes of some Services that are written together.
#[derive(Clone, Debug)]
pub(crate) struct Step(Vec<(usize, Edit)>);

/// Returns the step with a number in which all Services that always have endpoints get source ranges with all clients, or lose them.
/// Their endpoints change too: the kernel takes the longer for a transaction.
pub(crate) fn source_ranges(number: usize) -> Step {
    let ranges = if number.is_multiple_of(2) { wide_ranges((number / 2) as u8) } else { Vec::new() };
    let endpoints = 0x3ff << (number % 8 * 10);
    Step((0..SERVED).map(|service| (service, Edit::Ranges(ranges.clone(), endpoints))).collect())
}

/// Returns random steps.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let change = (0..SERVICES).prop_flat_map(|service| edit(service).prop_map(move |edit| (service, edit)));
    prop::collection::vec(change, 1..4).prop_map(Step)
}

impl Step {
    /// Returns the changes of a state, the last one for each Service.
    pub(crate) fn changes(&self, state: &State) -> Vec<Change> {
        let mut state = state.clone();
        let mut changed = Vec::new();
        for (service, edit) in &self.0 {
            let next = match (edit, &state[*service]) {
                (Edit::Replace(next), _) => Some(next.clone()),
                (Edit::Delete, _) | (_, None) => None,
                (Edit::Ranges(ranges, endpoints), Some(present)) => {
                    Some(RandomService { ranges: ranges.clone(), endpoints: *endpoints, ..present.clone() })
                }
                (Edit::Endpoints { added, removed }, Some(present)) => {
                    let endpoints = (present.endpoints & !(1 << removed)) | 1 << added;
                    let is_served = *service >= SERVED || endpoints & LOCAL != 0;
                    let endpoints = if is_served { endpoints } else { present.endpoints | 1 << added };
                    Some(RandomService { endpoints, ..present.clone() })
                }
            };
            state[*service] = next;
            changed.push(*service);
        }
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().map(|service| (service, state[service].clone())).collect()
    }
}

/// The objects of a cluster, and the desired state of this node.
pub(crate) struct Cluster {
    index: Index,
    dirty: DirtyServices,
    pub(crate) desired: Desired,
    pub(crate) state: State,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Cluster {
            index: Index::new(),
            dirty: DirtyServices::default(),
            desired: Desired::new(Name::new("node-a")),
            state: State::default(),
        }
    }

    /// Applies changes. Returns the changes of the desired state.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Vec<ServiceChange> {
        for (service, version) in changes {
            self.state[*service] = version.clone();
            match version {
                Some(version) => {
                    self.handle(Kind::Service, service_object(*service, version));
                    self.handle(Kind::EndpointSlice, slice_object(*service, version));
                }
                None => {
                    let name = NamespacedName::new("ns", &name(*service));
                    let key = ObjectKey { kind: Kind::Service, name };
                    self.dirty.extend(self.index.handle(Event::Deleted(key)));
                }
            }
        }
        self.desired.update(&self.index, std::mem::take(&mut self.dirty))
    }

    /// Returns the desired state from nothing, as a new daemon has it.
    pub(crate) fn restart(&mut self) {
        self.desired = Desired::from_index(&self.index, Name::new("node-a"));
    }

    fn handle(&mut self, kind: Kind, value: Value) {
        let parsed = Object::parse(kind, value).expect("a well-formed object");
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        self.dirty.extend(self.index.handle(Event::Applied(parsed.object)));
    }
}

fn name(service: usize) -> String {
    format!("svc-{service}")
}

fn service_object(number: usize, service: &RandomService) -> Value {
    let policy = |local| if local { "Local" } else { "Cluster" };
    let is_external = is_external(number);
    let port = |protocol: &str| {
        json!({
            "name": protocol.to_lowercase(), "port": PORT, "targetPort": TARGET_PORT, "protocol": protocol,
            "nodePort": if is_external { node_port(number) } else { 0 },
        })
    };
    let ingress = match is_external {
        true => json!([{"ip": address(number, Frontend::LoadBalancerIp).0}]),
        false => json!([]),
    };
    let seconds = service.affinity_seconds;
    json!({
        "metadata": {"name": name(number), "namespace": "ns"},
        "spec": {
            "type": if is_external { "LoadBalancer" } else { "ClusterIP" },
            "clusterIP": address(number, Frontend::ClusterIp).0,
            "ports": [port("TCP"), port("UDP")],
            "externalTrafficPolicy": policy(service.external_local),
            "internalTrafficPolicy": policy(service.internal_local),
            "sessionAffinity": if seconds.is_some() { "ClientIP" } else { "None" },
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds.unwrap_or(600)}},
            "loadBalancerSourceRanges": if is_external { &service.ranges[..] } else { &[] },
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn slice_object(number: usize, service: &RandomService) -> Value {
    let numbers = (0..ENDPOINTS).filter(|number| service.endpoints & (1 << number) != 0);
    let endpoints = numbers.map(|number| {
        let node = if number % 2 == 0 { "node-a" } else { "node-b" };
        json!({"addresses": [endpoint(number)], "nodeName": node, "conditions": {"ready": true}})
    });
    let name = name(number);
    json!({
        "metadata": {
            "name": format!("{name}-x"), "namespace": "ns", "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [
            {"name": "tcp", "port": TARGET_PORT, "protocol": "TCP"},
            {"name": "udp", "port": TARGET_PORT, "protocol": "UDP"},
        ],
    })
}
