//! What becomes of connections that a new policy forbids: they live on, or are cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use portcullis_lab::{Conversation, Family, Lab, NetNs, Protocol};
use portcullis_netlink::conntrack::{Conntrack, Flow};

use crate::daemons::{NODES, wait_until};
use crate::flows::end;
use crate::rest::wait_for_rest;
use crate::tools;
use crate::town::{PATIENCE, Town};

/// Only x/a may speak to x/b; to that by TCP and UDP alike.
const ONLY_A: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: only-a, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}}";

/// From where to where, and whether the policy allows it.
const WAYS: [(&str, &str, bool); 7] = [
    ("x/a", "x/b", true),
    ("x/a", "service/x/s-x-b", true),
    ("node/node-2", "x/b", true),
    ("y/b", "x/c", true),
    ("y/b", "x/b", false),
    ("y/c", "x/b", false),
    ("y/a", "service/x/s-x-b", false),
];

/// A conversation, and of what.
struct Open {
    what: String,
    allowed: bool,
    conversation: Conversation,
}

fn open_all(lab: &Lab) -> Vec<Open> {
    let mut all = Vec::new();
    for (from, to, allowed) in WAYS {
        for family in Family::BOTH {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let what = format!("{from} → {to} {protocol} {}", family.name());
                let [from, to] = [from, to].map(|name| end(lab.plan(), name));
                let prober = lab.from(from.vantage().unwrap().clone()).unwrap().timeout(PATIENCE);
                let to = SocketAddr::new(to.address_of(family).unwrap(), 80);
                let mut conversation = prober.open(protocol, to).unwrap();
                assert!(conversation.ask("hello").by().is_some(), "{what}");
                all.push(Open { what, allowed, conversation });
            }
        }
    }
    all
}

/// The conversations that are at an end though they must not be, or the other way round.
fn wrong(open: &mut [Open], lives: impl Fn(&Open) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for one in open {
        let lives = lives(one);
        let patience = if lives { PATIENCE } else { Duration::from_millis(400) };
        one.conversation.set_timeout(patience).unwrap();
        let outcome = one.conversation.ask("still there");
        if outcome.by().is_some() != lives {
            wrong.push(format!("{}: {outcome}", one.what));
        }
    }
    wrong
}

fn cut(town: &Town) -> f64 {
    let of = |node| town.metric(node, "portcullis_network_policy_connections_cut_total", &[]);
    NODES.into_iter().map(of).sum()
}

#[test]
fn open_connections_live_on() {
    let mut town = Town::enforcing(&["--network-policy-established=keep"]);
    let mut open = open_all(&town.lab);
    town.apply(ONLY_A);
    town.check("new ones", "y/b → x/b 80/tcp deny\n y/c → x/b 80/udp deny\n x/a → x/b 80/tcp allow");
    let wrong = wrong(&mut open, |_| true);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(cut(&town), 0.0);
}

#[test]
fn open_connections_are_cut() {
    let mut town = Town::enforcing(&["--network-policy-established=cut"]);
    let mut open = open_all(&town.lab);
    let forbidden = open.iter().filter(|one| !one.allowed).count();
    town.apply(ONLY_A);
    let took = wait_until("connections are cut", || cut(&town) >= forbidden as f64);
    println!("{forbidden} connections were cut within {took:?} of the table's rest");
    assert_eq!(cut(&town), forbidden as f64, "those that are forbidden, at the pod's node alone");
    let tracked = tools::output(town.netns("node-2").command("conntrack").arg("-L"));
    let x_b = end(town.lab.plan(), "x/b").address_of(Family::V4).unwrap();
    for name in ["y/a", "y/b", "y/c"] {
        let answer = format!("src={x_b} dst={} ", end(town.lab.plan(), name).address_of(Family::V4).unwrap());
        assert!(!tracked.contains(&answer), "{name} is tracked still:\n{tracked}");
    }
    let wrong = wrong(&mut open, |one| one.allowed);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What allows more ends nothing, and what forbids nothing that is open neither.
    town.apply(&ONLY_A.replace("{pod: a}", "{}"));
    let other = ONLY_A.replace("pod: b", "pod: c").replace("only-a", "other");
    town.apply(&other.replace("podSelector: {matchLabels: {pod: a}}", "namespaceSelector: {}"));
    assert!(
        open.iter_mut().filter(|one| one.allowed).all(|one| one.conversation.ask("and now").by().is_some())
    );
}

