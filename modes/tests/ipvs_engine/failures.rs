//! Properties of failures: a failed sync is retried until it succeeds; a rejected object affects its Service only.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::SyncResult;
use portcullis_modes::ipvs::{IpSet, IpvsObjects};
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetType;
use proptest::prelude::*;

use crate::cluster::{Cluster, SERVICES, TestService, any_service, name_of};
use crate::kernel::Call;
use crate::node::{Node, host, restored};

type Services = Vec<(usize, Option<TestService>)>;

fn services() -> impl Strategy<Value = Services> {
    proptest::collection::vec((0..SERVICES, proptest::option::weighted(0.8, any_service())), 1..4)
}

fn set(node: &mut Node, services: &Services) -> Vec<portcullis_cluster::desired::ServiceChange> {
    node.set(services.iter().map(|(n, service)| (*n, service.as_ref())))
}

/// Gives a Service its own ports. Conflicts between Services are resolved before the mode, including those that the kernel
/// rejects.
fn with_own_ports((n, service): (usize, Option<TestService>)) -> (usize, Option<TestService>) {
    let with_own_ports = |service: TestService| TestService {
        port: service.port + 10 * n,
        node_port: service.node_port.map(|port| port + 100 * n as u16),
        ..service
    };
    (n, service.map(with_own_ports))
}

/// Returns the isolated Services.
pub(crate) fn isolated(reports: &[SyncResult]) -> BTreeSet<NamespacedName> {
    reports.iter().flat_map(|report| &report.isolated).map(|isolated| isolated.service.clone()).collect()
}

/// Removes rejected virtual servers from the expected objects.
fn without(mut state: IpvsObjects, rejected: &BTreeSet<VirtualServer>) -> IpvsObjects {
    state.servers.retain(|key, _| !rejected.contains(key));
    state
}

/// A round of changes with two failed syncs.
#[derive(Clone, Debug)]
struct Round {
    services: Services,
    fails_after: [usize; 2],
    /// The addresses of the node change in the same sync.
    moves: bool,
    /// The daemon restarts instead of a retry.
    restarts: bool,
    wait: u64,
}

