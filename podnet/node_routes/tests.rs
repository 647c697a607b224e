//! Tests of the wanted routes: tables, and properties for random clusters.

use portcullis_netlink::route::{Route, RouteTarget};
use proptest::prelude::*;

use super::*;
use crate::mode::PodNetworkMode;

const ETH0: u32 = 2;
const VTEP: u32 = 7;
const VTEP6: u32 = 8;

fn net(text: &str) -> IpNet {
    text.parse().expect("a block")
}

fn node(name: &str, created: i64, cidrs: &[&str], ips: &[&str]) -> Node {
    let value = serde_json::json!({
        "metadata": {"name": name},
        "spec": {"podCIDRs": cidrs},
        "status": {"addresses": ips.iter().map(|ip| serde_json::json!({"type": "InternalIP", "address": ip})).collect::<Vec<_>>()},
    });
    let object =
        portcullis_cluster::Object::parse(portcullis_cluster::Kind::Node, value).expect("a Node").object;
    let portcullis_cluster::Object::Node(node) = object else { panic!("a Node") };
    Node { created: Some(created), ..node }
}

fn own(mode: PodNetworkMode) -> OwnNetwork {
    OwnNetwork {
        on_link: vec![(net("192.168.0.0/24"), ETH0), (net("fd00:192::/64"), ETH0)],
        vteps: [Some(VTEP), Some(VTEP6)],
        reserved: [
            (net("10.96.0.0/12"), Reserved::ServiceCidr),
            (net("192.168.0.254/32"), Reserved::Gateway),
            (net("172.16.0.1/32"), Reserved::ApiServer),
        ]
        .into(),
        ..OwnNetwork::new(Name::new("a"), mode)
    }
}

fn routes(mode: PodNetworkMode, nodes: &[Node]) -> NodeRoutes {
    let mut routes = NodeRoutes::new(own(mode));
    routes.update(nodes.iter().map(|node| (node.name.clone(), Some(node))));
    routes
}

/// Returns the objects as text, in their order.
fn text(forwarding: &Forwarding) -> Vec<String> {
    let link = |link: u32| match link {
        ETH0 => "eth0",
        VTEP => "vxlan",
        VTEP6 => "vxlan6",
        _ => "?",
    };
    let lines = forwarding.values().map(|object| match object {
        ForwardingObject::Fdb(entry) => format!("fdb {} {}", link(entry.link), entry.remote),
        ForwardingObject::Neighbour(neighbour) => {
            format!("neighbour {} {}", link(neighbour.link), neighbour.address)
        }
        ForwardingObject::Route(Route { destination, target, .. }) => match target {
            RouteTarget::Gateway { link: of, address, is_onlink } => {
                format!(
                    "{destination} via {address} {}{}",
                    link(*of),
                    if *is_onlink { " onlink" } else { "" }
                )
            }
            RouteTarget::Link(of) => format!("{destination} {}", link(*of)),
            RouteTarget::Unreachable => format!("{destination} unreachable"),
        },
    });
    lines.collect()
}

fn problems(routes: &NodeRoutes) -> Vec<String> {
    let all = routes.problems().iter();
    all.flat_map(|(name, problems)| problems.iter().map(move |problem| format!("{name}: {problem}")))
        .collect()
}

fn link_local(name: &str) -> IpAddr {
    vtep::vtep_gateway(vtep_mac(&Name::new(name)), net("fd00::/64"))
}

