//! Tests of external changes: only chains that another process changed count as restored.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::Family;
use portcullis_cluster::desired::ServiceChange;
use portcullis_modes::Mode;
use portcullis_modes::iptables::{Fingerprint, Flavour, IptablesKernel, IptablesProxier, Table};
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};

use crate::cluster::{Cluster, Drawn};
use crate::fake_kernel::{Chains, FakeKernel};
use crate::{all_well, host, options, rules_in_kernel, service};

/// Node facts with the addresses of the Node object, as the daemon passes them.
fn on(addresses: &[&str]) -> NodeFacts {
    let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
    NodeFacts { node_ips: addresses.clone().into(), addresses: addresses.into(), ..host() }
}

fn primary_only() -> Options {
    Options { node_port_addresses: NodePortAddresses::Primary { localhost: false }, ..options() }
}

/// A change on a node with 40 Services.
type Change = fn(&FakeKernel, &mut IptablesProxier, &mut Cluster);

fn flush_services(kernel: &FakeKernel) {
    kernel.change_externally(|tables| {
        let nat = tables.get_mut(&Table::Nat).expect("it is always there");
        nat.get_mut("KUBE-SERVICES").expect("it was written").clear();
    });
}

#[rustfmt::skip]
const CHANGES: [(&str, usize, Change); 8] = [
    // Name; number of restored objects; the change.
    ("the node gets another address", 0, |_, proxier, _| {
        proxier.reconfigure(primary_only(), on(&["192.0.2.2"]));
    }),
    ("the node's pod CIDR becomes known", 0, |_, proxier, _| {
        let detect_local = DetectLocal::Cidrs(["10.244.1.0/24".parse().expect("a CIDR")].into());
        proxier.reconfigure(Options { detect_local, ..primary_only() }, on(&["192.0.2.1"]));
    }),
    ("the masquerade bit changes twice", 0, |_, proxier, _| {
        proxier.reconfigure(Options { masquerade_bit: 15, ..primary_only() }, on(&["192.0.2.1"]));
        proxier.reconfigure(Options { masquerade_bit: 13, ..primary_only() }, on(&["192.0.2.1"]));
    }),
    ("another process flushes a chain", 1, |kernel, proxier, _| {
        flush_services(kernel);
        assert!(proxier.check_drift());
    }),
    ("another process flushes a chain as the node gets another address", 1, |kernel, proxier, _| {
        flush_services(kernel);
        proxier.reconfigure(primary_only(), on(&["192.0.2.2"]));
    }),
    ("another process flushes a chain, and the tool fails to restore it at first", 1, |kernel, proxier, cluster| {
        flush_services(kernel);
        assert!(proxier.check_drift());
        kernel.state().locked = 1;
        assert!(proxier.sync(&cluster.desired, &[])[0].error.is_some());
    }),
    ("many Services change, and the tool fails to write the last part", 0, |kernel, proxier, cluster| {
        let changes: Vec<_> = (0..600).flat_map(|n| cluster.set(n, Some(&service(7)))).collect();
        // The legacy tool writes everything in one restore.
        kernel.state().locked_after = Some(usize::from(kernel.flavour() == Flavour::Nft));
        assert!(proxier.sync(&cluster.desired, &changes)[0].error.is_some());
    }),
    ("one Service changes, and the tool writes one of two tables", 0, |kernel, proxier, cluster| {
        let changes = cluster.set(0, Some(&Drawn { node_port: true, ..service(0) }));
        kernel.state().locked_at = Some(Table::Nat);
        assert!(proxier.sync(&cluster.desired, &changes)[0].error.is_some());
    }),
];

#[test]
fn only_external_changes_count_as_restored() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let counted = CHANGES.map(|(what, _, change)| {
            let (kernel, mut cluster) = (FakeKernel::new(flavour), Cluster::new());
            let changes: Vec<_> = (0..40)
                .flat_map(|n| cluster.set(n, Some(&Drawn { node_port: n % 2 == 0, ..service(3) })))
                .collect();
            let own: Box<dyn IptablesKernel> = Box::new(kernel.clone());
            let mut proxier = IptablesProxier::new(primary_only(), on(&["192.0.2.1"]), [(Family::V4, own)]);
            all_well(&proxier.sync(&cluster.desired, &changes));
            change(&kernel, &mut proxier, &mut cluster);
            let results = proxier.sync(&cluster.desired, &[]);
            all_well(&results);
            let fresh = FakeKernel::new(flavour);
            let own: Box<dyn IptablesKernel> = Box::new(fresh.clone());
            let (options, host) = (proxier.options().clone(), proxier.node_facts().clone());
            let mut other = IptablesProxier::new(options, host, [(Family::V4, own)]);
            all_well(&other.sync(&cluster.desired, &[]));
            assert_eq!(rules_in_kernel(&kernel), rules_in_kernel(&fresh), "{flavour:?}: {what}");
            (what, results[0].restored)
        });
        assert_eq!(counted, CHANGES.map(|(what, restored, _)| (what, restored)), "{flavour:?}");
    }
}

