//! Changes of the tables of nftables mode by another process: after one sync they are restored, and nothing is isolated.
//!
//! `nft` lists the table before and after, so the comparison does not depend on our own decoding.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../netlink/tests/external_changes/mod.rs"]
mod external_changes;
#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::time::Instant;

use external_changes::{Object, Verb};
use portcullis_cluster::desired::{Desired, DirtyServices};
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object as ApiObject};
use portcullis_modes::nftables::{NftablesProxier, TABLE};
use portcullis_modes::{Mode, NodeFacts, Options};
use portcullis_netlink::nf_tables::{self, TableFamily};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

const FAMILIES: [TableFamily; 2] = [TableFamily::Ip, TableFamily::Ip6];

/// The most syncs until everything is restored: one for the changes, and one for pending removals.
const MAX_SYNCS: usize = 2;

struct Node {
    index: Index,
    dirty: DirtyServices,
    desired: Desired,
    proxier: NftablesProxier,
}

impl Node {
    fn new() -> Self {
        let socket = nf_tables::open().expect("root").expect("a kernel with nf_tables");
        let facts =
            NodeFacts { node_ips: Box::new(["192.168.10.11".parse().unwrap()]), ..NodeFacts::default() };
        let proxier = NftablesProxier::new(Options::default(), facts, &Family::BOTH, socket);
        let (index, desired) = (Index::new(), Desired::new(Name::new("node-a")));
        let mut node = Node { index, dirty: DirtyServices::default(), desired, proxier };
        node.add_service(
            "web",
            1,
            3,
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24"],
            "externalIPs": ["203.0.113.9"]}),
        );
        node.add_service("local", 2, 2, json!({"type": "NodePort", "externalTrafficPolicy": "Local"}));
        node.add_service("sticky", 3, 2, json!({"sessionAffinity": "ClientIP"}));
        node.add_service("empty", 4, 0, json!({"type": "NodePort"}));
        node.sync();
        node
    }

    fn handle(&mut self, kind: Kind, object: Value) {
        let object = ApiObject::parse(kind, object).expect("a valid object").object;
        self.dirty.extend(self.index.handle(Event::Applied(object)));
    }

    /// Adds a Service of both families.
    fn add_service(&mut self, name: &str, number: usize, endpoints: usize, spec: Value) {
        for (kind, prefix) in [("IPv4", "10.244.1."), ("IPv6", "fd00:1::")] {
            let endpoints: Vec<Value> = (0..endpoints)
                .map(|n| {
                    json!({"addresses": [format!("{prefix}{}", number * 10 + n)],
                        "nodeName": if n == 0 { "node-a" } else { "node-b" }})
                })
                .collect();
            self.handle(
                Kind::EndpointSlice,
                json!({"metadata": {"name": format!("{name}-{}", kind.to_lowercase()),
                    "namespace": "x", "labels": {"kubernetes.io/service-name": name}},
                "addressType": kind, "ports": [{"port": 8080}], "endpoints": endpoints}),
            );
        }
        let mut service = json!({"metadata": {"name": name, "namespace": "x"}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": format!("203.0.113.{number}")}]}}});
        service["spec"]["clusterIPs"] = json!([format!("10.96.0.{number}"), format!("fd00:96::{number}")]);
        service["spec"]["ports"] = json!([{"port": 80, "nodePort": 30_000 + number}]);
        self.handle(Kind::Service, service);
    }

    /// Writes the changes of Services, and asserts that it succeeds without an isolated Service.
    fn sync(&mut self) {
        let changes = self.desired.update(&self.index, std::mem::take(&mut self.dirty));
        for result in self.proxier.sync(&self.desired, &changes) {
            assert!(result.error.is_none() && result.isolated.is_empty(), "{result:?}");
        }
    }

    /// Restores what another process changed.
    fn restore(&mut self) {
        self.proxier.note_external_change();
        for _ in 0..MAX_SYNCS {
            self.proxier.check_drift();
            self.sync();
        }
    }

    /// Waits for pending removals.
    fn settle(&mut self) {
        while let Some(due) = self.proxier.next_due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.sync();
        }
    }
}

fn listed() -> String {
    FAMILIES.map(|family| external_changes::listed(family, TABLE)).concat()
}

#[test]
fn every_verb_on_every_object_is_restored() {
    namespace::inside(|| {
        let mut node = Node::new();
        node.settle();
        let before = listed();
        // The random changes include the table of IPv6.
        let accepted = external_changes::apply_all(TableFamily::Ip, TABLE, |script| {
            node.restore();
            let after = listed();
            assert!(after == before, "after {script}:\n{}", external_changes::difference(&before, &after));
        });
        // Verbs that this version of nft has.
        for object in Object::ALL {
            let verbs: &[Verb] = match object {
                Object::Ruleset => &[Verb::Flush],
                Object::Table => &[Verb::Add, Verb::Delete, Verb::Flush],
                Object::Chain => &[Verb::Add, Verb::Create, Verb::Delete, Verb::Flush, Verb::Rename],
                Object::Rule => &[Verb::Add, Verb::Insert, Verb::Replace, Verb::Delete],
                Object::Set | Object::Element => &[Verb::Add, Verb::Create, Verb::Delete],
                // The table has no counters of ours.
                Object::Counter | Object::Quota | Object::Limit => &[Verb::Add],
                // The kernel may lack their modules.
                _ => &[],
            };
            for verb in verbs {
                assert!(accepted.contains(&(*verb, object)), "nft rejects all changes: {verb:?} {object:?}");
            }
        }
    });
}

/// Other processes change the tables several times, also while Services change, and before the kernel's notification arrives.
#[test]
fn random_changes_are_restored_and_isolate_nothing() {
    let change = (0..2usize, external_changes::changes(), any::<bool>(), 0..5usize);
    let config = ProptestConfig {
        cases: 24,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    namespace::inside(|| {
        let node = std::cell::RefCell::new(Node::new());
        TestRunner::new(config)
            .run(&change, |(family, changes, is_noticed, endpoints)| {
                let mut node = node.borrow_mut();
                node.settle();
                let scripts: Vec<String> = changes
                    .into_iter()
                    .filter_map(|change| external_changes::apply(change, FAMILIES[family], TABLE))
                    .collect();
                if !is_noticed {
                    node.add_service("changing", 5, endpoints, json!({"type": "NodePort"}));
                    node.sync();
                }
                node.restore();
                node.settle();
                let after = listed();
                let changing = node.changing();
                let fresh = namespace::inside(|| {
                    let mut fresh = Node::new();
                    if let Some(endpoints) = changing {
                        fresh.add_service("changing", 5, endpoints, json!({"type": "NodePort"}));
                        fresh.sync();
                    }
                    fresh.settle();
                    listed()
                });
                prop_assert!(
                    after == fresh,
                    "after {scripts:#?}:\n{}",
                    external_changes::difference(&fresh, &after)
                );
                Ok(())
            })
            .unwrap();
    });
}

impl Node {
    /// Returns the number of endpoints of the Service that changes, if it exists.
    fn changing(&self) -> Option<usize> {
        let name = portcullis_cluster::NamespacedName::new("x", "changing");
        self.index.service(&name)?;
        self.index.slices_of(&name).first().map(|slice| slice.endpoints.len())
    }
}
