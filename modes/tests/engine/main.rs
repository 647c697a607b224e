//! Property tests of the iptables proxier on a fake kernel: after any sequence of events, the kernel holds the desired
//! rules.

mod cluster;
mod external_changes;
mod fake_kernel;
mod large_service;
mod rejection_search;
mod tool_errors;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Cluster, Drawn, drawn, name_of};
use fake_kernel::FakeKernel;
use portcullis_cluster::Family;
use portcullis_cluster::desired::ServiceChange;
use portcullis_modes::iptables::{
    Flavour, IptablesFeatures, IptablesKernel, IptablesProxier, RuleSet, Table,
};
use portcullis_modes::{Mode, SyncErrorKind, SyncResult};
use portcullis_modes::{NodeFacts, Options};
use proptest::prelude::*;

/// The largest number of Services in a test.
const SERVICES: usize = 12;

type Rules = BTreeMap<(Table, String), Vec<String>>;

fn options() -> Options {
    Options::default()
}

fn host() -> NodeFacts {
    NodeFacts { iptables: IptablesFeatures { random_fully: true, nfacct: false }, ..NodeFacts::default() }
}

fn proxier(kernel: &FakeKernel) -> IptablesProxier {
    let kernel: Box<dyn IptablesKernel> = Box::new(kernel.clone());
    IptablesProxier::new(options(), host(), [(Family::V4, kernel)])
}

/// Returns the rules of a kernel, with those of shared chains sorted: the order of Services has no meaning.
fn rules_in_kernel(kernel: &FakeKernel) -> Rules {
    let state = kernel.state();
    let chains = state.tables.iter().flat_map(|(table, chains)| {
        chains.iter().map(|(name, rules)| ((*table, name.clone()), rules.clone()))
    });
    chains.map(sorted_if_shared).collect()
}

fn desired_rules(cluster: &Cluster) -> Rules {
    let set = RuleSet::render(&cluster.desired, Family::V4, &options(), &host());
    let chains = set.tables.into_iter().flat_map(|(table, chains)| {
        chains.into_iter().map(move |(name, lines)| {
            let prefix = format!("-A {name} ");
            let rule = |line: String| line.strip_prefix(&prefix).expect("a line of its chain").to_owned();
            ((table, name), lines.into_iter().map(rule).collect())
        })
    });
    chains.map(sorted_if_shared).collect()
}

/// Fails with the chains that differ.
fn same(held: &Rules, wanted: &Rules) -> Result<(), TestCaseError> {
    let names: std::collections::BTreeSet<_> = held.keys().chain(wanted.keys()).collect();
    let differ = names.into_iter().filter(|name| held.get(*name) != wanted.get(*name));
    let differ: Vec<_> = differ.map(|name| (name, held.get(name), wanted.get(name))).collect();
    prop_assert!(differ.is_empty(), "held, wanted: {differ:#?}");
    Ok(())
}

fn sorted_if_shared(
    ((table, name), mut rules): ((Table, String), Vec<String>),
) -> ((Table, String), Vec<String>) {
    const SHARED: [&str; 4] =
        ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"];
    if table.built_in().contains(&name.as_str()) {
        // A restored jump is at the top, as with kube-proxy.
        rules.sort();
    }
    if SHARED.contains(&name.as_str()) {
        // The jump to node ports must stay last.
        let tail = rules.last().filter(|rule| rule.contains("must be the last")).is_some();
        let of_services = rules.len() - usize::from(tail);
        assert!(!rules[..of_services].iter().any(|rule| rule.contains("must be the last")), "{rules:#?}");
        rules[..of_services].sort();
    }
    ((table, name), rules)
}

fn all_well(results: &[SyncResult]) {
    for result in results {
        assert!(result.error.is_none() && result.isolated.is_empty(), "{result:?}");
    }
}

/// An event in a test.
#[derive(Clone, Debug)]
enum Step {
    /// Services are set or deleted, and a sync follows.
    Change(Vec<(usize, Option<Drawn>)>),
    /// Another process empties a chain, deletes one with its rules, or adds a rule at the top of one.
    Meddle(usize, u8),
    /// The next restores fail for lack of the lock.
    Lock(usize),
    /// The process restarts.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..SERVICES, proptest::option::weighted(0.8, drawn()));
    prop_oneof![
        8 => proptest::collection::vec(change, 1..5).prop_map(Step::Change),
        2 => (any::<usize>(), 0..3u8).prop_map(|(chain, how)| Step::Meddle(chain, how)),
        1 => (1..3usize).prop_map(Step::Lock),
        1 => Just(Step::Restart),
    ]
}

