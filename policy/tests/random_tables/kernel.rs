//! Updates of the tables in a real kernel.

use portcullis_cluster::Name;
use portcullis_netlink::nf_tables::ChangeCounts;
use portcullis_policy::table::{DropLog, Enforcer, PolicyOptions, TABLE};
use portcullis_policy::{Compiler, Scope};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use crate::namespace::{inside, run};
use crate::random_objects::{Event, NODES};
use crate::{Cluster, batches};

/// Applies batches as a new daemon, which finds the tables of the previous one.
fn apply(options: &PolicyOptions, batches: &[Vec<Event>]) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::default();
    let mut compiler = Compiler::new(Scope::Node(Name::new(NODES[0])));
    let mut enforcer = Enforcer::open(options.clone()).unwrap();
    for (step, batch) in batches.iter().enumerate() {
        let dirty = cluster.handle(batch);
        let changes = compiler.update(&cluster.index, &dirty);
        enforcer.apply(&changes, compiler.compiled());
        let committed = enforcer.sync(compiler.compiled());
        let committed = committed.map_err(|error| TestCaseError::fail(format!("step {step}: {error}")))?;
        prop_assert!(!committed.replaced, "step {step}: {committed:?}");
        // The kernel rejected the changes, or the desired table does not know what it wrote before.
        prop_assert_eq!(committed.full, step == 0, "step {}", step);
        prop_assert_eq!(enforcer.check().unwrap(), ChangeCounts::default(), "step {}", step);
    }
    let listed = run(&format!("nft list table inet {TABLE}"));
    prop_assert!(listed.contains("hook postrouting"), "{}", listed);
    Ok(())
}

#[test]
fn kernel_accepts_and_holds_each_update() {
    let log = Some(DropLog { group: 5, rate: 10 });
    let options = vec![
        PolicyOptions::default(),
        PolicyOptions { log, terminates_connections: true, observed: Some(6), ..PolicyOptions::default() },
    ];
    let config = ProptestConfig {
        cases: ProptestConfig::default().cases.min(48),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    inside(|| {
        let result = TestRunner::new(config)
            .run(&(batches(), select(options)), |(batches, options)| apply(&options, &batches));
        result.unwrap_or_else(|error| panic!("{error}"));
    });
}