#[test]
fn each_mode_has_its_routes() {
    let nodes = [
        node("a", 1, &["10.244.1.0/24", "fd00:244:1::/64"], &["192.168.0.1", "fd00:192::1"]),
        node("near", 2, &["10.244.2.0/24", "fd00:244:2::/64"], &["192.168.0.2", "fd00:192::2"]),
        node("far", 3, &["10.244.3.0/24", "fd00:244:3::/64"], &["192.168.9.3", "fd00:199::3"]),
        node("v6", 4, &["fd00:244:4::/64"], &["fd00:199::4"]),
    ];
    let own = ["10.244.1.0/24 unreachable", "fd00:244:1::/64 unreachable"];
    let near = ["10.244.2.0/24 via 192.168.0.2 eth0", "fd00:244:2::/64 via fd00:192::2 eth0"];
    let overlay = |name: &str, n: u8, remote: &str| {
        [
            format!("fdb vxlan {remote}"),
            format!("neighbour vxlan 10.244.{n}.0"),
            format!("neighbour vxlan {}", link_local(name)),
            format!("10.244.{n}.0/24 via 10.244.{n}.0 vxlan onlink"),
            format!("fd00:244:{n}::/64 via {} vxlan", link_local(name)),
        ]
    };
    let v6 = [
        "fdb vxlan6 fd00:199::4",
        &format!("neighbour vxlan6 {}", link_local("v6")),
        &format!("fd00:244:4::/64 via {} vxlan6", link_local("v6")),
    ];
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let far = overlay("far", 3, "192.168.9.3");
    let rows = [
        (PodNetworkMode::HostGw, [owned(&own), owned(&near)].concat(), 3),
        (
            PodNetworkMode::Vxlan,
            [owned(&own), overlay("near", 2, "192.168.0.2").to_vec(), far.to_vec(), owned(&v6)].concat(),
            0,
        ),
        (PodNetworkMode::CrossSubnet, [owned(&own), owned(&near), far.to_vec(), owned(&v6)].concat(), 0),
    ];
    for (mode, mut expected, unreachable) in rows {
        let routes = routes(mode, &nodes);
        let mut found = text(routes.wanted());
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{}", mode.name());
        assert_eq!(problems(&routes).len(), unreachable, "{}: {:?}", mode.name(), problems(&routes));
    }
}

#[test]
fn objects_are_added_in_the_order_in_which_they_are_of_use() {
    let mut routes = routes(PodNetworkMode::Vxlan, &[node("a", 1, &["10.244.1.0/24"], &["192.168.0.1"])]);
    let joined = node("b", 2, &["10.244.2.0/24"], &["192.168.0.2"]);
    let kinds = |changes: &ForwardingChanges| -> Vec<&str> {
        let kind = |(key, _): (&ForwardingKey, &ForwardingChange)| match key {
            ForwardingKey::Fdb(..) => "fdb",
            ForwardingKey::Neighbour(..) => "neighbour",
            ForwardingKey::Route(..) => "route",
        };
        changes.in_order().map(kind).collect()
    };
    let changes = routes.update([(joined.name.clone(), Some(&joined))]);
    assert_eq!(kinds(&changes), ["fdb", "neighbour", "route"]);
    assert!(
        routes.update([(joined.name.clone(), Some(&joined))]).is_empty(),
        "an equal Node changes nothing"
    );
    let moved = node("b", 2, &["10.244.2.0/24"], &["192.168.0.7"]);
    assert_eq!(
        kinds(&routes.update([(moved.name.clone(), Some(&moved))])),
        ["fdb"],
        "only the address changed"
    );
    assert_eq!(kinds(&routes.update([(moved.name.clone(), None)])), ["route", "neighbour", "fdb"]);
    assert_eq!(text(routes.wanted()), ["10.244.1.0/24 unreachable"]);
}

