//! A client's port that it used for another Service of the same pod.

use portcullis_lab::uml;

use crate::bed::Setup;
use crate::mode::Mode;
use crate::row::{client, cluster_ip};
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
