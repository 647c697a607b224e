//! Errors of the tool of which no Service is the cause.

use portcullis_cluster::Family;
use portcullis_modes::iptables::{Flavour, IptablesFeatures, IptablesKernel, IptablesProxier, Table};
use portcullis_modes::{Mode, NodeFacts};

use crate::cluster::Cluster;
use crate::fake_kernel::FakeKernel;
use crate::{all_well, desired_rules, host, options, proxier, rules_in_kernel, same, service};

/// If nothing is accepted, no Service is the cause: the sync fails.
#[test]
fn tool_that_rejects_everything_isolates_no_service() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let changes: Vec<_> = (0..3).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
        let mut proxier = proxier(&kernel);
        all_well(&proxier.sync(&cluster.desired, &changes));
        let before = rules_in_kernel(&kernel);
        for changed in [1, 2] {
            kernel.state().out_of_memory = true;
            let changes: Vec<_> =
                (0..changed).flat_map(|n| cluster.set(n, Some(&service(7 + changed as u8)))).collect();
            let results = proxier.sync(&cluster.desired, &changes);
            let error = results[0].error.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(error.contains("out of memory"), "{flavour:?}, {changed} changed: {results:?}");
            assert_eq!(results[0].isolated, []);
            assert_eq!(rules_in_kernel(&kernel), before);
            kernel.state().out_of_memory = false;
            all_well(&proxier.sync(&cluster.desired, &[]));
            same(&rules_in_kernel(&kernel), &desired_rules(&cluster))
                .unwrap_or_else(|error| panic!("{error}"));
            let changes: Vec<_> = (0..changed).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
            all_well(&proxier.sync(&cluster.desired, &changes));
        }
    }
}

/// All rules are rejected for a while. Whenever that ends, also in the middle of the search for a cause, no Service is isolated: the
/// next sync, at the latest, writes everything.
#[test]
fn rejections_that_end_during_the_search_isolate_no_service() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        // Few changes, many changes, and a comparison with the kernel.
        for (count, compare) in [(1, false), (3, false), (300, false), (3, true)] {
            for rejections in 1..12 {
                let kernel = FakeKernel::new(flavour);
                let mut cluster = Cluster::new();
                let changes: Vec<_> = (0..count).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
                let mut proxier = proxier(&kernel);
                all_well(&proxier.sync(&cluster.desired, &changes));
                if compare {
                    proxier.check_drift();
                }
                kernel.state().out_of_memory_for = rejections;
                let changes: Vec<_> = (0..count).flat_map(|n| cluster.set(n, Some(&service(7)))).collect();
                let results = proxier.sync(&cluster.desired, &changes);
                let case = format!("{flavour:?}, {count} changed, {compare}, {rejections}");
                assert_eq!(results[0].isolated, [], "{case}");
                kernel.state().out_of_memory_for = 0;
                all_well(&proxier.sync(&cluster.desired, &[]));
                same(&rules_in_kernel(&kernel), &desired_rules(&cluster))
                    .unwrap_or_else(|error| panic!("{case}: {error}"));
            }
        }
    }
}

/// The tool does not delete a chain to which a rule of another process jumps. No Service is isolated for that, and each
/// gets its new rules.
#[test]
fn chain_in_use_by_another_process_isolates_no_service() {
    for (flavour, names_lines) in [(Flavour::Nft, false), (Flavour::Legacy, false), (Flavour::Legacy, true)] {
        // Few changes, many changes, and a comparison with the kernel.
        for (count, compare) in [(3, false), (300, false), (3, true)] {
            let kernel = FakeKernel::new(flavour);
            kernel.state().names_lines = names_lines;
            let mut cluster = Cluster::new();
            let changes: Vec<_> = (0..count).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
            let mut proxier = proxier(&kernel);
            all_well(&proxier.sync(&cluster.desired, &changes));
            kernel.change_externally(|tables| {
                let nat = tables.get_mut(&Table::Nat).expect("a built-in table");
                let ours = nat.keys().filter(|name| name.starts_with("KUBE-SEP-"));
                let rules = ours.map(|name| format!("-j {name}")).collect();
                nat.insert("MINE".to_owned(), rules);
            });
            if compare {
                proxier.check_drift();
            }
            let changes: Vec<_> = (0..count).flat_map(|n| cluster.set(n, Some(&service(1)))).collect();
            let results = proxier.sync(&cluster.desired, &changes);
            all_well(&results);
            assert!(results.iter().all(|result| result.isolated.is_empty() && result.restored == 0));
            let case = format!("{flavour:?} {names_lines} {count} {compare}");
            let left = |kernel: &FakeKernel| {
                let (held, wanted) = (rules_in_kernel(kernel), desired_rules(&cluster));
                assert!(wanted.iter().all(|(chain, rules)| held.get(chain) == Some(rules)), "{case}");
                let left =
                    held.into_iter().filter(|(chain, _)| !wanted.contains_key(chain) && chain.1 != "MINE");
                left.map(|(_, rules)| rules.len()).collect::<Vec<_>>()
            };
            let lost = left(&kernel);
            assert!(!lost.is_empty() && lost.iter().all(|rules| *rules == 0), "emptied: {case}: {lost:?}");
            if count > 3 {
                // A long comparison delays the next one.
                continue;
            }
            kernel.change_externally(|tables| {
                drop(tables.get_mut(&Table::Nat).expect("a built-in table").remove("MINE"))
            });
            proxier.check_drift();
            all_well(&proxier.sync(&cluster.desired, &[]));
            assert_eq!(left(&kernel).len(), 0, "deleted: {case}");
        }
    }
}

/// A tool without the nfacct match costs its counters, not the rules, and is not tried again.
#[test]
fn tool_without_nfacct_gets_rules_without_counters() {
    let kernel = FakeKernel::new(Flavour::Nft);
    kernel.state().rejected.insert("nfacct".into());
    let cluster = Cluster::new();
    let host = NodeFacts { iptables: IptablesFeatures { random_fully: true, nfacct: true }, ..host() };
    let own: Box<dyn IptablesKernel> = Box::new(kernel.clone());
    let mut proxier = IptablesProxier::new(options(), host.clone(), [(Family::V4, own)]);
    all_well(&proxier.sync(&cluster.desired, &[]));
    assert_eq!(rules_in_kernel(&kernel), desired_rules(&cluster));
    let before = kernel.state().restores;
    proxier.reconfigure(options(), host);
    all_well(&proxier.sync(&cluster.desired, &[]));
    assert_eq!(kernel.state().restores, before, "what was learned is kept");
}
