//! Node ports, load balancer addresses and external IPs.

use portcullis_lab::Vantage;

use crate::expectation::{lost, only, refused, spread};
use crate::mode::Mode;
use crate::row::{
    Row, at, client, external_ip, load_balancer, node, node_port, node_port_at, outside, outside_as, row,
};
use crate::testbed::{Setup, Testbed};
use crate::tools;

const WEB: [&str; 3] = ["a", "b", "c"];
const ALLOWED: [&str; 2] = ["198.51.100.200", "2001:db8:100::8001"];
const JUST_NOT_ALLOWED: [&str; 2] = ["198.51.100.127", "2001:db8:100::7fff"];

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    vec![
        // Node ports
        row("node port of node-1, TCP", outside(), node_port(1, "np", 80), spread(&WEB).masqueraded_by(1)),
        row("node port of node-2, TCP", outside(), node_port(2, "np", 80), spread(&WEB).masqueraded_by(2)),
        row("node port, UDP", outside(), node_port(1, "np", 53).udp(), spread(&WEB).masqueraded_by(1)),
        row("node port from a pod is masqueraded too", client(1), node_port(1, "np", 80), spread(&WEB).masqueraded_by(1)),
        row("another node's port from a pod", client(1), node_port(2, "np", 80), spread(&WEB).masqueraded_by(2)),
        row("node port from its node", node(1), node_port(1, "np", 80), spread(&WEB)),
        row("node port at the node's other addresses", client(1), node_port_at(&["10.244.1.1", "fd00:10:244:1::1"], "np", 80), spread(&WEB).masqueraded_by(1)).in_nftables(refused()),
        row("node port on localhost", node(1), node_port_at(&["127.0.0.1"], "np", 80), spread(&WEB)).in_ipvs(refused()).in_nftables(refused()),
        row("node port on another address of localhost", node(1), node_port_at(&["127.1.2.3"], "np", 80), spread(&WEB)).in_ipvs(refused()).in_nftables(refused()),
        row("node port without endpoints", outside(), node_port(1, "np-none", 80), refused()),
        row("node port without endpoints, from its node", node(1), node_port(1, "np-none", 80), refused()),
        // External traffic policy
        row("external policy Local keeps the source", outside(), node_port(1, "np-local", 80), only("a").kept()),
        row("external policy Local keeps the source over UDP", outside(), node_port(1, "np-local", 53).udp(), only("a").kept()),
        row("external policy Local without an endpoint on the node", outside(), node_port(2, "np-local", 80), lost()),
        row("external policy Local without an endpoint on the node, UDP", outside(), node_port(2, "np-local", 53).udp(), lost()),
        row("external policy Local on the first node", outside(), node_port(1, "np-local-all", 80), only("a").kept()),
        row("external policy Local on the second node", outside(), node_port(2, "np-local-all", 80), spread(&["b", "c"]).kept()),
        row("policy Local: a pod's own node uses all endpoints", client(1), node_port(1, "np-local-all", 80), spread(&WEB)).in_ipvs(only("a")),
        row("policy Local: a node's own traffic uses all endpoints", node(1), node_port(1, "np-local-all", 80), spread(&WEB)).in_ipvs(only("a")),
        row("policy Local: a pod's own node without an endpoint routes to another node", client(2), node_port(2, "np-local", 80), only("a")),
        // Load balancers
        row("every address of the load balancer", outside(), load_balancer("lb", 80), spread(&WEB).masqueraded_by(1)),
        row("a load balancer's address over UDP", outside(), load_balancer("lb", 53).udp(), spread(&WEB).masqueraded_by(1)),
        row("the first address by itself", outside(), at(&["203.0.113.20:80", "[2001:db8:113::20]:80"]), spread(&WEB)),
        row("the second address by itself", outside(), at(&["203.0.113.21:80", "[2001:db8:113::21]:80"]), spread(&WEB)),
        row("a load balancer's address from a pod", client(2), load_balancer("lb", 80), spread(&WEB).masqueraded_by(2)),
        row("a load balancer's address from a node", node(2), load_balancer("lb", 80), spread(&WEB)),
        row("a load balancer without endpoints", outside(), load_balancer("lb-none", 80), refused()),
        row("ipMode Proxy is not served by nodes", outside(), at(&["203.0.113.30:80"]), lost()),
        row("ipMode Proxy from a pod", client(1), at(&["203.0.113.30:80"]), lost()),
        row("ipMode Proxy: its node port is served", outside(), node_port(1, "lb-proxy", 80).v4(), spread(&WEB).masqueraded_by(1)),
        row("a balancer with a host name alone: its node port is served", outside(), node_port(1, "lb-hostname", 80).v4(), spread(&WEB).masqueraded_by(1)),
        row("policy Local at a load balancer's address", outside(), load_balancer("lb-local", 80), only("a").kept()),
        row("policy Local at a load balancer's address, from a pod elsewhere", client(2), load_balancer("lb-local", 80), only("a")),
        row("without node ports the load balancer is served", outside(), load_balancer("lb-only", 80), spread(&WEB).masqueraded_by(1)),
        // Source ranges
        row("a source in the ranges", outside_as(&ALLOWED), load_balancer("lb-ranges", 80), spread(&WEB).masqueraded_by(1)),
        row("a source next to the ranges", outside_as(&JUST_NOT_ALLOWED), load_balancer("lb-ranges", 80), lost()),
        row("a source outside of the ranges", outside(), load_balancer("lb-ranges", 80), lost()),
        row("a pod in the ranges", client(2), load_balancer("lb-ranges", 80).v4(), spread(&WEB)),
        row("a pod outside of the ranges", client(1), load_balancer("lb-ranges", 80), lost()),
        row("no valid source range: a pod", client(2), load_balancer("lb-closed", 80), lost()),
        row("no valid source range: from outside", outside_as(&ALLOWED), load_balancer("lb-closed", 80), lost()),
        row("source ranges do not apply to the node port", outside(), node_port(1, "lb-ranges", 80), spread(&WEB).masqueraded_by(1)),
        // External IPs
        row("every external IP", outside(), external_ip("ext", 80), spread(&WEB).masqueraded_by(1)),
        row("external IPs from a pod", client(2), external_ip("ext", 80), spread(&WEB).masqueraded_by(2)),
        row("policy Local at an external IP", outside(), external_ip("ext-local", 80), only("a").kept()),
    ]
}

