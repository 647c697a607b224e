//! A cluster before and after a change that adds, changes and deletes Services.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange};
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};
use serde_json::{Value, json};

pub(crate) const NODE: &str = "192.168.10.11";
pub(crate) const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;

/// A Service of the test.
struct TestService {
    name: &'static str,
    protocol: u8,
    port: u16,
    node_port: u16,
    affinity: bool,
    /// The last bytes of the addresses of its endpoints.
    endpoints: &'static [u8],
}

const WEB: TestService = TestService {
    name: "web",
    protocol: TCP,
    port: 80,
    node_port: 30_080,
    affinity: false,
    endpoints: &[5, 6],
};
const DNS: TestService =
    TestService { name: "dns", protocol: UDP, port: 53, node_port: 0, affinity: false, endpoints: &[7] };
const SHOP: TestService =
    TestService { name: "shop", protocol: TCP, port: 443, node_port: 0, affinity: true, endpoints: &[8, 9] };
const OLD: TestService = TestService {
    name: "old",
    protocol: TCP,
    port: 80,
    node_port: 30_081,
    affinity: false,
    endpoints: &[10],
};
const NEW: TestService = TestService {
    name: "new",
    protocol: TCP,
    port: 80,
    node_port: 30_082,
    affinity: true,
    endpoints: &[11, 12, 13],
};

/// Before the change.
const BEFORE: [TestService; 4] = [WEB, DNS, SHOP, OLD];
/// After it: one endpoint replaced, all endpoints replaced, affinity off, one deleted, one added.
const AFTER: [TestService; 4] = [
    TestService { endpoints: &[5, 16, 17], ..WEB },
    TestService { endpoints: &[27], ..DNS },
    TestService { affinity: false, ..SHOP },
    NEW,
];

/// A frontend and its endpoints.
#[derive(Clone, Debug)]
pub(crate) struct TestFrontend {
    pub(crate) address: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) endpoints: BTreeSet<SocketAddr>,
}

impl TestService {
    fn cluster_ip(&self) -> String {
        let number = ["web", "dns", "shop", "old", "new"].iter().position(|name| *name == self.name).unwrap();
        format!("10.96.0.{}", number + 1)
    }

    fn protocol_name(&self) -> &'static str {
        if self.protocol == UDP { "UDP" } else { "TCP" }
    }

    fn objects(&self) -> [(Kind, Value); 2] {
        let service = json!({
            "metadata": {"name": self.name, "namespace": "ns"},
            "spec": {
                "type": "NodePort",
                "clusterIP": self.cluster_ip(),
                "ports": [{"port": self.port, "protocol": self.protocol_name(), "nodePort": self.node_port}],
                "sessionAffinity": if self.affinity { "ClientIP" } else { "None" },
            },
        });
        let endpoints = self.endpoints.iter().map(|host| {
            json!({"addresses": [format!("10.244.0.{host}")], "nodeName": "node-b", "conditions": {"ready": true}})
        });
        let slice = json!({
            "metadata": {
                "name": self.name, "namespace": "ns", "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": "IPv4",
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{"port": 8080, "protocol": self.protocol_name()}],
        });
        [(Kind::Service, service), (Kind::EndpointSlice, slice)]
    }

    fn frontends(&self) -> Vec<TestFrontend> {
        let endpoints: BTreeSet<SocketAddr> =
            self.endpoints.iter().map(|host| SocketAddr::from(([10, 244, 0, *host], 8080))).collect();
        let node_port = (self.node_port > 0).then(|| (NODE.to_owned(), self.node_port));
        let all = [(self.cluster_ip(), self.port)].into_iter().chain(node_port);
        all.map(|(address, port)| TestFrontend {
            address: address.parse().unwrap(),
            protocol: self.protocol,
            port,
            endpoints: endpoints.clone(),
        })
        .collect()
    }
}

/// Returns the desired state before the change.
pub(crate) fn before() -> Desired {
    Desired::from_index(&index_before(), Name::new("node-a"))
}

/// Returns the desired state after the change, and the change.
pub(crate) fn after() -> (Desired, Vec<ServiceChange>) {
    let (mut index, mut dirty) = (index_before(), DirtyServices::default());
    let mut desired = Desired::from_index(&index, Name::new("node-a"));
    for service in AFTER {
        service.objects().into_iter().for_each(|object| dirty.extend(index.handle(applied(object))));
    }
    for kind in [Kind::Service, Kind::EndpointSlice] {
        let name = NamespacedName::new("ns", OLD.name);
        dirty.extend(index.handle(Event::Deleted(ObjectKey { kind, name })));
    }
    let changes = desired.update(&index, dirty);
    assert_eq!(changes.len(), 5, "every Service changes");
    (desired, changes)
}

fn index_before() -> Index {
    let mut index = Index::new();
    for service in BEFORE {
        service.objects().into_iter().for_each(|object| _ = index.handle(applied(object)));
    }
    index
}

fn applied((kind, value): (Kind, Value)) -> Event {
    let parsed = Object::parse(kind, value).unwrap();
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Event::Applied(parsed.object)
}

/// Returns the frontends that exist before and after the change, with the endpoints of both.
pub(crate) fn kept_frontends() -> Vec<TestFrontend> {
    let mut kept = Vec::new();
    for mut frontend in frontends_after() {
        let same = |old: &TestFrontend| (old.address, old.port) == (frontend.address, frontend.port);
        let before = BEFORE.iter().flat_map(TestService::frontends).find(same);
        if let Some(before) = before {
            frontend.endpoints.extend(before.endpoints);
            kept.push(frontend);
        }
    }
    assert_eq!(kept.len(), 4);
    kept
}

/// Returns the frontends after the change, with their endpoints.
pub(crate) fn frontends_after() -> Vec<TestFrontend> {
    AFTER.iter().flat_map(TestService::frontends).collect()
}

pub(crate) fn options() -> Options {
    Options {
        detect_local: DetectLocal::Cidrs(["10.244.0.0/16".parse().unwrap()].into()),
        node_port_addresses: NodePortAddresses::Primary { localhost: false },
        ..Options::default()
    }
}

pub(crate) fn node() -> NodeFacts {
    NodeFacts {
        addresses: [NODE.parse().unwrap()].into(),
        node_ips: [NODE.parse().unwrap()].into(),
        ..NodeFacts::default()
    }
}
