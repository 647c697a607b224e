//! VXLAN links, routes, neighbours and FDB entries in a network namespace of a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;
use std::thread;

use portcullis_cluster::node::Node;
use portcullis_cluster::{Kind, Name, Object};
use portcullis_machines::qemu;
use portcullis_netlink::route::Rtnetlink;
use portcullis_podnet::addresses::{Attachment, AttachmentKey};
use portcullis_podnet::links::{ForwardingTable, OwnLinks, VtepLinks, pod_mtu, remove, restore_pod_routes};
use portcullis_podnet::node_routes::{ForwardingChanges, NodeRoutes, OwnNetwork, vtep_mac};
use portcullis_podnet::{PodNetworkMode, Vxlan};

/// Runs `test` in a network namespace of its own, with `eth0` on which this node is.
fn inside(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no pointers are passed, and only this thread's namespace changes.
            let outcome = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(outcome, 0, "this test makes a network namespace and needs root");
            ip("link add eth0 mtu 1500 type veth peer name peer");
            for line in ["link set lo up", "link set eth0 up", "link set peer up"] {
                ip(line);
            }
            ip("addr add 192.168.0.1/24 dev eth0");
            ip("addr add fd00:192::1/64 dev eth0 nodad");
            ip("route add default via 192.168.0.254");
            test();
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn run(program: &str, line: &str) -> String {
    let output = Command::new(program).args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ip(line: &str) -> String {
    run("ip", line)
}

fn node(name: &str, cidrs: &[&str], ips: &[&str]) -> Node {
    let addresses: Vec<_> =
        ips.iter().map(|ip| serde_json::json!({"type": "InternalIP", "address": ip})).collect();
    let value = serde_json::json!({
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDRs": cidrs},
        "status": {"addresses": addresses},
    });
    let Object::Node(node) = Object::parse(Kind::Node, value).unwrap().object else { panic!("a Node") };
    node
}

fn nodes() -> Vec<Node> {
    vec![
        node("own", &["10.244.1.0/24", "fd00:244:1::/64"], &["192.168.0.1", "fd00:192::1"]),
        node("near", &["10.244.2.0/24", "fd00:244:2::/64"], &["192.168.0.2", "fd00:192::2"]),
        node("far", &["10.244.3.0/24", "fd00:244:3::/64"], &["192.168.9.3"]),
    ]
}

/// What a daemon keeps.
struct Node1 {
    routes: NodeRoutes,
    table: ForwardingTable,
    vteps: [Option<u32>; 2],
    /// It has synced.
    is_known: bool,
}

impl Node1 {
    fn new(mode: PodNetworkMode) -> Self {
        let routes = NodeRoutes::new(OwnNetwork::new(Name::new("own"), mode));
        let mut node =
            Node1 { routes, table: ForwardingTable::open().unwrap(), vteps: [None; 2], is_known: false };
        let nodes = nodes();
        node.routes.update(nodes.iter().map(|node| (node.name.clone(), Some(node))));
        node
    }

    /// Reads the facts, and restores everything. Returns the numbers of changes to links and to other objects.
    fn sync(&mut self) -> (usize, usize) {
        let rtnetlink = self.table.rtnetlink();
        let own = OwnLinks::read(rtnetlink, self.routes.internal_ips()).unwrap();
        let has_overlay = self.routes.own().mode.has_overlay();
        let underlays = if has_overlay { self.routes.underlays() } else { [false; 2] };
        let mac = vtep_mac(&self.routes.own().node);
        let links = VtepLinks::new(Vxlan::default(), mac, &own, underlays, self.routes.own_pod_cidrs());
        let (vteps, repairs) = links.ensure(rtnetlink).unwrap();
        self.vteps = vteps;
        self.routes.set_own(OwnNetwork { on_link: own.on_link, vteps, ..self.routes.own().clone() });
        // As if nothing had changed since the last sync.
        let expected = self.is_known.then(ForwardingChanges::default);
        self.is_known = true;
        let changes = self.table.restore(self.routes.wanted(), vteps, expected.as_ref()).unwrap();
        (repairs.total(), changes.len())
    }
}

#[test]
fn vxlan_link_and_its_tables_are_programmed_and_restored() {
    program_and_restore_vxlan();
}

#[test]
fn vxlan_link_and_its_tables_are_programmed_on_the_oldest_kernel() {
    qemu::inside(program_and_restore_vxlan);
}

fn program_and_restore_vxlan() {
    inside(|| {
        let mut node = Node1::new(PodNetworkMode::Vxlan);
        let (links, objects) = node.sync();
        assert_eq!(
            (links, objects),
            (1, 2 + 2 * 5),
            "one link; two own routes, and five objects of each other node"
        );
        assert!(node.table.rejected().is_empty(), "{:?}", node.table.rejected());
        assert_eq!(node.sync(), (0, 0), "nothing is written twice");
        let shown = ip("-d link show pc-vxlan");
        for expected in [
            "mtu 1450",
            "vxlan id 4097 local 192.168.0.1",
            "dstport 4789",
            "nolearning",
            " udpcsum ",
            "alias portcullis overlay IPv4",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        let mac = vtep_mac(&Name::new("own")).to_string();
        assert!(shown.contains(&mac) && shown.contains(",UP"), "{shown}");
        let addresses = ip("-br addr show pc-vxlan");
        let addresses: Vec<&str> = addresses.split_whitespace().skip(2).collect();
        assert_eq!(addresses, ["10.244.1.0/32", "fd00:244:1::/128"], "no link-local address");
        assert!(ip("route show proto 80").contains("10.244.3.0/24 via 10.244.3.0 dev pc-vxlan onlink"));
        let routes = ip("-6 route show proto 80");
        assert!(
            routes
                .lines()
                .any(|line| line.starts_with("fd00:244:3::/64 via fe80::") && line.contains("dev pc-vxlan")),
            "{routes}"
        );
        assert!(ip("route show type unreachable").contains("unreachable 10.244.1.0/24 proto 80 metric 4096"));
        assert_eq!(ip("neigh show dev pc-vxlan nud permanent").lines().count(), 4);
        let fdb = run("bridge", "fdb show dev pc-vxlan");
        assert!(
            fdb.contains("dst 192.168.9.3 self permanent") && !fdb.contains("00:00:00:00:00:00"),
            "{fdb}"
        );

        let far = vtep_mac(&Name::new("far")).to_string();
        // The damage, whether links are repaired, and the number of restored objects.
        let damage: Vec<(Vec<String>, bool, usize)> = vec![
            (vec!["ip route flush proto 80".into()], false, 3),
            (vec!["ip -6 route flush proto 80".into()], false, 3),
            (vec!["ip link set pc-vxlan down".into()], true, 8),
            (vec!["ip link del pc-vxlan".into()], true, 10),
            (
                vec!["ip link set pc-vxlan down".into(), "ip link set pc-vxlan name foreign0 up".into()],
                true,
                8,
            ),
            (vec!["ip link set pc-vxlan address 02:00:00:00:00:01".into()], true, 4),
            (vec!["ip link set pc-vxlan mtu 1400".into()], true, 0),
            (vec!["ip addr del 10.244.1.0/32 dev pc-vxlan".into()], true, 4),
            (vec!["ip addr add 10.9.9.9/32 dev pc-vxlan".into()], true, 0),
            (vec!["ip neigh del 10.244.3.0 dev pc-vxlan".into()], false, 1),
            (
                vec![
                    "ip neigh replace 10.244.3.0 lladdr 02:00:00:00:00:01 dev pc-vxlan nud permanent".into(),
                ],
                false,
                1,
            ),
            (vec![format!("bridge fdb del {far} dev pc-vxlan dst 192.168.9.3")], false, 1),
            (vec![format!("bridge fdb replace {far} dev pc-vxlan dst 192.168.9.4")], false, 1),
            (vec!["bridge fdb append 00:00:00:00:00:00 dev pc-vxlan dst 192.168.9.9".into()], false, 1),
            (vec!["ip route add 10.250.0.0/16 via 192.168.0.9 proto 80".into()], false, 1),
            (vec!["ip route replace 10.244.3.0/24 via 192.168.0.9".into()], false, 1),
            (vec!["ip -6 route replace fd00:244:3::/64 via fd00:192::9 metric 1024".into()], false, 1),
            (
                vec!["ip link set dev pc-vxlan alias other".into(), "ip link set pc-vxlan down".into()],
                true,
                8,
            ),
        ];
        for (commands, is_link, objects) in damage {
            for command in &commands {
                let (program, line) = command.split_once(' ').unwrap();
                run(program, line);
            }
            let (links, restored) = node.sync();
            assert_eq!((links > 0, restored), (is_link, objects), "{commands:?}");
            assert!(node.table.rejected().is_empty(), "{commands:?}: {:?}", node.table.rejected());
            assert_eq!(node.sync(), (0, 0), "{commands:?}");
        }
    });
}

#[test]
fn cross_subnet_uses_the_overlay_only_to_other_links() {
    inside(|| {
        let mut node = Node1::new(PodNetworkMode::CrossSubnet);
        node.sync();
        let routes = ip("route show proto 80");
        assert!(routes.contains("10.244.2.0/24 via 192.168.0.2 dev eth0"), "{routes}");
        assert!(routes.contains("10.244.3.0/24 via 10.244.3.0 dev pc-vxlan onlink"), "{routes}");
        let routes = ip("-6 route show proto 80");
        assert!(routes.contains("fd00:244:2::/64 via fd00:192::2 dev eth0"), "{routes}");
        // The uplink loses its routes while it is down.
        ip("link set eth0 down");
        ip("link set eth0 up");
        ip("addr replace fd00:192::1/64 dev eth0 nodad");
        assert!(!ip("route show proto 80").contains("dev eth0"));
        assert_ne!(node.sync(), (0, 0));
        assert!(ip("route show proto 80").contains("10.244.2.0/24 via 192.168.0.2 dev eth0"));
        // A node returns with another address, on another link.
        let cidrs = ["10.244.2.0/24", "fd00:244:2::/64"];
        let moved = self::node("near", &cidrs, &["192.168.9.2", "fd00:199::2"]);
        let changes = node.routes.update([(moved.name.clone(), Some(&moved))]);
        node.table.write(&changes).unwrap();
        assert!(node.table.rejected().is_empty(), "{:?}", node.table.rejected());
        let routes = ip("route show proto 80");
        assert!(routes.contains("10.244.2.0/24 via 10.244.2.0 dev pc-vxlan onlink"), "{routes}");
        assert!(ip("-6 route show fd00:244:2::/64").contains("dev pc-vxlan"));
        assert_eq!(node.sync(), (0, 0));
    });
}

#[test]
fn objects_of_other_programs_stay() {
    inside(|| {
        ip("link add flannel.1 type vxlan id 1 local 192.168.0.1 dstport 8472 nolearning");
        ip("link set flannel.1 up");
        ip("route add 10.244.2.0/24 via 192.168.0.7");
        ip("route add 10.77.0.0/16 via 192.168.0.7 proto 70");
        // The route to a pod of this node.
        ip("link add pc0123456789abc type veth peer name pod");
        ip("link set pc0123456789abc up");
        ip("route add 10.244.1.5/32 dev pc0123456789abc proto 80");
        // Names: the state of a link settles late.
        let links = || -> Vec<String> {
            ip("-br link show")
                .lines()
                .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
                .collect()
        };
        let before = links();
        let mut node = Node1::new(PodNetworkMode::HostGw);
        node.sync();
        let rejected: Vec<String> = node.table.rejected().values().map(ToString::to_string).collect();
        assert_eq!(rejected.len(), 1, "{rejected:?}");
        assert!(rejected[0].contains("File exists"), "{rejected:?}");
        assert!(
            ip("route show 10.244.2.0/24").contains("via 192.168.0.7"),
            "the route of the other program stays"
        );
        assert_eq!(before, links());
        // A change of a rejected route does not replace the other program's.
        let moved = self::node("near", &["10.244.2.0/24"], &["192.168.0.9"]);
        let changes = node.routes.update([(moved.name.clone(), Some(&moved))]);
        node.table.write(&changes).unwrap();
        assert!(ip("route show 10.244.2.0/24").contains("via 192.168.0.7"));
        assert_eq!(node.table.rejected().len(), 1);
        let changes = node.routes.update([(moved.name.clone(), None)]);
        node.table.write(&changes).unwrap();
        assert!(ip("route show 10.244.2.0/24").contains("via 192.168.0.7"));
        assert!(node.table.rejected().is_empty());
        ip("route del 10.244.2.0/24");

        let mut node = Node1::new(PodNetworkMode::Vxlan);
        node.sync();
        assert!(!remove(true).unwrap().is_empty(), "a dry run counts");
        assert!(ip("-br link show").contains("pc-vxlan"), "and removes nothing");
        let removed = remove(false).unwrap();
        assert_eq!((removed.links, removed.routes), (1, 6));
        assert_eq!(before, links());
        let routes = ip("route show proto 80");
        assert!(
            routes.starts_with("10.244.1.5 dev pc0123456789abc scope link") && routes.lines().count() == 1,
            "{routes}"
        );
        assert!(ip("route show proto 70").contains("10.77.0.0/16"));
        assert!(remove(false).unwrap().is_empty());
    });
}

#[test]
fn uplink_is_the_link_with_the_internal_ip_or_of_the_default_route() {
    inside(|| {
        let mut rtnetlink = Rtnetlink::open().unwrap();
        let mut read = |v4: &str, v6: &str| {
            let internal = [v4.parse().ok(), v6.parse().ok()];
            OwnLinks::read(&mut rtnetlink, internal).unwrap()
        };
        let own = read("192.168.0.1", "fd00:192::1");
        assert_eq!(pod_mtu(&own.uplinks, true), Some(1450));
        assert_eq!(pod_mtu(&own.uplinks, false), Some(1500));
        assert!(own.uplinks.iter().flatten().all(|uplink| uplink.name == "eth0"), "{own:?}");
        assert_eq!(own.gateways.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.0.254"]);
        let nets: Vec<String> = own.on_link.iter().map(|(net, _)| net.to_string()).collect();
        assert_eq!(nets, ["192.168.0.0/24", "fd00:192::/64"]);
        // Behind NAT, no link has the address of the Node object.
        let own = read("203.0.113.7", "");
        let uplink = own.uplinks[0].as_ref().unwrap();
        assert_eq!((uplink.name.as_str(), uplink.address.to_string().as_str()), ("eth0", "192.168.0.1"));
        let own = read("", "fd00:192::1");
        assert_eq!(pod_mtu(&own.uplinks, true), Some(1430), "the overlay uses IPv6");
        ip("link set eth0 mtu 9000");
        assert_eq!(pod_mtu(&read("192.168.0.1", "").uplinks, true), Some(8950));
    });
}

#[test]
fn routes_to_pods_of_this_node_are_restored() {
    inside(|| {
        for (host, peer) in [("pc1", "pod1"), ("pc2", "pod2"), ("pc3", "pod3")] {
            ip(&format!("link add {host} type veth peer name {peer}"));
            ip(&format!("link set {host} up"));
        }
        ip("link add cni0 type bridge");
        ip("link set pc2 master cni0");
        ip("link set pc3 down");
        let attachment = |number: u8, host: &str| Attachment {
            key: AttachmentKey::new(format!("container-{number}"), "eth0").unwrap(),
            netns: "/run/netns/pod".into(),
            netns_inode: 0,
            host_interface: host.to_owned(),
            addresses: vec![
                format!("10.244.1.{number}/24").parse().unwrap(),
                format!("fd00:244:1::{number}/64").parse().unwrap(),
            ],
            host_ports: Vec::new(),
            created: 0,
        };
        // A port of a bridge, a link that is down, and a pod that is gone have no routes.
        let attachments =
            ["pc1", "pc2", "pc3", "pc4"].into_iter().zip(5..).map(|(host, n)| attachment(n, host));
        let attachments: Vec<Attachment> = attachments.collect();
        let mut rtnetlink = Rtnetlink::open().unwrap();
        assert_eq!(restore_pod_routes(&mut rtnetlink, &attachments).unwrap(), 2);
        assert!(ip("route show proto 80").starts_with("10.244.1.5 dev pc1 scope link"));
        assert!(ip("-6 route show proto 80").starts_with("fd00:244:1::5 dev pc1 metric 1024"));
        assert_eq!(restore_pod_routes(&mut rtnetlink, &attachments).unwrap(), 0);
        ip("route flush proto 80");
        assert_eq!(restore_pod_routes(&mut rtnetlink, &attachments).unwrap(), 1);
    });
}