#[test]
fn no_traffic_is_hijacked() {
    let a = node("a", 5, &["10.244.1.0/24"], &["192.168.0.1"]);
    let b = node("b", 2, &["10.244.2.0/24"], &["192.168.0.2"]);
    let own = "10.244.1.0/24 unreachable";
    let to_b = "10.244.2.0/24 via 192.168.0.2 eth0";
    // The third Node, the routes, and the problems.
    let rows: Vec<(Node, Vec<&str>, Vec<&str>)> = vec![
        (
            node("c", 3, &["10.244.2.0/24"], &["192.168.0.3"]),
            vec![own, to_b],
            vec![
                "c: pod CIDR 10.244.2.0/24 overlaps with 10.244.2.0/24 of node b, which is older and keeps it",
            ],
        ),
        (
            node("c", 1, &["10.244.2.128/25"], &["192.168.0.3"]),
            vec![own, "10.244.2.128/25 via 192.168.0.3 eth0"],
            vec![
                "b: pod CIDR 10.244.2.0/24 overlaps with 10.244.2.128/25 of node c, which is older and keeps it",
            ],
        ),
        (
            node("c", 9, &["10.244.0.0/16"], &["192.168.0.3"]),
            vec![own, to_b],
            vec![
                "c: pod CIDR 10.244.0.0/16 overlaps with 10.244.1.0/24 of node a, which is older and keeps it",
            ],
        ),
        (
            // Pods of this node have the addresses, whatever other nodes believe.
            node("c", 1, &["10.244.1.0/24"], &["192.168.0.3"]),
            vec![own, to_b],
            vec![
                "a: pod CIDR 10.244.1.0/24 overlaps with 10.244.1.0/24 of node c, which is older and keeps it",
                "c: pod CIDR 10.244.1.0/24 overlaps with 10.244.1.0/24 of node a, which is older and keeps it",
            ],
        ),
        (
            node("c", 1, &["192.168.0.0/24"], &["192.168.0.3"]),
            vec![own, to_b],
            vec!["c: pod CIDR 192.168.0.0/24 contains 192.168.0.254, a gateway of this node"],
        ),
        (
            node("c", 1, &["192.168.0.0/30"], &["192.168.0.3"]),
            vec![own, to_b],
            vec!["c: pod CIDR 192.168.0.0/30 contains 192.168.0.1, an address of node a"],
        ),
        (
            node("c", 1, &["10.96.7.0/24"], &["192.168.0.3"]),
            vec![own, to_b],
            vec!["c: pod CIDR 10.96.7.0/24 contains 10.96.0.0/12, a Service CIDR"],
        ),
        (
            node("c", 1, &["0.0.0.0/0"], &["192.168.0.3"]),
            vec![own, to_b],
            vec!["c: pod CIDR 0.0.0.0/0 contains 10.96.0.0/12, a Service CIDR"],
        ),
        (
            node("c", 1, &["172.16.0.0/24"], &["192.168.0.3"]),
            vec![own, to_b],
            vec!["c: pod CIDR 172.16.0.0/24 contains 172.16.0.1, an address of the API server"],
        ),
        (
            node("c", 1, &[], &["192.168.0.3"]),
            vec![own, to_b],
            vec!["c: the Node has no pod CIDRs (spec.podCIDRs)"],
        ),
        (
            node("c", 1, &["10.244.3.0/24"], &[]),
            vec![own, to_b],
            vec!["c: no way to pod CIDR 10.244.3.0/24: the Node has no IPv4 address of type InternalIP"],
        ),
    ];
    for (third, mut expected, expected_problems) in rows {
        let routes = routes(PodNetworkMode::HostGw, &[a.clone(), b.clone(), third.clone()]);
        let mut found = text(routes.wanted());
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "{third:?}");
        assert_eq!(problems(&routes), expected_problems, "{third:?}");
    }
}

#[test]
fn pod_cidr_moves_to_another_node_without_a_gap() {
    for (from, to) in [("b", "c"), ("c", "b")] {
        let first = node(from, 1, &["10.244.2.0/24"], &["192.168.0.2"]);
        let mut routes =
            routes(PodNetworkMode::HostGw, &[node("a", 1, &[], &["192.168.0.1"]), first.clone()]);
        let second = node(to, 2, &["10.244.2.0/24"], &["192.168.0.3"]);
        assert!(routes.update([(second.name.clone(), Some(&second))]).is_empty());
        let changes = routes.update([(first.name.clone(), None)]);
        let all: Vec<_> =
            changes.in_order().map(|(_, change)| (change.before.is_some(), change.after.is_some())).collect();
        assert_eq!(all, [(true, true)], "one replacement");
        assert_eq!(text(routes.wanted()), ["10.244.2.0/24 via 192.168.0.3 eth0"]);
    }
}

/// The creation time, pod CIDRs and addresses of a Node; `None` for none.
type NodeSpec = Option<(i64, Vec<&'static str>, Vec<&'static str>)>;

/// Nodes of a small cluster, whose pod CIDRs and addresses often conflict.
fn any_node() -> impl Strategy<Value = (u8, NodeSpec)> {
    let cidrs = prop::sample::subsequence(
        vec![
            "10.244.1.0/24",
            "10.244.2.0/24",
            "10.244.2.0/25",
            "10.244.0.0/16",
            "10.0.0.0/8",
            "10.244.3.0/24",
            "fd00:244:1::/64",
            "fd00:244:2::/64",
            "fd00:244::/32",
            "192.168.0.0/29",
            "192.168.9.0/24",
        ],
        0..3,
    );
    let ips = prop::sample::subsequence(
        vec!["192.168.0.1", "192.168.0.2", "192.168.9.3", "10.244.3.3", "fd00:192::1", "fd00:199::2"],
        0..3,
    );
    (0u8..6, prop::option::weighted(0.8, (0i64..4, cidrs, ips)))
}

