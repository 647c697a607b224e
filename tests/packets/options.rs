//! Effects of the daemons' options on packets, one small cluster per row.

use std::time::Duration;

use portcullis_lab::Vantage;

use crate::expectation::{lost, only, refused, spread};
use crate::mode::Mode;
use crate::row::{
    Row, at, client, cluster_ip, load_balancer, node, node_port, node_port_at, outside, pod, row,
};
use crate::testbed::{Setup, Testbed};
use crate::tools;

const WEB: [&str; 3] = ["a", "b", "c"];

/// Whether `--cluster-cidr` is set.
#[derive(PartialEq)]
enum Cidr {
    Set,
    Unset,
}
use Cidr::{Set, Unset};

/// Builds a cluster for each line, with its options, and checks its rows.
fn check_each(mode: Mode, lines: Vec<(Cidr, &[&str], Vec<Row>)>) {
    for (cidr, args, rows) in lines {
        println!("--- {args:?}");
        let setup =
            if cidr == Set { Setup::new("web.yaml") } else { Setup::without_cluster_cidr("web.yaml") };
        up(setup.mode(mode).args(args)).check(&rows);
    }
}

/// Returns a test bed in which the outside host routes cluster IPs through node-1.
fn up(setup: Setup) -> Testbed {
    let mut testbed = setup.up();
    for service in ["web", "alone"] {
        for ip in testbed.lab.plan().service(service).unwrap().spec.clone().unwrap().cluster_ips.unwrap() {
            testbed.lab.route_from_outside(ip.parse().unwrap(), "node-1").unwrap();
        }
    }
    testbed
}

#[rustfmt::skip]
pub(crate) fn masquerading(mode: Mode) {
    let web = || cluster_ip("web", 80);
    check_each(mode, vec![
        (Set, &["--masquerade-all"], vec![
            row("masquerade-all applies to pods", client(1), web(), spread(&WEB).masqueraded_by(1)),
            row("masquerade-all over UDP", client(2), cluster_ip("web", 53).udp(), spread(&WEB).masqueraded_by(2)),
        ]),
        (Set, &[], vec![
            row("a pod that connects to itself by a load balancer's address", pod("a"), load_balancer("alone", 80), only("a").masqueraded_by(1)),
            row("a pod that connects to itself by a node port", pod("a"), node_port(1, "alone", 80), only("a").masqueraded_by(1)),
        ]),
    ]);
    if mode == Mode::Nftables {
        // In nftables mode, the bit can be set only in the configuration file.
        return;
    }
    let testbed = Setup::new("web.yaml").mode(mode).args(&["--iptables-masquerade-bit=20"]).up();
    testbed.check(&[
        row("another masquerade bit: outside", outside(), node_port(1, "web", 80), spread(&WEB).masqueraded_by(1)),
        row("another masquerade bit: pods", client(1), web(), spread(&WEB).kept()),
    ]);
    for tool in ["iptables", "ip6tables"] {
        let rules = testbed.rules("node-1", tool, "nat") + &testbed.rules("node-1", tool, "filter");
        assert!(rules.contains("0x100000/0x100000") && !rules.contains("0x4000/0x4000"), "{rules}");
    }
}

