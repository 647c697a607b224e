//! What policies drop is counted by direction and policy, and logged; with `--network-policy-audit` it is counted and
//! logged, and passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis_lab::{Family, Protocol, TrafficOptions};

use crate::daemons::{NODES, wait_until};
use crate::flows::end;
use crate::nflog::{Listener, Logged};
use crate::town::Town;

/// Inwards for x/b, outwards for y/a.
const POLICIES: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: inwards, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: outwards, namespace: y}, spec: {
  podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}}";

/// A ClusterNetworkPolicy that denies by a rule of its own.
const BY_THE_CLUSTER: &str = "
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: no-81}, spec: {
  tier: Admin, priority: 5, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: z}}},
  ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}]}}";

const DROPPED: &str = "portcullis_network_policy_dropped_packets_total";

/// The daemons' figures: the node, the direction, the policy.
const COUNTED: [(&str, &str, &str); 3] =
    [("node-2", "ingress", "x/inwards"), ("node-2", "egress", "y/outwards"), ("node-1", "ingress", "no-81")];

/// Each of the figures, with this action.
fn counted(town: &Town, action: &str) -> [f64; 3] {
    COUNTED.map(|(node, direction, policy)| {
        let labels =
            [format!("action=\"{action}\""), format!("direction=\"{direction}\""), policy.to_owned()];
        town.metric(node, DROPPED, &labels.each_ref().map(String::as_str))
    })
}

#[test]
fn dropped_packets_are_counted_by_policy_and_direction() {
    let mut town = Town::enforcing(&[]);
    town.apply(POLICIES);
    town.apply(BY_THE_CLUSTER);
    assert_eq!(counted(&town, "drop"), [0.0; 3]);
    town.check("what is allowed", "x/a → x/b 80/tcp allow\n y/a → y/c 80/udp allow\n y/c → z/a 80/tcp allow");
    assert_eq!(counted(&town, "drop"), [0.0; 3], "it counts nowhere");
    one_datagram_each(&town, "y/b", "x/b", 80);
    one_datagram_each(&town, "y/a", "x/c", 80);
    assert_eq!(counted(&town, "drop"), [2.0, 2.0, 0.0], "a datagram a family");
    town.check("what is denied", "y/c → z/a 81/tcp deny");
    assert!(counted(&town, "drop")[2] >= 2.0, "{:?}", counted(&town, "drop"));
    assert_eq!(counted(&town, "audit"), [0.0; 3]);
    let bytes = town.metric("node-2", "portcullis_network_policy_dropped_bytes_total", &["x/inwards"]);
    assert!(bytes > 2.0 * 40.0, "{bytes}");
    // What is forbidden twice is counted where it leaves.
    one_datagram_each(&town, "y/a", "x/b", 80);
    assert_eq!(counted(&town, "drop")[..2], [2.0, 4.0]);
}

/// Sends a datagram of each family, to which no answer comes.
fn one_datagram_each(town: &Town, from: &str, to: &str, port: u16) {
    let [from, to] = [from, to].map(|name| end(town.lab.plan(), name));
    let prober = town.lab.from(from.vantage().unwrap().clone()).unwrap().timeout(Duration::from_millis(200));
    for family in Family::BOTH {
        let outcome = prober.udp(SocketAddr::new(to.address_of(family).unwrap(), port));
        assert_eq!(outcome.by(), None, "{from} → {to} {port} {}", family.name());
    }
}

#[test]
fn in_an_audit_all_passes_and_is_counted() {
    let mut town = Town::enforcing(&["--network-policy-audit"]);
    town.apply(POLICIES);
    town.apply(BY_THE_CLUSTER);
    town.check(
        "nothing is dropped",
        "x/a → x/b 80/tcp allow
         y/b → x/b 80/udp allow
         y/a → x/c 80/udp allow
         y/a → service/x/s-x-c 81/tcp allow
         y/c → z/a 81/tcp allow",
    );
    let audit = counted(&town, "audit");
    assert!(audit.iter().zip([2.0, 4.0, 2.0]).all(|(seen, least)| *seen >= least), "{audit:?}");
    assert_eq!(counted(&town, "drop"), [0.0; 3]);
    // What would be dropped at both ends is counted at both.
    town.check("nothing is dropped", "y/a → x/b 80/udp allow");
    let after = counted(&town, "audit");
    assert!(after[0] > audit[0] && after[1] > audit[1], "{audit:?} {after:?}");
    NODES.iter().for_each(|node| assert!(town.table(node).contains("portcullis-policy")));
}

#[test]
fn dropped_packets_are_logged_with_their_headers() {
    let mut town = Town::enforcing(&["--network-policy-log-group=7", "--network-policy-log-rate=10"]);
    town.apply(POLICIES);
    town.apply(BY_THE_CLUSTER);
    let mut listeners = NODES.map(|node| Listener::bind(&town.netns(node), 7));
    let rows = [
        ("y/b → x/b 80/udp deny", 1, "drop ingress NetworkPolicy x/inwards"),
        ("y/a → x/c 80/udp deny", 1, "drop egress NetworkPolicy y/outwards"),
        ("y/c → z/a 81/tcp deny", 0, "drop ingress ClusterNetworkPolicy no-81"),
    ];
    for (line, node, prefix) in rows {
        town.check("what is logged", line);
        let logged = listeners[node].drain(Duration::from_millis(300));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [from, to] = [words[0], words[2]].map(|name| end(town.lab.plan(), name));
        for family in Family::BOTH {
            let addresses = (from.address_of(family).unwrap(), to.address_of(family).unwrap());
            let is_it = |logged: &&Logged| addresses_of(&logged.packet) == Some(addresses);
            let found: Vec<&Logged> = logged.iter().filter(is_it).collect();
            assert!(!found.is_empty(), "{line}: {addresses:?} is not among {logged:?}");
            assert!(found.iter().all(|logged| logged.prefix.trim_end() == prefix), "{line}: {found:?}");
            assert!(found.iter().all(|logged| logged.packet.len() <= 128), "{line}: {found:?}");
        }
    }
    for listener in &mut listeners {
        assert!(listener.drain(Duration::from_millis(200)).is_empty(), "what is allowed is not logged");
    }
    flooded(&town, &mut listeners[1]);
}

/// Many packets, of which ten a second are logged.
fn flooded(town: &Town, listener: &mut Listener) {
    let [from, to] = ["y/b", "x/b"].map(|name| end(town.lab.plan(), name));
    let prober = town.lab.from(from.vantage().unwrap().clone()).unwrap();
    let to = SocketAddr::new(to.address_of(Family::V4).unwrap(), 80);
    let dropped = || town.metric("node-2", DROPPED, &["x/inwards"]);
    let (before, start) = (dropped(), Instant::now());
    let options = TrafficOptions {
        pace: Duration::from_millis(4),
        patience: Duration::from_millis(100),
        ..TrafficOptions::default()
    };
    let traffic = prober.connections(Protocol::Udp, to, options).unwrap();
    wait_until("many packets are dropped", || dropped() > before + 400.0);
    let all = traffic.stop().sent.len();
    let seconds = start.elapsed().as_secs_f64();
    let logged = listener.drain(Duration::from_millis(300)).len();
    println!("{logged} of {all} packets were logged in {seconds:.1} s");
    assert!(logged >= 10 && logged as f64 <= 10.0 * (seconds + 2.0), "{logged} of {all} in {seconds} s");
}

/// The addresses of a packet that begins with its IP header.
fn addresses_of(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
    let v6 =
        |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}
