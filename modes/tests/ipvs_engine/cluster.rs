//! Small clusters for tests, whose Services share ClusterIPs, external IPs, node ports and endpoints.

use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange};
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The maximum number of Services of a test.
pub const SERVICES: usize = 6;

const ENDPOINTS: usize = 5;

/// A Service of a test.
#[derive(Clone, Debug)]
pub struct TestService {
    /// IPv4, IPv6 or both.
    pub families: &'static [u8],
    /// The number of its ClusterIP, which two Services may share.
    pub cluster_ip: usize,
    /// The number of its first port.
    pub port: usize,
    /// One letter per port: TCP, UDP or SCTP.
    pub ports: &'static str,
    /// One letter per endpoint: `r`eady, `t`erminating and serving, terminating and not serving (`s`), or absent (`-`).
    pub endpoints: [char; ENDPOINTS],
    pub node_port: Option<u16>,
    /// The number of its load balancer IP.
    pub balancer: Option<u8>,
    /// External IPs by bits. The last one is sometimes an address of the node.
    pub external: u8,
    pub ranges: &'static [&'static str],
    pub internal_local: bool,
    pub external_local: bool,
    pub affinity: bool,
    pub scheduler: Option<&'static str>,
}

impl TestService {
    /// Returns one of many Services, 100 of which share a ClusterIP.
    pub fn many(n: usize, endpoints: &str) -> TestService {
        TestService { cluster_ip: n / 100, port: 1000 + n, ..TestService::plain(n, endpoints) }
    }

    /// Returns a TCP Service on IPv4 with its own ClusterIP, and these endpoints.
    pub fn plain(n: usize, endpoints: &str) -> TestService {
        let mut letters = ['-'; ENDPOINTS];
        endpoints.chars().enumerate().for_each(|(i, letter)| letters[i] = letter);
        TestService {
            families: &[4],
            cluster_ip: n,
            port: 80,
            ports: "t",
            endpoints: letters,
            node_port: None,
            balancer: None,
            external: 0,
            ranges: &[],
            internal_local: false,
            external_local: false,
            affinity: false,
            scheduler: None,
        }
    }
}

pub fn any_service() -> impl Strategy<Value = TestService> {
    let families = prop_oneof![Just(&[4][..]), Just(&[6][..]), Just(&[4, 6][..])];
    let ports = prop_oneof![4 => Just("t"), 2 => Just("tu"), 1 => Just("s"), 1 => Just("tts")];
    let letter = prop_oneof![3 => Just('r'), 1 => Just('t'), 1 => Just('s'), 2 => Just('-')];
    let ranges = prop_oneof![
        3 => Just(&[][..]),
        1 => Just(&["198.51.100.7/24", "2001:db8:5::/48"][..]),
        1 => Just(&["192.0.2.0/24"][..]),
        1 => Just(&["0.0.0.0/0", "198.51.100.9/32"][..]),
        1 => Just(&["2001:db8:ff::/48", "10.1.2.3/8", "10.0.0.0/8"][..]),
    ];
    let scheduler = prop_oneof![6 => Just(None), 1 => Just(Some("lc")), 1 => Just(Some("mh"))];
    (
        (families, 0..SERVICES, ports, proptest::array::uniform(letter)),
        (proptest::option::of(0..3u16), proptest::option::weighted(0.3, 0..2u8), 0..8u8, ranges),
        (any::<[bool; 3]>(), scheduler),
    )
        .prop_map(|(basic, external, ([internal_local, external_local, affinity], scheduler))| {
            let (families, cluster_ip, ports, endpoints) = basic;
            let (node_port, balancer, external, ranges) = external;
            TestService {
                families,
                cluster_ip,
                port: 80,
                ports,
                endpoints,
                node_port: node_port.map(|port| 30_000 + port),
                balancer,
                external,
                ranges,
                internal_local,
                external_local,
                affinity,
                scheduler,
            }
        })
}

