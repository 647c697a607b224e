//! Packets with addresses that are in no Pod object: link-local, multicast and broadcast addresses, and those that a pod
//! assigns itself. For these, pods are matched by their interfaces.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use portcullis_lab::{NetNs, Vantage};
use socket2::{Domain, Protocol, Socket, Type};

use crate::daemons::wait_until;
use crate::settle::wait_until_settled;
use crate::test_cluster::TestCluster;
use crate::tools;

const PORT: u16 = 9999;

/// x/a, which policies select, and y/b, which no policy selects. Both are on node-1.
const PODS: [&str; 2] = ["x/a", "y/b"];

/// An address that x/a assigns itself.
const OWN: &str = "10.244.1.99";

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, \
          spec: {{podSelector: {{matchLabels: {{pod: a}}}}, {spec}}}}}"
    )
}

/// A host: a network namespace with an interface and its link-local address.
struct Host {
    netns: NetNs,
    index: u32,
    link_local: Ipv6Addr,
}

impl Host {
    fn new(netns: NetNs, interface: &str) -> Self {
        let mut link_local = None;
        let list = || {
            tools::output(
                netns.command("ip").args(["-6", "-o", "addr", "show", "dev", interface, "scope", "link"]),
            )
        };
        // Duplicate address detection takes a second or two.
        wait_until("there is a link-local address", || {
            let listed = list();
            link_local = listed.split_whitespace().find_map(|word| word.strip_suffix("/64")?.parse().ok());
            link_local.is_some() && !listed.contains("tentative")
        });
        let listed = tools::output(netns.command("ip").args(["-o", "link", "show", "dev", interface]));
        let index = listed.split(':').next().unwrap().trim().parse().unwrap();
        Host { netns, index, link_local: link_local.unwrap() }
    }

