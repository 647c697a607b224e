//! Daemons that end and begin: what they enforced stays until one begins that enforces nothing.

use std::time::Duration;

use portcullis_lab::{Family, Protocol, TrafficOptions};

use crate::daemons::NODES;
use crate::flows::end;
use crate::tools;
use crate::town::Town;

const OWN_NAMESPACE: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}";

const HELD: &str = "
    y/b → x/b 80/tcp deny
    y/c → x/b 80/udp deny
    x/a → x/b 80/tcp allow
    x/a → x/c 81/udp allow";

/// The element of the set `picked-up-protocols`.
const PICKED_UP: &str = "elements = { tcp timeout 2m }";

const OPEN: &str = "
    y/b → x/b 80/tcp allow
    y/c → x/b 80/udp allow
    x/a → x/b 80/tcp allow";

#[test]
fn policies_hold_without_daemons_and_across_their_starts() {
    let mut town = Town::enforcing(&[]);
    town.apply(OWN_NAMESPACE);
    town.check("at first", HELD);
    let before = NODES.map(|node| handles(&town, node));
    assert!(NODES.iter().all(|node| picks_up(&town, node)));
    // Denied all the while, at a few hundred probes a second.
    let [from, to] = ["y/c", "x/b"].map(|name| end(town.lab.plan(), name));
    let options = TrafficOptions {
        pace: Duration::from_millis(3),
        patience: Duration::from_millis(200),
        under_way: 128,
    };
    let traffic = Family::BOTH.map(|family| {
        let to = std::net::SocketAddr::new(to.address_of(family).unwrap(), 80);
        let prober = town.lab.from(from.vantage().unwrap().clone()).unwrap();
        prober.source(from.address_of(family).unwrap()).connections(Protocol::Udp, to, options).unwrap()
    });

    NODES.iter().for_each(|node| town.kill(node));
    town.check("without daemons", HELD);
    town.restart(&["--network-policy"], |_, _| ());
    town.check("with new ones", HELD);
    let after = NODES.map(|node| handles(&town, node));
    assert_eq!(before, after, "a start without a change writes nothing");
    assert!(NODES.iter().all(|node| !picks_up(&town, node)), "only the first daemon picks up");
    for node in NODES {
        assert_eq!(town.metric(node, "portcullis_network_policy_drift_repairs_total", &[]), 0.0);
    }

    // What changed meanwhile is made good, in one step.
    NODES.iter().for_each(|node| town.stop(node));
    town.lab.apply_text(&OWN_NAMESPACE.replace("name: own", "name: twin")).unwrap();
    town.lab.delete(&portcullis_lab::ObjectRef::new("NetworkPolicy", "x", "own")).unwrap();
    town.restart(&["--network-policy"], |_, _| ());
    town.check("with others", HELD);
    assert!(
        NODES.iter().all(|node| town.table(node).contains("x/twin") && !town.table(node).contains("x/own"))
    );
    for traffic in traffic {
        let log = traffic.stop();
        println!("{log}");
        assert!(log.sent.len() > 100 && log.answered().is_empty(), "{log}");
    }
}

#[test]
fn a_daemon_that_enforces_nothing_takes_the_table_away() {
    let mut town = Town::enforcing(&[]);
    town.apply(OWN_NAMESPACE);
    town.check("at first", HELD);
    town.restart(&[], Town::kill);
    assert!(NODES.iter().all(|node| town.table(node).is_empty()));
    assert!(town.log("node-1").contains("NetworkPolicies are not enforced any more"));
    town.check("enforced no more", OPEN);

    town.restart(&["--network-policy"], Town::stop);
    town.check("enforced again", HELD);
    for node in NODES {
        town.stop(node);
        let mut cleanup = town.netns(node).command(env!("CARGO_BIN_EXE_portcullis"));
        let said = tools::output(cleanup.arg("cleanup"));
        assert!(said.contains("removed table inet portcullis-policy"), "{said}");
        assert!(town.table(node).is_empty());
    }
    town.check("cleaned up", OPEN);
}

/// The table with its handles: whatever is written anew gets others.
/// Whether a node picks up connections that may be older than connection tracking.
fn picks_up(town: &Town, node: &str) -> bool {
    town.nft(node, &["list", "set", "inet", "portcullis-policy", "picked-up-protocols"]).contains("elements")
}

/// A node's table with its handles, without the element by which the first daemon of a node picks up older connections.
fn handles(town: &Town, node: &str) -> String {
    let table = town.nft(node, &["--stateless", "--handle", "list", "table", "inet", "portcullis-policy"]);
    table.lines().filter(|line| !line.contains(PICKED_UP)).collect::<Vec<_>>().join("\n")
}
