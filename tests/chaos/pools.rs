//! Names and addresses of the cluster's objects. There are few of each, so that changes meet.
//!
//! Two nodes with three changing pods each; the daemon under test runs on [`NODE`]. Pods, their namespaces and their
//! servers exist for the whole scenario: only the objects that describe them change. Pods of the namespace `fixed` never
//! change and are not selected by changing policies.

use std::net::{IpAddr, SocketAddr};

use portcullis_lab::Protocol;
use serde_json::{Value, json};

/// The node of the daemon.
pub(crate) const NODE: &str = "node-1";
pub(crate) const OTHER_NODE: &str = "node-2";

/// Namespaces of changing pods and Services.
pub(crate) const NAMESPACES: [&str; 2] = ["a", "b"];

/// Number of pods that change: the first half runs on [`NODE`].
pub(crate) const PODS: usize = 6;

/// Number of Services that change.
pub(crate) const SERVICES: usize = 4;

/// TCP ports of every pod, then the UDP and the SCTP port.
pub(crate) const TCP_PORTS: [u16; 2] = [8080, 8081];
pub(crate) const UDP_PORT: u16 = 5353;
pub(crate) const SCTP_PORT: u16 = 3868;

/// Ports that Services may have on their addresses.
pub(crate) const SERVICE_PORTS: [(u16, Protocol); 4] =
    [(80, Protocol::Tcp), (81, Protocol::Tcp), (53, Protocol::Udp), (3868, Protocol::Sctp)];

/// A TCP port on which both nodes listen.
pub(crate) const NODE_ECHO_PORT: u16 = 7777;

/// Addresses of the client outside of the cluster: the second is in none of the source ranges.
pub(crate) const OUTSIDE: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];

/// An external IP that several Services may have.
pub(crate) const SHARED_EXTERNAL_IPS: [&str; 2] = ["192.0.2.100", "2001:db8:192::100"];

/// A pod of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodSlot {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) node: &'static str,
    host: u8,
}

impl PodSlot {
    pub(crate) fn full_name(self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Returns its addresses, IPv4 first.
    pub(crate) fn addresses(self) -> [IpAddr; 2] {
        let node = if self.node == NODE { 1 } else { 2 };
        [format!("10.244.{node}.{}", self.host), format!("fd00:10:244:{node}::{}", self.host)]
            .map(|text| text.parse().unwrap())
    }
}

const fn pod(namespace: &'static str, name: &'static str, node: &'static str, host: u8) -> PodSlot {
    PodSlot { namespace, name, node, host }
}

/// The pods that change, then those that do not.
pub(crate) const ALL_PODS: [PodSlot; PODS + 4] = [
    pod("a", "p0", NODE, 20),
    pod("b", "p1", NODE, 21),
    pod("a", "p2", NODE, 22),
    pod("b", "p3", OTHER_NODE, 23),
    pod("a", "p4", OTHER_NODE, 24),
    pod("b", "p5", OTHER_NODE, 25),
    CLIENT,
    pod("fixed", "server-0", NODE, 41),
    pod("fixed", "server-1", OTHER_NODE, 42),
    DENIED,
];

/// The client of continuous traffic.
pub(crate) const CLIENT: PodSlot = pod("fixed", "client", NODE, 40);

/// A pod to which a policy denies all connections.
pub(crate) const DENIED: PodSlot = pod("denied", "denied", NODE, 43);

/// The servers of the Service `fixed/stable`.
pub(crate) fn stable_servers() -> [PodSlot; 2] {
    [ALL_PODS[PODS + 1], ALL_PODS[PODS + 2]]
}

/// The cluster IP and port of the Service `fixed/stable`.
pub(crate) const STABLE: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 200)), 80);

/// The addresses of a node, IPv4 first, as the lab allocates them.
pub(crate) fn node_addresses(node: &str) -> [IpAddr; 2] {
    let number: u8 = if node == NODE { 11 } else { 12 };
    [format!("192.168.77.{number}"), format!("fd00:77::{number:x}")].map(|text| text.parse().unwrap())
}

/// Addresses of the daemon's node, with those of its bridge and loopback interface.
pub(crate) fn local_addresses() -> Vec<IpAddr> {
    let more = ["10.244.1.1", "fd00:10:244:1::1", "127.0.0.1", "::1"].map(|text| text.parse().unwrap());
    node_addresses(NODE).into_iter().chain(more).collect()
}

/// Addresses of a changing Service, IPv4 first.
#[derive(Clone, Debug)]
pub(crate) struct ServiceSlot {
    pub(crate) number: usize,
    pub(crate) namespace: &'static str,
    pub(crate) name: String,
    pub(crate) cluster_ips: [IpAddr; 2],
    pub(crate) load_balancer_ips: [IpAddr; 2],
    pub(crate) external_ips: [IpAddr; 2],
    /// Node ports of the TCP, the UDP and the SCTP port.
    pub(crate) node_ports: [(u16, Protocol); 3],
}

impl ServiceSlot {
    pub(crate) fn new(number: usize) -> Self {
        let addresses = |v4: &str, v6: &str| {
            let n = 10 + number;
            [format!("{v4}.{n}"), format!("{v6}::{n:x}")].map(|text| text.parse().unwrap())
        };
        ServiceSlot {
            number,
            namespace: NAMESPACES[number % 2],
            name: format!("s{number}"),
            cluster_ips: addresses("10.96.0", "fd00:10:96"),
            load_balancer_ips: addresses("203.0.113", "2001:db8:113"),
            external_ips: addresses("192.0.2", "2001:db8:192"),
            node_ports: [(30_000, Protocol::Tcp), (30_001, Protocol::Udp), (30_002, Protocol::Sctp)]
                .map(|(port, protocol)| (port + 10 * number as u16, protocol)),
        }
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..SERVICES).map(Self::new)
    }
}

/// The objects that exist for the whole scenario.
pub(crate) fn fixed_objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for node in [NODE, OTHER_NODE] {
        objects.push(super::objects::node(node, Some(if node == NODE { "z1" } else { "z2" })));
    }
    for name in NAMESPACES.into_iter().chain(["fixed", "denied"]) {
        objects.push(super::objects::namespace(name, None));
    }
    for pod in &ALL_PODS[PODS..] {
        objects.push(super::objects::pod(*pod, "fixed"));
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "stable", "namespace": "fixed", "uid": "stable"},
        "spec": {
            "type": "ClusterIP", "clusterIP": STABLE.ip(), "clusterIPs": [STABLE.ip()], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": STABLE.port(), "protocol": "TCP", "targetPort": 8080}],
        },
    }));
    let endpoints = stable_servers().map(|server| {
        json!({"addresses": [server.addresses()[0]], "nodeName": server.node, "conditions": {"ready": true}})
    });
    objects.push(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "stable-1", "namespace": "fixed", "labels": {"kubernetes.io/service-name": "stable"}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }));
    objects.push(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "denied", "namespace": "denied"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }));
    objects
}
