//! Session affinity by the client's address: kept while the client comes back in time, forgotten afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Outcome, Protocol, uml};

use crate::bed::{Bed, Setup};
use crate::expectation::one_of;
use crate::mode::Mode;
use crate::row::{Target, client, cluster_ip, node, node_port, outside, outside_as, row};
use crate::tools::Flavour;

const WEB: [&str; 3] = ["a", "b", "c"];
/// `timeoutSeconds` of the fixture.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Clients enough that not all of 3 pods' clients meet the same pod again by chance: once in 10^15 times.
const CLIENTS: u8 = 32;

#[test]
fn affinity_is_kept_then_expires_by_the_nft_tool() {
    affinity(Mode::Iptables(Flavour::Nft));
}

#[test]
fn affinity_is_kept_then_expires_by_the_legacy_tool() {
    affinity(Mode::Iptables(Flavour::Legacy));
}

#[test]
fn affinity_is_kept_then_expires_by_nftables() {
    affinity(Mode::Nftables);
}

/// IPVS forgets a client only once the last of its connections is forgotten, minutes after it was closed.
#[test]
fn affinity_is_kept_by_ipvs() {
    uml::inside(|| {
        one_pod_for_a_client(&Setup::of("session-affinity.yaml").mode(Mode::Ipvs).up());
        a_client_whose_pod_goes(Mode::Ipvs);
    });
}

#[rustfmt::skip]
fn one_pod_for_a_client(bed: &Bed) {
    bed.check(&[
        row("one pod for a client of a cluster IP", client(1), cluster_ip("sticky", 80), one_of(&WEB)),
        row("one pod for a client over UDP", client(2), cluster_ip("sticky", 53).udp(), one_of(&WEB)),
        row("one pod for a node", node(1), cluster_ip("sticky", 80), one_of(&WEB)),
        row("one pod for a client outside", outside(), node_port(1, "sticky", 80), one_of(&WEB)),
        row("one pod for another client outside", outside_as(&["198.51.100.99", "2001:db8:100::99"]), node_port(2, "sticky", 80), one_of(&WEB)),
        row("without a timeout in the Service", client(1), cluster_ip("long", 80), one_of(&WEB)),
    ]);
}

#[rustfmt::skip]
fn affinity(mode: Mode) {
    let bed = Setup::of("session-affinity.yaml").mode(mode).up();
    one_pod_for_a_client(&bed);
    let tables = [("TCP", Protocol::Tcp, node_port(1, "sticky", 80)), ("UDP", Protocol::Udp, node_port(1, "sticky", 53).udp())];
    thread::scope(|scope| {
        for (name, protocol, to) in tables {
            let bed = &bed;
            scope.spawn(move || kept_then_expired(name, bed, protocol, to));
        }
    });
}

/// Who answers each of many clients.
fn answerers(bed: &Bed, protocol: Protocol, to: SocketAddr) -> BTreeMap<u8, String> {
    let ask = |client: u8| {
        let prober = bed.from(outside()).source(format!("198.51.100.{}", 20 + client).parse().unwrap());
        match prober.probe(protocol, to) {
            Outcome::Answered { by, .. } => (client, by),
            other => panic!("client {client}: {other}"),
        }
    };
    (0..CLIENTS).map(ask).collect()
}

fn kept_then_expired(name: &str, bed: &Bed, protocol: Protocol, to: Target) {
    let to = bed.address(to);
    let mut at = Instant::now();
    let first = answerers(bed, protocol, to);
    assert!(first.values().any(|by| *by != first[&0]), "{name}: clients are spread: {first:?}");
    // Each connection starts the time anew: kept for longer than the timeout, once a second.
    let (mut kept, mut rounds) = (0, 0);
    while kept < 5 {
        rounds += 1;
        assert!(rounds < 30, "{name}: this machine is too busy to come back within {TIMEOUT:?}");
        thread::sleep(Duration::from_secs(1));
        let now = Instant::now();
        let again = answerers(bed, protocol, to);
        // A pause of the machine may outlast the timeout; then nothing was to be kept.
        if at.elapsed() >= TIMEOUT {
            return kept_then_expired(name, bed, protocol, Target::from(to));
        }
        assert_eq!(again, first, "{name}: kept after {:?}", at.elapsed());
        at = now;
        kept += 1;
    }
    thread::sleep(TIMEOUT + Duration::from_secs(1));
    assert_ne!(answerers(bed, protocol, to), first, "{name}: forgotten after {TIMEOUT:?}");
}

#[test]
fn a_client_whose_pod_goes_meets_another_and_stays_there() {
    a_client_whose_pod_goes(Mode::Iptables(Flavour::Nft));
}

#[test]
fn a_client_whose_pod_goes_by_nftables() {
    a_client_whose_pod_goes(Mode::Nftables);
    others_stay_when_a_pod_goes();
}

fn a_client_whose_pod_goes(mode: Mode) {
    let mut bed = Setup::of("session-affinity.yaml").mode(mode).up();
    let to = bed.address(cluster_ip("long", 80));
    let prober = bed.from(client(1));
    let met = prober.tcp(to).by().unwrap().to_owned();
    bed.lab.set_ready(&met, false).unwrap();
    bed.synced();
    let next = prober.tcp(to).by().unwrap().to_owned();
    assert_ne!(next, met);
    bed.lab.set_ready(&met, true).unwrap();
    bed.synced();
    for _ in 0..20 {
        assert_eq!(prober.tcp(to).by(), Some(next.as_str()), "the first pod is back, and the client stays");
    }
}

/// Each client is remembered with an endpoint: what other endpoints do changes nothing for it.
fn others_stay_when_a_pod_goes() {
    let mut bed = Setup::of("session-affinity.yaml").mode(Mode::Nftables).up();
    bed.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: kept}, spec: {type: NodePort, sessionAffinity: ClientIP, \
         selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30089}]}}",
    );
    let to = bed.address(node_port(1, "kept", 80));
    let first = answerers(&bed, Protocol::Tcp, to);
    assert!(first.values().any(|by| by == "default/a"), "{first:?}");
    for (ready, when) in [(false, "a is gone"), (true, "a is back")] {
        bed.lab.set_ready("a", ready).unwrap();
        bed.synced();
        let now = answerers(&bed, Protocol::Tcp, to);
        for (client, met) in &first {
            assert!(met == "default/a" || now[client] == *met, "{when}: client {client} left {met}");
            // Nobody went to a: who was there before has been forgotten, and led elsewhere since.
            assert_ne!(now[client], "default/a", "{when}: client {client}");
        }
    }
}
