//! Changes of Services while their clients send: as long as a Service has endpoints, no datagram and no connection is lost, rejected
//! or sent to a wrong endpoint in the moment of a change.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "../../../netlink/tests/namespace/veth.rs"]
mod veth;

mod services;
mod testbed;
mod traffic;

use std::net::IpAddr;
use std::time::Instant;

use portcullis_cluster::Family;
use portcullis_cluster::desired::ServiceChange;
use portcullis_modes::iptables::{Flavour, IptablesFeatures, IptablesProxier, Tools};
use portcullis_modes::nftables::NftablesProxier;
use portcullis_modes::{DetectLocal, Mode, NodeFacts, NodePortAddresses, Options};
use portcullis_netlink::nf_tables;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::namespace::inside;
use crate::services::{
    Client, Cluster, Frontend, NODE, SERVED, Step, initial, is_external, source_ranges, step,
};
use crate::testbed::Testbed;
use crate::traffic::{Path, while_clients_send};

/// Random changes until a new daemon takes over.
const CHANGES_OF_DAEMON: usize = 500;

fn options() -> Options {
    let pods = ["10.244.0.0/16", "10.245.0.0/16"].map(|block| block.parse().unwrap());
    Options {
        detect_local: DetectLocal::Cidrs(Box::new(pods)),
        node_port_addresses: NodePortAddresses::Primary { localhost: false },
        localhost_node_ports: false,
        ..Options::default()
    }
}

fn node_facts() -> NodeFacts {
    NodeFacts {
        addresses: Box::new([IpAddr::V4(NODE), "192.0.2.1".parse().unwrap()]),
        node_ips: Box::new([IpAddr::V4(NODE)]),
        iptables: IptablesFeatures { random_fully: true, nfacct: false },
        ..NodeFacts::default()
    }
}

fn nftables() -> Box<dyn Mode> {
    let socket = nf_tables::open().unwrap().expect("the kernel has nf_tables");
    Box::new(NftablesProxier::new(options(), node_facts(), &[Family::V4], socket))
}

fn iptables(flavour: Flavour) -> Box<dyn Mode> {
    let kernel = Tools::of_flavour(flavour).unwrap().kernel(Family::V4);
    Box::new(IptablesProxier::new(options(), node_facts(), [(Family::V4, kernel)]))
}

/// A node that follows a cluster.
struct Node {
    cluster: Cluster,
    mode: Box<dyn Mode>,
}

impl Node {
    fn sync(&mut self, changes: &[ServiceChange]) {
        for result in self.mode.sync(&self.cluster.desired, changes) {
            assert!(result.error.is_none() && result.isolated.is_empty(), "{result:?}");
        }
    }

    /// Removes what is due.
    fn remove_due(&mut self) {
        if self.mode.next_due().is_some_and(|due| due <= Instant::now()) {
            self.sync(&[]);
        }
    }
}

/// Returns the clients of all frontends of the Services that always have endpoints.
fn paths() -> Vec<Path> {
    let frontends = [Frontend::ClusterIp, Frontend::LoadBalancerIp, Frontend::NodePort];
    let clients = [Client::Pod, Client::Outside, Client::Node];
    let of_service = |service: usize| {
        let frontends =
            frontends.into_iter().filter(move |one| *one == Frontend::ClusterIp || is_external(service));
        frontends.flat_map(move |frontend| clients.map(|client| Path { service, frontend, client }))
    };
    (0..SERVED).flat_map(of_service).collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
}

/// Makes random changes. `CHANGES` and `SEED` set other numbers.
fn check_random_changes(mode: fn() -> Box<dyn Mode>, changes: u64) {
    check_changes(mode, changes, CHANGES_OF_DAEMON, |runner, _| step().new_tree(runner).unwrap().current());
}

/// Makes changes of random Services. `next` returns each of them, by its number. A new daemon takes over after each
/// `changes_of_daemon`.
fn check_changes(
    mode: fn() -> Box<dyn Mode>,
    changes: u64,
    changes_of_daemon: usize,
    next: impl Fn(&mut TestRunner, usize) -> Step + Sync + Send,
) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number("SEED", 1).to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let changes = number("CHANGES", changes);
    inside(|| {
        let testbed = Testbed::new();
        let mut node = Node { cluster: Cluster::new(), mode: mode() };
        let services = initial().new_tree(&mut runner).unwrap().current();
        let services: Vec<_> = services.into_iter().map(Some).enumerate().collect();
        let first = node.cluster.apply(&services);
        node.sync(&first);
        testbed.forget_datagrams();
        let state = node.cluster.state.clone();
        let counts = while_clients_send(&testbed, &paths(), &state, |next_step| {
            for number in 1..=changes as usize {
                let changes = next(&mut runner, number).changes(&node.cluster.state);
                let mut state = node.cluster.state.clone();
                changes.iter().for_each(|(service, version)| state[*service] = version.clone());
                next_step(format!("{changes:?}"), &state);
                let changes = node.cluster.apply(&changes);
                node.sync(&changes);
                node.remove_due();
                if number.is_multiple_of(changes_of_daemon) {
                    next_step(format!("a new daemon after {number} changes"), &state);
                    node.cluster.restart();
                    node.mode = mode();
                    node.sync(&[]);
                }
            }
        });
        println!("{changes} changes, {counts:?}, none lost or sent to a wrong endpoint");
        assert!(counts.datagrams > 1_000 && counts.connections > 50, "{counts:?}");
    });
}

#[test]
fn packets_reach_an_endpoint_while_services_change_in_nftables_mode() {
    check_random_changes(nftables, 3_000);
}

/// The kernel publishes ranges a moment after other elements. A new daemon removes the previous ranges immediately, so that they do not
/// hide this.
#[test]
fn allowed_sources_pass_while_source_ranges_come_and_go() {
    check_changes(nftables, 300, 1, |_, number| source_ranges(number));
}

#[test]
fn packets_reach_an_endpoint_while_services_change_in_iptables_mode() {
    check_random_changes(|| iptables(Flavour::Legacy), 100);
}

#[test]
fn packets_reach_an_endpoint_while_services_change_in_iptables_mode_by_nft() {
    check_random_changes(|| iptables(Flavour::Nft), 100);
}
