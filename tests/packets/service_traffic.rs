//! What Services have served, as `/metrics/services` tells it after real connections.

use portcullis_lab::{Protocol, Vantage, uml};

use crate::bed::{Bed, PATIENCE, Setup};
use crate::mode::Mode;
use crate::row::{Target, client, cluster_ip, node_port};
use crate::tools::{self, Flavour};

/// Connections through each address.
const CONNECTIONS: usize = 7;

const TOTAL: &str = "portcullis_service_connections_total";

#[test]
fn connections_are_counted_by_the_nft_tool() {
    counted(&mut Setup::of("web.yaml").mode(Mode::Iptables(Flavour::Nft)).up());
}

#[test]
fn connections_are_counted_by_the_legacy_tool() {
    counted(&mut Setup::of("web.yaml").mode(Mode::Iptables(Flavour::Legacy)).up());
}

#[test]
fn connections_packets_and_bytes_are_counted_by_ipvs() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        counted(&mut bed);
        for (name, at_least) in [("packets", 3.0), ("bytes", 150.0)] {
            for direction in ["in", "out"] {
                let labels =
                    [r#"port_name="http""#, r#"ip_family="IPv4""#, &format!(r#"direction="{direction}""#)];
                let name = format!("portcullis_service_{name}_total");
                let told = served(&bed, &name, &labels);
                assert!(told >= at_least * 2.0 * CONNECTIONS as f64, "{name} {direction}: {told}");
            }
        }
    });
}

#[test]
fn nftables_mode_says_that_it_does_not_count() {
    let bed = Setup::of("web.yaml").mode(Mode::Nftables).up();
    let answer = answer(&bed);
    assert!(answer.starts_with("HTTP/1.0 404") && answer.contains("iptables and ipvs do"), "{answer}");
}

fn answer(bed: &Bed) -> String {
    let netns = bed.lab.netns(&Vantage::node("node-1")).unwrap();
    tools::http_get(&netns, "127.0.0.1:10249", "/metrics/services").unwrap()
}

/// The sum over the series of the Service web that have all of these labels.
fn served(bed: &Bed, name: &str, labels: &[&str]) -> f64 {
    tools::sum_of(&answer(bed), name, &[&[r#"service_name="web""#], labels].concat())
}

fn connect(bed: &Bed, protocol: Protocol, to: Target) {
    for to in to.addresses(bed.lab.plan(), bed.families) {
        let tally = bed.from(client(1)).probe_many(protocol, to, CONNECTIONS);
        assert_eq!(tally.answered(), CONNECTIONS, "{protocol:?} to {to}");
    }
}

fn counted(bed: &mut Bed) {
    let http = [r#"port_name="http""#, r#"protocol="TCP""#, r#"ip_family="IPv4""#];
    let http_v6 = [r#"port_name="http""#, r#"ip_family="IPv6""#];
    let dns = [r#"port_name="dns""#, r#"protocol="UDP""#, r#"ip_family="IPv4""#];
    connect(bed, Protocol::Tcp, cluster_ip("web", 80).v4());
    connect(bed, Protocol::Tcp, node_port(1, "web", 80).v4());
    connect(bed, Protocol::Tcp, cluster_ip("web", 80).v6());
    connect(bed, Protocol::Udp, cluster_ip("web", 53).udp().v4());
    let expected = CONNECTIONS as f64;
    // IPVS adds up every two seconds.
    bed.wait_until("all are counted", PATIENCE, |bed| served(bed, TOTAL, &dns) >= expected);
    bed.wait_until("both addresses", PATIENCE, |bed| served(bed, TOTAL, &http) >= 2.0 * expected);
    bed.wait_until("the other family", PATIENCE, |bed| served(bed, TOTAL, &http_v6) >= expected);
    let told = [&http[..], &http_v6, &dns].map(|labels| served(bed, TOTAL, labels));
    assert_eq!(told, [2.0 * expected, expected, expected]);

    // The Service loses an address, and its rules are others: what was counted stays.
    bed.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: ClusterIP, ipFamilyPolicy: PreferDualStack, \
         selector: {one: a}, ports: [{name: http, port: 80, targetPort: 8080}]}}",
    );
    assert_eq!(served(bed, TOTAL, &http), 2.0 * expected);
    connect(bed, Protocol::Tcp, cluster_ip("web", 80).v4());
    bed.wait_until("on and on", PATIENCE, |bed| served(bed, TOTAL, &http) >= 3.0 * expected);
    assert_eq!(served(bed, TOTAL, &http), 3.0 * expected);
    assert_eq!(served(bed, TOTAL, &dns), 0.0, "a port that is gone");
}
