//! Established connections that a new policy forbids: they are kept or terminated (`--network-policy-established`).

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use portcullis_lab::{EchoClient, Family, Lab, NetNs, Protocol};
use portcullis_netlink::conntrack::{Conntrack, Flow};

use crate::daemons::{NODES, wait_until};
use crate::flows::end;
use crate::settle::wait_until_settled;
use crate::test_cluster::{PATIENCE, TestCluster};
use crate::tools;

/// Only x/a may connect to x/b, with TCP and UDP.
const ONLY_A: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: only-a, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}}";

/// Source, destination, allowed by the policy.
const CONNECTIONS: [(&str, &str, bool); 7] = [
    ("x/a", "x/b", true),
    ("x/a", "service/x/s-x-b", true),
    ("node/node-2", "x/b", true),
    ("y/b", "x/c", true),
    ("y/b", "x/b", false),
    ("y/c", "x/b", false),
    ("y/a", "service/x/s-x-b", false),
];

/// An open conversation.
struct OpenConversation {
    what: String,
    allowed: bool,
    conversation: EchoClient,
}

fn open_all(lab: &Lab) -> Vec<OpenConversation> {
    let mut all = Vec::new();
    for (from, to, allowed) in CONNECTIONS {
        for family in Family::BOTH {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let what = format!("{from} → {to} {protocol} {}", family.name());
                let [from, to] = [from, to].map(|name| end(lab.plan(), name));
                let prober = lab.prober(from.vantage().unwrap().clone()).unwrap().timeout(PATIENCE);
                let to = SocketAddr::new(to.address_of(family).unwrap(), 80);
                let mut conversation = prober.open(protocol, to).unwrap();
                assert!(conversation.exchange("hello").responder().is_some(), "{what}");
                all.push(OpenConversation { what, allowed, conversation });
            }
        }
    }
    all
}

/// Returns the conversations that have ended unexpectedly, or unexpectedly have not.
fn wrong(open: &mut [OpenConversation], lives: impl Fn(&OpenConversation) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for one in open {
        let lives = lives(one);
        let patience = if lives { PATIENCE } else { Duration::from_millis(400) };
        one.conversation.set_timeout(patience).unwrap();
        let outcome = one.conversation.exchange("still there");
        if outcome.responder().is_some() != lives {
            wrong.push(format!("{}: {outcome}", one.what));
        }
    }
    wrong
}

fn terminated(cluster: &TestCluster) -> f64 {
    let value = |node| cluster.metric(node, "portcullis_network_policy_connections_cut_total", &[]);
    NODES.into_iter().map(value).sum()
}

#[test]
fn established_connections_are_kept() {
    let mut cluster = TestCluster::enforcing(&["--network-policy-established=keep"]);
    let mut open = open_all(&cluster.lab);
    cluster.apply(ONLY_A);
    cluster.check("new ones", "y/b → x/b 80/tcp deny\n y/c → x/b 80/udp deny\n x/a → x/b 80/tcp allow");
    let wrong = wrong(&mut open, |_| true);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(terminated(&cluster), 0.0);
}

#[test]
fn forbidden_established_connections_are_terminated() {
    let mut cluster = TestCluster::enforcing(&["--network-policy-established=cut"]);
    let mut open = open_all(&cluster.lab);
    let forbidden = open.iter().filter(|one| !one.allowed).count();
    cluster.apply(ONLY_A);
    let took = wait_until("connections are terminated", || terminated(&cluster) >= forbidden as f64);
    println!("{forbidden} connections were terminated within {took:?} after the daemons settled");
    assert_eq!(terminated(&cluster), forbidden as f64, "the forbidden ones, on the pod's node only");
    let tracked = tools::output(cluster.netns("node-2").command("conntrack").arg("-L"));
    let x_b = end(cluster.lab.plan(), "x/b").address_of(Family::V4).unwrap();
    for name in ["y/a", "y/b", "y/c"] {
        let reply =
            format!("src={x_b} dst={} ", end(cluster.lab.plan(), name).address_of(Family::V4).unwrap());
        assert!(!tracked.contains(&reply), "{name} is still tracked:\n{tracked}");
    }
    let wrong = wrong(&mut open, |one| one.allowed);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A change that allows more, or that forbids no open connection, terminates none.
    cluster.apply(&ONLY_A.replace("{pod: a}", "{}"));
    let other = ONLY_A.replace("pod: b", "pod: c").replace("only-a", "other");
    cluster.apply(&other.replace("podSelector: {matchLabels: {pod: a}}", "namespaceSelector: {}"));
    assert!(
        open.iter_mut().filter(|one| one.allowed).all(|one| one
            .conversation
            .exchange("and now")
            .responder()
            .is_some())
    );
}

