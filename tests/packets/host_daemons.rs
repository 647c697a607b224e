//! Daemons on a node are not reachable through Services' addresses, which in IPVS mode are addresses of the node
//! (kubernetes #72236), but stay reachable through the node's own addresses. The test uses the daemon's health port.

use std::net::SocketAddr;

use portcullis_machines::uml;

use crate::expectation::{only, refused};
use crate::mode::Mode;
use crate::row::{Origin, at, client, cluster_ip, external_ip, load_balancer, node, outside, row};
use crate::testbed::{Setup, Testbed};
use crate::tools;

/// A port on which the daemon listens on all addresses of its node.
const HEALTH: u16 = 10256;

/// The address of node-1 in the underlay, which is also an external IP of a Service.
const NODE_1: &str = "192.168.77.11";

#[test]
fn node_daemons_are_not_reachable_at_service_addresses_by_ipvs() {
    uml::inside(|| {
        let mut testbed = Setup::new("web.yaml").mode(Mode::Ipvs).up();
        testbed.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: claims-a-node}}, spec: {{selector: {{one: a}}, \
             externalIPs: [{NODE_1}], ports: [{{port: 8088, targetPort: 8080}}]}}}}"
        ));
        let mut rows = Vec::new();
        let everywhere = [client(1), client(2), node(1), outside()];
        for (to, froms) in [
            // The outside host has no route to cluster IPs.
            (cluster_ip("web", 80), &everywhere[..3]),
            (external_ip("web", 80), &everywhere[..]),
            (load_balancer("web", 80), &everywhere[..]),
        ] {
            for address in to.addresses(testbed.lab.plan(), testbed.families) {
                let of_the_node = SocketAddr::new(address.ip(), HEALTH).to_string();
                for from in froms.iter().cloned() {
                    let to = at(&[&of_the_node]);
                    rows.push(row("the health port by a Service's address", from, to, refused()));
                }
            }
        }
        // On the other node the address is an external IP and no longer routes to node-1, as in kube-proxy.
        rows.push(row(
            "a Service at a node's address",
            outside(),
            external_ip("claims-a-node", 8088).v4(),
            only("a"),
        ));
        testbed.check(&rows);
        for from in [client(1), node(1), outside()] {
            assert!(
                is_healthy(&testbed, &from),
                "the health port of the node's own address, from {}",
                from.vantage
            );
        }
    });
}

fn is_healthy(testbed: &Testbed, from: &Origin) -> bool {
    let netns = testbed.lab.netns(&from.vantage.clone()).unwrap();
    let answer = tools::http_get(&netns, &format!("{NODE_1}:{HEALTH}"), "/healthz");
    answer.is_ok_and(|answer| answer.contains("200 OK"))
}
