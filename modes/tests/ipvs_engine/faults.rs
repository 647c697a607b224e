//! What fails is tried again until all is right; what is rejected concerns one Service, and no other.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::ipvs::{IpSet, IpvsObjects, ServerChange};
use portcullis_modes::{Mode, SyncResult};
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetType;
use proptest::prelude::*;

use crate::cluster::{Cluster, Drawn, SERVICES, drawn, name_of};
use crate::hot_path::{place, real, server};
use crate::kernel::Call;
use crate::node::{Node, host, repairs};

const TCP: u8 = 6;

type Services = Vec<(usize, Option<Drawn>)>;

fn services() -> impl Strategy<Value = Services> {
    proptest::collection::vec((0..SERVICES, proptest::option::weighted(0.8, drawn())), 1..4)
}

fn set(node: &mut Node, services: &Services) -> Vec<portcullis_cluster::desired::ServiceChange> {
    node.set(services.iter().map(|(n, drawn)| (*n, drawn.as_ref())))
}

/// A Service with ports of its own. Which of several Services is served at one frontend is decided before the mode and by
/// all of them, also by those that the kernel rejects.
fn apart((n, drawn): (usize, Option<Drawn>)) -> (usize, Option<Drawn>) {
    let apart = |drawn: Drawn| Drawn {
        port: drawn.port + 10 * n,
        node_port: drawn.node_port.map(|port| port + 100 * n as u16),
        ..drawn
    };
    (n, drawn.map(apart))
}

fn isolated(reports: &[SyncResult]) -> BTreeSet<NamespacedName> {
    reports.iter().flat_map(|report| &report.isolated).map(|isolated| isolated.service.clone()).collect()
}

/// What the kernel must hold if it takes some virtual servers not at all.
fn without(mut state: IpvsObjects, rejected: &BTreeSet<VirtualServer>) -> IpvsObjects {
    state.servers.retain(|key, _| !rejected.contains(key));
    state
}

/// One thing in a hundred that is asked fails, and what follows it in the same sync is not asked.
#[derive(Clone, Debug)]
struct Round {
    services: Services,
    fails_after: [usize; 2],
    /// The node gets other addresses at the same time.
    moves: bool,
    /// The process ends instead of trying again.
    restarts: bool,
    wait: u64,
}