fn round() -> impl Strategy<Value = Round> {
    (services(), any::<[u8; 2]>(), any::<[bool; 2]>(), 0..5u64).prop_map(|(services, fails, flags, wait)| {
        let [moves, restarts] = flags;
        // Early failures are more frequent.
        let fails_after = fails.map(|f| if f < 200 { usize::from(f) / 10 } else { usize::from(f) - 180 });
        Round { services, fails_after, moves, restarts, wait }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(200)))]

    #[test]
    fn failed_syncs_are_retried_until_the_kernel_is_in_sync(rounds in proptest::collection::vec(round(), 1..6)) {
        let mut node = Node::new();
        let mut moved = false;
        for round in rounds {
            let changes = set(&mut node, &round.services);
            if round.moves {
                moved = !moved;
                let mut host = host();
                if moved {
                    let own = ["192.0.2.12", "2001:db8::12"].map(|ip| ip.parse().expect("an address"));
                    host.addresses = host.addresses.iter().copied().chain(own).collect();
                }
                node.reconfigure(node.options.clone(), host);
            }
            node.kernel.state().fails_after = Some(round.fails_after[0]);
            prop_assert_eq!(restored(&node.sync(&changes)), 0);
            // Another change arrives before the retry.
            node.now += Duration::from_secs(round.wait);
            node.kernel.state().fails_after = Some(round.fails_after[1]);
            let again: Services = round.services.iter().map(|(n, _)| (*n, None)).take(1).collect();
            let changes = set(&mut node, &again);
            prop_assert_eq!(restored(&node.sync(&changes)), 0);
            if round.restarts {
                node.restart();
            }
            prop_assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
            node.kernel.state().fails_after = None;
            node.assert_in_sync();
            node.wait(Duration::from_secs(round.wait));
            node.assert_in_sync();
        }
        node.clear_log();
        node.restart();
        node.sync_without_rejections(&[]);
        prop_assert_eq!(&node.kernel.state().log[..], &[], "a restart changes nothing");
    }

    /// A rejected virtual server does not affect other Services, at its first attempt and at retries.
    #[test]
    fn a_rejected_virtual_server_affects_its_service_only(
        first in services(),
        then in services(),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..3),
        early in any::<bool>(),
        moves in any::<bool>(),
    ) {
        let mut node = Node::new();
        let changes = set(&mut node, &first);
        if early {
            node.sync_without_rejections(&changes);
        }
        let changes = if early { set(&mut node, &then) } else { changes };
        let expected = node.expected();
        // New virtual servers only: existing ones stay if a change is rejected.
        let there: BTreeSet<VirtualServer> = node.kernel.state().servers.keys().copied().collect();
        let new: Vec<VirtualServer> = expected.servers.keys().filter(|key| !there.contains(key)).copied().collect();
        prop_assume!(!new.is_empty());
        let rejected: BTreeSet<VirtualServer> = picks.iter().map(|pick| *pick.get(&new)).collect();
        let expected_isolated: BTreeSet<NamespacedName> =
            rejected.iter().map(|key| node.owner(key).expect("a Service needs it")).collect();
        // A kernel that accepts no other virtual server of a family is not the fault of several Services.
        for family in Family::BOTH {
            let in_family = |key: &&VirtualServer| Family::from_address(key.address) == family;
            let owners = |keys: &mut dyn Iterator<Item = &VirtualServer>| -> BTreeSet<NamespacedName> {
                keys.filter(in_family).filter_map(|key| node.owner(key)).collect()
            };
            let [rejected, all] = [owners(&mut rejected.iter()), owners(&mut expected.servers.keys())];
            prop_assume!(rejected.len() < 2 || all.len() > rejected.len());
        }
        node.kernel.state().rejected = rejected.clone();

        let reports = node.sync(&changes);
        prop_assert!(reports.iter().all(|report| report.error.is_none()), "{reports:#?}");
        prop_assert_eq!(isolated(&reports), expected_isolated.clone());
        prop_assert_eq!(restored(&reports), 0);
        prop_assert_eq!(node.found(), without(expected.clone(), &rejected));

        // It is not retried early, and its missing objects are no drift.
        node.clear_log();
        node.now += Duration::from_secs(20);
        prop_assert_eq!(isolated(&node.sync(&[])), expected_isolated.clone());
        prop_assert!(node.kernel.state().server_changes().iter().all(|change| !rejected.contains(change.server())));

        // New node facts cause a retry, which is rejected again.
        if moves {
            let mut host = host();
            host.addresses = host.addresses.iter().copied().filter(|ip| *ip != host.node_ips[0]).collect();
            host.node_ips = host.node_ips[1..].into();
            node.reconfigure(node.options.clone(), host);
            let expected = node.expected();
            let reports = node.sync(&[]);
            prop_assert!(reports.iter().all(|report| report.error.is_none()));
            prop_assert_eq!(node.found(), without(expected, &rejected));
        }

        // The retry succeeds once the kernel accepts it.
        node.kernel.state().rejected.clear();
        node.wait(Duration::from_secs(700));
        node.sync_without_rejections(&[]);
        node.assert_in_sync();
        prop_assert_eq!(node.run_audits(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(200)))]

    /// A Service whose entries a full set rejects keeps its last rules, or gets none; other Services are programmed.
    #[test]
    fn a_full_set_affects_only_the_services_that_it_rejects(
        first in services(),
        then in services(),
        set_number in 0..IpSet::ALL.len(),
        room in 0..3usize,
        known in any::<bool>(),
        restarts in any::<bool>(),
    ) {
        let full = IpSet::ALL[set_number];
        // A bitmap has space for every port.
        prop_assume!(full.set_type() != SetType::BitmapPort);
        let [first, then] = [first, then].map(|services| services.into_iter().map(with_own_ports).collect::<Vec<_>>());
        let mut node = Node::new();
        let changes = set(&mut node, &first);
        node.sync_without_rejections(&changes);
        let entries_before = Family::BOTH.map(|family| node.kernel.state().entries(full, family).count());
        // At least one entry: a set that takes none is not the fault of several Services.
        let limit = (entries_before[0].max(entries_before[1]) + room).max(1);
        node.kernel.state().set_limit = Some((full, limit));

        let changes = set(&mut node, &then);
        if !known {
            // A failure makes the next sync a full one.
            node.kernel.state().fails_after = Some(0);
            prop_assert_eq!(restored(&node.sync(&changes)), 0);
            node.kernel.state().fails_after = None;
        }
        let reports = if known { node.sync(&changes) } else { node.sync(&[]) };
        prop_assert!(reports.iter().all(|report| report.error.is_none()), "{reports:#?}");
        prop_assert_eq!(restored(&reports), 0);
        for (report, family) in reports.iter().zip(Family::BOTH) {
            let isolated = isolated(std::slice::from_ref(report));
            let mut served = Cluster::new();
            for (n, service) in first.iter().chain(then.iter().filter(|(n, _)| !isolated.contains(&name_of(*n)))) {
                served.set(*n, service.as_ref());
            }
            prop_assert_eq!(node.found_in(&[family]), node.expected_in(&[family], &served));
        }

        // It is not retried early.
        node.clear_log();
        node.now += Duration::from_secs(20);
        node.sync(&[]);
        prop_assert!(node.kernel.state().log.iter().all(|call| !matches!(call, Call::AddedEntry(..))));

        if restarts {
            node.restart();
            prop_assert!(node.sync(&[]).iter().all(|report| report.error.is_none()));
        }
        node.kernel.state().set_limit = None;
        node.wait(Duration::from_secs(700));
        node.sync_without_rejections(&[]);
        node.assert_in_sync();
        prop_assert_eq!(node.run_audits(), 0);
    }
}
