//! Changes of the policies' tables by another process: after one sync they are restored.
//!
//! `nft` lists the tables before and after, so the comparison does not depend on our own decoding.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../netlink/tests/external_changes/mod.rs"]
mod external_changes;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
mod support;

use std::cell::RefCell;

use external_changes::{Object, Verb};
use portcullis_cluster::{Name, NamespacedName};
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_policy::interfaces::PodInterface;
use portcullis_policy::table::{Enforcer, PolicyOptions, TABLE};
use portcullis_policy::{Compiler, Scope};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use support::CompiledCluster;

const FAMILIES: [TableFamily; 2] = [TableFamily::Inet, TableFamily::Bridge];

struct Node {
    cluster: CompiledCluster,
    compiler: Compiler,
    enforcer: Enforcer,
}

impl Node {
    fn new() -> Self {
        let mut cluster = CompiledCluster::new(&[]);
        for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
            cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "x", "name": name, "labels": {"app": name}},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"podIPs": [{"ip": format!("10.244.1.{}", n + 10)}, {"ip": format!("fd00:1::{}", n + 10)}]}}));
        }
        cluster.apply(&json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "guard"}, "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "egress": [{"action": "Deny", "to": [{"networks": ["169.254.169.254/32"]}]}]}}));
        let options = PolicyOptions { terminates_connections: true, ..PolicyOptions::default() };
        let mut node = Node {
            cluster,
            compiler: Compiler::new(Scope::Node(Name::new("n"))),
            enforcer: Enforcer::open(options).unwrap(),
        };
        node.policy("own", 80);
        node.sync();
        node
    }

    fn policy(&mut self, name: &str, port: u16) {
        self.cluster.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": name},
            "spec": {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "b"}}},
                    {"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.7/32"]}}],
                "ports": [{"port": port}, {"port": 90, "endPort": 99}, {"port": "web"}]}]}}));
    }

    fn sync(&mut self) {
        let dirty = self.cluster.take_dirty();
        let changes = self.compiler.update(&self.cluster.index, &dirty);
        self.enforcer.apply(&changes, self.compiler.compiled());
        let interfaces = [PodInterface::new("veth1", 7, &[NamespacedName::new("x", "a")])];
        self.enforcer.set_interfaces(&interfaces, self.compiler.compiled());
        self.enforcer.sync(self.compiler.compiled()).unwrap();
    }

    fn restore(&mut self) {
        self.enforcer.request_full_sync();
        self.sync();
    }
}

fn listed() -> String {
    FAMILIES.map(|family| external_changes::listed(family, TABLE)).concat()
}

#[test]
fn every_verb_on_every_object_is_restored() {
    namespace::inside(|| {
        let mut node = Node::new();
        let before = listed();
        for family in FAMILIES {
            let accepted = external_changes::apply_all(family, TABLE, |script| {
                node.restore();
                let after = listed();
                assert!(
                    after == before,
                    "after {script}:\n{}",
                    external_changes::difference(&before, &after)
                );
            });
            for object in Object::ALL {
                let verbs: &[Verb] = match object {
                    Object::Ruleset => &[Verb::Flush],
                    Object::Table => &[Verb::Add, Verb::Delete, Verb::Flush],
                    Object::Chain => &[Verb::Add, Verb::Create, Verb::Delete, Verb::Flush, Verb::Rename],
                    Object::Rule => &[Verb::Add, Verb::Insert, Verb::Replace, Verb::Delete],
                    Object::Set | Object::Element => &[Verb::Add, Verb::Create, Verb::Delete],
                    Object::Counter => &[Verb::Add, Verb::Reset],
                    Object::Quota | Object::Limit => &[Verb::Add],
                    // nft rejects them for bridges.
                    _ => &[],
                };
                for verb in verbs {
                    let is_accepted = accepted.contains(&(*verb, object));
                    assert!(is_accepted, "nft rejects all changes: {family:?} {verb:?} {object:?}");
                }
            }
        }
    });
}

/// Other processes change the tables several times, also while policies change, and before the kernel's notification arrives.
#[test]
fn random_changes_are_restored() {
    let change = (0..2usize, external_changes::changes(), proptest::option::of(80..90u16));
    let config = ProptestConfig {
        cases: 24,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    namespace::inside(|| {
        let node = RefCell::new(Node::new());
        TestRunner::new(config)
            .run(&change, |(family, changes, port)| {
                let mut node = node.borrow_mut();
                let scripts: Vec<String> = changes
                    .into_iter()
                    .filter_map(|change| external_changes::apply(change, FAMILIES[family], TABLE))
                    .collect();
                if let Some(port) = port {
                    node.policy("own", port);
                    node.sync();
                }
                node.restore();
                let after = listed();
                prop_assert_eq!(node.enforcer.check().unwrap().total(), 0);
                let port = node.port();
                let fresh = namespace::inside(|| {
                    let mut fresh = Node::new();
                    fresh.policy("own", port);
                    fresh.sync();
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
    /// Returns the port that the policy allows.
    fn port(&self) -> u16 {
        let policy = self.cluster.index.network_policies().next().unwrap();
        let ports = policy.ingress.as_ref().unwrap()[0].ports.as_ref().unwrap();
        match ports[0].number {
            portcullis_cluster::network_policy::PortNumber::Range(first, _) => first,
            _ => 0,
        }
    }
}