fn flavour() -> impl Strategy<Value = Flavour> {
    prop_oneof![Just(Flavour::Nft), Just(Flavour::Legacy)]
}

/// Syncs until it succeeds, as the daemon does.
fn sync_until_success(proxier: &mut IptablesProxier, cluster: &Cluster, changes: &[ServiceChange]) {
    let mut results = proxier.sync(&cluster.desired, changes);
    for _ in 0..5 {
        if results.iter().all(|r| r.error.is_none()) {
            break;
        }
        results = proxier.sync(&cluster.desired, &[]);
    }
    all_well(&results);
}

fn change_externally(kernel: &FakeKernel, which: usize, how: u8) {
    kernel.change_externally(|tables| {
        let chains: Vec<(Table, String)> = tables
            .iter()
            .flat_map(|(table, chains)| chains.keys().map(|name| (*table, name.clone())))
            .filter(|(_, name)| name.starts_with("KUBE-"))
            .collect();
        let Some((table, name)) = chains.get(which % chains.len().max(1)) else { return };
        let chains = tables.get_mut(table).expect("it was just there");
        match how {
            0 => chains.get_mut(name).expect("it was just there").clear(),
            1 => {
                chains.remove(name);
                let jump = format!("-j {name}");
                chains.values_mut().for_each(|rules| rules.retain(|rule| !rule.ends_with(&jump)));
            }
            _ => chains.get_mut(name).expect("it was just there").insert(0, "-s 192.0.2.1/32 -j DROP".into()),
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(100)))]

    #[test]
    fn kernel_holds_the_desired_rules_after_any_events(flavour in flavour(), steps in proptest::collection::vec(step(), 1..15)) {
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let mut proxier = proxier(&kernel);
        sync_until_success(&mut proxier, &cluster, &[]);
        for step in steps {
            match step {
                Step::Change(services) => {
                    let sets = services.iter().flat_map(|(n, drawn)| cluster.set(*n, drawn.as_ref()));
                    let changes: Vec<_> = sets.collect();
                    sync_until_success(&mut proxier, &cluster, &changes);
                }
                Step::Meddle(chain, how) => {
                    change_externally(&kernel, chain, how);
                    // Emptying an empty chain is no drift.
                    let changed = rules_in_kernel(&kernel) != desired_rules(&cluster);
                    prop_assert!(proxier.check_drift() || !changed);
                    sync_until_success(&mut proxier, &cluster, &[]);
                    prop_assert!(!proxier.check_drift(), "drift is restored");
                }
                Step::Lock(times) => kernel.state().locked = times,
                Step::Restart => {
                    proxier = self::proxier(&kernel);
                    sync_until_success(&mut proxier, &cluster, &[]);
                }
            }
            if kernel.state().locked == 0 {
                same(&rules_in_kernel(&kernel), &desired_rules(&cluster))?;
            }
        }
    }

    /// A rejected Service does not affect other Services: they are served as if it did not exist.
    #[test]
    fn rejected_services_do_not_affect_other_services(
        flavour in flavour(),
        names_lines in any::<bool>(),
        services in proptest::collection::vec(drawn(), 2..SERVICES),
        bad in proptest::collection::btree_set(0..SERVICES, 1..3),
        at_once in any::<bool>(),
    ) {
        let kernel = FakeKernel::new(flavour);
        kernel.state().names_lines = names_lines;
        kernel.state().rejected = bad.iter().map(|n| format!("ns/{}", name_of(*n))).collect();
        let (mut all, mut good) = (Cluster::new(), Cluster::new());
        let mut proxier = proxier(&kernel);
        if at_once {
            all_well(&proxier.sync(&all.desired, &[]));
        }
        let mut changes = Vec::new();
        for (n, drawn) in services.iter().enumerate() {
            changes.extend(all.set(n, Some(drawn)));
            if !bad.contains(&n) {
                good.set(n, Some(drawn));
            }
        }
        let results = proxier.sync(&all.desired, &changes);
        prop_assert!(results[0].error.is_none(), "{:?}", results);
        let isolated: Vec<String> = results[0].isolated.iter().map(|i| i.service.to_string()).collect();
        let guilty: Vec<String> = (0..services.len()).filter(|n| bad.contains(n)).map(|n| format!("ns/{}", name_of(n))).collect();
        let mut sorted = guilty.clone();
        sorted.sort();
        prop_assert_eq!(isolated, sorted);
        prop_assert!(results[0].isolated.iter().all(|isolated| !isolated.has_rules), "none was accepted before");
        same(&rules_in_kernel(&kernel), &desired_rules(&good))?;

        // Once corrected, they are served.
        kernel.state().rejected.clear();
        let mended: Vec<_> = bad.iter().filter(|n| **n < services.len()).flat_map(|n| {
            let mut gone = all.set(*n, None);
            gone.extend(all.set(*n, Some(&services[*n])));
            gone
        }).collect();
        sync_until_success(&mut proxier, &all, &mended);
        same(&rules_in_kernel(&kernel), &desired_rules(&all))?;
    }
}

