//! The search for rejected Services: Services of other kinds are served early, and none that is served is interrupted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_modes::iptables::{Flavour, IptablesProxier, Table};
use portcullis_modes::{Mode, SyncResult};

use crate::cluster::{Cluster, Drawn};
use crate::fake_kernel::{Chains, FakeKernel};
use crate::{all_well, desired_rules, proxier, rules_in_kernel, same, service};

/// The number of Services.
const COUNT: usize = 120;

/// Every tenth Service has session affinity.
fn has_affinity(n: usize) -> bool {
    n.is_multiple_of(10)
}

fn drawn(n: usize, endpoints: u8) -> Drawn {
    Drawn { affinity: has_affinity(n), ..service(endpoints) }
}

/// Returns the numbers of the Services to which a rule for their cluster IP leads.
fn served(nat: &Chains) -> BTreeSet<usize> {
    let rules = nat.get("KUBE-SERVICES").into_iter().flatten();
    let name = |rule: &str| rule.split_once("\"ns/svc-")?.1.split(':').next()?.parse().ok();
    rules.filter_map(|rule| name(rule)).collect()
}

/// Lets later syncs complete a search.
fn finish_search(proxier: &mut IptablesProxier, cluster: &Cluster, results: &mut Vec<SyncResult>) {
    for _ in 0..1000 {
        if results[0].error.is_some() {
            *results = proxier.sync(&cluster.desired, &[]);
        }
    }
}

