//! Convergence: after each sync the kernel has exactly the rendered objects, for random changes of cluster and node.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};
use portcullis_netlink::ip_vs::{RealServer, VirtualServer, VirtualServerConfig};
use proptest::prelude::*;

use crate::cluster::{SERVICES, TestService, any_service};
use crate::node::{Node, assert_no_errors, host, restored};
use crate::write_order;

/// A step of a test.
#[derive(Clone, Debug)]
enum Step {
    /// Sets or deletes Services, and syncs.
    Change(Vec<(usize, Option<TestService>)>),
    /// Changes the node's addresses and options.
    Facts(u8),
    /// Changes the node's addresses and options and Services in one sync.
    FactsAndChange(u8, Vec<(usize, Option<TestService>)>),
    /// Adds connections to some real servers, or removes all.
    Connections(bool),
    /// Advances the clock.
    Wait(u64),
    /// Restarts the daemon.
    Restart,
    /// Restarts the daemon after another process has added virtual servers.
    RestartWithForeignServers,
}

fn changes() -> impl Strategy<Value = Vec<(usize, Option<TestService>)>> {
    proptest::collection::vec((0..SERVICES, proptest::option::weighted(0.8, any_service())), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => changes().prop_map(Step::Change),
        2 => any::<u8>().prop_map(Step::Facts),
        1 => (any::<u8>(), changes()).prop_map(|(facts, changes)| Step::FactsAndChange(facts, changes)),
        1 => any::<bool>().prop_map(Step::Connections),
        2 => (0..100u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => Just(Step::RestartWithForeignServers),
    ]
}

/// Returns options and node facts for the bits of a number.
fn facts(bits: u8) -> (Options, NodeFacts) {
    let bit = |n: u8| bits & (1 << n) != 0;
    let mut host = host();
    let mut addresses = host.addresses.to_vec();
    if bit(0) {
        // The node gets an address that is an external IP of Services.
        addresses.extend(["192.0.2.12", "2001:db8::12"].map(|ip| ip.parse::<IpAddr>().expect("an address")));
    }
    if bit(1) {
        addresses.retain(|ip| *ip != host.node_ips[0]);
        host.node_ips = ["192.0.2.2", "2001:db8::1"].map(|ip| ip.parse().expect("an address")).into();
    }
    host.addresses = addresses.into();
    let nets = |text: &[&str]| text.iter().map(|net| net.parse().expect("a block")).collect();
    let node_port_addresses = match bits >> 2 & 3 {
        0 => NodePortAddresses::Primary { localhost: bit(4) },
        1 => NodePortAddresses::Cidrs { cidrs: nets(&["192.0.2.2/32", "127.0.0.0/8"]), localhost: false },
        _ => NodePortAddresses::All,
    };
    let detect_local = DetectLocal::Cidrs(if bit(5) { nets(&["10.244.0.0/16"]) } else { nets(&[]) });
    let masquerade_all = bit(6);
    (Options { node_port_addresses, detect_local, masquerade_all, ..Options::default() }, host)
}

/// Adds virtual servers of another program: excluded ones, unknown ones, and ones with a Service's address.
fn add_foreign_servers(node: &Node) {
    let at = |address: &str, port| VirtualServer {
        protocol: 6,
        address: address.parse().expect("an address"),
        port,
    };
    let real = |address: &str| RealServer { address: address.parse().expect("one"), port: 1, weight: 3 };
    let mut state = node.kernel.state();
    for (v4, v6) in [("10.99.0.1", "fd00:99::1"), ("10.98.0.1", "fd00:98::1"), ("10.96.0.1", "fd00:96::1")] {
        let family = portcullis_netlink::Family::V4;
        state.put(
            at(v4, 80),
            VirtualServerConfig::new("wrr", family),
            &[real("10.9.9.9"), real("10.244.0.1")],
        );
        let family = portcullis_netlink::Family::V6;
        state.put(at(v6, 80), VirtualServerConfig::new("wrr", family), &[real("fd00:9::9")]);
    }
    state.link.get_or_insert_default().insert(IpAddr::from([10, 98, 0, 1]));
}

fn count_excluded_servers(node: &Node) -> usize {
    let state = node.kernel.state();
    let excluded = |ip: &IpAddr| node.ipvs.exclude_cidrs.iter().any(|net| net.contains(ip));
    state.servers.keys().filter(|key| excluded(&key.address)).count()
}

fn connect_some(node: &Node, some: bool) {
    let mut state = node.kernel.state();
    let all: Vec<_> =
        state.servers.iter().flat_map(|(key, server)| server.real.keys().map(|real| (*key, *real))).collect();
    for (i, (key, real)) in all.into_iter().enumerate() {
        let active = u32::from(some && i % 2 == 0);
        state.connect(&key, real, active, active);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(200)))]

    #[test]
    fn the_kernel_has_the_desired_objects_after_each_sync(foreign in any::<bool>(), steps in proptest::collection::vec(step(), 1..15)) {
        let mut node = Node::new();
        let mut excluded = 0;
        if foreign {
            add_foreign_servers(&node);
            excluded = count_excluded_servers(&node);
        }
        node.sync_without_rejections(&[]);
        for step in steps {
            let before = write_order::KernelModel::read(&node);
            node.clear_log();
            match &step {
                Step::Change(services) => {
                    let changes = node.set(services.iter().map(|(n, service)| (*n, service.as_ref())));
                    let reports = node.sync_without_rejections(&changes);
                    prop_assert_eq!(restored(&reports), 0);
                    prop_assert!(reports.iter().all(|report| !report.is_full));
                }
                Step::Facts(bits) => {
                    let (options, host) = facts(*bits);
                    node.reconfigure(options, host);
                    prop_assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
                }
                Step::FactsAndChange(bits, services) => {
                    let (options, host) = facts(*bits);
                    node.reconfigure(options, host);
                    let changes = node.set(services.iter().map(|(n, service)| (*n, service.as_ref())));
                    prop_assert_eq!(restored(&node.sync_without_rejections(&changes)), 0);
                }
                Step::Connections(some) => connect_some(&node, *some),
                Step::Wait(seconds) => node.wait(Duration::from_secs(*seconds)),
                Step::Restart => {
                    node.restart();
                    let reports = node.sync_without_rejections(&[]);
                    prop_assert_eq!(restored(&reports), 0);
                    prop_assert_eq!(&node.kernel.state().log[..], &[], "nothing changed");
                }
                Step::RestartWithForeignServers => {
                    add_foreign_servers(&node);
                    excluded = count_excluded_servers(&node);
                    node.restart();
                    let reports = node.sync_without_rejections(&[]);
                    prop_assert_eq!(restored(&reports), 0, "objects from before the start are no drift");
                }
            }
            write_order::check(before, &node);
            node.assert_in_sync();
            prop_assert_eq!(count_excluded_servers(&node), excluded);
        }
        prop_assert_eq!(node.run_audits(), 0, "no external change");
    }
}