/// Many changes are written in another way than few, with the same result.
#[test]
fn many_changes_have_the_same_result_as_few() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let mut proxier = proxier(&kernel);
        all_well(&proxier.sync(&cluster.desired, &[]));
        let drawn = |endpoints| Drawn {
            ports: 1,
            endpoints,
            node_port: true,
            load_balancer: false,
            ranges: false,
            local: false,
            affinity: false,
        };
        for endpoints in [1, 3, 0, 2] {
            let changes: Vec<_> = (0..600).flat_map(|n| cluster.set(n, Some(&drawn(endpoints)))).collect();
            all_well(&proxier.sync(&cluster.desired, &changes));
            assert_eq!(rules_in_kernel(&kernel), desired_rules(&cluster), "{flavour:?} {endpoints}");
        }
        let changes: Vec<_> = (0..600).flat_map(|n| cluster.set(n, None)).collect();
        all_well(&proxier.sync(&cluster.desired, &changes));
        assert_eq!(rules_in_kernel(&kernel), desired_rules(&cluster), "{flavour:?} none");
    }
}

fn service(endpoints: u8) -> Drawn {
    Drawn {
        ports: 1,
        endpoints,
        node_port: false,
        load_balancer: false,
        ranges: false,
        local: false,
        affinity: false,
    }
}

/// A sync searches for a limited time. The next one continues, and writes other changes first.
#[test]
fn search_for_rejected_services_does_not_delay_other_changes() {
    // The number of Services, the time of a restore in milliseconds, and the most restores of a sync: an incremental search has one
    // second, or five with the legacy tool; that of a bulk write ten.
    let rows = [
        (64, 200, 8, Flavour::Nft),
        (64, 1_000, 8, Flavour::Legacy),
        (600, 2_500, 12, Flavour::Nft),
        (600, 2_500, 12, Flavour::Legacy),
    ];
    for (services, restore_takes, max_restores, flavour) in rows {
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let mut proxier = proxier(&kernel);
        all_well(&proxier.sync(&cluster.desired, &[]));
        {
            let mut state = kernel.state();
            state.names_lines = false;
            state.rejected = [7, 40].map(|n| format!("ns/{}", name_of(n))).into();
            state.restore_takes = Duration::from_millis(restore_takes);
        }
        let changes: Vec<_> = (0..services).flat_map(|n| cluster.set(n, Some(&service(2)))).collect();
        let before = kernel.state().restores;
        let mut results = proxier.sync(&cluster.desired, &changes);
        let restores = kernel.state().restores - before;
        assert!(restores <= max_restores, "{flavour:?}, {services} Services: {restores} restores");
        kernel.state().restore_takes = Duration::from_millis(restore_takes.min(200));
        let error = results[0].error.as_ref().expect("the search is not complete");
        assert_eq!(error.kind(), SyncErrorKind::SearchIncomplete);
        let error = error.to_string();
        assert!(error.contains("the search for them continues"), "{error}");
        assert!(proxier.next_due().is_some(), "it continues");

        let changes = cluster.set(700, Some(&service(1)));
        results = proxier.sync(&cluster.desired, &changes);
        let name = format!("ns/{}", name_of(700));
        let is_written = rules_in_kernel(&kernel).into_values().flatten().any(|rule| rule.contains(&name));
        assert!(is_written, "another Service is written by the next sync");
        if services > 64 {
            kernel.state().restore_takes = Duration::ZERO;
        }
        let mut syncs = 0;
        while results[0].error.is_some() {
            results = proxier.sync(&cluster.desired, &[]);
            syncs += 1;
            assert!(syncs < 3000, "the search ends");
        }
        assert_eq!(results[0].isolated.len(), 2);
        // With the legacy tool, a comparison follows the writes.
        assert!(proxier.next_due().is_none() || flavour == Flavour::Legacy, "the search is over");
        // The rules are those of all other Services.
        kernel.state().rejected.clear();
        let mended: Vec<_> = [7, 40].into_iter().flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
        all_well(&proxier.sync(&cluster.desired, &mended));
        assert_eq!(rules_in_kernel(&kernel), desired_rules(&cluster), "{flavour:?}, {services} Services");
    }
}

