//! Syncs with a kernel that rejects tables.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::desired::{Desired, DirtyServices};
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object};
use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::{ChangeCounts, CommitSummary, DesiredTable};
use serde_json::json;

use super::TableSync;
use super::kernel::NftablesKernel;
use super::rejected_services::MAX_ATTEMPTS;
use crate::mode::SyncResult;
use crate::nftables::names::CLUSTER_IPS;
use crate::nftables::settings::Settings;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// A kernel that records the cluster IPs of the committed table, and rejects some tables.
#[derive(Default)]
struct FakeKernel {
    /// Tables with one of these cluster IPs are rejected.
    rejected: HashSet<String>,
    /// Tables with a chain whose name contains this are rejected.
    rejected_chains: Option<&'static str>,
    /// All tables are rejected, whatever they contain.
    rejects_all: bool,
    /// All requests fail for lack of memory.
    is_busy: bool,
    cluster_ips: Vec<String>,
    /// The cluster IPs after each commit.
    commits: Vec<Vec<String>>,
    attempts: usize,
}

fn rejection(errno: i32) -> Error {
    Error::Rejected { action: "write", errno, text: None, offset: None }
}

impl FakeKernel {
    /// Returns the cluster IPs of a table unless it is rejected.
    fn validate(&self, table: &DesiredTable) -> Result<Vec<String>, Error> {
        if self.is_busy {
            return Err(rejection(libc::ENOMEM));
        }
        let object = |object: &str| Error::Object {
            object: object.to_owned(),
            source: Box::new(rejection(libc::EEXIST)),
        };
        if self.rejects_all {
            return Err(object("removal of chain __chain0"));
        }
        let chains = &table.desired().chains;
        let is_rejected = |name: &&Arc<str>| self.rejected_chains.is_some_and(|part| name.contains(part));
        if let Some(chain) = chains.keys().find(is_rejected) {
            return Err(object(chain));
        }
        let mut ips: Vec<String> = table.desired().sets[CLUSTER_IPS]
            .elements
            .keys()
            .map(|key| key.bytes().iter().map(u8::to_string).collect::<Vec<_>>().join("."))
            .collect();
        ips.sort();
        match ips.iter().find(|ip| self.rejected.contains(*ip)) {
            Some(ip) => Err(object(ip)),
            None => Ok(ips),
        }
    }
}

impl NftablesKernel for FakeKernel {
    fn commit(&mut self, table: &mut DesiredTable) -> Result<CommitSummary, Error> {
        self.cluster_ips = self.validate(table)?;
        self.commits.push(self.cluster_ips.clone());
        let changes = ChangeCounts { elements: 1, ..ChangeCounts::default() };
        Ok(CommitSummary { changes, ..CommitSummary::default() })
    }

    fn check_edits(&mut self, table: &DesiredTable) -> Result<(), Error> {
        self.attempts += 1;
        self.validate(table).map(drop)
    }

    fn check_replacement(&mut self, table: &DesiredTable) -> Result<(), Error> {
        self.validate(table).map(drop)
    }
}

struct Node {
    index: Index,
    dirty: DirtyServices,
    desired: Desired,
    sync: TableSync,
    kernel: FakeKernel,
}

impl Node {
    fn new() -> Self {
        let settings = Settings::new(Family::V4, &Options::default(), &NodeFacts::default());
        let (index, desired) = (Index::new(), Desired::new(Name::new("node-a")));
        Node {
            index,
            dirty: DirtyServices::default(),
            desired,
            sync: TableSync::new(settings),
            kernel: FakeKernel::default(),
        }
    }