/// Only comparisons without a finding are limited in time; changes made meanwhile are compared afterwards.
#[test]
fn each_external_change_is_restored_even_if_comparisons_take_long() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let (kernel, mut cluster) = (FakeKernel::new(flavour), Cluster::new());
        kernel.state().dump_takes = Duration::from_millis(600);
        let changes = cluster.set(0, Some(&service(3)));
        let own: Box<dyn IptablesKernel> = Box::new(kernel.clone());
        let mut proxier = IptablesProxier::new(options(), host(), [(Family::V4, own)]);
        all_well(&proxier.sync(&cluster.desired, &changes));
        for time in 1..=2 {
            flush_services(&kernel);
            assert!(proxier.check_drift(), "{flavour:?}: flush {time}");
            let results = proxier.sync(&cluster.desired, &[]);
            all_well(&results);
            assert_eq!(results[0].restored, 1, "{flavour:?}: flush {time}");
        }
        let add_chain = |name: &str| {
            kernel.change_externally(|tables| {
                tables
                    .get_mut(&Table::Nat)
                    .expect("it is always there")
                    .insert(name.to_owned(), vec!["-j RETURN".to_owned()]);
            });
        };
        add_chain("KUBE-KUBELET-CANARY");
        assert!(proxier.check_drift(), "{flavour:?}: the chain may be ours");
        let compared = Instant::now();
        assert!(proxier.sync(&cluster.desired, &[]).iter().all(|r| r.is_full && r.restored == 0));
        assert_eq!(proxier.next_due(), None, "{flavour:?}");
        add_chain("KUBE-FIREWALL");
        assert!(!proxier.check_drift(), "{flavour:?}: the last comparison found nothing");
        let due = proxier.next_due().expect("the comparison is only postponed");
        let wait = due.duration_since(compared);
        assert!(wait > Duration::from_secs(10) && wait < Duration::from_secs(60), "{flavour:?}: {wait:?}");
    }
}

/// A change of another process to the tables.
type TablesChange = fn(&mut Tables);
type Tables = BTreeMap<Table, Chains>;

fn chain<'a>(tables: &'a mut Tables, table: Table, name: &str) -> &'a mut Vec<String> {
    tables.get_mut(&table).expect("it is always there").get_mut(name).expect("it was written")
}

fn flush(tables: &mut Tables, table: Table) {
    tables.get_mut(&table).expect("it is always there").values_mut().for_each(Vec::clear);
}

#[rustfmt::skip]
const DURING_A_SYNC: [(&str, TablesChange); 9] = [
    ("a shared chain is flushed", |tables| chain(tables, Table::Nat, "KUBE-SERVICES").clear()),
    ("table nat is flushed", |tables| flush(tables, Table::Nat)),
    ("table filter is flushed", |tables| flush(tables, Table::Filter)),
    ("a jump is deleted", |tables| drop(chain(tables, Table::Nat, "PREROUTING").remove(0))),
    ("a jump is replaced", |tables| chain(tables, Table::Nat, "PREROUTING")[0] = "-j RETURN".to_owned()),
    ("a jump is deleted, and a rule is added to a chain of ours", |tables| {
        chain(tables, Table::Nat, "OUTPUT").remove(0);
        chain(tables, Table::Nat, "KUBE-POSTROUTING").push("-j RETURN".to_owned());
    }),
    ("a rule is replaced", |tables| chain(tables, Table::Nat, "KUBE-POSTROUTING")[0] = "-j RETURN".to_owned()),
    ("a rule of another table is replaced", |tables| {
        chain(tables, Table::Filter, "KUBE-FORWARD")[0] = "-j ACCEPT".to_owned();
    }),
    ("a jump is replaced by one of the same length", |tables| {
        let rules = chain(tables, Table::Nat, "PREROUTING");
        rules[0] = rules[0].replace("-j KUBE-SERVICES", "-g KUBE-SERVICES");
    }),
];

/// The work of a sync during which another process changes rules, on a node with four Services.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// A Service is written by position, which the kernel rejects in an emptied chain.
    ChangedService,
    /// A Service is appended.
    NewService,
    /// The changed shared chains are written completely.
    ManyServices,
    /// All rules are compared, and some are written.
    NewOptions,
    /// All rules are compared, and another process has changed some.
    ExternalChange,
}

impl Work {
    const ALL: [Work; 5] =
        [Work::ChangedService, Work::NewService, Work::ManyServices, Work::NewOptions, Work::ExternalChange];

    fn prepare(
        self,
        kernel: &FakeKernel,
        proxier: &mut IptablesProxier,
        cluster: &mut Cluster,
    ) -> Vec<ServiceChange> {
        let changed = Drawn { node_port: true, ..service(5) };
        match self {
            Work::ChangedService => cluster.set(0, Some(&changed)),
            Work::NewService => cluster.set(50, Some(&changed)),
            Work::ManyServices => (100..360).flat_map(|n| cluster.set(n, Some(&service(0)))).collect(),
            Work::NewOptions => {
                let options = Options { masquerade_bit: 15, ..proxier.options().clone() };
                proxier.reconfigure(options, proxier.node_facts().clone());
                Vec::new()
            }
            Work::ExternalChange => {
                kernel.change_externally(|tables| chain(tables, Table::Nat, "KUBE-MARK-MASQ").clear());
                assert!(proxier.check_drift());
                Vec::new()
            }
        }
    }
}