fn build(number: u8, spec: &NodeSpec) -> (Name, Option<Node>) {
    let name = ["a", "b", "c", "d", "e", "f"][usize::from(number)];
    (Name::new(name), spec.as_ref().map(|(created, cidrs, ips)| node(name, *created, cidrs, ips)))
}

fn any_mode() -> impl Strategy<Value = PodNetworkMode> {
    prop::sample::select(PodNetworkMode::ALL.to_vec())
}

proptest! {
    /// Changes lead from each state to the next, and the result depends on the last version of each Node only.
    #[test]
    fn incremental_updates_lead_to_the_state_of_the_last_nodes(
        mode in any_mode(),
        updates in prop::collection::vec(any_node(), 1..25),
    ) {
        let mut incremental = NodeRoutes::new(own(mode));
        let mut kernel = Forwarding::new();
        let mut last = BTreeMap::new();
        for (number, spec) in &updates {
            let (name, node) = build(*number, spec);
            let changes = incremental.update([(name.clone(), node.as_ref())]);
            for (key, change) in changes.in_order() {
                prop_assert_eq!(kernel.get(key).copied(), change.before);
                prop_assert_ne!(change.before, change.after);
                match change.after {
                    Some(object) => _ = kernel.insert(*key, object),
                    None => _ = kernel.remove(key),
                }
            }
            prop_assert_eq!(&kernel, incremental.wanted());
            last.insert(name, node);
        }
        for reversed in [false, true] {
            let mut fresh = NodeRoutes::new(own(mode));
            let mut nodes: Vec<_> = last.iter().map(|(name, node)| (name.clone(), node.as_ref())).collect();
            if reversed {
                nodes.reverse();
                nodes.into_iter().for_each(|node| _ = fresh.update([node]));
            } else {
                fresh.update(nodes);
            }
            prop_assert_eq!(fresh.wanted(), incremental.wanted());
            prop_assert_eq!(fresh.problems(), incremental.problems());
            prop_assert_eq!(fresh.pod_cidrs(), incremental.pod_cidrs());
        }
    }

    /// No route overlaps with reserved addresses, and those of different nodes do not overlap.
    #[test]
    fn routes_never_take_the_traffic_of_others(mode in any_mode(), nodes in prop::collection::vec(any_node(), 1..12)) {
        let mut routes = NodeRoutes::new(own(mode));
        let mut last = BTreeMap::new();
        for (number, spec) in &nodes {
            let (name, node) = build(*number, spec);
            last.insert(name, node);
        }
        routes.update(last.iter().map(|(name, node)| (name.clone(), node.as_ref())));
        let ips: Vec<IpAddr> = last.values().flatten().flat_map(Node::ips).collect();
        for cidr in routes.pod_cidrs() {
            prop_assert!(ips.iter().all(|ip| !cidr.contains(ip)), "{cidr} takes the address of a node");
            for reserved in routes.own().reserved.keys() {
                prop_assert!(!cidr.contains(reserved) && !reserved.contains(cidr), "{cidr} overlaps with {reserved}");
            }
        }
        for (name, member) in &routes.nodes {
            for (other, member_of_other) in routes.nodes.iter().filter(|(other, _)| *other != name) {
                for cidr in &member.accepted {
                    let overlap = member_of_other.accepted.iter().find(|block| block.contains(cidr));
                    prop_assert!(overlap.is_none(), "{name} and {other} have {cidr}");
                }
            }
        }
    }

    /// The difference of any two states leads from one to the other.
    #[test]
    fn difference_leads_to_the_wanted_state(
        modes in (any_mode(), any_mode()),
        nodes in (prop::collection::vec(any_node(), 0..8), prop::collection::vec(any_node(), 0..8)),
    ) {
        let state = |mode, nodes: &[(u8, _)]| {
            let mut routes = NodeRoutes::new(own(mode));
            for (number, spec) in nodes {
                let (name, node) = build(*number, spec);
                routes.update([(name, node.as_ref())]);
            }
            routes.wanted().clone()
        };
        let (mut kernel, wanted) = (state(modes.0, &nodes.0), state(modes.1, &nodes.1));
        let changes = ForwardingChanges::between(&kernel, &wanted);
        for (key, change) in changes.in_order() {
            prop_assert_eq!(kernel.get(key).copied(), change.before);
            match change.after {
                Some(object) => _ = kernel.insert(*key, object),
                None => _ = kernel.remove(key),
            }
        }
        prop_assert_eq!(kernel, wanted);
    }
}
