//! Memory of 10,000 Services of 10 endpoints in each mode, from the index to what the mode keeps, counted by the allocator: what stays
//! after a first sync, and its peak. The kernels of this test forget what is written.
//!
//! A single test, as all allocations of the process are counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kernels;

use std::time::{Duration, Instant};

use kernels::{ForgetfulIptables, ForgetfulIpvs, NoFlows};
use portcullis_allocations::{Allocations, MEGABYTE, megabytes};
use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange};
use portcullis_cluster::object::parse_text;
use portcullis_cluster::{Event, Family, Index, Kind, Name};
use portcullis_modes::iptables::{Flavour, IptablesKernel, IptablesProxier};
use portcullis_modes::ipvs::{IpvsOptions, IpvsProxier};
use portcullis_modes::nftables::ServiceTable;
use portcullis_modes::stale_flows::StaleFlows;
use portcullis_modes::{Mode, NodeFacts, Options, SyncResult};

const SERVICES: usize = 10_000;

const ENDPOINTS: usize = 10;

fn service(n: usize) -> String {
    let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
    format!(
        r#"{{"metadata":{{"name":"service-{n:05}","namespace":"team-{}"}},
        "spec":{{"clusterIP":"172.30.{a}.{b}","selector":{{"app":"service-{n:05}"}},
        "ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":8080}}]}}}}"#,
        n % 100
    )
}

fn slice(n: usize) -> String {
    let endpoints = (n * ENDPOINTS..(n + 1) * ENDPOINTS).map(|endpoint| {
        let [_, a, b, c] = u32::try_from(endpoint).unwrap().to_be_bytes();
        format!(r#"{{"addresses":["10.{a}.{b}.{c}"],"nodeName":"node-{}"}}"#, endpoint % 1_000)
    });
    format!(
        r#"{{"metadata":{{"name":"service-{n:05}-abcde","namespace":"team-{}",
        "labels":{{"kubernetes.io/service-name":"service-{n:05}"}}}},
        "addressType":"IPv4","ports":[{{"name":"http","port":8080}}],"endpoints":[{}]}}"#,
        n % 100,
        endpoints.collect::<Vec<_>>().join(",")
    )
}

/// The index of a daemon, and the Services of which it was told.
fn cluster() -> (Index, DirtyServices) {
    let (mut index, mut dirty) = (Index::for_node(Name::new("node-0")), DirtyServices::default());
    for n in 0..SERVICES {
        for (kind, text) in [(Kind::Service, service(n)), (Kind::EndpointSlice, slice(n))] {
            let object = parse_text(kind, text.as_bytes()).unwrap().object;
            dirty.extend(index.handle(Event::Applied(object)));
        }
    }
    (index, dirty)
}

/// A first sync of a mode, which returns what it keeps.
type FirstSync = fn(&Desired, &[ServiceChange]) -> Box<dyn std::any::Any>;

/// A mode, its first sync, and the most that it may keep and allocate in MB: the index and the desired Services with it.
struct Row {
    mode: &'static str,
    first_sync: FirstSync,
    kept: usize,
    peak: usize,
}

fn iptables(flavour: Flavour, desired: &Desired, changes: &[ServiceChange]) -> Box<dyn std::any::Any> {
    let kernel: Box<dyn IptablesKernel> = Box::new(ForgetfulIptables { flavour });
    let mut mode = IptablesProxier::new(Options::default(), NodeFacts::default(), [(Family::V4, kernel)]);
    let results = mode.sync(desired, changes);
    Box::new((mode, delete_stale_flows(desired, changes, &results)))
}

fn ipvs(desired: &Desired, changes: &[ServiceChange]) -> Box<dyn std::any::Any> {
    let rules: Box<dyn IptablesKernel> = Box::new(ForgetfulIptables { flavour: Flavour::Nft });
    let facts = NodeFacts::default();
    let options = IpvsOptions::default();
    let rules = [(Family::V4, rules)];
    let mut mode = IpvsProxier::new(options, Options::default(), facts, ForgetfulIpvs, rules);
    let results = mode.sync(desired, changes);
    Box::new((mode, delete_stale_flows(desired, changes, &results)))
}

fn nftables(desired: &Desired, changes: &[ServiceChange]) -> Box<dyn std::any::Any> {
    let mut table = ServiceTable::new(Family::V4, &Options::default(), &NodeFacts::default());
    table.apply(desired, changes, Instant::now());
    let result = SyncResult {
        tables: Vec::new(),
        family: Family::V4,
        is_full: true,
        duration: Duration::from_millis(1),
        written: 1,
        restored: 0,
        deferred: Vec::new(),
        isolated: Vec::new(),
        error: None,
    };
    Box::new((table, delete_stale_flows(desired, changes, &[result])))
}

fn delete_stale_flows(desired: &Desired, changes: &[ServiceChange], results: &[SyncResult]) -> StaleFlows {
    assert!(
        results.iter().all(|r| r.error.is_none() && r.isolated.is_empty() && r.written > 0),
        "{results:?}"
    );
    let mut flows = StaleFlows::new(NoFlows);
    flows.add_changes(changes);
    assert_eq!(flows.delete(desired, results, &[]).unwrap().frontends, SERVICES);
    flows
}

#[test]
fn ten_thousand_services_fit_into_the_limits_of_each_mode() {
    let rows = [
        Row { mode: "nftables", first_sync: nftables, kept: 17, peak: 20 },
        Row {
            mode: "iptables, legacy tool",
            first_sync: |d, c| iptables(Flavour::Legacy, d, c),
            kept: 15,
            peak: 22,
        },
        Row {
            mode: "iptables, nft tool",
            first_sync: |d, c| iptables(Flavour::Nft, d, c),
            kept: 15,
            peak: 22,
        },
        Row { mode: "ipvs", first_sync: ipvs, kept: 17, peak: 20 },
    ];
    let mut exceeded = Vec::new();
    for Row { mode, first_sync, kept, peak } in rows {
        let allocations = Allocations::start();
        let (index, dirty) = cluster();
        let listed = allocations.kept();
        let mut desired = Desired::new(Name::new("node-0"));
        let changes = desired.update(&index, dirty);
        let resolved = allocations.kept();
        let state = first_sync(&desired, &changes);
        drop(changes);
        let (now, highest) = (allocations.kept(), allocations.peak());
        let figures = [listed, resolved, now, highest].map(megabytes);
        let [listed, resolved, after, at_most] = figures;
        println!(
            "{mode}: {listed:.1} MB listed, {resolved:.1} with the desired Services, {after:.1} after the first sync, at most {at_most:.1}"
        );
        if now > kept * MEGABYTE || highest > peak * MEGABYTE {
            exceeded.push(format!("{mode}: {after:.1} of {kept} MB, {at_most:.1} of {peak} MB at the peak"));
        }
        assert_eq!(desired.service_count(), SERVICES);
        drop((state, desired, index));
        assert!(allocations.kept() < MEGABYTE, "{mode}: {} bytes stay", allocations.kept());
    }
    assert!(exceeded.is_empty(), "{exceeded:#?}");
}