/// What changed while nobody followed.
#[test]
fn a_policy_that_came_without_a_daemon_cuts_once_there_is_one() {
    let mut town = Town::enforcing(&["--network-policy-established=cut"]);
    let mut open = open_all(&town.lab);
    let forbidden = open.iter().filter(|one| !one.allowed).count();
    NODES.iter().for_each(|node| town.kill(node));
    town.lab.apply_text(ONLY_A).unwrap();
    town.restart(&["--network-policy", "--network-policy-established=cut"], |_, _| ());
    wait_until("connections are cut", || cut(&town) >= forbidden as f64);
    let wrong = wrong(&mut open, |one| one.allowed);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A connection from one pod to another: its sockets at the client and at the server.
fn connected(town: &Town, pods: [&str; 2], family: Family) -> (TcpStream, TcpStream) {
    let [client, server] = pods.map(|name| end(town.lab.plan(), name));
    let at = SocketAddr::new(server.address_of(family).unwrap(), 8123);
    let listener = town.lab.netns(server.vantage().unwrap()).unwrap().run(|| TcpListener::bind(at)).unwrap();
    let listener = listener.unwrap();
    let netns = town.lab.netns(client.vantage().unwrap()).unwrap();
    let client = netns.run(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap().unwrap();
    (client, listener.accept().unwrap().0)
}

/// A server that speaks without being asked does not take the connection up again by that.
#[test]
fn a_cut_connection_is_not_taken_up_again_from_its_other_end() {
    let mut town = Town::enforcing(&["--network-policy-established=cut"]);
    for family in Family::BOTH {
        let (mut client, mut server) = connected(&town, ["y/b", "x/b"], family);
        let mut heard = [0; 5];
        server.write_all(b"early").unwrap();
        client.read_exact(&mut heard).unwrap();
        let before = cut(&town);
        town.apply(ONLY_A);
        wait_until("the connection is cut", || cut(&town) > before);
        server.write_all(b"later").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let error = client.read(&mut heard).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        town.delete_policy("only-a");
        // The server goes on trying for a while.
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"later", "what is allowed again goes on");
    }
}

/// x/b answers, and opens no connection itself.
const ANSWERS: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: answers, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress]}}";

/// Whether a connection is tracked that a server has opened by its second half.
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

/// A connection of which connection tracking has not seen the begin, and of which the first packet is the server's.
#[test]
fn a_connection_older_than_connection_tracking_goes_on_where_enforcing_begins() {
    let mut town = Town::enforcing(&[]);
    town.apply(ANSWERS);
    let forget = |town: &Town| _ = tools::output(town.netns("node-2").command("conntrack").arg("-F"));
    for family in Family::BOTH {
        let (mut client, mut server) = connected(&town, ["y/a", "x/b"], family);
        let mut heard = [0; 5];

        // As on a node that never had a policy.
        town.stop("node-2");
        town.nft("node-2", &["delete", "table", "inet", "portcullis-policy"]);
        town.lab.start_daemon("node-2").unwrap();
        wait_for_rest(&mut town.lab);
        forget(&town);
        server.write_all(b"first").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"first", "{}", family.name());
        assert!(
            is_picked_up(&town.netns("node-2"), server.local_addr().unwrap().ip()),
            "the kernel says that it has not seen the begin"
        );
        town.check(
            "new connections",
            "x/b → y/a 80/tcp deny\n x/b → x/c 80/udp deny\n y/a → x/b 80/tcp allow",
        );

        // Where policies were enforced before, connections were tracked.
        town.kill("node-2");
        town.lab.start_daemon("node-2").unwrap();
        wait_for_rest(&mut town.lab);
        forget(&town);
        server.write_all(b"later").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let error = client.read(&mut heard).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        client.write_all(b"still there").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"later", "the client's packet is judged as the client's");
    }
}
