//! Node ports on localhost in nftables mode, which kube-proxy's does not support: reachable at 127.0.0.1 and ::1 by
//! processes of the node only.

use std::time::Duration;

use portcullis_lab::Vantage;

use crate::expectation::{lost, only, refused, spread};
use crate::loopback_guard::route_loopback_to_node_1;
use crate::mode::Mode;
use crate::row::{Target, at, client, node, node_port, node_port_at, outside, row};
use crate::testbed::{PATIENCE, Setup, Testbed};
use crate::tools;

const WEB: [&str; 3] = ["a", "b", "c"];

fn localhost(service: &'static str, port: u16) -> Target {
    node_port_at(&["127.0.0.1", "::1"], service, port)
}

fn up(addresses: &str) -> Testbed {
    let mut testbed = Setup::new("web.yaml").mode(Mode::Nftables).args(&[addresses]).up();
    // With bridge-nf-call-ip6tables, replies are translated on the bridge before routing, and the kernel drops packets
    // to ::1 from a link.
    for node in ["node-1", "node-2"] {
        let netns = testbed.lab.netns(&Vantage::node(node)).unwrap();
        let script =
            "setting=/proc/sys/net/bridge/bridge-nf-call-ip6tables; test ! -e $setting || echo 0 >$setting";
        tools::output(netns.command("sh").args(["-ec", script]));
    }
    testbed.apply(ELSEWHERE);
    testbed
}

/// A Service whose only endpoint is on node-2, with external traffic policy Local.
const ELSEWHERE: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: far, labels: {one: far}}, spec: {nodeName: node-2}}
---
{apiVersion: v1, kind: Service, metadata: {name: far}, spec: {type: NodePort, ipFamilyPolicy: RequireDualStack,
  externalTrafficPolicy: Local, selector: {one: far}, ports: [{port: 80, targetPort: 8080, nodePort: 30088}]}}
";

#[test]
#[rustfmt::skip]
fn node_ports_on_localhost_by_nftables() {
    let testbed = up("--nodeport-addresses=primary,localhost");
    let bridge = || node_port_at(&["10.244.1.1", "fd00:10:244:1::1"], "web", 80);
    testbed.check(&[
        row("localhost, TCP", node(1), localhost("web", 80), spread(&WEB)),
        row("localhost, UDP", node(1), localhost("web", 53).udp(), spread(&WEB)),
        row("localhost of the other node, UDP", node(2), localhost("web", 53).udp(), spread(&WEB)),
        row("another address of localhost", node(2), node_port_at(&["127.1.2.3"], "web", 80), spread(&WEB)),
        row("an endpoint on this node", node(1), localhost("alone", 80), only("a")),
        row("an endpoint on the other node", node(2), localhost("alone", 80), only("a")),
        row("an endpoint on this node, UDP", node(1), localhost("alone", 53).udp(), only("a")),
        row("an endpoint on the other node, UDP", node(2), localhost("alone", 53).udp(), only("a")),
        row("policy Local: this node's own traffic uses all endpoints", node(1), localhost("local", 80), spread(&WEB)),
        row("policy Local without an endpoint here", node(1), localhost("far", 80), only("far")),
        row("policy Local on the endpoint's node", node(2), localhost("far", 80), only("far")),
        row("the node's address", outside(), node_port(1, "web", 80), spread(&WEB).masqueraded_by(1)),
        row("the node's address from itself", node(1), node_port(1, "web", 80), spread(&WEB)),
        row("another address of the node", client(1), bridge(), refused()),
    ]);
    outside_host_does_not_reach_localhost(&testbed);
    new_links_accept_replies_to_localhost(&testbed);
}

#[test]
#[rustfmt::skip]
fn node_ports_on_localhost_alone_by_nftables() {
    let testbed = up("--nodeport-addresses=localhost");
    testbed.check(&[
        row("localhost", node(1), localhost("web", 80), spread(&WEB)),
        row("localhost, UDP", node(2), localhost("web", 53).udp(), spread(&WEB)),
        row("the node's address", outside(), node_port(1, "web", 80), refused()),
        row("the node's address from itself", node(1), node_port(1, "web", 80), refused()),
        row("another address of the node", client(1), node_port_at(&["10.244.1.1", "fd00:10:244:1::1"], "web", 80), refused()),
    ]);
    outside_host_does_not_reach_localhost(&testbed);
}

/// Checks that the outside host, with a route to 127.0.0.0/8 through node-1, reaches neither daemons on 127.0.0.1 nor
/// node ports.
fn outside_host_does_not_reach_localhost(testbed: &Testbed) {
    route_loopback_to_node_1(testbed);
    #[rustfmt::skip]
    testbed.check(&[
        row("what listens on 127.0.0.1, from outside", outside(), at(&["127.0.0.1:10249"]), lost()),
        row("a node port on 127.0.0.1, from outside", outside(), localhost("web", 80).v4(), lost()),
        row("a node port on 127.0.0.1, UDP, from outside", outside(), localhost("web", 53).udp().v4(), lost()),
    ]);
    // Without the guard rule the connection is established, so that the rule is what drops it.
    let probe = || {
        let prober = testbed.from(outside()).timeout(Duration::from_millis(500));
        prober.open(portcullis_lab::Protocol::Tcp, "127.0.0.1:10249".parse().unwrap())
    };
    testbed.signal("node-1", libc::SIGSTOP);
    testbed.nft("node-1", &["flush", "chain", "ip", "portcullis", "filter-input"]);
    let unguarded = probe();
    testbed.signal("node-1", libc::SIGCONT);
    drop(unguarded.unwrap());
    testbed.wait_until("the rule is restored", PATIENCE, |_| probe().is_err());
}

/// Replies to ::1 arrive on the pod's link, which may be newer than the daemon.
fn new_links_accept_replies_to_localhost(testbed: &Testbed) {
    let netns = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
    for line in ["link add young0 type veth peer name young1", "link set young1 up", "link set young0 up"] {
        tools::output(netns.command("ip").args(line.split(' ')));
    }
    tools::output(netns.command("ip").args("address add 2001:db8:77::1/64 dev young0 nodad".split(' ')));
    testbed.wait_until("the new link has the route", PATIENCE, |_| {
        let routes =
            tools::output(netns.command("ip").args("-6 route show table local dev young0".split(' ')));
        routes.lines().any(|line| line.starts_with("local ::1 "))
    });
    let local = tools::output(netns.command("ip").args("-6 route get ::1".split(' ')));
    assert!(local.contains("dev lo"), "what is sent to ::1 stays here: {local}");
}