fn up(mode: Mode) -> Testbed {
    let mut testbed = Setup::new("external-addresses.yaml").mode(mode).up();
    testbed.lab.route_from_outside("203.0.113.30".parse().unwrap(), "node-1").unwrap();
    testbed
}

pub(crate) fn external_addresses(mode: Mode) {
    let testbed = up(mode);
    testbed.check(&rows());
    health_check_node_ports_report_local_endpoints(&testbed);
    if matches!(mode, Mode::Iptables(_)) {
        only_allocated_node_ports_are_served(&testbed);
    }
}

fn only_allocated_node_ports_are_served(testbed: &Testbed) {
    for tool in ["iptables", "ip6tables"] {
        let rules = testbed.rules("node-1", tool, "nat");
        let node_ports: Vec<&str> = rules.lines().filter(|l| l.starts_with("-A KUBE-NODEPORTS ")).collect();
        assert!(node_ports.iter().any(|line| line.contains("default/np:http")), "{rules}");
        assert!(!node_ports.iter().any(|line| line.contains("default/lb-only")), "{rules}");
    }
}

fn health_check_node_ports_report_local_endpoints(testbed: &Testbed) {
    let outside = testbed.lab.netns(&Vantage::Outside).unwrap();
    for (address, status) in [
        ("192.168.77.11:32000", "200"),
        ("192.168.77.12:32000", "503"),
        ("[fd00:77::b]:32000", "200"),
        ("[fd00:77::c]:32000", "503"),
    ] {
        let answer = tools::http_get(&outside, address, "/").unwrap();
        let status_code = answer.split_whitespace().nth(1);
        assert_eq!(status_code, Some(status), "{address}: {answer}");
    }
}
