//! Endpoints of TCP that are no longer wanted go when their connections have ended, and not before.

use std::time::Duration;

use portcullis_modes::Mode;
use portcullis_modes::ipvs::ServerChange;

use crate::cluster::Drawn;
use crate::hot_path::{place, real, server};
use crate::node::{Node, repairs};

const TCP: u8 = 6;

/// What is asked of the virtual server of Service 0.
fn set(endpoint: u8, weight: u32) -> ServerChange {
    ServerChange::SetRealServer(server(TCP, 0), real(endpoint, weight))
}

fn deleted(endpoint: u8) -> ServerChange {
    ServerChange::DeleteRealServer(server(TCP, 0), place(endpoint))
}

/// A Service of which endpoint 2, with connections or without, is no longer wanted.
fn draining(active: u32, inactive: u32) -> Node {
    let mut node = Node::serving(&[(0, Drawn::plain(0, "rr"))]);
    node.kernel.state().connect(&server(TCP, 0), place(2), active, inactive);
    node.change(0, Some(&Drawn::plain(0, "r")));
    assert_eq!(node.kernel.state().server_changes(), [set(2, 0)]);
    node.is_right();
    node.forget_log();
    node
}

fn changes(node: &Node) -> Vec<ServerChange> {
    let changes = node.kernel.state().server_changes();
    node.forget_log();
    changes
}

#[test]
fn without_connections_it_goes_soon() {
    let mut node = draining(0, 0);
    assert_eq!(node.proxier.next_due(), Some(node.now + Duration::from_secs(1)));
    node.wait(Duration::from_millis(999));
    assert_eq!(changes(&node), []);
    node.wait(Duration::from_millis(1));
    assert_eq!(changes(&node), [deleted(2)]);
    assert_eq!(node.proxier.next_due(), None);
}

#[test]
fn with_connections_it_stays_until_they_end() {
    for (active, inactive) in [(1, 0), (0, 1), (7, 9)] {
        let mut node = draining(active, inactive);
        node.wait(Duration::from_secs(3600));
        assert_eq!(changes(&node), []);
        let reads = node.kernel.state().reads;
        node.kernel.state().connect(&server(TCP, 0), place(2), 0, 0);
        node.wait(Duration::from_secs(60));
        assert_eq!(changes(&node), [deleted(2)]);
        assert!(reads < 70, "counted {reads} times in an hour");
        node.is_right();
    }
}

#[test]
fn one_that_comes_back_gets_its_weight_back() {
    let mut node = draining(3, 0);
    node.wait(Duration::from_secs(30));
    node.forget_log();
    node.change(0, Some(&Drawn::plain(0, "rr")));
    assert_eq!(changes(&node), [set(2, 1)]);
    node.kernel.state().connect(&server(TCP, 0), place(2), 0, 0);
    node.wait(Duration::from_secs(600));
    assert_eq!(changes(&node), []);
    assert_eq!(node.proxier.next_due(), None);
    node.is_right();
}

/// Between the count and the deletion it may come back, or go by itself.
#[test]
fn one_that_somebody_else_deleted_is_forgotten_or_made_anew() {
    let mut node = draining(1, 0);
    node.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&place(2));
    node.wait(Duration::from_secs(100));
    assert_eq!((changes(&node), node.proxier.next_due()), (vec![], None));

    let mut node = draining(1, 0);
    node.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&place(2));
    node.change(0, Some(&Drawn::plain(0, "rr")));
    assert_eq!(changes(&node), [set(2, 1), ServerChange::AddRealServer(server(TCP, 0), real(2, 1))]);
    node.wait(Duration::from_secs(100));
    assert_eq!((changes(&node), node.proxier.next_due()), (vec![], None));
    node.is_right();
}

#[test]
fn a_deleted_service_waits_for_nobody() {
    let mut node = draining(5, 5);
    node.change(0, None);
    assert_eq!(changes(&node), [ServerChange::DeleteServer(server(TCP, 0))]);
    assert_eq!(node.proxier.next_due(), None);
    // One of the same address starts from nothing.
    node.change(1, Some(&Drawn { cluster_ip: 0, ..Drawn::plain(1, "rr") }));
    node.wait(Duration::from_secs(100));
    node.is_right();
    assert_eq!(node.proxier.next_due(), None);
}

#[test]
fn after_a_restart_what_was_left_without_weight_goes_on_or_comes_back() {
    let mut node = draining(1, 0);
    node.restart();
    assert_eq!(repairs(&node.settle(&[])), 0);
    node.wait(Duration::from_secs(300));
    assert_eq!(changes(&node), []);
    node.kernel.state().connect(&server(TCP, 0), place(2), 0, 0);
    node.wait(Duration::from_secs(60));
    assert_eq!(changes(&node), [deleted(2)]);

    let mut node = draining(1, 0);
    node.cluster.set(0, Some(&Drawn::plain(0, "rr")));
    node.restart();
    assert_eq!(repairs(&node.settle(&[])), 0);
    assert_eq!(changes(&node), [set(2, 1)]);
    node.wait(Duration::from_secs(300));
    assert_eq!(changes(&node), []);
    node.is_right();
}

/// The sync that was to take its weight failed before the kernel heard of it.
#[test]
fn one_whose_drain_failed_and_that_comes_back_stays() {
    for fails_after in 0..3 {
        let mut node = Node::serving(&[(0, Drawn::plain(0, "rr"))]);
        let changes = node.set([(0, Some(&Drawn::plain(0, "r")))]);
        node.kernel.state().fails_after = Some(fails_after);
        node.sync(&changes);
        node.kernel.state().fails_after = None;
        node.change(0, Some(&Drawn::plain(0, "rr")));
        node.wait(Duration::from_secs(100));
        node.is_right();
        assert_eq!(node.kernel.state().servers[&server(TCP, 0)].real.len(), 2);
    }
}

/// Only the virtual server that an endpoint leaves is counted.
#[test]
fn each_waits_for_itself() {
    let both = |endpoints| Drawn { ports: "tts", ..Drawn::plain(0, endpoints) };
    let mut node = Node::serving(&[(0, both("rr"))]);
    node.kernel.state().connect(&server(TCP, 0), place(2), 1, 0);
    node.change(0, Some(&both("r")));
    assert_eq!(node.kernel.state().server_changes().len(), 3);
    node.wait(Duration::from_secs(10));
    let left = |node: &Node| node.kernel.state().servers.values().map(|s| s.real.len()).sum::<usize>();
    assert_eq!(left(&node), 4);
    node.kernel.state().connect(&server(TCP, 0), place(2), 0, 0);
    node.wait(Duration::from_secs(60));
    assert_eq!(left(&node), 3);
}
