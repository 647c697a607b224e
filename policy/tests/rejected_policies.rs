//! The search for policies that a kernel rejects: exactly these are found, all others are enforced meanwhile, and nothing is
//! allowed that no version of a policy allows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use portcullis_cluster::Name;
use portcullis_policy::compile::{
    CompiledPolicies, DirtyPolicyObjects, PolicyId, RuleAction, RulePorts, RulesId,
};
use portcullis_policy::table::{RejectedPolicies, SearchStep};
use portcullis_policy::{Compiler, Scope};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::CompiledCluster;

/// A kernel that rejects rules with some ports.
struct Node {
    cluster: CompiledCluster,
    compiler: Compiler,
    rejected: RejectedPolicies,
    rejected_ports: BTreeSet<u16>,
    /// It rejects all tables.
    rejects_all: bool,
    /// The number of next tables that it rejects.
    rejects_next: usize,
    /// The ports of each policy in the kernel.
    kernel: BTreeMap<RulesId, Vec<u16>>,
    was_committed: bool,
    now: Instant,
    syncs: usize,
}

fn ports(compiled: &CompiledPolicies) -> BTreeMap<RulesId, Vec<u16>> {
    let numbers = |id: &RulesId| {
        let rules = compiled.rules_of(id).iter();
        rules.flat_map(|rule| match &rule.ports {
            // The rule that denies everything.
            RulePorts::Any => vec![0],
            RulePorts::Listed { numeric, .. } => {
                (1..2000).filter(|port| numeric.tcp.contains(*port)).collect::<Vec<u16>>()
            }
        })
    };
    compiled.rules().map(|(id, _)| (id.clone(), numbers(id).collect())).collect()
}

impl Node {
    fn new() -> Self {
        let mut cluster = CompiledCluster::new(&[]);
        for name in ["a", "b"] {
            cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "x", "name": name, "labels": {"app": name}},
                "spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": format!("10.0.0.{}", name.as_bytes()[0])}]}}));
        }
        Node {
            cluster,
            compiler: Compiler::new(Scope::Node(Name::new("n"))),
            rejected: RejectedPolicies::default(),
            rejected_ports: BTreeSet::new(),
            rejects_all: false,
            rejects_next: 0,
            kernel: BTreeMap::new(),
            was_committed: false,
            now: Instant::now(),
            syncs: 0,
        }
    }

    /// Adds a NetworkPolicy that allows a port, for the pods with a label.
    fn allow(&mut self, policy: usize, port: u16, app: &str) {
        self.cluster.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": format!("p{policy:03}")},
            "spec": {"podSelector": {"matchLabels": {"app": app}}, "ingress": [{"ports": [{"port": port}]}]}}));
    }

    /// Adds a ClusterNetworkPolicy with one rule.
    fn cluster_policy(&mut self, name: &str, action: &str, port: u16) {
        let protocols: Value = json!([{"tcp": {"destinationPort": {"number": port}}}]);
        self.cluster.apply(&json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name}, "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "ingress": [{"action": action, "from": [{"namespaces": {}}], "protocols": protocols}]}}));
    }

    /// Runs one sync as the daemon does. Returns true if another is needed immediately; fails if no policy is the cause.
    fn sync(&mut self, touched: &DirtyPolicyObjects) -> Result<bool, ()> {
        self.syncs += 1;
        self.rejected.prepare(&mut self.compiler, self.now);
        self.compiler.update(&self.cluster.index, touched);
        let table = ports(self.compiler.compiled());
        let has_rejected = table.values().flatten().any(|port| self.rejected_ports.contains(port));
        let rejects_any = self.rejects_all || self.rejects_next > 0;
        self.rejects_next = self.rejects_next.saturating_sub(1);
        if has_rejected || rejects_any {
            return match self.rejected.rejected(&mut self.compiler, "no".to_owned()) {
                SearchStep::HeldBack => Ok(true),
                SearchStep::NoPolicy => Err(()),
            };
        }
        let is_incomplete = !self.was_committed && self.rejected.is_searching();
        self.rejected.accepted(&mut self.compiler, self.now);
        if is_incomplete {
            return Ok(true);
        }
        self.was_committed = true;
        self.kernel = table;
        Ok(self.rejected.next_due(self.now) == Some(self.now))
    }

    fn sync_all(&mut self) -> Result<(), ()> {
        let mut touched = self.cluster.take_dirty();
        while self.sync(&touched)? {
            touched = DirtyPolicyObjects::default();
            assert!(self.syncs < 10_000, "the search ends");
        }
        Ok(())
    }

    /// Returns the numbers of the rejected policies.
    fn found(&self) -> Vec<String> {
        self.rejected.all().map(|(id, _)| name(id)).collect()
    }

    fn kernel_ports(&self, policy: &str) -> Option<&[u16]> {
        self.kernel.iter().find(|(id, _)| name(id) == policy).map(|(_, ports)| &**ports)
    }
}

