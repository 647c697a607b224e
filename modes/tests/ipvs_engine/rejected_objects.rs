//! Objects that the kernel rejects: retries with backoff, and the objects that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_modes::Mode;
use portcullis_modes::ipvs::{IpSet, ServerChange};
use portcullis_netlink::ip_vs::VirtualServer;

use crate::change_cost::{real, server, socket_address};
use crate::cluster::{TestService, name_of};
use crate::failures::isolated;
use crate::kernel::State;
use crate::node::{Node, restored};

const TCP: u8 = 6;

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
    assert!(!reports[0].isolated[0].has_rules, "no version of it was accepted");
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
fn only_a_rejected_service_that_was_accepted_before_has_rules() {
    let mut node = with_rejected_service();
    let changes = node.set([(0, Some(&TestService::plain(0, "rrr")))]);
    assert!(!node.sync(&changes)[0].isolated[0].has_rules, "its virtual server does not exist");

    let plain = TestService::plain;
    let mut node = Node::serving(&[(0, plain(0, "r")), (1, plain(1, "r"))]);
    node.kernel.state().rejected.insert(server(TCP, 0));
    let changes = node.set([(0, Some(&plain(0, "rr"))), (1, Some(&plain(1, "rr")))]);
    let reports = node.sync(&changes);
    assert_eq!(isolated(&reports), [name_of(0)].into());
    assert!(reports[0].isolated[0].has_rules, "the virtual server keeps its real server");
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

/// Returns the virtual servers with their real servers.
fn served_by(node: &Node) -> BTreeMap<VirtualServer, BTreeSet<SocketAddr>> {
    let state = node.kernel.state();
    state.servers.iter().map(|(key, server)| (*key, server.real.keys().copied().collect())).collect()
}

/// Services by their numbers.
type Services<'a> = &'a [(usize, TestService)];

/// Makes a kernel reject changes, and accept them again.
type Fault = fn(&mut State, bool);

/// If the kernel rejects changes of all virtual servers, no Service is the reason.
#[test]
fn no_service_is_isolated_if_the_kernel_rejects_every_change() {
    let plain = TestService::plain;
    let faults: [(&str, Fault); 3] = [
        ("virtual servers", |state, is_faulty| state.rejects_servers = is_faulty),
        ("real servers", |state, is_faulty| state.rejects_real_servers = is_faulty),
        ("the scheduler's module", |state, is_faulty| {
            state.missing_schedulers = if is_faulty { ["rr"].into() } else { [].into() };
        }),
    ];
    // The Services served before, and the changed ones. A failed sync before makes the next one a full one.
    let first = [(0, plain(0, "rr")), (1, plain(1, "rr"))];
    let rows: [(&str, Services<'_>, Services<'_>, bool); 4] = [
        ("the first sync", &[], &first, false),
        ("one new Service", &first, &[(2, plain(2, "rr"))], false),
        ("two new Services", &first, &[(2, plain(2, "rr")), (3, plain(3, "rr"))], false),
        ("a full sync", &first, &[(1, plain(1, "rrr")), (2, plain(2, "rr"))], true),
    ];
    for (fault, set_fault) in faults {
        for (case, before, after, is_full) in rows {
            let mut node = Node::serving(before);
            let served = served_by(&node);
            set_fault(&mut node.kernel.state(), true);
            let changes = node.set(after.iter().map(|(n, service)| (*n, Some(service))));
            if is_full {
                node.kernel.state().fails_after = Some(0);
                node.sync(&changes);
                node.kernel.state().fails_after = None;
            }
            for changes in [&changes[..], &[], &[]] {
                let reports = node.sync(changes);
                assert_eq!(isolated(&reports), [].into(), "{fault}: {case}");
                let error = reports[0].error.as_ref().unwrap_or_else(|| panic!("{fault}: {case}: no error"));
                assert!(
                    error.to_string().contains("rejects changes of all virtual servers"),
                    "{fault}: {case}: {error}"
                );
            }
            for (key, server) in &served_by(&node) {
                let before = served.get(key);
                assert!(
                    before.is_none_or(|before| before.is_subset(server)),
                    "{fault}: {case}: what is served stays"
                );
            }
            assert!(served.keys().all(|key| served_by(&node).contains_key(key)), "{fault}: {case}");
            set_fault(&mut node.kernel.state(), false);
            assert_eq!(restored(&node.sync_without_rejections(&[])), 0, "{fault}: {case}");
            node.assert_in_sync();
        }
    }
}

/// A set that takes no entry is not the fault of a Service.
#[test]
fn no_service_is_isolated_if_a_set_rejects_every_entry() {
    let mut node = Node::new();
    node.kernel.state().set_limit = Some((IpSet::ClusterIp, 0));
    let changes =
        node.set([(0, Some(&TestService::plain(0, "rr"))), (1, Some(&TestService::plain(1, "rr")))]);
    let reports = node.sync(&changes);
    assert_eq!(isolated(&reports), [].into());
    assert!(reports[0].error.is_some());
    node.kernel.state().set_limit = None;
    node.sync_without_rejections(&[]);
    node.assert_in_sync();
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
