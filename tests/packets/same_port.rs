//! Reuse of a client's source port for several Services with the same pod.

use std::time::Duration;

use portcullis_lab::ProbeOutcome;
use portcullis_machines::uml;

use crate::mode::Mode;
use crate::row::{client, cluster_ip, node, node_name, node_port};
use crate::testbed::Setup;

/// Both Services have the same pod, where both connections would be equal; so the second is translated to another port.
pub(crate) fn several_services_are_reached_from_one_source_port(mode: Mode) {
    let testbed = Setup::new("external-addresses.yaml").mode(mode).up();
    let prober = testbed.from(client(1)).source_port(40_000);
    for service in ["ext-local", "lb-local", "np-local"] {
        let outcome = prober.tcp(testbed.address(cluster_ip(service, 80)));
        assert_eq!(outcome.responder(), Some("default/a"), "{service}: {outcome}");
    }
}

/// Reproduces the cause of lost connections in IPVS mode (docs/ipvs.md): node-1 keeps an entry for a connection of
/// node-2 to its node port; then node-2 masquerades a connection to the same pod from the same port. If the first
/// connection gets a reply on a newer kernel, the documentation and `portcullis_lab::tolerating_ipvs_losses` are
/// obsolete.
#[test]
fn a_masqueraded_connection_with_a_colliding_source_port_is_lost_by_ipvs() {
    uml::inside(|| {
        let testbed = Setup::new("external-addresses.yaml").mode(Mode::Ipvs).up();
        let from = |port| testbed.from(node(2)).timeout(Duration::from_secs(3)).source_port(port);
        let to_node_port = from(20_001).tcp(testbed.address(node_port(1, "np-local", 80)));
        assert_eq!(to_node_port.responder(), Some("default/a"), "{to_node_port}");

        let pick = "-p tcp -m mark --mark 0x4000/0x4000 -j MASQUERADE --to-ports";
        let arguments = |change: &'static str, port: &'static str| -> Vec<&str> {
            change.split(' ').chain(pick.split(' ')).chain([port]).collect()
        };
        testbed.iptables(&node_name(2), &arguments("-t nat -I POSTROUTING", "20001"));
        let colliding = from(20_011).tcp(testbed.address(cluster_ip("np-local", 80)));
        testbed.iptables(&node_name(2), &arguments("-t nat -R POSTROUTING 1", "20002"));
        let other = from(20_012).tcp(testbed.address(cluster_ip("np-local", 80)));
        assert_eq!(colliding, ProbeOutcome::TimedOut);
        assert_eq!(other.responder(), Some("default/a"), "{other}");
    });
}
