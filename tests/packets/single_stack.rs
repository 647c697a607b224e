//! Single-stack clusters.

use portcullis_lab::Families;

use crate::expectation::{only, refused, spread};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, load_balancer, node, node_port, outside, pod, row};
use crate::testbed::Setup;

const WEB: [&str; 3] = ["a", "b", "c"];

pub(crate) fn clusters_of_one_family(mode: Mode) {
    a_cluster_of_ipv6_alone(mode);
    a_cluster_of_ipv4_alone(mode);
}

#[rustfmt::skip]
fn a_cluster_of_ipv6_alone(mode: Mode) {
    Setup::new("ipv6-only.yaml").mode(mode).families(Families::V6).up().check(&[
        row("cluster IP", client(1), cluster_ip("np", 80), spread(&WEB).kept()),
        row("cluster IP, UDP", client(2), cluster_ip("np", 53).udp(), spread(&WEB).kept()),
        row("cluster IP from a node", node(1), cluster_ip("np", 80), spread(&WEB)),
        row("node port", outside(), node_port(2, "np", 80), spread(&WEB).masqueraded_by(2)),
        row("load balancer, policy Local", outside(), load_balancer("lb-local", 80), only("a").kept()),
        row("hairpin", pod("a"), cluster_ip("lb-local", 80), only("a").masqueraded_by(1)),
        row("no endpoints", client(1), cluster_ip("none", 80), refused()),
    ]);
}

#[rustfmt::skip]
fn a_cluster_of_ipv4_alone(mode: Mode) {
    let fixture = Setup::new("ipv4-only.yaml").mode(mode).families(Families::V4);
    fixture.up().check(&[
        row("cluster IP", client(1), cluster_ip("np", 80), spread(&WEB).kept()),
        row("cluster IP, UDP", client(2), cluster_ip("np", 53).udp(), spread(&WEB).kept()),
        row("node port", outside(), node_port(2, "np", 80), spread(&WEB).masqueraded_by(2)),
        row("load balancer, policy Local", outside(), load_balancer("lb-local", 80), only("a").kept()),
        row("no endpoints", client(1), cluster_ip("none", 80), refused()),
    ]);
}
