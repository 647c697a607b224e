//! Tests of external changes: only chains that another process changed count as restored.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::Family;
use portcullis_modes::Mode;
use portcullis_modes::iptables::{Flavour, IptablesKernel, IptablesProxier, Table};
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};

use crate::cluster::{Cluster, Drawn};
use crate::fake_kernel::FakeKernel;
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

/// Another process changes rules between the moment at which a sync looks for external changes and its write. The sync must
/// not take the result for its own.
#[test]
fn changes_during_a_sync_are_restored_and_isolate_nothing() {
    type Flush = fn(&mut std::collections::BTreeMap<Table, crate::fake_kernel::Chains>);
    let flush_shared: Flush = |tables| {
        let nat = tables.get_mut(&Table::Nat).expect("it is always there");
        nat.get_mut("KUBE-SERVICES").expect("it was written").clear();
    };
    let flush_all: Flush = |tables| {
        tables.get_mut(&Table::Nat).expect("it is always there").values_mut().for_each(Vec::clear);
    };
    let flush_other: Flush = |tables| {
        tables.get_mut(&Table::Filter).expect("it is always there").values_mut().for_each(Vec::clear);
    };
    // A changed Service is written by position, which the kernel rejects in an emptied chain; a new one is appended.
    for (what, number) in [("changed", 0), ("new", 50)] {
        for (change, flush) in
            [("a chain", flush_shared), ("table nat", flush_all), ("another table", flush_other)]
        {
            let (kernel, mut cluster) = (FakeKernel::new(Flavour::Nft), Cluster::new());
            let changes: Vec<_> = (0..40).flat_map(|n| cluster.set(n, Some(&service(3)))).collect();
            let own: Box<dyn IptablesKernel> = Box::new(kernel.clone());
            let mut proxier = IptablesProxier::new(options(), host(), [(Family::V4, own)]);
            all_well(&proxier.sync(&cluster.desired, &changes));
            let changes = cluster.set(number, Some(&Drawn { node_port: true, ..service(5) }));
            kernel.state().before_restore = Some(Box::new(flush));
            let results = proxier.sync(&cluster.desired, &changes);
            all_well(&results);
            let case = format!("{what} Service, {change} is flushed: {results:?}");
            assert!(results.iter().all(|result| result.isolated.is_empty()), "{case}");
            // The kernel notifies of the change, unless the sync restored it.
            let noticed = proxier.check_drift();
            let results = proxier.sync(&cluster.desired, &[]);
            all_well(&results);
            let fresh = FakeKernel::new(Flavour::Nft);
            let own: Box<dyn IptablesKernel> = Box::new(fresh.clone());
            all_well(
                &IptablesProxier::new(options(), host(), [(Family::V4, own)]).sync(&cluster.desired, &[]),
            );
            assert_eq!(rules_in_kernel(&kernel), rules_in_kernel(&fresh), "{case}, noticed: {noticed}");
            assert!(!proxier.check_drift(), "{case}: all is restored");
        }
    }
}
