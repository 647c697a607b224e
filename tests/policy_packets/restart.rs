//! Restarts of daemons: policies stay in the kernel until a daemon without `--network-policy` starts.

use std::time::Duration;

use portcullis_lab::{Family, Protocol, TrafficOptions};

use crate::daemons::NODES;
use crate::flows::end;
use crate::test_cluster::TestCluster;
use crate::tools;

const OWN_NAMESPACE: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}";

const HELD: &str = "
    y/b → x/b 80/tcp deny
    y/c → x/b 80/udp deny
    x/a → x/b 80/tcp allow
    x/a → x/c 81/udp allow";

/// Element of the set `picked-up-protocols`.
const PICKED_UP: &str = "elements = { tcp timeout 2m }";

const OPEN: &str = "
    y/b → x/b 80/tcp allow
    y/c → x/b 80/udp allow
    x/a → x/b 80/tcp allow";

#[test]
fn policies_are_enforced_without_daemons_and_across_restarts() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(OWN_NAMESPACE);
    cluster.check("at first", HELD);
    let before = NODES.map(|node| handles(&cluster, node));
    assert!(NODES.iter().all(|node| picks_up(&cluster, node)));
    // Probes that must always be denied, a few hundred a second.
    let [from, to] = ["y/c", "x/b"].map(|name| end(cluster.lab.plan(), name));
    let options = TrafficOptions {
        interval: Duration::from_millis(3),
        timeout: Duration::from_millis(200),
        max_in_flight: 128,
    };
    let traffic = Family::BOTH.map(|family| {
        let to = std::net::SocketAddr::new(to.address_of(family).unwrap(), 80);
        let prober = cluster.lab.prober(from.vantage().unwrap().clone()).unwrap();
        prober.source(from.address_of(family).unwrap()).connections(Protocol::Udp, to, options).unwrap()
    });

    NODES.iter().for_each(|node| cluster.kill(node));
    cluster.check("without daemons", HELD);
    cluster.restart(&["--network-policy"], |_, _| ());
    cluster.check("with new daemons", HELD);
    let after = NODES.map(|node| handles(&cluster, node));
    assert_eq!(before, after, "a restart without a change writes nothing");
    assert!(NODES.iter().all(|node| !picks_up(&cluster, node)), "only the first daemon picks up");
    for node in NODES {
        assert_eq!(cluster.metric(node, "portcullis_network_policy_drift_repairs_total", &[]), 0.0);
    }

    // Changes while no daemon ran are applied in one transaction.
    NODES.iter().for_each(|node| cluster.stop(node));
    cluster.lab.apply_text(&OWN_NAMESPACE.replace("name: own", "name: twin")).unwrap();
    cluster.lab.delete(&portcullis_lab::ObjectRef::new("NetworkPolicy", "x", "own")).unwrap();
    cluster.restart(&["--network-policy"], |_, _| ());
    cluster.check("with another policy", HELD);
    assert!(
        NODES
            .iter()
            .all(|node| cluster.table(node).contains("x/twin") && !cluster.table(node).contains("x/own"))
    );
    for traffic in traffic {
        let log = traffic.stop();
        println!("{log}");
        assert!(log.probes.len() > 100 && log.answered().is_empty(), "{log}");
    }
}

#[test]
fn daemon_without_network_policy_removes_the_table() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(OWN_NAMESPACE);
    cluster.check("at first", HELD);
    cluster.restart(&[], TestCluster::kill);
    assert!(NODES.iter().all(|node| cluster.table(node).is_empty()));
    assert!(cluster.log("node-1").contains("NetworkPolicies are no longer enforced"));
    cluster.check("no longer enforced", OPEN);

    cluster.restart(&["--network-policy"], TestCluster::stop);
    cluster.check("enforced again", HELD);
    for node in NODES {
        cluster.stop(node);
        let mut cleanup = cluster.netns(node).command(env!("CARGO_BIN_EXE_portcullis"));
        let output = tools::output(cleanup.arg("cleanup"));
        assert!(output.contains("removed table inet portcullis-policy"), "{output}");
        assert!(cluster.table(node).is_empty());
    }
    cluster.check("cleaned up", OPEN);
}

/// Returns true if a node picks up connections that may be older than connection tracking.
fn picks_up(cluster: &TestCluster, node: &str) -> bool {
    cluster
        .nft(node, &["list", "set", "inet", "portcullis-policy", "picked-up-protocols"])
        .contains("elements")
}

/// Returns a node's table with its handles, which change when an object is rewritten, without the element with which the
/// first daemon of a node picks up older connections.
fn handles(cluster: &TestCluster, node: &str) -> String {
    let table = cluster.nft(node, &["--stateless", "--handle", "list", "table", "inet", "portcullis-policy"]);
    table.lines().filter(|line| !line.contains(PICKED_UP)).collect::<Vec<_>>().join("\n")
}
