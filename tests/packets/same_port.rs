//! A client's port that it used for another Service of the same pod, or past all Services.

use std::time::Duration;

use portcullis_lab::{Outcome, uml};

use crate::bed::Setup;
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node, node_name, node_port};
use crate::tools::Flavour;

/// Behind both Services is one pod, to which both connections would be the same; so the second is given another port.
fn each_is_answered(mode: Mode) {
    let bed = Setup::of("external-addresses.yaml").mode(mode).up();
    let prober = bed.from(client(1)).source_port(40_000);
    for service in ["ext-local", "lb-local", "np-local"] {
        let outcome = prober.tcp(bed.address(cluster_ip(service, 80)));
        assert_eq!(outcome.by(), Some("default/a"), "{service}: {outcome}");
    }
}

#[test]
fn one_port_for_several_services() {
    each_is_answered(Mode::Iptables(Flavour::Nft));
}

#[test]
fn one_port_for_several_services_by_nftables() {
    each_is_answered(Mode::Nftables);
}

#[test]
fn one_port_for_several_services_by_ipvs() {
    uml::inside(|| each_is_answered(Mode::Ipvs));
}

/// The cause of lost connections in IPVS mode (docs/ipvs.md), forced. Node 1 remembers a connection of node 2 to its node
/// port. Node 2 then masquerades a connection to the same pod, and the kernel is told which port to take. A kernel in
/// which the first is answered would make the docs, and `lab::excused`, obsolete.
#[test]
fn a_masqueraded_connection_from_a_port_that_the_other_node_remembers_by_ipvs() {
    uml::inside(|| {
        let bed = Setup::of("external-addresses.yaml").mode(Mode::Ipvs).up();
        let from = |port| bed.from(node(2)).timeout(Duration::from_secs(3)).source_port(port);
        let to_node_port = from(20_001).tcp(bed.address(node_port(1, "np-local", 80)));
        assert_eq!(to_node_port.by(), Some("default/a"), "{to_node_port}");

        let pick = "-p tcp -m mark --mark 0x4000/0x4000 -j MASQUERADE --to-ports";
        let arguments = |change: &'static str, port: &'static str| -> Vec<&str> {
            change.split(' ').chain(pick.split(' ')).chain([port]).collect()
        };
        bed.iptables(&node_name(2), &arguments("-t nat -I POSTROUTING", "20001"));
        let remembered = from(20_011).tcp(bed.address(cluster_ip("np-local", 80)));
        bed.iptables(&node_name(2), &arguments("-t nat -R POSTROUTING 1", "20002"));
        let other = from(20_012).tcp(bed.address(cluster_ip("np-local", 80)));
        assert_eq!(remembered, Outcome::TimedOut);
        assert_eq!(other.by(), Some("default/a"), "{other}");
    });
}
