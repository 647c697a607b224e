//! Dropped packets are counted by direction and policy, and logged. With `--network-policy-audit` they are counted and
//! logged but not dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis_lab::{Family, Protocol, TrafficOptions};

use crate::daemons::{NODES, wait_until};
use crate::flows::end;
use crate::nflog::{Listener, Logged};
use crate::test_cluster::TestCluster;

/// One policy for ingress of x/b, one for egress of y/a.
const POLICIES: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: inwards, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: outwards, namespace: y}, spec: {
  podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}}";

/// A ClusterNetworkPolicy with a rule that denies.
const CLUSTER_POLICY: &str = "
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: no-81}, spec: {
  tier: Admin, priority: 5, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: z}}},
  ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 81}}}]}]}}";

const DROPPED: &str = "portcullis_network_policy_dropped_packets_total";

/// Series of the daemons: node, direction, policy.
const COUNTED: [(&str, &str, &str); 3] =
    [("node-2", "ingress", "x/inwards"), ("node-2", "egress", "y/outwards"), ("node-1", "ingress", "no-81")];

/// Returns the value of each series with this action.
fn counted(cluster: &TestCluster, action: &str) -> [f64; 3] {
    COUNTED.map(|(node, direction, policy)| {
        let labels =
            [format!("action=\"{action}\""), format!("direction=\"{direction}\""), policy.to_owned()];
        cluster.metric(node, DROPPED, &labels.each_ref().map(String::as_str))
    })
}

#[test]
fn dropped_packets_are_counted_by_policy_and_direction() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(POLICIES);
    cluster.apply(CLUSTER_POLICY);
    assert_eq!(counted(&cluster, "drop"), [0.0; 3]);
    cluster.check("allowed", "x/a → x/b 80/tcp allow\n y/a → y/c 80/udp allow\n y/c → z/a 80/tcp allow");
    assert_eq!(counted(&cluster, "drop"), [0.0; 3], "allowed packets are not counted");
    one_datagram_each(&cluster, "y/b", "x/b", 80);
    one_datagram_each(&cluster, "y/a", "x/c", 80);
    assert_eq!(counted(&cluster, "drop"), [2.0, 2.0, 0.0], "one datagram of each family");
    cluster.check("denied", "y/c → z/a 81/tcp deny");
    assert!(counted(&cluster, "drop")[2] >= 2.0, "{:?}", counted(&cluster, "drop"));
    assert_eq!(counted(&cluster, "audit"), [0.0; 3]);
    let bytes = cluster.metric("node-2", "portcullis_network_policy_dropped_bytes_total", &["x/inwards"]);
    assert!(bytes > 2.0 * 40.0, "{bytes}");
    // A packet that is denied at both ends is counted for egress.
    one_datagram_each(&cluster, "y/a", "x/b", 80);
    assert_eq!(counted(&cluster, "drop")[..2], [2.0, 4.0]);
}

/// Sends a datagram of each family and expects no reply.
fn one_datagram_each(cluster: &TestCluster, from: &str, to: &str, port: u16) {
    let [from, to] = [from, to].map(|name| end(cluster.lab.plan(), name));
    let prober =
        cluster.lab.prober(from.vantage().unwrap().clone()).unwrap().timeout(Duration::from_millis(200));
    for family in Family::BOTH {
        let outcome = prober.udp(SocketAddr::new(to.address_of(family).unwrap(), port));
        assert_eq!(outcome.responder(), None, "{from} → {to} {port} {}", family.name());
    }
}

