//! Connections and bytes per second between pods of two nodes: the routes and the overlay of the pod network beside bare ones.
//!
//! ```text
//! pod ─ veth ─ node 1 (conntrack) ─ veth ─ node 2 (conntrack) ─ veth ─ pod
//! ```
//! The plugin wires all pods. What differs is the way between the nodes: routes, VXLAN links and egress rules of the pod network, or
//! a route by `ip route`, or a VXLAN link by `ip link` with one neighbour and one FDB entry. Both have a rule that masquerades traffic that
//! leaves the pod network, without which pods reach no other hosts; it makes the kernel look up a translation for each connection.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portcullis_cluster::node::Node;
use portcullis_cluster::{Kind, Name, Object};
use portcullis_podnet::egress::{Egress, EgressPolicy};
use portcullis_podnet::links::{ForwardingTable, OwnLinks, VtepLinks};
use portcullis_podnet::node_routes::{NodeRoutes, OwnNetwork, vtep_mac};
use portcullis_podnet::{PodNetworkMode, Vxlan};
use serde_json::json;

use super::contender::{Contender, Network};
use super::load::{Pair, Samples};
use super::node::{Netns, run};

const NODES: [u8; 2] = [1, 2];

/// A figure of the output: its name, and the function that returns it.
type Figure = (&'static str, fn(&mut Samples) -> f64);

/// Two nodes with a pod each.
struct Cluster {
    mode: PodNetworkMode,
    nodes: [Contender; 2],
    pods: [Netns; 2],
    server: IpAddr,
}

/// Prints the medians of alternating samples.
pub(crate) fn measure(plugin: &str, rounds: usize) {
    let modes = [PodNetworkMode::HostGw, PodNetworkMode::Vxlan];
    let clusters: Vec<Cluster> = modes
        .into_iter()
        .flat_map(|mode| [true, false].map(|is_ours| Cluster::new(plugin, mode, is_ours)))
        .collect();
    let mut samples = vec![Samples::default(); clusters.len()];
    for round in 0..rounds {
        for (cluster, samples) in clusters.iter().zip(&mut samples) {
            let port = 9_000 + u16::try_from(round).expect("few rounds");
            let to = SocketAddr::new(cluster.server, port);
            samples.add(&Pair { client: &cluster.pods[0], server: &cluster.pods[1], to });
        }
    }
    println!(
        "Between pods of two nodes, {rounds} rounds: medians, and the pod network in proportion to the bare way\n"
    );
    println!("| mode | | pod network | bare | ratio |\n| --- | --- | --- | --- | --- |");
    for (clusters, samples) in clusters.chunks(2).zip(samples.chunks_mut(2)) {
        let [ours, bare] = samples else { unreachable!("each mode has two clusters") };
        let figures: [Figure; 4] = [
            ("connections/s", Samples::connections),
            ("µs of processor time per connection", Samples::connection_cost),
            ("Gbit/s", Samples::gbits),
            ("µs of processor time per MB", Samples::megabyte_cost),
        ];
        for (name, of) in figures {
            let (ours, bare) = (of(ours), of(bare));
            println!("| {} | {name} | {ours:.1} | {bare:.1} | {:.3} |", clusters[0].mode.name(), ours / bare);
        }
    }
    println!();
}

impl Cluster {
    fn new(plugin: &str, mode: PodNetworkMode, is_ours: bool) -> Self {
        let mtu = if mode.has_overlay() { 1450 } else { 1500 };
        let nodes = NODES.map(|number| {
            let pod_cidrs = pod_cidrs(number);
            Contender::plugin(plugin, Network { wiring: "ptp", pod_cidrs, mtu })
        });
        nodes[0]
            .node()
            .run(&format!("ip link add eth0 type veth peer name eth0 netns {}", nodes[1].node().name));
        for (node, number) in nodes.iter().zip(NODES) {
            let node = node.node();
            for line in [
                "ip link set eth0 up".to_owned(),
                format!("ip addr add 192.168.50.{number}/24 dev eth0"),
                format!("ip addr add fd00:50::{number}/64 dev eth0 nodad"),
            ] {
                node.run(&line);
            }
        }
        for (node, number) in nodes.iter().zip(NODES) {
            // Services need conntrack.
            node.track_connections();
            node.node().within(|| if is_ours { forward(mode, number) } else { forward_bare(mode, number) });
        }
        let pods = NODES.map(|_| Netns::new());
        let mut addresses = nodes.iter().zip(&pods).map(|(node, pod)| node.add_pod(pod));
        let server = addresses.nth(1).expect("two nodes").parse().expect("an address");
        Cluster { mode, nodes, pods, server }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (node, pod) in self.nodes.iter().zip(&self.pods) {
            node.del(pod);
        }
    }
}

fn pod_cidrs(number: u8) -> [String; 2] {
    [format!("10.244.{number}.0/24"), format!("fd00:244:{number}::/64")]
}

fn name(number: u8) -> Name {
    Name::new(&format!("node-{number}"))
}

fn node(number: u8) -> Node {
    let address = |address: String| json!({"type": "InternalIP", "address": address});
    let value = json!({
        "metadata": {"name": name(number).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDRs": pod_cidrs(number)},
        "status": {"addresses": [
            address(format!("192.168.50.{number}")), address(format!("fd00:50::{number}")),
        ]},
    });
    let object = Object::parse(Kind::Node, value).expect("an object as the API has it").object;
    let Object::Node(node) = object else { panic!("a Node") };
    node
}

/// Programs the routes, the overlay and the egress rules of a node, as the daemon does.
fn forward(mode: PodNetworkMode, number: u8) {
    let mut table = ForwardingTable::open().expect("runs as root");
    let nodes = NODES.map(node);
    let mut routes = NodeRoutes::new(OwnNetwork::new(name(number), mode));
    let internal = [format!("192.168.50.{number}").parse().ok(), format!("fd00:50::{number}").parse().ok()];
    let own = OwnLinks::read(table.rtnetlink(), internal).expect("runs as root");
    let underlays = [mode.has_overlay(), false];
    let cidrs: Vec<IpNet> = pod_cidrs(number).map(|cidr| cidr.parse().expect("a CIDR")).to_vec();
    let links = VtepLinks::new(Vxlan::default(), vtep_mac(&name(number)), &own, underlays, &cidrs);
    let (vteps, _) = links.ensure(table.rtnetlink()).expect("the kernel has VXLAN");
    routes.set_own(OwnNetwork { on_link: own.on_link, vteps, ..routes.own().clone() });
    routes.update(nodes.iter().map(|node| (node.name.clone(), Some(node))));
    table.restore(routes.wanted(), vteps, None).expect("the kernel accepts the routes");
    assert!(table.rejected().is_empty(), "{:?}", table.rejected());
    let excluded =
        NODES.iter().flat_map(|number| pod_cidrs(*number)).map(|cidr| cidr.parse().expect("a CIDR"));
    let policy = EgressPolicy { pod_cidrs: cidrs, excluded: excluded.collect() };
    let mut egress = Egress::open().expect("the kernel has nf_tables");
    egress.set_policy(Some(&policy));
    egress.sync().expect("the kernel accepts the rules");
}

/// Makes the way to the pods of the other node by the usual tools.
fn forward_bare(mode: PodNetworkMode, number: u8) {
    let other = 3 - number;
    masquerade(number);
    if !mode.has_overlay() {
        return run(&format!("ip route add 10.244.{other}.0/24 via 192.168.50.{other}"));
    }
    let mac = |number| format!("02:00:00:00:50:{number:02x}");
    for line in [
        format!(
            "ip link add vx0 mtu 1450 address {} type vxlan id 1 local 192.168.50.{number} dev eth0 dstport 4789 nolearning",
            mac(number)
        ),
        "ip link set vx0 up".to_owned(),
        format!("ip route add 10.244.{other}.0/24 via 10.244.{other}.0 dev vx0 onlink"),
        format!("ip neigh add 10.244.{other}.0 lladdr {} dev vx0 nud permanent", mac(other)),
        format!("bridge fdb add {} dev vx0 dst 192.168.50.{other} self permanent", mac(other)),
    ] {
        run(&line);
    }
}

fn masquerade(number: u8) {
    let rule = format!("ip saddr 10.244.{number}.0/24 ip daddr != 10.244.0.0/16 masquerade");
    for line in [
        "add table inet egress",
        "add chain inet egress postrouting { type nat hook postrouting priority 100 ; }",
        &format!("add rule inet egress postrouting {rule}"),
    ] {
        run(&format!("nft {line}"));
    }
}
