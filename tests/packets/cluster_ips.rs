//! Cluster IPs: responders and source addresses.

use std::net::SocketAddr;

use portcullis_lab::{ProbeOutcome, Protocol};

use crate::expectation::{lost, only, refused, rejected, spread};
use crate::mode::Mode;
use crate::row::{Row, at, client, cluster_ip, node, outside, pod, row};
use crate::testbed::{PATIENCE, Setup, Testbed};

const WEB: [&str; 3] = ["a", "b", "c"];

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    vec![
        // Ports, protocols, families
        row("TCP from a pod of node-1 goes to all ready endpoints", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
        row("TCP from a pod of node-2 goes to all ready endpoints", client(2), cluster_ip("web", 80), spread(&WEB).kept()),
        row("a node's own TCP", node(1), cluster_ip("web", 80), spread(&WEB)),
        row("UDP from a pod", client(1), cluster_ip("names", 53).udp(), spread(&WEB).kept()),
        row("UDP from a node", node(2), cluster_ip("names", 53).udp(), spread(&WEB)),
        row("TCP at the port that is also UDP's", client(2), cluster_ip("names", 53), spread(&WEB).kept()),
        row("one of several ports", client(1), cluster_ip("two-ports", 80).v4(), spread(&["a", "b"]).kept()),
        row("the other of several ports", client(1), cluster_ip("two-ports", 90).v4(), only("c").kept()),
        row("a Service of IPv6 alone", client(1), cluster_ip("six", 80).v6(), spread(&WEB).kept()),
        // Slices
        row("several slices, one endpoint in two of them", client(1), cluster_ip("slices", 80), spread(&WEB).kept()),
        row("slices with different ports", client(2), cluster_ip("ports-differ", 80).v4(), spread(&["a", "b"]).kept()),
        row("a named port that is another number in each pod", client(1), cluster_ip("renamed", 80), spread(&["i", "j"])),
        // Readiness
        row("publishNotReadyAddresses", client(1), cluster_ip("early", 80), spread(&["a", "b", "c", "d"]).kept()),
        row("no endpoint: TCP is refused", client(1), cluster_ip("none", 80), refused()),
        row("no endpoint: UDP is refused", client(1), cluster_ip("none", 53).udp(), refused()),
        row("no endpoint: a node's own TCP is refused", node(1), cluster_ip("none", 80), refused()),
        row("no endpoint: a node's own UDP is refused", node(1), cluster_ip("none", 53).udp(), refused()).in_ipvs(rejected()),
        row("no ready endpoint: refused", client(2), cluster_ip("unready", 80), refused()),
        row("all terminating: the one that still serves", client(2), cluster_ip("draining", 80), only("e").kept()),
        row("terminating ones do not count while one is ready", client(2), cluster_ip("half-drained", 80), only("g").kept()),
        // Internal traffic policy
        row("internal policy Local, on the endpoint's node", client(1), cluster_ip("here", 80), only("a").kept()),
        row("internal policy Local, from the endpoint's node itself", node(1), cluster_ip("here", 80), only("a")),
        row("internal policy Local, on a node without an endpoint", client(2), cluster_ip("here", 80), lost()).in_ipvs(refused()),
        row("internal policy Local, from a node without an endpoint", node(2), cluster_ip("here", 80), lost()).in_ipvs(refused()),
        row("internal policy Local, no endpoint anywhere", client(1), cluster_ip("here-none", 80), refused()),
        // Hairpin
        row("a pod that connects to itself is masqueraded: TCP", pod("a"), cluster_ip("alone", 80), only("a").masqueraded_by(1)),
        row("a pod that connects to itself is masqueraded: UDP", pod("a"), cluster_ip("alone", 53).udp(), only("a").masqueraded_by(1)),
        row("another pod of the node keeps its address", client(1), cluster_ip("alone", 80), only("a").kept()),
        // What is not this proxy's
        row("service.kubernetes.io/service-proxy-name", client(1), at(&["10.96.7.7:80"]), lost()),
        row("service.kubernetes.io/headless", client(1), at(&["10.96.7.8:80"]), lost()),
        // From outside, by a route to node-1
        row("outside traffic to a cluster IP is masqueraded", outside(), cluster_ip("web", 80), spread(&WEB).masqueraded_by(1)),
        row("outside traffic to a cluster IP over UDP", outside(), cluster_ip("names", 53).udp(), spread(&WEB).masqueraded_by(1)),
        row("outside traffic without an endpoint", outside(), cluster_ip("none", 80), refused()),
    ]
}