fn round() -> impl Strategy<Value = Round> {
    (services(), any::<[u8; 2]>(), any::<[bool; 2]>(), 0..5u64).prop_map(|(services, fails, flags, wait)| {
        let [moves, restarts] = flags;
        // Often early, sometimes late.
        let fails_after = fails.map(|f| if f < 200 { usize::from(f) / 10 } else { usize::from(f) - 180 });
        Round { services, fails_after, moves, restarts, wait }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_in_the_end_all_is_right(rounds in proptest::collection::vec(round(), 1..6)) {
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
            prop_assert_eq!(repairs(&node.sync(&changes)), 0);
            // A change that comes before it could be tried again, some time later.
            node.now += Duration::from_secs(round.wait);
            node.kernel.state().fails_after = Some(round.fails_after[1]);
            let again: Services = round.services.iter().map(|(n, _)| (*n, None)).take(1).collect();
            let changes = set(&mut node, &again);
            prop_assert_eq!(repairs(&node.sync(&changes)), 0);
            if round.restarts {
                node.restart();
            }
            prop_assert_eq!(repairs(&node.settle(&[])), 0);
            node.kernel.state().fails_after = None;
            node.is_right();
            node.wait(Duration::from_secs(round.wait));
            node.is_right();
        }
        node.forget_log();
        node.restart();
        node.settle(&[]);
        prop_assert_eq!(&node.kernel.state().log[..], &[], "a restart changes nothing");
    }

    /// A rejected virtual server changes nothing for others, whenever it comes and whenever it is tried again.
    #[test]
    fn what_is_refused_stands_alone(
        first in services(),
        then in services(),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..3),
        early in any::<bool>(),
        moves in any::<bool>(),
    ) {
        let mut node = Node::new();
        let changes = set(&mut node, &first);
        if early {
            node.settle(&changes);
        }
        let changes = if early { set(&mut node, &then) } else { changes };
        let wanted = node.wanted();
        // Of those that are new only: others are there, whatever is rejected.
        let there: BTreeSet<VirtualServer> = node.kernel.state().servers.keys().copied().collect();
        let new: Vec<VirtualServer> = wanted.servers.keys().filter(|key| !there.contains(key)).copied().collect();
        prop_assume!(!new.is_empty());
        let rejected: BTreeSet<VirtualServer> = picks.iter().map(|pick| *pick.get(&new)).collect();
        let guilty: BTreeSet<NamespacedName> =
            rejected.iter().map(|key| node.owner(key).expect("it is wanted")).collect();
        node.kernel.state().rejected = rejected.clone();

        let reports = node.sync(&changes);
        prop_assert!(reports.iter().all(|report| report.error.is_none()), "{reports:#?}");
        prop_assert_eq!(isolated(&reports), guilty.clone());
        prop_assert_eq!(repairs(&reports), 0);
        prop_assert_eq!(node.held(), without(wanted.clone(), &rejected));

        // Nothing is asked of it before its time, and what stands is no drift.
        node.forget_log();
        node.now += Duration::from_secs(20);
        prop_assert_eq!(isolated(&node.sync(&[])), guilty.clone());
        prop_assert!(node.kernel.state().server_changes().iter().all(|change| !rejected.contains(change.server())));

        // Other facts of the host are a reason to try, and to be rejected again.
        if moves {
            let mut host = host();
            host.addresses = host.addresses.iter().copied().filter(|ip| *ip != host.node_ips[0]).collect();
            host.node_ips = host.node_ips[1..].into();
            node.reconfigure(node.options.clone(), host);
            let wanted = node.wanted();
            let reports = node.sync(&[]);
            prop_assert!(reports.iter().all(|report| report.error.is_none()));
            prop_assert_eq!(node.held(), without(wanted, &rejected));
        }

        // Taken at last, when its time has come.
        node.kernel.state().rejected.clear();
        node.wait(Duration::from_secs(700));
        node.settle(&[]);
        node.is_right();
        prop_assert_eq!(node.look_after(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A Service for which a set has no room stays as it was, or away; others find room, and are served.
    #[test]
    fn what_finds_no_room_stands_alone(
        first in services(),
        then in services(),
        set_number in 0..IpSet::ALL.len(),
        room in 0..3usize,
        known in any::<bool>(),
        restarts in any::<bool>(),
    ) {
        let full = IpSet::ALL[set_number];
        // A bitmap has room for every port.
        prop_assume!(full.set_type() != SetType::BitmapPort);
        let [first, then] = [first, then].map(|services| services.into_iter().map(apart).collect::<Vec<_>>());
        let mut node = Node::new();
        let changes = set(&mut node, &first);
        node.settle(&changes);
        let held = Family::BOTH.map(|family| node.kernel.state().entries(full, family).count());
        node.kernel.state().set_most = Some((full, held[0].max(held[1]) + room));

        let changes = set(&mut node, &then);
        if !known {
            // All is compared, as after any failure.
            node.kernel.state().fails_after = Some(0);
            prop_assert_eq!(repairs(&node.sync(&changes)), 0);
            node.kernel.state().fails_after = None;
        }
        let reports = if known { node.sync(&changes) } else { node.sync(&[]) };
        prop_assert!(reports.iter().all(|report| report.error.is_none()), "{reports:#?}");
        prop_assert_eq!(repairs(&reports), 0);
        for (report, family) in reports.iter().zip(Family::BOTH) {
            let isolated = isolated(std::slice::from_ref(report));
            let mut served = Cluster::new();
            for (n, drawn) in first.iter().chain(then.iter().filter(|(n, _)| !isolated.contains(&name_of(*n)))) {
                served.set(*n, drawn.as_ref());
            }
            prop_assert_eq!(node.held_in(&[family]), node.wanted_in(&[family], &served));
        }

        // Nothing of it is asked before its time, nor taken for drift.
        node.forget_log();
        node.now += Duration::from_secs(20);
        node.sync(&[]);
        prop_assert!(node.kernel.state().log.iter().all(|call| !matches!(call, Call::Entered(..))));

        if restarts {
            node.restart();
            prop_assert!(node.sync(&[]).iter().all(|report| report.error.is_none()));
        }
        node.kernel.state().set_most = None;
        node.wait(Duration::from_secs(700));
        node.settle(&[]);
        node.is_right();
        prop_assert_eq!(node.look_after(), 0);
    }
}

/// Two Services, of which the kernel does not take the first.
fn refusing() -> Node {
    let mut node = Node::serving(&[]);
    node.kernel.state().rejected.insert(server(TCP, 0));
    let changes = node.set([(0, Some(&Drawn::plain(0, "rr"))), (1, Some(&Drawn::plain(1, "rr")))]);
    let reports = node.sync(&changes);
    assert_eq!(isolated(&reports), [name_of(0)].into());
    let reason = &reports[0].isolated[0].reason;
    assert!(reason.contains("add the virtual server TCP 10.96.0.1:80 with scheduler rr"), "{reason}");
    node.forget_log();
    node
}

fn tries(node: &Node) -> usize {
    let changes = node.kernel.state().server_changes();
    changes
        .iter()
        .filter(|change| matches!(change, ServerChange::AddServer(key, _) if *key == server(TCP, 0)))
        .count()
}

#[test]
fn a_refused_service_is_tried_less_and_less_often() {
    let mut node = refusing();
    let mut asked = node.now;
    for seconds in [30, 60, 120, 240, 480, 600, 600] {
        let due = node.proxier.next_due().expect("it is tried again");
        assert_eq!(due - asked, Duration::from_secs(seconds));
        node.now = due - Duration::from_secs(1);
        node.sync(&[]);
        assert_eq!(tries(&node), 0);
        node.now = due;
        assert_eq!(isolated(&node.sync(&[])), [name_of(0)].into());
        // Once more to know who is to blame.
        assert_eq!(tries(&node), 2);
        node.forget_log();
        asked = due;
    }
    // Other Services, full comparisons and restarts of the sync do not make it wait longer.
    let due = node.proxier.next_due();
    node.kernel.state().fails_after = Some(0);
    let changes = node.set([(2, Some(&Drawn::plain(2, "r")))]);
    assert!(node.sync(&changes)[0].error.is_some());
    assert_eq!(isolated(&node.sync(&[])), [name_of(0)].into());
    assert_eq!(node.proxier.next_due(), due);
}

#[test]
fn a_refused_service_that_changes_is_tried_at_once() {
    let mut node = refusing();
    let changes = node.set([(0, Some(&Drawn::plain(0, "rrr")))]);
    assert_eq!(isolated(&node.sync(&changes)), [name_of(0)].into());
    assert_eq!(tries(&node), 2);
    node.kernel.state().rejected.clear();
    let changes = node.set([(0, Some(&Drawn::plain(0, "r")))]);
    assert_eq!(isolated(&node.sync(&changes)), [].into());
    node.is_right();
    assert_eq!(node.proxier.next_due(), None);
}

#[test]
fn a_refused_service_that_is_deleted_is_forgotten() {
    let mut node = refusing();
    let changes = node.set([(0, None)]);
    node.settle(&changes);
    node.is_right();
    assert_eq!(node.proxier.next_due(), None);
}

/// A full comparison tries everything, so what is taken then is no longer reported.
#[test]
fn a_refused_service_that_a_comparison_serves_is_forgotten() {
    let mut node = refusing();
    node.kernel.state().rejected.clear();
    node.kernel.state().fails_after = Some(0);
    let changes = node.set([(2, Some(&Drawn::plain(2, "r")))]);
    assert!(node.sync(&changes)[0].error.is_some());
    assert_eq!(repairs(&node.settle(&[])), 0);
    node.is_right();
    assert_eq!(node.proxier.next_due(), None);
}

/// A Service that asks for a scheduler which the kernel does not have is served as before, with its new endpoints.
#[test]
fn a_missing_scheduler_costs_the_scheduler() {
    let mut node = Node::serving(&[(0, Drawn::plain(0, "rr"))]);
    node.kernel.state().no_schedulers.insert("mh");
    let wish = Drawn { scheduler: Some("mh"), ..Drawn::plain(0, "rrr") };
    let changes = node.set([(0, Some(&wish))]);
    assert_eq!(isolated(&node.sync(&changes)), [name_of(0)].into());
    {
        let state = node.kernel.state();
        assert_eq!(&*state.servers[&server(TCP, 0)].config.scheduler, "rr");
        assert_eq!(state.servers[&server(TCP, 0)].real.len(), 3);
    }
    node.kernel.state().no_schedulers.clear();
    node.wait(Duration::from_secs(30));
    node.is_right();
}

/// All else is written, and the failure shows until the address is taken.
#[test]
fn a_refused_address_keeps_nothing_else() {
    let mut node = Node::new();
    let bad = server(TCP, 0).address;
    node.kernel.state().no_addresses.insert(bad);
    let changes = node.set([(0, Some(&Drawn::plain(0, "rr"))), (1, Some(&Drawn::plain(1, "r")))]);
    for (changes, what) in [(&changes[..], "at first"), (&[], "and again")] {
        let error = node.sync(changes)[0].error.as_ref().expect(what).to_string();
        assert!(error.contains(&format!("address {bad} of kube-ipvs0")), "{error}");
    }
    let mut wanted = node.wanted();
    wanted.addresses.remove(&bad);
    assert_eq!(node.held(), wanted);
    node.kernel.state().no_addresses.clear();
    assert_eq!(repairs(&node.settle(&[])), 0);
    node.is_right();
}

/// There is no Service to blame, so it is an error as long as the virtual server is there.
#[test]
fn a_refused_deletion_is_tried_until_it_is_done() {
    let mut node = Node::serving(&[(0, Drawn::plain(0, "rr")), (1, Drawn::plain(1, "rr"))]);
    node.kernel.state().kept.insert(server(TCP, 0));
    let changes = node.set([(0, None), (1, Some(&Drawn::plain(1, "r")))]);
    for changes in [&changes[..], &[], &[]] {
        let error = node.sync(changes)[0].error.clone().expect("it is still there");
        assert!(error.to_string().contains("delete the virtual server TCP 10.96.0.1:80"), "{error}");
        assert!(!node.kernel.state().servers[&server(TCP, 1)].real.values().any(|r| r.server == real(2, 1)));
    }
    node.kernel.state().kept.clear();
    assert_eq!(repairs(&node.settle(&[])), 0);
    node.is_right();
}

/// What the kernel has, or no longer has, against expectation is taken as it is.
#[test]
fn what_is_there_already_or_gone_already_is_no_refusal() {
    let mut node = Node::serving(&[(0, Drawn::plain(0, "rr")), (1, Drawn::plain(1, "rr"))]);
    {
        let mut state = node.kernel.state();
        let config = state.servers[&server(TCP, 0)].config.clone();
        state.put(server(TCP, 2), config, &[real(1, 0), real(9, 1)]);
        state.servers.remove(&server(TCP, 1));
        state.servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&place(1));
    }
    let changes = node.set([
        (0, Some(&Drawn::plain(0, "-r"))),
        (1, Some(&Drawn::plain(1, "rrr"))),
        (2, Some(&Drawn::plain(2, "rr"))),
    ]);
    node.settle(&changes);
    node.is_right();
    let changes = node.set([(1, None)]);
    node.kernel.state().servers.remove(&server(TCP, 1));
    node.settle(&changes);
    node.is_right();
}

/// A source range that finds no room leaves the load balancer's address as it was, not open to all.
#[test]
fn a_full_set_opens_nothing() {
    let balancer = |ranges| Drawn { balancer: Some(0), ranges, ..Drawn::plain(0, "rr") };
    let mut node = Node::serving(&[(0, balancer(&["192.0.2.0/24"]))]);
    let right = node.held();
    node.kernel.state().set_most = Some((IpSet::LoadBalancerSourceCidr, 1));
    let wish = balancer(&["198.51.100.0/24", "203.0.113.0/24"]);
    let changes = node.set([(0, Some(&wish)), (1, Some(&Drawn::plain(1, "r")))]);
    let reports = node.sync(&changes);
    assert_eq!(isolated(&reports), [name_of(0)].into());
    let reason = &reports[0].isolated[0].reason;
    assert!(
        reason.contains("KUBE-LOAD-BALANCER-SOURCE-CIDR") && reason.contains("198.51.100.0/24"),
        "{reason}"
    );
    let held = node.held();
    assert!(right.servers.keys().all(|key| held.servers.get(key) == right.servers.get(key)));
    let ranges = (Family::V4, IpSet::LoadBalancerSourceCidr);
    assert_eq!(held.sets[&ranges], right.sets[&ranges]);
    assert!(held.servers.contains_key(&server(TCP, 1)), "others are served");

    // Room comes from the Service itself, once it wants less.
    node.change(0, Some(&balancer(&["192.0.2.0/24"])));
    node.is_right();
}
