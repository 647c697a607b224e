//! Memory of an index of a million endpoints, counted by the allocator.
//!
//! A single test, as all allocations of the process are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_allocations::{Allocations, MEGABYTE, megabytes};
use portcullis_cluster::{Event, Index, Kind, Object};
use serde_json::json;

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 100;

fn slice(service: usize) -> Object {
    let endpoints = (0..ENDPOINTS).map(|n| {
        let [_, a, b, c] = u32::try_from(service * ENDPOINTS + n).unwrap().to_be_bytes();
        let node = (service * 7 + n) % 1000;
        json!({
            "addresses": [format!("10.{a}.{b}.{c}")],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{node}"),
            "hints": {"forZones": [{"name": format!("zone-{}", node % 3)}]},
            "targetRef": {"kind": "Pod", "name": format!("web-{service}-{n}-x7k2p"), "namespace": "default"},
        })
    });
    let value = json!({
        "metadata": {
            "name": format!("service-{service}-abcde"), "namespace": format!("team-{}", service % 100),
            "labels": {"kubernetes.io/service-name": format!("service-{service}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.collect::<Vec<_>>(),
    });
    Object::parse(Kind::EndpointSlice, value).unwrap().object
}

fn service(n: usize) -> Object {
    let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
    let value = json!({
        "metadata": {"name": format!("service-{n}"), "namespace": format!("team-{}", n % 100)},
        "spec": {"clusterIP": format!("10.96.{a}.{b}"), "ports": [{"name": "http", "port": 80}]},
    });
    Object::parse(Kind::Service, value).unwrap().object
}

#[test]
fn a_million_endpoints_take_35_megabytes() {
    let allocations = Allocations::start();
    let mut index = Index::new();
    for n in 0..SERVICES {
        index.handle(Event::Applied(service(n)));
        index.handle(Event::Applied(slice(n)));
    }
    let allocated = allocations.kept();
    println!(
        "{} endpoints of {SERVICES} Services: {:.1} MB, {:.1} bytes per endpoint",
        SERVICES * ENDPOINTS,
        megabytes(allocated),
        allocated as f64 / (SERVICES * ENDPOINTS) as f64,
    );
    assert_eq!(index.count(Kind::EndpointSlice), SERVICES);
    assert!(allocated <= 35 * MEGABYTE, "{allocated} bytes");
    drop(index);
    let left = allocations.kept();
    assert!(left < MEGABYTE / 100, "{left} bytes left after the index was dropped");
}
