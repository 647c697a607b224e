//! Data-path overhead of a Service: a pod connects to another pod of its node, and sends it datagrams, through the last of a growing
//! number of Services. The reference is the same pod by its own address, with conntrack and without Services.
//!
//! ```text
//! namespace of a node: API server (HTTP, this process) ─► the real daemon ─► rules
//!   └ pod, pod: connections, one after another
//! ```

#[allow(dead_code, reason = "the policies benchmark uses the rest of it")]
#[path = "../../policies/packets/traffic.rs"]
mod traffic;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::sleep;
use std::time::Duration;

use portcullis_lab::{ClusterObjects, Lab, LabObject, LabOptions, PlanOptions, Vantage};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster_state::{self, last_service};
use crate::daemon::{Daemon, Launch};
use crate::figures::{grouped, median};
use crate::iptables::Flavour;
use crate::namespace::{Namespace, SETTLE};
use traffic::{Connections, TrafficPath, address, track_connections};

const CLIENT: &str = "default/client";
const SERVER: &str = "default/server";
const HOST: &str = "node-1";

/// The address of a Service of [`cluster_state`], and the port of its endpoints.
const PORT: u16 = 80;
const TARGET_PORT: u16 = 8080;

/// After they are written, rules are not in the CPU caches.
const WARM_UP: usize = 1;

/// The data path of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Directly to the pod.
    Direct,
    /// Through iptables mode.
    Iptables(Flavour),
    /// Through nftables mode.
    Nftables,
    /// Through nftables mode with `--nftables-service-counters`.
    NftablesCounting,
}

/// Connections of one data path with one number of Services.
pub(crate) struct Line {
    way: Way,
    services: usize,
    /// Connections per second.
    rate: f64,
    /// From the first packet to its reply, in microseconds.
    answer: f64,
    /// To send a packet of an established UDP flow, in microseconds.
    packet: f64,
}

/// One measurement of a data path.
struct Sample {
    connections: Connections,
    packet: Duration,
}

/// Measures repeatedly, in new namespaces each time, and returns the medians.
pub(crate) fn measure(way: Way, services: usize, repeats: usize) -> Line {
    let pods: ClusterObjects = [pod(CLIENT), pod(SERVER)].into_iter().collect();
    let plan = PlanOptions { clients: false, ..PlanOptions::default() };
    let lab = Lab::up(pods, LabOptions { plan, daemon: None }).expect("the lab is built");
    let node = lab.netns(&Vantage::node(HOST)).expect("it is there");
    let server = SocketAddrV4::new(address(&lab, SERVER), TARGET_PORT);
    let wire = |to| TrafficPath {
        client: lab.netns(&Vantage::pod(CLIENT)).expect("the pod runs"),
        server: lab.netns(&Vantage::pod(SERVER)).expect("the pod runs"),
        from: address(&lab, CLIENT),
        to,
        at: server,
    };
    let samples = match way {
        Way::Direct => {
            node.run(track_connections).expect("it can be entered");
            sample(&wire(server), repeats)
        }
        Way::Iptables(_) | Way::Nftables | Way::NftablesCounting => {
            let folder = TempDir::new().expect("a temporary folder");
            let tools = folder.path().join("tools");
            let namespace = Namespace::of(&node);
            let api = cluster_state::server(services - 1, &namespace);
            let last = last_service(services - 1, &server.ip().to_string());
            let ip: Ipv4Addr =
                last[0]["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok()).expect("one");
            last.into_iter().map(with_udp).for_each(|object| _ = api.apply(object));
            let launch = match way {
                Way::Iptables(flavour) => {
                    flavour.link_tools(&tools);
                    Launch { mode: "iptables", path: Some(&tools), more: &[] }
                }
                Way::NftablesCounting => {
                    Launch { mode: "nftables", path: None, more: &["--nftables-service-counters"] }
                }
                _ => Launch { mode: "nftables", path: None, more: &[] },
            };
            let (daemon, _) = Daemon::start(&namespace, &api, launch, folder.path());
            // Polling the daemon is no data-path overhead.
            sleep(SETTLE);
            let samples = sample(&wire(SocketAddrV4::new(ip, PORT)), repeats);
            drop(daemon);
            samples
        }
    };
    drop(lab);
    sleep(SETTLE);
    let one = |sample: &Sample| Duration::from_secs_f64(sample.connections.rate.recip());
    Line {
        way,
        services,
        rate: median(samples.iter().map(one)).recip(),
        answer: median(samples.iter().map(|sample| sample.connections.latency)) * 1e6,
        packet: median(samples.iter().map(|sample| sample.packet)) * 1e6,
    }
}

fn sample(wire: &TrafficPath, repeats: usize) -> Vec<Sample> {
    let once = |_| Sample { connections: wire.connections(), packet: wire.packet_time() };
    (0..WARM_UP + repeats).map(once).skip(WARM_UP).collect()
}

/// Adds the same port number of UDP to a Service or EndpointSlice.
fn with_udp(mut object: Value) -> Value {
    let ports = match object["kind"].as_str() {
        Some("Service") => &mut object["spec"]["ports"],
        _ => &mut object["ports"],
    };
    let mut udp = ports[0].clone();
    udp["name"] = "udp".into();
    udp["protocol"] = "UDP".into();
    ports.as_array_mut().expect("a Service has ports").push(udp);
    object
}

fn pod(name: &str) -> LabObject {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    LabObject::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": HOST, "containers": []},
    }))
    .expect("a pod")
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Direct => "straight to the pod".to_owned(),
            Way::Iptables(flavour) => format!("iptables, {} tool", flavour.name()),
            Way::Nftables => "nftables".to_owned(),
            Way::NftablesCounting => "nftables, with counters".to_owned(),
        };
        let services = if self.way == Way::Direct { String::new() } else { grouped(self.services) };
        let rate = grouped(self.rate as usize);
        write!(f, "  {way:<24}{services:>8}{rate:>12} /s{:>10.1} µs{:>10.2} µs", self.answer, self.packet)
    }
}
