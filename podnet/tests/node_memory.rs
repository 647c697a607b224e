//! Memory of the routes to all nodes, counted by the allocator.
//!
//! A single test, as all allocations of the process are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;

use peak_alloc::PeakAlloc;
use portcullis_cluster::node::Node;
use portcullis_cluster::{Kind, Name, Object};
use portcullis_podnet::PodNetworkMode;
use portcullis_podnet::node_routes::{NodeRoutes, OwnNetwork};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const NODES: usize = 5_000;
/// The most memory of a node with both families, in bytes: two routes, and with an overlay their neighbours and FDB entries. Sets of
/// owners that take the space of eleven owners for one add 1,000.
const OF_A_NODE: [(PodNetworkMode, usize); 2] =
    [(PodNetworkMode::HostGw, 1_200), (PodNetworkMode::Vxlan, 1_900)];

fn node(number: usize) -> Node {
    let (high, low) = (number / 250, number % 250);
    let value = json!({
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

#[test]
fn a_node_takes_two_kilobytes_at_most() {
    let nodes: Vec<Node> = (0..=NODES).map(node).collect();
    for (mode, limit) in OF_A_NODE {
        let before = ALLOCATOR.current_usage();
        let on_link = ["172.16.0.0/12", "fd00:192::/64"].map(|net| (net.parse().unwrap(), 2)).into();
        let vteps = [mode.has_overlay().then_some(3), None];
        let mut routes =
            NodeRoutes::new(OwnNetwork { on_link, vteps, ..OwnNetwork::new(Name::new("node-0"), mode) });
        drop(routes.update(nodes.iter().map(|node| (node.name.clone(), Some(node)))));
        let each = if mode.has_overlay() { 5 } else { 2 };
        assert_eq!((routes.wanted().len(), routes.problems().len()), (each * NODES + 2, 0), "{mode:?}");
        let taken = (ALLOCATOR.current_usage() - before) / NODES;
        println!("{mode:?}: {taken} bytes for each node");
        assert!(taken <= limit, "{mode:?}: {taken} bytes for each node, of at most {limit}");
        let own: IpAddr = routes.internal_ips()[0].unwrap();
        assert_eq!(own, IpAddr::from([172, 16, 0, 1]));
    }
}