/// A policy that was created while no daemon ran.
#[test]
fn new_policy_terminates_connections_after_a_daemon_start() {
    let mut cluster = TestCluster::enforcing(&["--network-policy-established=cut"]);
    let mut open = open_all(&cluster.lab);
    let forbidden = open.iter().filter(|one| !one.allowed).count();
    NODES.iter().for_each(|node| cluster.kill(node));
    cluster.lab.apply_text(ONLY_A).unwrap();
    cluster.restart(&["--network-policy", "--network-policy-established=cut"], |_, _| ());
    wait_until("connections are terminated", || terminated(&cluster) >= forbidden as f64);
    let wrong = wrong(&mut open, |one| one.allowed);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Opens a connection between two pods, and returns the sockets of client and server.
fn connected(cluster: &TestCluster, pods: [&str; 2], family: Family) -> (TcpStream, TcpStream) {
    let [client, server] = pods.map(|name| end(cluster.lab.plan(), name));
    let at = SocketAddr::new(server.address_of(family).unwrap(), 8123);
    let listener =
        cluster.lab.netns(server.vantage().unwrap()).unwrap().run(|| TcpListener::bind(at)).unwrap();
    let listener = listener.unwrap();
    let netns = cluster.lab.netns(client.vantage().unwrap()).unwrap();
    let client = netns.run(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap().unwrap();
    (client, listener.accept().unwrap().0)
}

/// Packets of the server must not make conntrack pick up the connection again.
#[test]
fn terminated_connection_is_not_picked_up_from_the_server() {
    let mut cluster = TestCluster::enforcing(&["--network-policy-established=cut"]);
    for family in Family::BOTH {
        let (mut client, mut server) = connected(&cluster, ["y/b", "x/b"], family);
        let mut received = [0; 5];
        server.write_all(b"early").unwrap();
        client.read_exact(&mut received).unwrap();
        let before = terminated(&cluster);
        cluster.apply(ONLY_A);
        wait_until("the connection is terminated", || terminated(&cluster) > before);
        server.write_all(b"later").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let error = client.read(&mut received).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        cluster.delete_policy("only-a");
        // The server retransmits for a while.
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"later", "the connection continues once it is allowed again");
    }
}

/// x/b may reply, and may not open connections.
const ANSWERS: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: answers, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress]}}";

/// Returns true if conntrack has picked up a connection with a packet of this server.
fn is_picked_up(netns: &NetNs, server: IpAddr) -> bool {
    let look = || {
        let mut found = false;
        let mut conntrack = Conntrack::open().unwrap();
        let tcp = [portcullis_cluster::Protocol::Tcp.number()];
        let each = |flow: &Flow| {
            found |= flow.is_picked_up && flow.original.source == server;
            Ok(())
        };
        conntrack.dump(&portcullis_netlink::Family::ALL, &tcp, each).unwrap();
        found
    };
    netns.run(look).unwrap()
}

/// A connection that is older than connection tracking, and whose first tracked packet comes from the server.
#[test]
fn connection_older_than_connection_tracking_continues_when_enforcement_starts() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(ANSWERS);
    let forget =
        |cluster: &TestCluster| _ = tools::output(cluster.netns("node-2").command("conntrack").arg("-F"));
    for family in Family::BOTH {
        let (mut client, mut server) = connected(&cluster, ["y/a", "x/b"], family);
        let mut received = [0; 5];

        // As on a node without policies before.
        cluster.stop("node-2");
        cluster.nft("node-2", &["delete", "table", "inet", "portcullis-policy"]);
        cluster.lab.start_daemon("node-2").unwrap();
        wait_until_settled(&mut cluster.lab);
        forget(&cluster);
        server.write_all(b"first").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"first", "{}", family.name());
        assert!(
            is_picked_up(&cluster.netns("node-2"), server.local_addr().unwrap().ip()),
            "conntrack reports that it picked up the connection"
        );
        cluster.check(
            "new connections",
            "x/b → y/a 80/tcp deny\n x/b → x/c 80/udp deny\n y/a → x/b 80/tcp allow",
        );

        // If policies were enforced before, connections were tracked.
        cluster.kill("node-2");
        cluster.lab.start_daemon("node-2").unwrap();
        wait_until_settled(&mut cluster.lab);
        forget(&cluster);
        server.write_all(b"later").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let error = client.read(&mut received).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        client.write_all(b"still there").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut received).unwrap();
        assert_eq!(
            &received, b"later",
            "a packet of the client is evaluated as one of a connection of the client"
        );
    }
}
