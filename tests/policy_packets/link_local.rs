//! Packets with addresses that the API gives no pod: link-local ones, multicast, broadcast, and those that a pod gives
//! itself. Pods are matched by their interfaces for these.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use portcullis_lab::{NetNs, Vantage};
use socket2::{Domain, Protocol, Socket, Type};

use crate::daemons::wait_until;
use crate::rest::wait_for_rest;
use crate::tools;
use crate::town::Town;

const PORT: u16 = 9999;

/// x/a, of which policies speak, and y/b, which none selects, are on node-1.
const PODS: [&str; 2] = ["x/a", "y/b"];

/// An address that x/a gives itself.
const OWN: &str = "10.244.1.99";

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, \
          spec: {{podSelector: {{matchLabels: {{pod: a}}}}, {spec}}}}}"
    )
}

/// An end: a network namespace with its interface and its link-local address there.
struct End {
    netns: NetNs,
    index: u32,
    link_local: Ipv6Addr,
}

impl End {
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
        End { netns, index, link_local: link_local.unwrap() }
    }

    fn bind(&self, address: IpAddr, port: u16) -> UdpSocket {
        let socket = self.netns.run(|| UdpSocket::bind((address, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    /// The address behind which others find this end, for a sender with this interface.
    fn at(&self, to: &str, of_sender: &End) -> SocketAddr {
        let scoped = |address| SocketAddr::V6(SocketAddrV6::new(address, PORT, 0, of_sender.index));
        match to {
            "link-local" => scoped(self.link_local),
            "ff02::1" => scoped(to.parse().unwrap()),
            address => SocketAddr::new(address.parse().unwrap(), PORT),
        }
    }
}

/// Whether a datagram arrives, and its answer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Nothing,
    Arrived,
    Answered,
}

/// Sends a datagram, from an address if one is given, and has it answered.
fn send(from: &End, source: Option<&str>, to: &End, at: &str) -> Seen {
    let at = to.at(at, from);
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let receiver = to.bind(any, PORT);
    let sender = from.bind(source.map_or(any, |source| source.parse().unwrap()), 0);
    sender.set_broadcast(true).unwrap();
    let mut buffer = [0; 16];
    if sender.send_to(b"hello", at).is_err() {
        return Seen::Nothing;
    }
    let Ok((_, sender_at)) = receiver.recv_from(&mut buffer) else { return Seen::Nothing };
    if receiver.send_to(b"yes", sender_at).is_err() || sender.recv(&mut buffer).is_err() {
        return Seen::Arrived;
    }
    Seen::Answered
}

/// Whether an ICMP redirect arrives (RFC 792), which names the other end as the better gateway.
fn redirect(from: &End, to: &End, at: &str) -> bool {
    const REDIRECT: u8 = 5;
    let raw = |end: &End| {
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

/// Whether a router advertisement arrives.
fn advertise(from: &End, to: &End) -> bool {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    let raw = |end: &End| {
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

struct Place {
    town: Town,
    a: End,
    b: End,
    node: End,
}

/// Groups, and broadcast addresses.
const GROUPS: [&str; 4] = ["255.255.255.255", "10.244.1.255", "224.0.0.1", "ff02::1"];

impl Place {
    fn new(args: &[&str]) -> Self {
        let town = Town::enforcing(args);
        let [a, b] = PODS.map(|pod| End::new(town.lab.netns(&Vantage::pod(pod)).unwrap(), "eth0"));
        tools::output(a.netns.command("ip").args(["addr", "add", &format!("{OWN}/24"), "dev", "eth0"]));
        let node = End::new(town.netns("node-1"), "cni0");
        Place { town, a, b, node }
    }

    /// What gets through, in words.
    fn open(&self) -> BTreeSet<String> {
        let Place { a, b, node, .. } = self;
        let mut open = BTreeSet::new();
        let mut note = |words: String, seen: Seen| {
            if seen > Seen::Nothing {
                open.insert(words);
            }
        };
        for (way, from, to) in
            [("a → b", a, b), ("b → a", b, a), ("a → node", a, node), ("b → node", b, node)]
        {
            let seen = send(from, None, to, "link-local");
            assert_ne!(seen, Seen::Arrived, "{way}: the answer is part of it");
            note(format!("{way} link-local"), seen);
            for group in GROUPS {
                note(format!("{way} {group}"), send(from, None, to, group));
            }
        }
        let plan = self.town.lab.plan().pod("y/b").unwrap();
        let b_at = plan.addresses.iter().find(|address| address.is_ipv4()).unwrap().to_string();
        note(format!("a → b from {OWN}"), send(a, Some(OWN), b, &b_at));
        note(format!("b → a at {OWN}"), send(b, None, a, OWN));
        open
    }

    /// What must get through while x/a may be reached, and may reach others.
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
    let mut place = Place::new(&[]);
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
            place.town.apply(&policy(&spec));
        }
        // So that no answer counts that belongs to what was sent before.
        tools::output(place.node.netns.command("conntrack").arg("-F"));
        assert_eq!(place.open(), Place::expected(ingress, egress), "{what}");
    }
    place.town.delete_policy("p");
    wait_for_rest(&mut place.town.lab);
    assert_eq!(place.open(), Place::expected(true, true), "without the policy again");
}

/// The sandbox of a pod starts again: it has another interface, and the same addresses.
#[test]
fn a_pod_with_a_new_interface_is_isolated_at_all_its_addresses() {
    let mut place = Place::new(&[]);
    place.town.apply(&policy("policyTypes: [Ingress, Egress]"));
    assert_eq!(place.open(), Place::expected(false, false));
    let addresses = ip(&place.a, &["-o", "addr", "show", "dev", "eth0", "scope", "global"]);
    let addresses: Vec<&str> = addresses.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
    ip(&place.a, &["link", "delete", "eth0"]);
    let pod = place.a.netns.name().to_owned();
    ip(&place.node, &["link", "add", "new0", "type", "veth", "peer", "name", "eth0", "netns", &pod]);
    ip(&place.node, &["link", "set", "new0", "master", "cni0", "up"]);
    ip(&place.a, &["link", "set", "eth0", "up"]);
    for address in addresses {
        ip(&place.a, &["addr", "add", address, "dev", "eth0", "nodad"]);
    }
    place.a = End::new(place.a.netns.clone(), "eth0");
    wait_until("the new interface is found", || place.town.table("node-1").contains("\"new0\""));
    assert_eq!(place.open(), Place::expected(false, false));
}

#[test]
fn a_cluster_policy_that_denies_nodes_denies_their_link_local_addresses() {
    let mut place = Place::new(&[]);
    place.town.apply(
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: wall}, spec: {
            tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}},
            egress: [{action: Deny, to: [{nodes: {}}, {networks: [0.0.0.0/0, \"::/0\"]}]}]}}",
    );
    let open = place.open();
    let from_a: Vec<&String> = open.iter().filter(|way| way.starts_with("a → ")).collect();
    assert_eq!(from_a, Vec::<&String>::new());
    assert!(open.contains("b → node link-local") && open.contains("b → a link-local"), "{open:?}");
}

#[test]
fn an_audit_counts_and_drops_nothing() {
    let mut place = Place::new(&["--network-policy-audit"]);
    place.town.apply(&policy("policyTypes: [Ingress, Egress]"));
    assert_eq!(place.open(), Place::expected(true, true));
    let counted = place.town.metric("node-1", "portcullis_network_policy_dropped_packets_total", &["x/p"]);
    assert!(counted >= 10.0, "{counted}");
}

#[test]
fn pods_do_not_advertise_routers() {
    let Place { town, a, b, node } = Place::new(&[]);
    assert!(advertise(&node, &a) && advertise(&node, &b), "the node may");
    for (what, from, to) in
        [("to an isolated pod", &b, &a), ("by an isolated pod", &a, &b), ("to the node", &a, &node)]
    {
        assert!(!advertise(from, to), "{what}");
    }
    let at = |pod: &str| {
        let addresses = &town.lab.plan().pod(pod).unwrap().addresses;
        addresses.iter().find(|address| address.is_ipv4()).unwrap().to_string()
    };
    assert!(redirect(&node, &a, &at("x/a")), "the node may redirect");
    assert!(!redirect(&b, &a, &at("x/a")) && !redirect(&a, &b, &at("y/b")), "a pod may not");
    let dropped =
        town.metric("node-1", "portcullis_network_policy_dropped_packets_total", &["router-advertisements"]);
    assert!(dropped >= 3.0, "{dropped}");
}

/// Pods that are not joined by a bridge, but have a route each.
#[test]
fn routed_pods_are_isolated_at_all_their_addresses() {
    let mut place = Place::new(&[]);
    let listed = tools::output(place.a.netns.command("ip").args(["-o", "link", "show", "dev", "eth0"]));
    let index = listed.split_once("@if").unwrap().1.split(':').next().unwrap().to_owned();
    let node = ip(&place.node, &["-o", "link"]);
    let wire = node.lines().find(|line| line.starts_with(&format!("{index}: "))).unwrap();
    let wire = wire.split([' ', '@', ':']).nth(2).unwrap().to_owned();
    let plan = place.town.lab.plan();
    let own =
        |pod: &str| plan.pod(pod).unwrap().addresses.iter().find(|ip| ip.is_ipv4()).unwrap().to_string();
    let (a_at, b_at) = (own("x/a"), own("y/b"));
    ip(&place.node, &["link", "set", &wire, "nomaster", "down"]);
    ip(&place.node, &["link", "set", &wire, "up"]);
    for address in [a_at.as_str(), OWN] {
        ip(&place.node, &["route", "add", address, "dev", &wire]);
    }
    // The pod reaches all others by its node, and the node answers for it on the bridge.
    let answer = || {
        std::fs::write("/proc/sys/net/ipv4/conf/cni0/proxy_arp", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/neigh/cni0/proxy_delay", "0").unwrap();
    };
    place.node.netns.run(answer).unwrap();
    ip(&place.a, &["-4", "route", "flush", "dev", "eth0"]);
    ip(&place.a, &["route", "add", "10.244.1.1", "dev", "eth0", "src", &a_at]);
    ip(&place.a, &["route", "add", "default", "via", "10.244.1.1", "src", &a_at]);
    let node = End::new(place.node.netns.clone(), &wire);
    let Place { town, a, b, node: bridge } = &mut place;
    for (what, spec, ingress, egress) in [
        ("no policy", None, true, true),
        ("isolated inwards", Some("policyTypes: [Ingress]"), false, true),
        ("isolated outwards", Some("policyTypes: [Egress]"), true, false),
    ] {
        if let Some(spec) = spec {
            town.apply(&policy(spec));
        }
        tools::output(node.netns.command("conntrack").arg("-F"));
        assert_eq!(send(a, None, &node, "link-local") > Seen::Nothing, egress, "{what}: to the node");
        assert_eq!(send(a, None, &node, "ff02::1") > Seen::Nothing, egress, "{what}: to all nodes");
        assert_eq!(send(a, None, &node, "255.255.255.255") > Seen::Nothing, egress, "{what}: broadcast");
        assert_eq!(
            send(a, Some(OWN), b, &b_at) > Seen::Nothing,
            egress,
            "{what}: from an address of its own"
        );
        assert_eq!(send(b, None, a, OWN) > Seen::Nothing, ingress, "{what}: to an address of its own");
        assert!(send(b, None, bridge, "link-local") > Seen::Nothing, "{what}: another pod");
        assert!(advertise(&node, a) && !advertise(a, &node), "{what}: router advertisements");
    }
}

fn ip(end: &End, arguments: &[&str]) -> String {
    tools::output(end.netns.command("ip").args(arguments))
}