    fn bind(&self, address: IpAddr, port: u16) -> UdpSocket {
        let socket = self.netns.run(|| UdpSocket::bind((address, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    /// Returns this host's address for a sender.
    fn at(&self, to: &str, sender: &Host) -> SocketAddr {
        let scoped = |address| SocketAddr::V6(SocketAddrV6::new(address, PORT, 0, sender.index));
        match to {
            "link-local" => scoped(self.link_local),
            "ff02::1" => scoped(to.parse().unwrap()),
            address => SocketAddr::new(address.parse().unwrap(), PORT),
        }
    }
}

/// Result of a datagram with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Delivery {
    Lost,
    Received,
    Replied,
}

/// Sends a datagram, from this source address if given, and a reply.
fn send(from: &Host, source: Option<&str>, to: &Host, at: &str) -> Delivery {
    let at = to.at(at, from);
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let receiver = to.bind(any, PORT);
    let sender = from.bind(source.map_or(any, |source| source.parse().unwrap()), 0);
    sender.set_broadcast(true).unwrap();
    let mut buffer = [0; 16];
    if sender.send_to(b"hello", at).is_err() {
        return Delivery::Lost;
    }
    let Ok((_, sender_at)) = receiver.recv_from(&mut buffer) else { return Delivery::Lost };
    if receiver.send_to(b"yes", sender_at).is_err() || sender.recv(&mut buffer).is_err() {
        return Delivery::Received;
    }
    Delivery::Replied
}

/// Returns true if an ICMP redirect (RFC 792) is received.
fn redirect(from: &Host, to: &Host, at: &str) -> bool {
    const REDIRECT: u8 = 5;
    let raw = |end: &Host| {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        end.netns.run(open).unwrap()
    };
    let (sender, receiver) = (raw(from), raw(to));
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let message = [REDIRECT, 1, 0xfa, 0xfe, 0, 0, 0, 0];
    sender.send_to(&message, &SocketAddr::new(at.parse().unwrap(), 0).into()).unwrap();
    let mut receiver: std::fs::File = std::os::fd::OwnedFd::from(receiver).into();
    let mut buffer = [0; 64];
    // The message comes with its IPv4 header.
    matches!(receiver.read(&mut buffer), Ok(length) if length > 20 && buffer[20] == REDIRECT)
}

/// Returns true if a router advertisement is received.
fn advertise(from: &Host, to: &Host) -> bool {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    let raw = |end: &Host| {
        let open = || Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        end.netns.run(open).unwrap()
    };
    let (sender, receiver) = (raw(from), raw(to));
    sender.set_multicast_hops_v6(255).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut message = [0; 16];
    message[0] = ROUTER_ADVERTISEMENT;
    let group = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, from.index);
    sender.send_to(&message, &group.into()).unwrap();
    let mut receiver: std::fs::File = std::os::fd::OwnedFd::from(receiver).into();
    let mut buffer = [0; 64];
    loop {
        match receiver.read(&mut buffer) {
            Ok(length) if length > 0 && buffer[0] == ROUTER_ADVERTISEMENT => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

struct Hosts {
    cluster: TestCluster,
    a: Host,
    b: Host,
    node: Host,
}

/// Multicast and broadcast addresses.
const GROUPS: [&str; 4] = ["255.255.255.255", "10.244.1.255", "224.0.0.1", "ff02::1"];

impl Hosts {
    fn new(args: &[&str]) -> Self {
        let cluster = TestCluster::enforcing(args);
        let [a, b] = PODS.map(|pod| Host::new(cluster.lab.netns(&Vantage::pod(pod)).unwrap(), "eth0"));
        tools::output(a.netns.command("ip").args(["addr", "add", &format!("{OWN}/24"), "dev", "eth0"]));
        let node = Host::new(cluster.netns("node-1"), "cni0");
        Hosts { cluster, a, b, node }
    }

    /// Returns the packets that are received, described in words.
    fn open(&self) -> BTreeSet<String> {
        let Hosts { a, b, node, .. } = self;
        let mut open = BTreeSet::new();
        let mut note = |words: String, seen: Delivery| {
            if seen > Delivery::Lost {
                open.insert(words);
            }
        };
        for (way, from, to) in
            [("a → b", a, b), ("b → a", b, a), ("a → node", a, node), ("b → node", b, node)]
        {
            let seen = send(from, None, to, "link-local");
            assert_ne!(seen, Delivery::Received, "{way}: the answer is part of it");
            note(format!("{way} link-local"), seen);
            for group in GROUPS {
                note(format!("{way} {group}"), send(from, None, to, group));
            }
        }
        let plan = self.cluster.lab.plan().pod("y/b").unwrap();
        let b_at = plan.addresses.iter().find(|address| address.is_ipv4()).unwrap().to_string();
        note(format!("a → b from {OWN}"), send(a, Some(OWN), b, &b_at));
        note(format!("b → a at {OWN}"), send(b, None, a, OWN));
        open
    }

    /// Returns the packets that must be received while ingress and egress of x/a are allowed or not.
    fn expected(ingress: bool, egress: bool) -> BTreeSet<String> {
        let ways = [("a → b", egress), ("b → a", ingress), ("a → node", egress), ("b → node", true)];
        let all = ways.into_iter().filter(|(_, open)| *open).flat_map(|(way, _)| {
            ["link-local"].into_iter().chain(GROUPS).map(move |to| format!("{way} {to}"))
        });
        let own = [(format!("a → b from {OWN}"), egress), (format!("b → a at {OWN}"), ingress)];
        all.chain(own.into_iter().filter(|(_, open)| *open).map(|(way, _)| way)).collect()
    }
}

#[test]
fn isolated_pods_are_isolated_at_all_their_addresses() {
    let mut hosts = Hosts::new(&[]);
    let anything = "[{to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: \"::/0\"}}]}]";
    let rows = [
        ("no policy", None, true, true),
        ("isolated", Some("policyTypes: [Ingress, Egress]".to_owned()), false, false),
        ("isolated inwards", Some("policyTypes: [Ingress]".to_owned()), false, true),
        ("isolated outwards", Some("policyTypes: [Egress]".to_owned()), true, false),
        (
            "all allowed",
            Some("policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]".to_owned()),
            true,
            true,
        ),
        (
            "all blocks allowed",
            Some(format!("policyTypes: [Ingress, Egress], egress: {anything}")),
            false,
            true,
        ),
    ];
    for (what, spec, ingress, egress) in rows {
        if let Some(spec) = spec {
            hosts.cluster.apply(&policy(&spec));
        }
        // Forget earlier connections, whose replies would pass.
        tools::output(hosts.node.netns.command("conntrack").arg("-F"));
        assert_eq!(hosts.open(), Hosts::expected(ingress, egress), "{what}");
    }
    hosts.cluster.delete_policy("p");
    wait_until_settled(&mut hosts.cluster.lab);
    assert_eq!(hosts.open(), Hosts::expected(true, true), "without the policy again");
}

/// A restarted sandbox has a new interface with the same addresses.
#[test]
fn pod_with_a_new_interface_is_isolated_at_all_its_addresses() {
    let mut hosts = Hosts::new(&[]);
    hosts.cluster.apply(&policy("policyTypes: [Ingress, Egress]"));
    assert_eq!(hosts.open(), Hosts::expected(false, false));
    let addresses = ip(&hosts.a, &["-o", "addr", "show", "dev", "eth0", "scope", "global"]);
    let addresses: Vec<&str> = addresses.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
    ip(&hosts.a, &["link", "delete", "eth0"]);
    let pod = hosts.a.netns.name().to_owned();
    ip(&hosts.node, &["link", "add", "new0", "type", "veth", "peer", "name", "eth0", "netns", &pod]);
    ip(&hosts.node, &["link", "set", "new0", "master", "cni0", "up"]);
    ip(&hosts.a, &["link", "set", "eth0", "up"]);
    for address in addresses {
        ip(&hosts.a, &["addr", "add", address, "dev", "eth0", "nodad"]);
    }
    hosts.a = Host::new(hosts.a.netns.clone(), "eth0");
    wait_until("the new interface is found", || hosts.cluster.table("node-1").contains("\"new0\""));
    assert_eq!(hosts.open(), Hosts::expected(false, false));
}

#[test]
fn cluster_policy_that_denies_nodes_denies_their_link_local_addresses() {
    let mut hosts = Hosts::new(&[]);
    hosts.cluster.apply(
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: wall}, spec: {
            tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}},
            egress: [{action: Deny, to: [{nodes: {}}, {networks: [0.0.0.0/0, \"::/0\"]}]}]}}",
    );
    let open = hosts.open();
    let from_a: Vec<&String> = open.iter().filter(|way| way.starts_with("a → ")).collect();
    assert_eq!(from_a, Vec::<&String>::new());
    assert!(open.contains("b → node link-local") && open.contains("b → a link-local"), "{open:?}");
}

#[test]
fn audit_counts_packets_by_interface_and_drops_nothing() {
    let mut hosts = Hosts::new(&["--network-policy-audit"]);
    hosts.cluster.apply(&policy("policyTypes: [Ingress, Egress]"));
    assert_eq!(hosts.open(), Hosts::expected(true, true));
    let counted = hosts.cluster.metric("node-1", "portcullis_network_policy_dropped_packets_total", &["x/p"]);
    assert!(counted >= 10.0, "{counted}");
}

#[test]
fn router_advertisements_and_redirects_of_pods_are_dropped() {
    let Hosts { cluster, a, b, node } = Hosts::new(&[]);
    assert!(advertise(&node, &a) && advertise(&node, &b), "the node may");
    for (what, from, to) in
        [("to an isolated pod", &b, &a), ("by an isolated pod", &a, &b), ("to the node", &a, &node)]
    {
        assert!(!advertise(from, to), "{what}");
    }
    let at = |pod: &str| {
        let addresses = &cluster.lab.plan().pod(pod).unwrap().addresses;
        addresses.iter().find(|address| address.is_ipv4()).unwrap().to_string()
    };
    assert!(redirect(&node, &a, &at("x/a")), "the node may redirect");
    assert!(!redirect(&b, &a, &at("x/a")) && !redirect(&a, &b, &at("y/b")), "a pod may not");
    let dropped = cluster.metric(
        "node-1",
        "portcullis_network_policy_dropped_packets_total",
        &["router-advertisements"],
    );
    assert!(dropped >= 3.0, "{dropped}");
}

/// Pods without a bridge, each with a route.
#[test]
fn routed_pods_are_isolated_at_all_their_addresses() {
    let mut hosts = Hosts::new(&[]);
    let listed = tools::output(hosts.a.netns.command("ip").args(["-o", "link", "show", "dev", "eth0"]));
    let index = listed.split_once("@if").unwrap().1.split(':').next().unwrap().to_owned();
    let node = ip(&hosts.node, &["-o", "link"]);
    let wire = node.lines().find(|line| line.starts_with(&format!("{index}: "))).unwrap();
    let wire = wire.split([' ', '@', ':']).nth(2).unwrap().to_owned();
    let plan = hosts.cluster.lab.plan();
    let own =
        |pod: &str| plan.pod(pod).unwrap().addresses.iter().find(|ip| ip.is_ipv4()).unwrap().to_string();
    let (a_at, b_at) = (own("x/a"), own("y/b"));
    ip(&hosts.node, &["link", "set", &wire, "nomaster", "down"]);
    ip(&hosts.node, &["link", "set", &wire, "up"]);
    for address in [a_at.as_str(), OWN] {
        ip(&hosts.node, &["route", "add", address, "dev", &wire]);
    }
    // The pod reaches all other hosts through its node, which does proxy ARP for it on the bridge.
    let answer = || {
        std::fs::write("/proc/sys/net/ipv4/conf/cni0/proxy_arp", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/neigh/cni0/proxy_delay", "0").unwrap();
    };
    hosts.node.netns.run(answer).unwrap();
    ip(&hosts.a, &["-4", "route", "flush", "dev", "eth0"]);
    ip(&hosts.a, &["route", "add", "10.244.1.1", "dev", "eth0", "src", &a_at]);
    ip(&hosts.a, &["route", "add", "default", "via", "10.244.1.1", "src", &a_at]);
    let node = Host::new(hosts.node.netns.clone(), &wire);
    let Hosts { cluster, a, b, node: bridge } = &mut hosts;
    for (what, spec, ingress, egress) in [
        ("no policy", None, true, true),
        ("isolated inwards", Some("policyTypes: [Ingress]"), false, true),
        ("isolated outwards", Some("policyTypes: [Egress]"), true, false),
    ] {
        if let Some(spec) = spec {
            cluster.apply(&policy(spec));
        }
        tools::output(node.netns.command("conntrack").arg("-F"));
        assert_eq!(send(a, None, &node, "link-local") > Delivery::Lost, egress, "{what}: to the node");
        assert_eq!(send(a, None, &node, "ff02::1") > Delivery::Lost, egress, "{what}: to all nodes");
        assert_eq!(send(a, None, &node, "255.255.255.255") > Delivery::Lost, egress, "{what}: broadcast");
        assert_eq!(
            send(a, Some(OWN), b, &b_at) > Delivery::Lost,
            egress,
            "{what}: from an address of its own"
        );
        assert_eq!(send(b, None, a, OWN) > Delivery::Lost, ingress, "{what}: to an address of its own");
        assert!(send(b, None, bridge, "link-local") > Delivery::Lost, "{what}: another pod");
        assert!(advertise(&node, a) && !advertise(a, &node), "{what}: router advertisements");
    }
}

fn ip(end: &Host, arguments: &[&str]) -> String {
    tools::output(end.netns.command("ip").args(arguments))
}