    /// Gives Services these cluster IPs, and syncs.
    fn apply(&mut self, services: &[(usize, &str)], now: Instant) -> SyncResult {
        for (n, ip) in services {
            let object = json!({"metadata": {"name": format!("s{n:02}"), "namespace": "ns"},
                "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
            self.handle(Kind::Service, object);
        }
        let changes = self.desired.update(&self.index, std::mem::take(&mut self.dirty));
        self.sync.sync(&mut self.kernel, &self.desired, &changes, now)
    }

    fn handle(&mut self, kind: Kind, object: serde_json::Value) {
        let object = Object::parse(kind, object).expect("a valid object").object;
        self.dirty.extend(self.index.handle(Event::Applied(object)));
    }

    /// Adds a Service with this number of endpoints, each of which is in two maps.
    fn add_large_service(&mut self, n: usize, endpoints: usize) {
        let endpoints: Vec<serde_json::Value> =
            (0..endpoints).map(|e| json!({"addresses": [format!("10.1.{}.{}", e / 250, e % 250)]})).collect();
        let name = format!("s{n:02}");
        let slice = json!({"metadata": {"name": format!("{name}-x"), "namespace": "ns",
                "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}], "endpoints": endpoints});
        self.handle(Kind::EndpointSlice, slice);
        let service = json!({"metadata": {"name": name, "namespace": "ns"},
            "spec": {"clusterIP": format!("10.96.0.{n}"), "externalIPs": [format!("198.51.100.{n}")],
                "ports": [{"port": 80}]}});
        self.handle(Kind::Service, service);
    }

    /// Adds Service s02 with session affinity and one endpoint.
    fn add_affinity_service(&mut self, endpoint: &str) {
        let slice = json!({"metadata": {"name": "s02-x", "namespace": "ns",
                "labels": {"kubernetes.io/service-name": "s02"}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}], "endpoints": [{"addresses": [endpoint]}]});
        self.handle(Kind::EndpointSlice, slice);
        let service = json!({"metadata": {"name": "s02", "namespace": "ns"},
            "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 80}], "sessionAffinity": "ClientIP"}});
        self.handle(Kind::Service, service);
    }

    fn reject(&mut self, ips: &[&str]) {
        self.kernel.rejected = ips.iter().map(|ip| (*ip).to_owned()).collect();
    }

    fn serves(&self, ip: &str) -> bool {
        self.kernel.cluster_ips.iter().any(|served| served == ip)
    }
}

fn isolated(result: &SyncResult) -> Vec<String> {
    result.isolated.iter().map(|isolated| isolated.service.to_string()).collect()
}

#[test]
fn failed_writes_do_not_count_as_external_changes() {
    let (mut node, now) = (Node::new(), Instant::now());
    node.apply(&[(1, "10.96.0.1")], now);
    // True if the previous sync fails, its changes, and the restored objects of the next sync.
    type Row<'a> = (&'a str, bool, &'a [(usize, &'a str)], usize);
    let rows: [Row<'_>; 3] = [
        ("an external change", false, &[], 1),
        ("and one while a change is held back", true, &[(2, "10.96.0.2")], 0),
        ("and one after that was written", false, &[], 1),
    ];
    for (name, fails, services, restored) in rows {
        node.kernel.is_busy = fails;
        node.apply(services, now);
        node.kernel.is_busy = false;
        node.sync.invalidate();
        assert_eq!(node.apply(&[], now).restored, restored, "{name}");
    }
}

#[test]
fn rejected_services_are_isolated_retried_and_do_not_affect_others() {
    let (mut node, start) = (Node::new(), Instant::now());
    let ips: Vec<String> = (0..64).map(|n| format!("10.96.0.{n}")).collect();
    let services: Vec<(usize, &str)> = ips.iter().map(String::as_str).enumerate().collect();
    node.reject(&["10.96.0.7", "10.96.0.50", "10.96.1.1"]);
    let result = node.apply(&services, start);
    assert_eq!(isolated(&result), ["ns/s07", "ns/s50"]);
    let has_rules = |result: &SyncResult| -> Vec<bool> {
        result.isolated.iter().map(|isolated| isolated.has_rules).collect()
    };
    assert_eq!(has_rules(&result), [false, false], "no version of them was accepted");
    assert!(result.error.is_none());
    assert_eq!(node.kernel.cluster_ips.len(), 62, "the first sync serves all others");
    assert!(node.kernel.attempts < 32, "bisected, not tried one by one: {}", node.kernel.attempts);

    // Other Services still change. A Service whose new version is rejected keeps its previous one.
    let result = node.apply(&[(3, "10.96.2.3"), (4, "10.96.1.1")], start);
    assert_eq!(isolated(&result), ["ns/s04", "ns/s07", "ns/s50"]);
    assert_eq!(has_rules(&result), [true, false, false], "the last accepted rules of one are kept");
    assert!(node.serves("10.96.2.3") && node.serves("10.96.0.4") && !node.serves("10.96.0.3"));

    // One rejected Service is fixed by a change, one without: the retry finds out.
    node.reject(&["10.96.1.1"]);
    let result = node.apply(&[(7, "10.96.2.7")], start);
    assert_eq!(isolated(&result), ["ns/s04", "ns/s50"], "no retry before it is due");
    assert!(node.serves("10.96.2.7"));
    let due = node.sync.next_due(start).expect("a retry is due");
    assert!(due > start);
    let result = node.apply(&[], due);
    assert_eq!(isolated(&result), ["ns/s04"]);
    assert!(node.serves("10.96.0.50") && node.serves("10.96.0.4"));
    assert!(node.sync.next_due(due).expect("one is isolated") > due, "the delay grows");

    node.reject(&[]);
    let result = node.apply(&[(4, "10.96.1.2")], due);
    assert!(isolated(&result).is_empty() && node.serves("10.96.1.2") && !node.serves("10.96.0.4"));
    assert_eq!(node.kernel.cluster_ips.len(), 64);
}

#[test]
fn no_service_is_isolated_if_the_kernel_rejects_the_table_without_it() {
    let (mut node, start) = (Node::new(), Instant::now());
    node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start);
    node.kernel.rejects_all = true;
    let assert_fails = |result: SyncResult| {
        let error = result.error.expect("the sync fails").to_string();
        assert!(error.contains("so none of them is isolated: removal of chain __chain0"), "{error}");
        assert!(result.isolated.is_empty(), "{:?}", result.isolated);
    };
    node.sync.invalidate();
    assert_fails(node.apply(&[], start));
    assert_fails(node.apply(&[(3, "10.96.0.3")], start));
    assert_fails(node.apply(&[(1, "10.96.0.11")], start));
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.1", "10.96.0.2"], "the last good rules stay");
    node.kernel.rejects_all = false;
    let result = node.apply(&[], start);
    assert_eq!((isolated(&result), result.error), (vec![], None));
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.11", "10.96.0.2", "10.96.0.3"]);

    // The same at the start, when the kernel has the table of a previous process.
    let mut node = Node::new();
    node.kernel.cluster_ips = vec!["10.96.0.1".to_owned()];
    node.kernel.rejects_all = true;
    assert_fails(node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start));
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.1"]);
    node.kernel.rejects_all = false;
    assert_eq!(node.apply(&[], start).error, None);
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.1", "10.96.0.2"]);
}

#[test]
fn search_is_limited_continues_and_removes_no_service() {
    let (mut node, start) = (Node::new(), Instant::now());
    let ips: Vec<String> = (0..600).map(|n| format!("10.97.{}.{}", n / 250, n % 250)).collect();
    let services: Vec<(usize, &str)> = ips.iter().map(String::as_str).enumerate().collect();
    let rejected: Vec<&str> = ips[..300].iter().map(String::as_str).collect();

    // A committed table keeps its Services during the search, and other changes are written.
    node.apply(&services[300..], start);
    node.reject(&rejected);
    let result = node.apply(&services[..300], start);
    assert!(node.kernel.attempts <= MAX_ATTEMPTS, "{} attempts", node.kernel.attempts);
    let error = result.error.expect("the search is not complete").to_string();
    assert!(error.contains("the search for them continues"), "{error}");
    assert_eq!(node.kernel.cluster_ips.len(), 300);
    assert!(node.sync.next_due(start).is_some_and(|due| due <= start), "it continues immediately");
    node.apply(&[(700, "10.96.0.7")], start);
    assert!(node.serves("10.96.0.7"));
    let mut syncs = 0;
    while node.apply(&[], start).error.is_some() {
        syncs += 1;
        assert!(syncs < 3000, "the search ends");
    }
    assert_eq!(node.apply(&[], start).isolated.len(), 300);
    assert_eq!(node.kernel.cluster_ips.len(), 301);

    // The table of a previous process stays until the search is complete.
    let mut node = Node::new();
    node.reject(&rejected);
    node.kernel.cluster_ips = ips.clone();
    assert!(node.apply(&services, start).error.is_some());
    assert_eq!(node.kernel.cluster_ips.len(), 600);
    assert!(node.apply(&[(700, "10.96.0.7")], start).error.is_some());
    assert_eq!(node.kernel.cluster_ips.len(), 600);
    while node.apply(&[], start).error.is_some() {
        syncs += 1;
        assert!(syncs < 3000, "the search ends");
    }
    assert_eq!(node.kernel.cluster_ips.len(), 301);
}

/// The changes of one sync are written in batches: small Services first, then large ones, each batch limited.
#[test]
fn large_services_are_written_after_all_others() {
    let (mut node, start) = (Node::new(), Instant::now());
    node.apply(&[(1, "10.96.0.1")], start);
    let before = node.kernel.commits.len();
    let large = [(11, 9000), (12, 7000), (13, 9500), (14, 200)];
    large.into_iter().for_each(|(n, endpoints)| node.add_large_service(n, endpoints));
    let mut result = node.apply(&[(2, "10.96.0.2"), (1, "10.96.1.1")], start);
    while !result.deferred.is_empty() {
        assert!(node.sync.next_due(start).is_some_and(|due| due <= start), "it continues immediately");
        result = node.apply(&[], start);
    }
    assert_eq!((isolated(&result), result.error), (vec![], None));
    let commits: Vec<Vec<String>> = node.kernel.commits.drain(before..).collect();
    let added =
        |commit: &Vec<String>| commit.iter().filter(|ip| ip.starts_with("10.96.0.1")).cloned().collect();
    let mut added: Vec<Vec<String>> = commits.iter().map(added).collect();
    added.dedup();
    assert_eq!(
        added,
        [
            vec!["10.96.0.12", "10.96.0.14"],
            vec!["10.96.0.11", "10.96.0.12", "10.96.0.14"],
            vec!["10.96.0.11", "10.96.0.12", "10.96.0.13", "10.96.0.14"]
        ]
    );
    assert!(["10.96.0.2", "10.96.1.1"].iter().all(|ip| commits[0].iter().any(|served| served == ip)));

    // A rejected one is isolated, and the next ones are written.
    node.reject(&["10.96.0.21"]);
    [(21, 9000), (22, 9100), (23, 9200)]
        .into_iter()
        .for_each(|(n, endpoints)| node.add_large_service(n, endpoints));
    let mut result = node.apply(&[(3, "10.96.0.3")], start);
    while !result.deferred.is_empty() {
        result = node.apply(&[], start);
    }
    assert_eq!((isolated(&result), result.error), (vec!["ns/s21".to_owned()], None));
    assert!(["10.96.0.3", "10.96.0.22", "10.96.0.23"].iter().all(|ip| node.serves(ip)));
}

#[test]
fn rejected_chain_is_removed_with_its_service() {
    let (mut node, start) = (Node::new(), Instant::now());
    node.kernel.rejected_chains = Some("affinity-update-ips-10800");
    node.add_affinity_service("10.1.1.1");
    let result = node.apply(&[(1, "10.96.0.1"), (3, "10.96.0.3")], start);
    assert_eq!((isolated(&result), result.error), (vec!["ns/s02".to_owned()], None));
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.1", "10.96.0.3"]);
}

/// A new table after a change of settings keeps the last good version of a Service whose desired version is rejected.
#[test]
fn new_table_keeps_the_last_good_version() {
    let (mut node, start) = (Node::new(), Instant::now());
    node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start);
    node.reject(&["10.96.0.66"]);
    node.apply(&[(1, "10.96.0.66")], start);
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.1", "10.96.0.2"]);
    let options = Options { masquerade_all: true, ..Options::default() };
    node.sync.reconfigure(Settings::new(Family::V4, &options, &NodeFacts::default()));
    let result = node.apply(&[], start);
    assert_eq!((isolated(&result), result.error), (vec!["ns/s01".to_owned()], None));
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.1", "10.96.0.2"]);
}

#[test]
fn failed_writes_are_repeated() {
    let (mut node, start) = (Node::new(), Instant::now());
    node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start);
    node.kernel.is_busy = true;
    assert!(node.apply(&[(2, "10.96.0.3")], start).error.is_some());
    node.sync.invalidate();
    assert!(node.apply(&[(3, "10.96.0.4")], start).error.is_some(), "restoring fails, too");
    assert_eq!(node.sync.next_due(start), None, "the caller repeats failed syncs");
    node.kernel.is_busy = false;
    // One of the changes that were held back is rejected: the search finds it without a new change.
    node.reject(&["10.96.0.4"]);
    let result = node.apply(&[], start);
    assert_eq!((isolated(&result), result.error), (vec!["ns/s03".to_owned()], None));
    assert_eq!(node.kernel.cluster_ips, ["10.96.0.1", "10.96.0.3"]);
}