fn name(id: &RulesId) -> String {
    match &id.policy {
        PolicyId::Network(key) => key.name.to_string(),
        PolicyId::Cluster(name) => name.to_string(),
    }
}

const BAD: u16 = 666;

/// The kernel rejects everything for a while. Whenever that ends, also in the middle of the search, no policy is found.
#[test]
fn rejections_that_end_during_the_search_find_no_policy() {
    for policies in [1, 3] {
        for rejections in 1..9 {
            let mut node = Node::new();
            (0..policies).for_each(|n| node.allow(n, 80, "a"));
            node.sync_all().unwrap();
            (0..policies).for_each(|n| node.allow(n, 81, "a"));
            node.rejects_next = rejections;
            // A sync that fails without a cause is retried.
            while node.sync_all().is_err() {}
            assert_eq!(node.found(), Vec::<String>::new(), "{policies} policies, {rejections} rejections");
            for n in 0..policies {
                assert_eq!(
                    node.kernel_ports(&format!("p{n:03}")),
                    Some(&[81][..]),
                    "{policies}, {rejections}"
                );
            }
        }
    }
}

#[test]
fn rejected_policy_keeps_its_last_rules_and_all_others_are_enforced() {
    let mut node = Node::new();
    node.rejected_ports = BTreeSet::from([BAD]);
    (0..50).for_each(|n| node.allow(n, 80, "a"));
    node.sync_all().unwrap();
    assert_eq!(node.syncs, 1);

    // Policies with an earlier version keep it, new ones isolate their pods, and others change.
    [(3, BAD), (50, BAD), (4, 81)].into_iter().for_each(|(n, port)| node.allow(n, port, "a"));
    node.sync_all().unwrap();
    assert_eq!(node.found(), ["p003", "p050"]);
    for (policy, expected) in [("p003", &[80][..]), ("p050", &[]), ("p004", &[81]), ("p005", &[80])] {
        assert_eq!(node.kernel_ports(policy), Some(expected), "{policy}");
    }
    // While they wait, changes of other policies need one sync.
    let before = node.syncs;
    node.allow(5, 82, "a");
    node.sync_all().unwrap();
    assert_eq!((node.syncs - before, node.kernel_ports("p005")), (1, Some(&[82][..])));

    // One is changed; the kernel accepts the other at its retry.
    node.allow(50, 83, "a");
    node.sync_all().unwrap();
    assert_eq!((node.found(), node.kernel_ports("p050")), (vec!["p003".to_owned()], Some(&[83][..])));
    node.rejected_ports.clear();
    node.sync_all().unwrap();
    assert_eq!(node.kernel_ports("p003"), Some(&[80][..]), "it is not due yet");
    node.now += Duration::from_secs(31);
    node.sync_all().unwrap();
    assert_eq!((node.found(), node.kernel_ports("p003")), (vec![], Some(&[BAD][..])));
}

/// The last accepted rules were written for other pods: they might allow what no version of the policy allows.
#[test]
fn rejected_policy_for_other_pods_isolates_them() {
    let mut node = Node::new();
    node.rejected_ports = BTreeSet::from([BAD]);
    node.allow(1, 80, "a");
    node.sync_all().unwrap();
    node.allow(1, BAD, "b");
    node.sync_all().unwrap();
    assert_eq!((node.found(), node.kernel_ports("p001")), (vec!["p001".to_owned()], Some(&[][..])));
}

#[test]
fn rejected_cluster_network_policy_allows_nothing_that_it_might_deny() {
    for (action, expected) in [("Deny", &[0][..]), ("Pass", &[0]), ("Accept", &[])] {
        let mut node = Node::new();
        node.rejected_ports = BTreeSet::from([BAD]);
        node.cluster_policy("guard", action, BAD);
        node.sync_all().unwrap();
        assert_eq!(
            (node.found(), node.kernel_ports("guard")),
            (vec!["guard".to_owned()], Some(expected)),
            "{action}"
        );
        let denies = node.compiler.compiled().rules().flat_map(|(_, rules)| rules.iter());
        assert!(denies.into_iter().all(|rule| rule.action == RuleAction::Deny));
    }
}

