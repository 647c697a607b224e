//! Tests of the runner itself: it accepts rules that enforce the tables, and reports every connection that differs.

use std::collections::BTreeSet;

use portcullis_lab::{EchoPort, Family};

use crate::case::Case;
use crate::enforcement::{Daemons, Enforcement, RulesFromTables};
use crate::runner::{StepResult, Times, run, run_all};
use crate::test_cluster::TestCluster;

/// Returns all failures, as `x/a → y/b 80/TCP IPv4: must be allowed; …`.
fn failures(results: &[StepResult]) -> BTreeSet<String> {
    results.iter().flat_map(|result| &result.failures).cloned().collect()
}

#[test]
fn runner_reports_exactly_the_connections_that_differ_from_the_tables() {
    let case = Case::parse(include_str!("self_test.yaml"));
    let mut cluster = TestCluster::up("network-policy", std::slice::from_ref(&case), &[]);
    let mut run = |enforcement: &mut dyn Enforcement| {
        let mut times = Times::default();
        let results = run(&mut cluster, &case, enforcement, &mut times);
        println!("{times:?}");
        results
    };
    let right = run(&mut RulesFromTables { mistakes: Vec::new() });
    // The second step's table lacks pods on purpose.
    let unlisted = ["x/b", "x/c", "y/a", "y/b", "y/c", "z/a"].map(str::to_owned);
    assert_eq!(failures(&right), BTreeSet::from(unlisted.clone()), "{}{}", right[0].table, right[1].table);

    let tcp = EchoPort::tcp(80);
    let mistakes = vec![("x/a", "x/c", tcp, Family::V4), ("z/a", "z/b", tcp, Family::V6)];
    let wrong = run(&mut RulesFromTables { mistakes });
    let found = failures(&wrong);
    let expected = [
        "x/a → x/c 80/TCP IPv4: must be denied",
        "x/a → x/s-x-c 80/TCP IPv4: must be denied",
        "z/a → z/b 80/TCP IPv6: must be allowed",
        "z/a → z/s-z-b 80/TCP IPv6: must be allowed",
    ];
    let others: Vec<&String> = found.iter().filter(|line| !unlisted.contains(line)).collect();
    assert_eq!(others.len(), expected.len(), "{others:#?}");
    for (line, expected) in others.into_iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
}

/// Without enforcement, all denied connections of tables and flows are reported.
#[test]
fn runner_reports_all_denied_connections_without_enforcement() {
    let case = Case::parse(include_str!("self_test.yaml"));
    let mut cluster = TestCluster::up("network-policy", std::slice::from_ref(&case), &[]);
    let results = run(&mut cluster, &case, &mut Daemons, &mut Times::default());
    let found = failures(&results[..1]);
    // Three cells, each also through a Service, and five flows.
    assert_eq!(found.len(), 3 * 2 + 5, "{found:#?}");
    assert!(found.iter().all(|line| line.contains("denied") || line.contains("\"deny\"")), "{found:#?}");
}

/// Cases by folder that need more than tables of running pods: pods that start, finish or wait, hosts outside, the host
/// network, Services, and established connections.
const UNCOMMON: [(&str, &[&str]); 2] = [
    (
        "network-policy",
        &[
            "action-005-action-create-pod-delete-pod",
            "edge-010-ipblock-names-pods",
            "edge-023-host-network-source",
            "edge-025-node-to-its-own-pods",
            "edge-027-service-port-is-not-the-pod-port",
            "edge-030-replies-pass",
            "edge-031-policy-meets-open-connection",
            "edge-032-finished-pod-shares-an-address",
            "edge-034-address-comes-later",
            "edge-042-single-stack-pod",
        ],
    ),
    ("cluster-network-policy", &["cnp-002-admin-tier-egress-node-peers"]),
];

#[test]
fn every_kind_of_case_can_be_run() {
    for (corpus, names) in UNCOMMON {
        let mut cases = Case::all_of(corpus);
        cases.retain(|case| names.contains(&case.name.as_str()));
        assert_eq!(cases.len(), names.len());
        run_all(corpus, &cases, &[], 2, || Box::new(RulesFromTables { mistakes: Vec::new() }));
    }
}
