//! Policies whose rules a real kernel rejects: they are found one by one, and all others are enforced.
//!
//! A transport invalidates the rules with some port before the kernel sees them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
mod support;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use portcullis_cluster::Name;
use portcullis_netlink::nf_tables::{Table, TableFamily};
use portcullis_netlink::socket::{Datagram, KernelTransport, SocketOptions, Transport, with_transports};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{self, Enforcer, PolicyOptions, RejectedPolicies, SearchStep};
use portcullis_policy::{Compiler, Scope};
use serde_json::json;
use support::CompiledCluster;

/// The port whose rules are rejected.
const BAD: u16 = 6666;

/// A transport that gives the value of comparisons with [`BAD`] an attribute type that the kernel does not know.
#[derive(Debug)]
struct Invalidating {
    kernel: KernelTransport,
    is_active: Arc<AtomicBool>,
}

impl Transport for Invalidating {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let [high, low] = BAD.to_be_bytes();
        // NFTA_DATA_VALUE with two bytes.
        let value = [6, 0, 1, 0, high, low];
        let mut sent = bytes.to_vec();
        if self.is_active.load(Relaxed) {
            let found: Vec<usize> =
                (0..sent.len()).filter(|at| sent[*at..].starts_with(&value)).map(|at| at + 2).collect();
            found.into_iter().for_each(|at| sent[at] = 15);
        }
        self.kernel.send(&sent)
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, is_nonblocking: bool) -> io::Result<Datagram> {
        self.kernel.receive(buffer, is_nonblocking)
    }

    fn wait(&self, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.kernel.wait(other)
    }

    fn options(&self) -> &dyn SocketOptions {
        &self.kernel
    }
}

struct Node {
    cluster: CompiledCluster,
    compiler: Compiler,
    enforcer: Enforcer,
    rejected: RejectedPolicies,
    was_committed: bool,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        let mut cluster = CompiledCluster::new(&[]);
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": "a", "labels": {"app": "a"}},
            "spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": "10.244.1.10"}]}}));
        Node {
            cluster,
            compiler: Compiler::new(Scope::Node(Name::new("n"))),
            enforcer: Enforcer::open(PolicyOptions::default()).unwrap(),
            rejected: RejectedPolicies::default(),
            was_committed: false,
            now: Instant::now(),
        }
    }

    fn allow(&mut self, policy: &str, port: u16) {
        self.cluster.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": policy},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]}}));
    }

    /// Syncs as the daemon does, until no further sync is needed.
    fn sync(&mut self) {
        for _ in 0..100 {
            self.rejected.prepare(&mut self.compiler, self.now);
            let dirty: DirtyPolicyObjects = self.cluster.take_dirty();
            let changes = self.compiler.update(&self.cluster.index, &dirty);
            self.enforcer.apply(&changes, self.compiler.compiled());
            let is_incomplete = !self.was_committed && self.rejected.is_searching();
            let result = match is_incomplete {
                true => self.enforcer.validate(),
                false => self.enforcer.sync(self.compiler.compiled()).map(drop),
            };
            match result {
                Ok(()) => {
                    self.rejected.accepted(&mut self.compiler, self.now);
                    self.was_committed |= !is_incomplete;
                    if !is_incomplete && !self.rejected.is_searching() {
                        return;
                    }
                }
                Err(error) => {
                    assert!(self.enforcer.may_be_caused_by_policy(&error), "{error}");
                    let step = self.rejected.rejected(&mut self.compiler, error.to_string());
                    assert_eq!(step, SearchStep::HeldBack, "{error}");
                }
            }
        }
        panic!("the search ends");
    }

    fn found(&self) -> Vec<(String, String)> {
        self.rejected.all().map(|(id, reason)| (id.policy.to_string(), reason.to_owned())).collect()
    }
}

fn kernel_table() -> Option<Table> {
    table::read(TableFamily::Inet).unwrap().map(|(table, _)| table)
}

/// Returns the rules of a policy in the kernel.
fn rules(policy: &str) -> Vec<String> {
    let table = kernel_table().expect("a table");
    let prefix = format!("policy-in-x/{policy}-");
    let (_, chain) = table.chains.iter().find(|(name, _)| name.starts_with(&prefix)).expect("its chain");
    chain.rules.iter().map(ToString::to_string).collect()
}

/// Runs a test in a network namespace, with a kernel that rejects [`BAD`] as long as the flag is set.
fn inside_invalidating(test: impl FnOnce(&AtomicBool) + Send + 'static) {
    let is_active = Arc::new(AtomicBool::new(true));
    let active = Arc::clone(&is_active);
    let open =
        move |request: &portcullis_netlink::socket::OpenRequest<'_>| -> io::Result<Box<dyn Transport>> {
            let kernel = request.open_in_kernel().map_err(io::Error::other)?;
            Ok(Box::new(Invalidating { kernel, is_active: Arc::clone(&active) }))
        };
    namespace::inside(move || with_transports(open, || test(&is_active)));
}

#[test]
fn rejected_policies_are_found_and_all_others_are_enforced() {
    inside_invalidating(|is_active| {
        let mut node = Node::new();
        [2, 3, 5, 6].into_iter().for_each(|n| node.allow(&format!("p{n}"), if n == 3 { BAD } else { 80 }));
        node.sync();
        let found = node.found();
        assert!(found.len() == 1 && found[0].0 == "NetworkPolicy x/p3", "{found:?}");
        assert!(found[0].1.contains("a rule of chain policy-in-x/p3-"), "{found:?}");
        assert_eq!((rules("p3").len(), rules("p2").len()), (0, 1), "it isolates its pods");

        // A policy with an accepted version keeps it, while others change.
        [("p5", BAD), ("p6", 81)].into_iter().for_each(|(name, port)| node.allow(name, port));
        node.sync();
        assert_eq!(node.found().len(), 2);
        assert!(rules("p5")[0].contains("80") && rules("p6")[0].contains("81"), "{:?}", rules("p6"));

        is_active.store(false, Relaxed);
        node.now += Duration::from_secs(31);
        node.sync();
        assert_eq!(node.found(), []);
        assert!(["p3", "p5"].iter().all(|name| rules(name)[0].contains("6666")));
    });
}

#[test]
fn rejected_policy_of_many_is_found_and_all_others_are_enforced() {
    inside_invalidating(|is_active| {
        let mut node = Node::new();
        // A profile with 20 policies is evaluated by classes, whose chains have the rules of several policies.
        (0..20).for_each(|n| node.allow(&format!("p{n}"), if n == 7 { BAD } else { 80 + 2 * n }));
        node.sync();
        let found = node.found();
        assert!(found.len() == 1 && found[0].0 == "NetworkPolicy x/p7", "{found:?}");
        let ports = || {
            let table = kernel_table().expect("a table");
            let (_, set) = table.sets.iter().find(|(name, _)| name.starts_with("ports-")).expect("a set");
            set.element_lines().collect::<Vec<String>>()
        };
        let expected: Vec<String> = (0..20).filter(|n| *n != 7).map(|n| (80 + 2 * n).to_string()).collect();
        assert_eq!(ports(), expected);

        is_active.store(false, Relaxed);
        node.now += Duration::from_secs(31);
        node.sync();
        assert_eq!(node.found(), []);
        assert_eq!(ports().len(), 20);
    });
}