/// A cluster with the Services of a test.
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
    pub fn set(&mut self, n: usize, service: Option<&TestService>) -> Vec<ServiceChange> {
        match service {
            Some(service) => {
                self.apply(Kind::Service, service_object(n, service));
                for family in [4, 6] {
                    self.apply(Kind::EndpointSlice, slice_object(n, service, family));
                }
            }
            None => self.dirty.extend(
                self.index.handle(Event::Deleted(ObjectKey { kind: Kind::Service, name: name_of(n) })),
            ),
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.desired.update(&self.index, dirty)
    }

    fn apply(&mut self, kind: Kind, value: Value) {
        // A Service with source ranges of another family is valid otherwise.
        let parsed = Object::parse(kind, value).expect("a well-formed object");
        self.dirty.extend(self.index.handle(Event::Applied(parsed.object)));
    }
}

pub fn name_of(n: usize) -> NamespacedName {
    NamespacedName::new("ns", &format!("svc-{n}"))
}

/// Returns an address of a family.
fn address(family: u8, v4: &str, v6: &str, number: usize) -> String {
    match family {
        4 => format!("{v4}{number}"),
        _ => format!("{v6}{number:x}"),
    }
}

fn protocol(letter: char) -> &'static str {
    match letter {
        't' => "TCP",
        'u' => "UDP",
        _ => "SCTP",
    }
}

fn service_object(n: usize, service: &TestService) -> Value {
    let ports = service.ports.chars().enumerate().map(|(i, letter)| {
        let node_port = service.node_port.map_or(0, |port| port + 10 * i as u16);
        json!({"name": format!("p{i}"), "port": service.port + i, "protocol": protocol(letter), "nodePort": node_port})
    });
    let kind = match (service.balancer, service.node_port) {
        (Some(_), _) => "LoadBalancer",
        (_, Some(_)) => "NodePort",
        _ => "ClusterIP",
    };
    let of_each = |v4: &str, v6: &str, number: usize| -> Vec<String> {
        service.families.iter().map(|family| address(*family, v4, v6, number)).collect()
    };
    let external = (0..3).filter(|bit| service.external & (1 << bit) != 0);
    let external: Vec<String> =
        external.flat_map(|bit| of_each("192.0.2.1", "2001:db8::1", bit as usize)).collect();
    let ingress =
        service.balancer.iter().flat_map(|b| of_each("203.0.113.", "2001:db8:b::", usize::from(*b) + 1));
    let policy = |local: bool| if local { "Local" } else { "Cluster" };
    let annotation = service.scheduler.map(|name| ("portcullis.io/ipvs-scheduler", name));
    json!({
        "metadata": {
            "name": name_of(n).name, "namespace": "ns",
            "annotations": annotation.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        },
        "spec": {
            "type": kind, "clusterIPs": of_each("10.96.0.", "fd00:96::", service.cluster_ip + 1),
            "ports": ports.collect::<Vec<_>>(), "externalIPs": external,
            "externalTrafficPolicy": policy(service.external_local),
            "internalTrafficPolicy": policy(service.internal_local),
            "healthCheckNodePort": 31_000 + n,
            "sessionAffinity": if service.affinity { "ClientIP" } else { "None" },
            "loadBalancerSourceRanges": service.ranges,
        },
        "status": {"loadBalancer": {"ingress": ingress.map(|ip| json!({"ip": ip})).collect::<Vec<_>>()}},
    })
}

/// Endpoints with an even index are on this node.
fn slice_object(n: usize, service: &TestService, family: u8) -> Value {
    let endpoints = service.endpoints.iter().enumerate().filter(|(_, letter)| **letter != '-');
    let endpoints = endpoints.map(|(i, letter)| {
        let conditions = match letter {
            'r' => json!({"ready": true}),
            't' => json!({"ready": false, "serving": true, "terminating": true}),
            _ => json!({"ready": false, "serving": false, "terminating": true}),
        };
        let node = if i % 2 == 0 { "node-a" } else { "node-b" };
        let address = address(family, "10.244.0.", "fd00:244::", i + 1);
        json!({"addresses": [address], "nodeName": node, "conditions": conditions})
    });
    let ports = service.ports.chars().enumerate();
    let ports = ports
        .map(|(i, letter)| json!({"name": format!("p{i}"), "port": 8080 + i, "protocol": protocol(letter)}));
    json!({
        "metadata": {
            "name": format!("{}-{family}", name_of(n).name), "namespace": "ns",
            "labels": {"kubernetes.io/service-name": name_of(n).name},
        },
        "addressType": format!("IPv{family}"),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}