/// A tool without the match `recent` rejects a tenth of the Services. The others are served by the second or third restore with
/// Services, whatever the rejected ones cost.
#[test]
fn services_of_other_kinds_are_served_early() {
    for names_lines in [true, false] {
        let kernel = FakeKernel::new(Flavour::Legacy);
        let mut cluster = Cluster::new();
        let changes: Vec<_> = (0..COUNT).flat_map(|n| cluster.set(n, Some(&drawn(n, 3)))).collect();
        let all_served_after = Arc::new(Mutex::new(None));
        let (found, mut restores) = (Arc::clone(&all_served_after), 0);
        {
            let mut state = kernel.state();
            state.names_lines = names_lines;
            state.rejected.insert("recent".into());
            state.observer = Some(Box::new(move |tables| {
                restores += 1;
                let served = served(&tables[&Table::Nat]);
                if (0..COUNT).all(|n| has_affinity(n) || served.contains(&n)) {
                    found.lock().expect("no panic").get_or_insert(restores);
                }
            }));
        }
        let mut proxier = proxier(&kernel);
        let mut results = proxier.sync(&cluster.desired, &changes);
        finish_search(&mut proxier, &cluster, &mut results);
        let after = all_served_after.lock().expect("no panic").expect("the others are served");
        // The base rules, all Services, perhaps a check that rules are accepted, the others.
        assert!(after <= 4, "names lines: {names_lines}: after {after} restores");
        assert_eq!(
            (results[0].isolated.len(), results[0].error.is_none()),
            (COUNT / 10, true),
            "{names_lines}"
        );
        kernel.state().rejected.clear();
        let mended: Vec<_> = (0..COUNT).flat_map(|n| cluster.set(n, Some(&drawn(n, 7)))).collect();
        all_well(&proxier.sync(&cluster.desired, &mended));
        same(&rules_in_kernel(&kernel), &desired_rules(&cluster)).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A daemon that starts again finds the rules of the last one. While it searches for rejected Services, also in later syncs, the others
/// keep their rules, whether they have changed meanwhile or not.
#[test]
fn search_after_a_restart_interrupts_no_service() {
    // An endpoint of each rejected Service: only the chain of that endpoint is rejected.
    let endpoints = ["10.202.0.2", "10.200.0.121"];
    // The names of the Services: rules that jump to their chains are rejected, too.
    let names = ["ns/svc-1", "ns/svc-120"];
    // The words, whether lines are named, the number of changed Services, and the time of a restore in milliseconds.
    for (flavour, words, names_lines, changed, takes) in [
        (Flavour::Legacy, endpoints, false, 3, 0),
        (Flavour::Legacy, endpoints, true, 3, 0),
        (Flavour::Legacy, endpoints, false, COUNT, 0),
        (Flavour::Legacy, endpoints, false, COUNT, 3_000),
        (Flavour::Legacy, names, false, 3, 0),
        (Flavour::Nft, endpoints, false, COUNT, 0),
        (Flavour::Nft, endpoints, false, COUNT, 3_000),
        (Flavour::Nft, names, false, 3, 0),
    ] {
        let case = format!("{flavour:?} {words:?} {names_lines} {changed} {takes}");
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let changes: Vec<_> = (0..COUNT).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
        all_well(&proxier(&kernel).sync(&cluster.desired, &changes));

        for n in 0..changed {
            drop(cluster.set(n, Some(&service(7))));
        }
        // A new Service makes the shared chains change, and is rejected; so is one that has changed.
        let new = COUNT;
        drop(cluster.set(new, Some(&service(3))));
        let rejected = [1, new];
        let interrupted = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&interrupted);
        {
            let mut state = kernel.state();
            state.names_lines = names_lines;
            state.rejected = words.map(str::to_owned).into();
            state.restore_takes = Duration::from_millis(takes);
            state.observer = Some(Box::new(move |tables| {
                let served = served(&tables[&Table::Nat]);
                // A Service that has changed may be the cause if rules of shared chains are rejected.
                let first = if words == names { changed } else { 0 };
                let is_missing = |n: &usize| !rejected.contains(n) && !served.contains(n);
                seen.lock().expect("no panic").extend((first..COUNT).filter(is_missing));
            }));
        }
        let mut proxier = proxier(&kernel);
        let mut results = proxier.sync(&cluster.desired, &[]);
        assert!(takes == 0 || results[0].error.is_some(), "{case}: the search is not complete");
        kernel.state().restore_takes = Duration::ZERO;
        finish_search(&mut proxier, &cluster, &mut results);
        assert_eq!(*interrupted.lock().expect("no panic"), BTreeSet::new(), "{case}: interrupted");
        assert_eq!((results[0].error.is_none(), results[0].isolated.len()), (true, 2), "{case}");
        kernel.state().rejected.clear();
        let mended: Vec<_> = rejected.into_iter().flat_map(|n| cluster.set(n, Some(&service(5)))).collect();
        all_well(&proxier.sync(&cluster.desired, &mended));
        // Chains of the rejected Services that were not known to be unneeded are removed by the next complete comparison.
        all_well(&crate::proxier(&kernel).sync(&cluster.desired, &[]));
        same(&rules_in_kernel(&kernel), &desired_rules(&cluster))
            .unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

/// Comparisons of all rules, which changes of other processes cause, neither restart a search nor delay it.
#[test]
fn comparison_of_all_rules_continues_a_search() {
    for flavour in [Flavour::Legacy, Flavour::Nft] {
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let changes: Vec<_> = (0..COUNT).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
        {
            let mut state = kernel.state();
            state.names_lines = false;
            state.rejected = ["ns/svc-1".to_owned(), "ns/svc-70".to_owned()].into();
            state.restore_takes = Duration::from_secs(4);
        }
        let mut proxier = proxier(&kernel);
        let mut results = proxier.sync(&cluster.desired, &changes);
        assert!(results[0].error.is_some(), "{flavour:?}: the search is not complete");
        // An attempt takes longer than the search of a sync.
        kernel.state().restore_takes = Duration::from_millis(if flavour == Flavour::Nft { 1_100 } else { 0 });
        let mut syncs = 0;
        while results[0].error.is_some() {
            kernel.change_externally(|tables| {
                let nat = tables.get_mut(&Table::Nat).expect("a built-in table");
                nat.entry("MINE".to_owned()).or_default().push("-j RETURN".to_owned());
            });
            proxier.check_drift();
            results = proxier.sync(&cluster.desired, &[]);
            syncs += 1;
            assert!(syncs < 60, "{flavour:?}: the search does not end: {results:?}");
            kernel.state().restore_takes = Duration::ZERO;
        }
        assert_eq!(results[0].isolated.len(), 2, "{flavour:?}");
    }
}