fn up(mode: Mode) -> Testbed {
    let mut testbed = Setup::new("cluster-ips.yaml").mode(mode).up();
    for service in ["web", "names", "none"] {
        for ip in testbed.lab.plan().service(service).unwrap().spec.clone().unwrap().cluster_ips.unwrap() {
            testbed.lab.route_from_outside(ip.parse().unwrap(), "node-1").unwrap();
        }
    }
    testbed
}

/// Unused ports of cluster IPs are rejected, and unused cluster IPs dropped. iptables mode routes such packets out.
fn unused_ports_and_cluster_ips(testbed: &Testbed) {
    let web = cluster_ip("web", 80).addresses(testbed.lab.plan(), testbed.families);
    let other: Vec<String> = web.iter().map(|web| SocketAddr::new(web.ip(), 81).to_string()).collect();
    let ports = || at(&other.iter().map(String::as_str).collect::<Vec<_>>());
    let stray = || at(&["10.96.200.200:80", "[fd00:10:96::dead]:80"]);
    testbed.write_manifest("cidr.yaml", CIDR);
    testbed.wait_until("the ServiceCIDR is programmed", PATIENCE, |testbed| {
        testbed.nft("node-1", &["list", "set", "ip6", "portcullis", "service-cidrs"]).contains("fd00:10:96::")
    });
    #[rustfmt::skip]
    testbed.check(&[
        row("a port that a cluster IP does not have", client(1), ports(), refused()),
        row("a port that a cluster IP does not have, UDP", client(2), ports().udp(), refused()),
        row("a port that a cluster IP does not have, from a node", node(2), ports(), refused()),
        row("a cluster IP that no Service has", client(2), stray(), lost()),
        row("a cluster IP that no Service has, from a node", node(1), stray().v4(), lost()),
        row("a cluster IP of the block", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
    ]);
}

const CIDR: &str = "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: kubernetes}, \
                    spec: {cidrs: [10.96.0.0/16, 'fd00:10:96::/112']}}\n";

pub(crate) fn cluster_ips(mode: Mode) {
    let testbed = up(mode);
    testbed.check(&rows());
    only_the_pod_itself_is_masqueraded(&testbed);
    match mode {
        Mode::Iptables(_) => nothing_is_written_for_services_without_an_address(&testbed),
        Mode::Nftables => unused_ports_and_cluster_ips(&testbed),
        Mode::Ipvs => {}
    }
}

/// A pod that is an endpoint of the Service is masqueraded only if it connects to itself.
fn only_the_pod_itself_is_masqueraded(testbed: &Testbed) {
    let own = testbed.lab.plan().pod("a").unwrap().addresses.clone();
    let prober = testbed.from(pod("a"));
    let mut hairpins = 0;
    for to in cluster_ip("web", 80).addresses(testbed.lab.plan(), testbed.families) {
        for _ in 0..60 {
            let outcome = prober.probe(Protocol::Tcp, to);
            let ProbeOutcome::Answered { responder, source } = &outcome else { panic!("{to}: {outcome}") };
            assert_eq!(own.contains(&source.ip()), responder != "default/a", "{outcome}");
            hairpins += usize::from(responder == "default/a");
        }
    }
    // None in 120 connections has a probability of 10^-21.
    assert!(hairpins > 0);
}

fn nothing_is_written_for_services_without_an_address(testbed: &Testbed) {
    for tool in ["iptables", "ip6tables"] {
        let rules = testbed.rules("node-1", tool, "nat") + &testbed.rules("node-1", tool, "filter");
        assert!(rules.contains("default/web:http"), "{rules}");
        for service in ["headless", "elsewhere", "foreign", "marked-headless"] {
            assert!(!rules.contains(&format!("default/{service}")), "{service} in\n{rules}");
        }
    }
}
