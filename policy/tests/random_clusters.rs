//! Properties of random sequences of events: incremental compilation equals compilation from scratch, the reported
//! changes are complete, and connections are evaluated as by the reference evaluation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod naive;
mod random_objects;
mod support;

use naive::NaiveCluster;
use portcullis_cluster::Name;
use portcullis_policy::Scope;
use proptest::prelude::*;
use random_objects::policies::Scale;
use random_objects::{Event, NODES, connection, event, object};
use support::CompiledCluster;

const SCALE: Scale = Scale { names: 3, peers: 2, networks: 2 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2 * ProptestConfig::default().cases))]

    #[test]
    fn incremental_compilation_equals_compilation_from_scratch_and_the_reference_evaluation(
        start in prop::collection::vec(object(SCALE), 0..25),
        batches in prop::collection::vec(prop::collection::vec(event(SCALE), 0..5), 1..8),
        connections in prop::collection::vec(connection(), 40),
    ) {
        let mut cluster = CompiledCluster::new(&NODES);
        let mut naive_cluster = NaiveCluster::default();
        let start = start.into_iter().map(Event::Apply).collect();
        for batch in std::iter::once(start).chain(batches) {
            for event in batch {
                match event {
                    Event::Apply(object) => {
                        cluster.apply(&object);
                        naive_cluster.apply(&object);
                    }
                    Event::Delete(kind, namespace, name) => {
                        cluster.delete(kind, &namespace, &name);
                        naive_cluster.delete(kind.as_str(), &namespace, &name);
                    }
                }
            }
            cluster.update();
            for connection in &connections {
                for node in [None, Some(NODES[0]), Some(NODES[1])] {
                    let scope = node.map_or(Scope::Cluster, |node| Scope::Node(Name::new(node)));
                    let evaluation = cluster.compiled(scope).evaluate(*connection);
                    let naive = naive_cluster.evaluate(node, *connection);
                    prop_assert_eq!(naive::verdicts(&evaluation), naive, "{:?} {:?} {:?}", node, connection, evaluation);
                }
            }
        }
    }
}
