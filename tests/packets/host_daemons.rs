//! What listens on a node is not reached through Services' addresses, though in IPVS mode the node bears them all
//! (kubernetes #72236), and stays to be reached through the node's own. The daemon's health port stands for it.

use std::net::SocketAddr;

use portcullis_lab::uml;

use crate::bed::{Bed, Setup};
use crate::expectation::{only, refused};
use crate::mode::Mode;
use crate::row::{Origin, at, client, cluster_ip, external_ip, load_balancer, node, outside, row};
use crate::tools;

/// Where the daemon answers on all addresses of its node.
const HEALTH: u16 = 10256;

/// The address of node-1 in the underlay, which a Service claims as well.
const NODE_1: &str = "192.168.77.11";

#[test]
fn a_nodes_own_ports_are_no_services_by_ipvs() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        bed.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: claims-a-node}}, spec: {{selector: {{one: a}}, \
             externalIPs: [{NODE_1}], ports: [{{port: 8088, targetPort: 8080}}]}}}}"
        ));
        let mut rows = Vec::new();
        let everywhere = [client(1), client(2), node(1), outside()];
        for (to, froms) in [
            // The host outside has no way to ClusterIPs.
            (cluster_ip("web", 80), &everywhere[..3]),
            (external_ip("web", 80), &everywhere[..]),
            (load_balancer("web", 80), &everywhere[..]),
        ] {
            for address in to.addresses(bed.lab.plan(), bed.families) {
                let of_the_node = SocketAddr::new(address.ip(), HEALTH).to_string();
                for from in froms.iter().cloned() {
                    let to = at(&[&of_the_node]);
                    rows.push(row("the health port by a Service's address", from, to, refused()));
                }
            }
        }
        // On the other node it is a Service's address and no way to node-1 any more, as in kube-proxy.
        rows.push(row(
            "a Service at a node's address",
            outside(),
            external_ip("claims-a-node", 8088).v4(),
            only("a"),
        ));
        bed.check(&rows);
        for from in [client(1), node(1), outside()] {
            assert!(
                is_healthy(&bed, &from),
                "the health port of the node's own address, from {}",
                from.vantage
            );
        }
    });
}

fn is_healthy(bed: &Bed, from: &Origin) -> bool {
    let netns = bed.lab.netns(&from.vantage.clone()).unwrap();
    let answer = tools::http_get(&netns, &format!("{NODE_1}:{HEALTH}"), "/healthz");
    answer.is_ok_and(|answer| answer.contains("200 OK"))
}