/// The first sync programs all desired Services, also without changes.
#[test]
fn the_first_sync_needs_no_changes() {
    let mut node = Node::new();
    for n in 0..SERVICES {
        node.cluster.set(n, Some(&TestService::plain(n, "rr")));
    }
    assert_no_errors(&node.sync(&[]));
    node.assert_in_sync();
    assert_eq!(node.kernel.state().servers.len(), SERVICES);
}

/// More changes than fit in one send.
#[test]
fn many_services_are_programmed_in_several_sends() {
    let mut node = Node::new();
    for endpoints in ["r", "rr", "", "r-r"] {
        let services: Vec<_> = (0..1200).map(|n| (n, TestService::many(n, endpoints))).collect();
        let changes = node.set(services.iter().map(|(n, service)| (*n, Some(service))));
        assert_no_errors(&node.sync(&changes));
        node.assert_in_sync();
        node.restart();
        node.clear_log();
        assert_no_errors(&node.sync(&changes));
        assert_eq!(node.kernel.state().log, []);
    }
    let changes = node.set((0..1200).map(|n| (n, None)));
    assert_no_errors(&node.sync(&changes));
    node.assert_in_sync();
    assert!(node.kernel.state().servers.is_empty());
}

/// A node with one family.
#[test]
fn objects_of_the_other_family_are_not_changed() {
    let mut node = Node::new();
    node.keep_family(Family::V4);
    add_foreign_servers(&node);
    let both = TestService { families: &[4, 6], ..TestService::plain(0, "rr") };
    node.change(0, Some(&both));
    let state = node.kernel.state();
    let v6: Vec<_> = state.servers.keys().filter(|key| key.address.is_ipv6()).collect();
    assert_eq!(v6.len(), 3, "those of the other family");
    assert!(state.sets.keys().all(|name| !name.starts_with("KUBE-6-")));
}