#[rustfmt::skip]
pub(crate) fn local_traffic_detection(mode: Mode) {
    let web = || cluster_ip("web", 80);
    let alone = || cluster_ip("alone", 80);
    let pods_are_local = || vec![
        row("a pod's traffic is local", client(1), web(), spread(&WEB).kept()),
        row("a pod's traffic is local on the other node", client(2), web(), spread(&WEB).kept()),
        row("outside traffic is not", outside(), alone(), only("a").masqueraded_by(1)),
    ];
    let pods_are_foreign = || vec![
        row("a pod's traffic is not local", client(1), web(), spread(&WEB).masqueraded_by(1)),
        row("outside traffic is not local", outside(), alone(), only("a").masqueraded_by(1)),
    ];
    let mut of_node = pods_are_local();
    of_node.push(row("another node's pod is not local", client(2), node_port(1, "local", 80), only("a").kept()));
    check_each(mode, vec![
        (Unset, &[], vec![
            row("no detection of local traffic: pods keep their address", client(1), web(), spread(&WEB).kept()),
            row("no detection of local traffic: outside keeps its address", outside(), alone(), only("a").kept()),
        ]),
        (Unset, &["--cluster-cidr=10.244.1.0/24"], vec![
            row("a pod within the CIDR", client(1), web().v4(), spread(&WEB).kept()),
            row("a pod out of the CIDR", client(2), web().v4(), spread(&WEB).masqueraded_by(2)),
            row("a family without a CIDR", client(2), web().v6(), spread(&WEB).kept()),
        ]),
        (Set, &["--detect-local-mode=ClusterCIDR"], pods_are_local()),
        (Unset, &["--detect-local-mode=NodeCIDR"], of_node),
        (Unset, &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"], pods_are_local()),
        (Unset, &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=br9"], pods_are_foreign()),
        (Unset, &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=cni"], pods_are_local()),
        (Unset, &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=cali"], pods_are_foreign()),
    ]);
}

/// In nftables mode, node ports on all addresses must be requested, and are not served on localhost.
#[rustfmt::skip]
fn node_ports_everywhere_by_nftables() {
    let testbed = Setup::new("web.yaml").mode(Mode::Nftables).args(&["--nodeport-addresses=0.0.0.0/0,::/0"]).up();
    testbed.check(&[
        row("everywhere: the node's address", outside(), node_port(1, "web", 80), spread(&WEB)),
        row("everywhere: the bridge's address", client(1), node_port_at(&["10.244.1.1", "fd00:10:244:1::1"], "web", 80), spread(&WEB)),
        row("everywhere but localhost", node(1), node_port_at(&["127.0.0.1", "::1"], "web", 80), refused()),
    ]);
    let netns = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
    let setting = tools::output(netns.command("cat").arg("/proc/sys/net/ipv4/conf/all/route_localnet"));
    assert_eq!(setting, "0\n", "expected no routes to localhost");
}

pub(crate) fn node_port_addresses(mode: Mode) {
    where_node_ports_are_served(mode);
    match mode {
        Mode::Iptables(_) => node_ports_on_localhost(mode),
        Mode::Nftables => node_ports_everywhere_by_nftables(),
        Mode::Ipvs => {}
    }
}

#[rustfmt::skip]
fn where_node_ports_are_served(mode: Mode) {
    let host = || node_port(1, "web", 80);
    let bridge = || node_port_at(&["10.244.1.1", "fd00:10:244:1::1"], "web", 80);
    let localhost = || node_port_at(&["127.0.0.1"], "web", 80);
    let localhost6 = || node_port_at(&["::1"], "web", 80);
    check_each(mode, vec![
        (Set, &[], vec![
            row("everywhere: the node's address", outside(), host(), spread(&WEB)),
            row("everywhere: the bridge's address", client(1), bridge(), spread(&WEB)).in_nftables(refused()),
            row("everywhere: localhost", node(1), localhost(), spread(&WEB)).in_ipvs(refused()).in_nftables(refused()),
            row("never on the localhost of IPv6", node(1), localhost6(), refused()),
        ]),
        (Set, &["--nodeport-addresses=192.168.77.0/24,fd00:77::/64"], vec![
            row("by CIDR: an address within", outside(), host(), spread(&WEB)),
            row("by CIDR: an address without", client(1), bridge(), refused()),
            row("by CIDR: localhost is without", node(1), localhost(), refused()),
        ]),
        (Set, &["--nodeport-addresses=10.244.0.0/16"], vec![
            row("by CIDR: the bridge is within", client(1), bridge().v4(), spread(&WEB)),
            row("by CIDR: the node's address is without", outside(), host().v4(), refused()),
            row("a family without a CIDR serves everywhere", outside(), host().v6(), spread(&WEB)),
        ]),
        (Set, &["--nodeport-addresses=primary"], vec![
            row("primary: the node's address", outside(), host(), spread(&WEB)),
            row("primary: the node's address from itself", node(1), host(), spread(&WEB)),
            row("primary: another address", client(1), bridge(), refused()),
            row("primary: localhost", node(1), localhost(), refused()),
        ]),
    ]);
}

/// Node ports on localhost, which only iptables mode serves by default.
#[rustfmt::skip]
fn node_ports_on_localhost(mode: Mode) {
    let host = || node_port(1, "web", 80);
    let localhost = || node_port_at(&["127.0.0.1"], "web", 80);
    check_each(mode, vec![
        (Set, &["--iptables-localhost-nodeports=false"], vec![
            row("not on localhost: the node's address", outside(), host(), spread(&WEB)),
            row("not on localhost: localhost", node(1), localhost(), refused()),
            row("not on localhost: the node's address from itself", node(1), host(), spread(&WEB)),
        ]),
        (Set, &["--nodeport-addresses=primary,localhost"], vec![
            row("primary and localhost: the node's address", outside(), host(), spread(&WEB)),
            row("primary and localhost: another address", client(1), node_port_at(&["10.244.1.1", "fd00:10:244:1::1"], "web", 80), refused()),
            row("primary and localhost: localhost", node(1), localhost(), spread(&WEB)),
        ]),
    ]);
}

/// Node ports on localhost make the kernel route 127.0.0.0/8; packets from outside to daemons that listen there must be
/// dropped.
#[test]
fn loopback_addresses_of_a_node_are_not_reachable_from_outside() {
    let testbed = Setup::new("web.yaml").up();
    let outside_ns = testbed.lab.netns(&Vantage::Outside).unwrap();
    let script = "ip route del local 127.0.0.1 table local; ip route del local 127.0.0.0/8 table local; \
                  for i in all default underlay; do echo 1 >/proc/sys/net/ipv4/conf/$i/route_localnet; done; \
                  ip route add 127.0.0.1 via 192.168.77.11 dev underlay src 198.51.100.10";
    tools::output(outside_ns.command("sh").args(["-ec", script]));
    let metrics = || at(&["127.0.0.1:10249"]);
    testbed.check(&[row("127.0.0.1 of a node from outside", outside(), metrics(), lost())]);
    // Without the guard rule the connection is established, so that the rule is what drops it.
    testbed.iptables("node-1", &["-F", "KUBE-FIREWALL"]);
    let prober = testbed.from(outside()).timeout(Duration::from_secs(5));
    let opened = prober.open(portcullis_lab::Protocol::Tcp, "127.0.0.1:10249".parse().unwrap());
    assert!(opened.is_ok(), "without KUBE-FIREWALL: {opened:?}");
}
