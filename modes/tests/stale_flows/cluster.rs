//! A cluster described by text: each line is a port of a Service with its name, addresses, and endpoints.
//!
//! ```text
//! game udp 10.96.5.4:7777 node=30505 ext=192.0.2.7 lb=203.0.113.7 -> 10.244.1.10:7777 10.244.2.10:7777/terminating
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange};
use portcullis_cluster::{Event, Index, Kind, Name, Object};
use portcullis_netlink::Family;
use serde_json::{Value, json};

/// The family and protocol as which a text about IPv4 and UDP is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) family: Family,
    pub(crate) udp_is: Proto,
}

/// A protocol's name in the API, and its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Proto(pub &'static str, pub u8);

pub(crate) const TCP: Proto = Proto("TCP", 6);
pub(crate) const UDP: Proto = Proto("UDP", 17);
pub(crate) const SCTP: Proto = Proto("SCTP", 132);

impl Reading {
    pub(crate) const ALL: [Reading; 4] = [
        Reading { family: Family::V4, udp_is: UDP },
        Reading { family: Family::V4, udp_is: SCTP },
        Reading { family: Family::V6, udp_is: UDP },
        Reading { family: Family::V6, udp_is: SCTP },
    ];

    pub(crate) fn ip(self, text: &str) -> IpAddr {
        let v4: Ipv4Addr = text.parse().unwrap_or_else(|_| panic!("{text} is not an IPv4 address"));
        match self.family {
            Family::V4 => v4.into(),
            Family::V6 => {
                let [a, b, c, d] = v4.octets().map(u16::from);
                Ipv6Addr::new(0xfd00, 0, 0, 0, a, b, c, d).into()
            }
        }
    }

    pub(crate) fn socket(self, text: &str) -> SocketAddr {
        let (ip, port) = text.split_once(':').unwrap_or_else(|| panic!("{text} is not address:port"));
        SocketAddr::new(self.ip(ip), port.parse().unwrap())
    }

    pub(crate) fn protocol(self, text: &str) -> Proto {
        match text {
            "udp" => self.udp_is,
            "tcp" => TCP,
            other => panic!("{other} is neither udp nor tcp"),
        }
    }
}

/// A cluster that changes from state to state.
pub(crate) struct Cluster {
    index: Index,
    dirty: DirtyServices,
    pub(crate) desired: Desired,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Cluster {
            index: Index::new(),
            dirty: DirtyServices::default(),
            desired: Desired::new(Name::new("node-a")),
        }
    }

    /// Changes to the state that a text describes, and returns the changes.
    pub(crate) fn become_text(&mut self, text: &str, reading: Reading) -> Vec<ServiceChange> {
        self.become_objects(text.lines().filter(|l| !l.trim().is_empty()).flat_map(|l| line(l, reading)))
    }

    /// Changes to the state of these objects, and returns the changes.
    pub(crate) fn become_objects(
        &mut self,
        objects: impl IntoIterator<Item = (Kind, Value)>,
    ) -> Vec<ServiceChange> {
        let kinds = [Kind::Node, Kind::Service, Kind::EndpointSlice];
        kinds.into_iter().for_each(|kind| self.dirty.extend(self.index.handle(Event::ListStarted(kind))));
        for (kind, value) in objects {
            let parsed = Object::parse(kind, value).unwrap();
            assert_eq!(parsed.problems, []);
            self.dirty.extend(self.index.handle(Event::Applied(parsed.object)));
        }
        kinds.into_iter().for_each(|kind| self.dirty.extend(self.index.handle(Event::Listed(kind))));
        let dirty = std::mem::take(&mut self.dirty);
        self.desired.update(&self.index, dirty)
    }
}

/// A Service with one port, and its EndpointSlices with one endpoint each.
fn line(text: &str, reading: Reading) -> Vec<(Kind, Value)> {
    let (front, endpoints) = text.split_once("->").unwrap_or((text, ""));
    let mut words = front.split_whitespace();
    let mut word = || words.next().unwrap_or_else(|| panic!("{text}: expected name, protocol, address:port"));
    let (name, protocol, vip) = (word(), reading.protocol(word()).0, reading.socket(word()));
    let mut port = json!({"name": "p", "port": vip.port(), "protocol": protocol});
    let (mut external, mut ingress) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('=').unwrap() {
            ("node", number) => port["nodePort"] = number.parse::<u16>().unwrap().into(),
            ("ext", ip) => external.push(reading.ip(ip).to_string()),
            ("lb", ip) => ingress.push(json!({"ip": reading.ip(ip).to_string()})),
            other => panic!("{other:?} is not node, ext or lb"),
        }
    }
    let service = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "clusterIP": vip.ip().to_string(), "ports": [port], "externalIPs": external},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    let slices = endpoints.split_whitespace().enumerate().map(|(i, endpoint)| {
        let (socket, state) = endpoint.split_once('/').unwrap_or((endpoint, "ready"));
        let socket = reading.socket(socket);
        let conditions = match state {
            "ready" => json!({}),
            "terminating" => json!({"ready": false, "serving": true, "terminating": true}),
            "unready" => json!({"ready": false, "serving": false}),
            other => panic!("{other} is no state of an endpoint"),
        };
        let slice = json!({
            "metadata": {
                "name": format!("{name}-{i}"),
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": if socket.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [socket.ip().to_string()], "conditions": conditions}],
            "ports": [{"name": "p", "port": socket.port(), "protocol": protocol}],
        });
        (Kind::EndpointSlice, slice)
    });
    std::iter::once((Kind::Service, service)).chain(slices).collect()
}
