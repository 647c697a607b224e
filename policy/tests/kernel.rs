//! The tables of all policy fixtures in a real kernel: each step is one commit, after which the kernel's tables equal the
//! desired ones. The cases follow one another in one test, because each starts with the tables of the previous one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod corpus;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;

use namespace::{inside, run};
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_netlink::nf_tables::{ChangeCounts, TableFamily};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{DropLog, Enforcer, PolicyOptions, UnknownPods};
use portcullis_policy::{Compiler, Scope};
use serde_json::Value;

fn apply(index: &mut Index, dirty: &mut DirtyPolicyObjects, value: &Value) {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let kind = Kind::from_api(text("apiVersion"), text("kind")).expect("a kind that we use");
    dirty.extend(index.handle(Event::Applied(Object::parse(kind, value.clone()).expect("an object").object)));
}

/// Applies all cases one after another. Each case starts with the tables that the previous one left.
fn apply_all_cases(folder: &str, options: &PolicyOptions) {
    let corpus = corpus::read(folder);
    inside(|| {
        let mut enforcer = Enforcer::open(options.clone()).unwrap();
        let mut compiler = Compiler::new(Scope::Node(Name::new("node-1")));
        let mut bytes = 0;
        for case in &corpus.cases {
            let (mut index, mut dirty) = (Index::new(), DirtyPolicyObjects::default());
            corpus.cluster.iter().for_each(|object| apply(&mut index, &mut dirty, object));
            compiler = Compiler::new(compiler.scope().clone());
            for (n, step) in case.steps.iter().enumerate() {
                let place = format!("{} step {}", case.name, n + 1);
                step.apply.iter().for_each(|object| apply(&mut index, &mut dirty, object));
                for gone in &step.delete {
                    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == gone.kind).unwrap();
                    let namespace = if kind.namespaced() { gone.namespace.as_str() } else { "" };
                    let name = NamespacedName::new(namespace, &gone.name);
                    dirty.extend(index.handle(Event::Deleted(ObjectKey { kind, name })));
                }
                let changes = compiler.update(&index, &std::mem::take(&mut dirty));
                if n == 0 {
                    // A new daemon finds the tables of the previous one.
                    enforcer = Enforcer::open(options.clone()).unwrap();
                }
                enforcer.apply(&changes, compiler.compiled());
                let committed =
                    enforcer.sync(compiler.compiled()).unwrap_or_else(|error| panic!("{place}: {error}"));
                assert!(!committed.replaced, "{place}: {committed:?}");
                assert_eq!(committed.full, n == 0, "{place}");
                assert_eq!(enforcer.check().unwrap(), ChangeCounts::default(), "{place}");
                bytes = bytes.max(committed.bytes);
            }
        }
        assert!(bytes > 1000, "something was written");
        let listed = run("nft list table inet portcullis-policy");
        assert!(listed.contains("hook postrouting"), "{listed}");
        assert_eq!(Enforcer::remove().unwrap(), [TableFamily::Inet, TableFamily::Bridge]);
    });
}

#[test]
fn kernel_holds_the_tables_of_all_network_policy_cases() {
    apply_all_cases(corpus::NETWORK_POLICY, &PolicyOptions::default());
}

#[test]
fn kernel_holds_the_tables_of_all_cluster_network_policy_cases_with_all_options() {
    let ranges = vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()];
    let log = Some(DropLog { group: 5, rate: 10 });
    let options = PolicyOptions {
        log,
        unknown_pods: UnknownPods::Deny { ranges },
        audit: false,
        terminates_connections: true,
        observed: Some(6),
    };
    apply_all_cases(corpus::CLUSTER_NETWORK_POLICY, &options);
    apply_all_cases(corpus::CLUSTER_NETWORK_POLICY, &PolicyOptions { audit: true, ..options });
}
