//! Failures: a failed sync is retried until it succeeds; a rejected object affects its Service only.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::ipvs::{IpSet, IpvsObjects, ServerChange};
use portcullis_modes::{Mode, SyncResult};
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetType;
use proptest::prelude::*;

use crate::change_cost::{real, server, socket_address};
use crate::cluster::{Cluster, SERVICES, TestService, any_service, name_of};
use crate::kernel::Call;
use crate::node::{Node, host, restored};

const TCP: u8 = 6;

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

fn isolated(reports: &[SyncResult]) -> BTreeSet<NamespacedName> {
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
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

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
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

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
        node.kernel.state().set_limit = Some((full, entries_before[0].max(entries_before[1]) + room));

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

/// Returns a node with two Services, the first of which the kernel rejects.
fn with_rejected_service() -> Node {
    let mut node = Node::serving(&[]);
    node.kernel.state().rejected.insert(server(TCP, 0));
    let changes =
        node.set([(0, Some(&TestService::plain(0, "rr"))), (1, Some(&TestService::plain(1, "rr")))]);
    let reports = node.sync(&changes);
    assert_eq!(isolated(&reports), [name_of(0)].into());
    let reason = &reports[0].isolated[0].reason;
    assert!(reason.contains("add the virtual server TCP 10.96.0.1:80 with scheduler rr"), "{reason}");
    node.clear_log();
    node
}

fn attempts(node: &Node) -> usize {
    let changes = node.kernel.state().server_changes();
    changes
        .iter()
        .filter(|change| matches!(change, ServerChange::AddServer(key, _) if *key == server(TCP, 0)))
        .count()
}

#[test]
fn a_rejected_service_is_retried_with_backoff() {
    let mut node = with_rejected_service();
    let mut attempted = node.now;
    for seconds in [30, 60, 120, 240, 480, 600, 600] {
        let due = node.proxier.next_due().expect("it is tried again");
        assert_eq!(due - attempted, Duration::from_secs(seconds));
        node.now = due - Duration::from_secs(1);
        node.sync(&[]);
        assert_eq!(attempts(&node), 0);
        node.now = due;
        assert_eq!(isolated(&node.sync(&[])), [name_of(0)].into());
        // Each attempt is repeated once, to identify the Service.
        assert_eq!(attempts(&node), 2);
        node.clear_log();
        attempted = due;
    }
    // Other Services and full syncs do not prolong the backoff.
    let due = node.proxier.next_due();
    node.kernel.state().fails_after = Some(0);
    let changes = node.set([(2, Some(&TestService::plain(2, "r")))]);
    assert!(node.sync(&changes)[0].error.is_some());
    assert_eq!(isolated(&node.sync(&[])), [name_of(0)].into());
    assert_eq!(node.proxier.next_due(), due);
}

#[test]
fn a_rejected_service_that_changes_is_retried_immediately() {
    let mut node = with_rejected_service();
    let changes = node.set([(0, Some(&TestService::plain(0, "rrr")))]);
    assert_eq!(isolated(&node.sync(&changes)), [name_of(0)].into());
    assert_eq!(attempts(&node), 2);
    node.kernel.state().rejected.clear();
    let changes = node.set([(0, Some(&TestService::plain(0, "r")))]);
    assert_eq!(isolated(&node.sync(&changes)), [].into());
    node.assert_in_sync();
    assert_eq!(node.proxier.next_due(), None);
}

#[test]
fn a_rejected_service_that_is_deleted_is_not_retried() {
    let mut node = with_rejected_service();
    let changes = node.set([(0, None)]);
    node.sync_without_rejections(&changes);
    node.assert_in_sync();
    assert_eq!(node.proxier.next_due(), None);
}

/// A full sync retries all Services, and ends the isolation of those that succeed.
#[test]
fn a_rejected_service_that_a_full_sync_programs_is_not_retried() {
    let mut node = with_rejected_service();
    node.kernel.state().rejected.clear();
    node.kernel.state().fails_after = Some(0);
    let changes = node.set([(2, Some(&TestService::plain(2, "r")))]);
    assert!(node.sync(&changes)[0].error.is_some());
    assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
    node.assert_in_sync();
    assert_eq!(node.proxier.next_due(), None);
}

/// A Service with a missing scheduler keeps its last scheduler, and gets new endpoints.
#[test]
fn a_service_with_a_missing_scheduler_keeps_the_last_one() {
    let mut node = Node::serving(&[(0, TestService::plain(0, "rr"))]);
    node.kernel.state().missing_schedulers.insert("mh");
    let desired = TestService { scheduler: Some("mh"), ..TestService::plain(0, "rrr") };
    let changes = node.set([(0, Some(&desired))]);
    assert_eq!(isolated(&node.sync(&changes)), [name_of(0)].into());
    {
        let state = node.kernel.state();
        assert_eq!(&*state.servers[&server(TCP, 0)].config.scheduler, "rr");
        assert_eq!(state.servers[&server(TCP, 0)].real.len(), 3);
    }
    node.kernel.state().missing_schedulers.clear();
    node.wait(Duration::from_secs(30));
    node.assert_in_sync();
}

/// A rejected address does not stop other changes, and fails the sync until the kernel accepts it.
#[test]
fn a_rejected_address_does_not_stop_other_changes() {
    let mut node = Node::new();
    let bad = server(TCP, 0).address;
    node.kernel.state().rejected_addresses.insert(bad);
    let changes = node.set([(0, Some(&TestService::plain(0, "rr"))), (1, Some(&TestService::plain(1, "r")))]);
    for (changes, what) in [(&changes[..], "at first"), (&[], "and again")] {
        let error = node.sync(changes)[0].error.as_ref().expect(what).to_string();
        assert!(error.contains(&format!("address {bad} of kube-ipvs0")), "{error}");
    }
    let mut expected = node.expected();
    expected.addresses.remove(&bad);
    assert_eq!(node.found(), expected);
    node.kernel.state().rejected_addresses.clear();
    assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
    node.assert_in_sync();
}

/// A rejected deletion concerns no Service, and fails the sync until it succeeds.
#[test]
fn a_rejected_deletion_is_retried_until_it_succeeds() {
    let mut node = Node::serving(&[(0, TestService::plain(0, "rr")), (1, TestService::plain(1, "rr"))]);
    node.kernel.state().undeletable.insert(server(TCP, 0));
    let changes = node.set([(0, None), (1, Some(&TestService::plain(1, "r")))]);
    for changes in [&changes[..], &[], &[]] {
        let error = node.sync(changes)[0].error.clone().expect("the virtual server still exists");
        assert!(error.to_string().contains("delete the virtual server TCP 10.96.0.1:80"), "{error}");
        assert!(!node.kernel.state().servers[&server(TCP, 1)].real.values().any(|r| r.server == real(2, 1)));
    }
    node.kernel.state().undeletable.clear();
    assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
    node.assert_in_sync();
}

/// Objects that exist or are missing unexpectedly are handled without isolation.
#[test]
fn existing_and_missing_objects_are_no_rejection() {
    let mut node = Node::serving(&[(0, TestService::plain(0, "rr")), (1, TestService::plain(1, "rr"))]);
    {
        let mut state = node.kernel.state();
        let config = state.servers[&server(TCP, 0)].config.clone();
        state.put(server(TCP, 2), config, &[real(1, 0), real(9, 1)]);
        state.servers.remove(&server(TCP, 1));
        state.servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&socket_address(1));
    }
    let changes = node.set([
        (0, Some(&TestService::plain(0, "-r"))),
        (1, Some(&TestService::plain(1, "rrr"))),
        (2, Some(&TestService::plain(2, "rr"))),
    ]);
    node.sync_without_rejections(&changes);
    node.assert_in_sync();
    let changes = node.set([(1, None)]);
    node.kernel.state().servers.remove(&server(TCP, 1));
    node.sync_without_rejections(&changes);
    node.assert_in_sync();
}

