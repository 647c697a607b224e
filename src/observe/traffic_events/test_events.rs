//! Events for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_cluster::labels::Labels;

use super::document::{ConnectionTraffic, DropReason, FrontendRef, ObjectRef, Peer, TrafficEvent, Verdict};

fn object(name: &str) -> Option<ObjectRef> {
    Some(ObjectRef { namespace: "shop".into(), name: name.into() })
}

fn peer(address: &str, port: u16, pod: &str) -> Option<Peer> {
    let address = address.parse().expect("an address");
    let app = pod.split('-').next().unwrap_or_default().to_owned();
    let labels = Labels::from(BTreeMap::from([("app".to_owned(), app)]));
    Some(Peer {
        address,
        port: Some(port),
        pod: object(pod),
        node: Some("node-1".into()),
        service: None,
        labels: Some(Arc::new(labels)),
    })
}

/// A packet from `shop/web-1` to Service `shop/db`, which a policy drops.
pub(crate) fn dropped() -> TrafficEvent {
    TrafficEvent {
        time: "2026-11-30T10:43:26.123456Z".parse().expect("a time"),
        verdict: Verdict::Dropped,
        direction: Some("ingress".into()),
        reason: Some(DropReason::Policies),
        policies: Arc::from(["NetworkPolicy shop/db-from-web".into()]),
        omitted_policies: 0,
        tier: Some("NetworkPolicy".into()),
        protocol: "TCP".into(),
        tcp_flags: Some("SYN".into()),
        icmp_type: None,
        icmp_code: None,
        source: peer("10.244.1.5", 40_000, "web-1"),
        destination: peer("10.244.1.6", 15_432, "db-1"),
        frontend: Some(FrontendRef {
            address: "10.96.0.20".parse().expect("an address"),
            port: Some(5432),
            service: object("db"),
            port_name: Some("sql".into()),
        }),
        input_interface: Some("veth1".into()),
        output_interface: Some("veth2".into()),
        bytes: Some(60),
        count: 1,
        traffic: None,
        duration_seconds: None,
    }
}

/// A new connection of the same pod.
pub(crate) fn connection() -> TrafficEvent {
    TrafficEvent {
        verdict: Verdict::New,
        direction: None,
        reason: None,
        policies: Arc::from([]),
        tier: None,
        tcp_flags: None,
        input_interface: None,
        output_interface: None,
        bytes: None,
        ..dropped()
    }
}

/// The end of that connection.
pub(crate) fn ended() -> TrafficEvent {
    TrafficEvent {
        verdict: Verdict::Ended,
        traffic: Some(ConnectionTraffic {
            sent_packets: 6,
            sent_bytes: 412,
            received_packets: 5,
            received_bytes: 10_240,
        }),
        duration_seconds: Some(1.25),
        ..connection()
    }
}

/// An event with a value for each field, which no packet has.
pub(crate) fn complete() -> TrafficEvent {
    let service = |peer: Option<Peer>| peer.map(|peer| Peer { service: object("db"), labels: None, ..peer });
    let ended = ended();
    TrafficEvent {
        icmp_type: Some(8),
        icmp_code: Some(0),
        traffic: ended.traffic,
        duration_seconds: ended.duration_seconds,
        source: service(dropped().source),
        destination: service(dropped().destination),
        ..dropped()
    }
}