/// Another process changes rules while a sync writes, before or after its first restore. The sync must not take the result for its
/// own, and must not blame a Service.
#[test]
fn changes_during_a_sync_are_restored_and_isolate_nothing() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let syncs = Work::ALL.into_iter().flat_map(|work| [(work, true), (work, false)]);
        let cases = syncs.flat_map(|sync| DURING_A_SYNC.map(|change| (sync, change)));
        for ((work, is_before), (what, change)) in cases {
            let (kernel, mut cluster) = (FakeKernel::new(flavour), Cluster::new());
            let changes: Vec<_> = (0..4).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
            let own: Box<dyn IptablesKernel> = Box::new(kernel.clone());
            let mut proxier = IptablesProxier::new(options(), host(), [(Family::V4, own)]);
            all_well(&proxier.sync(&cluster.desired, &changes));
            let mut now = Instant::now();
            confirm(&mut proxier, &cluster, &mut now);
            let changes = work.prepare(&kernel, &mut proxier, &mut cluster);
            {
                let mut state = kernel.state();
                let moment = if is_before { &mut state.before_restore } else { &mut state.after_restore };
                *moment = Some(Box::new(change));
            }
            let mut results = proxier.sync_at(now, &cluster.desired, &changes);
            // The kernel notifies of the change, unless the sync restored it; with the legacy tool, it is found at the next check.
            proxier.check_drift();
            results.extend(proxier.sync_at(now, &cluster.desired, &[]));
            confirm(&mut proxier, &cluster, &mut now);
            let case = format!("{flavour:?}, {work:?}, {what}, before the restore: {is_before}: {results:?}");
            all_well(&results);
            assert!(results.iter().all(|result| result.isolated.is_empty()), "{case}");
            let fresh = FakeKernel::new(flavour);
            let own: Box<dyn IptablesKernel> = Box::new(fresh.clone());
            let mut other = IptablesProxier::new(proxier.options().clone(), host(), [(Family::V4, own)]);
            all_well(&other.sync(&cluster.desired, &[]));
            let (mut rules, fresh) = (rules_in_kernel(&kernel), rules_in_kernel(&fresh));
            // The other process's rules in built-in chains stay.
            let built_in = |(table, chain): &(Table, String)| table.built_in().contains(&chain.as_str());
            for (chain, rules) in rules.iter_mut().filter(|(chain, _)| built_in(chain)) {
                rules.retain(|rule| fresh[chain].contains(rule));
            }
            let differing: Vec<_> =
                fresh.iter().filter(|(chain, expected)| rules.get(*chain) != Some(expected)).collect();
            assert!(differing.is_empty() && rules.len() == fresh.len(), "{case}: {differing:#?}");
            assert!(!proxier.check_drift(), "{case}: all is restored");
        }
    }
}

/// One of two tables is written, then the tool fails. Only the generation of nf_tables tells how many tables were.
#[test]
fn own_writes_that_were_rejected_in_part_are_not_those_of_another_process() {
    let (kernel, mut cluster) = (FakeKernel::new(Flavour::Nft), Cluster::new());
    let changes = cluster.set(0, Some(&service(3)));
    let own: Box<dyn IptablesKernel> = Box::new(kernel.clone());
    let mut proxier = IptablesProxier::new(options(), host(), [(Family::V4, own)]);
    all_well(&proxier.sync(&cluster.desired, &changes));
    let generation = || match kernel.fingerprint() {
        Some(Fingerprint::Generation(generation)) => generation,
        other => panic!("{other:?}"),
    };
    let before = generation();
    assert!(proxier.has_synced_since(before) && !proxier.may_be_own_write(before), "all is written");
    let changes = cluster.set(0, Some(&Drawn { node_port: true, ..service(0) }));
    kernel.state().locked_at = Some(Table::Nat);
    assert!(proxier.sync(&cluster.desired, &changes)[0].error.is_some());
    let after = generation();
    assert!(after != before && !proxier.has_synced_since(after), "the rules have to be compared");
    assert!(proxier.may_be_own_write(after) && !proxier.may_be_own_write(after + 1));
    all_well(&proxier.sync(&cluster.desired, &[]));
    assert!(!proxier.may_be_own_write(after), "the rules were compared");
}

/// Runs the comparisons that follow own writes, until none is due. Each is due within a minute.
fn confirm(proxier: &mut IptablesProxier, cluster: &Cluster, now: &mut Instant) {
    for _ in 0..3 {
        let Some(due) = proxier.next_due() else { return };
        assert!(due.duration_since(*now) <= Duration::from_secs(60));
        *now = due;
        all_well(&proxier.sync_at(due, &cluster.desired, &[]));
    }
    panic!("comparisons follow each other without end");
}