#[test]
fn no_policy_is_rejected_if_the_kernel_rejects_the_table_without_it() {
    let mut node = Node::new();
    node.allow(1, 80, "a");
    node.sync_all().unwrap();
    let before = node.kernel.clone();
    node.rejects_all = true;
    [(1, 81), (2, 82)].into_iter().for_each(|(n, port)| node.allow(n, port, "a"));
    assert_eq!(node.sync_all(), Err(()));
    assert_eq!((node.found(), &node.kernel), (vec![], &before));
    node.allow(3, 83, "a");
    assert_eq!(node.sync_all(), Err(()));
    assert_eq!((node.found(), &node.kernel), (vec![], &before));
    node.rejects_all = false;
    node.sync_all().unwrap();
    assert_eq!(node.found(), Vec::<String>::new());
    assert_eq!(["p001", "p002", "p003"].map(|name| node.kernel_ports(name).unwrap()[0]), [81, 82, 83]);
}

/// The table of a previous process stays until the search is complete.
#[test]
fn incomplete_table_is_not_written() {
    let mut node = Node::new();
    node.rejected_ports = BTreeSet::from([BAD]);
    (0..30).for_each(|n| node.allow(n, if n == 7 { BAD } else { 80 }, "a"));
    let mut touched = node.cluster.take_dirty();
    while node.sync(&touched).unwrap() {
        assert!(node.kernel.is_empty(), "after {} syncs", node.syncs);
        touched = DirtyPolicyObjects::default();
    }
    assert_eq!((node.found(), node.kernel.len()), (vec!["p007".to_owned()], 30));
    assert!(node.syncs < 25, "bisected, not tried one by one: {}", node.syncs);
}

/// A rejected batch proves nothing about its other policies after one of them changed.
#[test]
fn policy_is_not_the_cause_if_another_of_its_batch_changed() {
    let mut node = Node::new();
    node.rejected_ports = BTreeSet::from([BAD]);
    node.allow(0, 80, "a");
    node.sync_all().unwrap();
    [(1, 80), (2, BAD)].into_iter().for_each(|(n, port)| node.allow(n, port, "a"));
    let touched = node.cluster.take_dirty();
    assert_eq!(node.sync(&touched), Ok(true), "both are held back");
    node.allow(2, 81, "a");
    node.sync_all().unwrap();
    assert_eq!(node.found(), Vec::<String>::new());
    assert_eq!(["p001", "p002"].map(|name| node.kernel_ports(name).unwrap()[0]), [80, 81]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Policies change while the search runs. At each moment the kernel has an accepted version of each policy, or none of its
    /// rules; in the end exactly the rejected policies lack their desired version.
    #[test]
    fn exactly_the_rejected_policies_are_found(
        rejected in btree_set(1..40u16, 0..6),
        rounds in proptest::collection::vec((btree_map(0..25usize, 1..40u16, 1..15), 0..6usize), 1..6),
    ) {
        let mut node = Node::new();
        node.rejected_ports = rejected.clone();
        let mut desired: BTreeMap<String, u16> = BTreeMap::new();
        let mut versions: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
        for (changes, syncs) in rounds {
            for (policy, port) in changes {
                node.allow(policy, port, "a");
                let name = format!("p{policy:03}");
                desired.insert(name.clone(), port);
                versions.entry(name).or_default().insert(port);
            }
            let mut touched = node.cluster.take_dirty();
            for _ in 0..=syncs {
                node.sync(&touched).expect("a policy is the cause");
                touched = DirtyPolicyObjects::default();
                for (id, ports) in &node.kernel {
                    prop_assert!(ports.iter().all(|port| versions[&name(id)].contains(port) && !rejected.contains(port)));
                }
            }
        }
        node.sync_all().expect("a policy is the cause");
        let expected: Vec<String> =
            desired.iter().filter(|(_, port)| rejected.contains(*port)).map(|(name, _)| name.clone()).collect();
        prop_assert_eq!(node.found(), expected);
        for (policy, port) in &desired {
            if !rejected.contains(port) {
                prop_assert_eq!(node.kernel_ports(policy), Some(&[*port][..]));
            }
        }
    }
}
