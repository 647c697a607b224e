//! Session affinity by client IP: kept until the timeout, then expired.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{ProbeOutcome, Protocol};

use crate::expectation::one_of;
use crate::mode::Mode;
use crate::row::{Target, client, cluster_ip, node, node_port, outside, outside_as, row};
use crate::testbed::{Setup, Testbed};

const WEB: [&str; 3] = ["a", "b", "c"];
/// `timeoutSeconds` of the fixture.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Enough clients that they all reach the same of 3 pods again by chance only once in 10^15 times.
const CLIENTS: u8 = 32;

#[rustfmt::skip]
fn one_pod_for_a_client(testbed: &Testbed) {
    testbed.check(&[
        row("one pod for a client of a cluster IP", client(1), cluster_ip("sticky", 80), one_of(&WEB)),
        row("one pod for a client over UDP", client(2), cluster_ip("sticky", 53).udp(), one_of(&WEB)),
        row("one pod for a node", node(1), cluster_ip("sticky", 80), one_of(&WEB)),
        row("one pod for a client outside", outside(), node_port(1, "sticky", 80), one_of(&WEB)),
        row("one pod for another client outside", outside_as(&["198.51.100.99", "2001:db8:100::99"]), node_port(2, "sticky", 80), one_of(&WEB)),
        row("without a timeout in the Service", client(1), cluster_ip("long", 80), one_of(&WEB)),
    ]);
}

/// IPVS expires a client's affinity only after its last connection has expired, minutes after it was closed; expiry is not
/// tested there.
#[rustfmt::skip]
pub(crate) fn affinity_is_kept_then_expires(mode: Mode) {
    let testbed = Setup::new("session-affinity.yaml").mode(mode).up();
    one_pod_for_a_client(&testbed);
    if mode == Mode::Ipvs {
        return;
    }
    let tables = [("TCP", Protocol::Tcp, node_port(1, "sticky", 80)), ("UDP", Protocol::Udp, node_port(1, "sticky", 53).udp())];
    thread::scope(|scope| {
        for (name, protocol, to) in tables {
            let testbed = &testbed;
            scope.spawn(move || kept_then_expires(name, testbed, protocol, to));
        }
    });
}

/// Returns the responder of each client.
fn responders(testbed: &Testbed, protocol: Protocol, to: SocketAddr) -> BTreeMap<u8, String> {
    let ask = |client: u8| {
        let prober = testbed.from(outside()).source(format!("198.51.100.{}", 20 + client).parse().unwrap());
        match prober.probe(protocol, to) {
            ProbeOutcome::Answered { responder, .. } => (client, responder),
            other => panic!("client {client}: {other}"),
        }
    };
    (0..CLIENTS).map(ask).collect()
}

fn kept_then_expires(name: &str, testbed: &Testbed, protocol: Protocol, to: Target) {
    let to = testbed.address(to);
    let mut at = Instant::now();
    let first = responders(testbed, protocol, to);
    assert!(first.values().any(|by| *by != first[&0]), "{name}: clients are spread: {first:?}");
    // Each connection restarts the timeout: affinity is kept for longer than the timeout with one connection per
    // second.
    let (mut kept, mut rounds) = (0, 0);
    while kept < 5 {
        rounds += 1;
        assert!(rounds < 30, "{name}: this machine is too busy to connect within {TIMEOUT:?}");
        thread::sleep(Duration::from_secs(1));
        let now = Instant::now();
        let again = responders(testbed, protocol, to);
        // If the machine paused for longer than the timeout, the affinity may have expired.
        if at.elapsed() >= TIMEOUT {
            return kept_then_expires(name, testbed, protocol, Target::from(to));
        }
        assert_eq!(again, first, "{name}: kept after {:?}", at.elapsed());
        at = now;
        kept += 1;
    }
    thread::sleep(TIMEOUT + Duration::from_secs(1));
    assert_ne!(responders(testbed, protocol, to), first, "{name}: expired after {TIMEOUT:?}");
}

pub(crate) fn a_client_whose_pod_is_removed_gets_another_and_stays(mode: Mode) {
    let mut testbed = Setup::new("session-affinity.yaml").mode(mode).up();
    let to = testbed.address(cluster_ip("long", 80));
    let prober = testbed.from(client(1));
    let met = prober.tcp(to).responder().unwrap().to_owned();
    testbed.lab.set_ready(&met, false).unwrap();
    testbed.synced();
    let next = prober.tcp(to).responder().unwrap().to_owned();
    assert_ne!(next, met);
    testbed.lab.set_ready(&met, true).unwrap();
    testbed.synced();
    for _ in 0..20 {
        assert_eq!(
            prober.tcp(to).responder(),
            Some(next.as_str()),
            "the first pod is back, and the client stays"
        );
    }
}

/// Affinity is per endpoint: changes of other endpoints do not affect a client.
#[test]
fn other_clients_stay_when_a_pod_is_removed_by_nftables() {
    let mut testbed = Setup::new("session-affinity.yaml").mode(Mode::Nftables).up();
    testbed.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: kept}, spec: {type: NodePort, sessionAffinity: ClientIP, \
         selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30089}]}}",
    );
    let to = testbed.address(node_port(1, "kept", 80));
    let first = responders(&testbed, Protocol::Tcp, to);
    assert!(first.values().any(|by| by == "default/a"), "{first:?}");
    for (ready, when) in [(false, "a is not ready"), (true, "a is ready again")] {
        testbed.lab.set_ready("a", ready).unwrap();
        testbed.synced();
        let now = responders(&testbed, Protocol::Tcp, to);
        for (client, met) in &first {
            assert!(met == "default/a" || now[client] == *met, "{when}: client {client} left {met}");
            // No client is at a: its former clients have been moved to other endpoints.
            assert_ne!(now[client], "default/a", "{when}: client {client}");
        }
    }
}
