//! Changes of Services with session affinity. For each rule, and for each verdict in a map, the kernel walks all verdicts of a table, so
//! a change that has some costs more with each Service.

use portcullis_netlink::nf_tables::{DataType, Table};

use crate::cluster::{Cluster, RandomService};

/// Returns the chains and the elements of verdict maps.
fn verdicts(table: &Table) -> Vec<String> {
    let is_verdict_map = |data: &[DataType]| data == [DataType::Verdict];
    let maps = table.sets.iter().filter(|(_, set)| is_verdict_map(&set.spec.data));
    let elements = maps.flat_map(|(name, set)| {
        set.elements.iter().map(move |(key, element)| format!("{name}: {}", set.line(&key, &element)))
    });
    let mut verdicts: Vec<String> = elements.collect();
    verdicts.sort();
    verdicts.extend(table.chains.iter().map(|(name, chain)| format!("{name}: {chain}")));
    verdicts
}

#[test]
fn changes_with_session_affinity_need_no_rules_and_no_verdicts() {
    let service = |endpoints| RandomService {
        endpoints,
        external: Some(0),
        node_port: Some(0),
        affinity: true,
        ..RandomService::default()
    };
    let other = |endpoints| RandomService { external: Some(1), node_port: Some(1), ..service(endpoints) };
    let mut cluster = Cluster::new();
    // Services with the same numbers of endpoints exist.
    let three = RandomService { affinity: false, node_port: None, external: None, ..service(0b111) };
    let before =
        cluster.apply(&(vec![(0, Some(service(0b11))), (3, Some(three)), (4, Some(other(0b111)))], 0));
    let rows = [
        ("endpoint replaced", (0, Some(service(0b1001)))),
        ("endpoint added", (0, Some(service(0b1011)))),
        ("endpoint removed", (0, Some(service(0b11)))),
        ("Service added", (1, Some(RandomService { external: None, node_port: None, ..service(0b11) }))),
        ("Service deleted", (1, None)),
    ];
    for (name, change) in rows {
        let elements = |table: &Table| table.sets.values().map(|set| set.elements.len()).sum::<usize>();
        let old = elements(cluster.table.desired());
        let after = cluster.apply(&(vec![change], 0));
        assert_eq!(verdicts(&before), verdicts(&after), "{name}");
        // A replaced endpoint has as many elements.
        assert_eq!(old == elements(&after), name == "endpoint replaced", "{name}");
    }
}