/// A rejected source range keeps the previous source ranges of the load balancer IP, instead of opening it.
#[test]
fn a_rejected_source_range_does_not_open_the_load_balancer_ip() {
    let balancer = |ranges| TestService { balancer: Some(0), ranges, ..TestService::plain(0, "rr") };
    let mut node = Node::serving(&[(0, balancer(&["192.0.2.0/24"]))]);
    let before = node.found();
    node.kernel.state().set_limit = Some((IpSet::LoadBalancerSourceCidr, 1));
    let desired = balancer(&["198.51.100.0/24", "203.0.113.0/24"]);
    let changes = node.set([(0, Some(&desired)), (1, Some(&TestService::plain(1, "r")))]);
    let reports = node.sync(&changes);
    assert_eq!(isolated(&reports), [name_of(0)].into());
    let reason = &reports[0].isolated[0].reason;
    assert!(
        reason.contains("KUBE-LOAD-BALANCER-SOURCE-CIDR") && reason.contains("198.51.100.0/24"),
        "{reason}"
    );
    let found = node.found();
    assert!(before.servers.keys().all(|key| found.servers.get(key) == before.servers.get(key)));
    let ranges = (Family::V4, IpSet::LoadBalancerSourceCidr);
    assert_eq!(found.sets[&ranges], before.sets[&ranges]);
    assert!(found.servers.contains_key(&server(TCP, 1)), "the other Service is programmed");

    // The previous source ranges fit again.
    node.change(0, Some(&balancer(&["192.0.2.0/24"])));
    node.assert_in_sync();
}
