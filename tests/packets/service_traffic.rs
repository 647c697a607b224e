//! Traffic counters of Services in `/metrics/services`.

use portcullis_lab::{Protocol, Vantage};

use crate::mode::Mode;
use crate::row::{Target, client, cluster_ip, node_port};
use crate::testbed::{PATIENCE, Setup, Testbed};
use crate::tools;

/// Number of connections per address.
const CONNECTIONS: usize = 7;

const TOTAL: &str = "portcullis_service_connections_total";

#[test]
fn nftables_mode_reports_how_to_count_traffic() {
    let testbed = Setup::new("web.yaml").mode(Mode::Nftables).up();
    let answer = answer(&testbed);
    assert!(
        answer.starts_with("HTTP/1.0 404") && answer.contains("only with --nftables-service-counters"),
        "{answer}"
    );
}

pub(crate) fn service_traffic_is_counted(mode: Mode) {
    let args: &[&str] = if mode == Mode::Nftables { &["--nftables-service-counters"] } else { &[] };
    let mut testbed = Setup::new("web.yaml").mode(mode).args(args).up();
    connections_are_counted(&mut testbed);
    if matches!(mode, Mode::Ipvs | Mode::Nftables) {
        packets_and_bytes_are_counted(&testbed);
    }
}

fn packets_and_bytes_are_counted(testbed: &Testbed) {
    for (name, at_least) in [("packets", 3.0), ("bytes", 150.0)] {
        for direction in ["in", "out"] {
            let labels =
                [r#"port_name="http""#, r#"ip_family="IPv4""#, &format!(r#"direction="{direction}""#)];
            let name = format!("portcullis_service_{name}_total");
            let total = served(testbed, &name, &labels);
            assert!(total >= at_least * 2.0 * CONNECTIONS as f64, "{name} {direction}: {total}");
        }
    }
}

fn answer(testbed: &Testbed) -> String {
    let netns = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
    tools::http_get(&netns, "127.0.0.1:10249", "/metrics/services").unwrap()
}

/// Returns the sum over the series of the Service web with all of these labels.
fn served(testbed: &Testbed, name: &str, labels: &[&str]) -> f64 {
    tools::sum_of(&answer(testbed), name, &[&[r#"service_name="web""#], labels].concat())
}

fn connect(testbed: &Testbed, protocol: Protocol, to: Target) {
    for to in to.addresses(testbed.lab.plan(), testbed.families) {
        let tally = testbed.from(client(1)).probe_many(protocol, to, CONNECTIONS);
        assert_eq!(tally.answered(), CONNECTIONS, "{protocol:?} to {to}");
    }
}

fn connections_are_counted(testbed: &mut Testbed) {
    let http = [r#"port_name="http""#, r#"protocol="TCP""#, r#"ip_family="IPv4""#];
    let http_v6 = [r#"port_name="http""#, r#"ip_family="IPv6""#];
    let dns = [r#"port_name="dns""#, r#"protocol="UDP""#, r#"ip_family="IPv4""#];
    connect(testbed, Protocol::Tcp, cluster_ip("web", 80).v4());
    connect(testbed, Protocol::Tcp, node_port(1, "web", 80).v4());
    connect(testbed, Protocol::Tcp, cluster_ip("web", 80).v6());
    connect(testbed, Protocol::Udp, cluster_ip("web", 53).udp().v4());
    let expected = CONNECTIONS as f64;
    // IPVS updates its counters every two seconds.
    testbed.wait_until("all are counted", PATIENCE, |testbed| served(testbed, TOTAL, &dns) >= expected);
    testbed.wait_until("both addresses", PATIENCE, |testbed| served(testbed, TOTAL, &http) >= 2.0 * expected);
    testbed.wait_until("the other family", PATIENCE, |testbed| served(testbed, TOTAL, &http_v6) >= expected);
    let totals = [&http[..], &http_v6, &dns].map(|labels| served(testbed, TOTAL, labels));
    assert_eq!(totals, [2.0 * expected, expected, expected]);

    // The Service loses an address, and its rules change: counters must not decrease.
    testbed.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: ClusterIP, ipFamilyPolicy: PreferDualStack, \
         selector: {one: a}, ports: [{name: http, port: 80, targetPort: 8080}]}}",
    );
    assert_eq!(served(testbed, TOTAL, &http), 2.0 * expected);
    connect(testbed, Protocol::Tcp, cluster_ip("web", 80).v4());
    testbed.wait_until("counters increase further", PATIENCE, |testbed| {
        served(testbed, TOTAL, &http) >= 3.0 * expected
    });
    assert_eq!(served(testbed, TOTAL, &http), 3.0 * expected);
    assert_eq!(served(testbed, TOTAL, &dns), 0.0, "a removed port");
}