#[test]
fn audit_counts_denied_packets_and_drops_nothing() {
    let mut cluster = TestCluster::enforcing(&["--network-policy-audit"]);
    cluster.apply(POLICIES);
    cluster.apply(CLUSTER_POLICY);
    cluster.check(
        "nothing is dropped",
        "x/a → x/b 80/tcp allow
         y/b → x/b 80/udp allow
         y/a → x/c 80/udp allow
         y/a → service/x/s-x-c 81/tcp allow
         y/c → z/a 81/tcp allow",
    );
    let audit = counted(&cluster, "audit");
    assert!(audit.iter().zip([2.0, 4.0, 2.0]).all(|(seen, least)| *seen >= least), "{audit:?}");
    assert_eq!(counted(&cluster, "drop"), [0.0; 3]);
    // A packet that would be dropped at both ends is counted at both.
    cluster.check("nothing is dropped", "y/a → x/b 80/udp allow");
    let after = counted(&cluster, "audit");
    assert!(after[0] > audit[0] && after[1] > audit[1], "{audit:?} {after:?}");
    NODES.iter().for_each(|node| assert!(cluster.table(node).contains("portcullis-policy")));
}

#[test]
fn dropped_packets_are_logged_with_their_headers() {
    let mut cluster =
        TestCluster::enforcing(&["--network-policy-log-group=7", "--network-policy-log-rate=10"]);
    cluster.apply(POLICIES);
    cluster.apply(CLUSTER_POLICY);
    let mut listeners = NODES.map(|node| Listener::bind(&cluster.netns(node), 7));
    let rows = [
        ("y/b → x/b 80/udp deny", 1, "drop ingress NetworkPolicy x/inwards"),
        ("y/a → x/c 80/udp deny", 1, "drop egress NetworkPolicy y/outwards"),
        ("y/c → z/a 81/tcp deny", 0, "drop ingress ClusterNetworkPolicy no-81"),
    ];
    for (line, node, prefix) in rows {
        cluster.check("logged", line);
        let logged = listeners[node].drain(Duration::from_millis(300));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [from, to] = [words[0], words[2]].map(|name| end(cluster.lab.plan(), name));
        for family in Family::BOTH {
            let addresses = (from.address_of(family).unwrap(), to.address_of(family).unwrap());
            let matches = |logged: &&Logged| addresses_of(&logged.packet) == Some(addresses);
            let found: Vec<&Logged> = logged.iter().filter(matches).collect();
            assert!(!found.is_empty(), "{line}: {addresses:?} is not among {logged:?}");
            assert!(found.iter().all(|logged| logged.prefix.trim_end() == prefix), "{line}: {found:?}");
            assert!(found.iter().all(|logged| logged.packet.len() <= 128), "{line}: {found:?}");
        }
    }
    for listener in &mut listeners {
        assert!(listener.drain(Duration::from_millis(200)).is_empty(), "allowed packets are not logged");
    }
    check_rate_limit(&cluster, &mut listeners[1]);
}

/// Sends many packets, of which ten a second are logged.
fn check_rate_limit(cluster: &TestCluster, listener: &mut Listener) {
    let [from, to] = ["y/b", "x/b"].map(|name| end(cluster.lab.plan(), name));
    let prober = cluster.lab.prober(from.vantage().unwrap().clone()).unwrap();
    let to = SocketAddr::new(to.address_of(Family::V4).unwrap(), 80);
    let dropped = || cluster.metric("node-2", DROPPED, &["x/inwards"]);
    let (before, start) = (dropped(), Instant::now());
    let options = TrafficOptions {
        interval: Duration::from_millis(4),
        timeout: Duration::from_millis(100),
        ..TrafficOptions::default()
    };
    let traffic = prober.connections(Protocol::Udp, to, options).unwrap();
    wait_until("many packets are dropped", || dropped() > before + 400.0);
    let all = traffic.stop().probes.len();
    let seconds = start.elapsed().as_secs_f64();
    let logged = listener.drain(Duration::from_millis(300)).len();
    println!("{logged} of {all} packets were logged in {seconds:.1} s");
    assert!(logged >= 10 && logged as f64 <= 10.0 * (seconds + 2.0), "{logged} of {all} in {seconds} s");
}

/// Returns source and destination of a packet that starts with its IP header.
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
