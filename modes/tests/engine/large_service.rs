//! Tests of a Service with more rules than one restore of the nft tool should have.

use portcullis_modes::Mode;
use portcullis_modes::iptables::Flavour;

use crate::cluster::{Cluster, Drawn};
use crate::fake_kernel::FakeKernel;
use crate::{Rules, all_well, desired_rules, proxier, rules_in_kernel, same, service};

/// The largest acceptable restore: the target size, plus the last port that exceeds it.
const LARGEST: usize = 6_100;

fn ports(ports: u16, endpoints: u8) -> Drawn {
    Drawn { ports, ..service(endpoints) }
}

/// In a large cluster new rules have no comments on endpoints, while older Services keep theirs.
fn without_comments(mut rules: Rules) -> Rules {
    for rule in
        rules.iter_mut().filter(|((_, chain), _)| chain.starts_with("KUBE-S")).flat_map(|(_, rules)| rules)
    {
        let Some((before, comment)) = rule.split_once("-m comment --comment \"") else { continue };
        let (_, after) = comment.split_once("\" ").expect("a comment ends");
        *rule = format!("{before}{after}");
    }
    rules
}

fn holds(kernel: &FakeKernel, cluster: &Cluster, what: &str) {
    let (held, wanted) =
        (without_comments(rules_in_kernel(kernel)), without_comments(desired_rules(cluster)));
    same(&held, &wanted).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// With the nft tool each restore has the rules of some ports only, whatever causes the write.
#[test]
fn a_large_service_is_written_in_parts() {
    let (kernel, mut cluster) = (FakeKernel::new(Flavour::Nft), Cluster::new());
    let mut proxier = proxier(&kernel);
    let mut changes = cluster.set(0, Some(&service(3)));
    changes.extend(cluster.set(1, Some(&ports(300, 255))));
    changes.extend(cluster.set(2, Some(&service(3))));
    all_well(&proxier.sync(&cluster.desired, &changes));
    holds(&kernel, &cluster, "at the first sync");
    let progress = proxier.progress().expect("it takes a while").now();
    assert_eq!((progress.services, progress.written), (3, 3));
    for (what, drawn) in [
        ("each port has another endpoint", ports(300, 127)),
        ("each port has other endpoints", ports(300, 240)),
        ("half of its ports are gone", ports(150, 240)),
        ("they come back", ports(300, 255)),
        ("one port more", ports(301, 255)),
        ("it has no endpoints", ports(301, 0)),
    ] {
        let changes = cluster.set(1, Some(&drawn));
        all_well(&proxier.sync(&cluster.desired, &changes));
        holds(&kernel, &cluster, what);
    }
    let changes = cluster.set(1, None);
    all_well(&proxier.sync(&cluster.desired, &changes));
    holds(&kernel, &cluster, "it is deleted");
    let largest = kernel.state().largest;
    assert!(largest <= LARGEST, "a restore of {largest} lines");
}

/// If the tool rejects one port after it accepted others, the Service keeps its last rules, or has none.
#[test]
fn a_large_service_with_a_rejected_port_is_isolated_as_a_whole() {
    for (names_lines, served_before) in [(true, false), (true, true), (false, false), (false, true)] {
        let (kernel, mut cluster) = (FakeKernel::new(Flavour::Nft), Cluster::new());
        kernel.state().names_lines = names_lines;
        let mut proxier = proxier(&kernel);
        let mut before = Cluster::new();
        let mut changes = cluster.set(0, Some(&service(3)));
        before.set(0, Some(&service(3)));
        if served_before {
            changes.extend(cluster.set(1, Some(&ports(300, 15))));
            before.set(1, Some(&ports(300, 15)));
        }
        all_well(&proxier.sync(&cluster.desired, &changes));
        // Only the endpoints of the middle port listen there.
        kernel.state().rejected.insert("8230".into());
        kernel.state().rejected.extend((200..208).map(|at| format!("10.{at}.0.2:8230")));
        let changes = cluster.set(1, Some(&ports(300, 240)));
        let results = proxier.sync(&cluster.desired, &changes);
        assert_eq!(
            (results[0].isolated.len(), &results[0].error),
            (1, &None),
            "{names_lines} {served_before}"
        );
        kernel.state().rejected.clear();
        assert!(proxier.sync(&cluster.desired, &[])[0].error.is_none());
        holds(&kernel, &before, "what it had");
        let mended = cluster.set(1, Some(&ports(299, 240)));
        all_well(&proxier.sync(&cluster.desired, &mended));
        holds(&kernel, &cluster, "mended");
    }
}

/// Where the tool takes longer to list the rules than to write them, they are written again, and another process is not blamed.
#[test]
fn rules_that_are_costly_to_list_are_written_again() {
    let (kernel, mut cluster) = (FakeKernel::new(Flavour::Nft), Cluster::new());
    let changes = cluster.set(0, Some(&ports(30, 7)));
    all_well(&proxier(&kernel).sync(&cluster.desired, &changes));
    let mut restarted = proxier(&kernel);
    let (lines, listed) = {
        let mut state = kernel.state();
        state.is_costly_to_list = true;
        (state.restores, state.listed)
    };
    let results = restarted.sync(&cluster.desired, &[]);
    all_well(&results);
    holds(&kernel, &cluster, "after a restart");
    assert!(kernel.state().restores > lines, "everything is written again");
    assert_eq!(kernel.state().listed, listed, "no rule of our chains is listed");

    // Another process changes a chain: it is found by the number of rules, and repaired.
    kernel.change_externally(|tables| {
        let chains = tables.get_mut(&portcullis_modes::iptables::Table::Nat).expect("a table");
        chains.get_mut("KUBE-SERVICES").expect("a chain").clear();
    });
    assert!(restarted.check_drift());
    all_well(&restarted.sync(&cluster.desired, &[]));
    holds(&kernel, &cluster, "after an external change");
    assert_eq!(kernel.state().listed, listed);

    // A missing chain is evidence of a change, also without its rules.
    kernel.change_externally(|tables| {
        let chains = tables.get_mut(&portcullis_modes::iptables::Table::Nat).expect("a table");
        chains.get_mut("PREROUTING").expect("a chain").clear();
        chains.get_mut("OUTPUT").expect("a chain").clear();
        chains.remove("KUBE-SERVICES");
    });
    assert!(restarted.check_drift());
    let results = restarted.sync(&cluster.desired, &[]);
    all_well(&results);
    assert_eq!(results.iter().map(|result| result.restored).sum::<usize>(), 3, "{results:?}");
    holds(&kernel, &cluster, "after a chain was deleted");
}