/// If the kernel or its tool rejects everything, no Service is the cause, whatever line the tool names.
#[test]
fn no_service_is_isolated_if_nothing_is_accepted() {
    for (flavour, names_lines, count) in [
        (Flavour::Nft, true, 3),
        (Flavour::Legacy, true, 3),
        (Flavour::Nft, false, 3),
        (Flavour::Nft, true, 600),
    ] {
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let mut proxier = proxier(&kernel);
        all_well(&proxier.sync(&cluster.desired, &[]));
        kernel.state().names_lines = names_lines;
        kernel.state().rejects_all = true;
        let changes: Vec<_> = (0..count).flat_map(|n| cluster.set(n, Some(&service(2)))).collect();
        let results = proxier.sync(&cluster.desired, &changes);
        assert!(
            results[0].error.is_some() && results[0].isolated.is_empty(),
            "{flavour:?} {names_lines} {results:?}"
        );
        kernel.state().rejects_all = false;
        sync_until_success(&mut proxier, &cluster, &[]);
        assert_eq!(rules_in_kernel(&kernel), desired_rules(&cluster));
    }
}

/// An added endpoint costs the chains of that endpoint and of its Service, and no dump.
#[test]
fn small_change_is_a_small_restore() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let kernel = FakeKernel::new(flavour);
        let mut cluster = Cluster::new();
        let changes: Vec<_> = (0..100).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
        let mut proxier = proxier(&kernel);
        all_well(&proxier.sync(&cluster.desired, &changes));
        let before = kernel.state().restores;
        let changes = cluster.set(50, Some(&service(7)));
        let results = proxier.sync(&cluster.desired, &changes);
        all_well(&results);
        assert_eq!(kernel.state().restores, before + 1, "one restore");
        // Two chains declared, two rules of the new endpoint, three jumps to endpoints.
        assert_eq!((results[0].is_full, results[0].written), (false, 7));
    }
}

/// Other processes write to their own chains all the time; with the nft tool that causes no read of the kernel.
#[test]
fn changes_of_other_chains_are_no_drift() {
    let kernel = FakeKernel::new(Flavour::Nft);
    let cluster = Cluster::new();
    let mut proxier = proxier(&kernel);
    all_well(&proxier.sync(&cluster.desired, &[]));
    assert!(!proxier.check_drift());
    kernel.change_externally(|tables| {
        let nat = tables.get_mut(&Table::Nat).expect("it is always there");
        nat.insert("CNI-HOSTPORT".into(), vec!["-j RETURN".into()]);
        nat.get_mut("PREROUTING").expect("it is built in").push("-j CNI-HOSTPORT".into());
    });
    assert!(!proxier.check_drift());
    assert!(proxier.sync(&cluster.desired, &[]).iter().all(|result| !result.is_full));
    kernel.change_externally(|tables| {
        tables
            .get_mut(&Table::Nat)
            .expect("it is always there")
            .get_mut("PREROUTING")
            .expect("built in")
            .remove(0);
    });
    assert!(proxier.check_drift(), "a jump of ours is gone");
}
