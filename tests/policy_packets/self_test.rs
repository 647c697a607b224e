//! The runner itself: it is content with what enforces the tables, and names every connection that does not go by them.

use std::collections::BTreeSet;

use portcullis_lab::{EchoPort, Family};

use crate::case::Case;
use crate::enforcer::{ByTheTables, Daemons, Enforcer};
use crate::run::{Times, Verdict, run, run_all};
use crate::town::Town;

/// The connections of which the verdicts complain, as `x/a → y/b 80/TCP IPv4: allowed`, by what must be.
fn complaints(verdicts: &[Verdict]) -> BTreeSet<String> {
    verdicts.iter().flat_map(|verdict| &verdict.complaints).cloned().collect()
}

#[test]
fn the_runner_sees_what_goes_by_the_tables_and_what_does_not() {
    let case = Case::parse(include_str!("self_test.yaml"));
    let mut town = Town::up("network-policy", std::slice::from_ref(&case), &[]);
    let mut run = |enforcer: &mut dyn Enforcer| {
        let mut times = Times::default();
        let verdicts = run(&mut town, &case, enforcer, &mut times);
        println!("{times:?}");
        verdicts
    };
    let right = run(&mut ByTheTables { mistakes: Vec::new() });
    // The second step's table has not all pods, on purpose.
    let unlisted = ["x/b", "x/c", "y/a", "y/b", "y/c", "z/a"].map(str::to_owned);
    assert_eq!(complaints(&right), BTreeSet::from(unlisted.clone()), "{}{}", right[0].table, right[1].table);

    let tcp = EchoPort::tcp(80);
    let mistakes = vec![("x/a", "x/c", tcp, Family::V4), ("z/a", "z/b", tcp, Family::V6)];
    let wrong = run(&mut ByTheTables { mistakes });
    let found = complaints(&wrong);
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

/// Without an enforcer all that is denied is found to be open, tables and flows alike.
#[test]
fn the_runner_sees_that_nothing_is_enforced() {
    let case = Case::parse(include_str!("self_test.yaml"));
    let mut town = Town::up("network-policy", std::slice::from_ref(&case), &[]);
    let verdicts = run(&mut town, &case, &mut Daemons, &mut Times::default());
    let found = complaints(&verdicts[..1]);
    // Three cells, each also through its Service, and five flows.
    assert_eq!(found.len(), 3 * 2 + 5, "{found:#?}");
    assert!(found.iter().all(|line| line.contains("denied") || line.contains("\"deny\"")), "{found:#?}");
}

/// By corpus, the cases that need more than tables of the pods that are there: others that come, end or wait, hosts
/// outside, the host network, Services, and connections that last.
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
        run_all(corpus, &cases, &[], 2, || Box::new(ByTheTables { mistakes: Vec::new() }));
    }
}
