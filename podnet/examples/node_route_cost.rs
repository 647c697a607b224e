//! Measures the first sync of the routes to thousands of nodes beside a bare netlink batch of the same objects, and a node that joins.
//! Needs root: it makes a network namespace for each measurement. Usage: `node_route_cost [NODES]`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_cluster::node::Node;
use portcullis_cluster::{Kind, Name, Object};
use portcullis_netlink::route::{ForwardingBatch, Rtnetlink};
use portcullis_podnet::links::{ForwardingTable, OwnLinks, VtepLinks};
use portcullis_podnet::node_routes::{Forwarding, ForwardingObject, NodeRoutes, OwnNetwork, vtep_mac};
use portcullis_podnet::{PodNetworkMode, ROUTE_PROTOCOL, Vxlan};

/// The number of measurements, of which the median counts.
const ROUNDS: usize = 7;

fn main() {
    let nodes = std::env::args().nth(1).map_or(5000, |text| text.parse().unwrap());
    println!("{nodes} nodes, both families; medians of {ROUNDS}");
    println!("| mode | objects | first sync | bare batch | ratio | a node joins |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for mode in [PodNetworkMode::HostGw, PodNetworkMode::Vxlan] {
        let nodes: Vec<Node> = (0..=nodes).map(node).collect();
        let mut rounds: Vec<(Duration, Duration, Duration, usize)> =
            (0..ROUNDS).map(|_| inside(|| measure(mode, &nodes))).collect();
        let mut median = |of: fn(&(Duration, Duration, Duration, usize)) -> Duration| {
            rounds.sort_by_key(of);
            of(&rounds[ROUNDS / 2])
        };
        let (sync, bare, join) = (median(|r| r.0), median(|r| r.1), median(|r| r.2));
        let ratio = sync.as_secs_f64() / bare.as_secs_f64();
        println!("| {} | {} | {sync:.1?} | {bare:.1?} | {ratio:.2} | {join:.0?} |", mode.name(), rounds[0].3);
    }
}

/// Runs `work` in a network namespace of its own, with `eth0` on which the nodes are.
fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no pointers are passed, and only this thread's namespace changes.
            let outcome = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(outcome, 0, "this measurement makes network namespaces and needs root");
            for line in [
                "link add eth0 type veth peer name peer",
                "link set eth0 up",
                "link set peer up",
                "addr add 172.16.0.1/12 dev eth0",
                "addr add fd00:192::1/64 dev eth0 nodad",
            ] {
                assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
            }
            work()
        });
        thread.join().unwrap()
    })
}

/// Node 0 is this node.
fn node(number: usize) -> Node {
    let (high, low) = (number / 250, number % 250);
    let value = serde_json::json!({
        "metadata": {"name": format!("node-{number}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDRs": [format!("10.{high}.{low}.0/24"), format!("fd00:244:{high:x}:{low:x}::/80")]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("172.16.{high}.{}", low + 1)},
            {"type": "InternalIP", "address": format!("fd00:192::{:x}", number + 1)},
        ]},
    });
    let Object::Node(node) = Object::parse(Kind::Node, value).unwrap().object else { panic!("a Node") };
    node
}

/// Returns the times of the first sync, of a bare batch, and of a node that joins, and the number of objects.
fn measure(mode: PodNetworkMode, nodes: &[Node]) -> (Duration, Duration, Duration, usize) {
    let (joining, known) = nodes.split_last().unwrap();
    let mut table = ForwardingTable::open().unwrap();
    // As a daemon: the Nodes are listed, nothing is programmed.
    let start = Instant::now();
    let mut routes = NodeRoutes::new(OwnNetwork::new(Name::new("node-0"), mode));
    let internal = [Some([172, 16, 0, 1].into()), "fd00:192::1".parse().ok()];
    let own = OwnLinks::read(table.rtnetlink(), internal).unwrap();
    let underlays = [mode.has_overlay(), false];
    let cidrs = &known[0].pod_cidrs;
    let links = VtepLinks::new(Vxlan::default(), vtep_mac(&Name::new("node-0")), &own, underlays, cidrs);
    let (vteps, _) = links.ensure(table.rtnetlink()).unwrap();
    routes.set_own(OwnNetwork { on_link: own.on_link, vteps, ..routes.own().clone() });
    routes.update(known.iter().map(|node| (node.name.clone(), Some(node))));
    table.restore(routes.wanted(), vteps, None).unwrap();
    let sync = start.elapsed();
    assert!(table.rejected().is_empty(), "{:?}", table.rejected());

    let joins: Vec<Duration> = (0..100)
        .map(|_| {
            let start = Instant::now();
            let changes = routes.update([(joining.name.clone(), Some(joining))]);
            table.write(&changes).unwrap();
            let join = start.elapsed();
            let changes = routes.update([(joining.name.clone(), None)]);
            table.write(&changes).unwrap();
            join
        })
        .collect();
    let objects = routes.wanted().len();
    table.restore(&Forwarding::new(), vteps, None).unwrap();
    let bare = bare_batch(routes.wanted());
    let mut joins = joins;
    joins.sort();
    (sync, bare, joins[50], objects)
}

/// Returns the time in which a program without any logic sends the same objects.
fn bare_batch(wanted: &Forwarding) -> Duration {
    let mut rtnetlink = Rtnetlink::open().unwrap();
    let start = Instant::now();
    let mut batch = ForwardingBatch::new(ROUTE_PROTOCOL);
    for object in wanted.values() {
        match object {
            ForwardingObject::Fdb(entry) => batch.set_fdb_entry(entry),
            ForwardingObject::Neighbour(neighbour) => batch.set_neighbour(neighbour),
            ForwardingObject::Route(route) => batch.add_route(route),
        }
    }
    rtnetlink.forward(&mut batch, |_, error| panic!("{error}")).unwrap();
    start.elapsed()
}
